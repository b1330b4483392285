import { assert } from '../base/assert.ts'
import { copyInto } from '../base/copy.ts'
import { frameHeaderSizeBytes, receiveBufferSizeBytes, receiveDirectSizeBytesMin } from '../base/limits.ts'
import { crc32c } from '../codec/crc32c.ts'
import type { JournalWriter, Slot } from '../journal/writer.ts'
import type { ByteTaker } from '../base/socket-reader.ts'
import {
  checkFrameChecksum,
  frameChecksumStart,
  otherFrameChecksum,
  parseFrameHeader,
  type FrameHeader,
  type FrameType,
} from '../wire/wire.ts'

export type StreamFrameType = 'write-batch' | 'marker'
export type ControlFrameType = Exclude<FrameType, StreamFrameType>

/** A stream frame that has arrived whole, with a good checksum. */
export interface StreamFrame {
  readonly type: StreamFrameType
  readonly slot: Slot
  /** Of all its bytes, its own checksum field included. */
  readonly crc32c: number
}

/** Who takes the frames. Whatever it throws ends the receiving. */
export interface FrameSink {
  /** Called with a header that is within the bounds, before anything is allocated; throws when the frame may not come now. */
  admit(header: FrameHeader): void
  takeControl(type: ControlFrameType, body: Uint8Array): void
  /** True when the slot was appended; otherwise it is given back. */
  takeStreamFrame(frame: StreamFrame): boolean
  /** Reading must stop (true) while there is no room, and may go on (false). */
  pauseReading(paused: boolean): void
  /** Something failed after push() had returned. */
  fail(error: unknown): void
}

export function isStreamFrame(type: FrameType): type is StreamFrameType {
  return type === 'write-batch' || type === 'marker'
}

/** What is received goes here first, whichever connection it is of: it is used up before the next is read. */
const sharedBuffer = new Uint8Array(receiveBufferSizeBytes)

/**
 * Takes the bytes of one connection as they come. A stream frame is gathered in the memory that the commit thread writes
 * from, and its checksum is computed on the way; a control frame in memory of its own. What begins a frame comes through the
 * shared buffer; the rest of a large one is received where it belongs, without another copy.
 */
export class FrameReceiver implements ByteTaker {
  readonly #journal: JournalWriter
  readonly #sink: FrameSink
  readonly #headerBytes = Buffer.alloc(frameHeaderSizeBytes)
  #headerFilled = 0
  #header: FrameHeader | undefined
  #slot: Slot | undefined
  #frame: Uint8Array | undefined
  #filled = 0
  #checksum = 0
  /** The rest of #frame, where it was given out to be received into. */
  #direct: Uint8Array | undefined
  /** Bytes that came while there was no room: at most what the socket had read when it was paused. */
  #held: Uint8Array[] = []
  #waitsForRoom = false
  #closed = false

  constructor(journal: JournalWriter, sink: FrameSink) {
    this.#journal = journal
    this.#sink = sink
  }

  /** True while a frame has begun and is not whole. */
  get isInsideFrame(): boolean {
    return this.#headerFilled > 0
  }

  get isWaitingForRoom(): boolean {
    return this.#waitsForRoom
  }

  /** The rest of the frame that is being gathered, where that is much; else the buffer that all connections share. */
  nextBuffer(): Uint8Array {
    const frame = this.#slot === undefined ? undefined : this.#frame
    const isLarge = frame !== undefined && frame.length - this.#filled >= receiveDirectSizeBytesMin
    this.#direct = isLarge ? frame.subarray(this.#filled) : undefined
    return this.#direct ?? sharedBuffer
  }

  /** Passes every frame that these bytes complete to the sink. Fails with what the frame, or the sink, fails with. */
  take(buffer: Uint8Array, sizeBytes: number): void {
    if (buffer === this.#direct) this.#extendFrame(buffer.subarray(0, sizeBytes))
    else this.#push(buffer.subarray(0, sizeBytes))
  }

  #push(chunk: Uint8Array): void {
    if (this.#waitsForRoom) {
      this.#held.push(chunk.slice())
      return
    }
    let rest = chunk
    while (rest.length > 0 && !this.#closed) {
      rest = this.#frame === undefined ? this.#fillHeader(rest) : this.#fillFrame(this.#frame, rest)
      if (this.#waitsForRoom) {
        if (rest.length > 0) this.#held.push(rest.slice())
        return
      }
    }
  }

