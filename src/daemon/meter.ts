import type { Clock } from '../base/clock.ts'

/** Seconds that a rate looks back. */
const windowSeconds = 5

/** Counts writes and bytes, and tells their rates over the last few seconds. */
export class Meter {
  readonly #clock: Clock
  readonly #writes = new Float64Array(windowSeconds + 1)
  readonly #bytes = new Float64Array(windowSeconds + 1)
  #second = 0
  writesTotal = 0
  bytesTotal = 0

  constructor(clock: Clock) {
    this.#clock = clock
  }

  add(writeCount: number, sizeBytes: number): void {
    const slot = this.#advance()
    this.#writes[slot] = (this.#writes[slot] ?? 0) + writeCount
    this.#bytes[slot] = (this.#bytes[slot] ?? 0) + sizeBytes
    this.writesTotal += writeCount
    this.bytesTotal += sizeBytes
  }

  /** Means of the last whole seconds; the running one is left out, or every rate would seem to dip. */
  rates(): { readonly writesPerSecond: number; readonly bytesPerSecond: number } {
    const running = this.#advance()
    const sum = (ring: Float64Array): number =>
      ring.reduce((total, value, slot) => (slot === running ? total : total + value), 0)
    return { writesPerSecond: sum(this.#writes) / windowSeconds, bytesPerSecond: sum(this.#bytes) / windowSeconds }
  }

  /** The slot of the running second; those that were skipped since are emptied. */
  #advance(): number {
    const now = Math.floor(this.#clock.monotonicMillis() / 1000)
    for (let second = Math.max(this.#second + 1, now - windowSeconds); second <= now; second++) {
      this.#writes[second % this.#writes.length] = 0
      this.#bytes[second % this.#bytes.length] = 0
    }
    this.#second = now
    return now % this.#writes.length
  }
}
