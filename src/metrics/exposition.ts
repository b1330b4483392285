import { Registry } from 'prom-client'
import type { IntervalHistogram } from 'node:perf_hooks'
import type { MirrorFacts } from '../aging/service.ts'
import { reactionTo, type FailureCode } from '../base/failure.ts'
import type { MetricsFacts, VolumeMetricsFacts, VpgFacts } from './facts.ts'
import type { FastHistogram } from './histogram.ts'
import { counter, counters, gauge, registerCertificate, registerProcessMetrics } from './process.ts'
import { extraLabel, inTurns, labelOf, piecesOf, seriesOf, type Labelled, type Series } from './series.ts'
import type { VpgCounts } from './vpg-counts.ts'

/** What Metrics counts, and what the last scrape was told by others. */
export interface Counted {
  readonly version: string
  readonly certificateEndSeconds: number | undefined
  readonly loopDelay: IntervalHistogram
  readonly byVpg: ReadonlyMap<string, VpgCounts>
  readonly refused: ReadonlyMap<FailureCode, number>
  readonly ended: ReadonlyMap<string, number>
  readonly ackLatency: FastHistogram
  readonly syncLatency: FastHistogram
  readonly totals: Readonly<
    Record<
      | 'sessions'
      | 'pauses'
      | 'groups'
      | 'groupBytes'
      | 'rotations'
      | 'unprepared'
      | 'full'
      | 'diskFailures'
      | 'torn'
      | 'damage',
      number
    >
  >
  readonly scraped: () => MetricsFacts | undefined
}

const vpgCounterHelp: Readonly<Record<keyof VpgCounts, readonly [string, string]>> = {
  writes: ['vra_ingest_writes_total', 'Guest writes made durable, pieces of split ones and zeroes included.'],
  rawBytes: ['vra_ingest_raw_bytes_total', 'Bytes of guest data made durable, before compression.'],
  frameBytes: ['vra_ingest_frame_bytes_total', 'Bytes of frames made durable, as received.'],
  batches: ['vra_ingest_batches_total', 'Write batches made durable.'],
  duplicates: ['vra_ingest_duplicates_total', 'Batches that the VRA had already: dropped and acknowledged.'],
  checkpoints: ['vra_checkpoints_completed_total', 'Checkpoints that became complete.'],
  generations: ['vra_sync_generations_total', 'Times that an agent could not continue exactly and began a generation.'],
  coordinators: ['vra_coordinator_changes_total', 'Times that another agent was named to make the checkpoints.'],
  segments: ['vra_segments_committed_total', 'Segments committed to the object store.'],
  segmentBytes: ['vra_segments_committed_bytes_total', 'Bytes of segments committed to the object store.'],
  folds: ['vra_folds_total', 'Deltas made of segments.'],
  foldRawBytes: ['vra_folds_raw_bytes_total', 'Uncompressed bytes written into deltas.'],
  regions: ['vra_regions_rewritten_total', 'Base regions rewritten.'],
  regionRawBytes: ['vra_regions_rewritten_raw_bytes_total', 'Uncompressed bytes written into base regions.'],
  merges: ['vra_delta_merges_total', 'Times that adjacent deltas became one.'],
  mergeRawBytes: ['vra_delta_merges_raw_bytes_total', 'Uncompressed bytes written by that.'],
  mergeFreedRawBytes: ['vra_delta_merges_freed_raw_bytes_total', 'Uncompressed bytes that it freed.'],
  thinned: ['vra_checkpoints_thinned_total', "Checkpoints that the VPG's retention has let go between others."],
  garbage: ['vra_garbage_objects_removed_total', 'Objects deleted from the store because nothing needs them.'],
  damage: [
    'vra_damage_found_total',
    'Records and objects that failed their checks, and holes; any above zero wants a person.',
  ],
  storeFailures: ['vra_store_failures_total', 'Times that the object store began to fail.'],
  fenced: ['vra_fenced_total', 'Times that another appliance was found to own the VPG.'],
}

/** The counts of a VRA as the Prometheus text: names, help, labels. */
export class Exposition {
  readonly #registry = new Registry()
  readonly #counted: Counted

