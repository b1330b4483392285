import { createHash } from 'node:crypto'
import { assert } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'
import { extentSizeBytesMax, regionSizeBytes } from '../base/limits.ts'
import { sectorSizeBytes } from '../base/units.ts'
import { crc32c } from '../codec/crc32c.ts'
import type { ObjectRef } from '../timeline/state.ts'

// A pack holds sorted extents of one volume: a part of a delta, or one region of the base. Little-endian.
//
//   header | blocks | index: a section per region | ordinals | fence | trailer
//
//   offset  size  header (80)
//        0     4  magic            'VRAP'
//        4     1  formatVersion    2; 1 had extents of 16 bytes, and was in no release
//        5     1  kind             1 delta, 2 base
//        6     2  volume
//        8    16  vpgId
//       24    16  keyHash          the first 16 bytes of SHA-256 of the object's key: an object under another's name is found
//       40     4  epoch
//       44     4  reserved         0
//       48     8  fromOrdinal      the delta speaks of (fromOrdinal, toOrdinal]; of a base 0
//       56     8  toOrdinal        of a base: its as-of checkpoint
//       64     8  regionSizeBytes
//       72     4  reserved         0
//       76     4  headerCrc32c     over bytes 0..76
//
// Blocks follow each other without gaps: LZ4 of at most 64 KiB raw, or raw where that is not smaller. A block holds extents
// of one region. The index begins where they end. A region's section in it is its extents, then its blocks:
//
//   offset  size  extent (10)                          sorted by sector, then ordinal
//        0     4  bits 0..23   startSector             in the region, in sectors of 512 bytes
//                 bits 24..30  lengthSectors - 1       of a zero extent 0
//                 bit 31       zero                    zeros, no data
//        4     4  bits 0..24   block                   counted from the region's first; of a zero extent its length in sectors
//                 bits 25..31  rawOffsetSectors        where its data begins in the block, uncompressed
//        8     2  ordinalIndex                         into the pack's ordinals
//
//   An extent with data is at most 64 KiB and crosses no multiple of 64 KiB, so none of 512 KiB (the EBS block); a zero
//   extent may be long but stays in its region.
//
//   offset  size  block (16)
//        0     4  offsetBytes          in the object
//        4     4  storedSizeBytes      equal to the raw size: not compressed
//        8     4  rawSizeBytes
//       12     4  crc32c               over the stored bytes
//
//   The ordinals are 8 bytes each, ascending: the retained checkpoints that the extents belong to.
//
//   offset  size  fence entry (32)                     a region that the pack touches; ascending
//        0     4  region
//        4     4  sectionOffsetBytes   in the object
//        8     4  extentCount
//       12     4  firstBlock
//       16     4  blockCount
//       20     4  rawSizeBytes         of its extents
//       24     4  sectionCrc32c
//       28     4  reserved             0
//
//   offset  size  trailer (128)
//        0     4  magic                'VRAT'
//        4    72  the header's bytes 4..76 again
//       76     4  extentCount
//       80     4  blockCount
//       84     4  regionCount
//       88     4  ordinalCount
//       92     4  reserved             0
//       96     8  indexOffsetBytes
//      104     8  rawSizeBytes
//      112     4  tailCrc32c           over ordinals and fence
//      116     8  reserved             0
//      124     4  trailerCrc32c        over bytes 0..124
//
// So a reader takes the tail (one range), then the sections of the regions that it wants, then only blocks that it wants.

export const packHeaderSizeBytes = 80
export const packTrailerSizeBytes = 128
export const extentEntrySizeBytes = 10
export const blockEntrySizeBytes = 16
export const fenceEntrySizeBytes = 32
export const ordinalEntrySizeBytes = 8

const headerMagic = 0x50_41_52_56 // 'VRAP'
const trailerMagic = 0x54_41_52_56 // 'VRAT'
const formatVersion = 2
const sharedStart = 4
const sharedEnd = 76

export type PackKind = 'delta' | 'base'

/** What a pack is, as its header says and its trailer repeats. */
export interface PackIdentity {
  readonly kind: PackKind
  readonly volume: number
  readonly vpg: string
  readonly key: string
  readonly epoch: number
  readonly fromOrdinal: number
  readonly toOrdinal: number
  readonly regionSizeBytes: number
}

