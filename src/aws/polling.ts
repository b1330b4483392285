import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'

// AWS does most things after it has answered: whoever needs them looks again and again.

/** So long what was created may be in no listing, and unknown by its id. */
export const unlistedMillisMax = 300_000
const delayMillisFirst = 1_000
const delayMillisMax = 15_000

/** What `look` gives first that is not undefined. Fails CLOUD_UNAVAILABLE, naming what was waited for, when the time is over. */
export async function until<T>(
  what: string,
  look: () => Promise<T | undefined>,
  waitMillisMax: number,
  clock: Clock,
  signal: AbortSignal,
): Promise<T> {
  const deadlineMillis = clock.monotonicMillis() + waitMillisMax
  for (let delayMillis = delayMillisFirst; ; delayMillis = Math.min(delayMillisMax, delayMillis * 1.5)) {
    signal.throwIfAborted()
    const found = await look()
    if (found !== undefined) return found
    if (clock.monotonicMillis() > deadlineMillis)
      throw new Failure('CLOUD_UNAVAILABLE', `AWS has not brought about in time: ${what}`, { waitMillisMax })
    await clock.sleep(delayMillis, signal)
  }
}
