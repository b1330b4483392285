import { extentAlignmentBytes } from '../base/limits.ts'
import { sectorSizeBytes } from '../base/units.ts'
import {
  dataSectorsOf,
  isZeroWrite,
  lengthSectorsOf,
  offsetSectorsOf,
  type BatchColumns,
  type RecordSource,
  type WriteColumns,
} from '../segment/record-source.ts'
import type { Hole } from '../timeline/state.ts'
import { BatchList, cutOfBatch } from './batch-list.ts'
import { grownUint32, Uint32Column } from './columns.ts'
import { CutFinder, type Cuts } from './cut-finder.ts'
import type { Pace } from './pace.ts'

// The writes of many sources, as columns: a row per piece of a write, 20 bytes; a piece lies in one region, and one with data in one
// 512 KiB unit. A bucket is a region of a volume; pieces are put into buckets by one counting pass, oldest first in each.

/** The clock is looked at once in so many batches. */
const batchesBetweenLooks = 64

/** Stands for the raw offset of zeros. */
export const noData = 0xffff_ffff

export interface Bucket {
  readonly volume: number
  readonly region: number
  /** Half-open, in `order`. */
  readonly first: number
  readonly end: number
}

/** See above. `order` lists pieces by bucket. Columns may be longer than `count`. */
export interface WriteIndex {
  readonly count: number
  /** In sectors from the region's start. */
  readonly start: Uint32Array
  readonly length: Uint16Array
  readonly group: Uint16Array
  readonly batch: Uint32Array
  /** Where its data begins in its batch's raw payload, in bytes; noData for zeros. */
  readonly rawOffsetBytes: Uint32Array
  /** By batch: the source's index, and the batch's number in it. */
  readonly batchSource: Uint32Array
  readonly batchNumber: Uint32Array
  readonly order: Uint32Array
  /** Ascending by volume and region. */
  readonly buckets: readonly Bucket[]
}

function inHole(batches: BatchColumns, batch: number, holes: readonly Hole[]): boolean {
  const first = batches.firstSequence[batch]!
  const last = first + batches.writeCount[batch]! - 1
  return holes.some(
    hole =>
      hole.stream === batches.stream[batch] &&
      hole.generation === batches.generation[batch] &&
      hole.firstSequence <= last &&
      hole.lastSequence >= first,
  )
}

/** Collects pieces; then finish() makes the index. */
class WriteIndexBuilder {
  readonly #regionSectors: number
  readonly #unitSectors = extentAlignmentBytes / sectorSizeBytes
  #count = 0
  #start: Uint32Array
  #length: Uint16Array
  #group: Uint16Array
  #batch: Uint32Array
  #rawOffsetBytes: Uint32Array
  #bucket: Uint32Array
  /** By volume, then region; volumes have few regions, at most 2^19. */
  readonly #bucketsOfVolume = new Map<number, number[]>()
  #lastVolume = -1
  #lastBuckets: number[] = []
  readonly #bucketPlaces: { volume: number; region: number; count: number }[] = []
  readonly #batches = new BatchList()
  /** By batch. */
  readonly #firstPiece = new Uint32Column()

  /** For about so many pieces: growing touches all memory anew. What is never written takes none. */
  constructor(regionSizeBytes: number, pieceCount: number) {
    this.#regionSectors = regionSizeBytes / sectorSizeBytes
    const capacity = Math.max(1024, pieceCount)
    this.#start = new Uint32Array(capacity)
    this.#length = new Uint16Array(capacity)
    this.#group = new Uint16Array(capacity)
    this.#batch = new Uint32Array(capacity)
    this.#rawOffsetBytes = new Uint32Array(capacity)
    this.#bucket = new Uint32Array(capacity)
  }

  /** The writes from here on are this batch's. */
  beginBatch(source: number, number: number, batches: BatchColumns): void {
    this.#batches.add(source, number, batches)
    this.#firstPiece.push(this.#count)
  }

