import type { PositionVector, Ordinal } from '../base/ids.ts'
import { closedDeltas } from './deltas.ts'
import { unread } from './reach.ts'
import { newestVersions, preseeding, regionName, type RegionPlan } from './region-plan.ts'
import { isGoneAt } from './removed-volumes.ts'
import { eachRegion } from './region-sizes.ts'
import { holeOver, retention } from './retention.ts'
import type { RegionVersion, VpgState } from './state.ts'

// The limit on what a VPG's history takes in the store beyond its newest mirror. Over it, history ends earlier than it should: the edge moves on,
// oldest checkpoints first. That alone frees a delta only where a region version lies between the delta's end and the edge, so the
// regions under the oldest deltas may have to be rewritten, all as of the end of one delta:
//
//        delta 1    delta 2    delta 3    delta 4    segments
//      |----------|----------|----------|----------|- - - - -        edge before: 0
//                            ^ regions touched by 1 and 2 are rewritten as of here, and the edge moves here: 1 and 2 leave
//
// Of the ways to get under the limit the one is taken that loses the least history. Below the edge only tags and pins keep anything, and they keep all of
// what they read; the edge never moves past the newest checkpoint that can be recovered.

/** When the limit is passed, as much leaves as brings it down to this share of the limit: rewriting is costly, and is done in few large rounds. */
const wantedShare = 3 / 4
/** Where the limit cannot be reached (tags and pins may hold more than that), history is given up only for this share of it. */
const worthwhileShare = 1 / 8

/** Stored bytes that the history takes beyond the newest mirror: segments that wait for a fold, deltas, region versions that a newer one follows. */
export function historySizeBytes(state: Pick<VpgState, 'segments' | 'deltas' | 'regions'>): number {
  const newest = newestVersions(state.regions)
  const isNewest = (version: RegionVersion): boolean => newest.get(regionName(version)) === version
  let sizeBytes = 0
  for (const { object } of state.segments) sizeBytes += object.sizeBytes
  for (const { packs, checkpoints } of state.deltas) {
    sizeBytes += checkpoints.sizeBytes
    for (const { object } of packs) sizeBytes += object.sizeBytes
  }
  for (const version of state.regions) if (!isNewest(version)) sizeBytes += version.pack?.object.sizeBytes ?? 0
  return sizeBytes
}

/** A synchronisation that had to wait goes on when the history takes no more than this share of the limit. */
const resumeShare = 15 / 16

/** What is known of the checkpoints and of where the segments count from, see `unread`. */
export interface Known {
  /** Every checkpoint that exists, ascending. */
  readonly ordinals: readonly Ordinal[]
  readonly segmentsFrom: PositionVector
}

/** What to do next to get under the limit: move the edge, after these regions, if there are any, were rewritten. */
export interface EarlyAging {
  readonly edge: Ordinal
  /** Those under the oldest deltas first; at most `countMax`. */
  readonly regions: readonly RegionPlan[]
}

/** Undefined while the limit is kept, and where nothing worthwhile can be done about it. To be asked again after every step. */
export function planEarlyAging(state: VpgState, known: Known, countMax: number): EarlyAging | undefined {
  const limitSizeBytes = state.definition.journalLimitSizeBytes
  const heldSizeBytes = historySizeBytes(state)
  if (limitSizeBytes === 0 || heldSizeBytes <= limitSizeBytes) return undefined
  const isRetained = retention(state)
  const offered = known.ordinals.filter(at => isRetained(at) && holeOver(state.holes, at) === undefined)
  const newest = offered.at(-1)
  if (newest === undefined || newest < state.historyEdge) return undefined
  const edges = [state.historyEdge, ...offered.filter(ordinal => ordinal > state.historyEdge)]
  const sizeAt = (edge: Ordinal, regions = state.regions): number => sizeFrom({ ...state, regions }, edge, known)

  const wantedSizeBytes = limitSizeBytes * wantedShare
  const edge = firstThat(edges, each => sizeAt(each) <= wantedSizeBytes)
  const ends = rewritableEnds(state, newest)
  const end = firstThat(
    ends,
    each => sizeAt(later(each, state.historyEdge), rewritten(state, each, known)) <= wantedSizeBytes,
  )
  if (edge !== undefined && (end === undefined || edge <= end)) return { edge, regions: [] }
  if (end !== undefined) {
    const regions = regionsToRewrite(state, end, known)
    return { edge: later(end, state.historyEdge), regions: regions.slice(0, countMax) }
  }
  return planLeast({ state, known, countMax, edges, lastEnd: ends.at(-1), heldSizeBytes })
}

/**
 * True where the history is at its limit and has nothing left to give but its last checkpoint: what a synchronisation sends would go beyond the limit, for
 * while it runs no other checkpoint comes in which its blocks could become the mirror. `isHeld` says what was answered last: room is made before it
 * goes on.
 */
export function lacksRoomForSync(state: VpgState, known: Known, now: { readonly isHeld: boolean }): boolean {
  const { journalLimitSizeBytes: limitSizeBytes, syncMayPassLimit = false } = state.definition
  if (limitSizeBytes === 0 || syncMayPassLimit) return false
  const mostSizeBytes = now.isHeld ? limitSizeBytes * resumeShare : limitSizeBytes
  if (historySizeBytes(state) <= mostSizeBytes) return false
  const isRetained = retention(state)
  const offered = known.ordinals.filter(at => isRetained(at) && holeOver(state.holes, at) === undefined)
  // Before the first checkpoint there is no history that could be lost.
  if (offered.length === 0) return false
  const isLast = offered.filter(at => at >= state.historyEdge).length <= 1
  return isLast || (historySizeBytes(state) > limitSizeBytes && planEarlyAging(state, known, 1) === undefined)
}

