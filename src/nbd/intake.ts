/** What is to come next: a piece handed on whole, or bytes that nobody wants. */
export interface Expectation {
  readonly sizeBytes: number
  readonly wanted: boolean
}

/**
 * Cuts a byte stream into pieces whose sizes become known one after another. A piece that lies in one chunk is handed on
 * as a view of it; any other is gathered into one buffer of its size, so that no byte is copied twice. While held, what
 * has arrived is kept, and nothing is handed on.
 */
export class Intake {
  readonly #onPiece: (piece: Buffer) => Expectation
  #expected: Expectation
  #gathered: Buffer | undefined
  #gatheredBytes = 0
  #waiting: Buffer[] = []
  #held = false
  #pushing = false

  constructor(first: Expectation, onPiece: (piece: Buffer) => Expectation) {
    this.#expected = first
    this.#onPiece = onPiece
  }

  push(chunk: Buffer): void {
    this.#waiting.push(chunk)
    this.#advance()
  }

  hold(): void {
    this.#held = true
  }

  release(): void {
    this.#held = false
    this.#advance()
  }

  /** Replaces what is expected next; only while held, by whoever took the last piece. */
  expect(next: Expectation): void {
    this.#expected = next
  }

  /** Forgets everything that has arrived and holds for ever. */
  stop(): void {
    this.#held = true
    this.#waiting = []
    this.#gathered = undefined
  }

  #advance(): void {
    if (this.#pushing) return
    this.#pushing = true
    while (!this.#held) {
      const chunk = this.#waiting[0]
      const needed = this.#expected.sizeBytes - this.#gatheredBytes
      if (needed > 0 && chunk === undefined) break
      const taken = chunk === undefined ? 0 : Math.min(needed, chunk.length)
      if (chunk !== undefined) {
        if (taken === chunk.length) this.#waiting.shift()
        else this.#waiting[0] = chunk.subarray(taken)
      }
      this.#take(chunk === undefined ? empty : chunk.subarray(0, taken))
    }
    this.#pushing = false
  }

  #take(bytes: Buffer): void {
    const { sizeBytes, wanted } = this.#expected
    const complete = this.#gatheredBytes + bytes.length === sizeBytes
    let piece = bytes
    if (wanted && bytes.length < sizeBytes) {
      this.#gathered ??= Buffer.allocUnsafe(sizeBytes)
      this.#gathered.set(bytes, this.#gatheredBytes)
      piece = this.#gathered
    }
    this.#gatheredBytes += bytes.length
    if (!complete) return
    this.#gathered = undefined
    this.#gatheredBytes = 0
    this.#expected = this.#onPiece(wanted ? piece : empty)
  }
}

const empty = Buffer.alloc(0)
