import t from 'tap'
import { crc32c } from '../../src/codec/crc32c.ts'
import { sequence } from '../../src/base/ids.ts'
import { heartbeatIntervalMillis, heartbeatTimeoutMillis, sessionsMax } from '../../src/base/limits.ts'
import { creditWindowBytes } from '../../src/ingest/credit.ts'
import { encodeFrame } from '../../src/wire/wire.ts'
import { batchAt, hello, largeBatchAt, marker, openBench, sampleVpg, TestPeer, until } from '../support/wire-ingest.ts'
import { buildBatch, guestBytes, position, seededRandom } from '../support/wire-samples.ts'

t.test('a batch is acknowledged when it is durable, not before, and stands in the journal as it was sent', async t => {
  const bench = await openBench(t, { automatic: false })
  const peer = await TestPeer.open(bench)
  const frames = [batchAt(1, 3), batchAt(4, 2)]
  for (const frame of frames) peer.sendBytes(frame)
  await until('both are appended', () => bench.journal.waitingCount === 2)
  t.equal(peer.acked, 0, 'no Ack yet')
  bench.journal.sync(1)
  await until('an Ack', () => peer.acked === 3)
  bench.journal.sync()
  await until('an Ack', () => peer.acked === 5)
  for (const [index, frame] of frames.entries()) {
    const record = bench.journal.durable[index]
    t.ok(record?.frame.equals(frame))
    t.equal(record?.fields.frameCrc32c, crc32c(frame), 'its checksum is that of every byte')
  }
  t.match(bench.journal.durable[1]?.fields, { kind: 'batch', stream: 1, epoch: 3, firstSequence: 4, lastSequence: 5 })
  t.equal(bench.events.durableWriteCount, 5)
})

t.test('one Ack tells of a whole group', async t => {
  const bench = await openBench(t, { automatic: false })
  const peer = await TestPeer.open(bench)
  for (let next = 1; next <= 50; next++) peer.sendBytes(batchAt(next))
  await until('all are appended', () => bench.journal.waitingCount === 50)
  bench.journal.sync()
  await until('an Ack', () => peer.acked === 50)
  t.equal(peer.received.filter(message => message.type === 'ack').length, 1)
})

t.test('bytes that come one at a time make the same records', async t => {
  const bench = await openBench(t, { automatic: true })
  const peer = TestPeer.connect(bench.ingest.port)
  peer.socket.setNoDelay(true)
  const drip = async (bytes: Buffer): Promise<void> => {
    for (const byte of bytes) {
      peer.sendBytes(Buffer.of(byte))
      await new Promise(resolve => setImmediate(resolve))
    }
  }
  await drip(encodeFrame(hello()))
  await until('a Welcome', () => peer.welcome !== undefined)
  const frames = [batchAt(1, 2), encodeFrame(marker(3)), batchAt(4)]
  for (const frame of frames) await drip(frame)
  await until('an Ack', () => peer.acked === 4)
  t.ok(Buffer.concat(bench.journal.durable.map(record => record.frame)).equals(Buffer.concat(frames)))
})

t.test('large frames are stored as they were sent, wherever the connection cuts them', async t => {
  const bench = await openBench(t, { automatic: true })
  const peer = await TestPeer.open(bench)
  const frames = [largeBatchAt(1), batchAt(9), largeBatchAt(10), largeBatchAt(18)]
  const bytes = Buffer.concat(frames)
  const random = seededRandom(7)
  for (let at = 0; at < bytes.length;) {
    const sizeBytes = 1 + Math.floor(random() * 100_000)
    peer.sendBytes(bytes.subarray(at, at + sizeBytes))
    await new Promise(resolve => setImmediate(resolve))
    at += sizeBytes
  }
  await until('an Ack', () => peer.acked === 25)
  t.ok(Buffer.concat(bench.journal.durable.map(record => record.frame)).equals(bytes))
})

t.test('what is received after the end of a session changes nothing in the room that its frame gave back', async t => {
  const bench = await openBench(t, { automatic: true })
  const peer = await TestPeer.open(bench)
  const frame = largeBatchAt(1)
  const cut = 100_000
  peer.sendBytes(frame.subarray(0, cut))
  await until('room for the frame', () => bench.journal.openSlots.size === 1)
  const [slot] = bench.journal.openSlots
  await until('the first bytes', () => slot?.frame[cut - 1] === frame[cut - 1])
  await TestPeer.open(bench) // a newer session of the same agent ends the older one
  t.equal(bench.journal.openSlots.size, 0)
  const before = Buffer.from(slot?.frame ?? [])
  peer.sendBytes(frame.subarray(cut))
  peer.socket.end()
  await until('the end of the first connection', () => bench.ingest.sessionCount === 1)
  t.equal(peer.error, 'SESSION_SUPERSEDED')
  t.ok(before.equals(Buffer.from(slot?.frame ?? [])))
})

