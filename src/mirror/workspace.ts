import { MiB } from '../base/units.ts'

/** More than this is never allocated on the chance that it will be wanted. */
const growthBytesMax = 4 * MiB

/** A buffer that grows to what was asked of it and is used again. */
export class GrowingBuffer {
  #bytes = new Uint8Array(0)

  /** At least this many bytes; what was in them up to `keepSizeBytes` stays. The bytes asked for before are void. */
  reserve(sizeBytes: number, keepSizeBytes = 0): Uint8Array {
    if (this.#bytes.length < sizeBytes) {
      const grown = new Uint8Array(
        Math.max(sizeBytes, Math.min(2 * this.#bytes.length, this.#bytes.length + growthBytesMax)),
      )
      grown.set(this.#bytes.subarray(0, keepSizeBytes))
      this.#bytes = grown
    }
    return this.#bytes
  }
}

/**
 * The large buffers of one thread's mirror operations: a pack of 128 MiB and the data that goes into it are never allocated
 * twice. Used by one operation at a time.
 */
export class Workspace {
  readonly pack = new GrowingBuffer()
  readonly partition = new GrowingBuffer()
}
