import type { NbdExtent } from './export.ts'
import {
  allocationContext,
  chunkFlagDone,
  chunkType,
  extentState,
  nbdError,
  simpleReplyMagic,
  structuredReplyMagic,
  type NbdErrorName,
} from './protocol.ts'

//   offset  size  field                       A simple reply; the data of a read follows.
//        0     4  0x67446698
//        4     4  error, 0 for none
//        8     8  cookie of the request
export const simpleHeaderSizeBytes = 16

export function writeSimpleHeader(target: Buffer, at: number, cookie: bigint, error: number): void {
  target.writeUInt32BE(simpleReplyMagic, at)
  target.writeUInt32BE(error, at + 4)
  target.writeBigUInt64BE(cookie, at + 8)
}

export function simpleReply(cookie: bigint, error: NbdErrorName | undefined): Buffer {
  const reply = Buffer.allocUnsafe(simpleHeaderSizeBytes)
  writeSimpleHeader(reply, 0, cookie, error === undefined ? 0 : nbdError[error])
  return reply
}

//   offset  size  field                       A chunk of a structured reply; its data follows.
//        0     4  0x668e33ef
//        4     2  flags: 1 on the last chunk
//        6     2  type
//        8     8  cookie of the request
//       16     4  length of the data
const chunkHeaderSizeBytes = 20

function writeChunkHeader(target: Buffer, type: number, cookie: bigint, dataBytes: number, done: boolean): void {
  target.writeUInt32BE(structuredReplyMagic, 0)
  target.writeUInt16BE(done ? chunkFlagDone : 0, 4)
  target.writeUInt16BE(type, 6)
  target.writeBigUInt64BE(cookie, 8)
  target.writeUInt32BE(dataBytes, 16)
}

/** Where the bytes of the disk begin in a data chunk: behind the header and their 8-byte offset. */
export const dataChunkHeaderSizeBytes = chunkHeaderSizeBytes + 8

export function writeDataChunkHeader(
  target: Buffer,
  cookie: bigint,
  range: { readonly offsetBytes: number; readonly lengthBytes: number; readonly last: boolean },
): void {
  writeChunkHeader(target, chunkType.offsetData, cookie, 8 + range.lengthBytes, range.last)
  target.writeBigUInt64BE(BigInt(range.offsetBytes), chunkHeaderSizeBytes)
}

/** Ends a reply with an error and a sentence for whoever reads the client's log. */
export function errorChunk(cookie: bigint, error: NbdErrorName, sentence: string): Buffer {
  const message = Buffer.from(sentence.slice(0, 1000))
  const chunk = Buffer.allocUnsafe(chunkHeaderSizeBytes + 6 + message.length)
  writeChunkHeader(chunk, chunkType.error, cookie, 6 + message.length, true)
  chunk.writeUInt32BE(nbdError[error], chunkHeaderSizeBytes)
  chunk.writeUInt16BE(message.length, chunkHeaderSizeBytes + 4)
  message.copy(chunk, chunkHeaderSizeBytes + 6)
  return chunk
}

export function blockStatusChunk(cookie: bigint, extents: readonly NbdExtent[]): Buffer {
  const chunk = Buffer.allocUnsafe(chunkHeaderSizeBytes + 4 + 8 * extents.length)
  writeChunkHeader(chunk, chunkType.blockStatus, cookie, 4 + 8 * extents.length, true)
  chunk.writeUInt32BE(allocationContext.id, chunkHeaderSizeBytes)
  extents.forEach((extent, index) => {
    const at = chunkHeaderSizeBytes + 4 + 8 * index
    chunk.writeUInt32BE(extent.lengthBytes, at)
    chunk.writeUInt32BE(extentState[extent.kind], at + 4)
  })
  return chunk
}

/** At most this many extents go into one answer; the client asks again from where it ends. */
const extentCountMax = 1024

/** The extents as the protocol wants them: none empty, neighbours of a kind merged, cut to the range where only one is wanted. */
export function planBlockStatus(
  extents: readonly NbdExtent[],
  lengthBytes: number,
  oneExtent: boolean,
): readonly NbdExtent[] {
  const planned: NbdExtent[] = []
  let left = lengthBytes
  for (const extent of extents) {
    if (left <= 0) break
    const taken = Math.min(extent.lengthBytes, left)
    if (taken === 0) continue
    const last = planned.at(-1)
    if (last?.kind === extent.kind) planned.push({ lengthBytes: planned.pop()!.lengthBytes + taken, kind: last.kind })
    else if (planned.length === (oneExtent ? 1 : extentCountMax)) break
    else planned.push({ lengthBytes: taken, kind: extent.kind })
    left -= taken
  }
  return planned
}
