import { assert } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'
import { type VpgId, vpgId } from '../base/ids.ts'
import { crc32c } from '../codec/crc32c.ts'

// What frames a segment object. Little-endian.
//
//   header (128 bytes) | records, each on a multiple of 8 | footer, see segment-footer.ts | trailer (64 bytes)
//
//   Header
//   offset  size  field
//        0     4  magic               'VRAS'; a manifest under the same kind of key begins with 'VRAM'
//        4     1  formatVersion       1
//        5     3  reserved            0
//        8    16  vpgId
//       24     4  epoch               of the appliance that wrote it
//       28     4  reserved            0
//       32     8  commitNumber        in the VPG's commit sequence; must equal the one in the key
//       40    16  nonce               tells our own write after a lost reply
//       56     8  createdAtMicros
//       64    60  reserved            0
//      124     4  headerCrc32c        over bytes 0..124
//
//   Trailer, the last bytes of the object
//   offset  size  field
//        0     4  magic               'VRAT'
//        4     1  formatVersion       1
//        5     3  reserved            0
//        8     8  footerOffsetBytes   where the records end
//       16     4  footerSizeBytes     without this trailer
//       20     4  footerCrc32c        over the whole footer
//       24     8  writeCount
//       32     8  rawSizeBytes        guest bytes of its data writes, uncompressed
//       40    20  reserved            0
//       60     4  trailerCrc32c       over bytes 0..60

export const segmentHeaderSizeBytes = 128
export const segmentTrailerSizeBytes = 64
export const segmentFormatVersion = 1
export const nonceSizeBytes = 16
const headerMagic = 0x53_41_52_56 // 'VRAS'
const manifestMagic = 0x4d_41_52_56 // 'VRAM'
const trailerMagic = 0x54_41_52_56 // 'VRAT'

export interface SegmentHeader {
  readonly vpg: VpgId
  readonly epoch: number
  readonly commitNumber: number
  readonly nonce: Uint8Array
  readonly createdAtMicros: number
}

export interface SegmentTrailer {
  readonly footerOffsetBytes: number
  readonly footerSizeBytes: number
  readonly footerCrc32c: number
  readonly writeCount: number
  readonly rawSizeBytes: number
}

/** What an object of a VPG's commit sequence is, by its first bytes (4 are enough). */
export function peekCommitObject(firstBytes: Uint8Array): 'segment' | 'manifest' | 'unknown' {
  if (firstBytes.length < 4) return 'unknown'
  const magic = viewOf(firstBytes).getUint32(0, true)
  return magic === headerMagic ? 'segment' : magic === manifestMagic ? 'manifest' : 'unknown'
}

/** `<vpgId>/commit/<16 digits>`: segments and manifests share one sequence of names. */
export function commitKey(vpg: VpgId, commitNumber: number): string {
  assert(Number.isSafeInteger(commitNumber) && commitNumber >= 0, `not a commit number: ${commitNumber}`)
  return `${vpg}/commit/${String(commitNumber).padStart(16, '0')}`
}

/** What the key says, or undefined when it is not one of a commit sequence. */
export function parseCommitKey(key: string): { readonly vpg: VpgId; readonly commitNumber: number } | undefined {
  const match = /^([0-9a-f]{32})\/commit\/(\d{16})$/.exec(key)
  if (match === null) return undefined
  const commitNumber = Number(match[2])
  return Number.isSafeInteger(commitNumber) ? { vpg: vpgId(match[1] ?? ''), commitNumber } : undefined
}

/** Writes the 128 bytes of the header at the start of `target`. */
export function encodeSegmentHeader(target: Uint8Array, header: SegmentHeader): void {
  assert(header.nonce.length === nonceSizeBytes, 'a nonce has 16 bytes')
  const view = viewOf(target)
  target.fill(0, 0, segmentHeaderSizeBytes)
  view.setUint32(0, headerMagic, true)
  view.setUint8(4, segmentFormatVersion)
  target.set(Buffer.from(header.vpg, 'hex'), 8)
  view.setUint32(24, header.epoch, true)
  writeUint64(view, 32, header.commitNumber)
  target.set(header.nonce, 40)
  writeUint64(view, 56, header.createdAtMicros)
  view.setUint32(124, crc32c(target.subarray(0, 124)), true)
}

