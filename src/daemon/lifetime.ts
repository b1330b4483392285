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
