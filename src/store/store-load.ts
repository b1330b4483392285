import type { Failure } from '../base/failure.ts'
import type { LoadFacts, StoreOperation } from './object-store.ts'

// What is under way at a store, what waits to be tried again, and what was put off, of all threads that were given the same memory: one bucket has one limit,
// and whichever thread meets it, people are told.

const operations: readonly StoreOperation[] = ['create', 'read', 'list', 'remove', 'lock']
// 32-bit counts: one for each operation, then these.
const underWayIndex = operations.length
const waitingIndex = underWayIndex + 1
const throttledAtSecondsIndex = waitingIndex + 1
/** Of a tenth of a second each: it does not wrap in years. */
const backedOffTenthsIndex = throttledAtSecondsIndex + 1
const countsMax = backedOffTenthsIndex + 1

/** The memory for the threads of one store. */
export function newSharedLoad(): SharedArrayBuffer {
  return new SharedArrayBuffer(countsMax * Uint32Array.BYTES_PER_ELEMENT)
}

export class StoreLoad {
  readonly #counts: Uint32Array
  /** Of waits, what is not yet a tenth of a second. */
  #backedOffMillisLeft = 0

  constructor(shared = newSharedLoad()) {
    this.#counts = new Uint32Array(shared)
  }

  get facts(): LoadFacts {
    const count = (index: number): number => Atomics.load(this.#counts, index)
    const throttledAtSeconds = count(throttledAtSecondsIndex)
    return {
      throttledCounts: Object.fromEntries(operations.map((operation, index) => [operation, count(index)])) as Record<
        StoreOperation,
        number
      >,
      throttledAtMicros: throttledAtSeconds === 0 ? undefined : throttledAtSeconds * 1e6,
      backedOffMillis: count(backedOffTenthsIndex) * 100 + this.#backedOffMillisLeft,
      underWayCount: count(underWayIndex),
      waitingCount: count(waitingIndex),
    }
  }

  async underWay<T>(work: () => Promise<T>): Promise<T> {
    return await this.#counted(underWayIndex, work)
  }

  /** Of a wait before a request is made again. */
  async during(delayMillis: number, wait: Promise<void>): Promise<void> {
    await this.#counted(waitingIndex, () => wait)
    this.#backedOffMillisLeft += delayMillis
    const tenths = Math.floor(this.#backedOffMillisLeft / 100)
    this.#backedOffMillisLeft -= tenths * 100
    Atomics.add(this.#counts, backedOffTenthsIndex, tenths)
  }

  async #counted<T>(index: number, work: () => Promise<T>): Promise<T> {
    Atomics.add(this.#counts, index, 1)
    try {
      return await work()
    } finally {
      Atomics.sub(this.#counts, index, 1)
    }
  }

  /** Counts what says that the store has too much to do; every other failure is none of this. */
  note(operation: StoreOperation, { code, details }: Failure, nowMicros: number): void {
    if (code !== 'STORE_UNAVAILABLE' || !isThrottling(details['httpStatus'], details['errorCode'])) return
    Atomics.add(this.#counts, operations.indexOf(operation), 1)
    Atomics.store(this.#counts, throttledAtSecondsIndex, Math.ceil(nowMicros / 1e6))
  }
}

function isThrottling(status: unknown, name: unknown): boolean {
  if (status === 429) return true
  return (
    typeof name === 'string' &&
    /^(SlowDown|Throttling|TooManyRequests|RequestLimitExceeded|ServiceUnavailable)/.test(name)
  )
}
