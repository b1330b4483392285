import type { FailureRecord } from '../base/failure.ts'
import type { Checkpoint } from './checkpoint.ts'

// A recovery as plain data: what a person decided, how far it has come, and what its target must remember. A control record of the VPG's manifest:
// durable in the object store before what it says is done, so that a process that is killed between any two steps is followed by one that
// goes on, or undoes.

export type RecoveryKind = 'test' | 'failover' | 'move' | 'clone'

export type RecoveryTargetKind = 'nbd' | 'raw' | 'aws'

/**
 * A move begins with draining, all others with preparing. Every state but ready, committed and removed is work that a start goes on with.
 *
 *   draining ─> preparing ─> ready ─┬─ commit ─────────> committing ─> committed
 *       │           │               └─ rollback, stop ─> removing ──> removed
 *       └───────────┴─ it failed, or was cancelled ──────┘
 */
export type RecoveryState = 'draining' | 'preparing' | 'ready' | 'committing' | 'committed' | 'removing' | 'removed'

/** Anything that goes into JSON and comes back the same. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json }

export interface RecoveryVm {
  readonly name: string
  /** Numbers of the volumes of this machine that are recovered; the checkpoint includes each. */
  readonly volumes: readonly number[]
}

/** What happens to a recovery that is ready when nobody says anything: after the wait it is committed, or rolled back; none: it waits for ever. */
export interface CommitPolicy {
  readonly kind: 'none' | 'commit' | 'rollback'
  readonly afterMillis: number
}

/** At most recoverySizeBytesMax as JSON. */
export interface RecoveryRecord {
  readonly formatVersion: 1
  /** "r-" and 12 hexadecimal digits; part of the names and tags of everything that it creates. */
  readonly id: string
  readonly kind: RecoveryKind
  /** Pinned by a pin of the same id from the commit that created the record to the one that ends it. Undefined while a move drains. */
  readonly checkpoint: Checkpoint | undefined
  readonly vms: readonly RecoveryVm[]
  /** As the target validated it. */
  readonly target: { readonly kind: RecoveryTargetKind; readonly settings: Json }
  readonly commitPolicy: CommitPolicy
  readonly state: RecoveryState
  /** The target's own: tokens and ids of what it creates, written before the call that creates it. */
  readonly memory: Json
  readonly createdAtMicros: number
  /** When it was ready: the commit policy's wait and the measured RTO count from it. */
  readonly readyAtMicros: number | undefined
  readonly endedAtMicros: number | undefined
  /** Why it was undone, where it was not asked for. */
  readonly failure: FailureRecord | undefined
}
