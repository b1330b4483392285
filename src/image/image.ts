import type { ImagePlan } from '../aging/service.ts'
import { comparePositions, sequence, type PositionVector } from '../base/ids.ts'
import { Failure } from '../base/failure.ts'
import { alignDown, sectorSizeBytes } from '../base/units.ts'
import { gatherRegionWrites, Layers, PackReader, type Bucket, type RegionWrites } from '../mirror/mirror.ts'
import type { RecordSource } from '../segment/record-source.ts'
import type { ByteRange } from '../store/object-store.ts'
import { unpackTail, type TailRecord } from '../segment/segment.ts'
import type { Checkpoint, CheckpointVolume } from '../timeline/checkpoint.ts'
import { lastDeltaEnd } from '../timeline/deltas.ts'
import type { PackRef, SegmentSpan, StreamRange } from '../timeline/state.ts'
import {
  firstEndingAfter,
  fragmentsWithData,
  hasData,
  imagePace,
  isUnfolded,
  resolveRegion,
  type ResolvedRegion,
} from './resolved-region.ts'
import { scatterVolume } from './scatter.ts'
import { SizedCache } from './sized-cache.ts'
import { planSpool, readSpooled, spooledRuns } from './spool.ts'
import type {
  ImageTools,
  PieceSink,
  Spool,
  SpoolableImage,
  SpooledRegion,
  SpoolPlaces,
  VolumeRange,
  VolumeRun,
} from './types.ts'
import { UnfoldedPieces } from './unfolded-pieces.ts'
import { UnitReader } from './unit-reader.ts'

// An image: the volumes of a VPG as of one checkpoint C, readable.
//
// Below is the mirror: per region the newest version of the base at or before C, and over it the deltas after that version. Above are
// the writes that no delta holds yet: those of segments and log after the last delta's end, up to C, which is a vector of positions
// (a place in a file or a time says nothing about another stream).
//
// Opening reads only the footers of those segments, and counts their writes by region: one pass (mirror/region-writes.ts). A region is resolved
// when it is first touched: the index of each of its layers is read and merged with its bucket. So opening costs by what is
// not folded, reading by what is read, and neither by the length of the history.

export { exportRaw, type ExportRequest } from './export-raw.ts'
export { pieceWriterOn, type OpenPieceWriter, type PieceWriter } from './piece-writer.ts'
export { openWritingThread } from './writing-thread.ts'
export { changedExtents, type ChangedExtents } from './changed-extents.ts'
export { ImageSources } from './image-sources.ts'
export { hashBlocks, type BlockRun } from './hash-blocks.ts'
export { spoolFailedSentence, spoolImage, type Spooled, type SpoolOptions } from './spool-image.ts'
export { SpoolRoom } from './spool-room.ts'
export { spoolInThread } from './spool-thread.ts'
export type { Image, ImageTools, PieceSink, SpoolableImage, VolumeRange, VolumeRun } from './types.ts'

/** Trailer, fence and ordinals of a pack, kept open; about this many bytes beside the fence. */
const readerSizeBytes = 1024
const fenceEntrySizeBytes = 150

/**
 * Opens the volumes as of the plan's checkpoint. The plan's pin keeps its objects readable until it is dropped. Fails OBJECT_CORRUPT or
 * RECORD_CORRUPT where a footer or record is damaged: nothing is served from around a gap.
 */
export async function openImage(plan: ImagePlan, tools: ImageTools, signal: AbortSignal): Promise<SpoolableImage> {
  const sources = unfoldedSources(plan, tools)
  const between = { from: plan.segmentsFrom, to: plan.checkpoint.vector }
  const writes = await gatherRegionWrites(sources, between, tools.regionSizeBytes, imagePace(signal), signal)
  return new OpenImage(plan, tools, sources, writes)
}

/** Segments and log records that may hold a write after the last delta and before the checkpoint, in order. */
function unfoldedSources(plan: ImagePlan, tools: ImageTools): RecordSource[] {
  const { checkpoint, state, segmentsFrom, tail } = plan
  if (checkpoint.ordinal <= lastDeltaEnd(state)) return []
  const counts = (range: StreamRange): boolean => reachesInto(range, segmentsFrom, checkpoint.vector)
  const segments: SegmentSpan[] = state.segments.filter(segment => segment.ranges.some(counts))
  const records: TailRecord[] = unpackTail(tail).filter(counts)
  const sources = segments.map(segment => tools.openSegment(segment))
  return records.length === 0 ? sources : [...sources, tools.openTail(records)]
}