/** The header at the start of `source`. Fails OBJECT_CORRUPT, or VERSION_UNSUPPORTED when it is whole but of another version. */
export function decodeSegmentHeader(object: string, source: Uint8Array): SegmentHeader {
  if (source.length < segmentHeaderSizeBytes)
    throw corrupt(object, 0, `the object ends inside its header, after ${source.length} bytes`)
  const view = viewOf(source)
  if (view.getUint32(0, true) !== headerMagic) throw corrupt(object, 0, 'the object does not begin as a segment does')
  if (view.getUint32(124, true) !== crc32c(source.subarray(0, 124)))
    throw corrupt(object, 0, 'the header has a wrong checksum')
  checkVersion(object, view.getUint8(4))
  return {
    vpg: vpgIdAt(source, 8),
    epoch: view.getUint32(24, true),
    commitNumber: readUint64(view, 32),
    nonce: Uint8Array.from(source.subarray(40, 40 + nonceSizeBytes)),
    createdAtMicros: readUint64(view, 56),
  }
}

/** Writes the 64 bytes of the trailer at the start of `target`. */
export function encodeSegmentTrailer(target: Uint8Array, trailer: SegmentTrailer): void {
  const view = viewOf(target)
  target.fill(0, 0, segmentTrailerSizeBytes)
  view.setUint32(0, trailerMagic, true)
  view.setUint8(4, segmentFormatVersion)
  writeUint64(view, 8, trailer.footerOffsetBytes)
  view.setUint32(16, trailer.footerSizeBytes, true)
  view.setUint32(20, trailer.footerCrc32c, true)
  writeUint64(view, 24, trailer.writeCount)
  writeUint64(view, 32, trailer.rawSizeBytes)
  view.setUint32(60, crc32c(target.subarray(0, 60)), true)
}

/** The trailer in the last bytes of `source`, which ends where the object ends. Fails as decodeSegmentHeader() does. */
export function decodeSegmentTrailer(object: string, source: Uint8Array, objectSizeBytes: number): SegmentTrailer {
  const offsetBytes = objectSizeBytes - segmentTrailerSizeBytes
  if (source.length < segmentTrailerSizeBytes) throw corrupt(object, 0, 'the object is too short for a segment')
  const bytes = source.subarray(source.length - segmentTrailerSizeBytes)
  const view = viewOf(bytes)
  if (view.getUint32(0, true) !== trailerMagic)
    throw corrupt(object, offsetBytes, 'the object does not end as a segment does: it is cut off, or damaged there')
  if (view.getUint32(60, true) !== crc32c(bytes.subarray(0, 60)))
    throw corrupt(object, offsetBytes, 'the trailer has a wrong checksum')
  checkVersion(object, view.getUint8(4))
  const trailer = {
    footerOffsetBytes: readUint64(view, 8),
    footerSizeBytes: view.getUint32(16, true),
    footerCrc32c: view.getUint32(20, true),
    writeCount: readUint64(view, 24),
    rawSizeBytes: readUint64(view, 32),
  }
  if (trailer.footerOffsetBytes + trailer.footerSizeBytes !== offsetBytes)
    throw corrupt(
      object,
      offsetBytes,
      'the footer does not end where the trailer starts: bytes are missing, or too many',
    )
  return trailer
}

/** A failure that names object and place; `what` is the sentence's end. */
export function corrupt(object: string, offsetBytes: number, what: string, options?: { cause?: unknown }): Failure {
  return new Failure('OBJECT_CORRUPT', `${object}, byte ${offsetBytes}: ${what}`, { object, offsetBytes }, options)
}

export function checkVersion(object: string, version: number): void {
  if (version === segmentFormatVersion) return
  throw new Failure(
    'VERSION_UNSUPPORTED',
    `${object} is a segment of format version ${version}; this program reads version ${segmentFormatVersion}`,
    { object, version },
  )
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

export function writeUint64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % 2 ** 32, true)
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true)
}

export function readUint64(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32
}

export function vpgIdAt(source: Uint8Array, at: number): VpgId {
  return vpgId(Buffer.from(source.buffer, source.byteOffset + at, 16).toString('hex'))
}
