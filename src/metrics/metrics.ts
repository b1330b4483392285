import { Counter, Gauge, Registry } from 'prom-client'
import type { AgingNotices } from '../aging/service.ts'
import { reactionTo, type FailureCode } from '../base/failure.ts'
import type { IngestEvents } from '../ingest/events.ts'
import type { JournalEvents } from '../journal/events.ts'
import type { MetricsFacts, VpgFacts } from './facts.ts'
import { FastHistogram, latencyBoundsSeconds } from './histogram.ts'
import { counter, gauge, registerProcessMetrics } from './process.ts'

export { AgentMetrics } from './agent-metrics.ts'
export type { MetricsFacts, VpgFacts } from './facts.ts'

// Events in, Prometheus out. On the hot path an event adds to plain numbers; prom-client is met at a scrape only, where gauges that somebody
// else knows better are asked for (`facts`). Names are vra_*, in base units; labels are vpg, code and reaction and nothing without a bound.

/** Counted per VPG. */
interface VpgCounts {
  writes: number
  rawBytes: number
  frameBytes: number
  batches: number
  duplicates: number
  checkpoints: number
  segments: number
  segmentBytes: number
  folds: number
  foldRawBytes: number
  regions: number
  regionRawBytes: number
  garbage: number
  damage: number
  storeFailures: number
  fenced: number
}

const noCounts = (): VpgCounts => ({
  ...{ writes: 0, rawBytes: 0, frameBytes: 0, batches: 0, duplicates: 0, checkpoints: 0 },
  ...{ segments: 0, segmentBytes: 0, folds: 0, foldRawBytes: 0, regions: 0, regionRawBytes: 0 },
  ...{ garbage: 0, damage: 0, storeFailures: 0, fenced: 0 },
})

const vpgCounterHelp: Readonly<Record<keyof VpgCounts, readonly [string, string]>> = {
  writes: ['vra_ingest_writes_total', 'Guest writes made durable, pieces of split ones and zeroes included.'],
  rawBytes: ['vra_ingest_raw_bytes_total', 'Bytes of guest data made durable, before compression.'],
  frameBytes: ['vra_ingest_frame_bytes_total', 'Bytes of frames made durable, as received.'],
  batches: ['vra_ingest_batches_total', 'Write batches made durable.'],
  duplicates: ['vra_ingest_duplicates_total', 'Batches that the VRA had already: dropped and acknowledged.'],
  checkpoints: ['vra_checkpoints_completed_total', 'Checkpoints that became complete.'],
  segments: ['vra_segments_committed_total', 'Segments committed to the object store.'],
  segmentBytes: ['vra_segments_committed_bytes_total', 'Bytes of segments committed to the object store.'],
  folds: ['vra_folds_total', 'Deltas made of segments.'],
  foldRawBytes: ['vra_folds_raw_bytes_total', 'Uncompressed bytes written into deltas.'],
  regions: ['vra_regions_rewritten_total', 'Base regions rewritten.'],
  regionRawBytes: ['vra_regions_rewritten_raw_bytes_total', 'Uncompressed bytes written into base regions.'],
  garbage: ['vra_garbage_objects_removed_total', 'Objects deleted from the store because nothing needs them.'],
  damage: [
    'vra_damage_found_total',
    'Records and objects that failed their checks, and holes; any above zero wants a person.',
  ],
  storeFailures: ['vra_store_failures_total', 'Times that the object store began to fail.'],
  fenced: ['vra_fenced_total', 'Times that another appliance was found to own the VPG.'],
}

