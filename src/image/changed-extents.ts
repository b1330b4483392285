import type { ImagePlan } from '../aging/service.ts'
import { Failure } from '../base/failure.ts'
import { changedExtentCountMax } from '../base/limits.ts'
import { alignDown, alignUp, KiB, sectorSizeBytes } from '../base/units.ts'
import { gatherRegionWrites, Layers, loadLayers, PackReader, RegionPieces } from '../mirror/mirror.ts'
import { unpackTail } from '../segment/segment.ts'
import { lastDeltaEnd } from '../timeline/deltas.ts'
import { imagePace } from './resolved-region.ts'
import type { Image, ImageTools, VolumeRange } from './types.ts'

// What may differ of a volume between two checkpoints, from the indexes alone: not a byte of it is read. The places of all writes after the
// one and up to the other, whatever they wrote; so it may be more than what differs, never less.
//
// Where a region's base was rewritten in between, the deltas below that may be gone: what the volume held there in either image is told then.

export interface ChangedExtents {
  /** Ascending and apart: where each begins and how long it is, in turn, in bytes. */
  readonly extents: Float64Array
  readonly sizeBytes: number
  /** Every extent is a multiple of it, but for the volume's end: coarser where there would be too many. */
  readonly granularityBytes: number
}

/** Both plans are of one VPG; in either order. UNKNOWN_VOLUME where one of the checkpoints does not include the volume. */
export async function changedExtents(
  request: { readonly from: ImagePlan; readonly to: ImagePlan; readonly volume: number },
  tools: ImageTools,
  openImage: (plan: ImagePlan) => Promise<Image>,
  signal: AbortSignal,
): Promise<ChangedExtents> {
  const { volume } = request
  const [older, newer] =
    request.from.checkpoint.ordinal <= request.to.checkpoint.ordinal
      ? [request.from, request.to]
      : [request.to, request.from]
  const sizes = [older, newer].map(plan => sizeOf(plan, volume))
  const gathered = new Extents(Math.max(...sizes))
  if (sizes[0] !== sizes[1]) gathered.add(Math.min(...sizes), Math.max(...sizes))
  await addWrites(gathered, older, newer, volume, tools, signal)
  await addDeltas(gathered, older, newer, volume, tools, openImage, signal)
  return gathered.result()
}

function sizeOf({ checkpoint }: ImagePlan, volume: number): number {
  const found = checkpoint.volumes.find(({ number }) => number === volume)
  if (found?.included !== true)
    throw new Failure('UNKNOWN_VOLUME', `one of the checkpoints does not include volume ${volume}`, { volume })
  return found.sizeBytes
}

/** Of segments and log: what no delta of the newer one's plan holds. */
async function addWrites(
  gathered: Extents,
  older: ImagePlan,
  newer: ImagePlan,
  volume: number,
  tools: ImageTools,
  signal: AbortSignal,
): Promise<void> {
  const { checkpoint, state, segmentsFrom, tail } = newer
  if (checkpoint.ordinal <= lastDeltaEnd(state)) return
  const isAbove = older.checkpoint.ordinal >= lastDeltaEnd(state)
  const from = isAbove ? older.checkpoint.vector : segmentsFrom
  const sources = state.segments.map(segment => tools.openSegment(segment))
  if (tail.count > 0) sources.push(tools.openTail(unpackTail(tail)))
  const pace = imagePace(signal)
  const between = { from, to: checkpoint.vector }
  const writes = await gatherRegionWrites(sources, between, tools.regionSizeBytes, pace, signal)
  for (const bucket of writes.buckets) {
    if (bucket.volume !== volume) continue
    const regionStart = bucket.region * tools.regionSizeBytes
    await writes.eachPiece(bucket, pace, (start, length) => {
      const startBytes = regionStart + start * sectorSizeBytes
      gathered.add(startBytes, startBytes + length * sectorSizeBytes)
    })
    await pace.step()
  }
}

