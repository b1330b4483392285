import {
  checkpointsPerDeltaMax,
  foldLiveBytesDivisor,
  foldSizeBytesMax,
  segmentsBeforeFoldMax,
} from '../base/limits.ts'
import type { Ordinal, PositionVector } from '../base/ids.ts'
import type { Checkpoint } from './checkpoint.ts'
import { covers, segmentStartsWithin } from './positions.ts'
import { mirrorBytes } from './region-plan.ts'
import { retention, withdrawnFrom } from './retention.ts'
import type { SegmentSpan, VpgState } from './state.ts'

// When the waiting segments become a delta. By bytes, not by time: every byte is written once more by a fold, and a
// delta's objects are full only when a fold has enough of them.

export interface FoldLimits {
  readonly foldSizeBytesMin: number
}

/** The delta (fromOrdinal, toOrdinal] that is due. */
export interface FoldPlan {
  readonly fromOrdinal: Ordinal
  readonly toOrdinal: Ordinal
  /** Where the last delta ends and where this one will, as positions. */
  readonly fromVector: PositionVector
  readonly toVector: PositionVector
  /** Those with records before the end, in commit order. */
  readonly segments: readonly SegmentSpan[]
  /** Every retained checkpoint in (fromOrdinal, toOrdinal], ascending; the delta holds the last write before each. */
  readonly checkpoints: readonly Checkpoint[]
}

/** Waiting raw bytes from which on a fold is due: live bytes / 128, within the two bounds. */
export function foldThresholdBytes(state: VpgState, limits: FoldLimits): number {
  const wanted = mirrorBytes(state).liveBytes / foldLiveBytesDivisor
  return Math.min(foldSizeBytesMax, Math.max(limits.foldSizeBytesMin, wanted))
}

/** Guest bytes of segments that no delta holds yet. One that straddles the last delta's end was counted by that delta. */
export function waitingBytes(segments: readonly SegmentSpan[], fromVector: PositionVector): number {
  return segments
    .filter(segment => !segmentStartsWithin(segment, fromVector))
    .reduce((sum, segment) => sum + segment.rawSizeBytes, 0)
}

/**
 * The fold that is due, or undefined. `checkpoints` are the complete ones after the last delta's end, ascending;
 * `fromVector` is that end. It never reaches into a hole: what is there cannot be decompressed, and nobody is offered it.
 */
export function planFold(
  state: VpgState,
  fromVector: PositionVector,
  checkpoints: readonly Checkpoint[],
  limits: FoldLimits,
): FoldPlan | undefined {
  const due =
    waitingBytes(state.segments, fromVector) > foldThresholdBytes(state, limits) ||
    state.segments.length > segmentsBeforeFoldMax
  if (!due) return undefined
  const fromOrdinal = lastDeltaEnd(state)
  const isRetained = retention(state)
  const limit = withdrawnFrom(state.holes)
  const held = checkpoints
    .filter(checkpoint => checkpoint.ordinal > fromOrdinal && checkpoint.ordinal < limit)
    .filter(checkpoint => isRetained(checkpoint.ordinal) && covers(state.offloaded, checkpoint.vector))
    .slice(0, checkpointsPerDeltaMax)
  const to = held.at(-1)
  if (to === undefined) return undefined
  return {
    fromOrdinal,
    toOrdinal: to.ordinal,
    fromVector,
    toVector: to.vector,
    segments: state.segments.filter(segment => segmentStartsWithin(segment, to.vector)),
    checkpoints: held,
  }
}

/** Where the last delta ends; before the first, the beginning of history. */
export function lastDeltaEnd(state: VpgState): Ordinal {
  return state.deltas.at(-1)?.toOrdinal ?? (0 as Ordinal)
}