t.test('a lost Ack costs nothing: the agent resumes, and what it sends twice is stored once', async t => {
  const bench = await openBench(t, { automatic: true })
  const first = await TestPeer.open(bench)
  first.sendBytes(batchAt(1, 4))
  await until('an Ack', () => first.acked === 4)
  first.socket.destroy()
  // The agent believes that nothing arrived.
  const second = await TestPeer.open(bench, { resumableFrom: position(1, 0), lastNumbered: position(1, 6) })
  t.same(second.welcome?.durable, position(1, 4))
  second.sendBytes(batchAt(1, 2))
  second.sendBytes(batchAt(3, 2))
  second.sendBytes(batchAt(5, 2))
  await until('an Ack', () => second.acked === 6)
  t.same(
    bench.journal.durable.map(record => record.fields.firstSequence),
    [1, 5],
  )
  t.equal(bench.events.duplicateCount, 2)
})

t.test('a VRA that was restarted goes on from what recovery found, or says that it cannot', async t => {
  const durable = [{ stream: 1, generation: 2, sequence: sequence(100) }]
  const vpgs = [sampleVpg({ durable, offloaded: [{ stream: 1, generation: 2, sequence: sequence(40) }] })]
  const bench = await openBench(t, { automatic: true, vpgs })
  const positions = (from: number, last: number) => ({
    resumableFrom: position(2, from),
    lastNumbered: position(2, last),
  })
  for (const [from, last] of [
    [101, 120],
    [0, 99],
  ] as const) {
    const peer = TestPeer.connect(bench.ingest.port)
    peer.send(hello(positions(from, last)))
    t.equal(await peer.refusal(), 'SYNC_REQUIRED', `resumable from ${from}, numbered ${last}`)
  }
  const peer = await TestPeer.open(bench, positions(90, 120))
  t.same(peer.welcome?.durable, position(2, 100))
  t.same(peer.welcome?.offloaded, position(2, 40))
  peer.sendBytes(batchAt(101, 1, 2))
  await until('an Ack', () => peer.acked === 101)
})

t.test('a newer session is answered only when what the older one sent is durable', async t => {
  const bench = await openBench(t, { automatic: false })
  const old = await TestPeer.open(bench)
  old.sendBytes(batchAt(1, 2))
  const partial = batchAt(3)
  old.sendBytes(partial.subarray(0, partial.length - 1))
  await until('a frame and a half', () => bench.journal.waitingCount === 1 && bench.journal.openSlots.size === 1)

  const young = TestPeer.connect(bench.ingest.port)
  young.send(hello({ lastNumbered: position(1, 3) }))
  t.equal(await old.refusal(), 'SESSION_SUPERSEDED')
  t.equal(bench.journal.openSlots.size, 0, 'the partial frame is dropped')
  t.equal(young.welcome, undefined, 'no answer while a frame is in flight')
  bench.journal.sync()
  await until('a Welcome', () => young.welcome !== undefined)
  t.same(young.welcome?.durable, position(1, 2))
  bench.journal.automatic = true
  young.sendBytes(batchAt(3))
  await until('an Ack', () => young.acked === 3)
  t.same(bench.events.ended, ['SESSION_SUPERSEDED'])
})

t.test('a session number that is not higher is refused, and the running session goes on', async t => {
  const bench = await openBench(t, { automatic: true })
  const peer = TestPeer.connect(bench.ingest.port)
  const own = hello()
  peer.send(own)
  await until('a Welcome', () => peer.welcome !== undefined)
  for (const sessionNumber of [own.sessionNumber, own.sessionNumber - 1]) {
    const late = TestPeer.connect(bench.ingest.port)
    late.send(hello({ sessionNumber }))
    t.equal(await late.refusal(), 'SESSION_SUPERSEDED')
  }
  peer.sendBytes(batchAt(1))
  await until('an Ack', () => peer.acked === 1)
})

t.test('an agent that forgot what it sent is told to synchronise, also while it is still in flight', async t => {
  const bench = await openBench(t, { automatic: false })
  const old = await TestPeer.open(bench)
  old.sendBytes(batchAt(1))
  await until('it is appended', () => bench.journal.waitingCount === 1)
  const young = TestPeer.connect(bench.ingest.port)
  young.send(hello())
  await old.refusal()
  bench.journal.sync()
  t.equal(await young.refusal(), 'SYNC_REQUIRED')
})

