import type { Ordinal, PositionVector, VpgId } from '../base/ids.ts'
import type { Disk } from '../disk/disk.ts'
import type { RecordSource } from '../segment/record-source.ts'
import type { ObjectStore } from '../store/object-store.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { Hole, ObjectRef, PackRef, VpgState } from '../timeline/state.ts'
import type { Workspace } from './workspace.ts'

// What the mirror is asked for, and what it answers.

/** What every long operation of the mirror is given beside its data. */
export interface MirrorTools {
  readonly store: ObjectStore
  /** Names the next object; every key is new. */
  readonly newKey: () => string
  /** Large buffers that are used again from one operation to the next; one operation at a time. */
  readonly workspace: Workspace
  /** Called at least every 10 ms of work: whoever shares the processor may hold the operation up here. */
  readonly yieldNow: () => Promise<void>
  readonly signal: AbortSignal
}

export interface FoldRequest extends MirrorTools {
  readonly vpg: VpgId
  readonly epoch: number
  /** Where the delta before this one ends; 0 and no positions for the first. */
  readonly fromOrdinal: Ordinal
  readonly fromVector: PositionVector
  /** The retained checkpoints after `fromOrdinal`, ascending, 65,535 at most; the last is where the delta ends. */
  readonly checkpoints: readonly Checkpoint[]
  /** Every record between the two cuts, in commit order; records outside them are passed over. */
  readonly sources: readonly RecordSource[]
  readonly holes: readonly Hole[]
  readonly disk: Disk
  readonly scratchDirectory: string
  readonly limits: FoldLimits
}

export interface FoldLimits {
  readonly packRawSizeBytesMax: number
  /** A fold of no more raw bytes than this needs no scratch file. */
  readonly memorySizeBytesMax: number
  /** Else its data goes through a scratch file in parts of about this size. */
  readonly partitionSizeBytes: number
  readonly regionSizeBytes: number
}

export interface FoldResult {
  /** Ascending by volume and offset; empty when nothing was written between the cuts. */
  readonly packs: readonly PackRef[]
  readonly rawSizeBytes: number
  readonly storedSizeBytes: number
}

export interface RewriteRequest extends MirrorTools {
  readonly state: Pick<VpgState, 'deltas' | 'regions'>
  readonly vpg: VpgId
  readonly epoch: number
  readonly volume: number
  readonly region: number
  /** The end of one of the state's deltas, later than the newest version of the region. */
  readonly asOfOrdinal: Ordinal
  readonly regionSizeBytes: number
}

/** Something that is wrong with a pack. */
export interface PackFault {
  /** In the object; undefined where the whole of it is missing or cannot be read. */
  readonly offsetBytes: number | undefined
  readonly sentence: string
}

/** What is wrong with a pack, each fault with its place; none when it is whole. */
export interface PackReport {
  readonly object: ObjectRef
  readonly extentCount: number
  readonly blockCount: number
  readonly faults: readonly PackFault[]
}