export class Metrics {
  readonly ingest: IngestEvents
  readonly journal: JournalEvents
  readonly #registry = new Registry()
  readonly #facts: () => Promise<MetricsFacts>
  readonly #byVpg = new Map<string, VpgCounts>()
  readonly #refused = new Map<FailureCode, number>()
  readonly #ended = new Map<string, number>()
  readonly #ackLatency = new FastHistogram(latencyBoundsSeconds)
  readonly #syncLatency = new FastHistogram(latencyBoundsSeconds)
  readonly #totals = {
    sessions: 0,
    pauses: 0,
    groups: 0,
    groupBytes: 0,
    rotations: 0,
    unprepared: 0,
    full: 0,
    diskFailures: 0,
    torn: 0,
    damage: 0,
  }
  readonly #stop: () => void
  #scraped: MetricsFacts | undefined

  /** `facts` is called once a scrape; while it fails, what it would have said is missing, all else is there. */
  constructor(options: { readonly version: string; readonly facts: () => Promise<MetricsFacts> }) {
    this.#facts = options.facts
    this.ingest = this.#ingestEvents()
    this.journal = this.#journalEvents()
    this.#stop = registerProcessMetrics(this.#registry, options.version)
    this.#registerIngest()
    this.#registerJournal()
    this.#registerVpgs()
  }

  /** A notice of the aging thread. */
  aging<K extends keyof AgingNotices>(name: K, notice: AgingNotices[K]): void {
    if (!('vpg' in notice)) return
    const counts = this.#countsOf(notice.vpg)
    switch (name) {
      case 'segmentCommitted':
        counts.segments++
        counts.segmentBytes += (notice as AgingNotices['segmentCommitted']).segment.object.sizeBytes
        break
      case 'folded':
        counts.folds++
        counts.foldRawBytes += (notice as AgingNotices['folded']).rawSizeBytes
        break
      case 'regionRewritten':
        counts.regions++
        counts.regionRawBytes += (notice as AgingNotices['regionRewritten']).rawSizeBytes
        break
      case 'garbageRemoved':
        counts.garbage += (notice as AgingNotices['garbageRemoved']).objectCount
        break
      case 'holeFound':
      case 'damageFound':
        counts.damage++
        break
      case 'storeFailing':
        counts.storeFailures++
        break
      case 'fenced':
        counts.fenced++
        break
    }
  }

  /** Since the start, as upper bounds of the histogram's buckets. */
  ackLatency(): { readonly p50Millis: number; readonly p99Millis: number } {
    return { p50Millis: this.#ackLatency.quantile(0.5) * 1000, p99Millis: this.#ackLatency.quantile(0.99) * 1000 }
  }

  /** The Prometheus text. */
  async render(): Promise<string> {
    this.#scraped = await this.#facts().catch(() => undefined)
    if (this.#scraped !== undefined) {
      const known = new Set(this.#scraped.vpgs.map(vpg => vpg.id))
      for (const id of this.#byVpg.keys()) if (!known.has(id)) this.#byVpg.delete(id)
    }
    return this.#registry.metrics()
  }

  async close(): Promise<void> {
    this.#stop()
  }

  #ingestEvents(): IngestEvents {
    return {
      sessionOpened: () => void this.#totals.sessions++,
      sessionClosed: (_, end) => void this.#ended.set(end, (this.#ended.get(end) ?? 0) + 1),
      frameRefused: (_, code) => void this.#refused.set(code, (this.#refused.get(code) ?? 0) + 1),
      batchDurable: (vpg, batch) => {
        const counts = this.#countsOf(vpg)
        counts.batches++
        counts.writes += batch.writeCount
        counts.rawBytes += batch.rawSizeBytes
        counts.frameBytes += batch.frameSizeBytes
        this.#ackLatency.observe(batch.ackLatencyMillis / 1000)
      },
      duplicateDropped: vpg => void this.#countsOf(vpg).duplicates++,
      checkpointComplete: vpg => void this.#countsOf(vpg).checkpoints++,
      agentStatusChanged: () => undefined,
      readingPaused: () => void this.#totals.pauses++,
      readingResumed: () => undefined,
    }
  }

  #journalEvents(): JournalEvents {
    return {
      groupDurable: ({ sizeBytes, syncMillis }) => {
        this.#totals.groups++
        this.#totals.groupBytes += sizeBytes
        this.#syncLatency.observe(syncMillis / 1000)
      },
      fileRotated: ({ prepared }) => {
        this.#totals.rotations++
        if (!prepared) this.#totals.unprepared++
      },
      journalFull: () => void this.#totals.full++,
      journalResumed: () => undefined,
      diskFailed: () => void this.#totals.diskFailures++,
      tornTailCut: () => void this.#totals.torn++,
      damageFound: () => void this.#totals.damage++,
    }
  }

  #countsOf(vpg: string): VpgCounts {
    const counts = this.#byVpg.get(vpg)
    if (counts !== undefined) return counts
    const begun = noCounts()
    this.#byVpg.set(vpg, begun)
    return begun
  }

  #registerIngest(): void {
    const registry = this.#registry
    const registers = [registry]
    this.#ackLatency.register(
      registry,
      'vra_ingest_ack_latency_seconds',
      'From the arrival of a batch to its durability, which is when it is acknowledged.',
    )
    gauge(
      registry,
      'vra_ingest_sessions',
      'Sessions of agents that are open.',
      () => this.#scraped?.ingest.sessionCount ?? 0,
    )
    counter(
      registry,
      'vra_ingest_sessions_opened_total',
      'Sessions of agents that were accepted.',
      () => this.#totals.sessions,
    )
    counter(
      registry,
      'vra_ingest_reading_paused_total',
      'Times that a connection was not read because the pool was used up.',
      () => this.#totals.pauses,
    )
    const [refused, ended] = [this.#refused, this.#ended]
    new Counter({
      name: 'vra_ingest_refused_frames_total',
      help: 'Frames, handshakes and connections that were refused, by failure code.',
      labelNames: ['code', 'reaction'],
      registers,
      collect() {
        this.reset()
        for (const [code, count] of refused) this.inc({ code, reaction: reactionTo[code] }, count)
      },
    })
    new Counter({
      name: 'vra_ingest_sessions_closed_total',
      help: 'Sessions that ended, by how: GOODBYE is in order.',
      labelNames: ['code'],
      registers,
      collect() {
        this.reset()
        for (const [code, count] of ended) this.inc({ code }, count)
      },
    })
  }

  #registerJournal(): void {
    const registry = this.#registry
    const totals = this.#totals
    const journal = (): MetricsFacts['journal'] | undefined => this.#scraped?.journal
    this.#syncLatency.register(
      registry,
      'vra_journal_sync_latency_seconds',
      'Of the sync that makes one group durable.',
    )
    counter(
      registry,
      'vra_journal_groups_total',
      'Groups of records made durable, each with one write and one sync.',
      () => totals.groups,
    )
    counter(registry, 'vra_journal_group_bytes_total', 'Bytes of those groups.', () => totals.groupBytes)
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
    counter(registry, 'vra_journal_damage_total', 'Durable records found unreadable at a start.', () => totals.damage)
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

  #registerVpgs(): void {
    const registers = [this.#registry]
    const nameOf = (id: string): string => this.#scraped?.vpgs.find(vpg => vpg.id === id)?.name ?? id
    for (const [key, [name, help]] of Object.entries(vpgCounterHelp) as [
      keyof VpgCounts,
      readonly [string, string],
    ][]) {
      const byVpg = this.#byVpg
      new Counter({
        name,
        help,
        labelNames: ['vpg'],
        registers,
        collect() {
          this.reset()
          for (const [id, counts] of byVpg) this.inc({ vpg: nameOf(id) }, counts[key])
        },
      })
    }
    const vpgs = (): readonly VpgFacts[] => this.#scraped?.vpgs ?? []
    for (const [name, help, valueOf] of vpgGauges) {
      new Gauge({
        name,
        help,
        labelNames: ['vpg'],
        registers,
        collect() {
          this.reset()
          for (const vpg of vpgs()) {
            const value = valueOf(vpg)
            if (value !== undefined) this.set({ vpg: vpg.name }, value)
          }
        },
      })
    }
  }
}