  /** `dataOffsetBytes`: where the data of it, if it has any, begins in its batch's raw payload. */
  add(writes: WriteColumns, write: number, dataOffsetBytes: number, group: number): void {
    const zero = isZeroWrite(writes, write)
    let sector = offsetSectorsOf(writes, write)
    let rest = lengthSectorsOf(writes, write)
    let rawOffsetBytes = zero ? noData : dataOffsetBytes
    while (rest > 0) {
      const region = Math.floor(sector / this.#regionSectors)
      const inRegion = sector - region * this.#regionSectors
      const room = this.#regionSectors - inRegion
      const length = Math.min(rest, room, zero ? 0xffff : this.#unitSectors - (sector % this.#unitSectors))
      this.#append(writes.volume[write]!, region, inRegion, length, group, rawOffsetBytes)
      sector += length
      rest -= length
      if (!zero) rawOffsetBytes += length * sectorSizeBytes
    }
  }

  #append(volume: number, region: number, start: number, length: number, group: number, rawOffsetBytes: number): void {
    if (this.#count === this.#start.length) this.#grow()
    const at = this.#count++
    const bucket = this.#bucketOf(volume, region)
    this.#bucketPlaces[bucket]!.count++
    this.#bucket[at] = bucket
    this.#start[at] = start
    this.#length[at] = length
    if (group !== 0) this.#group[at] = group
    this.#batch[at] = this.#batches.count - 1
    this.#rawOffsetBytes[at] = rawOffsetBytes
  }

  #bucketOf(volume: number, region: number): number {
    if (volume !== this.#lastVolume) {
      this.#lastVolume = volume
      this.#lastBuckets = this.#bucketsOfVolume.get(volume) ?? []
      this.#bucketsOfVolume.set(volume, this.#lastBuckets)
    }
    const known = this.#lastBuckets[region]
    if (known !== undefined) return known
    return (this.#lastBuckets[region] = this.#bucketPlaces.push({ volume, region, count: 0 }) - 1)
  }

  #grow(): void {
    const capacity = 2 * this.#count
    const grown16 = (from: Uint16Array): Uint16Array<ArrayBuffer> => {
      const to = new Uint16Array(capacity)
      to.set(from)
      return to
    }
    this.#start = grownUint32(this.#start, capacity)
    this.#length = grown16(this.#length)
    this.#group = grown16(this.#group)
    this.#batch = grownUint32(this.#batch, capacity)
    this.#rawOffsetBytes = grownUint32(this.#rawOffsetBytes, capacity)
    this.#bucket = grownUint32(this.#bucket, capacity)
  }

  finish(): WriteIndex {
    const places = this.#bucketPlaces
    const sorted = [...places.keys()].sort(
      (a, b) => places[a]!.volume - places[b]!.volume || places[a]!.region - places[b]!.region,
    )
    const next = new Uint32Array(places.length)
    const buckets: Bucket[] = []
    let sum = 0
    for (const index of sorted) {
      const { volume, region, count } = places[index]!
      next[index] = sum
      buckets.push({ volume, region, first: sum, end: sum + count })
      sum += count
    }
    const order = new Uint32Array(this.#count)
    const firstPiece = this.#firstPiece.values()
    for (const batch of this.#batches.byAge()) {
      const end = firstPiece[batch + 1] ?? this.#count
      for (let piece = firstPiece[batch]!; piece < end; piece++) order[next[this.#bucket[piece]!]!++] = piece
    }
    return {
      count: this.#count,
      start: this.#start,
      length: this.#length,
      group: this.#group,
      batch: this.#batch,
      rawOffsetBytes: this.#rawOffsetBytes,
      batchSource: this.#batches.source,
      batchNumber: this.#batches.number,
      order,
      buckets,
    }
  }
}

/**
 * Reads the columns of every source, in the order given, and indexes the writes that belong to one of the cuts; batches in holes are passed
 * over. A piece's group is the index of its cut.
 */
export async function indexWrites(
  sources: readonly RecordSource[],
  cuts: Cuts,
  options: { readonly holes: readonly Hole[]; readonly regionSizeBytes: number },
  pace: Pace,
  signal: AbortSignal,
): Promise<WriteIndex> {
  const finder = new CutFinder(cuts)
  const columns: Awaited<ReturnType<RecordSource['columns']>>[] = []
  for (const source of sources) {
    columns.push(await source.columns(signal)) // which keeps them
    await pace.step()
  }
  const writeCount = columns.reduce((sum, { writes }) => sum + writes.count, 0)
  const builder = new WriteIndexBuilder(options.regionSizeBytes, writeCount)
  for (const [sourceIndex, source] of sources.entries()) {
    const { writes, batches } = columns[sourceIndex]!
    for (let batch = 0; batch < batches.count; batch++) {
      const group = cutOfBatch(source, batches, batch, finder)
      if (group === undefined || inHole(batches, batch, options.holes)) continue
      builder.beginBatch(sourceIndex, batch, batches)
      const end = batches.firstWrite[batch]! + batches.writeCount[batch]!
      let dataSectors = 0
      for (let write = batches.firstWrite[batch]!; write < end; write++) {
        builder.add(writes, write, dataSectors * sectorSizeBytes, group)
        dataSectors += dataSectorsOf(writes, write)
      }
      if (batch % batchesBetweenLooks === 0 && pace.due) await pace.step()
    }
    await pace.step()
  }
  return builder.finish()
}
