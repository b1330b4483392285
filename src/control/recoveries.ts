import type { FailureRecord } from '../base/failure.ts'
import type {
  CommitPolicy,
  DrillOutcome,
  DrillResult,
  Json,
  RecoveryKind,
  RecoveryState,
  RecoveryTargetKind,
} from '../timeline/recovery.ts'

export type {
  CommitPolicy,
  DrillOutcome,
  Json,
  RecoveryKind,
  RecoveryState,
  RecoveryTargetKind,
} from '../timeline/recovery.ts'

// What the API says of recoveries; part of service.ts.

export interface RecoveryRequest {
  readonly vpg: string
  readonly kind: RecoveryKind
  /** As in findCheckpoint; of a move "latest". */
  readonly checkpoint: string
  /** Names of machines and of volumes; all that the checkpoint has where neither is named. */
  readonly vms?: readonly string[]
  readonly volumes?: readonly string[]
  readonly target: RecoveryTargetKind
  /** The target's own: of `raw` a directory on the daemon's host. */
  readonly settings: Json
  readonly commitPolicy: CommitPolicy
}

/** What a recovery would do, for whoever has to decide. */
/** Copies of a VPG's volumes that are kept where it would be recovered, so that a recovery moves only what differs from them. */
export interface StandbyFacts {
  /** 0: none are wanted any more. */
  readonly intervalMillis: number
  readonly state: 'waiting' | 'advancing' | 'suspended' | 'ending'
  /** Of the checkpoint of the oldest; undefined while a volume has none. */
  readonly ageMillis: number | undefined
  readonly copies: readonly {
    readonly volume: string
    /** The id of its snapshot. */
    readonly place: string
    readonly checkpoint: string
    readonly checkpointTimestampMicros: number
    /** For this copy. */
    readonly putSizeBytes: number
    /** It was not put upon the one before it. */
    readonly isWhole: boolean
  }[]
  /** Since the daemon was started. */
  readonly putSizeBytes: number
  readonly advanceCount: number
  readonly failureCount: number
  /** Why it does not get on; it is tried again. */
  readonly trouble: string | undefined
}

export interface RecoveryPlan {
  readonly vpg: string
  readonly kind: RecoveryKind
  readonly target: RecoveryTargetKind
  readonly settings: Json
  /** Of a move the newest there is, in place of the one that it makes. */
  readonly checkpoint: string
  readonly checkpointTimestampMicros: number
  readonly ageMillis: number
  readonly tags: readonly string[]
  readonly vms: readonly PlannedVm[]
  readonly sizeBytes: number
  /** Before the machines can be used: at most, for it is told by the store's manifest alone. */
  readonly copySizeBytes: number
  readonly expectedMillis: number
  readonly commitPolicy: CommitPolicy
  /** What is worth knowing before: a sentence each. */
  readonly remarks: readonly string[]
}

export interface PlannedVm {
  readonly name: string
  readonly volumes: readonly { readonly name: string; readonly sizeBytes: number; readonly dataSizeBytes: number }[]
}

export interface RecoveryFacts {
  readonly id: string
  readonly vpg: string
  readonly kind: RecoveryKind
  readonly state: RecoveryState
  readonly target: RecoveryTargetKind
  readonly settings: Json
  /** Undefined while a move drains. */
  readonly checkpoint: string | undefined
  readonly checkpointTimestampMicros: number | undefined
  readonly vms: readonly RecoveredVm[]
  /** Where what was recovered can be had: files, addresses, ids. */
  readonly things: readonly RecoveredPlace[]
  /** Of the copy that is under way in this process, all volumes together; 0 where none is. */
  readonly doneBytes: number
  readonly totalBytes: number
  readonly etaMillis: number | undefined
  readonly commitPolicy: CommitPolicy
  /** When the commit policy takes effect; undefined where it does not, or not yet. */
  readonly policyAtMicros: number | undefined
  /** The VRA was not running when its time came, or soon after: it is later than was asked for. */
  readonly isPolicyPutOff: boolean | undefined
  readonly createdAtMicros: number
  readonly readyAtMicros: number | undefined
  readonly endedAtMicros: number | undefined
  /** From the decision to when it could be used. */
  readonly rtoMillis: number | undefined
  /** Why it does not get on at this moment; it is tried again. */
  readonly trouble: string | undefined
  /** Why it was undone, where nobody asked for it. */
  readonly failure: FailureRecord | undefined
  /** Of a test that is a drill. */
  readonly drill: DrillFacts | undefined
}

export interface DrillFacts {
  readonly by: 'schedule' | 'person'
  /** The name of one that the daemon's configuration has, or what a client runs itself. */
  readonly check: string
  readonly checkedBy: 'daemon' | 'client'
  /** Undefined until it has come to an end. */
  readonly outcome: DrillOutcome | undefined
  readonly exitStatus: number | undefined
  /** The end of what the check said. */
  readonly output: string | undefined
  readonly checkMillis: number | undefined
}

/** A test that ends by itself when its check has. */
export interface DrillRequest {
  readonly vpg: string
  readonly checkpoint: string
  readonly target: RecoveryTargetKind
  readonly settings: Json
  /** A `configured` one is run by the daemon; a `command` by the client, which says what came of it within so many milliseconds. */
  readonly check: { readonly configured: string } | { readonly command: string; readonly timeoutMillis: number }
}

/** What came of a check that the client ran. */
export type DrillReport = DrillResult & { readonly outcome: 'passed' | 'failed' | 'timed-out' }

export interface DrillScheduleRequest {
  /** One of the two: so long after the one before, or at this minute of each day (UTC). */
  readonly everyMillis?: number
  readonly minuteOfDay?: number
  /** One that the daemon's configuration has. */
  readonly check: string
  readonly target: RecoveryTargetKind
  readonly settings: Json
}

export interface DrillStatus {
  readonly schedule: (DrillScheduleRequest & { readonly setAtMicros: number }) | undefined
  /** When the next one is due, which may have been. */
  readonly nextAtMicros: number | undefined
  /** Why what is due is not begun, a sentence; it is tried again. */
  readonly waitsBecause: string | undefined
  /** Of those that have ended. */
  readonly last: RecoveryFacts | undefined
  /** The newest checkpoint of which a drill has shown that it can be recovered. */
  readonly proven: ProvenCheckpoint | undefined
}

export interface ProvenCheckpoint {
  readonly drill: string
  readonly checkpoint: string
  readonly timestampMicros: number
  readonly provenAtMicros: number
  /** From the decision to when it could be used. */
  readonly rtoMillis: number
}

export interface RecoveredVm {
  readonly name: string
  readonly volumes: readonly {
    readonly name: string
    readonly sizeBytes: number
    readonly doneBytes: number | undefined
    readonly totalBytes: number | undefined
    readonly etaMillis: number | undefined
  }[]
}

export interface RecoveredPlace {
  readonly vm: string
  /** Undefined: of the machine itself. */
  readonly volume: string | undefined
  readonly kind: string
  readonly place: string
}

export type RecoveryDecision = 'commit' | 'rollback' | 'stop'
