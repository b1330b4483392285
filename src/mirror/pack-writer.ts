import { assert } from '../base/assert.ts'
import { blockRawSizeBytesMax } from '../base/limits.ts'
import { KiB, sectorSizeBytes } from '../base/units.ts'
import { crc32c } from '../codec/crc32c.ts'
import { compressBlock, compressedSizeBytesMax } from '../codec/lz4.ts'
import { regionSizes } from '../timeline/region-sizes.ts'
import type { PackRef } from '../timeline/state.ts'
import {
  blockEntrySizeBytes,
  encodeExtent,
  encodeHeader,
  encodeOrdinal,
  encodeTrailer,
  extentEntrySizeBytes,
  fenceEntrySizeBytes,
  ordinalEntrySizeBytes,
  ordinalIndexOf,
  packHeaderSizeBytes,
  setOrdinalIndex,
  startSectorOf,
  tailSizeBytes,
  viewOf,
  type ExtentEntry,
  type PackIdentity,
} from './pack-format.ts'
import { GrowingBuffer } from './workspace.ts'

const blockSectors = blockRawSizeBytesMax / sectorSizeBytes
/** Compression that saves less than this share of a block is not worth undoing at every read. */
const savedShareMin = 1 / 16
/** Behind a block that did not compress, a sample of the next must do so first: as many slices, spread over it. */
const sampleSliceCount = 8
const sampleSliceSizeBytes = 1 * KiB

interface Region {
  readonly region: number
  readonly firstExtent: number
  readonly firstBlock: number
  rawSizeBytes: number
}

/** The extent that may still grow, when what comes next adjoins it. */
interface LastExtent {
  readonly at: number
  /** In the volume. */
  readonly startSector: number
  readonly ordinal: number
  readonly entry: Omit<ExtentEntry, 'sectors'> & { sectors: number }
}

/**
 * Builds packs, one after the other, in one buffer. Extents come sorted by place, then ordinal; small ones share blocks, adjoining ones become
 * one extent.
 */
export class PackWriter {
  readonly #pack: GrowingBuffer
  readonly #extents = new GrowingBuffer()
  readonly #blocks = new GrowingBuffer()
  readonly #sample = new Uint8Array(sampleSliceCount * sampleSliceSizeBytes)
  readonly #packed = new Uint8Array(compressedSizeBytesMax(blockRawSizeBytesMax))
  #identity: PackIdentity | undefined
  #sizeBytes = 0
  #extentCount = 0
  #blockCount = 0
  #rawCount = 0
  #rawSizeBytes = 0
  #startSector = 0
  #endSector = 0
  #regions: Region[] = []
  #ordinals: number[] = []
  #ordinalIndexes = new Map<number, number>()
  #last: LastExtent | undefined
  #compresses = true
  #newestSector = 0
  #newestOrdinalIndex = 0
  /** An extent of the region under construction begins before the one added before it. */
  #disordered = false
  /** The bytes to write to; as large as what is reserved, and fetched again when that has grown. */
  #bytes: Uint8Array = new Uint8Array(0)
  #extentsView: DataView = new DataView(new ArrayBuffer(0))

  constructor(pack: GrowingBuffer) {
    this.#pack = pack
  }