  constructor(counted: Counted) {
    this.#counted = counted
    registerProcessMetrics(this.#registry, counted.version, counted.loopDelay)
    registerCertificate(this.#registry, 'vra', counted.certificateEndSeconds)
    this.#registerStore()
    this.#registerLoad()
    this.#registerCache()
    this.#registerIngest()
    this.#registerJournal()
  }

  async *render(): AsyncGenerator<string> {
    const vpgs = this.#counted.scraped()?.vpgs ?? []
    yield await this.#registry.metrics()
    yield* inTurns(this.#ofVpgs(vpgs))
  }

  #registerStore(): void {
    gauge(
      this.#registry,
      'vra_store_away_seconds',
      'For how long the object store has not answered, for one VPG at least; 0 while it does.',
      () => {
        const facts = this.#counted.scraped()
        return facts?.storeFailing === undefined ? 0 : (facts.nowMicros - facts.storeFailing.sinceMicros) / 1e6
      },
    )
  }

  /** Of all threads that speak to the store: aging, images, recoveries. */
  #registerLoad(): void {
    const registry = this.#registry
    const queues = () => this.#counted.scraped()?.queues
    const load = () => queues()?.load
    const throttled = {
      name: 'vra_store_throttled_total',
      help: 'Requests that the object store put off because it had too much to do, by what was asked.',
      labelNames: ['operation'],
    }
    counters(registry, throttled, () =>
      Object.entries(load()?.throttledCounts ?? {}).map(([operation, count]) => [{ operation }, count]),
    )
    counter(
      registry,
      'vra_store_backoff_seconds_total',
      'What was waited before requests to the store were made again, all together.',
      () => (load()?.backedOffMillis ?? 0) / 1000,
    )
    const waiting: readonly (readonly [string, string, () => number])[] = [
      ['vra_store_requests_under_way', 'Requests to the store under way.', () => load()?.underWayCount ?? 0],
      ['vra_store_requests_waiting', 'Those that wait to be made again.', () => load()?.waitingCount ?? 0],
      ['vra_aging_records_waiting', 'Records that wait to be sealed.', () => queues()?.unsealedRecordCount ?? 0],
      [
        'vra_aging_records_waiting_limit',
        'With so many the log is not read any further.',
        () => queues()?.unsealedRecordCountMax ?? 0,
      ],
    ]
    for (const [name, help, value] of waiting) gauge(registry, name, help, value)
  }

  #registerCache(): void {
    const registry = this.#registry
    const cache = () => this.#counted.scraped()?.cache
    const of = (name: string): string => `vra_cache_${name}`
    gauge(registry, of('bytes'), 'Size of the cache on the local disk.', () => cache()?.sizeBytes ?? 0)
    gauge(registry, of('limit_bytes'), 'What it may take at most.', () => cache()?.sizeBytesMax ?? 0)
    counter(registry, of('hit_bytes_total'), 'Bytes that images found in it.', () => cache()?.hitSizeBytes ?? 0)
    counter(
      registry,
      of('miss_bytes_total'),
      'Bytes that they had to ask the store for.',
      () => cache()?.missSizeBytes ?? 0,
    )
    counter(registry, of('evicted_total'), 'Blocks that made room for others.', () => cache()?.evictedCount ?? 0)
    counter(
      registry,
      of('failed_total'),
      'Blocks that did not pass their checksum, or that the disk did not take: read from the store instead.',
      () => cache()?.failedCount ?? 0,
    )
  }

