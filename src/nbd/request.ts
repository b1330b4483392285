import type { Negotiated } from './handshake.ts'
import {
  command,
  commandFlag,
  requestMagic,
  requestSizeBytesMax,
  skippedSizeBytesMax,
  type NbdErrorName,
} from './protocol.ts'

/** A request that has passed every rule: whoever executes it may rely on its range, its flags and the export's mode. */
export type NbdRequest =
  | ({ readonly type: 'read'; readonly inOnePiece: boolean } & Ranged)
  | ({ readonly type: 'write'; readonly fua: boolean } & Ranged)
  | ({ readonly type: 'trim'; readonly fua: boolean } & Ranged)
  | ({ readonly type: 'zero'; readonly fua: boolean; readonly mayTrim: boolean } & Ranged)
  | ({ readonly type: 'block-status'; readonly oneExtent: boolean } & Ranged)
  | { readonly type: 'flush'; readonly cookie: bigint }
  | { readonly type: 'disconnect' }

interface Ranged {
  readonly cookie: bigint
  readonly offsetBytes: number
  readonly lengthBytes: number
}

/** What a request's header leads to. */
export type Verdict =
  | { readonly kind: 'serve'; readonly request: NbdRequest }
  /** Answer with the error; `payloadBytes` that follow the header belong to it and are skipped. */
  | {
      readonly kind: 'refuse'
      readonly cookie: bigint
      readonly error: NbdErrorName
      readonly sentence: string
      readonly payloadBytes: number
    }
  /** The two sides do not speak the same language any more: close the connection. */
  | { readonly kind: 'close'; readonly reason: string }

const flagsAllowed: Readonly<Record<number, number>> = {
  [command.read]: commandFlag.fua | commandFlag.df,
  [command.write]: commandFlag.fua,
  [command.disconnect]: commandFlag.fua,
  [command.flush]: commandFlag.fua,
  [command.trim]: commandFlag.fua,
  [command.writeZeroes]: commandFlag.fua | commandFlag.noHole,
  [command.blockStatus]: commandFlag.fua | commandFlag.reqOne,
}

//   offset  size  field
//        0     4  0x25609513
//        4     2  flags
//        6     2  type
//        8     8  cookie
//       16     8  offset
//       24     4  length
/** All the rules of the transmission phase, in one place. */
export function validateRequest(header: Buffer, negotiated: Negotiated): Verdict {
  if (header.readUInt32BE(0) !== requestMagic) return { kind: 'close', reason: 'a request without its magic' }
  const flags = header.readUInt16BE(4)
  const type = header.readUInt16BE(6)
  const cookie = header.readBigUInt64BE(8)
  const lengthBytes = header.readUInt32BE(24)
  const payloadBytes = type === command.write ? lengthBytes : 0
  if (payloadBytes > skippedSizeBytesMax) return { kind: 'close', reason: `a write of ${payloadBytes} bytes` }

  const refuse = (error: NbdErrorName, sentence: string): Verdict => ({
    kind: 'refuse',
    cookie,
    error,
    sentence,
    payloadBytes,
  })
  const allowed = flagsAllowed[type]
  if (allowed === undefined) return refuse('EINVAL', `command ${type} is not supported`)
  if ((flags & ~allowed) !== 0) return refuse('EINVAL', `flags ${flags} do not go with command ${type}`)
  if (type === command.disconnect) return { kind: 'serve', request: { type: 'disconnect' } }
  if (type === command.flush) return { kind: 'serve', request: { type: 'flush', cookie } }

  const target = negotiated.export
  const changes = type === command.write || type === command.trim || type === command.writeZeroes
  if (changes && target.readOnly) return refuse('EPERM', 'the export is read-only')
  if (lengthBytes === 0) return refuse('EINVAL', 'a request for no bytes')
  if ((type === command.read || type === command.write) && lengthBytes > requestSizeBytesMax)
    return refuse('EINVAL', `${lengthBytes} bytes are more than one request may carry`)
  const offset = header.readBigUInt64BE(16)
  if (offset + BigInt(lengthBytes) > BigInt(target.sizeBytes))
    return refuse(type === command.write || type === command.writeZeroes ? 'ENOSPC' : 'EINVAL', 'past the end')

  const range = { cookie, offsetBytes: Number(offset), lengthBytes }
  const fua = (flags & commandFlag.fua) !== 0
  switch (type) {
    case command.read: {
      const inOnePiece = (flags & commandFlag.df) !== 0
      if (inOnePiece && !negotiated.structuredReplies) return refuse('EINVAL', 'DF without structured replies')
      return { kind: 'serve', request: { type: 'read', ...range, inOnePiece } }
    }
    case command.write:
      return { kind: 'serve', request: { type: 'write', ...range, fua } }
    case command.trim:
      return { kind: 'serve', request: { type: 'trim', ...range, fua } }
    case command.writeZeroes: {
      const mayTrim = (flags & commandFlag.noHole) === 0
      return { kind: 'serve', request: { type: 'zero', ...range, fua, mayTrim } }
    }
    default: {
      if (!negotiated.allocationContext) return refuse('EINVAL', 'no metadata context was agreed on')
      const oneExtent = (flags & commandFlag.reqOne) !== 0
      return { kind: 'serve', request: { type: 'block-status', ...range, oneExtent } }
    }
  }
}
