import {
  checkpointsBeforeFoldMax,
  checkpointsPerDeltaMax,
  foldLiveBytesDivisor,
  foldSizeBytesMax,
  foldWriteCountMax,
  segmentsBeforeFoldMax,
} from '../base/limits.ts'
import { comparePositions, sequence, type Ordinal, type PositionVector } from '../base/ids.ts'
import type { Checkpoint } from './checkpoint.ts'
import { lastDeltaEnd } from './deltas.ts'
import { advanced, covers, positionIn, segmentStartsWithin } from './positions.ts'
import { mirrorBytes } from './region-plan.ts'
import { holeOver, retention } from './retention.ts'
import type { SegmentSpan, VpgState } from './state.ts'

// When the waiting segments become a delta. By bytes, not by time: every byte is written once more by a fold, and a
// delta's objects are full only when a fold has enough of them.

export interface FoldLimits {
  readonly foldSizeBytesMin: number
  /** What one fold takes at most; foldSizeBytesMax and foldWriteCountMax where not given. */
  readonly foldSizeBytesMax?: number
  readonly foldWriteCountMax?: number
}

/** The delta (fromOrdinal, toOrdinal] that is due. */
export interface FoldPlan {
  /** The number of an open delta, see DeltaSpan; undefined for one that ends at a checkpoint. */
  readonly open: number | undefined
  readonly fromOrdinal: Ordinal
  readonly toOrdinal: Ordinal
  /** Where the last delta ends and where this one will, as positions. */
  readonly fromVector: PositionVector
  readonly toVector: PositionVector
  /** Those with records before the end, in commit order. */
  readonly segments: readonly SegmentSpan[]
  /** Every retained checkpoint in (fromOrdinal, toOrdinal], ascending; the delta holds the last write before each. None in an open one. */
  readonly checkpoints: readonly Checkpoint[]
}

/**
 * Waiting raw bytes from which on a fold is due: live bytes / 128, within the two bounds; but never more than a quarter of the
 * journal's limit, for what waits for a fold cannot leave.
 */
export function foldThresholdBytes(state: VpgState, limits: FoldLimits): number {
  const wanted = mirrorBytes(state).liveBytes / foldLiveBytesDivisor
  const { journalLimitSizeBytes } = state.definition
  const quarter = journalLimitSizeBytes === 0 ? Infinity : journalLimitSizeBytes / 4
  return Math.min(foldSizeBytesMax, quarter, Math.max(limits.foldSizeBytesMin, wanted))
}

/** Guest bytes of segments that no delta holds yet. One that straddles the last delta's end was counted by that delta. */
export function waitingBytes(segments: readonly SegmentSpan[], fromVector: PositionVector): number {
  return waitingIn(segments, fromVector).rawSizeBytes
}

