import { Failure } from '../base/failure.ts'
import { blockRawSizeBytesMax } from '../base/limits.ts'
import { KiB, MiB, sectorSizeBytes } from '../base/units.ts'
import { crc32c } from '../codec/crc32c.ts'
import { decompressBlock } from '../codec/lz4.ts'
import type { ObjectStore } from '../store/object-store.ts'
import type { ObjectRef } from '../timeline/state.ts'
import {
  blockEntrySizeBytes,
  blockOf,
  corruptPack,
  decodeOrdinal,
  decodeTrailer,
  extentEntrySizeBytes,
  fenceEntrySizeBytes,
  isZeroExtent,
  ordinalEntrySizeBytes,
  ordinalIndexOf,
  packHeaderSizeBytes,
  packTrailerSizeBytes,
  rawOffsetSectorsOf,
  sectorsOf,
  startSectorOf,
  tailSizeBytes,
  viewOf,
  type PackTrailer,
} from './pack-format.ts'

/** Read with the trailer at once: most packs' fence and ordinals lie within. */
const tailSizeBytesGuess = 16 * KiB
/** Blocks are read in ranges of at most this size, and a gap of unwanted bytes up to that one is read along. */
const rangeSizeBytesMax = 4 * MiB
const gapSizeBytesMax = 64 * KiB

/** A region that a pack touches. */
export interface FenceEntry {
  readonly region: number
  readonly sectionOffsetBytes: number
  readonly extentCount: number
  readonly firstBlock: number
  readonly blockCount: number
  readonly rawSizeBytes: number
  readonly sectionCrc32c: number
}

/** Where a region's blocks stand; columns, counted from the region's first block. */
export interface BlockTable {
  readonly firstBlock: number
  readonly count: number
  readonly offsetBytes: Uint32Array
  readonly storedSizeBytes: Uint32Array
  readonly rawSizeBytes: Uint32Array
  readonly crc32c: Uint32Array
}

/** The extents of one region as columns; starts are sectors from the region's start. */
export interface RegionExtents {
  readonly count: number
  readonly start: Uint32Array
  readonly length: Uint32Array
  /** 1: zeros. */
  readonly zero: Uint8Array
  /** Into the pack's ordinals. */
  readonly ordinalIndex: Uint16Array
  /** From the region's first block; of zeros 0. */
  readonly block: Uint32Array
  readonly rawOffsetBytes: Uint32Array
  readonly blocks: BlockTable
}

/** Reads one pack by ranges. Whatever it returns has passed its checksum; what has not fails OBJECT_CORRUPT by name and place. */
export class PackReader {
  readonly object: ObjectRef
  readonly trailer: PackTrailer
  readonly ordinals: Float64Array
  readonly fence: readonly FenceEntry[]
  /** The trailer's bytes, for whoever compares the header. */
  readonly trailerBytes: Uint8Array
  readonly #store: ObjectStore

  private constructor(store: ObjectStore, object: ObjectRef, tail: Uint8Array, trailer: PackTrailer) {
    this.#store = store
    this.object = object
    this.trailer = trailer
    this.trailerBytes = tail.subarray(tail.length - packTrailerSizeBytes)
    const fenceAt = ordinalEntrySizeBytes * trailer.ordinalCount
    this.ordinals = new Float64Array(trailer.ordinalCount).map((_, index) =>
      decodeOrdinal(tail, ordinalEntrySizeBytes * index),
    )
    this.fence = decodeFence(tail.subarray(fenceAt, fenceAt + fenceEntrySizeBytes * trailer.regionCount))
  }

  /** Reads trailer, fence and ordinals: usually one request. */
  static async open(store: ObjectStore, object: ObjectRef, signal: AbortSignal): Promise<PackReader> {
    if (object.sizeBytes < packHeaderSizeBytes + packTrailerSizeBytes)
      throw corruptPack(object.key, 0, 'it is too short for a pack')
    const read = (sizeBytes: number): Promise<Uint8Array> =>
      readExactly(store, object.key, object.sizeBytes - sizeBytes, object.sizeBytes, signal)
    let tail = await read(Math.min(tailSizeBytesGuess, object.sizeBytes))
    const trailer = decodeTrailer(tail.subarray(tail.length - packTrailerSizeBytes), object)
    const sizeBytes = tailSizeBytes(trailer)
    if (sizeBytes > tail.length) tail = await read(sizeBytes)
    tail = Uint8Array.from(tail.subarray(tail.length - sizeBytes))
    if (crc32c(tail.subarray(0, sizeBytes - packTrailerSizeBytes)) !== trailer.tailCrc32c)
      throw corruptPack(object.key, object.sizeBytes - sizeBytes, 'the fence fails its checksum')
    return new PackReader(store, object, tail, trailer)
  }