t.test('while the journal has no room nothing is read, and nothing is lost', async t => {
  const bench = await openBench(t, { automatic: true })
  const peer = await TestPeer.open(bench)
  bench.journal.resizePool(0)
  peer.sendBytes(Buffer.concat([batchAt(1), batchAt(2), encodeFrame(marker(3))]))
  await until('reading is paused', () => bench.events.pauseCount === 1)
  await bench.clock.advance(3 * heartbeatTimeoutMillis)
  t.same(bench.events.ended, [], 'a silence that we made ends nothing')
  bench.journal.resizePool(batchAt(1).length)
  await until('the first is durable', () => bench.journal.durable.length >= 1)
  bench.journal.resizePool(2 ** 20)
  await until('an Ack', () => peer.acked === 3)
  t.equal(bench.events.pauseCount, bench.events.resumeCount)
})

t.test('credit comes back when frames are durable, and never falls', async t => {
  const bench = await openBench(t, { automatic: false })
  const peer = await TestPeer.open(bench)
  const granted = [peer.welcome?.creditBytes ?? 0]
  let sentBytes = 0
  for (let next = 1; next <= 20; next++) {
    const frame = batchAt(next)
    sentBytes += frame.length
    peer.sendBytes(frame)
    await until('it is appended', () => bench.journal.waitingCount === 1)
    bench.journal.sync()
    await until('an Ack', () => peer.acked === next)
    granted.push(peer.received.filter(message => message.type === 'ack').at(-1)?.creditBytes ?? 0)
  }
  t.ok(
    granted.every((credit, index) => index === 0 || credit > (granted[index - 1] ?? Infinity)),
    'it rises with every Ack',
  )
  t.equal(granted.at(-1), (granted[0] ?? 0) + sentBytes, 'by what became durable')
  t.ok(creditWindowBytes(1) > creditWindowBytes(40), 'many sessions have less each')
  t.equal(creditWindowBytes(sessionsMax), creditWindowBytes(10 * sessionsMax), 'but never less than a frame')
})

t.test('duplicates give their credit back at once', async t => {
  const bench = await openBench(t, { automatic: true })
  const first = await TestPeer.open(bench)
  const random = seededRandom(5)
  const data = guestBytes(random, 512 * 1024)
  const frame = buildBatch([{ volume: 1, offsetBytes: 0, lengthBytes: data.length, data }], {
    generation: 1,
    firstSequence: 1,
  })
  first.sendBytes(frame)
  await until('an Ack', () => first.acked === 1)
  const peer = await TestPeer.open(bench, { resumableFrom: position(1, 0), lastNumbered: position(1, 1) })
  const before = peer.welcome?.creditBytes ?? 0
  peer.sendBytes(frame)
  await until('an Ack', () => peer.acked === 1)
  const ack = peer.received.find(message => message.type === 'ack')
  t.equal(ack?.creditBytes, before + frame.length)
})

t.test('both marks are told: offloaded rises without a write', async t => {
  const bench = await openBench(t, { automatic: true })
  const peer = await TestPeer.open(bench)
  peer.sendBytes(batchAt(1, 5))
  await until('an Ack', () => peer.acked === 5)
  const at = { stream: 1, generation: 1, sequence: sequence(3) }
  const { id } = sampleVpg().definition
  bench.ingest.offloaded(id, [at])
  bench.ingest.offloaded(id, [{ ...at, sequence: sequence(2) }])
  const lastAck = () => peer.received.filter(message => message.type === 'ack').at(-1)
  await until('it is told', () => lastAck()?.offloaded.sequence === 3)
  t.same(bench.ingest.status(id).streams[0]?.offloaded, position(1, 3), 'it does not fall')
})

t.test('a peer that is silent, greets never or leaves a frame unfinished is ended by the clock', async t => {
  const bench = await openBench(t, { automatic: true, vpgs: [sampleVpg(), sampleVpg({ name: 'second' })] })
  const mute = TestPeer.connect(bench.ingest.port)
  const half = await TestPeer.open(bench)
  const slow = await TestPeer.open(bench, { vpg: 'second', agent: 'second-host' })
  await until('three sessions', () => bench.ingest.sessionCount === 3)
  slow.sendBytes(batchAt(1).subarray(0, 40))
  await until('a slot', () => bench.journal.openSlots.size === 1)
  await bench.clock.advance(heartbeatIntervalMillis + 500)
  await until('a heartbeat', () => half.received.some(message => message.type === 'heartbeat'))
  for (let beat = 0; beat < 8; beat++) {
    await bench.clock.advance(heartbeatTimeoutMillis - 1000)
    // One more byte of the same frame keeps the silence away, not the frame's own bound.
    const before = slow.socket.bytesWritten
    slow.sendBytes(Buffer.of(0))
    await until('it is sent', () => slow.closed || slow.socket.bytesWritten > before)
    for (let turn = 0; turn < 20; turn++) await new Promise(resolve => setImmediate(resolve))
  }
  t.equal(await mute.refusal(), 'TIMED_OUT')
  t.equal(await half.refusal(), 'TIMED_OUT')
  t.equal(await slow.refusal(), 'TIMED_OUT')
  t.equal(bench.journal.openSlots.size, 0)
})

