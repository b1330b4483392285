import { onAbort } from '../base/abort.ts'
import type { Clock } from '../base/clock.ts'
import type { PutPaces } from './pace.ts'
import type { Quota, QuotaCalls } from './quota-calls.ts'

// What the account may put a second. A plan asks for it with its other quotas; work that goes on without one (after a restart of the daemon, a standby chain)
// asks beside what it does, and waits for no answer.

export const putsPerSecondQuota: Quota = { service: 'ebs', code: 'L-AFAE1BE8' }
/** Quotas are raised by hand, and seldom. */
const askedAgainMillis = 3_600_000

export class PutQuota {
  readonly #quotas: QuotaCalls
  readonly #paces: PutPaces
  readonly #clock: Clock
  #askedAtMillis = -Infinity

  constructor(quotas: QuotaCalls, paces: PutPaces, clock: Clock) {
    this.#quotas = quotas
    this.#paces = paces
    this.#clock = clock
  }

  /** The paces keep to it, as far as the configuration allows it. */
  follow(putsPerSecondMax: number): void {
    this.#askedAtMillis = this.#clock.monotonicMillis()
    this.#paces.followQuota(putsPerSecondMax)
  }

  /** Asks for it, where that was not done for an hour, while the work goes on; fails as the work does. */
  async learnDuring<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    const ending = new AbortController()
    const forget = onAbort(signal, () => ending.abort())
    const learning = this.#learn(ending.signal).catch(() => undefined) // aborted: nothing else fails
    try {
      return await work()
    } finally {
      forget()
      ending.abort()
      await learning
    }
  }

  async #learn(signal: AbortSignal): Promise<void> {
    if (this.#clock.monotonicMillis() - this.#askedAtMillis < askedAgainMillis) return
    const { values } = await this.#quotas.read([putsPerSecondQuota], signal)
    this.#askedAtMillis = this.#clock.monotonicMillis()
    const putsPerSecondMax = values.get(putsPerSecondQuota.code)
    if (putsPerSecondMax !== undefined) this.follow(putsPerSecondMax)
  }
}
