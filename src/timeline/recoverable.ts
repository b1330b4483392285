import type { Ordinal } from '../base/ids.ts'
import { gapsToldMax, intervalsBeforeSilence, timelineCellCount } from '../base/limits.ts'
import { everyMillisAt, type Density } from './densities.ts'
import { holeOver, type HistoryPoint } from './retention.ts'
import type { Hole } from './state.ts'

// What can be recovered how densely, for people: the ages of the policy's densities, and the gaps.
//
//   age        0 ........ 4 h ............. 2 d ................................ 14 d        (history clock, back from the newest)
//   policy     every one  | one in 1 min    | one in 1 h                         |
//   period     [cells.....][cells..........][cells..............................]            a cell: which share of it is as dense as that

/** A checkpoint with its label: gaps are told in the time that people know. */
export interface RecoverablePoint extends HistoryPoint {
  readonly timestampMicros: number
}

/** The part of the history that one density is for. Ages are counted from the newest checkpoint that can be recovered. */
export interface Period {
  readonly fromAgeMillis: number
  readonly toAgeMillis: number
  /** What the policy keeps there; 0 for every checkpoint. */
  readonly everyMillis: number
  readonly checkpointCount: number
  /** From young to old, over equal parts of the period: the share of each in which checkpoints are as dense as they should be, 0 to 1. */
  readonly coverage: readonly number[]
}

/** Between two neighbours far more time lies than the policy leaves there. */
export interface Gap {
  readonly after: RecoverablePoint
  readonly before: RecoverablePoint
  /** In the time that people know, and on the history clock, which stands while nothing is protected. */
  readonly wallMillis: number
  readonly historyMillis: number
  /** Checkpoints in it that a hole withdraws, and why. */
  readonly withdrawnCount: number
  readonly reason: string | undefined
}

export interface Recoverable {
  readonly checkpointCount: number
  readonly withdrawnCount: number
  readonly oldest: RecoverablePoint | undefined
  readonly newest: RecoverablePoint | undefined
  /** One a density, from young to old; then one for what tags and pins keep beyond, where they do. */
  readonly periods: readonly Period[]
  /** The widest, from new to old. */
  readonly gaps: readonly Gap[]
  readonly moreGaps: number
}

export interface RecoverableRequest {
  readonly densities: readonly Density[]
  readonly checkpointIntervalMillis: number
  readonly holes: readonly Hole[]
}

/** Neighbours in a thinned part may be two intervals apart: the oldest of one and the newest of the next. */
const denseFactor = 2.25