/** True when a position of the range lies after `from` and is covered by `to`. */
function reachesInto(range: StreamRange, from: PositionVector, to: PositionVector): boolean {
  const { stream, generation } = range
  const after = from.find(position => position.stream === stream)
  const upTo = to.find(position => position.stream === stream)
  const first = { generation, sequence: sequence(range.firstSequence) }
  const last = { generation, sequence: sequence(range.lastSequence) }
  return (
    upTo !== undefined &&
    comparePositions(first, upTo) <= 0 &&
    (after === undefined || comparePositions(last, after) > 0)
  )
}

/** Fills the target with what the unfolded fragments have of the range, and zeros; false, and the spool is used no more, where it cannot be read. */
async function fillFromSpool(
  resolved: ResolvedRegion,
  spooled: SpooledRegion,
  unfolded: readonly number[],
  range: ByteRange,
  target: Uint8Array,
): Promise<boolean> {
  const [run] = spooledRuns(resolved, unfolded, range, spooled.startBytes, Infinity)
  try {
    await readSpooled(spooled.file, run, range.startBytes, target)
    return true
  } catch (error) {
    spooled.drop(error)
    return false
  }
}

interface NumberedBucket extends Bucket {
  /** Among all of the image. */
  readonly number: number
}

class OpenImage implements SpoolableImage {
  readonly checkpoint: Checkpoint
  readonly volumes: readonly CheckpointVolume[]
  readonly #tools: ImageTools
  readonly #sources: readonly RecordSource[]
  readonly #writes: RegionWrites
  readonly #layers: Layers
  readonly #buckets = new Map<number, Map<number, NumberedBucket>>()
  readonly #places = new Map<number, readonly number[]>()
  readonly #readers: SizedCache<PackReader>
  readonly #regions: SizedCache<ResolvedRegion>
  readonly #units: UnitReader
  /** Being resolved: whoever needs one of them too waits for it. */
  readonly #resolving = new Map<string, Promise<ResolvedRegion>>()
  #spool: Spool | undefined

  constructor(plan: ImagePlan, tools: ImageTools, sources: readonly RecordSource[], writes: RegionWrites) {
    this.checkpoint = plan.checkpoint
    this.volumes = plan.checkpoint.volumes
    this.#tools = tools
    this.#sources = sources
    this.#writes = writes
    this.#layers = new Layers(plan.state, plan.checkpoint.ordinal, tools.regionSizeBytes)
    for (const [number, bucket] of writes.buckets.entries()) {
      const own = this.#buckets.get(bucket.volume)
      const numbered = { ...bucket, number }
      if (own === undefined) this.#buckets.set(bucket.volume, new Map([[bucket.region, numbered]]))
      else own.set(bucket.region, numbered)
    }
    this.#readers = new SizedCache(tools.cacheSizeBytes / 8)
    this.#regions = new SizedCache((tools.cacheSizeBytes * 3) / 8)
    this.#units = new UnitReader(writes, sources, tools.cacheSizeBytes / 2)
  }

  async read(volume: number, offsetBytes: number, target: Uint8Array, signal: AbortSignal): Promise<void> {
    const { sizeBytes } = this.#included(volume)
    const endBytes = offsetBytes + target.length
    if (offsetBytes < 0 || endBytes > sizeBytes)
      throw new Failure('OUT_OF_BOUNDS', `a read of volume ${volume} reaches past its end`, {
        volume,
        offsetBytes,
        endBytes,
        sizeBytes,
      })
    const { regionSizeBytes } = this.#tools
    for (let region = Math.floor(offsetBytes / regionSizeBytes); region * regionSizeBytes < endBytes; region++) {
      const resolved = await this.#region(volume, region, signal)
      const regionStart = region * regionSizeBytes
      const startBytes = Math.max(offsetBytes, regionStart)
      const own = target.subarray(
        startBytes - offsetBytes,
        Math.min(endBytes, regionStart + regionSizeBytes) - offsetBytes,
      )
      await this.#readOfRegion(resolved, this.#spooled(volume, region), startBytes - regionStart, own, signal)
    }
  }

