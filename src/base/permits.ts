/** At most `count` holders at once; the rest wait in order. */
export class Permits {
  #free: number
  readonly #waiting: (() => void)[] = []

  constructor(count: number) {
    this.#free = count
  }

  /** Of those that wait for a permit now. */
  get waitingCount(): number {
    return this.#waiting.length
  }

  /** Runs `work` while holding one permit, and gives it back however the work ends. */
  async with<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--
    else await new Promise<void>(resolve => this.#waiting.push(resolve))
    try {
      return await work()
    } finally {
      const next = this.#waiting.shift()
      if (next === undefined) this.#free++
      else next()
    }
  }
}
