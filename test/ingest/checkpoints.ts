import t from 'tap'
import { checkpointOrdinal, ordinal, sequence } from '../../src/base/ids.ts'
import { historyStepMillisMax } from '../../src/base/limits.ts'
import { batchAt, hello, marker, openBench, resumeAt, sampleVpg, TestPeer, until } from '../support/wire-ingest.ts'
import { position } from '../support/wire-samples.ts'

const { id, volumes } = sampleVpg().definition

t.test('a checkpoint exists when its marker is durable, and not before', async t => {
  const bench = await openBench(t, { automatic: false })
  const peer = await TestPeer.open(bench)
  peer.sendBytes(batchAt(1, 3))
  peer.send(marker(4, { counter: 9 }))
  await until('both are appended', () => bench.journal.waitingCount === 2)
  bench.journal.sync(1)
  t.same(bench.events.checkpoints, [])
  bench.journal.sync()
  t.match(bench.events.checkpoints, [
    {
      ordinal: checkpointOrdinal(1, 9),
      vector: [{ stream: 1, generation: 1, sequence: 4 }],
      volumes: volumes.map(({ number, sizeBytes }) => ({ number, sizeBytes, included: true })),
    },
  ])
  t.same(bench.ingest.status(id).lastCheckpoint, bench.events.checkpoints[0])
})

t.test('labels rise though the clock of the agent goes back', async t => {
  const bench = await openBench(t, { automatic: true })
  const peer = await TestPeer.open(bench)
  const clock = [5_000_000, 4_000_000, 4_000_000, 9_000_000]
  for (const [index, timestampMicros] of clock.entries()) peer.send(marker(index + 1, { timestampMicros }))
  await until('all are durable', () => bench.events.checkpoints.length === 4)
  t.same(
    bench.events.checkpoints.map(checkpoint => checkpoint.timestampMicros),
    [5_000_000, 5_001_000, 5_002_000, 9_000_000],
  )
  t.same(
    bench.journal.durable.map(record => record.fields.timestampMicros),
    bench.events.checkpoints.map(checkpoint => checkpoint.timestampMicros),
    'the label stands in the record',
  )
})

t.test('an agent whose clock is a year ahead does not push the labels there', async t => {
  const bench = await openBench(t, { automatic: true })
  const peer = await TestPeer.open(bench)
  const nowMicros = bench.clock.timestampMicros()
  peer.send(marker(1, { timestampMicros: nowMicros + 365 * 86_400_000_000 }))
  peer.send(marker(2, { timestampMicros: nowMicros - 1_000_000 }))
  await until('both are durable', () => bench.events.checkpoints.length === 2)
  t.same(
    bench.events.checkpoints.map(checkpoint => checkpoint.timestampMicros),
    [nowMicros, nowMicros + 1000],
    'a marker was made before it came',
  )
})

t.test('the history clock runs with monotonic time, a step capped, and stands still while the VRA is off', async t => {
  const bench = await openBench(t, { automatic: true })
  const history = async (next: number): Promise<number | undefined> => {
    // After a long silence the session has been ended: an agent comes back.
    const peer = await TestPeer.open(bench, resumeAt(position(next === 1 ? 0 : 1, next - 1)))
    peer.send(marker(next))
    await until('it is durable', () => bench.events.checkpoints.length === next)
    return bench.events.checkpoints.at(-1)?.historyMillis
  }
  t.equal(await history(1), 0)
  await bench.clock.advance(7_000)
  t.equal(await history(2), 7_000)
  await bench.clock.jump(3 * historyStepMillisMax)
  t.equal(await history(3), 7_000 + historyStepMillisMax, 'an outage ages nothing')

  const lastCheckpoint = bench.events.checkpoints[2]
  const restarted = await openBench(t, {
    automatic: true,
    vpgs: [
      sampleVpg({
        durable: [{ stream: 1, generation: 1, sequence: sequence(3) }],
        lastCheckpoint,
        lastMarker: checkpointOrdinal(1, 3),
      }),
    ],
  })
  await restarted.clock.jump(100_000)
  const peer = await TestPeer.open(restarted, resumeAt(position(1, 3)))
  peer.send(marker(4))
  await until('it is durable', () => restarted.events.checkpoints.length === 1)
  const first = restarted.events.checkpoints[0]
  t.equal(first?.historyMillis, 7_000 + historyStepMillisMax + 5_000, 'the step over a restart is one interval')
  t.ok((first?.timestampMicros ?? 0) > (lastCheckpoint?.timestampMicros ?? Infinity), 'labels go on')
})

