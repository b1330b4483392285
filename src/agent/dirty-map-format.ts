import { alignUp, MiB, sectorSizeBytes } from '../base/units.ts'
import { crc32c } from '../codec/crc32c.ts'

// The dirty map's file, sector by sector; README.md draws it. A sector is written whole or not at all, so a power cut leaves each
// page as it was or as it became, and a page that fails its checksum is damage.

const formatVersion = 1
const headerKind = 0
const pageKind = 1
const magic = Buffer.from('VRADIRTY')
/** Bytes of each of the two bitmaps in a page. */
export const pageBitmapSizeBytes = 248
export const regionsPerPage = 8 * pageBitmapSizeBytes
const bitmapsStart = 16
/** A map has at most so many regions, so that it stays below 1.1 MiB. */
const regionCountMax = 4 * 1024 * 1024
const regionSizeBytesMin = 1 * MiB

/** 1 MiB up to 4 TiB; doubled from there on, so 16 MiB at 64 TiB. */
export function regionSizeBytesFor(volumeSizeBytes: number): number {
  let sizeBytes = regionSizeBytesMin
  while (Math.ceil(volumeSizeBytes / sizeBytes) > regionCountMax) sizeBytes *= 2
  return sizeBytes
}

export interface MapHeader {
  /** In every page, too: a page of another map is not taken for one of this. */
  readonly identity: number
  readonly volumeSizeBytes: number
  readonly regionSizeBytes: number
  /** Marks were taken back on the word of a VRA that had offloaded everything up to here. */
  readonly cleared: { readonly generation: number; readonly sequence: number }
}

export interface MapPage {
  /** Regions that the VRA, or the local disk after a power cut, may lack: the union of all sets. */
  readonly marked: Uint8Array
  /** Of them those that a synchronisation has yet to send; to be believed only after a clean stop. */
  readonly pending: Uint8Array
}

export function pageCountOf({ volumeSizeBytes, regionSizeBytes }: MapHeader): number {
  return Math.ceil(Math.ceil(volumeSizeBytes / regionSizeBytes) / regionsPerPage)
}

export function fileSizeBytesOf(header: MapHeader): number {
  return alignUp((1 + pageCountOf(header)) * sectorSizeBytes, 4096)
}

export function encodeHeader(header: MapHeader): Buffer {
  const sector = Buffer.alloc(sectorSizeBytes)
  sector.writeUInt8(formatVersion, 4)
  sector.writeUInt8(headerKind, 5)
  magic.copy(sector, 8)
  sector.writeUInt32LE(header.identity, 16)
  writeNumber(sector, 24, header.volumeSizeBytes)
  writeNumber(sector, 32, header.regionSizeBytes)
  writeNumber(sector, 40, header.cleared.generation)
  writeNumber(sector, 48, header.cleared.sequence)
  return sealed(sector)
}

/** Undefined where it is not a header of this version, or damaged. */
export function decodeHeader(sector: Buffer): MapHeader | undefined {
  if (!isSound(sector, headerKind) || !sector.subarray(8, 16).equals(magic)) return undefined
  return {
    identity: sector.readUInt32LE(16),
    volumeSizeBytes: readNumber(sector, 24),
    regionSizeBytes: readNumber(sector, 32),
    cleared: { generation: readNumber(sector, 40), sequence: readNumber(sector, 48) },
  }
}

export function encodePage(identity: number, pageIndex: number, page: MapPage): Buffer {
  const sector = Buffer.alloc(sectorSizeBytes)
  sector.writeUInt8(formatVersion, 4)
  sector.writeUInt8(pageKind, 5)
  sector.writeUInt32LE(pageIndex, 8)
  sector.writeUInt32LE(identity, 12)
  sector.set(page.marked, bitmapsStart)
  sector.set(page.pending, bitmapsStart + pageBitmapSizeBytes)
  return sealed(sector)
}

/** Undefined where it is damaged, or another page than it should be. */
export function decodePage(sector: Buffer, identity: number, pageIndex: number): MapPage | undefined {
  if (!isSound(sector, pageKind)) return undefined
  if (sector.readUInt32LE(8) !== pageIndex || sector.readUInt32LE(12) !== identity) return undefined
  const pendingStart = bitmapsStart + pageBitmapSizeBytes
  return { marked: sector.subarray(bitmapsStart, pendingStart), pending: sector.subarray(pendingStart) }
}

function sealed(sector: Buffer): Buffer {
  sector.writeUInt32LE(crc32c(sector.subarray(4)), 0)
  return sector
}

function isSound(sector: Buffer, kind: number): boolean {
  if (sector.length !== sectorSizeBytes || sector.readUInt8(4) !== formatVersion || sector.readUInt8(5) !== kind)
    return false
  return sector.readUInt32LE(0) === crc32c(sector.subarray(4))
}

function writeNumber(sector: Buffer, at: number, value: number): void {
  sector.writeBigUInt64LE(BigInt(value), at)
}

function readNumber(sector: Buffer, at: number): number {
  return Number(sector.readBigUInt64LE(at))
}
