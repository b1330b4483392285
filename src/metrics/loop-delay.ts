import { monitorEventLoopDelay, type IntervalHistogram } from 'node:perf_hooks'

/** How late the loop of this thread runs its timers, from now until it is disabled. */
export function watchLoopDelay(): IntervalHistogram {
  const delay = monitorEventLoopDelay({ resolution: 10 })
  delay.enable()
  return delay
}
