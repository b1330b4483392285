import { crc32c } from '../codec/crc32c.ts'
import { assert } from '../base/assert.ts'
import { logRecordHeaderSizeBytes } from '../base/limits.ts'
import { type VpgId, vpgId } from '../base/ids.ts'
import { alignUp } from '../base/units.ts'

// A record is what the VRA knows of a frame, then the frame as it was received. The same records stand in the commit
// log and in segment objects. Little-endian; the next record starts at the next multiple of 8.
//
//   offset  size  field
//        0     4  magic                'VRAR'
//        4     1  formatVersion        1
//        5     1  kind                 1 write batch, 2 marker, 3 pad (fills the log up to the next group; no frame)
//        6     2  reserved             0
//        8     8  fileIdentity         of the log file; 0 in a segment
//       16     8  offsetBytes          of this header in the log file, or in the segment
//       24    16  vpgId
//       40     4  stream
//       44     4  epoch
//       48     8  generation
//       56     8  firstSequence
//       64     8  lastSequence
//       72     8  durableOffsetBytes   log: up to where this file was known durable when the record was written
//       80     4  frameSizeBytes       the frame with its own 16-byte header; of a pad: bytes to skip
//       84     4  frameCrc32c          of the whole frame, its own checksum field included
//       88     8  timestampMicros      batch: when it was received; marker: the checkpoint's label, forced to rise
//       96     8  historyMillis        marker: the VPG's history clock; batch: 0
//      104    20  reserved             0
//      124     4  headerCrc32c         over bytes 0..124
//
// The pad that opens a log file says in `generation` which file was written before it, and in `lastSequence` where the
// durable records of that one end; both are 0 in the first file of a log, and in every other pad.
//
// Identity and offset are in every header, so a record of a former use of the same blocks, or one that was misplaced, is
// known for what it is. The durable offset tells a torn tail from damage (see recovery in README.md).

export const recordMagic = 0x52_41_52_56 // 'VRAR'
const formatVersion = 1

export type RecordKind = 'batch' | 'marker' | 'pad'
const kindNumbers = { batch: 1, marker: 2, pad: 3 } as const
const kindNames: readonly (RecordKind | undefined)[] = [undefined, 'batch', 'marker', 'pad']

/** What stands in a record's header, as numbers. A pad has no VPG: its vpg is all zeros. */
export interface RecordHeader {
  readonly kind: RecordKind
  readonly fileIdentity: number
  readonly offsetBytes: number
  readonly vpg: VpgId
  readonly stream: number
  readonly epoch: number
  readonly generation: number
  readonly firstSequence: number
  readonly lastSequence: number
  readonly durableOffsetBytes: number
  readonly frameSizeBytes: number
  readonly frameCrc32c: number
  readonly timestampMicros: number
  readonly historyMillis: number
}

export const noVpg = vpgId('0'.repeat(32))

/** Bytes that a record with a frame of this size takes in a log or a segment. */
export function recordSizeBytes(frameSizeBytes: number): number {
  return alignUp(logRecordHeaderSizeBytes + frameSizeBytes, 8)
}

function writeUint64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % 2 ** 32, true)
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true)
}

function readUint64(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32
}

/** Writes the 128 bytes of the header at the start of `target`. */
export function encodeRecordHeader(target: Uint8Array, header: RecordHeader): void {
  assert(target.length >= logRecordHeaderSizeBytes, 'room for a record header')
  const view = new DataView(target.buffer, target.byteOffset, logRecordHeaderSizeBytes)
  view.setUint32(0, recordMagic, true)
  view.setUint8(4, formatVersion)
  view.setUint8(5, kindNumbers[header.kind])
  view.setUint16(6, 0, true)
  writeUint64(view, 8, header.fileIdentity)
  writeUint64(view, 16, header.offsetBytes)
  for (let index = 0; index < 16; index++)
    view.setUint8(24 + index, parseInt(header.vpg.slice(2 * index, 2 * index + 2), 16))
  view.setUint32(40, header.stream, true)
  view.setUint32(44, header.epoch, true)
  writeUint64(view, 48, header.generation)
  writeUint64(view, 56, header.firstSequence)
  writeUint64(view, 64, header.lastSequence)
  writeUint64(view, 72, header.durableOffsetBytes)
  view.setUint32(80, header.frameSizeBytes, true)
  view.setUint32(84, header.frameCrc32c, true)
  writeUint64(view, 88, header.timestampMicros)
  writeUint64(view, 96, header.historyMillis)
  target.fill(0, 104, 124)
  view.setUint32(124, crc32c(target.subarray(0, 124)), true)
}

/** Completes a header that was encoded before its place in the log was known. */
export function placeRecordHeader(
  target: Uint8Array,
  place: { readonly fileIdentity: number; readonly offsetBytes: number; readonly durableOffsetBytes: number },
): void {
  const view = new DataView(target.buffer, target.byteOffset, logRecordHeaderSizeBytes)
  writeUint64(view, 8, place.fileIdentity)
  writeUint64(view, 16, place.offsetBytes)
  writeUint64(view, 72, place.durableOffsetBytes)
  view.setUint32(124, crc32c(target.subarray(0, 124)), true)
}

/**
 * The header at the start of `source`, or undefined when these bytes are not one: too short, another magic, a wrong
 * checksum. A header that is whole but of another format version is 'other-version'.
 */
export function decodeRecordHeader(source: Uint8Array): RecordHeader | 'other-version' | undefined {
  if (source.length < logRecordHeaderSizeBytes) return undefined
  const view = new DataView(source.buffer, source.byteOffset, logRecordHeaderSizeBytes)
  if (view.getUint32(0, true) !== recordMagic) return undefined
  if (view.getUint32(124, true) !== crc32c(source.subarray(0, 124))) return undefined
  if (view.getUint8(4) !== formatVersion) return 'other-version'
  const kind = kindNames[view.getUint8(5)]
  if (kind === undefined) return undefined
  return {
    kind,
    fileIdentity: readUint64(view, 8),
    offsetBytes: readUint64(view, 16),
    vpg: Buffer.from(source.buffer, source.byteOffset + 24, 16).toString('hex') as VpgId,
    stream: view.getUint32(40, true),
    epoch: view.getUint32(44, true),
    generation: readUint64(view, 48),
    firstSequence: readUint64(view, 56),
    lastSequence: readUint64(view, 64),
    durableOffsetBytes: readUint64(view, 72),
    frameSizeBytes: view.getUint32(80, true),
    frameCrc32c: view.getUint32(84, true),
    timestampMicros: readUint64(view, 88),
    historyMillis: readUint64(view, 96),
  }
}
