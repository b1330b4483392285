import type { NbdExport } from './export.ts'
import {
  allocationContext,
  handshakeFlag,
  infoType,
  nameSizeBytesMax,
  option,
  optionReply,
  optionReplyMagic,
  optionSizeBytesMax,
  preferredBlockSizeBytes,
  requestSizeBytesMax,
  serverMagic,
  transmissionFlag,
} from './protocol.ts'

// Fixed-newstyle haggling: the client sends options, each is answered, until one of them begins the transmission or ends the
// connection. Bytes in, bytes out: nothing here knows sockets, so a test can try every input.

/** What was agreed on when transmission begins. */
export interface Negotiated {
  readonly export: NbdExport
  readonly structuredReplies: boolean
  readonly allocationContext: boolean
}

/** The answer to one option: bytes to send, and what comes then. */
export type OptionOutcome =
  | { readonly next: 'option'; readonly reply: Buffer }
  | { readonly next: 'transmission'; readonly reply: Buffer; readonly negotiated: Negotiated }
  | { readonly next: 'close'; readonly reply: Buffer; readonly reason?: string }

/** What the handshake asks of the server. */
export interface ExportTable {
  list(): readonly NbdExport[]
  find(name: string): NbdExport | undefined
  /** Undefined where this client may open the export now, else a sentence why not. */
  refusal(found: NbdExport): string | undefined
}

export function greeting(): Buffer {
  const flags = Buffer.alloc(2)
  flags.writeUInt16BE(handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes)
  return Buffer.concat([serverMagic, flags])
}

export class Handshake {
  readonly #exports: ExportTable
  #noZeroes = false
  #structuredReplies = false
  /** The export for which base:allocation was agreed on. */
  #contextOf: string | undefined

  constructor(exports: ExportTable) {
    this.#exports = exports
  }

  /** Takes the client's flags; false where it sent one that is not known, and must be left. */
  acceptClientFlags(flags: number): boolean {
    const { fixedNewstyle, noZeroes } = handshakeFlag
    this.#noZeroes = flags % (2 * noZeroes) >= noZeroes
    return flags === fixedNewstyle || flags === fixedNewstyle + noZeroes
  }

