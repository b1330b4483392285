import type { AgingEvents } from '../aging/service.ts'
import type { FailureCode } from '../base/failure.ts'
import type { IngestEvents } from '../ingest/events.ts'
import type { JournalEvents } from '../journal/events.ts'
import type { Exposition } from './exposition.ts'
import type { MetricsFacts } from './facts.ts'
import { FastHistogram, latencyBoundsSeconds } from './histogram.ts'
import { watchLoopDelay } from './loop-delay.ts'
import { noCounts, type VpgCounts } from './vpg-counts.ts'

export type { MetricsFacts, VpgFacts } from './facts.ts'

// Events in, Prometheus out. On the hot path an event adds to plain numbers; prom-client is met at a scrape only, where gauges that somebody
// else knows better are asked for (`facts`). Names are vra_*, in base units; labels are vpg, volume, form, state, code and reaction and nothing without a bound.

export class Metrics {
  readonly ingest: IngestEvents
  readonly journal: JournalEvents
  readonly #version: string
  readonly #certificateEndSeconds: number | undefined
  readonly aging: AgingEvents
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
  readonly #loopDelay = watchLoopDelay()
  #exposition: Promise<Exposition> | undefined
  #scraped: MetricsFacts | undefined

  /** `facts` is called once a scrape; while it fails, what it would have said is missing, all else is there. */
  constructor(options: {
    readonly version: string
    readonly certificateEndSeconds?: number | undefined
    readonly facts: () => Promise<MetricsFacts>
  }) {
    this.#version = options.version
    this.#certificateEndSeconds = options.certificateEndSeconds
    this.#facts = options.facts
    this.ingest = this.#ingestEvents()
    this.journal = this.#journalEvents()
    this.aging = this.#agingEvents()
  }

  /** Since the start, as upper bounds of the histogram's buckets. */
  ackLatency(): { readonly p50Millis: number; readonly p99Millis: number } {
    return { p50Millis: this.#ackLatency.quantile(0.5) * 1000, p99Millis: this.#ackLatency.quantile(0.99) * 1000 }
  }

  /** The Prometheus text, in pieces: of very many VPGs it is long, and the event loop is not held for all of it. */
  async *render(): AsyncGenerator<string> {
    this.#scraped = await this.#facts().catch(() => undefined)
    if (this.#scraped !== undefined) {
      const known = new Set(this.#scraped.vpgs.map(vpg => vpg.id))
      // A VPG that is damaged so far that it is not served keeps its damage.
      for (const [id, { damage }] of this.#byVpg) if (!known.has(id) && damage === 0) this.#byVpg.delete(id)
    }
    this.#exposition ??= this.#openExposition()
    yield* (await this.#exposition).render()
  }

  async close(): Promise<void> {
    this.#loopDelay.disable()
  }

  /** prom-client is some ninety files: a start does not wait for them, the first scrape does. */
  async #openExposition(): Promise<Exposition> {
    const { Exposition } = await import('./exposition.ts')
    return new Exposition({
      version: this.#version,
      certificateEndSeconds: this.#certificateEndSeconds,
      loopDelay: this.#loopDelay,
      byVpg: this.#byVpg,
      refused: this.#refused,
      ended: this.#ended,
      ackLatency: this.#ackLatency,
      syncLatency: this.#syncLatency,
      totals: this.#totals,
      scraped: () => this.#scraped,
    })
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
      generationOpened: vpg => void this.#countsOf(vpg).generations++,
      coordinatorChanged: vpg => void this.#countsOf(vpg).coordinators++,
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

  #agingEvents(): AgingEvents {
    return {
      segmentCommitted: ({ vpg, segment }) => {
        const counts = this.#countsOf(vpg)
        counts.segments++
        counts.segmentBytes += segment.object.sizeBytes
      },
      folded: ({ vpg, rawSizeBytes }) => {
        const counts = this.#countsOf(vpg)
        counts.folds++
        counts.foldRawBytes += rawSizeBytes
      },
      regionRewritten: ({ vpg, rawSizeBytes }) => {
        const counts = this.#countsOf(vpg)
        counts.regions++
        counts.regionRawBytes += rawSizeBytes
      },
      deltasMerged: ({ vpg, mergedRawSizeBytes, rawSizeBytes }) => {
        const counts = this.#countsOf(vpg)
        counts.merges++
        counts.mergeRawBytes += rawSizeBytes
        counts.mergeFreedRawBytes += mergedRawSizeBytes - rawSizeBytes
      },
      noted: () => undefined,
      historyEdgeMoved: () => undefined,
      checkpointsThinned: ({ vpg, dropped }) => void (this.#countsOf(vpg).thinned += dropped.length),
      tagsExpired: () => undefined,
      historyCutShort: () => undefined,
      roomForSync: () => undefined,
      redefined: () => undefined,
      checkpointsGivenUp: () => undefined,
      holesChanged: () => undefined,
      holeFound: ({ vpg }) => void this.#countsOf(vpg).damage++,
      logFileFree: () => undefined,
      recordsForgotten: () => undefined,
      garbageRemoved: ({ vpg, objectCount }) => void (this.#countsOf(vpg).garbage += objectCount),
      damageFound: ({ vpg }) => void (vpg === undefined ? this.#totals : this.#countsOf(vpg)).damage++,
      damageMended: () => undefined,
      storeFailing: ({ vpg }) => void this.#countsOf(vpg).storeFailures++,
      storeRecovered: () => undefined,
      storeAway: () => undefined,
      storeOpened: () => undefined,
      historyRead: () => undefined,
      vpgWaits: () => undefined,
      vpgOpened: () => undefined,
      adopted: () => undefined,
      recordsQuarantined: () => undefined,
      sealingStopped: () => undefined,
      mergingStopped: () => undefined,
      fenced: ({ vpg }) => void this.#countsOf(vpg).fenced++,
      superseded: () => undefined,
      tenureTold: () => undefined,
    }
  }

  #countsOf(vpg: string): VpgCounts {
    const counts = this.#byVpg.get(vpg)
    if (counts !== undefined) return counts
    const begun = noCounts()
    this.#byVpg.set(vpg, begun)
    return begun
  }
}
