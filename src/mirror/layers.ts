import type { Ordinal } from '../base/ids.ts'
import { Permits } from '../base/permits.ts'
import type { ObjectStore } from '../store/object-store.ts'
import { eachRegion } from '../timeline/region-sizes.ts'
import type { PackRef, RegionVersion, VpgState } from '../timeline/state.ts'
import { Uint32Column } from './columns.ts'
import type { Fragments, Pieces } from './merge.ts'
import { PackReader, type RegionExtents } from './pack-reader.ts'
import { radixOrder } from './radix.ts'
import { settleAll } from './settle.ts'
import { noData } from './write-index.ts'

// What lies over one another in a region as of a checkpoint: the newest version of the base at or before it, and the deltas after
// that version.

/** One pack's part in a region: its entries whose ordinal lies in (afterOrdinal, throughOrdinal]. */
export interface Layer {
  readonly pack: PackRef
  readonly afterOrdinal: number
  readonly throughOrdinal: number
}

function placeKey(volume: number, region: number): number {
  return volume * 2 ** 32 + region
}

/** Requests to the store under way at once for one region: latency, not bytes, is what a region's many layers cost. */
const requestsMax = 8

/** The layers of every region as of one checkpoint. */
export class Layers {
  readonly #through: number
  readonly #regionSizeBytes: number
  readonly #versions = new Map<number, RegionVersion>()
  readonly #packs = new Map<number, { pack: PackRef; toOrdinal: number }[]>()

  constructor(state: Pick<VpgState, 'deltas' | 'regions'>, through: Ordinal, regionSizeBytes: number) {
    this.#through = through
    this.#regionSizeBytes = regionSizeBytes
    for (const version of state.regions) {
      if (version.asOfOrdinal > through) continue
      const key = placeKey(version.volume, version.region)
      const other = this.#versions.get(key)
      if (other === undefined || other.asOfOrdinal < version.asOfOrdinal) this.#versions.set(key, version)
    }
    for (const { packs, fromOrdinal, toOrdinal } of state.deltas) {
      if (fromOrdinal >= through) continue
      for (const pack of packs) {
        const own = this.#packs.get(pack.volume)
        if (own === undefined) this.#packs.set(pack.volume, [{ pack, toOrdinal }])
        else own.push({ pack, toOrdinal })
      }
    }
  }

  /** As of when the region's base is; -1 where it has none. */
  baseOrdinal(volume: number, region: number): number {
    return this.#versions.get(placeKey(volume, region))?.asOfOrdinal ?? -1
  }

