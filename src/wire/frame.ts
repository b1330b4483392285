import { assert } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'
import { frameBodySizeBytesMax, frameHeaderSizeBytes } from '../base/limits.ts'
import { KiB } from '../base/units.ts'
import { crc32c, joinCrc32c } from '../codec/crc32c.ts'

// The header in front of every message; proto/README.md draws it.

export const protocolVersion = 1
/** Bodies of all but write batches are small, so that a peer cannot make us build large objects. */
export const controlBodySizeBytesMax = 64 * KiB

const magic = 0x46415256 // 'VRAF'
const crcOffsetBytes = 12

export type FrameType =
  | 'hello'
  | 'welcome'
  | 'write-batch'
  | 'marker'
  | 'ack'
  | 'heartbeat'
  | 'checkpoint-request'
  | 'agent-status'
  | 'error'
  | 'goodbye'
  | 'sync-request'
  | 'hash-request'
  | 'hash-reply'
  | 'directive'
  | 'peer-hello'
  | 'hold'
  | 'hold-answer'
  | 'cut'
  | 'cut-answer'
  | 'release'
  | 'coordinator-changed'

const typeNames: readonly (FrameType | undefined)[] = [
  undefined,
  'hello',
  'welcome',
  'write-batch',
  'marker',
  'ack',
  'heartbeat',
  'checkpoint-request',
  'agent-status',
  'error',
  'goodbye',
  'sync-request',
  'hash-request',
  'hash-reply',
  'directive',
  undefined,
  'peer-hello',
  'hold',
  'hold-answer',
  'cut',
  'cut-answer',
  'release',
  undefined,
  'coordinator-changed',
]

export interface FrameHeader {
  readonly type: FrameType
  readonly bodySizeBytes: number
  readonly crc32c: number
}

/** Reads the first 16 bytes of `source`. Fails FRAME_INVALID or VERSION_UNSUPPORTED; what it returns is within the bounds. */
export function parseFrameHeader(source: Uint8Array): FrameHeader {
  assert(source.length >= frameHeaderSizeBytes, 'a whole frame header')
  const view = new DataView(source.buffer, source.byteOffset, frameHeaderSizeBytes)
  if (view.getUint32(0, true) !== magic) throw invalidFrame('the frame does not begin with "VRAF"')
  const version = view.getUint8(4)
  if (version !== protocolVersion)
    throw new Failure('VERSION_UNSUPPORTED', `the frame is of version ${version}, this side speaks ${protocolVersion}`)
  const typeNumber = view.getUint8(5)
  const type = typeNames[typeNumber]
  if (type === undefined) throw invalidFrame(`there is no frame type ${typeNumber}`)
  if (view.getUint16(6, true) !== 0) throw invalidFrame('the reserved field of the frame header is not 0')
  const bodySizeBytes = view.getUint32(8, true)
  const bodySizeBytesMax = type === 'write-batch' ? frameBodySizeBytesMax : controlBodySizeBytesMax
  if (bodySizeBytes > bodySizeBytesMax)
    throw invalidFrame(`a ${type} body of ${bodySizeBytes} bytes is over the bound of ${bodySizeBytesMax}`)
  return { type, bodySizeBytes, crc32c: view.getUint32(crcOffsetBytes, true) }
}

/** Fills in the header of a frame whose body already stands behind it. */
export function sealFrame(frame: Uint8Array, type: FrameType): void {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength)
  view.setUint32(0, magic, true)
  view.setUint8(4, protocolVersion)
  view.setUint8(5, typeNames.indexOf(type))
  view.setUint16(6, 0, true)
  view.setUint32(8, frame.length - frameHeaderSizeBytes, true)
  view.setUint32(crcOffsetBytes, crc32c(frame.subarray(frameHeaderSizeBytes), frameChecksumStart(frame)), true)
}

/** The checksum of what a frame's checksum covers of its header; continue it with the body as it arrives. */
export function frameChecksumStart(header: Uint8Array): number {
  return crc32c(header.subarray(0, crcOffsetBytes))
}

/**
 * A frame has two checksums: its own, which leaves out the field that holds it, and the one over every byte, which log and segments
 * keep. They differ by what the four bytes do to the body's share: from one comes the other, and the body is not read again.
 */
export function otherFrameChecksum(header: Uint8Array, checksum: number, bodySizeBytes: number): number {
  const without = frameChecksumStart(header)
  const withField = crc32c(header.subarray(0, frameHeaderSizeBytes))
  return joinCrc32c((without ^ withField) >>> 0, checksum, bodySizeBytes)
}

export function invalidFrame(sentence: string, options?: { cause?: unknown }): Failure {
  return new Failure('FRAME_INVALID', sentence, {}, options)
}
