import { GrowingBuffer } from '../mirror/mirror.ts'

/** The one buffer in which segments are built, one at a time; given back when none was built for a while. */
export class SegmentMemory {
  readonly #buffer = new GrowingBuffer()
  #lastUsedMillis = 0

  /** For who holds the segment permit, until it is given back. */
  take(sizeBytes: number): Uint8Array {
    this.#lastUsedMillis = performance.now()
    return this.#buffer.reserve(sizeBytes)
  }

  /** Who still holds what was taken keeps it: nobody writes to it but its holder. */
  releaseUnused(forMillis: number): void {
    if (performance.now() - this.#lastUsedMillis >= forMillis) this.#buffer.release()
  }
}
