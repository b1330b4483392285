import { createHash } from 'node:crypto'
import { Failure } from '../base/failure.ts'
import { alignUp, GiB, KiB, sectorSizeBytes } from '../base/units.ts'
import { crc32c } from '../codec/crc32c.ts'

// The map of an overlay: which blocks of a disk are the overlay's. README.md draws the files; here every byte of the map is.
//
// What a power cut may tear stands twice: the header, and each sector of the durable map. A new one is written over the older of the two, so
// that the other one is whole whatever happens; of two whole ones the higher sequence counts.
//
//   offset  size  field              A header, one sector. The one of even sequence stands at 0 of the file, the other at 4096.
//        0     4  magic              'VRAO'
//        4     4  formatVersion      1; little-endian, as all that follows
//        8     8  volumeSizeBytes
//       16     4  blockSizeBytes
//       20     4  flags              1: blocks of the image's may have stray bytes in the data file
//       24    16  bootId             of the host's boot whose running map counts; zeros: none does, it was closed in order
//       40    32  identity           SHA-256 of what the overlay lies over
//       72     4  sequence
//       76   432  zeros
//      508     4  headerCrc32c       over bytes 0..508
//
//   offset  size  field              A sector of a map, 1,984 blocks; all zeros where none of them was ever touched.
//        0   496  states             two bits a block, low bits first: see block-map.ts
//      496     4  sectorNumber
//      500     4  sequence           from 1; of the running map 0
//      504     4  zeros
//      508     4  sectorCrc32c       over bytes 0..508

const headerAreaSizeBytes = 8 * KiB
export const statesSizeBytes = 496
export const blocksPerMapSector = 4 * statesSizeBytes
const formatVersion = 1
const staleFlag = 1

export interface OverlayHeader {
  readonly volumeSizeBytes: number
  readonly blockSizeBytes: number
  readonly isStale: boolean
  /** 16 bytes as hexadecimal; undefined: none. */
  readonly bootId: string | undefined
  /** 32 bytes as hexadecimal. */
  readonly identity: string
  readonly sequence: number
}

/** Where things stand in the map file. */
export interface MapLayout {
  readonly blockSizeBytes: number
  readonly blockCount: number
  readonly sectorCount: number
  /** Of the two areas of the durable map: that of even sequences, that of odd ones. */
  readonly durableOffsetBytes: readonly [number, number]
  readonly runningOffsetBytes: number
  readonly fileSizeBytes: number
}

const blockSizeBytesMin = 4 * KiB
/** A disk has no more blocks than this: states of all of them take 64 MiB. Up to 1 TiB a block is 4 KiB. */
const blockCountMax = (1024 * GiB) / blockSizeBytesMin

/** The block that a disk of this size is divided into. */
export function blockSizeFor(volumeSizeBytes: number): number {
  let blockSizeBytes = blockSizeBytesMin
  while (volumeSizeBytes > blockSizeBytes * blockCountMax) blockSizeBytes *= 2
  return blockSizeBytes
}

export function mapLayout(volumeSizeBytes: number, blockSizeBytes: number): MapLayout {
  const blockCount = Math.ceil(volumeSizeBytes / blockSizeBytes)
  const sectorCount = Math.ceil(blockCount / blocksPerMapSector)
  const areaSizeBytes = alignUp(sectorCount * sectorSizeBytes, 4 * KiB)
  return {
    blockSizeBytes,
    blockCount,
    sectorCount,
    durableOffsetBytes: [headerAreaSizeBytes, headerAreaSizeBytes + areaSizeBytes],
    runningOffsetBytes: headerAreaSizeBytes + 2 * areaSizeBytes,
    fileSizeBytes: headerAreaSizeBytes + 3 * areaSizeBytes,
  }
}

