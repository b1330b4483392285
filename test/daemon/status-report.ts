import type { Directive } from '../../src/wire/messages.ts'
import t from 'tap'
import type { OpenedVpg } from '../../src/aging/service.ts'
import type { Clock } from '../../src/base/clock.ts'
import { ordinal, sequence, vpgId, type VpgId } from '../../src/base/ids.ts'
import { StatusReport, type StatusFacts, type StatusReportParts } from '../../src/daemon/status-report.ts'
import { VpgEntry, VpgTable } from '../../src/daemon/vpg-table.ts'
import type { Refusal } from '../../src/ingest/ingest.ts'
import type { Checkpoint } from '../../src/timeline/checkpoint.ts'
import { openedVpg } from '../support/opened-vpg.ts'

const nowMicros = 1_790_000_000_000_000
const clock: Clock = {
  timestampMicros: () => nowMicros,
  monotonicMillis: () => 0,
  sleep: async () => undefined,
  after: () => () => undefined,
}

function refusal(changes: Partial<Refusal>): Refusal {
  return {
    vpg: 'orders',
    agent: 'a',
    address: '10.0.0.9:5000',
    code: 'UNKNOWN_VOLUME',
    sentence: 'the volume is of another size',
    count: 3,
    firstTimestampMicros: nowMicros - 60_000_000,
    lastTimestampMicros: nowMicros - 10_000_000,
    ...changes,
  }
}

/** The report of a VPG whose agent is not connected. */
async function reported(
  refusals: { readonly ofVpg: readonly Refusal[]; readonly ofNone: readonly Refusal[] },
  serving: object = {},
  changes: Partial<OpenedVpg['definition']> = {},
  mirror: object = {},
  history: { readonly oldest?: Checkpoint; readonly latest?: Checkpoint; readonly tags?: OpenedVpg['tags'] } = {},
  prepare: (entry: VpgEntry) => void = () => undefined,
  heldSyncs: Directive['heldSyncs'] = [],
) {
  const table = new VpgTable()
  const opened = openedVpg()
  const definition = { ...opened.definition, ...changes }
  const entry = new VpgEntry({ ...opened, tags: history.tags ?? [], definition }, clock)
  prepare(entry)
  table.add(entry)
  const parts = partsOf(table, { refusals, serving, mirror, history, heldSyncs })
  return await new StatusReport(parts as unknown as StatusReportParts, {} as StatusFacts).status()
}

function partsOf(
  table: VpgTable,
  {
    refusals,
    serving,
    mirror,
    history,
    heldSyncs,
  }: {
    readonly refusals: { readonly ofVpg: readonly Refusal[]; readonly ofNone: readonly Refusal[] }
    readonly serving: object
    readonly mirror: object
    readonly history: { readonly oldest?: Checkpoint; readonly latest?: Checkpoint }
    readonly heldSyncs: Directive['heldSyncs']
  },
) {
  const position = { generation: 0, sequence: sequence(0) }
  const stream = {
    stream: 1,
    agent: 'a',
    peerAddress: '',
    refusedVolumes: [],
    durable: position,
    offloaded: position,
    waitingFrameCount: 0,
  }
  const rates = { writesPerSecond: 0, bytesPerSecond: 0 }
  return {
    table,
    clock,
    aging: {
      statuses: async ({ vpgs }: { readonly vpgs: readonly VpgId[] }) =>
        vpgs.map(() => ({ segmentCount: 0, historyMillis: 0, historySizeBytes: 0, ...mirror })),
      queues: async () => ({ load: undefined, unsealedRecordCount: 0, unsealedRecordCountMax: 0 }),
    },
    catalog: { statistics: async () => ({ checkpointCount: 0, fileSizeBytes: 0 }) },
    checkpoints: {
      overviews: async (entries: readonly VpgEntry[]) =>
        entries.map(() => ({ ...history, latestOfAll: history.latest, checkpointCount: 0 })),
    },
    disk: { freeBytes: () => 0 },
    exports: { list: () => [], cacheFacts: async () => undefined },
    ingest: {
      status: () => ({ streams: [{ ...stream, ...serving }], refusals: refusals.ofVpg, heldSyncs }),
      refusals: () => refusals.ofNone,
    },
    journal: { status: () => ({ stalledBecause: undefined }) },
    meter: { rates: () => rates },
    metrics: { ackLatency: () => ({}) },
    drills: { ofVpg: () => ({ last: undefined, waitsBecause: undefined }) },
    recoveries: { ofVpg: () => ({ recoveries: [], standby: undefined, lastRecovery: undefined }) },
  }
}