  /**
   * Starts a pack; `ordinals` are those that its extents may have, ascending: the pack names those that they have. What was begun and not finished is forgotten. The hints
   * say how much memory is taken at once; more is taken when more comes.
   */
  begin(
    identity: PackIdentity,
    ordinals: Iterable<number>,
    hints: { readonly rawSizeBytes: number; readonly extentCount: number },
  ): void {
    this.#identity = identity
    this.#extentCount = this.#blockCount = this.#rawCount = this.#rawSizeBytes = this.#endSector = 0
    this.#regions = []
    this.#ordinals = [...ordinals]
    this.#ordinalIndexes = new Map(this.#ordinals.map((ordinal, index) => [ordinal, index]))
    this.#last = undefined
    this.#disordered = false
    this.#newestSector = this.#newestOrdinalIndex = 0
    const blockCountMax = Math.min(hints.extentCount, (2 * hints.rawSizeBytes) / blockRawSizeBytesMax)
    const indexSizeBytes = extentEntrySizeBytes * hints.extentCount + blockEntrySizeBytes * blockCountMax
    const tailBytesMax = blockRawSizeBytesMax + ordinalEntrySizeBytes * this.#ordinals.length
    this.#bytes = this.#pack.reserve(
      packHeaderSizeBytes + hints.rawSizeBytes + Math.ceil(indexSizeBytes) + tailBytesMax,
    )
    this.#sizeBytes = packHeaderSizeBytes
  }

  get extentCount(): number {
    return this.#extentCount
  }

  /** Adds data at the sector, in as many extents as it needs. It lies in one region. */
  add(startSector: number, ordinal: number, data: Uint8Array): void {
    for (let from = 0; from < data.length;) {
      const sector = startSector + from / sectorSizeBytes
      const sectors = Math.min((data.length - from) / sectorSizeBytes, blockSectors - (sector % blockSectors))
      this.#addExtent(sector, ordinal, data.subarray(from, from + sectors * sectorSizeBytes))
      from += sectors * sectorSizeBytes
    }
  }

  /** Adds zeros; they lie in one region. */
  addZeros(startSector: number, ordinal: number, sectors: number): void {
    this.#enter(startSector)
    this.#endSector = Math.max(this.#endSector, startSector + sectors)
    if (this.#adjoins(startSector, ordinal, true)) this.#extendLast(sectors)
    else this.#addEntry(startSector, ordinal, { sectors, zero: true, block: 0, rawOffsetSectors: 0 })
  }

  #adjoins(startSector: number, ordinal: number, zero: boolean): boolean {
    const last = this.#last
    if (last === undefined || last.entry.zero !== zero || last.ordinal !== ordinal) return false
    return last.startSector + last.entry.sectors === startSector
  }

  #extendLast(sectors: number): void {
    const last = this.#last
    assert(last !== undefined, 'there is an extent to extend')
    last.entry.sectors += sectors
    encodeExtent(this.#extentsView, last.at, last.entry)
  }

  #addExtent(startSector: number, ordinal: number, data: Uint8Array): void {
    this.#enter(startSector)
    const sectors = data.length / sectorSizeBytes
    if (this.#rawCount + data.length > blockRawSizeBytesMax) this.#flushBlock()
    const rawOffsetSectors = this.#rawCount / sectorSizeBytes
    const at = this.#sizeBytes + this.#rawCount
    if (at + data.length > this.#bytes.length) this.#bytes = this.#pack.reserve(at + blockRawSizeBytesMax, at)
    this.#bytes.set(data, at)
    this.#rawCount += data.length
    this.#rawSizeBytes += data.length
    this.#regions.at(-1)!.rawSizeBytes += data.length
    this.#endSector = Math.max(this.#endSector, startSector + sectors)
    if (startSector % blockSectors !== 0 && this.#adjoins(startSector, ordinal, false)) this.#extendLast(sectors)
    else {
      const region = this.#regions.at(-1)!
      const block = this.#blockCount - region.firstBlock
      this.#addEntry(startSector, ordinal, { sectors, zero: false, block, rawOffsetSectors })
    }
  }

  #addEntry(
    startSector: number,
    ordinal: number,
    place: Pick<ExtentEntry, 'sectors' | 'zero' | 'block' | 'rawOffsetSectors'>,
  ): void {
    const ordinalIndex = this.#ordinalIndexes.get(ordinal)
    assert(
      ordinalIndex !== undefined && this.#identity !== undefined,
      'the ordinal is one that the pack was begun with',
    )
    const at = this.#extentCount++ * extentEntrySizeBytes
    if (at + extentEntrySizeBytes > this.#extentsView.byteLength)
      this.#extentsView = viewOf(this.#extents.reserve(at + extentEntrySizeBytes, at))
    this.#disordered ||=
      startSector < this.#newestSector ||
      (startSector === this.#newestSector && ordinalIndex < this.#newestOrdinalIndex)
    this.#newestSector = startSector
    this.#newestOrdinalIndex = ordinalIndex
    const regionSectors = this.#identity.regionSizeBytes / sectorSizeBytes
    const entry = { ...place, startSector: startSector % regionSectors, ordinalIndex }
    encodeExtent(this.#extentsView, at, entry)
    this.#last = { at, startSector, ordinal, entry }
  }

  /** Opens the region's section when the sector is the first of one. */
  #enter(startSector: number): void {
    assert(this.#identity !== undefined, 'a pack was begun')
    const region = Math.floor((startSector * sectorSizeBytes) / this.#identity.regionSizeBytes)
    const current = this.#regions.at(-1)
    if (current?.region === region) return
    assert(current === undefined || current.region < region, 'extents come in order')
    this.#flushBlock()
    this.#orderExtents()
    this.#regions.push({ region, firstExtent: this.#extentCount, firstBlock: this.#blockCount, rawSizeBytes: 0 })
    if (current === undefined) this.#startSector = startSector
  }

  /**
   * Sorts the extents of the region that ends. What crossed a multiple of 64 KiB was divided, and its later pieces may lie behind what
   * another checkpoint has between. Blocks stay as they are: an extent names its own.
   */
  #orderExtents(): void {
    const isOrdered = !this.#disordered
    this.#disordered = false
    this.#newestSector = this.#newestOrdinalIndex = 0
    const region = this.#regions.at(-1)
    if (isOrdered || region === undefined) return
    const start = region.firstExtent * extentEntrySizeBytes
    const bytes = new Uint8Array(
      this.#extentsView.buffer,
      this.#extentsView.byteOffset + start,
      this.#extentCount * extentEntrySizeBytes - start,
    )
    const view = viewOf(bytes.slice())
    const order = Array.from(
      { length: bytes.length / extentEntrySizeBytes },
      (_, index) => index * extentEntrySizeBytes,
    )
    order.sort(
      (a, b) => startSectorOf(view, a) - startSectorOf(view, b) || ordinalIndexOf(view, a) - ordinalIndexOf(view, b),
    )
    for (const [index, at] of order.entries())
      bytes.set(new Uint8Array(view.buffer, at, extentEntrySizeBytes), index * extentEntrySizeBytes)
  }

  #dropUnusedOrdinals(): void {
    const places = new Uint16Array(this.#ordinals.length)
    for (let at = 0; at < this.#extentCount * extentEntrySizeBytes; at += extentEntrySizeBytes)
      places[ordinalIndexOf(this.#extentsView, at)] = 1
    const used = this.#ordinals.filter((_, index) => places[index] === 1)
    if (used.length === this.#ordinals.length) return
    let next = 0
    for (let index = 0; index < places.length; index++) if (places[index] === 1) places[index] = next++
    for (let at = 0; at < this.#extentCount * extentEntrySizeBytes; at += extentEntrySizeBytes)
      setOrdinalIndex(this.#extentsView, at, places[ordinalIndexOf(this.#extentsView, at)]!)
    this.#ordinals = used
  }

  #flushBlock(): void {
    this.#last = undefined
    if (this.#rawCount === 0) return
    const raw = this.#bytes.subarray(this.#sizeBytes, this.#sizeBytes + this.#rawCount)
    const storedSizeBytes = this.#compress(raw)
    const stored = raw.subarray(0, storedSizeBytes)
    const at = this.#blockCount++ * blockEntrySizeBytes
    const view = viewOf(this.#blocks.reserve(at + blockEntrySizeBytes, at))
    view.setUint32(at, this.#sizeBytes, true)
    view.setUint32(at + 4, stored.length, true)
    view.setUint32(at + 8, raw.length, true)
    view.setUint32(at + 12, crc32c(stored), true)
    this.#sizeBytes += stored.length
    this.#rawCount = 0
  }

  /** Compresses the block in its place where that is worth it; returns how large it is then. */
  #compress(raw: Uint8Array): number {
    if (!this.#compresses && !this.#sampleCompresses(raw)) return raw.length
    const packedSizeBytes = compressBlock(raw, this.#packed)
    this.#compresses = isWorthIt(packedSizeBytes, raw.length)
    if (!this.#compresses) return raw.length
    raw.set(this.#packed.subarray(0, packedSizeBytes))
    return packedSizeBytes
  }

  /** Trying a whole block of random data costs as much as reading it from the disk; an eighth of it tells as well. */
  #sampleCompresses(raw: Uint8Array): boolean {
    if (raw.length < 2 * this.#sample.length) return true
    const stepBytes = Math.floor(raw.length / sampleSliceCount)
    for (let slice = 0; slice < sampleSliceCount; slice++) {
      const bytes = raw.subarray(slice * stepBytes, slice * stepBytes + sampleSliceSizeBytes)
      this.#sample.set(bytes, slice * sampleSliceSizeBytes)
    }
    return isWorthIt(compressBlock(this.#sample, this.#packed), this.#sample.length)
  }

  /** The whole object, in the writer's buffer until the next begin, and what a manifest says of it. */
  finish(): { readonly bytes: Uint8Array; readonly ref: PackRef } {
    const identity = this.#identity
    assert(identity !== undefined && this.#extentCount > 0, 'a pack holds at least one extent')
    this.#flushBlock()
    this.#orderExtents()
    this.#dropUnusedOrdinals()
    const counts = { ordinalCount: this.#ordinals.length, regionCount: this.#regions.length }
    const indexOffsetBytes = this.#sizeBytes
    const indexSizeBytes = extentEntrySizeBytes * this.#extentCount + blockEntrySizeBytes * this.#blockCount
    const sizeBytes = indexOffsetBytes + indexSizeBytes + tailSizeBytes(counts)
    const bytes = this.#pack.reserve(sizeBytes, this.#sizeBytes).subarray(0, sizeBytes)
    const ordinalsAt = indexOffsetBytes + indexSizeBytes
    const fenceAt = ordinalsAt + ordinalEntrySizeBytes * counts.ordinalCount
    const trailerAt = fenceAt + fenceEntrySizeBytes * counts.regionCount
    encodeHeader(bytes, identity)
    this.#writeSections(bytes, indexOffsetBytes, fenceAt)
    this.#ordinals.forEach((ordinal, index) =>
      encodeOrdinal(bytes, ordinalsAt + ordinalEntrySizeBytes * index, ordinal),
    )
    encodeTrailer(bytes.subarray(trailerAt), bytes, {
      ...counts,
      extentCount: this.#extentCount,
      blockCount: this.#blockCount,
      indexOffsetBytes,
      rawSizeBytes: this.#rawSizeBytes,
      tailCrc32c: crc32c(bytes.subarray(ordinalsAt, trailerAt)),
    })
    const ref: PackRef = {
      object: { key: identity.key, sizeBytes },
      volume: identity.volume,
      startBytes: this.#startSector * sectorSizeBytes,
      endBytes: this.#endSector * sectorSizeBytes,
      indexOffsetBytes,
      extentCount: this.#extentCount,
      rawSizeBytes: this.#rawSizeBytes,
      regionRawSizeBytes: regionSizes(this.#regions.map(({ region, rawSizeBytes }) => [region, rawSizeBytes])),
    }
    this.#identity = undefined
    return { bytes, ref }
  }

  #writeSections(bytes: Uint8Array, indexOffsetBytes: number, fenceAt: number): void {
    const extents = this.#extents.reserve(0)
    const blocks = this.#blocks.reserve(0)
    const fence = viewOf(bytes)
    let at = indexOffsetBytes
    this.#regions.forEach((region, index) => {
      const next = this.#regions[index + 1]
      const extentEnd = next?.firstExtent ?? this.#extentCount
      const blockEnd = next?.firstBlock ?? this.#blockCount
      const sectionAt = at
      bytes.set(extents.subarray(region.firstExtent * extentEntrySizeBytes, extentEnd * extentEntrySizeBytes), at)
      at += (extentEnd - region.firstExtent) * extentEntrySizeBytes
      bytes.set(blocks.subarray(region.firstBlock * blockEntrySizeBytes, blockEnd * blockEntrySizeBytes), at)
      at += (blockEnd - region.firstBlock) * blockEntrySizeBytes
      const entryAt = fenceAt + fenceEntrySizeBytes * index
      fence.setUint32(entryAt, region.region, true)
      fence.setUint32(entryAt + 4, sectionAt, true)
      fence.setUint32(entryAt + 8, extentEnd - region.firstExtent, true)
      fence.setUint32(entryAt + 12, region.firstBlock, true)
      fence.setUint32(entryAt + 16, blockEnd - region.firstBlock, true)
      fence.setUint32(entryAt + 20, region.rawSizeBytes, true)
      fence.setUint32(entryAt + 24, crc32c(bytes.subarray(sectionAt, at)), true)
      fence.setUint32(entryAt + 28, 0, true)
    })
  }
}

function isWorthIt(packedSizeBytes: number, rawSizeBytes: number): boolean {
  return packedSizeBytes > 0 && packedSizeBytes <= rawSizeBytes * (1 - savedShareMin)
}
