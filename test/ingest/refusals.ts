import t, { type Test } from 'tap'
import { crc32c } from '../../src/codec/crc32c.ts'
import { encodeFrame } from '../../src/wire/wire.ts'
import { ordinal, sequence } from '../../src/base/ids.ts'
import { frameSizeBytesMax, refusalAgeMillisMax, refusalsKeptMax } from '../../src/base/limits.ts'
import type { Hello } from '../../src/wire/messages.ts'
import {
  batchAt,
  hello,
  marker,
  openBench,
  resumeAt,
  sampleVpg,
  TestPeer,
  until,
  volumeSizeBytes,
  type Bench,
} from '../support/wire-ingest.ts'
import { buildBatch, position } from '../support/wire-samples.ts'

// What bad input gets: a code to that peer and a counted event, its connection closed, nothing stored, and no other
// stream disturbed. Every case runs beside a second session that goes on writing.

const bystander = sampleVpg({ name: 'bystander' })

async function refusedBeside(t: Test, bench: Bench, peer: TestPeer, code: string, refusedCount: number): Promise<void> {
  t.equal(await peer.refusal(), code)
  t.equal(bench.events.refused.length, refusedCount, 'counted')
  t.equal(bench.events.refused.at(-1), code)
  t.equal(bench.journal.openSlots.size, 0, 'no room is held')
  t.ok(
    bench.journal.durable.every(record => record.fields.vpg === bystander.definition.id),
    'nothing of it is stored',
  )
}

async function benchWithBystander(t: Test): Promise<{ bench: Bench; write: () => Promise<void> }> {
  const bench = await openBench(t, { automatic: true, vpgs: [sampleVpg(), bystander] })
  const other = await TestPeer.open(bench, { vpg: 'bystander', agent: 'bystander-host' })
  let next = 1
  const write = async (): Promise<void> => {
    other.sendBytes(batchAt(next))
    await until('the bystander is acknowledged', () => other.acked === next)
    next++
  }
  await write()
  return { bench, write }
}

/** The frame with its header and checksum made right again. */
function sealed(frame: Buffer): Buffer {
  frame.writeUInt32LE(crc32c(frame.subarray(16), crc32c(frame.subarray(0, 12))), 12)
  return frame
}

function changed(frame: Buffer, at: number, value: number): Buffer {
  frame[at] = value
  return frame
}

function write(offsetBytes: number, lengthBytes: number, volume = 1): Buffer {
  const data = Buffer.alloc(lengthBytes)
  return buildBatch([{ volume, offsetBytes, lengthBytes, data }], { generation: 1, firstSequence: 1 })
}

t.test('a Hello that cannot be served is refused by code', async t => {
  const { bench, write } = await benchWithBystander(t)
  const volume = { name: 'root', sizeBytes: volumeSizeBytes, sync: 'none' } as const
  const cases: readonly [string, string, Partial<Hello>][] = [
    ['no common version', 'VERSION_UNSUPPORTED', { protocolVersionMin: 2, protocolVersionMax: 9 }],
    ['another VPG', 'UNKNOWN_VPG', { vpg: 'payroll' }],
    ['another agent', 'IDENTITY_REFUSED', { agent: 'intruder' }],
    ['an unknown volume alone', 'UNKNOWN_VOLUME', { volumes: [{ ...volume, name: 'data', sizeBytes: 512 }] }],
    ['a volume of another size', 'UNKNOWN_VOLUME', { volumes: [{ ...volume, sizeBytes: 512 }] }],
    ['a volume missing', 'UNKNOWN_VOLUME', { volumes: [] }],
    ['a newer epoch', 'EPOCH_SUPERSEDED', { epoch: 4 }],
    ['a term out of all bounds', 'EPOCH_SUPERSEDED', { highestTerm: 2 ** 20 - 1 }],
    ['another incarnation', 'IDENTITY_REFUSED', { incarnation: 2 }],
    ['a stream from its middle', 'SYNC_REQUIRED', resumeAt(position(1, 7))],
    ['a later generation', 'SYNC_REQUIRED', resumeAt(position(2, 0))],
  ]
  for (const [index, [what, code, changes]] of cases.entries()) {
    await t.test(what, async t => {
      const peer = TestPeer.connect(bench.ingest.port)
      peer.send(hello(changes))
      await refusedBeside(t, bench, peer, code, index + 1)
      await write()
    })
  }
})