/** Points ascend by ordinal and are all that exist. */
export function recoverableOf(points: readonly RecoverablePoint[], request: RecoverableRequest): Recoverable {
  const { densities, checkpointIntervalMillis, holes } = request
  const isWithdrawn = (ordinal: Ordinal): boolean => holes.length > 0 && holeOver(holes, ordinal) !== undefined
  const offered = points.filter(({ ordinal }) => !isWithdrawn(ordinal))
  const [oldest, newest] = [offered[0], offered.at(-1)]
  const newestMillis = newest?.historyMillis ?? 0
  const lastMillis = densities.at(-1)?.forMillis ?? 0
  const oldestAgeMillis = newestMillis - (oldest?.historyMillis ?? newestMillis)
  const periods = [
    ...densities,
    ...(oldestAgeMillis > 1.1 * lastMillis ? [beyond(densities, oldestAgeMillis)] : []),
  ].map(
    ({ everyMillis, forMillis }, index) =>
      new PeriodBuilder(densities[index - 1]?.forMillis ?? 0, forMillis, everyMillis),
  )
  const gaps: Gap[] = []
  for (const [index, point] of offered.entries()) {
    const ageMillis = newestMillis - point.historyMillis
    periods.find(({ toAgeMillis }) => ageMillis <= toAgeMillis)?.count()
    const next = offered[index + 1]
    if (next === undefined) continue
    const governed = everyMillisAt(densities, point.historyMillis, newestMillis)
    const dueMillis = Math.max(governed, checkpointIntervalMillis)
    const historyMillis = next.historyMillis - point.historyMillis
    const wallMillis = Math.max(0, (next.timestampMicros - point.timestampMicros) / 1000)
    if (historyMillis <= denseFactor * dueMillis) {
      for (const period of periods) period.cover(newestMillis - next.historyMillis, ageMillis)
    }
    const isBeyond = ageMillis > lastMillis // tags are as far apart as people made them
    const bearableMillis = dueMillis * (governed === 0 ? intervalsBeforeSilence : denseFactor)
    if (isBeyond || Math.max(historyMillis, wallMillis) <= bearableMillis) continue
    const within =
      holes.length === 0 ? [] : points.filter(each => each.ordinal > point.ordinal && each.ordinal < next.ordinal)
    const reason = within.length === 0 ? undefined : holeOver(holes, within[0]?.ordinal ?? 0)?.reason
    gaps.push({ after: point, before: next, wallMillis, historyMillis, withdrawnCount: within.length, reason })
  }
  const widthOf = ({ wallMillis, historyMillis }: Gap): number => Math.max(wallMillis, historyMillis)
  const widest = gaps.sort((a, b) => widthOf(b) - widthOf(a)).slice(0, gapsToldMax)
  return {
    checkpointCount: offered.length,
    withdrawnCount: points.length - offered.length,
    oldest,
    newest,
    periods: periods.map(period => period.built()),
    gaps: widest.sort((a, b) => b.after.ordinal - a.after.ordinal),
    moreGaps: gaps.length - widest.length,
  }
}

function beyond(densities: readonly Density[], oldestAgeMillis: number): Density {
  return { everyMillis: densities.at(-1)?.everyMillis ?? 0, forMillis: oldestAgeMillis }
}

class PeriodBuilder {
  readonly toAgeMillis: number
  readonly #fromAgeMillis: number
  readonly #everyMillis: number
  readonly #coveredMillis: Float64Array
  #checkpointCount = 0

  constructor(fromAgeMillis: number, toAgeMillis: number, everyMillis: number) {
    this.#fromAgeMillis = fromAgeMillis
    this.toAgeMillis = toAgeMillis
    this.#everyMillis = everyMillis
    // A cell for each checkpoint that should be there, where these are few.
    const dueCount = everyMillis === 0 ? Infinity : Math.ceil((toAgeMillis - fromAgeMillis) / everyMillis)
    this.#coveredMillis = new Float64Array(Math.min(timelineCellCount, Math.max(1, dueCount)))
  }

  count(): void {
    this.#checkpointCount++
  }

  cover(youngAgeMillis: number, oldAgeMillis: number): void {
    const from = Math.max(youngAgeMillis, this.#fromAgeMillis)
    const to = Math.min(oldAgeMillis, this.toAgeMillis)
    const cellMillis = this.#cellMillis
    for (let at = from; at < to;) {
      const cell = Math.min(this.#coveredMillis.length - 1, Math.floor((at - this.#fromAgeMillis) / cellMillis))
      const isLast = cell === this.#coveredMillis.length - 1
      const end = isLast ? to : Math.min(to, this.#fromAgeMillis + (cell + 1) * cellMillis)
      if (end <= at) return // rounding
      this.#coveredMillis[cell]! += end - at
      at = end
    }
  }

  built(): Period {
    return {
      fromAgeMillis: this.#fromAgeMillis,
      toAgeMillis: this.toAgeMillis,
      everyMillis: this.#everyMillis,
      checkpointCount: this.#checkpointCount,
      coverage: Array.from(this.#coveredMillis, millis => Math.min(1, millis / this.#cellMillis)),
    }
  }

  get #cellMillis(): number {
    return (this.toAgeMillis - this.#fromAgeMillis) / this.#coveredMillis.length
  }
}
