import t from 'tap'
import { checkpointOrdinal, sequence, type StreamPosition } from '../../src/base/ids.ts'
import type { Hello, SyncKind, VolumeStatus } from '../../src/wire/messages.ts'
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
import { position } from '../support/wire-samples.ts'

const { id } = sampleVpg().definition

/** A Hello that opens the generation, with this synchronisation of its volume. */
function opening(generation: number, sync: SyncKind): Partial<Hello> {
  return {
    openGeneration: generation,
    resumableFrom: position(generation, 0),
    lastNumbered: position(generation, 0),
    volumes: [{ name: 'root', sizeBytes: volumeSizeBytes, sync }],
  }
}

function status(
  sync: SyncKind,
): { readonly type: 'agent-status' } & Record<string, unknown> & { volumes: VolumeStatus[] } {
  return {
    type: 'agent-status',
    queuedBytes: 0,
    queuedRecords: 0,
    noCheckpointsBecause: '',
    volumes: [
      {
        number: 1,
        needsSync: sync !== 'none',
        reason: '',
        sinceTimestampMicros: 1,
        sync,
        syncTotalBytes: 200,
        syncDoneBytes: 87,
        syncSentBytes: 0,
        dirtyBytes: 0,
      },
    ],
  }
}

function sendStatus(peer: TestPeer, sync: SyncKind): void {
  peer.send(status(sync) as never)
}

function durable(bench: Bench): string[] {
  return bench.journal.durable.map(({ fields }) => `${fields.generation}/${fields.firstSequence}`)
}

t.test(
  'an agent that cannot continue opens the next generation, and the stream goes on from its beginning',
  async t => {
    const bench = await openBench(t, { automatic: true })
    const first = await TestPeer.open(bench)
    first.sendBytes(batchAt(1, 4))
    await until('an Ack', () => first.acked === 4)
    const second = await TestPeer.open(bench, opening(7, 'bitmap'))
    t.same(second.welcome?.durable, position(7, 0))
    t.match(bench.events.generations, [
      { stream: 1, agent: 'orders-host', generation: 7, volumes: [{ number: 1, name: 'root', sync: 'bitmap' }] },
    ])
    second.sendBytes(batchAt(1, 2, 7))
    await until('an Ack', () => second.acked === 2)
    t.same(second.received.filter(({ type }) => type === 'ack').at(-1), {
      ...second.received.filter(({ type }) => type === 'ack').at(-1),
      durable: position(7, 2),
    })
    t.same(durable(bench), ['1/1', '7/1'])
    const third = await TestPeer.open(bench, { ...opening(7, 'bitmap'), lastNumbered: position(7, 9) })
    t.same(third.welcome?.durable, position(7, 2), 'the same generation is continued exactly')
    third.sendBytes(batchAt(1, 2, 7))
    third.sendBytes(batchAt(3, 1, 7))
    await until('an Ack', () => third.acked === 3)
    t.equal(bench.events.duplicateCount, 1)
    t.equal(bench.events.generations.length, 1, 'and opened once')
  },
)

t.test('what an older session sent becomes durable in its generation before the next one is opened', async t => {
  const bench = await openBench(t, { automatic: false })
  const first = await TestPeer.open(bench)
  first.sendBytes(batchAt(1, 3))
  await until('it is appended', () => bench.journal.waitingCount === 1)
  const second = TestPeer.connect(bench.ingest.port)
  second.send(hello(opening(2, 'full')))
  await until('the older session has ended', () => first.closed)
  t.equal(second.welcome, undefined)
  bench.journal.sync()
  await until('a Welcome', () => second.welcome !== undefined)
  t.same(second.welcome?.durable, position(2, 0))
  second.sendBytes(batchAt(1, 1, 2))
  await until('it is appended', () => bench.journal.waitingCount === 1)
  bench.journal.sync()
  await until('an Ack', () => second.acked === 1)
  t.same(bench.ingest.status(id).streams[0]?.durable, position(2, 1))
})

