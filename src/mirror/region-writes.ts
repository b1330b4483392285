import { Permits } from '../base/permits.ts'
import { sectorSizeBytes } from '../base/units.ts'
import {
  dataSectorsOf,
  isZeroWrite,
  lengthSectorsOf,
  offsetSectorsOf,
  type RecordSource,
  type WriteColumns,
} from '../segment/record-source.ts'
import { BatchList, cutOfBatch } from './batch-list.ts'
import { Uint32Column } from './columns.ts'
import { CutFinder, type Cuts } from './cut-finder.ts'
import type { Pace } from './pace.ts'
import { settleAll } from './settle.ts'
import { noData, type Bucket } from './write-index.ts'

// What an image has of the writes that no delta holds: how many touch each region of each volume. Everything else of a write stays in the columns of its
// source, 9 bytes, and is looked up when its region is wanted. With millions of writes it is new memory that opening an image takes its time for,
// so none is filled with what no read may ask for: the writes of a region are found by passing over all of them, some nanoseconds each, and only who wants
// many regions has all writes sorted, once, into 4 bytes each.

/** Sources whose columns are on their way at once. */
const sourcesAtOnce = 8
/** The clock is looked at once in so many batches. */
const batchesBetweenLooks = 64
/** So many regions are searched for before all writes are sorted, which takes as long as some ten searches. */
const searchCountMax = 8

/** Takes a piece of a write that lies in one region: sectors from the region's start; where its data begins in its batch's raw payload, noData for zeros. */
export type TakePiece = (start: number, length: number, batch: number, rawOffsetBytes: number) => void

/** Where each batch is to be read: the source's index, and the batch's number in it. */
export interface BatchPlaces {
  readonly batchSource: Uint32Array
  readonly batchNumber: Uint32Array
}

/** Writes of one source, which are numbered from `firstNumber` on. */
interface SourceWrites {
  readonly writes: WriteColumns
  readonly firstNumber: number
}

/** The batches that count, of all sources, numbered from 0; their writes are numbered over all sources. */
interface GatheredBatches extends BatchPlaces {
  readonly sources: readonly SourceWrites[]
  /** By batch, ascending; half-open. */
  readonly firstWrite: Uint32Array
  readonly endWrite: Uint32Array
  /** Oldest first. */
  readonly byAge: Uint32Array
  /** Of all their data, live or not. */
  readonly dataSizeBytes: number
}

/** See above. */
export class RegionWrites implements BatchPlaces {
  /** Ascending by volume and region. */
  readonly buckets: readonly Bucket[]
  readonly #batches: GatheredBatches
  readonly #regions: RegionTable
  #searchCount = 0
  /** By bucket, from when it is worth it. */
  #sorted: Uint32Array | undefined

  constructor(batches: GatheredBatches, regions: RegionTable) {
    this.buckets = regions.buckets()
    this.#batches = batches
    this.#regions = regions
  }

  get batchSource(): Uint32Array {
    return this.#batches.batchSource
  }

  get batchNumber(): Uint32Array {
    return this.#batches.batchNumber
  }

  /** Of all data that was written, live or not. */
  get dataSizeBytes(): number {
    return this.#batches.dataSizeBytes
  }

  /** For who wants every bucket. */
  async sort(pace: Pace): Promise<void> {
    if (this.#sorted !== undefined) return
    const next = Uint32Array.from(this.#regions.firstPlaces(this.buckets))
    const sorted = new Uint32Array(this.buckets.at(-1)?.end ?? 0)
    await this.#eachBatch(pace, (writes, base, first, end) => {
      for (let write = first; write < end; write++)
        this.#regions.each(writes, write, bucket => (sorted[next[bucket]!++] = base + write))
    })
    this.#sorted = sorted
  }

