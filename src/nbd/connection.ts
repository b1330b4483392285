import type { Socket } from 'node:net'
import { assertNever } from '../base/assert.ts'
import { failedWith } from '../base/failure.ts'
import { readSocket } from '../base/socket-reader.ts'
import type { NbdEvents } from './events.ts'
import { greeting, Handshake, optionHeaderFault, type ExportTable, type Negotiated } from './handshake.ts'
import { Intake, type Expectation } from './intake.ts'
import type { MemoryPool } from '../base/memory-pool.ts'
import { optionMagic, requestSizeBytes, type NbdErrorName } from './protocol.ts'
import {
  blockStatusChunk,
  dataChunkHeaderSizeBytes,
  errorChunk,
  planBlockStatus,
  simpleHeaderSizeBytes,
  simpleReply,
  writeDataChunkHeader,
  writeSimpleHeader,
} from './reply.ts'
import { validateRequest, type NbdRequest } from './request.ts'

/** A structured read is answered in pieces of this size, so that it never needs its whole length in memory. */
const readPieceSizeBytes = 4 * 1024 * 1024
/** How long a client may take to read its last answers and to close its side. */
const lingerTimeoutMillis = 30_000
/** What a request costs in memory beside its data. */
const requestOverheadBytes = 1024
/** Simple replies are written into blocks of this size, one behind the other. */
const replyBlockSizeBytes = 256 * simpleHeaderSizeBytes

type Ranged<T extends NbdRequest['type']> = Extract<NbdRequest, { type: T }>

/**
 * One client's connection, from the greeting to its end. Requests run as they arrive and are answered as they finish. What
 * they hold in memory, together with the replies that the client has not taken yet, is bounded: at the bound nothing more is
 * read from the socket. A request that arrived in part when the connection ended never happened.
 */
export class Connection {
  readonly address: string
  readonly #socket: Socket
  readonly #handshake: Handshake
  readonly #events: NbdEvents
  readonly #inFlightBytesMax: number
  readonly #intake: Intake
  readonly #memory: MemoryPool
  readonly #onOpen: (negotiated: Negotiated) => void
  #negotiated: Negotiated | undefined
  #inFlightBytes = 0
  #requestCount = 0
  #heldHeader: Buffer | undefined
  #corked = false
  /** Simple replies: sent up to `#repliesStart`, ready up to `#repliesEnd`. */
  #replies = Buffer.allocUnsafe(0)
  #repliesStart = 0
  #repliesEnd = 0
  #ending = false
  #dead = false
  #whenIdle: (() => void)[] = []