t.test('a frame that breaks a rule is refused by code, whole or in part', async t => {
  const { bench, write: bystanderWrites } = await benchWithBystander(t)
  const oversize = encodeFrame({ type: 'goodbye' })
  oversize[5] = 3
  oversize.writeUInt32LE(2 ** 31, 8)
  const cases: readonly [string, string, Buffer][] = [
    ['a wrong checksum', 'FRAME_INVALID', changed(batchAt(1), 30, 0xee)],
    ['an unknown version', 'VERSION_UNSUPPORTED', changed(batchAt(1), 4, 9)],
    ['an oversize length', 'FRAME_INVALID', oversize],
    ['another protocol', 'FRAME_INVALID', Buffer.from('GET / HTTP/1.1\r\nHost: vra\r\n\r\n')],
    ['a VRA message', 'FRAME_INVALID', encodeFrame({ type: 'checkpoint-request', requestId: 1 })],
    ['a second Hello', 'FRAME_INVALID', encodeFrame(hello())],
    ['an unknown volume', 'UNKNOWN_VOLUME', write(0, 512, 2)],
    ['a volume of number 0', 'UNKNOWN_VOLUME', write(0, 512, 0)],
    ['a write past the end', 'OUT_OF_BOUNDS', write(volumeSizeBytes - 512, 1024)],
    ['a write past 2^53', 'OUT_OF_BOUNDS', write(2 ** 53 - 512, 512)],
    ['a batch ahead', 'SEQUENCE_GAP', batchAt(2)],
    ['a batch of another generation', 'SYNC_REQUIRED', batchAt(1, 1, 2)],
    ['a marker ahead', 'SEQUENCE_GAP', encodeFrame(marker(3))],
    ['a marker of a term that was not issued', 'FRAME_INVALID', encodeFrame(marker(1, { term: 2 }))],
    ['a marker of another stream', 'FRAME_INVALID', encodeFrame(marker(1, { participants: [1, 2] }))],
    ['a marker without its stream', 'FRAME_INVALID', encodeFrame(marker(1, { participants: [] }))],
    ['a marker without volumes', 'FRAME_INVALID', encodeFrame(marker(1, { volumes: [] }))],
    [
      'a marker with a larger volume',
      'UNKNOWN_VOLUME',
      encodeFrame(marker(1, { volumes: [{ number: 1, sizeBytes: 2 * volumeSizeBytes, included: true }] })),
    ],
    ['an empty batch', 'FRAME_INVALID', sealed(changed(encodeFrame({ type: 'goodbye' }), 5, 3))],
    ['an empty marker', 'FRAME_INVALID', sealed(changed(encodeFrame({ type: 'goodbye' }), 5, 4))],
  ]
  for (const [index, [what, code, frame]] of cases.entries()) {
    await t.test(what, async t => {
      const peer = await TestPeer.open(bench)
      peer.sendBytes(frame)
      await refusedBeside(t, bench, peer, code, index + 1)
      await bystanderWrites()
    })
  }
})

t.test('stream frames have no place before Welcome', async t => {
  const bench = await openBench(t, { automatic: true })
  const peer = TestPeer.connect(bench.ingest.port)
  peer.sendBytes(batchAt(1))
  t.equal(await peer.refusal(), 'FRAME_INVALID')
  t.equal(bench.journal.durable.length, 0)
})

t.test('a frame that straddles the durable position is refused, and nothing of it is stored', async t => {
  const bench = await openBench(t, { automatic: true })
  const peer = await TestPeer.open(bench)
  peer.sendBytes(batchAt(1, 4))
  await until('an Ack', () => peer.acked === 4)
  peer.sendBytes(batchAt(3, 4))
  t.equal(await peer.refusal(), 'SEQUENCE_GAP')
  t.equal(bench.journal.durable.length, 1)
})

t.test('a marker that is not above the one before is refused, in the same process and after a restart', async t => {
  const bench = await openBench(t, { automatic: true })
  const peer = await TestPeer.open(bench)
  peer.send(marker(1, { counter: 5 }))
  peer.send(marker(2, { counter: 5 }))
  t.equal(await peer.refusal(), 'FRAME_INVALID')
  t.equal(bench.events.checkpoints.length, 1)

  const durable = [{ stream: 1, generation: 1, sequence: sequence(1) }]
  const restarted = await openBench(t, {
    automatic: true,
    vpgs: [sampleVpg({ durable, lastMarker: ordinal(2 ** 32 + 5) })],
  })
  const again = await TestPeer.open(restarted, resumeAt(position(1, 1)))
  t.same(again.welcome?.coordinator.term, 2, 'a restart raises the term')
  t.same(again.welcome?.coordinator.counter, 5, 'and keeps the counter')
  again.send(marker(2, { term: 1, counter: 5 }))
  t.equal(await again.refusal(), 'FRAME_INVALID')
})