/** The limit is out of reach, or only just in it: down to the least that is possible, if that is worth it. */
function planLeast(at: {
  readonly state: VpgState
  readonly known: Known
  readonly countMax: number
  readonly edges: readonly Ordinal[]
  readonly lastEnd: Ordinal | undefined
  readonly heldSizeBytes: number
}): EarlyAging | undefined {
  const { state, known, edges, lastEnd, heldSizeBytes } = at
  const limitSizeBytes = state.definition.journalLimitSizeBytes
  const isWorthwhile = (sizeBytes: number): boolean =>
    sizeBytes < heldSizeBytes &&
    (sizeBytes <= limitSizeBytes || heldSizeBytes - sizeBytes >= limitSizeBytes * worthwhileShare)
  const newest = edges.at(-1) ?? state.historyEdge
  const regions = lastEnd === undefined ? [] : regionsToRewrite(state, lastEnd, known)
  if (lastEnd !== undefined && regions.length > 0) {
    const leastSizeBytes = sizeFrom({ ...state, regions: rewritten(state, lastEnd, known) }, newest, known)
    if (isWorthwhile(leastSizeBytes))
      return { edge: later(lastEnd, state.historyEdge), regions: regions.slice(0, at.countMax) }
  }
  const leastSizeBytes = sizeFrom(state, newest, known)
  if (!isWorthwhile(leastSizeBytes)) return undefined
  const edge = firstThat(edges, each => sizeFrom(state, each, known) <= leastSizeBytes)
  return edge === undefined ? undefined : { edge, regions: [] }
}

/** What the history would take with its edge here. */
function sizeFrom(state: VpgState, edge: Ordinal, { ordinals, segmentsFrom }: Known): number {
  return historySizeBytes(unread({ ...state, historyEdge: edge }, ordinals, segmentsFrom))
}

/** Ends of deltas as of which rewriting can free something: from the last one that no checkpoint below the edge needs to be told from. */
function rewritableEnds(state: VpgState, newest: Ordinal): Ordinal[] {
  const ends = closedDeltas(state.deltas)
    .filter(delta => delta.open === undefined && delta.toOrdinal <= newest)
    .map(delta => delta.toOrdinal)
  return ends.slice(
    Math.max(
      0,
      ends.findLastIndex(end => end <= state.historyEdge),
    ),
  )
}

/**
 * The regions that keep deltas up to this end from leaving when the edge is at it: some image from there on reads the delta in the region. A delta that
 * a tagged or pinned checkpoint reads stays whatever is rewritten, and asks for nothing; nor does a volume whose preseed is under way, until that ends.
 */
function regionsToRewrite(state: VpgState, end: Ordinal, { ordinals }: Known): RegionPlan[] {
  const isReader = retention({ ...state, historyEdge: later(end, state.historyEdge) })
  const readers = ordinals.filter(isReader)
  const asOf = new Map<string, Ordinal>()
  for (const version of state.regions) {
    const name = regionName(version)
    if (version.asOfOrdinal <= end && version.asOfOrdinal > (asOf.get(name) ?? 0)) asOf.set(name, version.asOfOrdinal)
  }
  const waiting = preseeding(state.definition)
  const plans = new Map<string, RegionPlan>()
  for (const delta of state.deltas) {
    if (delta.open !== undefined || delta.toOrdinal > end) continue
    const reader = readers.find(each => each > delta.fromOrdinal)
    if (reader !== undefined && reader < end) continue
    for (const { volume, regionRawSizeBytes } of delta.packs) {
      if (waiting.has(volume) || isGoneAt(state.definition, volume, end)) continue
      for (const [region] of eachRegion(regionRawSizeBytes)) {
        const name = regionName({ volume, region })
        const fromOrdinal = asOf.get(name) ?? (0 as Ordinal)
        if (fromOrdinal >= delta.toOrdinal || plans.has(name)) continue
        plans.set(name, { volume, region, fromOrdinal, asOfOrdinal: end })
      }
    }
  }
  return [...plans.values()]
}

/** The region versions as they would be after that. What a version will take is known only of one that replaces another: as much, at least. */
function rewritten(state: VpgState, end: Ordinal, known: Known): RegionVersion[] {
  const versions = new Map(state.regions.map(version => [`${regionName(version)}/${version.asOfOrdinal}`, version]))
  const made = regionsToRewrite(state, end, known).map(({ volume, region, fromOrdinal, asOfOrdinal }) => {
    const pack = versions.get(`${regionName({ volume, region })}/${fromOrdinal}`)?.pack
    const object = { key: `${volume}/${region} as of ${asOfOrdinal}`, sizeBytes: pack?.object.sizeBytes ?? 0 }
    return { volume, region, asOfOrdinal, pack: pack === undefined ? undefined : { ...pack, object } }
  })
  return [...state.regions, ...made]
}

/** The first for which it is so, if it is so for all after one for which it is. */
function firstThat(ascending: readonly Ordinal[], isSo: (ordinal: Ordinal) => boolean): Ordinal | undefined {
  const last = ascending.at(-1)
  if (last === undefined || !isSo(last)) return undefined
  let [low, high] = [0, ascending.length - 1]
  while (low < high) {
    const middle = Math.floor((low + high) / 2)
    if (isSo(ascending[middle] ?? last)) high = middle
    else low = middle + 1
  }
  return ascending[high]
}

function later(one: Ordinal, other: Ordinal): Ordinal {
  return one > other ? one : other
}
