import type { ImagePlan } from '../aging/service.ts'
import type { VpgDefinition } from '../timeline/definition.ts'
import type { Json, RecoveryKind, RecoveryRecord, RecoveryTargetKind, RecoveryVm } from '../timeline/recovery.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { StandbyRecord } from '../timeline/standby.ts'
import type { VolumeDataSize } from '../timeline/image-size.ts'

// What a recovery brings the machines up on. The engine (recovery.ts) owns the record, its states, the pin and the order of things; a target owns what
// it creates. Every call but plan() may be the second, third... after a process that was killed anywhere inside the one before: it finds out by
// its memory (and, of services that have no tokens, by looking for what carries the recovery's id) what is there, and goes on.

/** What is to be recovered, before there is a record. */
export interface TargetRequest {
  readonly kind: RecoveryKind
  readonly definition: VpgDefinition
  /** Of a move: the newest, in place of the one that draining will make. */
  readonly checkpoint: Checkpoint
  readonly vms: readonly RecoveryVm[]
  /** Of each volume that is recovered: its size as of the checkpoint, and about how much of that is data. */
  readonly sizes: readonly VolumeDataSize[]
  /** As it came from the API; the target checks it. */
  readonly settings: Json
}

/** What it will do, for somebody who has to decide. */
export interface TargetPlan {
  /** Checked, defaults filled in: what the record keeps. */
  readonly settings: Json
  /** Bytes that are to be copied before the machines can be used; 0 where they can at once. */
  readonly copySizeBytes: number
  readonly expectedMillis: number
  /** Quotas that could bind, costs, what will be missing: a sentence each. */
  readonly remarks: readonly string[]
}

export interface TargetContext {
  /** As it is now: with the memory that was remembered last. */
  readonly record: RecoveryRecord
  readonly definition: VpgDefinition
  /** Durable in the object store on return, in the order of the calls; `record.memory` then says the same. It may be called, and waited for, after the signal too. */
  remember(memory: Json): Promise<void>
  /**
   * All that a reader of the checkpoint needs; valid until release(). The checkpoint itself stays pinned by the record, so a plan that was released,
   * or was another process's, is followed by another one of the same bytes. Cheap: no commit. It holds the objects and the log files that it names,
   * so whoever reads for long takes another one now and then, and the log its files back. CHECKPOINT_MISSING only where damage was found since that
   * withdraws the checkpoint, or where the appliance was lost before the checkpoint was offloaded.
   */
  openPlan(): Promise<ImagePlan>
  release(plan: ImagePlan): Promise<void>
  /** Of one volume, in bytes of the work; told as often as one likes. */
  progress(volume: number, doneBytes: number, totalBytes: number): void
  /** Aborted when the daemon stops or the recovery is cancelled: the call then ends soon, failing CLOSING. */
  readonly signal: AbortSignal
}

/** Where a volume can be had now: a file, an NBD URI, ids of a snapshot, a volume, an instance. Shown to people as it is. */
export interface RecoveredThing {
  readonly vm: string
  /** Undefined: of the machine itself. */
  readonly volume: number | undefined
  readonly kind: string
  readonly place: string
}

/** Keeps copies of a VPG's volumes where it would recover them, as of some recent checkpoint, so that a recovery moves only what has changed since. */
export interface StandbyTarget {
  /**
   * On return there is a copy as of the record's next checkpoint of each volume that it includes, and what it took the place of is gone. As with a recovery, a call
   * may be the second after a process that was killed inside the one before, and the first of another `next` than the last one's.
   */
  advance(context: StandbyContext): Promise<StandbyAdvance>
  /** Nothing of it is left on return, whatever state it was in. */
  end(context: StandbyContext): Promise<void>
  /** Reads nothing but the record. */
  copies(record: StandbyRecord): readonly StandbyCopy[]
}

export interface StandbyContext {
  /** As it is now: with the memory that was remembered last. */
  readonly record: StandbyRecord
  readonly definition: VpgDefinition
  /** Durable in the object store on return, in the order of the calls. */
  remember(memory: Json): Promise<void>
  readonly signal: AbortSignal
}

export interface StandbyAdvance {
  /** What was moved for it. */
  readonly putSizeBytes: number
}

export interface StandbyCopy {
  readonly volume: number
  readonly place: string
  /** The checkpoint that it holds. */
  readonly ordinal: number
  readonly putSizeBytes: number
  /** It was not put upon the one before it. */
  readonly isWhole: boolean
}

export interface RecoveryTarget {
  readonly kind: RecoveryTargetKind
  /** Changes nothing. REQUEST_INVALID and others for everything that can be known before something is created. */
  plan(request: TargetRequest, signal: AbortSignal): Promise<TargetPlan>
  /** Everything is usable on return. What it fails with by 'retry' (but DISK_FAILED) is tried again some times; all else undoes the recovery. */
  prepare(context: TargetContext): Promise<void>
  /** After a start of the daemon, of a recovery that is ready or committed: what lives in the process is there again (an NBD server listens). */
  resume(context: TargetContext): Promise<void>
  /** Tried again until it succeeds. It is kept for good on return, and depends on nothing of the VRA any more where it can. */
  commit(context: TargetContext): Promise<void>
  /**
   * Of one that serves a committed recovery on: it does not any more on return, and what was kept stays. The record says so before; a process that dies in
   * between does not serve it again.
   */
  endService?(context: TargetContext): Promise<void>
  /** Tried again until it succeeds. Nothing of it is left on return, anywhere; from any state, also where prepare() never began. */
  remove(context: TargetContext): Promise<void>
  /** Of one that is removed, perhaps by another appliance while this one was not there: what it has left on this host goes, soon. */
  sweep?(record: RecoveryRecord): void
  /** Reads nothing but the record. */
  things(record: RecoveryRecord, definition: VpgDefinition): readonly RecoveredThing[]
  close(): Promise<void>
}
