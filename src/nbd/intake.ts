import type { ByteTaker } from '../base/socket-reader.ts'
import { KiB } from '../base/units.ts'
import type { MemoryPool } from '../base/memory-pool.ts'

/**
 * What is to come next, and how it is handed on: 'passing' bytes are there only for the call, 'kept' ones are in memory that the taker
 * gives back, and of 'skipped' ones nothing is.
 */
export interface Expectation {
  readonly sizeBytes: number
  readonly as: 'passing' | 'kept' | 'skipped'
}

/** What is received goes here first, whichever connection it is of: it is used up before the next is read. */
const sharedBuffer = Buffer.allocUnsafeSlow(256 * KiB)
/** Where so much of a kept piece is still to come, it is received where it belongs. */
const directSizeBytesMin = 16 * KiB

/**
 * Cuts a byte stream into pieces whose sizes become known one after another. While held, what has arrived is kept, and nothing is
 * handed on.
 */
export class Intake implements ByteTaker {
  readonly #onPiece: (piece: Buffer) => Expectation
  readonly #memory: MemoryPool
  #expected: Expectation
  /** The piece that has arrived in part, or is kept. */
  #gathered: Buffer | undefined
  #gatheredBytes = 0
  /** The rest of #gathered, where it was given out to be received into. */
  #direct: Buffer | undefined
  /** What came while nothing was handed on. */
  #waiting: Buffer[] = []
  #held = false
  #stopped = false
  #pushing = false

  constructor(first: Expectation, memory: MemoryPool, onPiece: (piece: Buffer) => Expectation) {
    this.#expected = first
    this.#memory = memory
    this.#onPiece = onPiece
  }

  nextBuffer(): Buffer {
    this.#direct = undefined
    const { as, sizeBytes } = this.#expected
    if (as !== 'kept' || this.#held || sizeBytes - this.#gatheredBytes < directSizeBytesMin) return sharedBuffer
    this.#gathered ??= this.#memory.take(sizeBytes)
    this.#direct = this.#gathered.subarray(this.#gatheredBytes)
    return this.#direct
  }

  take(buffer: Uint8Array, sizeBytes: number): void {
    if (this.#stopped) return
    if (buffer === this.#direct) {
      this.#direct = undefined
      this.#gatheredBytes += sizeBytes
      if (this.#gatheredBytes === this.#expected.sizeBytes) this.#finishPiece(this.#gathered ?? empty)
      this.#advance(empty)
    } else this.#advance(Buffer.from(buffer.buffer, buffer.byteOffset, sizeBytes))
  }

  hold(): void {
    this.#held = true
  }

  release(): void {
    this.#held = false
    this.#advance(empty)
  }

  /** Replaces what is expected next; only while held, by whoever took the last piece. */
  expect(next: Expectation): void {
    this.#expected = next
  }

  /** Forgets everything that has arrived, and hands on nothing any more. Memory that may still be received into is not used again. */
  stop(): void {
    this.#held = this.#stopped = true
    this.#waiting = []
    this.#gathered = undefined
  }

  #advance(chunk: Buffer): void {
    let rest = chunk
    if (this.#pushing || this.#waiting.length > 0) {
      if (chunk.length > 0) this.#waiting.push(Buffer.from(chunk)) // a copy: the memory is received into again
      rest = empty
    }
    if (this.#pushing) return
    this.#pushing = true
    while (!this.#held) {
      if (rest.length === 0) rest = this.#waiting.shift() ?? empty
      const needed = this.#expected.sizeBytes - this.#gatheredBytes
      if (needed > 0 && rest.length === 0) break
      const taken = Math.min(needed, rest.length)
      const piece = rest.subarray(0, taken)
      rest = rest.subarray(taken)
      this.#takePiece(piece)
    }
    if (rest.length > 0 && !this.#stopped) this.#waiting.unshift(Buffer.from(rest))
    this.#pushing = false
  }

  #takePiece(bytes: Buffer): void {
    const { sizeBytes, as } = this.#expected
    const isWhole = bytes.length === sizeBytes
    if (as === 'kept' || (as === 'passing' && !isWhole)) {
      this.#gathered ??= as === 'kept' ? this.#memory.take(sizeBytes) : Buffer.allocUnsafe(sizeBytes)
      this.#gathered.set(bytes, this.#gatheredBytes)
    }
    this.#gatheredBytes += bytes.length
    if (this.#gatheredBytes === sizeBytes) this.#finishPiece(this.#gathered ?? (as === 'skipped' ? empty : bytes))
  }

  #finishPiece(piece: Buffer): void {
    this.#gathered = undefined
    this.#gatheredBytes = 0
    this.#expected = this.#onPiece(piece)
  }
}

const empty = Buffer.alloc(0)