t.test('the other threads are asked once for many VPGs', async t => {
  const table = new VpgTable()
  const ids = ['5a', '5b', '5c'].map(byte => vpgId(byte.repeat(16)))
  for (const id of ids) {
    const opened = openedVpg()
    table.add(new VpgEntry({ ...opened, definition: { ...opened.definition, id, name: id } }, clock))
  }
  const refusals = { ofVpg: [], ofNone: [] }
  const parts = partsOf(table, { refusals, serving: {}, mirror: {}, history: {}, heldSyncs: [] })
  const asked: string[] = []
  const aging = {
    statuses: async ({ vpgs }: { readonly vpgs: readonly VpgId[] }) => {
      asked.push(`aging ${vpgs.length}`)
      return vpgs.map(vpg =>
        vpg === ids[1] ? { missingBecause: 'fenced' } : { segmentCount: 0, historyMillis: 0, historySizeBytes: 0 },
      )
    },
  }
  const checkpoints = {
    overviews: async (entries: readonly VpgEntry[]) => {
      asked.push(`index ${entries.length}`)
      return entries.map(() => ({ checkpointCount: 7 }))
    },
  }
  const report = new StatusReport({ ...parts, aging, checkpoints } as unknown as StatusReportParts, {} as StatusFacts)
  t.match(
    await report.vpgs(),
    ids.map((id, index) => ({ id, checkpointCount: 7, mirror: { storeFailure: index === 1 ? 'fenced' : undefined } })),
  )
  t.strictSame(asked, ['index 3', 'aging 3'])
})

t.test('an agent that is refused is not merely away', async t => {
  const status = await reported({ ofVpg: [refusal({})], ofNone: [] })
  const because =
    /agent a is not connected: refused \(UNKNOWN_VOLUME\) 3 times, last at 2026-.*: the volume is of another size/
  t.match(status.vpgs[0], { state: 'waiting-for-agent', stateReason: because, refusals: [{ agent: 'a' }] })
  t.match(status.vpgs[0]?.agents[0], { state: 'disconnected', reason: /^refused/ })
  t.equal(status.alerts.length, 1, 'said once')
})

t.test('a refusal from before the agent went away is not why it is away: another one used its name', async t => {
  const told = await reported({ ofVpg: [refusal({})], ofNone: [] }, {}, {}, {}, {}, ({ progress }) => {
    progress.sessionOpened(1)
    progress.sessionClosed(1)
  })
  t.match(told.vpgs[0], { state: 'waiting-for-agent', stateReason: /^agent a is not connected$/ })
  t.equal(told.vpgs[0]?.agents[0]?.reason, undefined)
  t.match(told.alerts, [
    { sentence: /^agent a is not connected$/ },
    { sentence: /^agent "a" of VPG "orders" at .* is refused/ },
  ])

  const session = { address: '10.0.0.1:4000', software: 'vra', sinceTimestampMicros: nowMicros - 60_000_000 }
  const connected = await reported({ ofVpg: [refusal({})], ofNone: [] }, { session })
  t.match(connected.vpgs[0], { state: 'protected', stateReason: undefined })
  t.match(connected.alerts, [{ sentence: /^agent "a" of VPG "orders" at 10.0.0.9:5000 is refused/ }])
})

t.test('an agent that nobody knows is told of while it tries; whoever only tries the port is listed', async t => {
  const stranger = refusal({ vpg: 'payroll', agent: 'b', code: 'UNKNOWN_VPG' })
  const old = refusal({ vpg: 'gone', lastTimestampMicros: nowMicros - 3_600_000_000 })
  const scanner = refusal({ vpg: undefined, agent: undefined })
  const status = await reported({ ofVpg: [refusal({ agent: 'c' })], ofNone: [stranger, old, scanner] })
  t.same(status.refusals, [stranger, old, scanner])
  const sentences = status.alerts.map(alert => alert.sentence).filter(sentence => sentence.includes('refused'))
  t.match(sentences, [/^agent "b" of VPG "payroll" at .*UNKNOWN_VPG/, /^agent "c" of VPG "orders" at/])
})

