import type { Ordinal } from '../base/ids.ts'
import type { Pin, Tag } from './checkpoint.ts'
import type { Hole } from './state.ts'

// Which checkpoints of a VPG are kept. History is counted backward from the newest checkpoint that can be recovered, on
// the VPG's own history clock, which the checkpoints carry: a dead site, a stopped appliance or a clock that jumps ages
// nothing. Order is by ordinal; a timestamp is a label and takes no part.

/** What retention needs to know of a checkpoint. */
export interface HistoryPoint {
  readonly ordinal: Ordinal
  readonly historyMillis: number
}

/** The parts of a VPG's state that decide what is retained. */
export interface RetentionState {
  readonly historyEdge: Ordinal
  readonly tags: readonly Tag[]
  readonly pins: readonly Pin[]
  readonly holes: readonly Hole[]
}

/** The hole that withdraws a checkpoint: one that opened at or before it and was not repaired by then. The first of them. */
export function holeOver(holes: readonly Hole[], ordinal: number): Hole | undefined {
  return holes
    .filter(hole => hole.fromOrdinal <= ordinal && ordinal < (hole.repairedFromOrdinal ?? Infinity))
    .reduce<Hole | undefined>(
      (first, hole) => (first !== undefined && first.fromOrdinal <= hole.fromOrdinal ? first : hole),
      undefined,
    )
}

/**
 * The oldest checkpoint that must be kept so that the whole history can be recovered: the newest at or before the
 * history's start. Withdrawn checkpoints are not counted as history, or a hole would push the good ones out. Undefined
 * where there is no checkpoint to count from. Points ascend by ordinal.
 */
export function historyEdge(
  points: readonly HistoryPoint[],
  historyMillis: number,
  holes: readonly Hole[],
): Ordinal | undefined {
  const offered = points.filter(point => holeOver(holes, point.ordinal) === undefined)
  const newest = offered.at(-1)
  if (newest === undefined) return undefined
  const startMillis = newest.historyMillis - historyMillis
  const edge = offered.findLast(point => point.historyMillis <= startMillis) ?? offered[0]
  return edge?.ordinal
}

/** True when these points reach back as far as the history should. */
export function isCovered(points: readonly HistoryPoint[], historyMillis: number, holes: readonly Hole[]): boolean {
  const offered = points.filter(point => holeOver(holes, point.ordinal) === undefined)
  const [oldest, newest] = [offered[0], offered.at(-1)]
  return oldest !== undefined && newest !== undefined && newest.historyMillis - oldest.historyMillis >= historyMillis
}

/** Answers, for many ordinals, whether a checkpoint of that ordinal is retained: by policy, by a tag, by a pin. */
export function retention(state: RetentionState): (ordinal: number) => boolean {
  const kept = new Set<number>(keptOrdinals(state))
  return ordinal => ordinal >= state.historyEdge || kept.has(ordinal)
}

/** Ordinals that tags and pins keep, ascending, whether or not the history covers them as well. */
export function keptOrdinals(state: RetentionState): Ordinal[] {
  const kept = new Set([...state.tags, ...state.pins].map(keeper => keeper.ordinal))
  return [...kept].sort((a, b) => a - b)
}

/** True when the checkpoint may be recovered: retained, and no hole withdraws it. */
export function isOffered(state: RetentionState, ordinal: Ordinal): boolean {
  return retention(state)(ordinal) && holeOver(state.holes, ordinal) === undefined
}
