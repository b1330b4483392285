import type { Ordinal } from '../base/ids.ts'
import { lastDeltaEnd } from './deltas.ts'
import { asOfLookup } from './reach.ts'
import { regionName } from './region-plan.ts'
import { eachRegion } from './region-sizes.ts'
import { retention } from './retention.ts'
import type { VpgState } from './state.ts'

/** Who reads an object: by the rules of reach.ts, so that whoever is not among them does not. */
export interface Needing {
  /** Retained checkpoints, ascending. None for what is no data: pages of manifests and lists of checkpoints. */
  readonly checkpoints: readonly Ordinal[]
  /** True where those that come after them will, too. */
  readonly laterOnes: boolean
}

/** `ordinals` are all checkpoints that exist. */
export function needingOf(state: VpgState, ordinals: readonly Ordinal[], key: string): Needing {
  const needs = needOf(state, key)
  const isRetained = retention(state)
  if (needs === undefined) return { checkpoints: [], laterOnes: false }
  const checkpoints = ordinals.filter(ordinal => isRetained(ordinal) && needs(ordinal))
  return { checkpoints, laterOnes: needs(Infinity as Ordinal) }
}

function needOf(state: VpgState, key: string): ((ordinal: Ordinal) => boolean) | undefined {
  const segment = state.segments.find(({ object }) => object.key === key)
  if (segment !== undefined) {
    // What comes before the first marker in a segment is part of that marker's checkpoint and of no earlier one.
    const from = Math.max(lastDeltaEnd(state) + 1, segment.firstOrdinal)
    return ordinal => ordinal >= from
  }
  const version = state.regions.find(({ pack }) => pack?.object.key === key)
  const asOf = asOfLookup(state.regions)
  if (version !== undefined) {
    const name = regionName(version)
    return ordinal => ordinal >= version.asOfOrdinal && asOf(name, ordinal) === version.asOfOrdinal
  }
  for (const { fromOrdinal, toOrdinal, packs } of state.deltas) {
    const pack = packs.find(({ object }) => object.key === key)
    if (pack === undefined) continue
    const { volume, regionRawSizeBytes } = pack
    const names = Array.from(eachRegion(regionRawSizeBytes), ([region]) => regionName({ volume, region }))
    return ordinal => ordinal > fromOrdinal && names.some(name => asOf(name, ordinal) < toOrdinal)
  }
  return undefined
}
