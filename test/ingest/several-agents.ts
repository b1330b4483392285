import t from 'tap'
import { checkpointOrdinal, ordinal, sequence } from '../../src/base/ids.ts'
import type { IngestVpg } from '../../src/ingest/registry.ts'
import type { AgentStatus, Hello } from '../../src/wire/messages.ts'
import {
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

const { id } = sampleVpg().definition
const sizeBytes = volumeSizeBytes

/** Two agents, each with a volume of its own. */
function twoAgents(changes: Partial<IngestVpg> = {}): IngestVpg {
  const vpg = sampleVpg(changes)
  const volumes = [
    { number: 1, name: 'root', sizeBytes, stream: 1 },
    { number: 2, name: 'data', sizeBytes, stream: 2 },
  ]
  const streams = [
    { number: 1, agent: 'a' },
    { number: 2, agent: 'b' },
  ]
  return { ...vpg, definition: { ...vpg.definition, volumes, streams } }
}

const root = { volumes: [{ name: 'root', sizeBytes, sync: 'none' }] } as const
const data = { volumes: [{ name: 'data', sizeBytes, sync: 'none' }] } as const
const openA = (bench: Bench, changes: Partial<Hello> = {}) => TestPeer.open(bench, { agent: 'a', ...root, ...changes })
const openB = (bench: Bench, changes: Partial<Hello> = {}) => TestPeer.open(bench, { agent: 'b', ...data, ...changes })

const included = [1, 2].map(number => ({ number, sizeBytes, included: true }))
const cut = (at: number, counter: number, term = 1) =>
  marker(at, { counter, term, participants: [1, 2], volumes: included })

const quiet: AgentStatus = {
  type: 'agent-status',
  queuedBytes: 0,
  queuedRecords: 0,
  volumes: [],
  noCheckpointsBecause: '',
  quiescedBy: '',
}

function writeTo(volume: number, firstSequence: number): Buffer {
  const write = { volume, offsetBytes: 0, lengthBytes: 512, data: Buffer.alloc(512, 1) }
  return buildBatch([write], { generation: 1, firstSequence })
}

t.test('an agent offers and writes its own volumes, exactly', async t => {
  const bench = await openBench(t, { automatic: true, vpgs: [twoAgents()] })
  const refused = async (changes: Partial<Hello>): Promise<string | undefined> => {
    const peer = TestPeer.connect(bench.ingest.port)
    peer.send(hello({ agent: 'a', ...changes }))
    return peer.refusal()
  }
  t.equal(await refused(data), 'IDENTITY_REFUSED', "another agent's")
  t.equal(await refused({ volumes: [...root.volumes, ...data.volumes] }), 'IDENTITY_REFUSED', "another agent's as well")
  t.equal(await refused({ volumes: [] }), 'UNKNOWN_VOLUME', 'none')
  const a = await openA(bench)
  t.same(a.welcome?.volumes, [{ name: 'root', number: 1, sizeBytes }])
  a.sendBytes(writeTo(1, 1))
  await until('an Ack', () => a.acked === 1)
  a.sendBytes(writeTo(2, 2))
  t.equal(await a.refusal(), 'IDENTITY_REFUSED', "a write to another agent's volume")
  t.equal(bench.journal.durable.length, 1)
})

t.test('the lowest agent makes the checkpoints; all are told who takes part and where', async t => {
  const bench = await openBench(t, { automatic: true, vpgs: [twoAgents()] })
  const b = await openB(bench, { peerAddress: '10.0.0.2:7423' })
  t.match(b.welcome?.coordinator, {
    agent: 'a',
    term: 1,
    participants: [
      { stream: 1, agent: 'a', peerAddress: '', volumes: [1] },
      { stream: 2, agent: 'b', peerAddress: '10.0.0.2:7423', volumes: [2] },
    ],
  })
  const a = await openA(bench, { peerAddress: '10.0.0.1:7423' })
  const told = () => b.received.filter(message => message.type === 'coordinator-changed')
  await until('it is told', () => told().length === 1)
  t.match(told()[0]?.coordinator, { agent: 'a', term: 1, participants: [{ peerAddress: '10.0.0.1:7423' }, {}] })
  t.match(a.welcome?.coordinator.participants, [{}, { peerAddress: '10.0.0.2:7423' }])
  t.notOk(
    a.received.some(message => message.type === 'coordinator-changed'),
    'who has just been told is not told again',
  )
})

t.test('another agent makes them, under a higher term, when that one has been away for a while', async t => {
  const bench = await openBench(t, { automatic: true, vpgs: [twoAgents({ lastMarker: ordinal(4 * 2 ** 32 + 7) })] })
  const a = await openA(bench)
  const b = await openB(bench)
  a.socket.destroy()
  await until('it is gone', () => bench.ingest.sessionCount === 1)
  t.match(bench.ingest.status(id).noCheckpointsBecause, /the agent "a" is not connected/)
  await bench.clock.advance(10_000)
  b.send({ type: 'heartbeat', timestampMicros: 1 })
  t.equal(bench.ingest.status(id).coordinator, 'a')
  await until('b is heard', () => bench.ingest.sessionCount === 1)
  b.send(quiet)
  await until('b is heard', () => bench.events.statusCount === 1)
  await bench.clock.advance(6_000)
  t.same(bench.events.coordinators, ['b 6'])
  const told = () => b.received.find(message => message.type === 'coordinator-changed')
  await until('it is told', () => told() !== undefined)
  t.match(told()?.coordinator, { agent: 'b', term: 6, counter: 7 })
  const back = await openA(bench)
  t.match(back.welcome?.coordinator, { agent: 'b', term: 6 }, 'who comes back is not the coordinator again')
})

t.test('a checkpoint exists when the markers of all are durable; requests go to who makes it', async t => {
  const bench = await openBench(t, { automatic: true, vpgs: [twoAgents()] })
  const [a, b] = [await openA(bench), await openB(bench)]
  const asked = bench.ingest.requestCheckpoint(id)
  const requestId = (): number | undefined =>
    a.received.find(message => message.type === 'checkpoint-request')?.requestId
  await until('the request', () => requestId() !== undefined)
  const cutFor = { ...cut(1, 1), requestId: requestId() ?? 0 }
  a.send(cutFor)
  await until('an Ack', () => a.acked === 1)
  t.same(bench.events.checkpoints, [])
  b.send(cutFor)
  t.equal((await asked).ordinal, checkpointOrdinal(1, 1))
  t.same(
    bench.events.checkpoints[0]?.vector.map(({ stream }) => stream),
    [1, 2],
  )
  t.notOk(b.received.some(message => message.type === 'checkpoint-request'))
})

t.test('a cut that one stream has got through before a restart is completed by the other after it', async t => {
  const first = await openBench(t, { automatic: true, vpgs: [twoAgents()] })
  const a = await openA(first)
  a.send(cut(1, 1))
  await until('an Ack', () => a.acked === 1)
  const { timestampMicros = 0, historyMillis = 0 } = first.journal.durable[0]?.fields ?? {}
  const pending = { ...cut(1, 1), stream: 1, timestampMicros, historyMillis }
  const second = await openBench(t, {
    automatic: true,
    vpgs: [
      twoAgents({
        durable: [{ stream: 1, generation: 1, sequence: sequence(1) }],
        lastMarker: checkpointOrdinal(1, 1),
        pendingMarkers: [pending],
      }),
    ],
  })
  const b = await openB(second)
  b.send(cut(1, 1))
  await until('it is complete', () => second.events.checkpoints.length === 1)
  t.match(second.events.checkpoints[0]?.vector, [
    { stream: 1, sequence: 1 },
    { stream: 2, sequence: 1 },
  ])
})

t.test('a checkpoint that was given up is not told of, should its last marker come', async t => {
  const bench = await openBench(t, { automatic: true, vpgs: [twoAgents()] })
  const [a, b] = [await openA(bench), await openB(bench)]
  a.send(cut(1, 1))
  a.send(cut(2, 2))
  await until('both are durable', () => a.acked === 2)
  bench.ingest.giveUp(id, [{ stream: 1, generation: 1, sequence: sequence(1) }])
  b.send(cut(1, 1))
  b.send(cut(2, 2))
  await until('one is complete', () => bench.events.checkpoints.length > 0)
  t.same(
    bench.events.checkpoints.map(checkpoint => checkpoint.ordinal),
    [checkpointOrdinal(1, 2)],
  )
})

t.test('labels go on behind those of markers that wait for another stream', async t => {
  const [timestampMicros, historyMillis] = [4_000_000_000_000_000, 77_000]
  const pending = { ...cut(1, 1), stream: 1, timestampMicros, historyMillis }
  const durable = [{ stream: 1, generation: 1, sequence: sequence(1) }]
  const restarted = twoAgents({ durable, lastMarker: checkpointOrdinal(1, 1), pendingMarkers: [pending] })
  const bench = await openBench(t, { automatic: true, vpgs: [restarted] })
  const a = await openA(bench, { resumableFrom: position(1, 1), lastNumbered: position(1, 1), openGeneration: 0 })
  a.send(cut(2, 2))
  await until('it is durable', () => a.acked === 2)
  const { fields } = bench.journal.durable[0]!
  t.ok(fields.timestampMicros > timestampMicros, 'however far ahead the former label is')
  t.ok(fields.historyMillis >= historyMillis)
})

t.test('a VPG says which agent refuses, and why; a checkpoint that is asked for is refused with that', async t => {
  const bench = await openBench(t, { automatic: true, vpgs: [twoAgents()] })
  await openA(bench)
  const b = await openB(bench)
  b.send({ ...quiet, noCheckpointsBecause: 'its queue was dropped', quiescedBy: '' })
  await until('it is known', () => bench.events.statusCount === 1)
  const { noCheckpointsBecause, noCheckpointsSinceMicros } = bench.ingest.status(id)
  t.match(noCheckpointsBecause, /"b" says: its queue was dropped/)
  t.ok(noCheckpointsSinceMicros > 0)
  await t.rejects(bench.ingest.requestCheckpoint(id), { code: 'SYNC_REQUIRED', message: /its queue was dropped/ })
})

t.test('rate and pause reach every agent; a synchronisation is asked of the agents whose volumes it is', async t => {
  const vpg = twoAgents()
  const bench = await openBench(t, { automatic: true, vpgs: [vpg] })
  t.throws(() => bench.ingest.requestSync(id, 'delta', [1]), { code: 'PEER_LOST', message: /"a" is not connected/ })
  const [a, b] = [await openA(bench), await openB(bench)]
  const directives = (peer: TestPeer) => peer.received.filter(message => message.type === 'directive')
  t.same(
    [directives(a), directives(b)],
    [[], []],
    'who synchronises nothing is told nothing while there is nothing to say',
  )
  bench.ingest.updateVpg({ ...vpg.definition, syncRateBytesPerSecond: 5_000, paused: true })
  await until('a change', () => directives(a).length === 1 && directives(b).length === 1)
  t.match(directives(b)[0], { syncRateBytesPerSecond: 5_000, paused: true })
  bench.ingest.holdSyncs(vpg.definition.id, 'the journal is at its limit')
  bench.ingest.holdSyncs(vpg.definition.id, 'the journal is at its limit')
  await until('it is told that synchronisations wait', () => directives(b).length === 2)
  const numbers = vpg.definition.volumes.map(({ number }) => number)
  t.match(directives(b)[1], { heldSyncs: [{ volumes: numbers, reason: 'the journal is at its limit' }] })
  bench.ingest.holdSyncs(vpg.definition.id, undefined)
  await until('and that they go on', () => directives(b).length === 3)
  t.same(directives(b)[2]?.heldSyncs, [])
  t.match(bench.ingest.status(id).noCheckpointsBecause, /is paused/)
  bench.ingest.requestSync(id, 'full', [2])
  const asked = (peer: TestPeer) => peer.received.find(message => message.type === 'sync-request')
  await until('it is asked', () => asked(b) !== undefined)
  t.match(asked(b), { kind: 'full', volumes: [2] })
  t.equal(asked(a), undefined)
  t.throws(() => bench.ingest.requestSync(id, 'full', [3]), { code: 'UNKNOWN_VOLUME' })
})

t.test('an agent whose volumes changed comes again; markers that waited meanwhile are still good', async t => {
  const vpg = twoAgents()
  const bench = await openBench(t, { automatic: true, vpgs: [vpg] })
  const [a, b] = [await openA(bench), await openB(bench)]
  const grown = vpg.definition.volumes.map(volume =>
    volume.number === 2 ? { ...volume, sizeBytes: 2 * sizeBytes } : volume,
  )
  const removed = { number: 3, name: 'scratch', sizeBytes, stream: 2 }
  bench.ingest.updateVpg({ ...vpg.definition, volumes: grown, removedVolumes: [removed] })
  t.equal(await b.refusal(), 'CLOSING')
  t.equal(await a.refusal(), 'CLOSING')
  const stale = TestPeer.connect(bench.ingest.port)
  stale.send(hello({ agent: 'b', ...data }))
  t.equal(await stale.refusal(), 'UNKNOWN_VOLUME', 'the size of before')
  const again = await openA(bench, { lastNumbered: position(1, 2) })
  again.send({ ...cut(1, 1), volumes: [...included, { number: 3, sizeBytes, included: true }] })
  again.send({ ...cut(2, 2), volumes: [included[0] as (typeof included)[0]] })
  await until('an Ack', () => again.acked === 2)
  again.send({ ...cut(3, 3), volumes: [{ number: 2, sizeBytes: 4 * sizeBytes, included: true }] })
  t.equal(await again.refusal(), 'UNKNOWN_VOLUME', 'larger than the volume is')
  const late = await openB(bench, {
    volumes: [{ name: 'data', sizeBytes: 2 * sizeBytes, sync: 'none' }],
    ...resumeAt(position(0, 0)),
  })
  t.same(late.welcome?.volumes, [{ name: 'data', number: 2, sizeBytes: 2 * sizeBytes }])
})

t.test('what is wrong with one volume costs that volume only, and is said by its name', async t => {
  const vpg = twoAgents()
  const volumes = [...vpg.definition.volumes, { number: 3, name: 'log', sizeBytes, stream: 1 }]
  const bench = await openBench(t, { automatic: true, vpgs: [{ ...vpg, definition: { ...vpg.definition, volumes } }] })
  const told = (): string[] => bench.ingest.status(id).streams[0]?.refusedVolumes.map(each => each.sentence) ?? []
  const own = ['root', 'log'].map(name => ({ name, sizeBytes, sync: 'none' as const }))
  const cases: readonly [string, Hello['volumes'], RegExp][] = [
    ['one that was removed', [...own, { name: 'old', sizeBytes, sync: 'none' }], /no volume "old"/],
    [
      'one that has another size',
      [own[0]!, { ...own[1]!, sizeBytes: 2 * sizeBytes }],
      /"log" has \d+ bytes at the agent/,
    ],
    ['one that is not offered yet', [own[0]!], /does not offer the volume "log"/],
  ]
  let sent = 0
  for (const [what, offered, sentence] of cases) {
    const a = await openA(bench, { volumes: offered, lastNumbered: position(1, sent) })
    t.match(told(), [sentence], what)
    t.same(
      a.welcome?.volumes.map(({ name }) => name),
      ['root', 'log'],
      'the agent sees by its own volumes which',
    )
    a.sendBytes(writeTo(1, ++sent))
    await until('the other is written', () => a.acked === sent)
    a.socket.destroy()
  }
  await openA(bench, { volumes: own, lastNumbered: position(1, sent) })
  t.same(told(), [])
})

t.test('a VRA that has lost the terms it issued goes on above those that its agents have heard of', async t => {
  const bench = await openBench(t, { automatic: true, vpgs: [twoAgents()] })
  const b = await openB(bench)
  const before = b.welcome?.coordinator.term ?? 0
  const a = await openA(bench, { highestTerm: before + 40 })
  const term = a.welcome?.coordinator.term ?? 0
  t.ok(term > before + 40, `term ${term}`)
  const changed = () => b.received.findLast(message => message.type === 'coordinator-changed')
  await until('the other is told', () => changed()?.coordinator.term === term)
  const again = await openA(bench, { highestTerm: term })
  t.equal(again.welcome?.coordinator.term, term, 'what it issued itself is no news')
})
