import type { AgingQueues, MirrorFacts } from '../aging/service.ts'
import type { CacheFacts } from '../store/object-store.ts'

/** What is asked at a scrape, because somebody else counts it: what the daemon's status says, seen from here. */
export interface MetricsFacts {
  readonly journal: {
    readonly logSizeBytes: number
    readonly logSizeBytesMax: number
    readonly diskFreeBytes: number
    readonly indexSizeBytes: number
    readonly full: string | undefined
  }
  readonly ingest: { readonly sessionCount: number }
  readonly nowMicros: number
  /** Undefined while the store has not answered since the start. */
  readonly queues: AgingQueues | undefined
  /** Undefined while the store answers. */
  readonly storeFailing: { readonly sinceMicros: number } | undefined
  readonly vpgs: readonly VpgFacts[]
  /** Undefined where nothing is cached. */
  readonly cache: CacheFacts | undefined
}

export interface VpgFacts {
  readonly id: string
  readonly name: string
  readonly state: string
  readonly rpoMillis: number | undefined
  readonly checkpointCount: number
  /** As it was asked for. */
  readonly historyMillis: number
  readonly journalWarnSizeBytes: number
  readonly journalLimitSizeBytes: number
  readonly agents: readonly { readonly state: string; readonly queuedBytes: number }[]
  readonly lagMillis: number | undefined
  readonly backlogBytes: number
  readonly backlogEtaMillis: number | undefined
  readonly volumes: readonly VolumeMetricsFacts[]
  readonly noCheckpointsBecause: string | undefined
  readonly holes: readonly unknown[]
  readonly mirror: MirrorFacts
  /** Those under way. */
  readonly recoveries: readonly { readonly state: string }[]
  readonly standby:
    { readonly ageMillis: number | undefined; readonly putSizeBytes: number; readonly failureCount: number } | undefined
  readonly lastRecovery: { readonly rtoMillis: number } | undefined
  readonly drills: {
    readonly nextAtMicros: number | undefined
    readonly last: { readonly drill: { readonly outcome: string | undefined } | undefined } | undefined
    readonly proven: { readonly timestampMicros: number; readonly rtoMillis: number } | undefined
  }
}

export interface VolumeMetricsFacts {
  readonly name: string
  readonly dirtyBytes: number
  readonly lagMillis: number | undefined
  readonly backlogBytes: number
  readonly backlogEtaMillis: number | undefined
  readonly sync:
    | {
        readonly totalBytes: number
        readonly doneBytes: number
        readonly sentBytes: number
        readonly rateBytesPerSecond: number
        readonly etaMillis: number | undefined
        readonly heldBecause: string | undefined
      }
    | undefined
}
