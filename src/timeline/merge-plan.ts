import type { Ordinal } from '../base/ids.ts'
import { checkpointsPerDeltaMax, mergeSizeBytesMax, smallDeltasMergedMin } from '../base/limits.ts'
import { openRun, packBytes, unclosedDeltas } from './open-merge.ts'
import { asOfLookup, firstAtLeast, readersByVolume, readersOf } from './reach.ts'
import { regionName } from './region-plan.ts'
import type { DeltaSpan, VpgState } from './state.ts'

// Which adjacent deltas become one. README.md has the rule, what may be left out, and what all of it costs at most.

/** Deltas one behind the other, and how many checkpoints a merge of them has to tell apart. */
export interface Run {
  readonly deltas: readonly DeltaSpan[]
  /** The retained checkpoints in it, ascending, and its end. */
  readonly groups: readonly Ordinal[]
  /** Small ones, and many open ones, are merged whatever is dead in them; of the others half must be, which the plan does not know. */
  readonly why: 'dead' | 'small' | 'open'
}

export interface MergeLimits {
  /** Of a run's bytes so much must be dead. */
  readonly deadShareMin: number
  /** What small deltas are less than, together. */
  readonly smallSizeBytes: number
  /** What a run reads at most; mergeSizeBytesMax where not given. */
  readonly mergeSizeBytesMax?: number | undefined
  /** What a fold makes at most; foldSizeBytesMax where not given. */
  readonly foldSizeBytesMax?: number | undefined
}

/**
 * How many checkpoints a delta (by deltaName) is taken to tell apart, where it was looked at and not enough was dead: what is looked at again must have lost half of
 * its checkpoints once more.
 */
export type Weights = ReadonlyMap<string, number>

/** It stays the same when checkpoints are dropped from the delta's page. */
export function deltaName({ fromOrdinal, toOrdinal, open }: DeltaSpan): string {
  return `${fromOrdinal}/${toOrdinal}/${open ?? ''}`
}

/** What a merge does at once or not at all: a closed delta with the open ones that it closes; or an open one that nothing has closed yet. */
interface Unit {
  readonly deltas: readonly DeltaSpan[]
  readonly fromOrdinal: Ordinal
  readonly toOrdinal: Ordinal
  readonly rawSizeBytes: number
  readonly versionCount: number
}

/**
 * The oldest run that is worth a look, or that is small; then the same of open deltas that nothing has closed yet; undefined where there is none.
 * `ordinals` are all checkpoints that exist, ascending.
 */
export function planMerge(
  state: VpgState,
  ordinals: readonly number[],
  limits: MergeLimits,
  weights: Weights,
): Run | undefined {
  const units = unitsOf(state.deltas, weights)
  const readers = readersOf(state, ordinals)
  for (let first = 0; first < units.length; first++) {
    const found = smallRun(units, first, readers, limits) ?? sparseRun(units, first, readers, limits)
    if (found !== undefined) return found
  }
  return openMerge(unclosedDeltas(state.deltas), readers, limits, weights)
}

/** Nobody reads between open deltas: of each place the last write is enough, in whichever of them it is. */
function openMerge(
  open: readonly DeltaSpan[],
  readers: readonly number[],
  limits: MergeLimits,
  weights: Weights,
): Run | undefined {
  const units = open.map(delta => unitOf([delta], delta, weights))
  for (let first = 0; first < units.length; first++) {
    const found = sparseRun(units, first, readers, limits)
    if (found !== undefined) return found
  }
  const many = openRun(open, limits.foldSizeBytesMax)
  return many === undefined ? undefined : { deltas: many, groups: [many[0]!.toOrdinal], why: 'open' }
}

/** How much each of the run's deltas is taken to tell apart from now on: together as much as is retained. */
export function weightsAfterLook({ deltas, groups }: Run, weights: Weights): [string, number][] {
  const counts = deltas.map(delta => versionsOf(delta, weights))
  const total = counts.reduce((sum, count) => sum + count, 0)
  return deltas.map((delta, index) => [deltaName(delta), (groups.length * (counts[index] ?? 0)) / total])
}

