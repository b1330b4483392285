import { onAbort } from './abort.ts'

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
  sleep: (delayMillis, signal) =>
    new Promise((resolve, reject) => {
      signal.throwIfAborted()
      const wake = (): void => {
        forget()
        resolve()
      }
      const takeBack = afterMillis(delayMillis, wake)
      const forget = onAbort(signal, () => {
        takeBack()
        reject(signal.reason as Error)
      })
    }),
  after: (delayMillis, call) => {
    if (delayMillis <= 0) {
      const immediate = setImmediate(call)
      return () => clearImmediate(immediate)
    }
    return afterMillis(delayMillis, call)
  },
}

/** What setTimeout takes at most; it makes 1 ms of more. */
const timerMillisMax = 2 ** 31 - 1

/** However long the delay is. */
function afterMillis(delayMillis: number, call: () => void): () => void {
  const atMillis = performance.now() + delayMillis
  let timer: NodeJS.Timeout
  const wait = (millis: number): void => {
    timer = setTimeout(() => {
      const leftMillis = atMillis - performance.now()
      if (millis < timerMillisMax || leftMillis <= 0) call()
      else wait(Math.min(leftMillis, timerMillisMax))
    }, millis)
  }
  wait(Math.min(delayMillis, timerMillisMax))
  return () => clearTimeout(timer)
}
