/** Work is handed back to whoever shares the processor after this long. */
const sliceMillisMax = 8

/** Tells a long loop when to step aside, and stops it when it was aborted. */
export class Pace {
  readonly #yieldNow: () => Promise<void>
  readonly #signal: AbortSignal
  #sinceMillis = performance.now()

  constructor(yieldNow: () => Promise<void>, signal: AbortSignal) {
    this.#yieldNow = yieldNow
    this.#signal = signal
  }

  /** True when `step` should be awaited now: a cheap test for loops that may not await every time. */
  get due(): boolean {
    return performance.now() - this.#sinceMillis >= sliceMillisMax
  }

  /** Throws the signal's reason when it is aborted; otherwise yields if it is time. */
  async step(): Promise<void> {
    this.#signal.throwIfAborted()
    if (!this.due) return
    await this.#yieldNow()
    this.#sinceMillis = performance.now()
  }
}