function waitingIn(
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

/** What waits for a fold, beside the segments of the state. */
export interface Waiting {
  /** Where the last delta ends. */
  readonly fromVector: PositionVector
  /** The complete checkpoints after the last closed delta's end, ascending. */
  readonly checkpoints: readonly Checkpoint[]
  /** Complete as well, by markers that are in the log alone: no fold can end there yet, and none may pass them. */
  readonly inLog?: readonly Checkpoint[]
}

/**
 * The fold that is due, or undefined. It ends at a checkpoint that is retained; where none can be reached within what a fold takes at once, it is
 * an open one. It never ends inside a hole that is not repaired: what is there cannot be decompressed, and nobody is offered it.
 */
export function planFold(state: VpgState, waiting: Waiting, limits: FoldLimits): FoldPlan | undefined {
  const { fromVector, checkpoints, inLog = [] } = waiting
  const { rawSizeBytes, writeCount } = waitingIn(state.segments, fromVector)
  const due =
    rawSizeBytes > foldThresholdBytes(state, limits) ||
    writeCount > foldWriteCountMax ||
    state.segments.length > segmentsBeforeFoldMax ||
    checkpoints.length > checkpointsBeforeFoldMax
  if (!due) return undefined
  const fromOrdinal = lastDeltaEnd(state)
  const isRetained = retention(state)
  const offered = checkpoints.filter(
    ({ ordinal }) => ordinal > fromOrdinal && isRetained(ordinal) && holeOver(state.holes, ordinal) === undefined,
  )
  const retained = offered
    .filter(checkpoint => covers(state.offloaded, checkpoint.vector))
    .slice(0, checkpointsPerDeltaMax)
  const boundedCount = countWithinBounds(state.segments, fromVector, limits)
  const within = reachable(retained, state.segments[boundedCount])
  const open = within.length > 0 ? undefined : planOpenFold(state, fromVector, [...offered, ...inLog], boundedCount)
  if (open !== undefined) return open
  const held = within.length > 0 ? within : retained.slice(0, 1)
  const to = held.at(-1)
  if (to === undefined) return undefined
  return {
    open: undefined,
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
 * scratch have room for: the rest is left to the next fold.
 */
function reachable(checkpoints: readonly Checkpoint[], beyond: SegmentSpan | undefined): readonly Checkpoint[] {
  if (beyond === undefined) return checkpoints
  const last = checkpoints.findLastIndex(checkpoint => !segmentStartsWithin(beyond, checkpoint.vector))
  return checkpoints.slice(0, last + 1)
}

/** How many segments, from the first, a fold takes at once. One that an earlier fold has begun was counted by that. */
function countWithinBounds(segments: readonly SegmentSpan[], fromVector: PositionVector, limits: FoldLimits): number {
  let [rawSizeBytes, writeCount] = [0, 0]
  const beyond = segments.findIndex(segment => {
    if (segmentStartsWithin(segment, fromVector)) return false
    rawSizeBytes += segment.rawSizeBytes
    writeCount += segment.writeCount
    return (
      rawSizeBytes > (limits.foldSizeBytesMax ?? foldSizeBytesMax) ||
      writeCount > (limits.foldWriteCountMax ?? foldWriteCountMax)
    )
  })
  return beyond < 0 ? segments.length : beyond
}

/**
 * An open delta of as many whole segments as a fold takes, when more than that waits. No checkpoint that is complete lies inside it, and no hole
 * that nothing has repaired. One that still misses a marker does not keep it waiting: where an agent fell out between the
 * markers of a cut, and its synchronisation is what waits here, that marker never comes. Such a checkpoint is given up.
 */
function planOpenFold(
  state: VpgState,
  fromVector: PositionVector,
  offered: readonly Checkpoint[],
  countMax: number,
): FoldPlan | undefined {
  if (countMax === state.segments.length) return undefined
  const cuts: PositionVector[] = [
    ...offered.map(checkpoint => checkpoint.vector),
    ...state.holes
      .filter(hole => hole.repairedFromOrdinal === undefined)
      .map(({ stream, generation, firstSequence }) => [{ stream, generation, sequence: sequence(firstSequence) }]),
  ]
  let toVector = fromVector
  let count = 0
  for (const segment of state.segments.slice(0, Math.max(1, countMax))) {
    const next = advanced(toVector, segment.ranges)
    if (!cuts.every(cut => liesBefore(next, cut))) break
    toVector = next
    count++
  }
  if (count === 0) return undefined
  const fromOrdinal = lastDeltaEnd(state)
  return {
    open: (state.deltas.at(-1)?.open ?? 0) + 1,
    fromOrdinal,
    toOrdinal: (fromOrdinal + 1) as Ordinal,
    fromVector,
    toVector,
    segments: state.segments.slice(0, count),
    checkpoints: [],
  }
}

/** True when nothing at or after the cut is within the vector: an open delta may end there. */
export function liesBefore(vector: PositionVector, cut: PositionVector): boolean {
  return cut.every(position => {
    const end = positionIn(vector, position.stream)
    return end === undefined || comparePositions(end, position) < 0
  })
}