  constructor(
    socket: Socket,
    exports: ExportTable,
    events: NbdEvents,
    limits: { readonly inFlightBytesMax: number; readonly handshakeTimeoutMillis: number },
    memory: MemoryPool,
    onOpen: (negotiated: Negotiated) => void,
  ) {
    this.address = socket.remoteAddress ?? 'local'
    this.#socket = socket
    this.#events = events
    this.#inFlightBytesMax = limits.inFlightBytesMax
    this.#onOpen = onOpen
    this.#handshake = new Handshake(exports)
    this.#memory = memory
    this.#intake = new Intake(piece(4), memory, flags => this.#onClientFlags(flags))
    socket.setNoDelay(true)
    socket.setKeepAlive(true, 30_000)
    socket.setTimeout(limits.handshakeTimeoutMillis, () => this.#refuse('the handshake took too long'))
    socket.on('drain', () => this.#resumeHeld())
    socket.on('end', () => this.close())
    socket.on('error', () => socket.destroy())
    socket.on('close', () => {
      this.#dead = true
      this.#intake.stop()
    })
    readSocket(socket, this.#intake)
    this.#send(greeting())
  }

  get export(): Negotiated['export'] | undefined {
    return this.#negotiated?.export
  }

  /** Takes no more requests; when those that run are answered, the connection ends. */
  close(): void {
    if (this.#ending) return
    this.#ending = true
    this.#intake.stop()
    this.#socket.setTimeout(lingerTimeoutMillis, () => this.#socket.destroy())
    void this.idle().then(() => {
      this.#sendReplies()
      this.#socket.end()
    })
  }

  destroy(): void {
    this.#socket.destroy()
  }

  /** Resolves when no request is in the export's hands; at the latest when all that run have settled. */
  async idle(): Promise<void> {
    if (this.#requestCount > 0) await new Promise<void>(resolve => this.#whenIdle.push(resolve))
  }

  #refuse(reason: string): Expectation {
    this.#events.clientRefused(this.address, reason)
    this.#dead = true
    this.#intake.stop()
    this.#socket.destroy()
    return piece(0)
  }

  // The handshake: every on... takes one piece and says what is expected next; `#next` takes it.

  #next: (piece: Buffer) => Expectation = () => piece(0)

  #onClientFlags(flags: Buffer): Expectation {
    if (this.#negotiated !== undefined || this.#greeted) return this.#next(flags)
    this.#greeted = true
    if (!this.#handshake.acceptClientFlags(flags.readUInt32BE(0))) return this.#refuse('unknown client flags')
    return this.#expectOption()
  }
  #greeted = false

  #expectOption(): Expectation {
    this.#next = header => this.#onOptionHeader(header)
    return piece(16)
  }

  #onOptionHeader(header: Buffer): Expectation {
    if (header.compare(optionMagic, 0, 8, 0, 8) !== 0) return this.#refuse('an option without its magic')
    const type = header.readUInt32BE(8)
    const lengthBytes = header.readUInt32BE(12)
    const fault = optionHeaderFault(type, lengthBytes)
    if (fault !== undefined) return this.#refuse(fault)
    this.#next = data => this.#onOptionData(type, data)
    return piece(lengthBytes)
  }

  #onOptionData(type: number, data: Buffer): Expectation {
    const outcome = this.#handshake.answer(type, data)
    if (outcome.reply.length > 0) this.#send(outcome.reply)
    switch (outcome.next) {
      case 'option':
        if (this.#socket.writableLength > this.#inFlightBytesMax) return this.#refuse('answers are not taken')
        return this.#expectOption()
      case 'close':
        if (outcome.reason !== undefined) return this.#refuse(outcome.reason)
        this.close()
        return piece(0)
      case 'transmission':
        this.#negotiated = outcome.negotiated
        this.#socket.setTimeout(0)
        this.#onOpen(outcome.negotiated)
        return this.#expectRequest()
      default:
        return assertNever(outcome)
    }
  }

  // The transmission.

  #expectRequest(): Expectation {
    this.#next = header => this.#onRequest(header)
    return piece(requestSizeBytes)
  }

  #onRequest(header: Buffer): Expectation {
    const verdict = validateRequest(header, this.#negotiated!)
    if (verdict.kind === 'close') return this.#refuse(verdict.reason)
    if (verdict.kind === 'refuse') {
      if (this.#mustHold(header, 0)) return piece(0)
      const { cookie, error, sentence, payloadBytes } = verdict
      if (payloadBytes === 0) {
        this.#sendError(cookie, error, sentence)
        return this.#expectRequest()
      }
      this.#next = () => {
        this.#sendError(cookie, error, sentence)
        return this.#expectRequest()
      }
      return { sizeBytes: payloadBytes, as: 'skipped' }
    }
    const request = verdict.request
    if (request.type === 'disconnect') {
      this.close()
      return piece(0)
    }
    const dataBytes = request.type === 'read' || request.type === 'write' ? request.lengthBytes : 0
    if (this.#mustHold(header, dataBytes)) return piece(0)
    const costBytes = dataBytes + requestOverheadBytes
    this.#inFlightBytes += costBytes
    if (request.type !== 'write') {
      this.#run(request, costBytes, none)
      return this.#expectRequest()
    }
    this.#next = data => {
      this.#run(request, costBytes, data)
      return this.#expectRequest()
    }
    return { sizeBytes: request.lengthBytes, as: 'kept' }
  }

  /** True where the request has to wait until others have left; it is looked at again then. */
  #mustHold(header: Buffer, dataBytes: number): boolean {
    const usedBytes = this.#inFlightBytes + this.#socket.writableLength
    if (usedBytes === 0 || usedBytes + dataBytes + requestOverheadBytes <= this.#inFlightBytesMax) return false
    this.#heldHeader = Buffer.from(header)
    this.#intake.hold()
    this.#socket.pause()
    return true
  }

  #resumeHeld(): void {
    const header = this.#heldHeader
    if (header === undefined || this.#dead || this.#ending) return
    this.#heldHeader = undefined
    const expectation = this.#onRequest(header)
    if (this.#heldHeader !== undefined || this.#ending || this.#dead) return
    this.#intake.expect(expectation)
    this.#socket.resume()
    this.#intake.release()
  }

  #run(request: NbdRequest & { cookie: bigint }, costBytes: number, data: Buffer): void {
    this.#requestCount++
    this.#serve(request, data).then(
      () => {
        if (request.type === 'write') this.#memory.give(data)
        if (request.type !== 'read' && request.type !== 'block-status') this.#sendDone(request.cookie)
        this.#finish(costBytes)
      },
      (error: unknown) => {
        this.#events.requestFailed(this.#negotiated!.export.name, { command: request.type, error })
        this.#sendError(request.cookie, errorName(error), error instanceof Error ? error.message : String(error))
        this.#finish(costBytes)
      },
    )
  }

  #finish(costBytes: number): void {
    this.#inFlightBytes -= costBytes
    this.#requestCount--
    if (this.#requestCount === 0) for (const resolve of this.#whenIdle.splice(0)) resolve()
    if (this.#heldHeader !== undefined) this.#resumeHeld()
  }

  /** What is answered with data is answered here; for everything else there is nothing to say but that it is done. */
  #serve(request: NbdRequest & { cookie: bigint }, data: Buffer): Promise<void> {
    const disk = this.#negotiated!.export
    switch (request.type) {
      case 'read':
        return this.#negotiated!.structuredReplies ? this.#readInChunks(request) : this.#readWhole(request)
      case 'write':
        return disk.write(request.offsetBytes, data, request)
      case 'zero':
        return disk.zero(request.offsetBytes, request.lengthBytes, request)
      case 'trim':
        return disk.trim(request.offsetBytes, request.lengthBytes, request)
      case 'flush':
        return disk.flush()
      case 'block-status':
        return this.#tellBlockStatus(request)
      default:
        throw new Error('a disconnect is not served')
    }
  }

  async #tellBlockStatus(request: Ranged<'block-status'>): Promise<void> {
    const extents = await this.#negotiated!.export.blockStatus(request.offsetBytes, request.lengthBytes)
    const planned = planBlockStatus(extents, request.lengthBytes, request.oneExtent)
    this.#send(blockStatusChunk(request.cookie, planned))
  }

