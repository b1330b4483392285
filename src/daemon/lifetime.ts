import type { Clock } from '../base/clock.ts'
/** Resolves when the signal is aborted; rejects as soon as one of the parts that must live has ended. */
export async function untilAborted(signal: AbortSignal, endings: readonly Promise<never>[]): Promise<void> {
  for (const ending of endings) ending.catch(() => undefined) // whoever closes a part ends it as well: that is no news
  if (signal.aborted) return
  let stop = (): void => undefined
  const asked = new Promise<void>(resolve => {
    stop = resolve
    signal.addEventListener('abort', stop)
  })
  try {
    await Promise.race([asked, ...endings])
  } finally {
    signal.removeEventListener('abort', stop)
  }
}

/** Settles as `ending` does. Where that takes longer than the bound, `overdue` is called, once; it is waited for all the same. */
export async function endWithin(
  ending: Promise<void>,
  boundMillis: number,
  clock: Clock,
  overdue: () => void,
): Promise<void> {
  const takeBack = clock.after(boundMillis, overdue)
  try {
    await ending
  } finally {
    takeBack()
  }
}
