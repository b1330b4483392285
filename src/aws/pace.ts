import type { Clock } from '../base/clock.ts'
import { standbyPutsShare } from '../base/limits.ts'

// How fast blocks are put: AWS allows so many a second to an account, and to a snapshot, and refuses what is above. A pace is a bucket of tokens that
// fills at that rate. When AWS says "slower" all the same (the quota is lower here, or others use it), the rate is halved, and grows back by
// a twentieth a second. The limit itself is what the configuration allows, or less where the account's quota is known to be.

const rateMin = 5
const growthPerSecond = 0.05
/** Refusals that come within this are of one burst, and halve the rate once. */
const burstMillis = 1_000
/** Tokens that are there at most: what may go at once. In seconds of the rate. */
const depthSeconds = 0.1

export class Pace {
  readonly #clock: Clock
  #rateMax: number
  #rate: number
  #tokens = 0
  #filledAtMillis: number
  #slowedAtMillis = -Infinity

  constructor(perSecondMax: number, clock: Clock) {
    this.#rateMax = perSecondMax
    this.#clock = clock
    this.#rate = perSecondMax
    this.#filledAtMillis = clock.monotonicMillis()
  }

  /** Of now, a second. */
  get rate(): number {
    return this.#rate
  }

  /** From here on. A rate that was at the limit is at the new one at once; one that was halved grows to it. */
  limitTo(perSecondMax: number): void {
    this.#fill()
    this.#rate = this.#rate === this.#rateMax ? perSecondMax : Math.min(this.#rate, perSecondMax)
    this.#rateMax = perSecondMax
  }

  /** Returns when one more may be put; fair as far as timers are. */
  async take(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    this.#fill()
    this.#tokens -= 1
    // Whoever takes the last token leaves a debt, and the next waits until it would have been there: so waiting needs no queue.
    if (this.#tokens < 0) await this.#clock.sleep((-this.#tokens / this.#rate) * 1000, signal)
  }

  slower(): void {
    const nowMillis = this.#clock.monotonicMillis()
    if (nowMillis - this.#slowedAtMillis < burstMillis) return
    this.#fill()
    this.#slowedAtMillis = nowMillis
    this.#rate = Math.max(rateMin, this.#rate / 2)
  }

  #fill(): void {
    const nowMillis = this.#clock.monotonicMillis()
    const seconds = (nowMillis - this.#filledAtMillis) / 1000
    this.#filledAtMillis = nowMillis
    this.#rate = Math.min(this.#rateMax, this.#rate * (1 + growthPerSecond * seconds))
    this.#tokens = Math.min(Math.max(1, this.#rate * depthSeconds), this.#tokens + this.#rate * seconds)
  }
}

/** What all snapshots of the account go by together. */
export class PutPaces {
  readonly account: Pace
  /** What is kept warm is in no hurry: its puts have a pace of their own besides. */
  readonly standby: Pace
  readonly #perSecondMax: number

  /** `perSecondMax` is the configured one, above which nothing goes. */
  constructor(perSecondMax: number, clock: Clock) {
    this.#perSecondMax = perSecondMax
    this.account = new Pace(perSecondMax, clock)
    this.standby = new Pace(standbyShareOf(perSecondMax), clock)
  }

  followQuota(quotaPerSecond: number): void {
    const perSecondMax = Math.max(1, Math.min(this.#perSecondMax, quotaPerSecond))
    this.account.limitTo(perSecondMax)
    this.standby.limitTo(standbyShareOf(perSecondMax))
  }
}

function standbyShareOf(perSecondMax: number): number {
  return Math.max(1, perSecondMax * standbyPutsShare)
}
