import { assert } from '../base/assert.ts'

/** A set of the whole numbers below `bitCount`, a bit each: number n is bit n % 8 of byte n / 8. */
export class Bitmap {
  readonly bitCount: number
  readonly bytes: Uint8Array
  #count = 0

  constructor(bitCount: number) {
    this.bitCount = bitCount
    this.bytes = new Uint8Array(Math.ceil(bitCount / 8))
  }

  /** How many numbers are in it. */
  get count(): number {
    return this.#count
  }

  has(index: number): boolean {
    return ((this.bytes[index >>> 3] ?? 0) & (1 << (index & 7))) !== 0
  }

  /** True where it was not in it before. */
  add(index: number): boolean {
    assert(index >= 0 && index < this.bitCount, `no bit ${index} of ${this.bitCount}`)
    if (this.has(index)) return false
    this.bytes[index >>> 3]! |= 1 << (index & 7)
    this.#count++
    return true
  }

  /** True where it was in it. */
  delete(index: number): boolean {
    if (!this.has(index)) return false
    this.bytes[index >>> 3]! &= ~(1 << (index & 7))
    this.#count--
    return true
  }

  /** The lowest number in it that is not below `from`. */
  next(from: number): number | undefined {
    for (let index = from; index < this.bitCount; index++) {
      if ((index & 7) === 0 && this.bytes[index >>> 3] === 0) index += 7
      else if (this.has(index)) return index
    }
    return undefined
  }

  /** The numbers in it, ascending. It may change meanwhile. */
  *[Symbol.iterator](): Generator<number> {
    for (let index = this.next(0); index !== undefined; index = this.next(index + 1)) yield index
  }

  clear(): void {
    this.bytes.fill(0)
    this.#count = 0
  }

  /** Takes all that the other holds, and leaves it empty. */
  takeAll(other: Bitmap): void {
    for (const index of other) this.add(index)
    other.clear()
  }

  /** Adds the numbers of the bits in `bytes`, the first of which is number `8 * fromByte`; those beyond the end are left out. */
  addBytes(bytes: Uint8Array, fromByte: number): void {
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at]!
      if (byte === 0) continue
      for (let bit = 0; bit < 8; bit++) {
        const index = 8 * (fromByte + at) + bit
        if ((byte & (1 << bit)) !== 0 && index < this.bitCount) this.add(index)
      }
    }
  }
}

/** target |= source, over as many bytes as the source has. */
export function mergeBytes(target: Uint8Array, source: Uint8Array): void {
  for (let at = 0; at < source.length; at++) target[at]! |= source[at]!
}

/** How many numbers are in at least one of the sets, which are of one size. */
export function unionCount(sets: readonly Bitmap[]): number {
  let count = 0
  const byteCount = sets[0]?.bytes.length ?? 0
  for (let at = 0; at < byteCount; at++) {
    let byte = 0
    for (const set of sets) byte |= set.bytes[at]!
    count += onesIn[byte]!
  }
  return count
}

const onesIn = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll('0', '').length)
