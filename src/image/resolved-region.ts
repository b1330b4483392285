import {
  loadLayers,
  Merger,
  noData,
  Pace,
  RegionPieces,
  type Bucket,
  type Fragments,
  type Layers,
  type LoadedLayer,
  type PackReader,
  type RegionWrites,
} from '../mirror/mirror.ts'
import { sectorSizeBytes } from '../base/units.ts'
import type { PackRef } from '../timeline/state.ts'

/** Where every byte of a region is. Fragments are ascending and do not overlap; what none covers is zeros, and so are those without data. */
export interface ResolvedRegion {
  readonly region: number
  readonly loaded: readonly LoadedLayer[]
  readonly pieces: ReturnType<RegionPieces['columns']>
  readonly fragments: Fragments
  /** Pieces of this source are writes that are not folded; their unit is the batch of RegionWrites. */
  readonly writesSource: number
  /** Of every fragment: how many bytes of such writes lie before it in the region. */
  readonly unfoldedBeforeBytes: Uint32Array
  readonly sizeBytes: number
}

export type OpenReader = (pack: PackRef, signal: AbortSignal) => Promise<PackReader>

/** Reads the index of the region in every layer and merges it with the writes that lie over them. */
export async function resolveRegion(
  place: { readonly volume: number; readonly region: number },
  layers: Layers,
  { writes, bucket }: { readonly writes: RegionWrites; readonly bucket: Bucket | undefined },
  open: OpenReader,
  signal: AbortSignal,
): Promise<ResolvedRegion> {
  const { volume, region } = place
  const found = new RegionPieces()
  const loaded = await loadLayers(layers.of(volume, region), region, open, found, signal)
  const writesSource = loaded.length
  if (bucket !== undefined)
    await writes.eachPiece(bucket, imagePace(signal), (start, length, batch, rawOffsetBytes) =>
      found.add(start, length, writesSource, batch, rawOffsetBytes),
    )
  const pieces = found.columns()
  const merged = new Merger().merge(pieces)
  const fragments = {
    count: merged.count,
    piece: merged.piece.slice(0, merged.count),
    start: merged.start.slice(0, merged.count),
    length: merged.length.slice(0, merged.count),
  }
  const blockCount = loaded.reduce((sum, { extents }) => sum + extents.blocks.count, 0)
  const extentCount = loaded.reduce((sum, { extents }) => sum + extents.count, 0)
  const sizeBytes = 1024 + 16 * fragments.count + 20 * pieces.count + 19 * extentCount + 16 * blockCount
  const resolved = { region, loaded, pieces, fragments, writesSource, sizeBytes }
  return { ...resolved, unfoldedBeforeBytes: unfoldedBefore(resolved) }
}

function unfoldedBefore(resolved: Omit<ResolvedRegion, 'unfoldedBeforeBytes'>): Uint32Array {
  const { fragments } = resolved
  const before = new Uint32Array(fragments.count)
  let sum = 0
  for (let fragment = 0; fragment < fragments.count; fragment++) {
    before[fragment] = sum
    if (isUnfolded(resolved, fragment) && hasData(resolved, fragment))
      sum += fragments.length[fragment]! * sectorSizeBytes
  }
  return before
}

/** True where the fragment's piece is a write that no delta holds. */
export function isUnfolded(
  { pieces, fragments, writesSource }: Pick<ResolvedRegion, 'pieces' | 'fragments' | 'writesSource'>,
  fragment: number,
): boolean {
  return pieces.source[fragments.piece[fragment]!] === writesSource
}

/** True where the fragment's piece has data. */
export function hasData(
  { pieces, fragments }: Pick<ResolvedRegion, 'pieces' | 'fragments'>,
  fragment: number,
): boolean {
  return pieces.rawOffsetBytes[fragments.piece[fragment]!] !== noData
}

/** The first fragment that ends after the sector. */
export function firstEndingAfter({ fragments }: ResolvedRegion, sector: number): number {
  let low = 0
  let high = fragments.count
  while (low < high) {
    const middle = Math.floor((low + high) / 2)
    if (fragments.start[middle]! + fragments.length[middle]! <= sector) low = middle + 1
    else high = middle
  }
  return low
}

/** The fragments with data that lie, or reach, into the range, which is in bytes from the region's start. */
export function fragmentsWithData(resolved: ResolvedRegion, startBytes: number, endBytes: number): number[] {
  const { fragments } = resolved
  const found: number[] = []
  const first = firstEndingAfter(resolved, Math.floor(Math.max(0, startBytes) / sectorSizeBytes))
  for (let fragment = first; fragment < fragments.count; fragment++) {
    if (fragments.start[fragment]! * sectorSizeBytes >= endBytes) break
    if (hasData(resolved, fragment)) found.push(fragment)
  }
  return found
}

/** Lets messages of other threads in, now and then, while a long read computes. */
export function imagePace(signal: AbortSignal): Pace {
  return new Pace(() => new Promise(resolve => setImmediate(resolve)), signal)
}
