/** Counts what waits, and how long was waited for what has gone on since. */
export class Waits {
  #count = 0
  #millis = 0

  /** Under way at this moment. */
  get count(): number {
    return this.#count
  }

  /** Of those that ran to their end, all together. */
  get millis(): number {
    return this.#millis
  }

  async during(delayMillis: number, wait: Promise<void>): Promise<void> {
    this.#count++
    try {
      await wait
      this.#millis += delayMillis
    } finally {
      this.#count--
    }
  }
}