  /** The region's entry in the fence, or undefined when the pack does not touch it. */
  entryOf(region: number): FenceEntry | undefined {
    let low = 0
    let high = this.fence.length
    while (low < high) {
      const middle = Math.floor((low + high) / 2)
      if (this.fence[middle]!.region < region) low = middle + 1
      else high = middle
    }
    const entry = this.fence[low]
    return entry?.region === region ? entry : undefined
  }

  /** The region's extents and block table: one request. Undefined when the pack does not touch the region. */
  async readRegion(region: number, signal: AbortSignal): Promise<RegionExtents | undefined> {
    const entry = this.entryOf(region)
    if (entry === undefined) return undefined
    const sizeBytes = entry.extentCount * extentEntrySizeBytes + entry.blockCount * blockEntrySizeBytes
    const end = entry.sectionOffsetBytes + sizeBytes
    const section = await readExactly(this.#store, this.object.key, entry.sectionOffsetBytes, end, signal)
    if (crc32c(section) !== entry.sectionCrc32c)
      throw corruptPack(this.object.key, entry.sectionOffsetBytes, `the index of region ${region} fails its checksum`)
    return this.#decodeSection(section, entry)
  }

  #decodeSection(section: Uint8Array, entry: FenceEntry): RegionExtents {
    const blocks = this.#decodeBlocks(section.subarray(entry.extentCount * extentEntrySizeBytes), entry)
    const regionSectors = this.trailer.identity.regionSizeBytes / sectorSizeBytes
    const view = viewOf(section)
    const { extentCount: count } = entry
    const extents = {
      count,
      start: new Uint32Array(count),
      length: new Uint32Array(count),
      zero: new Uint8Array(count),
      ordinalIndex: new Uint16Array(count),
      block: new Uint32Array(count),
      rawOffsetBytes: new Uint32Array(count),
      blocks,
    }
    for (let index = 0, at = 0; index < count; index++, at += extentEntrySizeBytes) {
      const start = startSectorOf(view, at)
      const zero = isZeroExtent(view, at)
      const length = sectorsOf(view, at)
      const block = zero ? 0 : blockOf(view, at)
      const rawOffsetBytes = rawOffsetSectorsOf(view, at) * sectorSizeBytes
      const ordinalIndex = ordinalIndexOf(view, at)
      const within =
        start + length <= regionSectors &&
        ordinalIndex < this.ordinals.length &&
        (zero
          ? length > 0 && rawOffsetBytes === 0
          : block < blocks.count && rawOffsetBytes + length * sectorSizeBytes <= blocks.rawSizeBytes[block]!)
      if (!within)
        throw corruptPack(this.object.key, entry.sectionOffsetBytes + at, 'an extent lies outside its region or block')
      extents.start[index] = start
      extents.length[index] = length
      extents.zero[index] = zero ? 1 : 0
      extents.ordinalIndex[index] = ordinalIndex
      extents.block[index] = block
      extents.rawOffsetBytes[index] = rawOffsetBytes
    }
    return extents
  }