t.test('more sessions than allowed are told to come later', async t => {
  const bench = await openBench(t, { automatic: true, sessionsMax: 2 })
  await TestPeer.open(bench)
  TestPeer.connect(bench.ingest.port)
  await until('two sessions', () => bench.ingest.sessionCount === 2)
  const third = TestPeer.connect(bench.ingest.port)
  t.equal(await third.refusal(), 'BUSY')
})

t.test(
  'while the disk keeps no term an agent is told to come later, and the VPG says why it has no checkpoints',
  async t => {
    let isFull = true
    const issueTerm = (): number => {
      if (isFull) throw Object.assign(new Error('no space'), { code: 'ENOSPC' })
      return 1
    }
    const vpg = sampleVpg()
    const bench = await openBench(t, { automatic: true, vpgs: [vpg], issueTerm })
    const refused = TestPeer.connect(bench.ingest.port)
    refused.send(hello())
    t.equal(await refused.refusal(), 'BUSY')
    t.match(bench.ingest.status(vpg.definition.id), {
      coordinator: undefined,
      noCheckpointsBecause: /disk does not take/,
    })
    isFull = false
    t.equal((await TestPeer.open(bench)).welcome?.coordinator.term, 1)
  },
)

t.test('a sender that oversteps its credit is refused before its frame is taken', async t => {
  const bench = await openBench(t, { automatic: false })
  const peer = await TestPeer.open(bench)
  const credit = peer.welcome?.creditBytes ?? 0
  t.ok(credit >= frameSizeBytesMax, 'one frame of the largest size always fits')
  let sent = 0
  for (let next = 1; sent <= credit; next++) {
    const data = incompressibleBytes(next)
    const frame = buildBatch([{ volume: 1, offsetBytes: 0, lengthBytes: data.length, data }], {
      generation: 1,
      firstSequence: next,
    })
    sent += frame.length
    peer.sendBytes(frame)
  }
  t.equal(await peer.refusal(), 'CREDIT_EXCEEDED')
  bench.journal.sync()
  t.ok(
    bench.journal.durable.reduce((sum, record) => sum + record.frame.length, 0) <= credit,
    'what was within the credit is kept',
  )
})

function incompressibleBytes(seed: number): Buffer {
  const bytes = Buffer.alloc(512 * 1024)
  for (let at = 0, value = seed; at < bytes.length; at += 4) {
    value = (Math.imul(value, 1_664_525) + 1_013_904_223) >>> 0
    bytes.writeUInt32LE(value, at)
  }
  return bytes
}

t.test('who was refused, when and why is kept until it is let in, and no more than so many', async t => {
  const bench = await openBench(t, { automatic: true })
  const { definition } = sampleVpg()
  const refused = async (changes: Partial<Hello>): Promise<void> => {
    const peer = TestPeer.connect(bench.ingest.port)
    peer.send(hello(changes))
    await peer.refusal()
  }
  const ofVpg = () => bench.ingest.status(definition.id).refusals
  await refused({ volumes: [] })
  const firstTimestampMicros = bench.clock.timestampMicros()
  await bench.clock.advance(1000)
  await refused({ volumes: [] })
  await refused({ agent: 'intruder' })
  await refused({ vpg: 'payroll' })
  t.match(ofVpg(), [
    { vpg: 'orders', agent: 'intruder', code: 'IDENTITY_REFUSED', sentence: /does not list the agent/, count: 1 },
    { vpg: 'orders', agent: 'orders-host', code: 'UNKNOWN_VOLUME', sentence: /"root"/, address: /^127\.0\.0\.1:\d+$/ },
  ])
  const lastTimestampMicros = firstTimestampMicros + 1_000_000
  t.match(ofVpg()[1], { count: 2, firstTimestampMicros, lastTimestampMicros })
  t.match(bench.ingest.refusals(), [{ vpg: 'payroll', agent: 'payroll-host', code: 'UNKNOWN_VPG' }])
  await TestPeer.open(bench)
  t.same(
    ofVpg().map(({ agent }) => agent),
    ['intruder'],
  )
  for (let number = 0; number < refusalsKeptMax + 3; number++) {
    await refused({ agent: `intruder-${number}` })
    await refused({ vpg: `nothing-${number}` })
  }
  t.equal(ofVpg().length, refusalsKeptMax)
  t.equal(ofVpg()[0]?.agent, `intruder-${refusalsKeptMax + 2}`, 'the newest first')
  t.equal(bench.ingest.refusals().length, refusalsKeptMax)
  await bench.clock.advance(refusalAgeMillisMax + 1000)
  t.same([...ofVpg(), ...bench.ingest.refusals()], [], 'who has given up is no news')
})