  #registerIngest(): void {
    const registry = this.#registry
    this.#counted.ackLatency.register(
      registry,
      'vra_ingest_ack_latency_seconds',
      'From the arrival of a batch to its durability, which is when it is acknowledged.',
    )
    gauge(
      registry,
      'vra_ingest_sessions',
      'Sessions of agents that are open.',
      () => this.#counted.scraped()?.ingest.sessionCount ?? 0,
    )
    counter(
      registry,
      'vra_ingest_sessions_opened_total',
      'Sessions of agents that were accepted.',
      () => this.#counted.totals.sessions,
    )
    counter(
      registry,
      'vra_ingest_reading_paused_total',
      'Times that a connection was not read because the pool was used up.',
      () => this.#counted.totals.pauses,
    )
    const [refused, ended] = [this.#counted.refused, this.#counted.ended]
    const refusedFrames = {
      name: 'vra_ingest_refused_frames_total',
      help: 'Frames, handshakes and connections that were refused, by failure code.',
      labelNames: ['code', 'reaction'],
    }
    counters(registry, refusedFrames, () =>
      Array.from(refused, ([code, count]) => [{ code, reaction: reactionTo[code] }, count]),
    )
    const sessionsClosed = {
      name: 'vra_ingest_sessions_closed_total',
      help: 'Sessions that ended, by how: GOODBYE is in order.',
      labelNames: ['code'],
    }
    counters(registry, sessionsClosed, () => Array.from(ended, ([code, count]) => [{ code }, count]))
  }

  #registerJournal(): void {
    const registry = this.#registry
    const totals = this.#counted.totals
    const journal = (): MetricsFacts['journal'] | undefined => this.#counted.scraped()?.journal
    this.#counted.syncLatency.register(
      registry,
      'vra_journal_sync_latency_seconds',
      'How long the sync takes that makes one group durable.',
    )
    counter(
      registry,
      'vra_journal_groups_total',
      'Groups of records made durable, each with one write and one sync.',
      () => totals.groups,
    )
    counter(registry, 'vra_journal_group_bytes_total', 'Bytes of the groups made durable.', () => totals.groupBytes)
    counter(
      registry,
      'vra_journal_file_rotations_total',
      'Times that writing went on in another log file.',
      () => totals.rotations,
    )
    counter(
      registry,
      'vra_journal_unprepared_files_total',
      'Rotations that found no prepared file (slower).',
      () => totals.unprepared,
    )
    counter(
      registry,
      'vra_journal_full_total',
      'Times that acknowledgements stopped because the journal was full.',
      () => totals.full,
    )
    counter(
      registry,
      'vra_journal_disk_failures_total',
      'Writes or syncs of the log that failed.',
      () => totals.diskFailures,
    )
    counter(
      registry,
      'vra_journal_torn_tails_total',
      'Incomplete groups cut at a start; they were never acknowledged.',
      () => totals.torn,
    )
    counter(
      registry,
      'vra_journal_damage_total',
      'Places in the log that were durable and cannot be read, whoever they belong to.',
      () => totals.damage,
    )
    gauge(registry, 'vra_journal_log_bytes', 'Size of the commit log.', () => journal()?.logSizeBytes ?? NaN)
    gauge(
      registry,
      'vra_journal_log_limit_bytes',
      'What the commit log may take at most.',
      () => journal()?.logSizeBytesMax ?? NaN,
    )
    gauge(
      registry,
      'vra_journal_disk_free_bytes',
      'Free on the file system of the journal.',
      () => journal()?.diskFreeBytes ?? NaN,
    )
    gauge(registry, 'vra_journal_index_bytes', "Size of the journal's index.", () => journal()?.indexSizeBytes ?? NaN)
    gauge(registry, 'vra_journal_full', '1 while acknowledgements wait for room in the journal.', () =>
      journal()?.full === undefined ? 0 : 1,
    )
  }

  *#ofVpgs(vpgs: readonly VpgFacts[]): Generator<string> {
    const names = new Map(vpgs.map(({ id, name }) => [id, name]))
    const counted = Array.from(this.#counted.byVpg, ([id, of]) => ({ labels: vpgLabel(names.get(id) ?? id), of }))
    for (const series of vpgCounts) yield* piecesOf(series, counted)
    const labelled = vpgs.map(of => ({ labels: vpgLabel(of.name), of }))
    for (const series of vpgSeries) yield* piecesOf(series, labelled)
    const volumes = labelled.flatMap(({ labels, of }): Labelled<VolumeMetricsFacts>[] =>
      of.volumes.map(volume => ({ labels: labels + extraLabel('volume', volume.name), of: volume })),
    )
    for (const series of volumeSeries) yield* piecesOf(series, volumes)
  }
}

function vpgLabel(name: string): string {
  return labelOf('vpg', name)
}

const recoveryStates = ['draining', 'preparing', 'ready', 'committing', 'removing'] as const

type ByForm = (mirror: MirrorFacts) => readonly (readonly [string, number])[]