  /** Gives back what a partial frame holds: nothing may be received into it any more. Nothing reaches the sink. */
  close(): void {
    this.#closed = true
    this.#held = []
    this.#direct = undefined
    if (this.#slot !== undefined) this.#journal.release(this.#slot)
    this.#slot = undefined
  }

  #fillHeader(chunk: Uint8Array): Uint8Array {
    const piece = chunk.subarray(0, frameHeaderSizeBytes - this.#headerFilled)
    this.#headerBytes.set(piece, this.#headerFilled)
    this.#headerFilled += piece.length
    if (this.#headerFilled === frameHeaderSizeBytes) {
      this.#header = parseFrameHeader(this.#headerBytes)
      this.#sink.admit(this.#header)
      this.#openFrame(this.#header)
    }
    return chunk.subarray(piece.length)
  }

  /** Finds memory for the frame whose header has come; false when it must be waited for. */
  #openFrame(header: FrameHeader): boolean {
    const sizeBytes = frameHeaderSizeBytes + header.bodySizeBytes
    if (isStreamFrame(header.type)) {
      this.#slot = this.#journal.reserve(sizeBytes)
      if (this.#slot === undefined) {
        this.#waitForRoom(header, sizeBytes)
        return false
      }
      this.#frame = this.#slot.frame
    } else this.#frame = Buffer.allocUnsafeSlow(sizeBytes)
    this.#frame.set(this.#headerBytes)
    this.#filled = frameHeaderSizeBytes
    this.#checksum = frameChecksumStart(this.#headerBytes)
    if (this.#filled === sizeBytes) this.#finishFrame(this.#frame)
    return true
  }

  #waitForRoom(header: FrameHeader, sizeBytes: number): void {
    if (!this.#waitsForRoom) this.#sink.pauseReading(true)
    this.#waitsForRoom = true
    this.#journal.whenRoom(sizeBytes, () => {
      if (this.#closed) return
      try {
        if (this.#openFrame(header)) this.#resume()
      } catch (error) {
        this.#sink.fail(error)
      }
    })
  }

  #resume(): void {
    this.#waitsForRoom = false
    const held = this.#held
    this.#held = []
    for (const chunk of held) this.#push(chunk)
    if (!this.#waitsForRoom && !this.#closed) this.#sink.pauseReading(false)
  }

  #fillFrame(frame: Uint8Array, chunk: Uint8Array): Uint8Array {
    const piece = chunk.subarray(0, frame.length - this.#filled)
    copyInto(frame, this.#filled, piece)
    this.#extendFrame(piece)
    return chunk.subarray(piece.length)
  }

  /** These bytes have come, and stand in the frame. */
  #extendFrame(piece: Uint8Array): void {
    const frame = this.#frame
    assert(frame !== undefined, 'a frame is being gathered')
    this.#checksum = crc32c(piece, this.#checksum)
    this.#filled += piece.length
    if (this.#filled === frame.length) this.#finishFrame(frame)
  }

  #finishFrame(frame: Uint8Array): void {
    const header = this.#header
    assert(header !== undefined, 'a frame that is whole has a header')
    const { type, crc32c: expected } = header
    const slot = this.#slot
    this.#frame = undefined
    this.#slot = undefined
    this.#headerFilled = 0
    let appended = false
    try {
      checkFrameChecksum(expected, this.#checksum)
      if (!isStreamFrame(type)) this.#sink.takeControl(type, frame.subarray(frameHeaderSizeBytes))
      else if (slot !== undefined)
        appended = this.#sink.takeStreamFrame({
          type,
          slot,
          crc32c: otherFrameChecksum(this.#headerBytes, this.#checksum, frame.length - frameHeaderSizeBytes),
        })
    } finally {
      if (slot !== undefined && !appended) this.#journal.release(slot)
    }
  }
}
