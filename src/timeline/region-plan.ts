import type { Ordinal } from '../base/ids.ts'
import { regionSizeBytes } from '../base/limits.ts'
import { closedDeltas } from './deltas.ts'
import type { VpgDefinition } from './definition.ts'
import type { RegionVersion, VpgState } from './state.ts'

// Which base regions are rewritten. The budget is one per volume: the fullest regions, while the volume's mean of delta
// bytes exceeds a share of its live bytes. So the newest image reads a bounded multiple of what is live, and no more
// than what came in is rewritten.

/** A region and what stands above its newest base version. */
export interface RegionLoad {
  readonly volume: number
  readonly region: number
  /** Of its newest version; 0 without one. */
  readonly asOfOrdinal: Ordinal
  readonly hasVersion: boolean
  readonly baseBytes: number
  readonly deltaBytes: number
  /** At least what the region holds now: its base, or what deltas brought it, but never more than a region. */
  readonly liveBytes: number
}

export interface RegionPlan {
  readonly volume: number
  readonly region: number
  /** The region's newest version, from which the new one is made. */
  readonly fromOrdinal: Ordinal
  readonly asOfOrdinal: Ordinal
}

/** The newest version of every region that has one, by volume and region. */
export function newestVersions(regions: readonly RegionVersion[]): Map<string, RegionVersion> {
  const newest = new Map<string, RegionVersion>()
  for (const version of regions) {
    const before = newest.get(regionName(version))
    if (before === undefined || before.asOfOrdinal < version.asOfOrdinal) newest.set(regionName(version), version)
  }
  return newest
}

export function regionName(at: { readonly volume: number; readonly region: number }): string {
  return `${at.volume}/${at.region}`
}

/** Of the regions of one volume, by region: there are millions of entries to add up. */
interface VolumeColumns {
  readonly versions: RegionVersion[]
  asOf: Float64Array
  /** NaN where neither a version nor a delta is. */
  deltaBytes: Float64Array
}

/** Every region that has a base version or something above it. */
export function regionLoads(state: Pick<VpgState, 'regions' | 'deltas'>): RegionLoad[] {
  return [...columnsOf(state)].flatMap(([volume, { versions, deltaBytes: above }]) => {
    const loads: RegionLoad[] = []
    for (let region = 0; region < above.length; region++) {
      const deltaBytes = above[region] ?? NaN
      if (Number.isNaN(deltaBytes)) continue
      const version = versions[region]
      const baseBytes = version?.pack?.rawSizeBytes ?? 0
      loads.push({
        volume,
        region,
        asOfOrdinal: version?.asOfOrdinal ?? (0 as Ordinal),
        hasVersion: version !== undefined,
        baseBytes,
        deltaBytes,
        liveBytes: Math.max(baseBytes, Math.min(regionSizeBytes, deltaBytes)),
      })
    }
    return loads
  })
}

function columnsOf({ regions, deltas }: Pick<VpgState, 'regions' | 'deltas'>): Map<number, VolumeColumns> {
  const volumes = new Map<number, VolumeColumns>()
  for (const version of regions) {
    const columns = reaching(volumes, version.volume, version.region)
    const before = columns.versions[version.region]
    if (before !== undefined && before.asOfOrdinal >= version.asOfOrdinal) continue
    columns.versions[version.region] = version
    columns.asOf[version.region] = version.asOfOrdinal
    columns.deltaBytes[version.region] = 0
  }
  for (const { packs, toOrdinal } of deltas) {
    for (const { volume, regionRawSizeBytes } of packs) {
      const columns = reaching(volumes, volume, regionRawSizeBytes.at(-2) ?? 0) // they ascend
      const { asOf, deltaBytes } = columns
      for (let at = 0; at < regionRawSizeBytes.length; at += 2) {
        const [region, bytes] = [regionRawSizeBytes[at] ?? 0, regionRawSizeBytes[at + 1] ?? 0]
        if ((asOf[region] ?? 0) >= toOrdinal) continue
        const before = deltaBytes[region] ?? NaN
        deltaBytes[region] = Number.isNaN(before) ? bytes : before + bytes
      }
    }
  }
  return volumes
}

/** The volume's columns, with room for this region. */
function reaching(volumes: Map<number, VolumeColumns>, volume: number, region: number): VolumeColumns {
  let columns = volumes.get(volume)
  if (columns === undefined) {
    columns = { versions: [], asOf: new Float64Array(64), deltaBytes: new Float64Array(64).fill(NaN) }
    volumes.set(volume, columns)
  }
  if (region < columns.asOf.length) return columns
  const { asOf, deltaBytes } = columns
  const length = Math.max(region + 1, 2 * asOf.length)
  columns.asOf = new Float64Array(length)
  columns.asOf.set(asOf)
  columns.deltaBytes = new Float64Array(length).fill(NaN)
  columns.deltaBytes.set(deltaBytes)
  return columns
}

interface MirrorBytes {
  readonly liveBytes: number
  readonly deltaBytes: number
}

/**
 * Of each volume, remembered for as long as the lists are the same: a commit of a segment leaves them as they are, and asks, and
 * a month of a large volume is a million entries.
 */