/** By the form that bytes have in the store. */
const formGauges: readonly (readonly [string, string, ByForm])[] = [
  [
    'vra_store_objects',
    'Objects in the store that the VPG needs, by form.',
    ({ forms }) => forms.map(({ form, objectCount }) => [form, objectCount]),
  ],
  ['vra_store_bytes', 'Size of these objects.', ({ forms }) => forms.map(({ form, sizeBytes }) => [form, sizeBytes])],
  [
    'vra_store_index_bytes',
    'Of these bytes, those that say where the others are.',
    ({ forms }) => forms.map(({ form, indexSizeBytes }) => [form, indexSizeBytes]),
  ],
]

/** Write amplification is the rate of the put bytes of all forms over that of the raw bytes. */
const requestCounters: readonly (readonly [string, string, ByForm])[] = [
  [
    'vra_store_puts_total',
    'Objects put into the store, every attempt, by form.',
    ({ requests }) => Object.entries(requests.puts).map(([form, { count }]) => [form, count]),
  ],
  [
    'vra_store_put_bytes_total',
    'Bytes of these puts.',
    ({ requests }) => Object.entries(requests.puts).map(([form, { sizeBytes }]) => [form, sizeBytes]),
  ],
]

const vpgCounters: readonly (readonly [string, string, (vpg: VpgFacts) => number | undefined])[] = [
  [
    'vra_segments_raw_bytes_total',
    'Guest bytes in the segments put, uncompressed.',
    ({ mirror }) => mirror.requests.rawSizeBytes,
  ],
  ['vra_store_gets_total', 'Ranges that aging read from the store.', ({ mirror }) => mirror.requests.gets.count],
  ['vra_store_get_bytes_total', 'Bytes of these ranges.', ({ mirror }) => mirror.requests.gets.sizeBytes],
  [
    'vra_scrub_checked_bytes_total',
    'Bytes verified in the background.',
    ({ mirror }) => mirror.scrub?.checkedSizeBytes ?? 0,
  ],
  ['vra_store_lists_total', 'Pages of listings of the store.', ({ mirror }) => mirror.requests.listCount],
  ['vra_standby_put_bytes_total', 'Put for standby snapshots.', ({ standby }) => standby?.putSizeBytes],
  [
    'vra_standby_failures_total',
    'Times that standby snapshots could not be brought up to a newer checkpoint.',
    ({ standby }) => standby?.failureCount,
  ],
]

/** Those of a synchronisation are there while one runs or waits. Volumes are as many as people have defined. */
const volumeGauges: readonly (readonly [string, string, (volume: VolumeMetricsFacts) => number | undefined])[] = [
  [
    'vra_volume_dirty_bytes',
    'What the map of its agent marks: what the VRA may lack, and what is not in the store yet.',
    volume => volume.dirtyBytes,
  ],
  [
    'vra_volume_lag_seconds',
    'Age of the oldest write of the volume that may be missing here.',
    volume => seconds(volume.lagMillis),
  ],
  [
    'vra_volume_backlog_bytes',
    'What the synchronisation of the volume has yet to look at.',
    volume => volume.backlogBytes,
  ],
  [
    'vra_volume_backlog_eta_seconds',
    'Until nothing of the volume is missing here, at the present rate.',
    volume => seconds(volume.backlogEtaMillis),
  ],
  [
    'vra_sync_held',
    '1 while the synchronisation waits because this VRA says so; the status says why.',
    volume => (volume.sync === undefined ? undefined : volume.sync.heldBecause === undefined ? 0 : 1),
  ],
  ['vra_sync_total_bytes', 'What the synchronisation looks at.', volume => volume.sync?.totalBytes],
  ['vra_sync_done_bytes', 'What the synchronisation has looked at.', volume => volume.sync?.doneBytes],
  ['vra_sync_sent_bytes', 'What the synchronisation has sent as data.', volume => volume.sync?.sentBytes],
  [
    'vra_sync_rate_bytes',
    'What the synchronisation looks at in a second, now.',
    volume => volume.sync?.rateBytesPerSecond,
  ],
  [
    'vra_sync_eta_seconds',
    'Until the synchronisation is over, at its present rate.',
    volume => seconds(volume.sync?.etaMillis),
  ],
]

