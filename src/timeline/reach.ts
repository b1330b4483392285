import { assert } from '../base/assert.ts'
import type { PositionVector } from '../base/ids.ts'
import { segmentLiesWithin } from './positions.ts'
import { newestVersions, regionName } from './region-plan.ts'
import { retention } from './retention.ts'
import type { DeltaSpan, PackRef, RegionVersion, SegmentSpan, VpgState } from './state.ts'

// What no image reads any more. An image at C takes, in each region, the newest version with as-of <= C, and over it the
// spans after that as-of and before C. Let R be the retained checkpoints and "the future", a checkpoint later than all:
// whatever comes next will be read like it. Per region let asOf(C) be the newest version's at or before C, 0 without one.
//
//   A version at a, followed by one at b, is read by C exactly when a <= C < b. It leaves when no C of R is in [a, b).
//   The newest is read by the future: it never leaves.
//
//   A delta (f, t] is read by C in a region that it touches exactly when f < C and asOf(C) < t. asOf never falls as C
//   rises, so of all C > f the smallest decides: if asOf of the smallest C of R above f is at least t, so is that of every
//   later one, and nobody reads the delta there. A pack leaves when that holds in every region that it touches.
//
//   Versions that leave change no asOf(C) of a C in R, since none of them was the newest for any; so both rules hold at once.
//
//   A segment counts only after the last delta's end. It leaves when all its records lie at or before that end: images up to
//   there read deltas (which hold every checkpoint that was retained), later ones read only what comes after.
//
// Of a removed volume the readers end before the first checkpoint that is without it, and there is no future.
//
// A delta span whose packs are all gone stays as an empty one while a span before it stays (each starts where the one before it
// ends), while a checkpoint of its own is retained (its checkpoint page names it), and while it is the last (its end is where
// the segments count from).
//
// Thinning changes R and nothing here: a checkpoint that a density drops does not exist any more.

/** The state's spans without what nobody reads, and the keys of the objects that so leave the manifest. */
export interface Trimmed {
  readonly deltas: readonly DeltaSpan[]
  readonly segments: readonly SegmentSpan[]
  readonly regions: readonly RegionVersion[]
  readonly leftKeys: readonly string[]
}

/**
 * `ordinals` are all checkpoints that exist, ascending; which of them are retained the state says. `segmentsFrom` is the
 * last delta's end.
 */
export function unread(state: VpgState, ordinals: readonly number[], segmentsFrom: PositionVector): Trimmed {
  const readers = readersOf(state, ordinals)
  const readersOfVolume = readersByVolume(state, readers)
  const regions = state.regions.filter(readVersions(state.regions, readersOfVolume))
  const asOf = asOfLookup(regions)
  const deltas = keepContiguous(
    state.deltas.map(delta => withReadPacks(delta, readersOfVolume, asOf)),
    readers,
  )
  const segments = state.segments.filter(segment => !segmentLiesWithin(segment, segmentsFrom))
  const kept = { deltas, segments, regions }
  const stays = new Set(objectKeys(kept))
  return { ...kept, leftKeys: [...new Set(objectKeys(state))].filter(key => !stays.has(key)) }
}

/** Whoever reads: the retained checkpoints, ascending, and the future. */
export function readersOf(state: VpgState, ordinals: readonly number[]): number[] {
  return [...ordinals.filter(retention(state)), Infinity]
}

/** Keys of every object that these spans refer to: packs, checkpoint pages, segments. */
export function objectKeys(state: Pick<VpgState, 'deltas' | 'segments' | 'regions'>): string[] {
  return [
    ...state.segments.map(segment => segment.object.key),
    ...state.deltas.flatMap(delta => [delta.checkpoints.key, ...delta.packs.map(pack => pack.object.key)]),
    ...state.regions.flatMap(version => (version.pack === undefined ? [] : [version.pack.object.key])),
  ]
}

/** Ascending; without the future where no later checkpoint will read the volume. */
type ReadersOfVolume = (volume: number) => readonly number[]

export function readersByVolume(
  { definition }: Pick<VpgState, 'definition'>,
  readers: readonly number[],
): ReadersOfVolume {
  const gone = new Map<number, readonly number[]>()
  for (const { number, goneFromOrdinal } of definition.removedVolumes) {
    if (goneFromOrdinal === undefined) continue
    gone.set(
      number,
      readers.filter(reader => reader < goneFromOrdinal),
    )
  }
  return volume => gone.get(volume) ?? readers
}

function readVersions(
  regions: readonly RegionVersion[],
  readersOfVolume: ReadersOfVolume,
): (version: RegionVersion) => boolean {
  const newest = newestVersions(regions)
  const next = new Map<RegionVersion, number>()
  const later = new Map<string, number>()
  for (const version of [...regions].sort((a, b) => b.asOfOrdinal - a.asOfOrdinal)) {
    next.set(version, later.get(regionName(version)) ?? Infinity)
    later.set(regionName(version), version.asOfOrdinal)
  }
  return version => {
    const readers = readersOfVolume(version.volume)
    if (newest.get(regionName(version)) === version) return firstAtLeast(readers, version.asOfOrdinal) !== undefined
    const until = next.get(version)
    assert(until !== undefined, 'every version was looked at')
    return (firstAtLeast(readers, version.asOfOrdinal) ?? Infinity) < until
  }
}

function withReadPacks(
  delta: DeltaSpan,
  readersOfVolume: ReadersOfVolume,
  asOf: (name: string, ordinal: number) => number,
): DeltaSpan {
  const isRead = ({ volume, regionRawSizeBytes }: PackRef): boolean => {
    const reader = firstAtLeast(readersOfVolume(volume), delta.fromOrdinal + 1)
    if (reader === undefined) return false
    for (let at = 0; at < regionRawSizeBytes.length; at += 2) {
      if (asOf(regionName({ volume, region: regionRawSizeBytes[at] ?? 0 }), reader) < delta.toOrdinal) return true
    }
    return false
  }
  const packs = delta.packs.filter(isRead)
  return packs.length === delta.packs.length ? delta : { ...delta, packs }
}

function keepContiguous(deltas: readonly DeltaSpan[], readers: readonly number[]): DeltaSpan[] {
  const first = deltas.findIndex(
    (delta, index) =>
      delta.packs.length > 0 ||
      index === deltas.length - 1 ||
      (firstAtLeast(readers, delta.fromOrdinal + 1) ?? Infinity) <= delta.toOrdinal,
  )
  return first < 0 ? [] : deltas.slice(first)
}

/** The as-of of the newest version of a region at or before an ordinal; 0 without one. */
export function asOfLookup(regions: readonly RegionVersion[]): (name: string, ordinal: number) => number {
  const versions = new Map<string, number[]>()
  for (const version of regions) {
    const list = versions.get(regionName(version))
    if (list === undefined) versions.set(regionName(version), [version.asOfOrdinal])
    else list.push(version.asOfOrdinal)
  }
  return (name, ordinal) =>
    (versions.get(name) ?? []).reduce((newest, asOf) => (asOf <= ordinal ? Math.max(newest, asOf) : newest), 0)
}

/** The smallest reader at or above the ordinal; the future, where there is one, is above all. */
export function firstAtLeast(readers: readonly number[], ordinal: number): number | undefined {
  let [low, high] = [0, readers.length - 1]
  while (low < high) {
    const middle = Math.floor((low + high) / 2)
    if ((readers[middle] ?? Infinity) >= ordinal) high = middle
    else low = middle + 1
  }
  const found = readers[low]
  return found !== undefined && found >= ordinal ? found : undefined
}
