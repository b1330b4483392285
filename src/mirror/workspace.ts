import { blockRawSizeBytesMax, packRawSizeBytesMax } from '../base/limits.ts'
import { MiB } from '../base/units.ts'

/** More than this is never allocated on the chance that it will be wanted. */
const growthBytesMax = 4 * MiB

/** A buffer that grows to what was asked of it and is used again. */
export class GrowingBuffer {
  readonly #firstSizeBytes: number
  #bytes = new Uint8Array(0)

  /**
   * The first allocation is at least this large. Memory that nobody has written to is not resident, so a generous one costs
   * nothing, where growing costs the old and the new at once until the old is collected.
   */
  constructor(firstSizeBytes = 0) {
    this.#firstSizeBytes = firstSizeBytes
  }

  /** At least this many bytes; what was in them up to `keepSizeBytes` stays. The bytes asked for before are void. */
  reserve(sizeBytes: number, keepSizeBytes = 0): Uint8Array {
    if (this.#bytes.length < sizeBytes) {
      const before = this.#bytes
      const grownSizeBytes = Math.min(2 * before.length, before.length + growthBytesMax)
      this.#bytes = new Uint8Array(Math.max(sizeBytes, grownSizeBytes, this.#firstSizeBytes))
      this.#bytes.set(before.subarray(0, keepSizeBytes))
    }
    return this.#bytes
  }

  /** Gives the memory back. */
  release(): void {
    this.#bytes = new Uint8Array(0)
  }
}

/** Beside its raw data a pack has 16 bytes an extent and a block, at most 1/32 where extents are 512 bytes, and its tail. */
const packSizeBytesMax = (packRawSizeBytesMax * 33) / 32 + blockRawSizeBytesMax

/**
 * The large buffers of one thread's mirror operations: a pack of 128 MiB and the data that goes into it are never allocated
 * twice. Used by one operation at a time, inside use(); between two of them the memory may be given back.
 */
export class Workspace {
  readonly pack: GrowingBuffer
  readonly partition = new GrowingBuffer()
  #userCount = 0
  #unusedSinceMillis = 0

  /** A first pack is allocated with so much room: where packs are known to be small, less will do. */
  constructor(packSizeBytes = packSizeBytesMax) {
    this.pack = new GrowingBuffer(packSizeBytes)
  }

  /** While `work` is under way the buffers are its own. */
  async use<T>(work: () => Promise<T>): Promise<T> {
    this.#userCount++
    try {
      return await work()
    } finally {
      this.#userCount--
      this.#unusedSinceMillis = performance.now()
    }
  }

  /** Gives the memory back when nobody has used it for so long. */
  releaseUnused(forMillis: number): void {
    if (this.#userCount > 0 || performance.now() - this.#unusedSinceMillis < forMillis) return
    this.pack.release()
    this.partition.release()
  }
}
