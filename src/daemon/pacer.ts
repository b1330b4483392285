import { setPaced, type PaceFlag } from '../aging/aging.ts'
import { ackLatencySlowMillis, logShareUnpaced } from '../base/limits.ts'

const turnMillis = 100
const slowShareMax = 0.01

/**
 * Has aging stand back while acknowledgements are slow: guests do not wait for them, but their RPO does. What aging
 * leaves undone stays in the log, so a log that fills is emptied all the same.
 */
export class Pacer {
  readonly #flag: PaceFlag
  readonly #logShare: () => number
  readonly #timer: NodeJS.Timeout
  #count = 0
  #slowCount = 0

  constructor(flag: PaceFlag, logShare: () => number) {
    this.#flag = flag
    this.#logShare = logShare
    this.#timer = setInterval(() => this.#decide(), turnMillis)
    this.#timer.unref()
  }

  /** On the hot path: an acknowledgement was given after so long. */
  observe(ackLatencyMillis: number): void {
    this.#count++
    if (ackLatencyMillis > ackLatencySlowMillis) this.#slowCount++
  }

  async close(): Promise<void> {
    clearInterval(this.#timer)
  }

  #decide(): void {
    const slow = this.#count > 0 && this.#slowCount > slowShareMax * this.#count
    setPaced(this.#flag, slow && this.#logShare() < logShareUnpaced)
    this.#count = 0
    this.#slowCount = 0
  }
}