  answer(type: number, data: Buffer): OptionOutcome {
    switch (type) {
      case option.exportName:
        return this.#openByName(data)
      case option.abort:
        return { next: 'close', reply: reply(type, optionReply.ack) }
      case option.list:
        return { next: 'option', reply: data.length === 0 ? this.#list() : invalid(type, 'LIST takes no data') }
      case option.structuredReply:
        if (data.length !== 0) return { next: 'option', reply: invalid(type, 'STRUCTURED_REPLY takes no data') }
        this.#structuredReplies = true
        return { next: 'option', reply: reply(type, optionReply.ack) }
      case option.info:
      case option.go:
        return this.#inform(type, data)
      case option.listMetaContext:
      case option.setMetaContext:
        return { next: 'option', reply: this.#contexts(type, data) }
      default:
        return { next: 'option', reply: refusal(type, optionReply.unsupported, 'not supported') }
    }
  }

  /** The old way to open an export: there is no reply that could refuse it. */
  #openByName(data: Buffer): OptionOutcome {
    const found = this.#exports.find(data.toString('utf8'))
    const why = found === undefined ? 'there is no export of that name' : this.#exports.refusal(found)
    if (found === undefined || why !== undefined) return { next: 'close', reply: nothing, reason: why ?? '' }
    const body = Buffer.alloc(this.#noZeroes ? 10 : 134)
    body.writeBigUInt64BE(BigInt(found.sizeBytes), 0)
    body.writeUInt16BE(this.#transmissionFlags(found), 8)
    return { next: 'transmission', reply: body, negotiated: this.#negotiated(found) }
  }

  #list(): Buffer {
    const servers = this.#exports.list().map(each => {
      const name = Buffer.from(each.name)
      return reply(option.list, optionReply.server, uint32(name.length), name, Buffer.from(each.description))
    })
    return Buffer.concat([...servers, reply(option.list, optionReply.ack)])
  }

  #inform(type: number, data: Buffer): OptionOutcome {
    const fields = new Fields(data)
    const name = fields.text(fields.uint32())
    const requested = Array.from({ length: fields.uint16() }, () => fields.uint16())
    if (!fields.exact)
      return { next: 'option', reply: invalid(type, 'the lengths in the option contradict each other') }
    const found = this.#exports.find(name)
    if (found === undefined)
      return { next: 'option', reply: refusal(type, optionReply.unknown, 'there is no export of that name') }
    const why = type === option.go ? this.#exports.refusal(found) : undefined
    if (why !== undefined) return { next: 'option', reply: refusal(type, optionReply.policy, why) }
    const facts = [this.#exportInfo(type, found), blockSizeInfo(type)]
    if (requested.includes(infoType.name)) facts.push(textInfo(type, infoType.name, found.name))
    if (requested.includes(infoType.description)) facts.push(textInfo(type, infoType.description, found.description))
    const answer = Buffer.concat([...facts, reply(type, optionReply.ack)])
    if (type === option.info) return { next: 'option', reply: answer }
    return { next: 'transmission', reply: answer, negotiated: this.#negotiated(found) }
  }

  #exportInfo(type: number, found: NbdExport): Buffer {
    const info = Buffer.alloc(12)
    info.writeUInt16BE(infoType.export, 0)
    info.writeBigUInt64BE(BigInt(found.sizeBytes), 2)
    info.writeUInt16BE(this.#transmissionFlags(found), 10)
    return reply(type, optionReply.info, info)
  }

  #contexts(type: number, data: Buffer): Buffer {
    const selects = type === option.setMetaContext
    if (selects) this.#contextOf = undefined // a SET that fails leaves nothing selected
    if (selects && !this.#structuredReplies) return invalid(type, 'STRUCTURED_REPLY comes first')
    const fields = new Fields(data)
    const name = fields.text(fields.uint32())
    const queries: string[] = []
    for (let left = fields.uint32(); left > 0 && fields.valid; left--) queries.push(fields.text(fields.uint32()))
    if (!fields.exact) return invalid(type, 'the lengths in the option contradict each other')
    const found = this.#exports.find(name)
    if (found === undefined) return refusal(type, optionReply.unknown, 'there is no export of that name')
    const listed = !selects && (queries.length === 0 || queries.includes('base:'))
    if (!listed && !queries.includes(allocationContext.name)) return reply(type, optionReply.ack)
    if (selects) this.#contextOf = found.name
    const id = uint32(selects ? allocationContext.id : 0)
    const offered = reply(type, optionReply.metaContext, id, Buffer.from(allocationContext.name))
    return Buffer.concat([offered, reply(type, optionReply.ack)])
  }

  #negotiated(found: NbdExport): Negotiated {
    return {
      export: found,
      structuredReplies: this.#structuredReplies,
      allocationContext: this.#contextOf === found.name,
    }
  }

  #transmissionFlags(found: NbdExport): number {
    const { hasFlags, readOnly, sendFlush, sendFua, sendTrim, sendWriteZeroes, sendDf, canMultiConn } = transmissionFlag
    const writing = found.readOnly ? readOnly : sendFua | sendTrim | sendWriteZeroes
    return hasFlags | sendFlush | canMultiConn | writing | (this.#structuredReplies ? sendDf : 0)
  }
}

/** The rules for an option's header: a reason to close the connection, or undefined. */
export function optionHeaderFault(type: number, lengthBytes: number): string | undefined {
  if (lengthBytes > optionSizeBytesMax) return `an option of ${lengthBytes} bytes`
  if (type === option.exportName && lengthBytes > nameSizeBytesMax) return `an export name of ${lengthBytes} bytes`
  return undefined
}

const nothing = Buffer.alloc(0)

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

//   offset  size  field
//        0     8  0x0003e889045565a9
//        8     4  the option that is answered
//       12     4  reply type
//       16     4  length of the data that follows
function reply(type: number, replyType: number, ...data: Buffer[]): Buffer {
  const sizeBytes = data.reduce((sum, piece) => sum + piece.length, 0)
  return Buffer.concat([optionReplyMagic, uint32(type), uint32(replyType), uint32(sizeBytes), ...data])
}

function refusal(type: number, replyType: number, sentence: string): Buffer {
  return reply(type, replyType, Buffer.from(sentence))
}

function invalid(type: number, sentence: string): Buffer {
  return refusal(type, optionReply.invalid, sentence)
}

function textInfo(type: number, info: number, text: string): Buffer {
  const prefix = Buffer.alloc(2)
  prefix.writeUInt16BE(info)
  return reply(type, optionReply.info, prefix, Buffer.from(text))
}

function blockSizeInfo(type: number): Buffer {
  const info = Buffer.alloc(14)
  info.writeUInt16BE(infoType.blockSize, 0)
  info.writeUInt32BE(1, 2)
  info.writeUInt32BE(preferredBlockSizeBytes, 6)
  info.writeUInt32BE(requestSizeBytesMax, 10)
  return reply(type, optionReply.info, info)
}

/** Reads an option's data front to back; running past the end makes it invalid and yields zeros. */
class Fields {
  readonly #data: Buffer
  #at = 0
  valid = true

  constructor(data: Buffer) {
    this.#data = data
  }

  /** True when every field was there and nothing is left. */
  get exact(): boolean {
    return this.valid && this.#at === this.#data.length
  }

  uint16(): number {
    return this.#has(2) ? this.#data.readUInt16BE(this.#at - 2) : 0
  }

  uint32(): number {
    return this.#has(4) ? this.#data.readUInt32BE(this.#at - 4) : 0
  }

  text(sizeBytes: number): string {
    return this.#has(sizeBytes) ? this.#data.toString('utf8', this.#at - sizeBytes, this.#at) : ''
  }

  #has(sizeBytes: number): boolean {
    this.valid &&= this.#data.length - this.#at >= sizeBytes
    if (this.valid) this.#at += sizeBytes
    return this.valid
  }
}