t.test(
  'the history reaches from its oldest checkpoint to its newest, in the store or not; one kept for its tag is not of it',
  async t => {
    const checkpoint = (count: number): Checkpoint => ({
      ...{ ordinal: ordinal(2 ** 32 + count), timestampMicros: nowMicros, historyMillis: 5000 * count },
      ...{ vector: [], volumes: [] },
    })
    const [oldest, latest] = [checkpoint(1), checkpoint(9)]
    const millisWith = async (tagged: Checkpoint): Promise<number | undefined> => {
      const tags = [{ ordinal: tagged.ordinal, name: 'before', taggedAtMicros: nowMicros }]
      const status = await reported({ ofVpg: [], ofNone: [] }, {}, {}, { historyMillis: 7 }, { oldest, latest, tags })
      return status.vpgs[0]?.mirror.historyMillis
    }
    t.equal(await millisWith(latest), 40_000)
    t.equal(await millisWith(oldest), 7, 'what the store says, then')
  },
)

t.test('a history that the limit of its journal cuts short is an alert', async t => {
  const mirror = { historyMillis: 60_000, historySizeBytes: 2000, agedEarlySinceMicros: nowMicros - 5_000_000 }
  const limits = { journalWarnSizeBytes: 1000, journalLimitSizeBytes: 4000 }
  const { alerts, vpgs } = await reported({ ofVpg: [], ofNone: [] }, {}, limits, mirror)
  t.match(vpgs[0], { ...limits, mirror })
  const told = alerts.map(({ sentence }) => sentence).filter(sentence => sentence.includes('history'))
  t.match(told, [/takes 1.95 KiB of 3.91 KiB, more than/, /the history is 1 min, not .* cut short by the limit/])
})

t.test('a synchronisation is told with its progress, a pause as such', async t => {
  const root = {
    number: 1,
    needsSync: true,
    reason: 'the queue was dropped',
    sinceTimestampMicros: nowMicros - 5_000_000,
  }
  const sync = { sync: 'bitmap', syncTotalBytes: 4096, syncDoneBytes: 1024, syncSentBytes: 512, dirtyBytes: 4096 }
  const agentStatus = { queuedBytes: 700, queuedRecords: 3, volumes: [{ ...root, ...sync }], noCheckpointsBecause: '' }
  const session = { address: '10.0.0.9:5000', software: 'test', sinceTimestampMicros: nowMicros }
  const nobody = { ofVpg: [], ofNone: [] }
  const [vpg] = (await reported(nobody, { session, agentStatus })).vpgs
  t.match(vpg, { state: 'syncing', stateReason: /root: bitmap synchronisation 25 %/ })
  t.match(vpg?.volumes, [{ name: 'root', agent: 'a', dirtyBytes: 4096, sync: { kind: 'bitmap', doneBytes: 1024 } }])
  t.match(vpg?.agents, [{ state: 'connected', queuedBytes: 700 }])
  t.match(vpg, { backlogBytes: 700 + 3072, volumes: [{ lagMillis: 5000, backlogBytes: 3072 }] })
  const held = [{ volumes: [1], reason: 'the journal is at its limit' }]
  const waiting = await reported(nobody, { session, agentStatus }, {}, {}, {}, undefined, held)
  t.match(waiting.vpgs[0]?.volumes[0]?.sync, { heldBecause: 'the journal is at its limit' })
  t.match(waiting.vpgs[0]?.stateReason, /25 %, waits: the journal is at its limit/)
  t.match(waiting.alerts, [{ sentence: /volume root waits: the journal/ }])
  const ailing = { ...agentStatus, volumes: [{ ...root, ...sync, sync: 'none' }] }
  const [stopped] = (await reported(nobody, { session, agentStatus: ailing })).vpgs
  t.match(stopped, { state: 'needs-sync' }, 'one that nobody works at wants a person')
  const [paused] = (await reported(nobody, { session, agentStatus }, { paused: true })).vpgs
  t.match(paused, { state: 'paused' })
})