  /** Gives the bucket's pieces, oldest first. */
  async eachPiece(bucket: Bucket, pace: Pace, take: TakePiece): Promise<void> {
    if (this.#sorted === undefined && this.#searchCount++ >= searchCountMax) await this.sort(pace)
    const numbers = this.#sorted?.subarray(bucket.first, bucket.end) ?? (await this.#search(bucket, pace))
    this.#takePieces(bucket.region, numbers, take)
  }

  /** The numbers of the bucket's writes. */
  async #search({ volume, region, first, end }: Bucket, pace: Pace): Promise<Uint32Array> {
    const numbers = new Uint32Array(end - first)
    const { startSector, endSector } = this.#regions.bounds(region)
    let count = 0
    await this.#eachBatch(pace, (writes, base, firstWrite, endWrite) => {
      for (let write = firstWrite; write < endWrite; write++) {
        const sector = offsetSectorsOf(writes, write)
        if (sector >= endSector || sector + lengthSectorsOf(writes, write) <= startSector) continue
        if (writes.volume[write] === volume) numbers[count++] = base + write
      }
    })
    return numbers
  }

  /** Oldest first; `base` is the number of the first of the columns, and the range is of rows. */
  async #eachBatch(
    pace: Pace,
    take: (writes: WriteColumns, base: number, first: number, end: number) => void,
  ): Promise<void> {
    const { byAge, batchSource, sources, firstWrite, endWrite } = this.#batches
    for (const [index, batch] of byAge.entries()) {
      const { writes, firstNumber } = sources[batchSource[batch]!]!
      take(writes, firstNumber, firstWrite[batch]! - firstNumber, endWrite[batch]! - firstNumber)
      if (index % batchesBetweenLooks === 0 && pace.due) await pace.step()
    }
  }

  #takePieces(region: number, numbers: Uint32Array, take: TakePiece): void {
    const { batchSource, sources, firstWrite, endWrite } = this.#batches
    const { startSector, endSector } = this.#regions.bounds(region)
    let batch = -1
    let counted = 0 // the number of the write up to which the batch's data was counted
    let dataSectors = 0
    for (const number of numbers) {
      if (batch < 0 || number < counted || number >= endWrite[batch]!) {
        batch = this.#batchOf(number, batch + 1)
        counted = firstWrite[batch]!
        dataSectors = 0
      }
      const { writes, firstNumber } = sources[batchSource[batch]!]!
      for (; counted < number; counted++) dataSectors += dataSectorsOf(writes, counted - firstNumber)
      const write = number - firstNumber
      const sector = offsetSectorsOf(writes, write)
      const start = Math.max(sector, startSector)
      const length = Math.min(sector + lengthSectorsOf(writes, write), endSector) - start
      const rawSectors = dataSectors + start - sector
      take(start - startSector, length, batch, isZeroWrite(writes, write) ? noData : rawSectors * sectorSizeBytes)
    }
  }

  /** The batch that the write is in: most often the next one. */
  #batchOf(number: number, guess: number): number {
    const { firstWrite, endWrite } = this.#batches
    if (guess < firstWrite.length && firstWrite[guess]! <= number && number < endWrite[guess]!) return guess
    let low = 0
    let high = firstWrite.length
    while (low < high) {
      const middle = Math.floor((low + high) / 2)
      if (firstWrite[middle]! <= number) low = middle + 1
      else high = middle
    }
    return low - 1
  }
}

/** Which regions of which volumes the writes touch, and how many each. */
class RegionTable {
  readonly #regionSectors: number
  /** By volume, then region; volumes have few regions, at most 2^19. */
  readonly #bucketsOfVolume = new Map<number, number[]>()
  #lastVolume = -1
  #lastBuckets: number[] = []
  readonly #places: { readonly volume: number; readonly region: number }[] = []
  readonly #counts: number[] = []

  constructor(regionSizeBytes: number) {
    this.#regionSectors = regionSizeBytes / sectorSizeBytes
  }