  async #readWhole(request: Ranged<'read'>): Promise<void> {
    const reply = this.#memory.take(simpleHeaderSizeBytes + request.lengthBytes)
    writeSimpleHeader(reply, 0, request.cookie, 0)
    await this.#negotiated!.export.read(request.offsetBytes, reply.subarray(simpleHeaderSizeBytes))
    this.#sendAndGive(reply)
  }

  async #readInChunks(request: Ranged<'read'>): Promise<void> {
    const endBytes = request.offsetBytes + request.lengthBytes
    const pieceMax = request.inOnePiece ? request.lengthBytes : readPieceSizeBytes
    for (let at = request.offsetBytes; at < endBytes && !this.#dead; at += pieceMax) {
      const lengthBytes = Math.min(pieceMax, endBytes - at)
      const chunk = this.#memory.take(dataChunkHeaderSizeBytes + lengthBytes)
      writeDataChunkHeader(chunk, request.cookie, { offsetBytes: at, lengthBytes, last: at + lengthBytes === endBytes })
      await this.#negotiated!.export.read(at, chunk.subarray(dataChunkHeaderSizeBytes))
      this.#sendAndGive(chunk)
    }
  }

  #sendError(cookie: bigint, error: NbdErrorName, sentence: string): void {
    const structured = this.#negotiated?.structuredReplies === true
    this.#send(structured ? errorChunk(cookie, error, sentence) : simpleReply(cookie, error))
  }

  #sendDone(cookie: bigint): void {
    if (this.#repliesEnd === this.#replies.length) {
      this.#sendReplies()
      this.#replies = Buffer.allocUnsafeSlow(replyBlockSizeBytes)
      this.#repliesStart = this.#repliesEnd = 0
    }
    writeSimpleHeader(this.#replies, this.#repliesEnd, cookie, 0)
    this.#repliesEnd += simpleHeaderSizeBytes
    // The last one that runs: nothing comes that it could leave with.
    if (this.#requestCount === 1 && !this.#corked) this.#sendReplies()
    else this.#cork()
  }

  #send(bytes: Buffer): void {
    this.#cork()
    this.#sendReplies()
    if (!this.#dead) this.#socket.write(bytes)
  }

  /** The memory is the pool's again when the system has taken what is in it. */
  #sendAndGive(bytes: Buffer): void {
    this.#cork()
    this.#sendReplies()
    if (this.#dead) this.#memory.give(bytes)
    else this.#socket.write(bytes, () => this.#memory.give(bytes))
  }

  #sendReplies(): void {
    if (this.#repliesStart === this.#repliesEnd) return
    const ready = this.#replies.subarray(this.#repliesStart, this.#repliesEnd)
    this.#repliesStart = this.#repliesEnd
    if (!this.#dead) this.#socket.write(ready)
  }

  /** Replies that become ready in one turn of the event loop leave in one system call. */
  #cork(): void {
    if (this.#corked) return
    this.#corked = true
    this.#socket.cork()
    setImmediate(() => {
      this.#corked = false
      this.#sendReplies()
      this.#socket.uncork()
    })
  }
}

const none = Buffer.alloc(0)

function piece(sizeBytes: number): Expectation {
  return { sizeBytes, as: 'passing' }
}

function errorName(error: unknown): NbdErrorName {
  if (failedWith(error, 'CLOSING')) return 'ESHUTDOWN'
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return code === 'ENOSPC' || code === 'EPERM' ? code : 'EIO'
}
