import type { Failure } from '../base/failure.ts'
import { Waits } from '../base/waits.ts'
import type { LoadFacts, StoreOperation } from './object-store.ts'

/** What is under way at a store, what waits to be tried again, and what was put off. */
export class StoreLoad {
  readonly #throttled: Record<StoreOperation, number> = { create: 0, read: 0, list: 0, remove: 0, lock: 0 }
  #throttledAtMicros: number | undefined
  #underWay = 0
  /** Of requests that wait to be tried again. */
  readonly waits = new Waits()

  get facts(): LoadFacts {
    return {
      throttledCounts: { ...this.#throttled },
      throttledAtMicros: this.#throttledAtMicros,
      backedOffMillis: this.waits.millis,
      underWayCount: this.#underWay,
      waitingCount: this.waits.count,
    }
  }

  async underWay<T>(work: () => Promise<T>): Promise<T> {
    this.#underWay++
    try {
      return await work()
    } finally {
      this.#underWay--
    }
  }

  /** Counts what says that the store has too much to do; every other failure is none of this. */
  note(operation: StoreOperation, { code, details }: Failure, nowMicros: number): void {
    if (code !== 'STORE_UNAVAILABLE' || !isThrottling(details['httpStatus'], details['errorCode'])) return
    this.#throttled[operation]++
    this.#throttledAtMicros = nowMicros
  }
}

function isThrottling(status: unknown, name: unknown): boolean {
  if (status === 429) return true
  return (
    typeof name === 'string' &&
    /^(SlowDown|Throttling|TooManyRequests|RequestLimitExceeded|ServiceUnavailable)/.test(name)
  )
}