const bytesOfVolumes = new WeakMap<
  VpgState['deltas'],
  { readonly regions: VpgState['regions']; readonly volumes: ReadonlyMap<number, MirrorBytes> }
>()

function volumeBytes({ regions, deltas }: Pick<VpgState, 'regions' | 'deltas'>): ReadonlyMap<number, MirrorBytes> {
  const known = bytesOfVolumes.get(deltas)
  if (known?.regions === regions) return known.volumes
  const volumes = new Map<number, MirrorBytes>()
  for (const { volume, liveBytes, deltaBytes } of regionLoads({ regions, deltas })) {
    const before = volumes.get(volume) ?? { liveBytes: 0, deltaBytes: 0 }
    volumes.set(volume, { liveBytes: before.liveBytes + liveBytes, deltaBytes: before.deltaBytes + deltaBytes })
  }
  bytesOfVolumes.set(deltas, { regions, volumes })
  return volumes
}

/** What the mirror holds: bytes that are live, and delta bytes above the base. */
export function mirrorBytes(state: Pick<VpgState, 'regions' | 'deltas'>): MirrorBytes {
  let [liveBytes, deltaBytes] = [0, 0]
  for (const volume of volumeBytes(state).values()) {
    liveBytes += volume.liveBytes
    deltaBytes += volume.deltaBytes
  }
  return { liveBytes, deltaBytes }
}

/**
 * The regions to rewrite now, the fullest of each volume in order of place, at most `countMax`; all as of the newest delta's end. After them the
 * mean of each volume is at most `deltaShareMax`, unless the count cut the list. Open deltas wait for the one that closes them, and volumes whose preseed is
 * under way for its end: what it puts below a version would void that. Of a volume that is gone nothing is rewritten: maybe nobody would read the version, which
 * would leave as it came, and be planned again for ever.
 */
export function planRegionRewrites(
  state: Pick<VpgState, 'regions' | 'deltas' | 'definition'>,
  limits: { readonly deltaShareMax: number; readonly countMax: number },
): RegionPlan[] {
  const deltas = closedDeltas(state.deltas)
  const newestDelta = deltas.at(-1)
  if (newestDelta === undefined) return []
  const isDue = ({ liveBytes, deltaBytes }: MirrorBytes): boolean => deltaBytes > limits.deltaShareMax * liveBytes
  const gone = state.definition.removedVolumes.filter(({ goneFromOrdinal }) => goneFromOrdinal !== undefined)
  const waiting = new Set([...preseeding(state.definition), ...gone.map(({ number }) => number)])
  const due = [...volumeBytes({ ...state, deltas })].filter(([volume, bytes]) => !waiting.has(volume) && isDue(bytes))
  if (due.length === 0) return []
  const volumes = new Map<number, RegionLoad[]>()
  for (const load of regionLoads({ ...state, deltas })) {
    if (waiting.has(load.volume)) continue
    const loads = volumes.get(load.volume)
    if (loads === undefined) volumes.set(load.volume, [load])
    else loads.push(load)
  }
  // All of them are rewritten before a volume is what it should be: neighbours together, for they stand on one page of the manifest.
  const plans = [...volumes.values()].flatMap(loads =>
    fullestOf(loads, limits.deltaShareMax).sort((a, b) => a.region - b.region),
  )
  return plans.slice(0, limits.countMax).map(({ volume, region, asOfOrdinal }) => ({
    volume,
    region,
    fromOrdinal: asOfOrdinal,
    asOfOrdinal: newestDelta.toOrdinal,
  }))
}

/** The volumes into whose mirror an image is being read. */
export function preseeding({ volumes }: Pick<VpgDefinition, 'volumes'>): ReadonlySet<number> {
  return new Set(volumes.filter(({ preseed }) => preseed?.state === 'under-way').map(({ number }) => number))
}

function fullestOf(loads: readonly RegionLoad[], deltaShareMax: number): RegionLoad[] {
  const liveBytes = loads.reduce((sum, load) => sum + load.liveBytes, 0)
  let deltaBytes = loads.reduce((sum, load) => sum + load.deltaBytes, 0)
  const chosen: RegionLoad[] = []
  const ranked = loads
    .filter(load => load.deltaBytes > 0)
    .map(load => ({ load, rank: fullness(load) }))
    .sort((a, b) => b.rank - a.rank)
  for (const { load } of ranked) {
    if (deltaBytes <= deltaShareMax * liveBytes) break
    chosen.push(load)
    deltaBytes -= load.deltaBytes
  }
  return chosen
}

/**
 * Delta bytes against live bytes. Before its first version a region's place in the ranking is spread by a fixed random
 * number: after an even initial load all regions would otherwise fill, and be rewritten, together for ever.
 */
function fullness(load: RegionLoad): number {
  const share = load.deltaBytes / Math.max(1, load.liveBytes)
  return load.hasVersion ? share : share * (0.5 + phaseOf(load) / 2)
}

/** A number in [0, 1) that belongs to the region: a multiplicative hash of volume and region. */
function phaseOf(at: { readonly volume: number; readonly region: number }): number {
  const mixed = (at.region * 2654435761 + at.volume * 40503) % 2 ** 32
  return ((mixed * 69069 + 1) % 2 ** 32) / 2 ** 32
}
