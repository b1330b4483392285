import type { Ordinal } from '../base/ids.ts'
import { thinningShare } from '../base/limits.ts'
import type { Tag } from './checkpoint.ts'
import { everyMillisAt, type Density } from './densities.ts'
import { holeOver, keptOrdinals, type HistoryPoint, type RetentionState } from './retention.ts'

// Which checkpoints a policy drops. README.md has the rule and why it is so; in short: of those in one interval of the history
// clock that has come to a density, one stays, the oldest of those that include the most volumes.

/** What thinning needs to know of a checkpoint. */
export interface ThinningPoint extends HistoryPoint {
  /** Volumes that are whole in it. */
  readonly includedCount: number
}

/**
 * The checkpoints that the densities let go, ascending. Never the oldest of the history, the newest offered, one that a tag or a pin holds, one
 * that a hole withdraws. Points ascend by ordinal and are all that exist. Asked again of what is left, it answers nothing until time has gone on.
 */
export function droppedBy(
  densities: readonly Density[],
  points: readonly ThinningPoint[],
  state: RetentionState,
): Ordinal[] {
  if (densities.every(({ everyMillis }) => everyMillis === 0)) return []
  const candidates = points.filter(
    ({ ordinal }) => ordinal >= state.historyEdge && holeOver(state.holes, ordinal) === undefined,
  )
  const [oldest, newest] = [candidates[0], candidates.at(-1)]
  if (oldest === undefined || newest === undefined) return []
  const kept = new Set<number>([...keptOrdinals(state), oldest.ordinal, newest.ordinal])
  const intervals = new Map<string, ThinningPoint[]>()
  for (const point of candidates) {
    const everyMillis = everyMillisAt(densities, point.historyMillis, newest.historyMillis)
    if (everyMillis === 0) continue
    const name = `${everyMillis}/${Math.floor(point.historyMillis / everyMillis)}`
    const interval = intervals.get(name)
    if (interval === undefined) intervals.set(name, [point])
    else interval.push(point)
  }
  const dropped: Ordinal[] = []
  for (const interval of intervals.values()) {
    const stays = interval.reduce((best, point) => (point.includedCount > best.includedCount ? point : best))
    for (const point of interval) if (point !== stays && !kept.has(point.ordinal)) dropped.push(point.ordinal)
  }
  return dropped.sort((a, b) => a - b)
}

/** Whether so many of so many are worth a commit of their own. */
export function isWorthACommit(droppedCount: number, pointCount: number): boolean {
  return droppedCount > 0 && droppedCount >= pointCount * thinningShare
}

/** Tags that have been kept for as long as they were to be. `newestHistoryMillis` is the newest checkpoint's. */
export function expiredTags(tags: readonly Tag[], newestHistoryMillis: number): Tag[] {
  return tags.filter(({ keep }) => keep !== undefined && newestHistoryMillis - keep.fromHistoryMillis >= keep.millis)
}