/** A VPG without a checkpoint of all its volumes has an RPO without end: an alert on it must not fall silent for want of a series. */
const vpgGauges: readonly (readonly [string, string, (vpg: VpgFacts) => number | undefined])[] = [
  [
    'vra_rpo_seconds',
    'Age of the newest recoverable checkpoint of all volumes; +Inf while there is none.',
    vpg => seconds(vpg.rpoMillis) ?? Infinity,
  ],
  [
    'vra_vpg_protected',
    '1 while the VPG is protected, 0 in any other state; the status says which and why.',
    vpg => (vpg.state === 'protected' ? 1 : 0),
  ],
  [
    'vra_vpg_agents_connected',
    'Agents of the VPG with an open session.',
    vpg => vpg.agents.filter(agent => agent.state === 'connected').length,
  ],
  [
    'vra_vpg_agent_queue_bytes',
    'Bytes that agents say they have queued.',
    vpg => vpg.agents.reduce((sum, agent) => sum + agent.queuedBytes, 0),
  ],
  [
    'vra_backlog_bytes',
    'What agents have and this VRA has not: queued, or to be looked at by synchronisations.',
    vpg => vpg.backlogBytes,
  ],
  [
    'vra_backlog_eta_seconds',
    'Until what agents have and this VRA has not is sent, at the present rates.',
    vpg => seconds(vpg.backlogEtaMillis),
  ],
  [
    'vra_lag_seconds',
    'Age of the oldest write that may be missing here, of the agent or volume that is furthest behind.',
    vpg => seconds(vpg.lagMillis),
  ],
  [
    'vra_vpg_checkpointing',
    '1 while checkpoints are made; the status says why they are not.',
    vpg => (vpg.noCheckpointsBecause === undefined ? 1 : 0),
  ],
  ['vra_checkpoints', 'Checkpoints that are retained.', vpg => vpg.checkpointCount],
  [
    'vra_history_seconds',
    'From the oldest checkpoint of the history to the newest, of those in the store.',
    vpg => vpg.mirror.historyMillis / 1000,
  ],
  [
    'vra_standby_age_seconds',
    'Age of what standby snapshots hold, of the volume whose is oldest; +Inf while one has none.',
    vpg => (vpg.standby === undefined ? undefined : (seconds(vpg.standby.ageMillis) ?? Infinity)),
  ],
  [
    'vra_recovery_rto_seconds',
    'Of the newest recovery that was ready: from the decision to when it could be used.',
    vpg => seconds(vpg.lastRecovery?.rtoMillis),
  ],
  [
    'vra_drill_proven_checkpoint_timestamp_seconds',
    'Of when the newest checkpoint is of which a drill has shown that it can be recovered, since 1970; 0 before the first.',
    ({ drills: { proven, nextAtMicros } }) =>
      proven === undefined && nextAtMicros === undefined ? undefined : (proven?.timestampMicros ?? 0) / 1e6,
  ],
  [
    'vra_drill_rto_seconds',
    'Of the drill that proved it: from the decision to when it could be used.',
    ({ drills }) => seconds(drills.proven?.rtoMillis),
  ],
  [
    'vra_drill_last_passed',
    '1 where the check of the last drill has passed, 0 where anything else became of it.',
    ({ drills: { last } }) => (last === undefined ? undefined : last.drill?.outcome === 'passed' ? 1 : 0),
  ],
  ['vra_history_configured_seconds', 'How long the history should be.', vpg => vpg.historyMillis / 1000],
  [
    'vra_history_cut_short',
    "1 while the journal's limit keeps the history shorter than it should be.",
    vpg => (vpg.mirror.agedEarlySinceMicros === undefined ? 0 : 1),
  ],
  ['vra_journal_bytes', 'What the history takes beyond the newest mirror.', vpg => vpg.mirror.historySizeBytes],
  [
    'vra_journal_warn_bytes',
    "Above this vra_journal_bytes is an alert in the VRA's status.",
    vpg => limitOf(vpg.journalWarnSizeBytes),
  ],
  [
    'vra_journal_limit_bytes',
    'Above this vra_journal_bytes costs the oldest checkpoints.',
    vpg => limitOf(vpg.journalLimitSizeBytes),
  ],
  [
    'vra_holes',
    'Parts of the history with a bad payload: checkpoints from there on are withdrawn.',
    vpg => vpg.holes.length,
  ],
  ['vra_segments', 'Segments in the store.', vpg => vpg.mirror.segmentCount],
  ['vra_segments_bytes', 'Size of the segments in the store.', vpg => vpg.mirror.segmentSizeBytes],
  ['vra_deltas', 'Deltas in the store.', vpg => vpg.mirror.deltaCount],
  ['vra_deltas_bytes', 'Size of the deltas in the store.', vpg => vpg.mirror.deltaSizeBytes],
  ['vra_base_regions', 'Region versions of the base in the store.', vpg => vpg.mirror.regionCount],
  ['vra_base_bytes', 'Size of the region versions of the base in the store.', vpg => vpg.mirror.baseSizeBytes],
  [
    'vra_scrub_verified_timestamp_seconds',
    'When all of the VPG in the store was verified last, since 1970; 0 before the first time.',
    vpg => (vpg.mirror.scrub === undefined ? undefined : (vpg.mirror.scrub.verifiedAtMicros ?? 0) / 1e6),
  ],
  [
    'vra_scrub_damaged_objects',
    'Objects that the verification in the background found damaged, in its last or present pass.',
    vpg => vpg.mirror.scrub?.damagedCount,
  ],
  [
    'vra_locked_until_timestamp_seconds',
    'Until when all that the VPG needs is locked in the store at least, since 1970; 0 while that is not known. Only where objects are locked.',
    vpg => vpg.mirror.locks && (vpg.mirror.locks.lockedUntilMicros ?? 0) / 1e6,
  ],
  [
    'vra_scrub_damaged_checkpoints',
    'Retained checkpoints that read an object which the verification in the background found damaged.',
    vpg => vpg.mirror.scrub?.damagedCheckpointCount,
  ],
  ['vra_garbage_objects', 'Objects that wait for their grace period to end.', vpg => vpg.mirror.garbageCount],
  [
    'vra_aging_lag_bytes',
    'In the commit log, not in the object store yet: what a loss of the appliance would lose.',
    vpg => vpg.mirror.unsealedSizeBytes,
  ],
  ['vra_unfolded_raw_bytes', 'In segments that wait for a fold, uncompressed.', vpg => vpg.mirror.unfoldedRawSizeBytes],
  [
    'vra_store_failing',
    '1 while the object store fails for this VPG.',
    vpg => (vpg.mirror.storeFailure === undefined ? 0 : 1),
  ],
]