  bounds(region: number): { readonly startSector: number; readonly endSector: number } {
    return { startSector: region * this.#regionSectors, endSector: (region + 1) * this.#regionSectors }
  }

  count(writes: WriteColumns, firstWrite: number, endWrite: number): void {
    for (let write = firstWrite; write < endWrite; write++) this.each(writes, write, bucket => this.#counts[bucket]!++)
  }

  /** Gives the number, here, of every bucket that the write touches. */
  each(writes: WriteColumns, write: number, take: (bucket: number) => void): void {
    const sector = offsetSectorsOf(writes, write)
    const last = Math.floor((sector + lengthSectorsOf(writes, write) - 1) / this.#regionSectors)
    for (let region = Math.floor(sector / this.#regionSectors); region <= last; region++)
      take(this.#bucketOf(writes.volume[write]!, region))
  }

  /** Ascending by volume and region, one behind the other. */
  buckets(): readonly Bucket[] {
    let end = 0
    return this.#sorted().map(bucket => {
      const first = end
      end += this.#counts[bucket]!
      return { ...this.#places[bucket]!, first, end }
    })
  }

  /** Where each bucket, by its number here, begins. */
  firstPlaces(buckets: readonly Bucket[]): number[] {
    const places: number[] = []
    for (const [index, bucket] of this.#sorted().entries()) places[bucket] = buckets[index]!.first
    return places
  }

  #sorted(): number[] {
    const places = this.#places
    return [...places.keys()].sort(
      (a, b) => places[a]!.volume - places[b]!.volume || places[a]!.region - places[b]!.region,
    )
  }

  #bucketOf(volume: number, region: number): number {
    if (volume !== this.#lastVolume) {
      this.#lastVolume = volume
      this.#lastBuckets = this.#bucketsOfVolume.get(volume) ?? []
      this.#bucketsOfVolume.set(volume, this.#lastBuckets)
    }
    const known = this.#lastBuckets[region]
    if (known !== undefined) return known
    this.#counts.push(0)
    return (this.#lastBuckets[region] = this.#places.push({ volume, region }) - 1)
  }
}

/** Reads the columns of every source, in commit order, and looks which regions the writes touch that lie behind `from` and are covered by `to`. */
export async function gatherRegionWrites(
  sources: readonly RecordSource[],
  { from, to }: { readonly from: Cuts['from']; readonly to: Cuts['from'] },
  regionSizeBytes: number,
  pace: Pace,
  signal: AbortSignal,
): Promise<RegionWrites> {
  const finder = new CutFinder({ from, vectors: [to] })
  const permits = new Permits(sourcesAtOnce)
  const columns = await settleAll(sources.map(source => permits.with(() => source.columns(signal)))) // which keeps them
  const regions = new RegionTable(regionSizeBytes)
  const list = new BatchList()
  const [firstWrite, endWrite] = [new Uint32Column(), new Uint32Column()]
  const numbered: SourceWrites[] = []
  let firstNumber = 0
  let dataSizeBytes = 0
  for (const [source, { writes, batches }] of columns.entries()) {
    numbered.push({ writes, firstNumber })
    for (let batch = 0; batch < batches.count; batch++) {
      if (cutOfBatch(sources[source]!, batches, batch, finder) === undefined) continue
      const first = batches.firstWrite[batch]!
      const end = first + batches.writeCount[batch]!
      list.add(source, batch, batches)
      firstWrite.push(firstNumber + first)
      endWrite.push(firstNumber + end)
      dataSizeBytes += batches.rawSizeBytes[batch]!
      regions.count(writes, first, end)
      if (batch % batchesBetweenLooks === 0 && pace.due) await pace.step()
    }
    firstNumber += writes.count
    await pace.step()
  }
  const gathered = {
    ...{ batchSource: list.source, batchNumber: list.number, byAge: list.byAge() },
    ...{ sources: numbered, firstWrite: firstWrite.values(), endWrite: endWrite.values(), dataSizeBytes },
  }
  return new RegionWrites(gathered, regions)
}
