import { Failure } from '../base/failure.ts'
import { frameHeaderSizeBytes } from '../base/limits.ts'
import { crc32c } from '../codec/crc32c.ts'
import { decodeBatchBody } from './batch-view.ts'
import { decodeControlBody } from './control-codec.ts'
import { frameChecksumStart, invalidFrame, otherFrameChecksum, parseFrameHeader, type FrameType } from './frame.ts'
import type { BatchView, ControlMessage } from './messages.ts'

// The replication protocol as bytes: proto/README.md in code, and the only folder that knows protobuf.
//
// A frame from outside passes three gates, each before the next costs anything: parseFrameHeader() bounds it, the
// checksum says that it is what was sent, and the decoder holds it against every rule that needs no session. What comes
// out is a domain type. Control messages go through protobufjs; a write batch is read in place, see batch-view.ts, and
// built without it, see batch-builder.ts, because at hundreds of thousands of writes a second objects are what costs.

export { BatchBuilder } from './batch-builder.ts'
export { encodeFrame } from './control-codec.ts'
export { FrameReader } from './frame-reader.ts'
export {
  frameChecksumStart,
  otherFrameChecksum,
  parseFrameHeader,
  protocolVersion,
  type FrameHeader,
  type FrameType,
} from './frame.ts'
export { decompressBatchBlock, decompressPayload, payloadDecompresses, restoreBlock } from './payload.ts'
export type * from './messages.ts'

/**
 * The message in a whole frame, checked: header, checksum, and all that needs no session. A batch is a view of `frame`,
 * valid as long as it is. Fails FRAME_INVALID or VERSION_UNSUPPORTED.
 */
export function decodeFrame(frame: Uint8Array): ControlMessage | BatchView {
  return decode(frame, header => crc32c(frame.subarray(frameHeaderSizeBytes), frameChecksumStart(header)))
}

/** The same where the CRC-32C of all the frame's bytes was computed already. */
export function decodeSummedFrame(frame: Uint8Array, crc32cOfAll: number): ControlMessage | BatchView {
  return decode(frame, header => otherFrameChecksum(header, crc32cOfAll, frame.length - frameHeaderSizeBytes))
}

function decode(frame: Uint8Array, checksumOf: (header: Uint8Array) => number): ControlMessage | BatchView {
  if (frame.length < frameHeaderSizeBytes) throw invalidFrame('the frame ends inside its header')
  const header = parseFrameHeader(frame)
  const body = frame.subarray(frameHeaderSizeBytes)
  if (body.length !== header.bodySizeBytes)
    throw invalidFrame(`the frame has ${body.length} body bytes, its header says ${header.bodySizeBytes}`)
  checkFrameChecksum(header.crc32c, checksumOf(frame.subarray(0, frameHeaderSizeBytes)))
  return decodeFrameBody(header.type, body)
}

/** The same for a body whose header and checksum have been checked as it arrived. */
export function decodeFrameBody(type: FrameType, body: Uint8Array): ControlMessage | BatchView {
  return type === 'write-batch' ? decodeBatchBody(body) : decodeControlBody(type, body)
}

export function checkFrameChecksum(expected: number, actual: number): void {
  if (expected === actual) return
  throw new Failure('FRAME_INVALID', 'the checksum of the frame does not match: it was changed on its way', {
    expectedCrc32c: expected,
    actualCrc32c: actual,
  })
}
