import { assert } from './assert.ts'
import { alignUp, KiB, MiB } from './units.ts'

const stepSizeBytes = 64 * KiB
const sizeBytesMin = 4 * KiB
const sizeBytesMax = 2 * MiB

/**
 * Memory that is used again and again. Memory that is left to the garbage collector makes it run over the whole heap several times a
 * second, and everybody waits for it. Not more than a bound is kept; what is asked for beyond is new.
 */
export class MemoryPool {
  readonly #keptBytesMax: number
  /** By size; see classOf(). */
  readonly #free = new Map<number, Buffer[]>()
  #keptBytes = 0

  constructor(keptBytesMax: number) {
    this.#keptBytesMax = keptBytesMax
  }

  /** Memory of this size, with anything in it. Give it to give() when nobody reads or writes it any more, or forget it. */
  take(sizeBytes: number): Buffer {
    const classBytes = classOf(sizeBytes)
    if (classBytes === undefined) return Buffer.allocUnsafeSlow(sizeBytes)
    const whole = this.#free.get(classBytes)?.pop()
    if (whole === undefined) return Buffer.allocUnsafeSlow(classBytes).subarray(0, sizeBytes)
    this.#keptBytes -= classBytes
    return whole.length === sizeBytes ? whole : Buffer.from(whole.buffer, 0, sizeBytes)
  }

  /** What take() gave, or a part of it that begins where it does. */
  give(memory: Buffer): void {
    const classBytes = memory.buffer.byteLength
    if (classOf(classBytes) !== classBytes || this.#keptBytes + classBytes > this.#keptBytesMax) return
    assert(memory.byteOffset === 0, 'it begins where what was taken does')
    const free = this.#free.get(classBytes) ?? []
    this.#free.set(classBytes, free)
    free.push(memory)
    this.#keptBytes += classBytes
  }
}

/** Powers of two, then steps of 64 KiB. Undefined where it is too large to be kept. */
function classOf(sizeBytes: number): number | undefined {
  if (sizeBytes > sizeBytesMax) return undefined
  if (sizeBytes > stepSizeBytes) return alignUp(sizeBytes, stepSizeBytes)
  let classBytes = sizeBytesMin
  while (classBytes < sizeBytes) classBytes *= 2
  return classBytes
}
