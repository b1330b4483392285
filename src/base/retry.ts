import type { Clock } from './clock.ts'
import { Failure } from './failure.ts'

/** How long and how patiently something is tried again. Delays in milliseconds. */
export interface Patience {
  readonly delayMillisFirst: number
  readonly delayMillisMax: number
  /** On the clock's monotonic scale; after it the last failure is thrown. Infinity waits for ever. */
  readonly deadlineMillis: number
}

/**
 * Calls `attempt` until it succeeds or fails with anything but a 'retry' reaction. Between attempts it waits with full
 * jitter, doubling up to the maximum, so that many waiting callers do not return at once.
 */
export async function retry<T>(
  attempt: (signal: AbortSignal) => Promise<T>,
  patience: Patience,
  clock: Clock,
  signal: AbortSignal,
): Promise<T> {
  let delayMillis = patience.delayMillisFirst
  for (;;) {
    signal.throwIfAborted()
    try {
      return await attempt(signal)
    } catch (error) {
      const again = error instanceof Failure && error.reaction === 'retry'
      if (!again || clock.monotonicMillis() + delayMillis > patience.deadlineMillis) throw error
    }
    await clock.sleep(delayMillis * (0.5 + Math.random() / 2), signal)
    delayMillis = Math.min(delayMillis * 2, patience.delayMillisMax)
  }
}