  #decodeBlocks(table: Uint8Array, entry: FenceEntry): BlockTable {
    const { blockCount: count, firstBlock } = entry
    const view = viewOf(table)
    const column = (): Uint32Array => new Uint32Array(count)
    const blocks = { firstBlock, count, offsetBytes: column(), storedSizeBytes: column(), rawSizeBytes: column() }
    const crcs = column()
    for (let index = 0, at = 0; index < count; index++, at += blockEntrySizeBytes) {
      blocks.offsetBytes[index] = view.getUint32(at, true)
      blocks.storedSizeBytes[index] = view.getUint32(at + 4, true)
      blocks.rawSizeBytes[index] = view.getUint32(at + 8, true)
      crcs[index] = view.getUint32(at + 12, true)
      const end = blocks.offsetBytes[index]! + blocks.storedSizeBytes[index]!
      const within =
        blocks.offsetBytes[index]! >= packHeaderSizeBytes &&
        end <= this.trailer.indexOffsetBytes &&
        blocks.storedSizeBytes[index]! <= blocks.rawSizeBytes[index]! &&
        blocks.rawSizeBytes[index]! <= blockRawSizeBytesMax
      if (!within)
        throw corruptPack(
          this.object.key,
          entry.sectionOffsetBytes,
          `block ${firstBlock + index} lies outside the pack`,
        )
    }
    return { ...blocks, crc32c: crcs }
  }

  /**
   * Reads the wanted blocks, ascending and counted from the region's first, in few large ranges, and gives each, uncompressed, to
   * `take`; the bytes are valid until it returns.
   */
  async readBlocks(
    table: BlockTable,
    wanted: readonly number[] | Uint32Array,
    take: (block: number, raw: Uint8Array) => void | Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    const raw = new Uint8Array(blockRawSizeBytesMax)
    let spare = new Uint8Array(0)
    for (let first = 0; first < wanted.length;) {
      const start = table.offsetBytes[wanted[first]!]!
      let end = start + table.storedSizeBytes[wanted[first]!]!
      let after = first + 1
      for (; after < wanted.length; after++) {
        const nextStart = table.offsetBytes[wanted[after]!]!
        const nextEnd = nextStart + table.storedSizeBytes[wanted[after]!]!
        if (nextStart - end > gapSizeBytesMax || nextEnd - start > rangeSizeBytesMax) break
        end = nextEnd
      }
      if (spare.length < end - start) spare = new Uint8Array(end - start)
      const range = await readExactly(this.#store, this.object.key, start, end, signal, spare)
      for (; first < after; first++) {
        const block = wanted[first]!
        const at = table.offsetBytes[block]! - start
        const stored = range.subarray(at, at + table.storedSizeBytes[block]!)
        await take(block, this.#decodeBlock(table, block, stored, raw))
      }
    }
  }

  #decodeBlock(table: BlockTable, block: number, stored: Uint8Array, target: Uint8Array): Uint8Array {
    const offsetBytes = table.offsetBytes[block]!
    if (crc32c(stored) !== table.crc32c[block])
      throw corruptPack(this.object.key, offsetBytes, `block ${table.firstBlock + block} fails its checksum`)
    const rawSizeBytes = table.rawSizeBytes[block]!
    if (rawSizeBytes === stored.length) return stored
    const raw = target.subarray(0, rawSizeBytes)
    if (!decompressBlock(stored, raw))
      throw corruptPack(this.object.key, offsetBytes, `block ${table.firstBlock + block} does not decompress`)
    return raw
  }
}

function decodeFence(bytes: Uint8Array): FenceEntry[] {
  const view = viewOf(bytes)
  const fence: FenceEntry[] = []
  for (let at = 0; at < bytes.length; at += fenceEntrySizeBytes) {
    fence.push({
      region: view.getUint32(at, true),
      sectionOffsetBytes: view.getUint32(at + 4, true),
      extentCount: view.getUint32(at + 8, true),
      firstBlock: view.getUint32(at + 12, true),
      blockCount: view.getUint32(at + 16, true),
      rawSizeBytes: view.getUint32(at + 20, true),
      sectionCrc32c: view.getUint32(at + 24, true),
    })
  }
  return fence
}

/** The range, whole. A manifest said that the object is there: one that is not is damage. */
export async function readExactly(
  store: ObjectStore,
  key: string,
  startBytes: number,
  endBytes: number,
  signal: AbortSignal,
  spare?: Uint8Array,
): Promise<Uint8Array> {
  if (endBytes === startBytes) return new Uint8Array(0)
  try {
    return await store.readRange(key, { startBytes, endBytes }, signal, spare)
  } catch (error) {
    if (!(error instanceof Failure) || error.code !== 'NOT_FOUND') throw error
    throw new Failure('OBJECT_CORRUPT', `the object ${key} is missing from the store`, { key }, { cause: error })
  }
}