/** Answers for the run whether everybody who would read an extent of this ordinal, if anybody, has it in the base. */
export function basedIn(
  state: VpgState,
  ordinals: readonly number[],
): (volume: number, region: number, ordinal: number) => boolean {
  const readersOfVolume = readersByVolume(state, readersOf(state, ordinals))
  const asOf = asOfLookup(state.regions)
  return (volume, region, ordinal) => {
    const reader = firstAtLeast(readersOfVolume(volume), ordinal)
    return reader === undefined || asOf(regionName({ volume, region }), reader) >= ordinal
  }
}

function unitsOf(deltas: readonly DeltaSpan[], weights: Weights): Unit[] {
  const units: Unit[] = []
  let first = 0
  for (const [index, delta] of deltas.entries()) {
    if (delta.open !== undefined) continue
    units.push(unitOf(deltas.slice(first, index + 1), delta, weights))
    first = index + 1
  }
  return units
}

function unitOf(own: readonly DeltaSpan[], { fromOrdinal, toOrdinal }: DeltaSpan, weights: Weights): Unit {
  return {
    deltas: own,
    fromOrdinal,
    toOrdinal,
    rawSizeBytes: own.reduce((sum, delta) => sum + packBytes(delta), 0),
    versionCount: own.reduce((sum, delta) => sum + versionsOf(delta, weights), 0),
  }
}

function versionsOf(delta: DeltaSpan, weights: Weights): number {
  return weights.get(deltaName(delta)) ?? Math.max(1, delta.versionCount ?? delta.checkpointCount)
}

/** The longest run from here on that tells apart so many more checkpoints than are retained that enough may be dead. */
function sparseRun(
  units: readonly Unit[],
  first: number,
  readers: readonly number[],
  limits: MergeLimits,
): Run | undefined {
  const sizeBytesMax = limits.mergeSizeBytesMax ?? mergeSizeBytesMax
  let [rawSizeBytes, versionCount, found] = [0, 0, first]
  for (let end = first + 1; end <= units.length; end++) {
    const unit = units[end - 1]
    rawSizeBytes += unit?.rawSizeBytes ?? 0
    versionCount += unit?.versionCount ?? 0
    if (rawSizeBytes > sizeBytesMax) break
    const groupCount = groupCountOf(units, first, end, readers)
    if (groupCount > checkpointsPerDeltaMax) break
    if (rawSizeBytes > 0 && groupCount <= versionCount * (1 - limits.deadShareMin)) found = end
  }
  return found > first ? runOf(units.slice(first, found), readers, 'dead') : undefined
}

/** The longest run of many small ones from here on, none of them most of it: so each byte is merged once per doubling. */
function smallRun(
  units: readonly Unit[],
  first: number,
  readers: readonly number[],
  { smallSizeBytes }: MergeLimits,
): Run | undefined {
  let [rawSizeBytes, largest, found] = [0, 0, first]
  for (let end = first + 1; end <= units.length; end++) {
    const size = units[end - 1]?.rawSizeBytes ?? 0
    rawSizeBytes += size
    largest = Math.max(largest, size)
    if (rawSizeBytes > smallSizeBytes) break
    if (end - first < smallDeltasMergedMin || 2 * largest > rawSizeBytes) continue
    if (groupCountOf(units, first, end, readers) > checkpointsPerDeltaMax) break
    found = end
  }
  return found > first ? runOf(units.slice(first, found), readers, 'small') : undefined
}

function groupCountOf(units: readonly Unit[], first: number, end: number, readers: readonly number[]): number {
  const [from, to] = [units[first]?.fromOrdinal ?? 0, units[end - 1]?.toOrdinal ?? 0]
  return indexAtLeast(readers, to) - indexAtLeast(readers, from + 1) + 1
}

function runOf(units: readonly Unit[], readers: readonly number[], why: Run['why']): Run {
  const [from, to] = [units[0]?.fromOrdinal ?? 0, units.at(-1)?.toOrdinal ?? (0 as Ordinal)]
  const inside = readers.slice(indexAtLeast(readers, from + 1), indexAtLeast(readers, to)) as Ordinal[]
  return { deltas: units.flatMap(unit => unit.deltas), groups: [...inside, to], why }
}

function indexAtLeast(readers: readonly number[], ordinal: number): number {
  let [low, high] = [0, readers.length]
  while (low < high) {
    const middle = Math.floor((low + high) / 2)
    if ((readers[middle] ?? Infinity) >= ordinal) high = middle
    else low = middle + 1
  }
  return low
}