t.test('the term is above that of any marker before, and constant while the VRA runs', async t => {
  const bench = await openBench(t, { automatic: true, vpgs: [sampleVpg({ lastMarker: ordinal(4 * 2 ** 32 + 77) })] })
  const first = await TestPeer.open(bench)
  t.match(first.welcome?.coordinator, { agent: 'orders-host', term: 5, counter: 77, checkpointIntervalMillis: 5000 })
  first.send(marker(1, { term: 5, counter: 80 }))
  await until('it is durable', () => bench.events.checkpoints.length === 1)
  const second = await TestPeer.open(bench, resumeAt(position(1, 1)))
  t.match(second.welcome?.coordinator, { term: 5, counter: 80 })
})

t.test('a checkpoint that is asked for is the one that the agent makes for it', async t => {
  const bench = await openBench(t, { automatic: true })
  await t.rejects(bench.ingest.requestCheckpoint(id), { code: 'PEER_LOST' }, 'no agent')
  const peer = await TestPeer.open(bench)
  const asked = bench.ingest.requestCheckpoint(id)
  peer.send(marker(1))
  const requestId = (): number | undefined =>
    peer.received.find(message => message.type === 'checkpoint-request')?.requestId
  await until('the request', () => requestId() !== undefined)
  peer.send(marker(2, { requestId: requestId() ?? 0 }))
  t.equal((await asked).ordinal, checkpointOrdinal(1, 2))

  const unanswered = t.rejects(bench.ingest.requestCheckpoint(id), { code: 'TIMED_OUT' }, 'no marker comes')
  for (let beat = 0; beat < 4; beat++) {
    await bench.clock.advance(10_000)
    peer.send({
      type: 'agent-status',
      queuedBytes: beat,
      queuedRecords: 0,
      volumes: [],
      noCheckpointsBecause: '',
      quiescedBy: '',
    })
    await until('it is heard', () => bench.events.statusCount === beat + 1)
  }
  await unanswered
  const lost = t.rejects(bench.ingest.requestCheckpoint(id), { code: 'PEER_LOST' }, 'the agent goes')
  peer.socket.destroy()
  await lost
})

t.test('a VPG says why it has no checkpoints', async t => {
  const bench = await openBench(t, { automatic: false })
  const why = (): string | undefined => bench.ingest.status(id).noCheckpointsBecause
  t.match(why(), /"orders-host" is not connected/)
  const peer = await TestPeer.open(bench)
  t.equal(why(), undefined)
  const sync = { sync: 'none', syncTotalBytes: 0, syncDoneBytes: 0, syncSentBytes: 0, dirtyBytes: 0 } as const
  const volume = { number: 1, needsSync: true, reason: 'the queue was full', sinceTimestampMicros: 1, ...sync }
  peer.send({
    type: 'agent-status',
    queuedBytes: 0,
    queuedRecords: 0,
    volumes: [volume],
    noCheckpointsBecause: '',
    quiescedBy: '',
  })
  await until('it is known', () => why() !== undefined)
  t.match(why(), /"root" needs a synchronisation: the queue was full/)
  const refused = { code: 'SYNC_REQUIRED', message: /"root" needs a synchronisation: the queue was full/ }
  await t.rejects(bench.ingest.requestCheckpoint(id), refused, 'one that is asked for is refused at once')
  peer.send({
    type: 'agent-status',
    queuedBytes: 0,
    queuedRecords: 0,
    volumes: [],
    noCheckpointsBecause: '',
    quiescedBy: '',
  })
  peer.sendBytes(batchAt(1))
  await until('it is appended', () => bench.journal.waitingCount === 1)
  await bench.clock.advance(14_000)
  t.equal(why(), undefined, 'a late checkpoint is no news')
  peer.send({ type: 'heartbeat', timestampMicros: 1 })
  await bench.clock.advance(2_000)
  t.match(why(), /the journal does not make records durable/)
  bench.journal.sync()
  t.match(why(), /"orders-host" has sent none for 16 s/)
})

t.test('another checkpoint interval reaches the agent by a new Welcome', async t => {
  const bench = await openBench(t, { automatic: true })
  const peer = await TestPeer.open(bench)
  const { definition } = sampleVpg()
  bench.ingest.updateVpg({ ...definition, historyMillis: 1 })
  bench.ingest.updateVpg({ ...definition, checkpointIntervalMillis: 60_000 })
  t.equal(await peer.refusal(), 'CLOSING')
  const again = TestPeer.connect(bench.ingest.port)
  t.equal((await again.greet(hello())).coordinator.checkpointIntervalMillis, 60_000)
})
