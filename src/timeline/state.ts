import type { Ordinal, StreamPosition } from '../base/ids.ts'
import type { Pin, Tag } from './checkpoint.ts'
import type { VpgDefinition } from './definition.ts'
import type { RecoveryRecord } from './recovery.ts'
import type { RegionSizes } from './region-sizes.ts'
import type { StandbyRecord } from './standby.ts'

// The state of a VPG's timeline as plain data: what a manifest holds, and what every reader of an image is given.

/** An immutable object in the store. */
export interface ObjectRef {
  readonly key: string
  readonly sizeBytes: number
}

/** A run of records of one stream of one generation inside a segment. Sequences are inclusive. */
export interface StreamRange {
  readonly stream: number
  readonly generation: number
  readonly firstSequence: number
  readonly lastSequence: number
}

/** Every write in order. Its bounds are positions, not checkpoints: a segment may straddle one. */
export interface SegmentSpan {
  readonly kind: 'segment'
  /** Its number in the VPG's commit sequence. */
  readonly commitNumber: number
  readonly object: ObjectRef
  readonly footerOffsetBytes: number
  readonly footerSizeBytes: number
  readonly ranges: readonly StreamRange[]
  readonly writeCount: number
  /** Guest bytes of its data writes, uncompressed. */
  readonly rawSizeBytes: number
  /** Of the markers in it; 0 where it has none. */
  readonly firstOrdinal: Ordinal
  readonly lastOrdinal: Ordinal
}

/**
 * The last write to each place, per checkpoint that was retained when it was made: (fromOrdinal, toOrdinal].
 *
 * While a synchronisation is open no checkpoint comes, and what it sends may be far more than one delta takes. Then *open* deltas
 * are made, one behind the other: each ends at a place where no checkpoint is, is (C, C + 1] of the last checkpoint C that a delta ended
 * at, and counts for whatever checkpoint comes next. Open deltas and the one that closes them start at the same checkpoint; what they hold
 * lies over one another in the order of the list.
 */
export interface DeltaSpan {
  readonly kind: 'delta'
  readonly fromOrdinal: Ordinal
  readonly toOrdinal: Ordinal
  /** Of an open delta: its number since the last closed one, from 1. */
  readonly open?: number
  /** Ascending by volume and offset; no two overlap in range. */
  readonly packs: readonly PackRef[]
  /** Every checkpoint in (fromOrdinal, toOrdinal] that was retained when it was made and was not dropped since, as a checkpoint page. */
  readonly checkpoints: ObjectRef
  readonly checkpointCount: number
  /** How many checkpoints its data tells apart, where some were dropped since it was made; else `checkpointCount`. */
  readonly versionCount?: number | undefined
  readonly rawSizeBytes: number
}

/** A pack and the range of places that it speaks of: from (volume, startBytes) to (volume, endBytes), half-open, one volume. */
export interface PackRef {
  readonly object: ObjectRef
  readonly volume: number
  readonly startBytes: number
  readonly endBytes: number
  /** Where its index starts; from there to the end is what a reader needs before the blocks. */
  readonly indexOffsetBytes: number
  readonly extentCount: number
  readonly rawSizeBytes: number
  /** Raw bytes of its extents in every region that it touches. */
  readonly regionRawSizeBytes: RegionSizes
}

/** One region of a volume as of one checkpoint, whole: what its pack does not hold is zeros. */
export interface RegionVersion {
  readonly volume: number
  /** Times regionSizeBytes: where it starts. */
  readonly region: number
  readonly asOfOrdinal: Ordinal
  /** Undefined: the region is all zeros. */
  readonly pack: PackRef | undefined
}

/** A part of the history in which a payload was bad: checkpoints from `fromOrdinal` on are withdrawn. */
export interface Hole {
  readonly stream: number
  readonly generation: number
  /** 0 with `lastSequence` 0: perhaps the end of the generation before. */
  readonly firstSequence: number
  readonly lastSequence: number
  /** The first checkpoint that contains it; every later one is withdrawn until a sync repairs it. */
  readonly fromOrdinal: Ordinal
  /** A synchronisation of its volumes that began after it was known: the first checkpoint in that generation that includes them repairs it. */
  readonly repair?: { readonly stream: number; readonly generation: number; readonly volumes: readonly number[] }
  /** The checkpoint that repaired it: from there on checkpoints are whole again. */
  readonly repairedFromOrdinal?: Ordinal
  readonly reason: string
  readonly ranges: readonly { readonly volume: number; readonly offsetBytes: number; readonly sizeBytes: number }[]
}

/** What left the manifest and may be deleted when its grace period is over. */
export interface GarbageObject {
  readonly key: string
  readonly leftAtMicros: number
}

/** All that a VPG's newest manifest says, with the segments committed after it. */
export interface VpgState {
  readonly definition: VpgDefinition
  readonly epoch: number
  readonly commitNumber: number
  /** Oldest first; each starts where the closed one before it ends. All before the segments. */
  readonly deltas: readonly DeltaSpan[]
  /** In commit order. Only records after the last delta's end count in them. */
  readonly segments: readonly SegmentSpan[]
  readonly regions: readonly RegionVersion[]
  /** Offloaded up to here, per stream. */
  readonly offloaded: readonly StreamPosition[]
  /** Checkpoints below it are gone, but for tagged and pinned ones. */
  readonly historyEdge: Ordinal
  /** While the journal's limit keeps the history shorter than it should be: since when. */
  readonly agedEarly?: { readonly sinceMicros: number } | undefined
  readonly tags: readonly Tag[]
  readonly pins: readonly Pin[]
  /** In the order in which they were begun; of those that have ended the newest. */
  readonly recoveries: readonly RecoveryRecord[]
  /** Undefined where no copies are kept warm. */
  readonly standby?: StandbyRecord | undefined
  readonly holes: readonly Hole[]
  readonly garbage: readonly GarbageObject[]
}
