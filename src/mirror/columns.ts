/** The smallest power of two that holds so many. */
export function roundUpCapacity(count: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(64, count)))
}

/** A copy with room for more. */
export function grownUint32(from: Uint32Array, capacity: number): Uint32Array<ArrayBuffer> {
  const grown = new Uint32Array(capacity)
  grown.set(from)
  return grown
}

/** A list of numbers of 32 bits that grows. */
export class Uint32Column {
  #values = new Uint32Array(64)
  #count = 0

  get count(): number {
    return this.#count
  }

  push(value: number): void {
    if (this.#count === this.#values.length) this.#values = grownUint32(this.#values, 2 * this.#count)
    this.#values[this.#count++] = value
  }

  /** The numbers so far; a view, valid until the next push. */
  values(): Uint32Array {
    return this.#values.subarray(0, this.#count)
  }
}

/** A list of numbers that grows. */
export class Float64Column {
  #values = new Float64Array(64)
  #count = 0

  push(value: number): void {
    if (this.#count === this.#values.length) {
      const grown = new Float64Array(2 * this.#count)
      grown.set(this.#values)
      this.#values = grown
    }
    this.#values[this.#count++] = value
  }

  /** The numbers so far; a view, valid until the next push. */
  values(): Float64Array {
    return this.#values.subarray(0, this.#count)
  }
}
