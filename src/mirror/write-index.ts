import { comparePositions, type Position, type PositionVector } from '../base/ids.ts'
import { Failure } from '../base/failure.ts'
import { extentAlignmentBytes } from '../base/limits.ts'
import { sectorSizeBytes } from '../base/units.ts'
import type { BatchColumns, RecordSource, WriteColumns } from '../segment/record-source.ts'
import type { Hole } from '../timeline/state.ts'
import type { Pace } from './pace.ts'
import { Float64Column, grownUint32, Uint32Column } from './columns.ts'

// The writes of many sources, as columns: a row per piece of a write, 20 bytes; a piece lies in one region, and one with data in one
// 512 KiB unit. A bucket is a region of a volume; pieces are put into buckets by one counting pass, oldest first in each.

/** The clock is looked at once in so many batches. */
const batchesBetweenLooks = 64

/** Stands for the raw offset of zeros. */
export const noData = 0xffff_ffff

/** Which cuts the records are sorted into. */
export interface Cuts {
  /** Records at or before it are passed over. */
  readonly from: PositionVector
  /** Ascending. A record belongs to the first that covers it, by its index; records beyond the last are passed over. */
  readonly vectors: readonly PositionVector[]
}

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

/** Finds the cut to which a record belongs. */
class CutFinder {
  readonly #cuts: Cuts
  readonly #streams = new Map<number, readonly Position[]>()
  /** The answer for a range of sequences: most records belong to the cut of the one before. */
  #last:
    | {
        readonly stream: number
        readonly generation: number
        readonly afterSequence: number
        readonly throughSequence: number
        readonly cut: number | undefined
      }
    | undefined

  constructor(cuts: Cuts) {
    this.#cuts = cuts
  }

  /** The stream's positions: the start, then one a cut. A stream that a cut does not name has not moved since the one before. */
  #positionsOf(stream: number): readonly Position[] {
    const known = this.#streams.get(stream)
    if (known !== undefined) return known
    const positions: Position[] = []
    for (const vector of [this.#cuts.from, ...this.#cuts.vectors]) {
      const own = vector.find(entry => entry.stream === stream)
      positions.push(own ?? positions.at(-1) ?? ({ generation: 0, sequence: 0 } as Position))
    }
    this.#streams.set(stream, positions)
    return positions
  }

  /** The index of the first cut that covers the position; -1 before the start, undefined beyond the last. */
  find(stream: number, generation: number, sequence: number): number | undefined {
    const last = this.#last
    const asLast =
      last !== undefined &&
      last.stream === stream &&
      last.generation === generation &&
      last.afterSequence < sequence &&
      sequence <= last.throughSequence
    if (asLast) return last.cut
    const positions = this.#positionsOf(stream)
    const position = { generation, sequence } as Position
    let low = 0
    let high = positions.length
    while (low < high) {
      const middle = Math.floor((low + high) / 2)
      if (comparePositions(positions[middle]!, position) < 0) low = middle + 1
      else high = middle
    }
    const cut = low === positions.length ? undefined : low - 1
    const [before, at] = [positions[low - 1], positions[low]]
    this.#last = {
      stream,
      generation,
      cut,
      afterSequence: before?.generation === generation ? before.sequence : -1,
      throughSequence: at === undefined || at.generation > generation ? Infinity : at.sequence,
    }
    return cut
  }
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
  readonly #batches = {
    source: new Uint32Column(),
    number: new Uint32Column(),
    firstPiece: new Uint32Column(),
    stream: new Uint32Column(),
    generation: new Float64Column(),
    sequence: new Float64Column(),
  }

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
    this.#batches.source.push(source)
    this.#batches.number.push(number)
    this.#batches.firstPiece.push(this.#count)
    this.#batches.stream.push(batches.stream[number]!)
    this.#batches.generation.push(batches.generation[number]!)
    this.#batches.sequence.push(batches.firstSequence[number]!)
  }

  add(writes: WriteColumns, write: number, group: number): void {
    const zero = writes.zero[write] === 1
    let sector = writes.offsetSectors[write]!
    let rest = writes.lengthSectors[write]!
    let rawOffsetBytes = zero ? noData : writes.rawOffsetBytes[write]!
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
    if (group !== 0) this.#group[at] = group // an image has one group: its column is never touched
    this.#batch[at] = this.#batches.source.count - 1
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
    const firstPiece = this.#batches.firstPiece.values()
    for (const batch of this.#batchesByAge()) {
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
      batchSource: this.#batches.source.values(),
      batchNumber: this.#batches.number.values(),
      order,
      buckets,
    }
  }

  /**
   * Batches in order of age. They come in commit order, which is that of every stream; should a record stand twice, or late, its
   * position decides: a stream's batches take the stream's places in ascending order.
   */
  #batchesByAge(): Uint32Array {
    const stream = this.#batches.stream.values()
    const generation = this.#batches.generation.values()
    const sequence = this.#batches.sequence.values()
    const compare = (a: number, b: number): number => generation[a]! - generation[b]! || sequence[a]! - sequence[b]!
    const order = new Uint32Array(stream.length)
    const newest = new Map<number, number>()
    let ascending = true
    for (let batch = 0; batch < stream.length; batch++) {
      order[batch] = batch
      const before = newest.get(stream[batch]!)
      ascending &&= before === undefined || compare(before, batch) <= 0
      newest.set(stream[batch]!, batch)
    }
    if (ascending) return order
    for (const one of newest.keys()) {
      const places = order.filter(batch => stream[batch] === one)
      const byPosition = places.slice().sort((a, b) => compare(a, b) || a - b)
      places.forEach((place, index) => (order[place] = byPosition[index]!))
    }
    return order
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
      const group = groupOf(source, batches, batch, finder)
      if (group === undefined || inHole(batches, batch, options.holes)) continue
      builder.beginBatch(sourceIndex, batch, batches)
      const end = batches.firstWrite[batch]! + batches.writeCount[batch]!
      for (let write = batches.firstWrite[batch]!; write < end; write++) builder.add(writes, write, group)
      if (batch % batchesBetweenLooks === 0 && pace.due) await pace.step()
    }
    await pace.step()
  }
  return builder.finish()
}

/** The cut that the batch belongs to, or undefined. A marker is never inside a batch, so a batch belongs to one cut. */
function groupOf(source: RecordSource, batches: BatchColumns, batch: number, finder: CutFinder): number | undefined {
  if (batches.writeCount[batch] === 0) return undefined
  const stream = batches.stream[batch]!
  const generation = batches.generation[batch]!
  const firstSequence = batches.firstSequence[batch]!
  const first = finder.find(stream, generation, firstSequence)
  const last = finder.find(stream, generation, firstSequence + batches.writeCount[batch]! - 1)
  if (first !== last)
    throw new Failure('RECORD_CORRUPT', `a batch of ${source.name} lies on both sides of a checkpoint's marker`, {
      source: source.name,
      stream,
      generation,
      firstSequence,
    })
  return first === -1 ? undefined : first
}