t.test('an agent that keeps its heartbeats keeps its session', async t => {
  const bench = await openBench(t, { automatic: true })
  const peer = await TestPeer.open(bench)
  for (let beat = 0; beat < 5; beat++) {
    await bench.clock.advance(heartbeatTimeoutMillis - 1000)
    const statusCount = bench.events.statusCount
    peer.send({ type: 'heartbeat', timestampMicros: 1 })
    peer.send({
      type: 'agent-status',
      queuedBytes: 0,
      queuedRecords: beat,
      volumes: [],
      noCheckpointsBecause: '',
      quiescedBy: '',
    })
    await until('it is heard', () => bench.events.statusCount > statusCount)
  }
  t.same(bench.events.ended, [])
  t.equal(bench.ingest.status(sampleVpg().definition.id).streams[0]?.agentStatus?.queuedRecords, 4)
})

t.test('a peer that does not read is given up, and the others go on', async t => {
  const bench = await openBench(t, { automatic: true, vpgs: [sampleVpg(), sampleVpg({ name: 'second' })] })
  const deaf = await TestPeer.open(bench)
  const other = await TestPeer.open(bench, { vpg: 'second', agent: 'second-host' })
  deaf.socket.pause()
  const { id } = sampleVpg().definition
  for (let at = 1; !bench.events.ended.includes('PEER_LOST'); at++) {
    if (at > 2_000_000) throw new Error('it was never given up')
    bench.ingest.offloaded(id, [{ stream: 1, generation: 1, sequence: sequence(at) }])
    await Promise.resolve()
    if (at % 1000 === 0) await new Promise(resolve => setImmediate(resolve))
  }
  other.sendBytes(batchAt(1))
  await until('an Ack', () => other.acked === 1)
  t.same(bench.events.ended, ['PEER_LOST'])
  deaf.socket.destroy()
})

t.test('Goodbye ends a session in order; a VPG that is deleted and a VRA that closes say CLOSING', async t => {
  const bench = await openBench(t, { automatic: true })
  const first = await TestPeer.open(bench)
  first.send({ type: 'goodbye' })
  t.equal(await first.refusal(), undefined)
  const second = await TestPeer.open(bench)
  const { id } = sampleVpg().definition
  bench.ingest.removeVpg(id)
  t.equal(await second.refusal(), 'CLOSING')
  const third = TestPeer.connect(bench.ingest.port)
  third.send(hello())
  t.equal(await third.refusal(), 'UNKNOWN_VPG')
  bench.ingest.addVpg(sampleVpg())
  const fourth = await TestPeer.open(bench)
  await bench.ingest.close()
  t.equal(await fourth.refusal(), 'CLOSING')
  t.same(bench.events.ended, ['GOODBYE', 'CLOSING', 'UNKNOWN_VPG', 'CLOSING'])
})

t.test(
  'a VPG of which nothing is taken ends its sessions, refuses others, says why, and goes on where it was',
  async t => {
    const bench = await openBench(t, { automatic: true })
    const peer = await TestPeer.open(bench)
    peer.sendBytes(batchAt(1, 4))
    await until('an Ack', () => peer.acked === 4)
    const { id } = sampleVpg().definition
    bench.ingest.stopIntake(id, 'the manifest is damaged')
    await until('the end of the session', () => bench.ingest.sessionCount === 0)
    t.equal(peer.error, 'CLOSING')
    const refused = TestPeer.connect(bench.ingest.port)
    refused.sendBytes(encodeFrame(hello()))
    await until('a refusal', () => refused.error !== undefined)
    t.equal(refused.error, 'BUSY')
    t.equal(bench.ingest.status(id).noCheckpointsBecause, 'the manifest is damaged')
    bench.ingest.stopIntake(id, undefined)
    const again = await TestPeer.open(bench, { resumableFrom: position(1, 0), lastNumbered: position(1, 4) })
    t.same(again.welcome?.durable, position(1, 4))
  },
)
