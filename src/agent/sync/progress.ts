import type { Clock } from '../../base/clock.ts'

/** How far the synchronisation of one volume is, and how fast. */
export class SyncProgress {
  readonly #clock: Clock
  #doneBytes = 0
  #sentBytes = 0
  /** Of the last window: when it began, and what was done by then. */
  #windowMillis: number
  #windowDoneBytes = 0
  #rateBytesPerSecond = 0

  constructor(clock: Clock) {
    this.#clock = clock
    this.#windowMillis = clock.monotonicMillis()
  }

  /** Looked at. */
  get doneBytes(): number {
    return this.#doneBytes
  }
  /** Of those, sent as data. */
  get sentBytes(): number {
    return this.#sentBytes
  }

  begin(): void {
    this.#doneBytes = this.#sentBytes = this.#windowDoneBytes = this.#rateBytesPerSecond = 0
    this.#windowMillis = this.#clock.monotonicMillis()
  }

  noteDone(bytes: number): void {
    this.#doneBytes += bytes
  }
  noteSent(bytes: number): void {
    this.#sentBytes += bytes
  }

  /** Of the last seconds. */
  rateBytesPerSecond(): number {
    const now = this.#clock.monotonicMillis()
    const passedMillis = now - this.#windowMillis
    if (passedMillis < windowMillis) return this.#rateBytesPerSecond
    this.#rateBytesPerSecond = Math.round(((this.#doneBytes - this.#windowDoneBytes) * 1000) / passedMillis)
    this.#windowMillis = now
    this.#windowDoneBytes = this.#doneBytes
    return this.#rateBytesPerSecond
  }

  /** How long so many bytes take at this rate; undefined while nothing is done. */
  secondsFor(remainingBytes: number): number | undefined {
    const rate = this.rateBytesPerSecond()
    return rate === 0 ? undefined : Math.ceil(remainingBytes / rate)
  }
}

const windowMillis = 2_000