  /** Fills the target with what the region holds from `startBytes` on. */
  async #readOfRegion(
    resolved: ResolvedRegion,
    spooled: SpooledRegion | undefined,
    startBytes: number,
    target: Uint8Array,
    signal: AbortSignal,
  ): Promise<void> {
    const range = { startBytes, endBytes: startBytes + target.length }
    const wanted = fragmentsWithData(resolved, range.startBytes, range.endBytes)
    let others = wanted
    const unfolded = spooled === undefined ? [] : wanted.filter(fragment => isUnfolded(resolved, fragment))
    if (spooled !== undefined && (await fillFromSpool(resolved, spooled, unfolded, range, target))) {
      signal.throwIfAborted()
      if (unfolded.length === wanted.length) return
      others = wanted.filter(fragment => !isUnfolded(resolved, fragment))
    } else target.fill(0)
    await this.#units.each(resolved, others, range, signal, (fragment, bytes) => {
      const fragmentStart = resolved.fragments.start[fragment]! * sectorSizeBytes
      target.set(bytes, Math.max(0, fragmentStart - startBytes))
    })
  }

  async prefetch(volume: number, range: VolumeRange, signal: AbortSignal): Promise<void> {
    const { sizeBytes } = this.#included(volume)
    const { regionSizeBytes } = this.#tools
    const endBytes = Math.min(range.endBytes, sizeBytes)
    for (let region = Math.floor(range.startBytes / regionSizeBytes); region * regionSizeBytes < endBytes; region++) {
      const resolved = await this.#region(volume, region, signal)
      const regionStart = region * regionSizeBytes
      const own = { startBytes: range.startBytes - regionStart, endBytes: endBytes - regionStart }
      const isSpooled = this.#spooled(volume, region) !== undefined
      const wanted = fragmentsWithData(resolved, own.startBytes, own.endBytes).filter(
        fragment => !isSpooled || !isUnfolded(resolved, fragment),
      )
      await this.#units.prefetch(resolved, wanted, own, signal)
    }
  }

  async scatter(volume: number, range: VolumeRange, sink: PieceSink, signal: AbortSignal): Promise<void> {
    const { sizeBytes } = this.#included(volume)
    const endBytes = Math.min(range.endBytes, sizeBytes)
    const places = this.#regionsWithData(volume).filter(
      region =>
        region * this.#tools.regionSizeBytes < endBytes &&
        (region + 1) * this.#tools.regionSizeBytes > range.startBytes,
    )
    // A part of a region is followed by the next one; all of a volume is read once.
    const isPart = endBytes - range.startBytes < this.#tools.regionSizeBytes
    await scatterVolume({
      regions: places,
      resolve: region => (isPart ? this.#region(volume, region, signal) : this.#resolve(volume, region, signal)),
      spooled: region => this.#spooled(volume, region),
      batches: this.#writes,
      sources: this.#sources,
      range: { startBytes: range.startBytes, endBytes },
      regionSizeBytes: this.#tools.regionSizeBytes,
      sink,
      signal,
    })
  }

  async nextData(volume: number, range: VolumeRange, signal: AbortSignal): Promise<number> {
    this.#included(volume)
    const { startBytes, endBytes } = range
    const { regionSizeBytes } = this.#tools
    for (const region of this.#regionsWithData(volume)) {
      const regionStart = region * regionSizeBytes
      if (regionStart + regionSizeBytes <= startBytes) continue
      if (regionStart >= endBytes) break
      const resolved = await this.#region(volume, region, signal)
      const { fragments } = resolved
      const first = firstEndingAfter(resolved, Math.floor(Math.max(0, startBytes - regionStart) / sectorSizeBytes))
      for (let fragment = first; fragment < fragments.count; fragment++) {
        if (!hasData(resolved, fragment)) continue
        const dataBytes = regionStart + fragments.start[fragment]! * sectorSizeBytes
        return Math.min(endBytes, Math.max(startBytes, dataBytes))
      }
    }
    return endBytes
  }

  async runAt(volume: number, range: VolumeRange, signal: AbortSignal): Promise<VolumeRun> {
    const dataBytes = await this.nextData(volume, range, signal)
    if (dataBytes > range.startBytes) return { isData: false, endBytes: dataBytes }
    const { regionSizeBytes } = this.#tools
    const regionStart = alignDown(range.startBytes, regionSizeBytes)
    const resolved = await this.#region(volume, regionStart / regionSizeBytes, signal)
    const { fragments } = resolved
    let sector = Math.floor((range.startBytes - regionStart) / sectorSizeBytes)
    for (let fragment = firstEndingAfter(resolved, sector); fragment < fragments.count; fragment++) {
      if (fragments.start[fragment]! > sector || !hasData(resolved, fragment)) break
      sector = fragments.start[fragment]! + fragments.length[fragment]!
      if (regionStart + sector * sectorSizeBytes >= range.endBytes) break
    }
    return { isData: true, endBytes: Math.min(range.endBytes, regionStart + sector * sectorSizeBytes) }
  }

  async *extents(volume: number, signal: AbortSignal): AsyncGenerator<VolumeRange> {
    const { sizeBytes } = this.#included(volume)
    let open: VolumeRange | undefined
    for (const region of this.#regionsWithData(volume)) {
      const resolved = await this.#region(volume, region, signal)
      for (let fragment = 0; fragment < resolved.fragments.count; fragment++) {
        if (!hasData(resolved, fragment)) continue
        const startBytes = region * this.#tools.regionSizeBytes + resolved.fragments.start[fragment]! * sectorSizeBytes
        const endBytes = Math.min(sizeBytes, startBytes + resolved.fragments.length[fragment]! * sectorSizeBytes)
        if (startBytes >= endBytes) continue
        if (open?.endBytes === startBytes) {
          open = { startBytes: open.startBytes, endBytes }
        } else {
          if (open !== undefined) yield open
          open = { startBytes, endBytes }
        }
      }
    }
    if (open !== undefined) yield open
  }

  get unfoldedSizeBytes(): number {
    return this.#writes.dataSizeBytes
  }

  get wastedSizeBytes(): number {
    return this.#units.wastedSizeBytes
  }

  async fillSpool(
    volumes: ReadonlySet<number>,
    begin: (places: SpoolPlaces) => PieceSink,
    signal: AbortSignal,
  ): Promise<void> {
    const pieces = new UnfoldedPieces(this.#writes, this.#sources)
    const places = await planSpool(this.#writes, volumes, pieces, imagePace(signal))
    await pieces.scatter(begin(places), { doneBytes: 0, totalBytes: places.sizeBytes }, signal)
  }

  useSpool(spool: Spool | undefined): void {
    this.#spool = spool
  }

  #spooled(volume: number, region: number): SpooledRegion | undefined {
    if (this.#spool === undefined) return undefined
    const spool = this.#spool
    const startBytes = spool.places.startBytes[this.#buckets.get(volume)?.get(region)?.number ?? -1] ?? -1
    if (startBytes < 0) return undefined
    const drop = (cause: unknown): void => {
      if (this.#spool !== spool) return
      this.#spool = undefined
      spool.failed(cause)
    }
    return { file: spool.file, startBytes, drop }
  }

  #included(volume: number): CheckpointVolume {
    const found = this.volumes.find(candidate => candidate.number === volume)
    if (found?.included === true) return found
    const why = found === undefined ? 'has no' : 'does not include'
    throw new Failure('UNKNOWN_VOLUME', `the checkpoint ${why} volume ${volume}`, { volume })
  }

  /** Ascending. */
  #regionsWithData(volume: number): readonly number[] {
    const known = this.#places.get(volume)
    if (known !== undefined) return known
    const regions = new Set(this.#layers.regionsOf(volume))
    for (const region of this.#buckets.get(volume)?.keys() ?? []) regions.add(region)
    const places = [...regions].sort((a, b) => a - b)
    this.#places.set(volume, places)
    return places
  }

  async #region(volume: number, region: number, signal: AbortSignal): Promise<ResolvedRegion> {
    const key = `${volume}.${region}`
    const known = this.#regions.get(key)
    if (known !== undefined) return known
    const underWay = this.#resolving.get(key)
    if (underWay !== undefined) return await underWay
    const resolving = this.#resolve(volume, region, signal)
    this.#resolving.set(key, resolving)
    try {
      const resolved = await resolving
      this.#regions.set(key, resolved, resolved.sizeBytes)
      return resolved
    } finally {
      this.#resolving.delete(key)
    }
  }

  #resolve(volume: number, region: number, signal: AbortSignal): Promise<ResolvedRegion> {
    const writes = { writes: this.#writes, bucket: this.#buckets.get(volume)?.get(region) }
    return resolveRegion({ volume, region }, this.#layers, writes, (pack, at) => this.#reader(pack, at), signal)
  }

  async #reader(pack: PackRef, signal: AbortSignal): Promise<PackReader> {
    const known = this.#readers.get(pack.object.key)
    if (known !== undefined) return known
    const reader = await PackReader.open(this.#tools.store, pack.object, signal)
    const sizeBytes = readerSizeBytes + fenceEntrySizeBytes * reader.fence.length + 8 * reader.ordinals.length
    this.#readers.set(pack.object.key, reader, sizeBytes)
    return reader
  }
}
