import { Failure } from '../base/failure.ts'
import { Permits } from '../base/permits.ts'

/**
 * Does the work of each, `countMax` at once, begun in their order. Where one fails for good the others are told to end, and are waited for; where it may pass, they end
 * what they have begun. Fails as the first of them, when none goes on any more.
 */
export async function sideBySide<T>(
  all: readonly T[],
  countMax: number,
  signal: AbortSignal,
  work: (each: T, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const permits = new Permits(countMax)
  const failing = new AbortController()
  const either = AbortSignal.any([signal, failing.signal])
  let passing: Failure | undefined
  const working = all.map(each =>
    permits.with(async () => {
      try {
        either.throwIfAborted()
        await work(each, either)
      } catch (error) {
        if (error instanceof Failure && error.reaction === 'retry') passing ??= error
        else failing.abort(error)
      }
    }),
  )
  await Promise.all(working)
  either.throwIfAborted()
  if (passing !== undefined) throw passing
}