/** A VPG without a checkpoint has no RPO: the series is missing then, not zero. */
const vpgGauges: readonly (readonly [string, string, (vpg: VpgFacts) => number | undefined])[] = [
  ['vra_rpo_seconds', 'Age of the newest recoverable checkpoint.', vpg => seconds(vpg.rpoMillis)],
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
  ['vra_checkpoints', 'Checkpoints that are retained.', vpg => vpg.checkpointCount],
  ['vra_history_seconds', 'Between the oldest and the newest retained checkpoint.', historySeconds],
  [
    'vra_holes',
    'Parts of the history with a bad payload: checkpoints from there on are withdrawn.',
    vpg => vpg.holes.length,
  ],
  ['vra_segments', 'Segments in the store.', vpg => vpg.mirror.segmentCount],
  ['vra_segments_bytes', 'Their size.', vpg => vpg.mirror.segmentSizeBytes],
  ['vra_deltas', 'Deltas in the store.', vpg => vpg.mirror.deltaCount],
  ['vra_deltas_bytes', 'Their size.', vpg => vpg.mirror.deltaSizeBytes],
  ['vra_base_regions', 'Region versions of the base in the store.', vpg => vpg.mirror.regionCount],
  ['vra_base_bytes', 'Their size.', vpg => vpg.mirror.baseSizeBytes],
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

function historySeconds({ oldestCheckpoint: oldest, latestCheckpoint: latest }: VpgFacts): number {
  return oldest === undefined || latest === undefined ? 0 : (latest.timestampMicros - oldest.timestampMicros) / 1e6
}
