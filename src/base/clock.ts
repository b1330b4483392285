import { setTimeout as delay } from 'node:timers/promises'

/** The only source of time. Wall-clock values are labels; every wait and every age is measured on the monotonic one. */
export interface Clock {
  /** Microseconds since 1970, as the host believes. May jump. */
  timestampMicros(): number
  /** Milliseconds since an arbitrary instant of this process; never goes back. */
  monotonicMillis(): number
  /** Resolves after the delay; rejects with the signal's reason when aborted. */
  sleep(delayMillis: number, signal: AbortSignal): Promise<void>
  /**
   * Calls once after the delay, never within this call; with a delay of 0 as soon as this turn of the event loop is over. What it
   * returns takes the call back, at any time.
   */
  after(delayMillis: number, call: () => void): () => void
}

export const systemClock: Clock = {
  timestampMicros: () => Date.now() * 1000,
  monotonicMillis: () => performance.now(),
  sleep: async (delayMillis, signal) => {
    await delay(delayMillis, undefined, { signal })
  },
  after: (delayMillis, call) => {
    if (delayMillis <= 0) {
      const immediate = setImmediate(call)
      return () => clearImmediate(immediate)
    }
    const timer = setTimeout(call, delayMillis)
    return () => clearTimeout(timer)
  },
}