  /** Oldest first. */
  of(volume: number, region: number): Layer[] {
    const version = this.#versions.get(placeKey(volume, region))
    const asOf = version?.asOfOrdinal ?? -1
    const layers: Layer[] = []
    if (version?.pack !== undefined)
      layers.push({ pack: version.pack, afterOrdinal: -1, throughOrdinal: version.asOfOrdinal })
    const startBytes = region * this.#regionSizeBytes
    for (const { pack, toOrdinal } of this.#packs.get(volume) ?? []) {
      if (toOrdinal <= asOf || pack.endBytes <= startBytes || pack.startBytes >= startBytes + this.#regionSizeBytes)
        continue
      layers.push({ pack, afterOrdinal: asOf, throughOrdinal: this.#through })
    }
    return layers
  }

  /** Regions of the volume that any layer touches; each may come more than once. */
  *regionsOf(volume: number): Iterable<number> {
    for (const version of this.#versions.values()) {
      if (version.volume === volume && version.pack !== undefined) yield version.region
    }
    for (const { pack } of this.#packs.get(volume) ?? []) {
      for (const [region] of eachRegion(pack.regionRawSizeBytes)) yield region
    }
  }
}

/** The pieces of one region from all its sources, oldest first; starts in sectors from the region's start. */
export class RegionPieces {
  readonly #start = new Uint32Column()
  readonly #length = new Uint32Column()
  readonly #source = new Uint32Column()
  readonly #unit = new Uint32Column()
  readonly #rawOffsetBytes = new Uint32Column()

  /** `unit` is what the source reads at once: a block or a batch. `rawOffsetBytes` is in it; noData for zeros. */
  add(start: number, length: number, source: number, unit: number, rawOffsetBytes: number): void {
    this.#start.push(start)
    this.#length.push(length)
    this.#source.push(source)
    this.#unit.push(unit)
    this.#rawOffsetBytes.push(rawOffsetBytes)
  }

  columns(): Pieces & { source: Uint32Array; unit: Uint32Array; rawOffsetBytes: Uint32Array } {
    return {
      count: this.#start.count,
      start: this.#start.values(),
      length: this.#length.values(),
      group: undefined,
      source: this.#source.values(),
      unit: this.#unit.values(),
      rawOffsetBytes: this.#rawOffsetBytes.values(),
    }
  }
}

/** A layer whose index of the region was read. */
export interface LoadedLayer {
  readonly reader: PackReader
  readonly extents: RegionExtents
}

/** What of it reading blocks takes. */
export interface LayerBlocks {
  readonly reader: PackReader
  readonly extents: Pick<RegionExtents, 'blocks'>
}

export type OpenPack = (pack: PackRef, signal: AbortSignal) => Promise<PackReader>

/** Opens packs each time anew. */
export function packOpener(store: ObjectStore): OpenPack {
  return (pack, signal) => PackReader.open(store, pack.object, signal)
}

/** Reads the region's index of every layer and adds what counts to the pieces; a piece's source is the layer's place in the answer. */
export async function loadLayers(
  layers: readonly Layer[],
  region: number,
  open: OpenPack,
  pieces: RegionPieces,
  signal: AbortSignal,
): Promise<LoadedLayer[]> {
  const permits = new Permits(requestsMax)
  const read = await settleAll(
    layers.map(layer =>
      permits.with(async () => {
        const reader = await open(layer.pack, signal)
        return { reader, layer, extents: await reader.readRegion(region, signal) }
      }),
    ),
  )
  const loaded: LoadedLayer[] = []
  for (const { reader, layer, extents } of read) {
    if (extents === undefined) continue
    addExtents(pieces, loaded.length, { reader, extents }, layer)
    loaded.push({ reader, extents })
  }
  return loaded
}

/** Extents lie by place, but a later checkpoint's hide an earlier one's: they are added by ordinal. */
function addExtents(pieces: RegionPieces, source: number, { reader, extents }: LoadedLayer, layer: Layer): void {
  const byOrdinal = radixOrder(
    Uint32Array.from(extents.ordinalIndex),
    extents.count,
    new Uint32Array(extents.count),
    new Uint32Array(extents.count),
  )
  for (const index of byOrdinal) {
    const ordinal = reader.ordinals[extents.ordinalIndex[index]!]!
    if (ordinal <= layer.afterOrdinal || ordinal > layer.throughOrdinal) continue
    const rawOffsetBytes = extents.zero[index] === 1 ? noData : extents.rawOffsetBytes[index]!
    pieces.add(extents.start[index]!, extents.length[index]!, source, extents.block[index]!, rawOffsetBytes)
  }
}

/**
 * Gives each listed fragment's data to `take`, as the raw block that it is in, layer by layer, each in the order in which it
 * lies in its pack; a few layers at once. Fragments of other sources are passed over.
 */
export async function readFragments(
  loaded: readonly LayerBlocks[],
  pieces: ReturnType<RegionPieces['columns']>,
  fragments: Fragments,
  wanted: Uint32Array,
  take: (fragment: number, unit: Uint8Array) => void,
  signal: AbortSignal,
): Promise<void> {
  const bySource: Uint32Column[] = loaded.map(() => new Uint32Column())
  for (const fragment of wanted) {
    const piece = fragments.piece[fragment]!
    if (pieces.rawOffsetBytes[piece] !== noData) bySource[pieces.source[piece]!]?.push(fragment)
  }
  const permits = new Permits(requestsMax)
  const reading = bySource.map((column, source) =>
    permits.with(() => readOfLayer(loaded[source]!, pieces.unit, fragments, column.values(), take, signal)),
  )
  await settleAll(reading)
}

async function readOfLayer(
  { reader, extents }: LayerBlocks,
  unit: Uint32Array,
  fragments: Fragments,
  own: Uint32Array,
  take: (fragment: number, unit: Uint8Array) => void,
  signal: AbortSignal,
): Promise<void> {
  const units = own.map(fragment => unit[fragments.piece[fragment]!]!)
  const order = radixOrder(units, own.length, new Uint32Array(own.length), new Uint32Array(own.length))
  const blocks = new Uint32Column()
  let last = -1
  for (const index of order) {
    if (units[index] === last) continue
    last = units[index]!
    blocks.push(last)
  }
  let next = 0
  const takeBlock = (block: number, raw: Uint8Array): void => {
    for (; next < order.length && units[order[next]!] === block; next++) take(own[order[next]!]!, raw)
  }
  await reader.readBlocks(extents.blocks, blocks.values(), takeBlock, signal)
}