t.test('generations never go back, and are sent from their beginning', async t => {
  const at: StreamPosition[] = [{ stream: 1, generation: 3, sequence: sequence(9) }]
  const bench = await openBench(t, { automatic: true, vpgs: [sampleVpg({ durable: at, offloaded: at })] })
  const refused = async (changes: Partial<Hello>): Promise<string | undefined> => {
    const peer = TestPeer.connect(bench.ingest.port)
    peer.send(hello(changes))
    return peer.refusal()
  }
  t.equal(await refused(opening(2, 'bitmap')), 'SYNC_REQUIRED', 'an older one')
  t.equal(
    await refused({ ...opening(4, 'bitmap'), resumableFrom: position(4, 5), lastNumbered: position(4, 9) }),
    'SYNC_REQUIRED',
  )
  t.equal(await refused({ ...opening(4, 'bitmap'), resumableFrom: position(3, 9) }), 'SYNC_REQUIRED')
  t.equal(await refused(resumeAt(position(4, 0))), 'SYNC_REQUIRED', 'a generation that is not said to be opened')
  t.equal(await refused({ ...opening(3, 'bitmap'), lastNumbered: position(3, 8) }), 'SYNC_REQUIRED', 'the VRA has more')
  t.same(bench.events.generations, [])
  const peer = await TestPeer.open(bench, opening(4, 'bitmap'))
  peer.sendBytes(batchAt(1, 1, 3))
  t.equal(await peer.refusal(), 'SYNC_REQUIRED', 'a record of the generation before')
})

t.test('a generation in which nothing is durable yet is opened again after a restart of the VRA', async t => {
  const durable: StreamPosition[] = [{ stream: 1, generation: 1, sequence: sequence(4) }]
  for (let start = 0; start < 2; start++) {
    const bench = await openBench(t, { automatic: false, vpgs: [sampleVpg({ durable })] })
    const peer = await TestPeer.open(bench, { ...opening(2, 'delta'), lastNumbered: position(2, 50) })
    t.same(peer.welcome?.durable, position(2, 0))
    peer.sendBytes(batchAt(1, 3, 2))
    await until('it is appended', () => bench.journal.waitingCount === 1)
    t.equal(bench.events.generations.length, 1)
  }
})

t.test('no marker lies inside a synchronisation, until the agent says that it is over', async t => {
  for (const kind of ['full', 'delta', 'bitmap'] as const) {
    for (const included of [true, false]) {
      const bench = await openBench(t, { automatic: true })
      const peer = await TestPeer.open(bench, opening(1, kind))
      peer.send(marker(1, { volumes: [{ number: 1, sizeBytes: volumeSizeBytes, included }] }))
      t.equal(await peer.refusal(), 'FRAME_INVALID', `${kind}, included: ${included}`)
      t.same(bench.events.checkpoints, [])
    }
  }
  const bench = await openBench(t, { automatic: true })
  const peer = await TestPeer.open(bench, opening(1, 'bitmap'))
  sendStatus(peer, 'bitmap')
  peer.sendBytes(batchAt(1))
  await until('an Ack', () => peer.acked === 1)
  t.match(bench.ingest.status(id).noCheckpointsBecause, /"root" is being synchronised \(bitmap, 43 %\)/)
  await t.rejects(bench.ingest.requestCheckpoint(id), { code: 'SYNC_REQUIRED' })
  sendStatus(peer, 'none')
  peer.send(marker(2))
  await until('a checkpoint', () => bench.events.checkpoints.length === 1)
  t.equal(bench.events.checkpoints[0]?.ordinal, checkpointOrdinal(1, 2))
  t.equal(bench.ingest.status(id).noCheckpointsBecause, undefined)
  const again = await TestPeer.open(bench, { ...opening(1, 'delta'), ...resumeAt(position(1, 2)) })
  again.send(marker(3))
  t.equal(await again.refusal(), 'FRAME_INVALID', 'what an earlier session said counts no more')
})

t.test('a volume in its first synchronisation is left out of checkpoints, and stops none', async t => {
  const bench = await openBench(t, { automatic: true })
  const peer = await TestPeer.open(bench, opening(1, 'initial'))
  peer.send(marker(1, { volumes: [{ number: 1, sizeBytes: volumeSizeBytes, included: false }] }))
  await until('a checkpoint', () => bench.events.checkpoints.length === 1)
  t.match(bench.events.checkpoints[0]?.volumes, [{ number: 1, included: false }])
  peer.send(marker(2))
  t.equal(await peer.refusal(), 'FRAME_INVALID', 'it is not included before it is over')
})

t.test('one that knows nothing of the VPG opens no generation while another of its name is connected', async t => {
  const bench = await openBench(t, { automatic: true })
  const first = await TestPeer.open(bench)
  first.sendBytes(batchAt(1))
  await until('it is durable', () => bench.journal.durable.length === 1)
  const begins = { resumableFrom: position(2, 0), lastNumbered: position(2, 0), openGeneration: 2, incarnation: 0 }
  await t.rejects(TestPeer.open(bench, begins), /BUSY/)
  t.notOk(first.closed, 'the one that is connected goes on')
  first.socket.destroy()
  await until('it is gone', () => bench.ingest.sessionCount === 0)
  t.same((await TestPeer.open(bench, begins)).welcome?.durable, position(2, 0), 'then it may')
})
