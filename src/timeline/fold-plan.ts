import {
  checkpointsBeforeFoldMax,
  checkpointsPerDeltaMax,
  foldLiveBytesDivisor,
  foldSizeBytesMax,
  foldWriteCountMax,
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
  return waiting(segments, fromVector).rawSizeBytes
}

function waiting(
  segments: readonly SegmentSpan[],
  fromVector: PositionVector,
): { readonly rawSizeBytes: number; readonly writeCount: number } {
  let [rawSizeBytes, writeCount] = [0, 0]
  for (const segment of segments) {
    if (segmentStartsWithin(segment, fromVector)) continue
    rawSizeBytes += segment.rawSizeBytes
    writeCount += segment.writeCount
  }
  return { rawSizeBytes, writeCount }
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
  const { rawSizeBytes, writeCount } = waiting(state.segments, fromVector)
  const due =
    rawSizeBytes > foldThresholdBytes(state, limits) ||
    writeCount > foldWriteCountMax ||
    state.segments.length > segmentsBeforeFoldMax ||
    checkpoints.length > checkpointsBeforeFoldMax
  if (!due) return undefined
  const fromOrdinal = lastDeltaEnd(state)
  const isRetained = retention(state)
  const limit = withdrawnFrom(state.holes)
  const retained = checkpoints
    .filter(checkpoint => checkpoint.ordinal > fromOrdinal && checkpoint.ordinal < limit)
    .filter(checkpoint => isRetained(checkpoint.ordinal) && covers(state.offloaded, checkpoint.vector))
    .slice(0, checkpointsPerDeltaMax)
  const held = withinBounds(retained, state.segments)
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

/**
 * The checkpoints that one fold can reach. After an outage, or when more comes in than is folded, far more waits than memory and
 * scratch have room for: the rest is left to the next fold. One checkpoint is reached whatever lies before it.
 */
function withinBounds(checkpoints: readonly Checkpoint[], segments: readonly SegmentSpan[]): readonly Checkpoint[] {
  let [rawSizeBytes, writeCount] = [0, 0]
  const beyond = segments.find(segment => {
    rawSizeBytes += segment.rawSizeBytes
    writeCount += segment.writeCount
    return rawSizeBytes > foldSizeBytesMax || writeCount > foldWriteCountMax
  })
  if (beyond === undefined) return checkpoints
  const last = checkpoints.findLastIndex(checkpoint => !segmentStartsWithin(beyond, checkpoint.vector))
  return checkpoints.slice(0, Math.max(1, last + 1))
}

/** Where the last delta ends; before the first, the beginning of history. */
export function lastDeltaEnd(state: VpgState): Ordinal {
  return state.deltas.at(-1)?.toOrdinal ?? (0 as Ordinal)
}