function seconds(millis: number | undefined): number | undefined {
  return millis === undefined ? undefined : millis / 1000
}

/** Without a limit there is no series. */
function limitOf(sizeBytes: number): number | undefined {
  return sizeBytes === 0 ? undefined : sizeBytes
}

const vpgCounts: readonly Series<VpgCounts>[] = seriesOf(
  'counter',
  (Object.keys(vpgCounterHelp) as (keyof VpgCounts)[]).map(key => [...vpgCounterHelp[key], counts => counts[key]]),
)

const recoveries: Series<VpgFacts> = {
  type: 'gauge',
  name: 'vra_recoveries',
  help: 'Recoveries under way, by state; 0 for a state that none is in.',
  samples: vpg =>
    recoveryStates.map(state => [
      extraLabel('state', state),
      vpg.recoveries.filter(recovery => recovery.state === state).length,
    ]),
}

const vpgSeries: readonly Series<VpgFacts>[] = [
  ...seriesOf('gauge', vpgGauges),
  ...seriesOf('counter', vpgCounters),
  ...byForm('gauge', formGauges),
  ...byForm('counter', requestCounters),
  recoveries,
]

const volumeSeries = seriesOf('gauge', volumeGauges)

function byForm(type: Series<VpgFacts>['type'], table: typeof formGauges): Series<VpgFacts>[] {
  return table.map(([name, help, valuesOf]) => ({
    ...{ type, name, help },
    samples: ({ mirror }) => valuesOf(mirror).map(([form, value]) => [extraLabel('form', form), value]),
  }))
}