/** What the overlay lies over, so that it is never laid over something else. */
export function identityOf(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

export function headerOffsetBytes({ sequence }: Pick<OverlayHeader, 'sequence'>): number {
  return (sequence % 2) * 4 * KiB
}

export function encodeOverlayHeader(header: OverlayHeader): Uint8Array {
  const bytes = Buffer.alloc(sectorSizeBytes)
  bytes.write('VRAO', 0, 'latin1')
  bytes.writeUInt32LE(formatVersion, 4)
  bytes.writeBigUInt64LE(BigInt(header.volumeSizeBytes), 8)
  bytes.writeUInt32LE(header.blockSizeBytes, 16)
  bytes.writeUInt32LE(header.isStale ? staleFlag : 0, 20)
  bytes.write(header.bootId ?? '', 24, 16, 'hex')
  bytes.write(header.identity, 40, 32, 'hex')
  bytes.writeUInt32LE(header.sequence, 72)
  bytes.writeUInt32LE(crc32c(bytes.subarray(0, 508)), 508)
  return bytes
}

/** The newest of the two headers that is whole. Fails RECORD_CORRUPT and VERSION_UNSUPPORTED, naming the file. */
export async function readOverlayHeader(
  file: string,
  read: (target: Buffer, offsetBytes: number) => Promise<void>,
): Promise<OverlayHeader> {
  let newest: OverlayHeader | undefined
  for (const sequence of [0, 1]) {
    const sector = Buffer.alloc(sectorSizeBytes)
    await read(sector, headerOffsetBytes({ sequence }))
    const header = decodeOverlayHeader(file, sector)
    if (header !== undefined && header.sequence > (newest?.sequence ?? -1)) newest = header
  }
  if (newest === undefined)
    throw corruptMap(file, 0, 'it is not the map of an overlay, or both its headers are damaged')
  return newest
}

function decodeOverlayHeader(file: string, bytes: Buffer): OverlayHeader | undefined {
  if (bytes.toString('latin1', 0, 4) !== 'VRAO') return undefined
  if (crc32c(bytes.subarray(0, 508)) !== bytes.readUInt32LE(508)) return undefined
  const version = bytes.readUInt32LE(4)
  if (version !== formatVersion)
    throw new Failure('VERSION_UNSUPPORTED', `${file} is of format version ${version}, this program knows 1`, { file })
  const bootId = bytes.toString('hex', 24, 40)
  return {
    volumeSizeBytes: Number(bytes.readBigUInt64LE(8)),
    blockSizeBytes: bytes.readUInt32LE(16),
    isStale: bytes.readUInt32LE(20) % 2 === staleFlag,
    bootId: /^0+$/.test(bootId) ? undefined : bootId,
    identity: bytes.toString('hex', 40, 72),
    sequence: bytes.readUInt32LE(72),
  }
}

/** Puts the sector of these states to `target`, which is as large as one and all zeros. */
export function encodeMapSector(states: Uint8Array, sectorNumber: number, sequence: number, target: Buffer): void {
  target.set(states, 0)
  target.writeUInt32LE(sectorNumber, 496)
  target.writeUInt32LE(sequence, 500)
  target.writeUInt32LE(crc32c(target.subarray(0, 508)), 508)
}

export interface MapSector {
  readonly states: Uint8Array
  readonly sequence: number
}

/** Undefined where it was never written, 'damaged' where it fails its checks. */
export function decodeMapSector(sector: Buffer, sectorNumber: number): MapSector | 'damaged' | undefined {
  const checksum = sector.readUInt32LE(508)
  if (checksum === 0 && sector.every(byte => byte === 0)) return undefined
  if (crc32c(sector.subarray(0, 508)) !== checksum || sector.readUInt32LE(496) !== sectorNumber) return 'damaged'
  return { states: sector.subarray(0, statesSizeBytes), sequence: sector.readUInt32LE(500) }
}

export function corruptMap(file: string, offsetBytes: number, what: string): Failure {
  return new Failure('RECORD_CORRUPT', `${file}, byte ${offsetBytes}: ${what}`, { file, offsetBytes })
}
