/** What the overlays of one recovery may take together. */
export class ScratchBudget {
  readonly sizeBytesMax: number
  #usedSizeBytes = 0
  #refusedCount = 0

  constructor(sizeBytesMax: number) {
    this.sizeBytesMax = sizeBytesMax
  }

  get usedSizeBytes(): number {
    return this.#usedSizeBytes
  }

  /** Writes that found no room. */
  get refusedCount(): number {
    return this.#refusedCount
  }

  /** What is there already, at a start: it counts, over the limit or not. */
  count(sizeBytes: number): void {
    this.#usedSizeBytes += sizeBytes
  }

  /** Throws an Error with the code ENOSPC where it is too much. */
  reserve(sizeBytes: number): void {
    if (sizeBytes > 0 && this.#usedSizeBytes + sizeBytes > this.sizeBytesMax) {
      this.#refusedCount++
      const sentence = `the scratch of this recovery is full: ${this.sizeBytesMax} bytes is its limit`
      throw Object.assign(new Error(sentence), { code: 'ENOSPC' })
    }
    this.#usedSizeBytes += sizeBytes
  }

  giveBack(sizeBytes: number): void {
    this.#usedSizeBytes -= sizeBytes
  }
}