export interface PackTrailer {
  readonly identity: PackIdentity
  readonly extentCount: number
  readonly blockCount: number
  readonly regionCount: number
  readonly ordinalCount: number
  readonly indexOffsetBytes: number
  readonly rawSizeBytes: number
  readonly tailCrc32c: number
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function writeUint64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % 2 ** 32, true)
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true)
}

function readUint64(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32
}

function keyHash(key: string): Buffer {
  return createHash('sha256').update(key).digest().subarray(0, 16)
}

/** What a reader throws when a pack's bytes are not what they must be; it names the object and the place. */
export function corruptPack(key: string, offsetBytes: number, fault: string): Failure {
  return new Failure(
    'OBJECT_CORRUPT',
    `the object ${key} is damaged at byte ${offsetBytes}: ${fault}; what it holds is not served. "vra mirror verify" tells what is affected`,
    { key, offsetBytes, fault },
  )
}

export function encodeHeader(target: Uint8Array, identity: PackIdentity): void {
  const view = viewOf(target)
  target.fill(0, 0, packHeaderSizeBytes)
  view.setUint32(0, headerMagic, true)
  view.setUint8(4, formatVersion)
  view.setUint8(5, identity.kind === 'delta' ? 1 : 2)
  view.setUint16(6, identity.volume, true)
  target.set(Buffer.from(identity.vpg, 'hex'), 8)
  target.set(keyHash(identity.key), 24)
  view.setUint32(40, identity.epoch, true)
  writeUint64(view, 48, identity.fromOrdinal)
  writeUint64(view, 56, identity.toOrdinal)
  writeUint64(view, 64, identity.regionSizeBytes)
  view.setUint32(76, crc32c(target.subarray(0, 76)), true)
}

export function encodeTrailer(target: Uint8Array, header: Uint8Array, trailer: Omit<PackTrailer, 'identity'>): void {
  const view = viewOf(target)
  target.fill(0, 0, packTrailerSizeBytes)
  view.setUint32(0, trailerMagic, true)
  target.set(header.subarray(sharedStart, sharedEnd), sharedStart)
  view.setUint32(76, trailer.extentCount, true)
  view.setUint32(80, trailer.blockCount, true)
  view.setUint32(84, trailer.regionCount, true)
  view.setUint32(88, trailer.ordinalCount, true)
  writeUint64(view, 96, trailer.indexOffsetBytes)
  writeUint64(view, 104, trailer.rawSizeBytes)
  view.setUint32(112, trailer.tailCrc32c, true)
  view.setUint32(124, crc32c(target.subarray(0, 124)), true)
}

export function encodeOrdinal(target: Uint8Array, at: number, ordinal: number): void {
  writeUint64(viewOf(target), at, ordinal)
}

export function decodeOrdinal(source: Uint8Array, at: number): number {
  return readUint64(viewOf(source), at)
}

/** The fault in the header's bytes, or undefined. It must say what the trailer says. */
export function headerFault(header: Uint8Array, trailer: Uint8Array): string | undefined {
  const view = viewOf(header)
  if (view.getUint32(0, true) !== headerMagic) return 'not the header of a pack'
  if (view.getUint32(76, true) !== crc32c(header.subarray(0, 76))) return 'the header fails its checksum'
  const shared = Buffer.compare(header.subarray(sharedStart, sharedEnd), trailer.subarray(sharedStart, sharedEnd))
  return shared === 0 ? undefined : 'header and trailer belong to different packs'
}

