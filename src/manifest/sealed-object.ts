import { crc32c } from '../codec/crc32c.ts'
import { assert } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'
import type { VpgId } from '../base/ids.ts'

// Roots, pages and registry objects open with the same header, then the body.
//
//   offset  size  field           little-endian
//        0     4  magic           'VRAM'
//        4     1  formatVersion   1
//        5     1  kind            1 root, 2 page, 3 checkpoint page, 4 registry
//        6     2  reserved        0
//        8    16  vpgId
//       24     8  commitNumber    of a root; otherwise 0
//       32     4  epoch
//       36     4  bodySizeBytes
//       40    16  nonce           of the commit; of a page: the uuid in its key
//       56    64  applianceId     ASCII, filled up with zeros
//      120     4  bodyCrc32c
//      124     4  headerCrc32c    over bytes 0..124
//
// VPG, number and uuid stand in the key and in the header, so an object in the wrong place is known for what it is.

export const sealedHeaderSizeBytes = 128
const magic = 0x4d_41_52_56 // 'VRAM'
const formatVersion = 1
const applianceIdSizeBytesMax = 64

export type SealedKind = 'root' | 'page' | 'checkpoints' | 'registry'
const kindNumbers = { root: 1, page: 2, checkpoints: 3, registry: 4 } as const
const kindNames: readonly (SealedKind | undefined)[] = [undefined, 'root', 'page', 'checkpoints', 'registry']

export interface SealedHeader {
  readonly kind: SealedKind
  readonly vpg: VpgId
  readonly commitNumber: number
  readonly epoch: number
  /** 32 hexadecimal digits. */
  readonly nonce: string
  readonly applianceId: string
}

export interface SealedObject {
  readonly header: SealedHeader
  readonly body: Uint8Array
}

export function encodeSealed(header: SealedHeader, body: Uint8Array): Uint8Array {
  const applianceId = Buffer.from(header.applianceId, 'ascii')
  assert(applianceId.length <= applianceIdSizeBytesMax, 'an appliance id fits in its field')
  const object = Buffer.alloc(sealedHeaderSizeBytes + body.length)
  object.writeUInt32LE(magic, 0)
  object.writeUInt8(formatVersion, 4)
  object.writeUInt8(kindNumbers[header.kind], 5)
  object.write(header.vpg, 8, 'hex')
  object.writeBigUInt64LE(BigInt(header.commitNumber), 24)
  object.writeUInt32LE(header.epoch, 32)
  object.writeUInt32LE(body.length, 36)
  object.write(header.nonce, 40, 'hex')
  applianceId.copy(object, 56)
  object.writeUInt32LE(crc32c(body), 120)
  object.writeUInt32LE(crc32c(object.subarray(0, 124)), 124)
  object.set(body, sealedHeaderSizeBytes)
  return object
}

/** What an object of the commit sequence is, by its first bytes. */
export function isSealed(firstBytes: Uint8Array): boolean {
  return firstBytes.length >= 4 && Buffer.from(firstBytes).readUInt32LE(0) === magic
}

/** Checks every byte. OBJECT_CORRUPT names the key and the place; VERSION_UNSUPPORTED is a whole header of another version. */
export function decodeSealed(key: string, object: Uint8Array): SealedObject {
  const bytes = Buffer.from(object.buffer, object.byteOffset, object.byteLength)
  if (bytes.length < sealedHeaderSizeBytes) throw corrupt(key, 0, `holds ${bytes.length} bytes, less than its header`)
  if (bytes.readUInt32LE(0) !== magic) throw corrupt(key, 0, 'does not begin with VRAM')
  if (bytes.readUInt32LE(124) !== crc32c(bytes.subarray(0, 124))) throw corrupt(key, 124, 'has a damaged header')
  const version = bytes.readUInt8(4)
  if (version !== formatVersion) {
    const sentence = `${key} has format version ${version}; this program reads version ${formatVersion}. Use the program that wrote it, or a newer one.`
    throw new Failure('VERSION_UNSUPPORTED', sentence, { key, version })
  }
  const kind = kindNames[bytes.readUInt8(5)]
  if (kind === undefined) throw corrupt(key, 5, `is of the unknown kind ${bytes.readUInt8(5)}`)
  const body = bytes.subarray(sealedHeaderSizeBytes)
  const bodySizeBytes = bytes.readUInt32LE(36)
  if (body.length !== bodySizeBytes) {
    throw corrupt(key, 36, `holds a body of ${body.length} bytes where ${bodySizeBytes} were written`)
  }
  if (bytes.readUInt32LE(120) !== crc32c(body)) throw corrupt(key, sealedHeaderSizeBytes, 'has a damaged body')
  const header: SealedHeader = {
    kind,
    vpg: bytes.toString('hex', 8, 24) as VpgId,
    commitNumber: Number(bytes.readBigUInt64LE(24)),
    epoch: bytes.readUInt32LE(32),
    nonce: bytes.toString('hex', 40, 56),
    applianceId: bytes.toString('ascii', 56, 120).replace(/\0+$/, ''),
  }
  return { header, body }
}

export function corrupt(key: string, offsetBytes: number, what: string): Failure {
  return new Failure('OBJECT_CORRUPT', `${key} ${what} (at byte ${offsetBytes})`, { key, offsetBytes })
}