async function addDeltas(
  gathered: Extents,
  older: ImagePlan,
  newer: ImagePlan,
  volume: number,
  tools: ImageTools,
  openImage: (plan: ImagePlan) => Promise<Image>,
  signal: AbortSignal,
): Promise<void> {
  const { regionSizeBytes } = tools
  const ofOlder = new Layers(newer.state, older.checkpoint.ordinal, regionSizeBytes)
  const ofNewer = new Layers(newer.state, newer.checkpoint.ordinal, regionSizeBytes)
  const regions = new Set([...ofOlder.regionsOf(volume), ...ofNewer.regionsOf(volume)])
  const pace = imagePace(signal)
  let images: readonly Image[] | undefined
  for (const region of [...regions].sort((a, b) => a - b)) {
    if (ofOlder.baseOrdinal(volume, region) !== ofNewer.baseOrdinal(volume, region)) {
      images ??= [await openImage(older), await openImage(newer)]
      for (const image of images) await addData(gathered, image, volume, region, regionSizeBytes, signal)
      continue
    }
    const layers = ofNewer
      .of(volume, region)
      .map(layer => ({ ...layer, afterOrdinal: Math.max(layer.afterOrdinal, older.checkpoint.ordinal) }))
      .filter(({ afterOrdinal, throughOrdinal }) => afterOrdinal < throughOrdinal)
    const found = new RegionPieces()
    await loadLayers(layers, region, (pack, at) => PackReader.open(tools.store, pack.object, at), found, signal)
    const { count, start, length } = found.columns()
    for (let piece = 0; piece < count; piece++) {
      const startBytes = region * regionSizeBytes + start[piece]! * sectorSizeBytes
      gathered.add(startBytes, startBytes + length[piece]! * sectorSizeBytes)
    }
    await pace.step()
  }
}

async function addData(
  gathered: Extents,
  image: Image,
  volume: number,
  region: number,
  regionSizeBytes: number,
  signal: AbortSignal,
): Promise<void> {
  const { sizeBytes } = image.volumes.find(({ number }) => number === volume)!
  const range: VolumeRange = {
    startBytes: region * regionSizeBytes,
    endBytes: Math.min(sizeBytes, (region + 1) * regionSizeBytes),
  }
  for (let at = range.startBytes; at < range.endBytes;) {
    const run = await image.runAt(volume, { startBytes: at, endBytes: range.endBytes }, signal)
    if (run.isData) gathered.add(at, run.endBytes)
    at = run.endBytes
  }
}

/** Blocks that were touched, one bit each; they get larger where a volume has too many of them. */
class Extents {
  readonly #sizeBytes: number
  readonly #blockSizeBytes: number
  readonly #bits: Uint8Array

  constructor(sizeBytes: number) {
    this.#sizeBytes = sizeBytes
    let blockSizeBytes = 4 * KiB
    while (sizeBytes > blockSizeBytes * trackedBlocksMax) blockSizeBytes *= 2
    this.#blockSizeBytes = blockSizeBytes
    this.#bits = new Uint8Array(Math.ceil(sizeBytes / blockSizeBytes))
  }

  add(startBytes: number, endBytes: number): void {
    const end = Math.min(endBytes, this.#sizeBytes)
    if (startBytes >= end) return
    this.#bits.fill(1, Math.floor(startBytes / this.#blockSizeBytes), Math.ceil(end / this.#blockSizeBytes))
  }

  result(): ChangedExtents {
    for (let granularityBytes = this.#blockSizeBytes; ; granularityBytes *= 2) {
      const extents = this.#extentsOf(granularityBytes)
      if (extents === undefined) continue
      const sizeBytes = extents.reduce((sum, value, index) => (index % 2 === 1 ? sum + value : sum), 0)
      return { extents: Float64Array.from(extents), sizeBytes, granularityBytes }
    }
  }

  /** Undefined where there would be too many. */
  #extentsOf(granularityBytes: number): number[] | undefined {
    const extents: number[] = []
    for (let block = this.#bits.indexOf(1); block >= 0;) {
      const clear = this.#bits.indexOf(0, block)
      const end = clear < 0 ? this.#bits.length : clear
      const startBytes = alignDown(block * this.#blockSizeBytes, granularityBytes)
      const endBytes = Math.min(this.#sizeBytes, alignUp(end * this.#blockSizeBytes, granularityBytes))
      const lastEnd = extents.length === 0 ? -1 : extents.at(-2)! + extents.at(-1)!
      if (startBytes <= lastEnd) extents[extents.length - 1] = endBytes - extents.at(-2)!
      else {
        if (extents.length === 2 * changedExtentCountMax) return undefined
        extents.push(startBytes, endBytes - startBytes)
      }
      block = this.#bits.indexOf(1, end)
    }
    return extents
  }
}

/** 16 MiB of memory; to 64 GiB a block is 4 KiB. */
const trackedBlocksMax = 16 * 1024 * KiB