/** Reads the trailer of the object. Fails OBJECT_CORRUPT, and VERSION_UNSUPPORTED for a whole trailer of another version. */
export function decodeTrailer(source: Uint8Array, object: ObjectRef): PackTrailer {
  const offsetBytes = object.sizeBytes - packTrailerSizeBytes
  const view = viewOf(source)
  if (source.length !== packTrailerSizeBytes || view.getUint32(0, true) !== trailerMagic)
    throw corruptPack(object.key, offsetBytes, 'it does not end in the trailer of a pack')
  if (view.getUint32(124, true) !== crc32c(source.subarray(0, 124)))
    throw corruptPack(object.key, offsetBytes, 'the trailer fails its checksum')
  const version = view.getUint8(4)
  if (version !== formatVersion)
    throw new Failure(
      'VERSION_UNSUPPORTED',
      `the object ${object.key} is a pack of format version ${version}; this program reads version ${formatVersion}`,
      { key: object.key, version },
    )
  if (!keyHash(object.key).equals(source.subarray(24, 40)))
    throw corruptPack(object.key, offsetBytes, 'the trailer belongs to an object of another name')
  const kind = view.getUint8(5)
  if (kind !== 1 && kind !== 2) throw corruptPack(object.key, offsetBytes, `there is no pack of kind ${kind}`)
  const trailer: PackTrailer = {
    identity: {
      kind: kind === 1 ? 'delta' : 'base',
      volume: view.getUint16(6, true),
      vpg: Buffer.from(source.subarray(8, 24)).toString('hex'),
      key: object.key,
      epoch: view.getUint32(40, true),
      fromOrdinal: readUint64(view, 48),
      toOrdinal: readUint64(view, 56),
      regionSizeBytes: readUint64(view, 64),
    },
    extentCount: view.getUint32(76, true),
    blockCount: view.getUint32(80, true),
    regionCount: view.getUint32(84, true),
    ordinalCount: view.getUint32(88, true),
    indexOffsetBytes: readUint64(view, 96),
    rawSizeBytes: readUint64(view, 104),
    tailCrc32c: view.getUint32(112, true),
  }
  const indexSizeBytes = extentEntrySizeBytes * trailer.extentCount + blockEntrySizeBytes * trailer.blockCount
  if (trailer.indexOffsetBytes + indexSizeBytes + tailSizeBytes(trailer) !== object.sizeBytes)
    throw corruptPack(object.key, offsetBytes, 'the trailer does not describe an object of this size')
  return trailer
}

/** What an extent's entry says. Sectors and blocks are counted from the first of the region. */
export interface ExtentEntry {
  readonly startSector: number
  readonly sectors: number
  readonly zero: boolean
  /** Of zeros 0, as is the offset. */
  readonly block: number
  readonly rawOffsetSectors: number
  readonly ordinalIndex: number
}

const startSectorBits = 24
const dataSectorsBits = 7
const blockBits = 25
const zeroBit = 2 ** 31
assert(regionSizeBytes <= 2 ** startSectorBits * sectorSizeBytes, 'a place in a region fits an entry')
assert(extentSizeBytesMax <= 2 ** dataSectorsBits * sectorSizeBytes, 'the length of an extent fits its entry')

export function encodeExtent(view: DataView, at: number, entry: ExtentEntry): void {
  const { startSector, sectors, zero, block, rawOffsetSectors, ordinalIndex } = entry
  const blockOrSectors = zero ? sectors : block
  assert(startSector < 2 ** startSectorBits && blockOrSectors < 2 ** blockBits, 'an entry holds its region')
  view.setUint32(at, zero ? startSector + zeroBit : startSector + (sectors - 1) * 2 ** startSectorBits, true)
  view.setUint32(at + 4, blockOrSectors + rawOffsetSectors * 2 ** blockBits, true)
  view.setUint16(at + 8, ordinalIndex, true)
}

export function startSectorOf(view: DataView, at: number): number {
  return view.getUint32(at, true) & (2 ** startSectorBits - 1)
}

export function isZeroExtent(view: DataView, at: number): boolean {
  return view.getUint8(at + 3) >>> dataSectorsBits === 1
}

export function sectorsOf(view: DataView, at: number): number {
  return isZeroExtent(view, at) ? blockOf(view, at) : (view.getUint8(at + 3) & (2 ** dataSectorsBits - 1)) + 1
}

/** Of an extent with data. */
export function blockOf(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) & (2 ** blockBits - 1)
}

export function rawOffsetSectorsOf(view: DataView, at: number): number {
  return view.getUint8(at + 7) >>> 1
}

export function ordinalIndexOf(view: DataView, at: number): number {
  return view.getUint16(at + 8, true)
}

export function setOrdinalIndex(view: DataView, at: number, ordinalIndex: number): void {
  view.setUint16(at + 8, ordinalIndex, true)
}

/** Bytes of ordinals, fence and trailer. */
export function tailSizeBytes({
  ordinalCount,
  regionCount,
}: Pick<PackTrailer, 'ordinalCount' | 'regionCount'>): number {
  return ordinalEntrySizeBytes * ordinalCount + fenceEntrySizeBytes * regionCount + packTrailerSizeBytes
}
