import { Failure } from '../base/failure.ts'
import { historyMillisMax, historyMillisMin, retentionDefault } from '../base/limits.ts'
import type { Density, VpgDefinition } from './definition.ts'

export type { Density } from './definition.ts'

// The policy: how densely checkpoints are kept, by age. README.md says what follows from it.

/** Every checkpoint for 4 h, one a minute up to 2 days, one an hour up to 14, one a day up to 30. */
export const densitiesDefault: readonly Density[] = retentionDefault

/** What a definition without a policy means, too: every checkpoint for as long as the history is. */
export function densitiesOf({
  retention,
  historyMillis,
}: Pick<VpgDefinition, 'retention' | 'historyMillis'>): readonly Density[] {
  return retention?.densities ?? [{ everyMillis: 0, forMillis: historyMillis }]
}

/** How a definition says the policy. Fails REQUEST_INVALID as faultOf finds. */
export function retentionOf(densities: readonly Density[]): Pick<VpgDefinition, 'retention' | 'historyMillis'> {
  const fault = faultOf(densities)
  if (fault !== undefined) throw new Failure('REQUEST_INVALID', `the retention ${fault}`)
  const historyMillis = densities.at(-1)?.forMillis ?? 0
  return { historyMillis, retention: densities.length === 1 ? undefined : { formatVersion: 1, densities } }
}

/** What is wrong with it, as the end of a sentence. */
export function faultOf(densities: readonly Density[]): string | undefined {
  const [first] = densities
  const last = densities.at(-1)
  if (first === undefined || last === undefined) return 'is empty'
  if (first.everyMillis !== 0) return 'must begin with a time for which every checkpoint is kept, "all:4h"'
  if (first.forMillis < historyMillisMin) return `must keep every checkpoint for ${historyMillisMin} ms at least`
  if (last.forMillis > historyMillisMax) return `reaches beyond ${historyMillisMax} ms`
  const grows = densities.every((density, index) => {
    const before = densities[index - 1]
    return before === undefined || (density.everyMillis > before.everyMillis && density.forMillis > before.forMillis)
  })
  if (!grows) return 'must get longer and less dense from entry to entry, as "all:4h,1m:2d,1h:14d" does'
  const uneven = densities.find(
    ({ everyMillis }, index) => everyMillis % (densities[index - 1]?.everyMillis || 1) !== 0,
  )
  if (uneven !== undefined) return `keeps one checkpoint in ${uneven.everyMillis} ms, no multiple of the entry before`
  const sparse = densities.find(({ everyMillis, forMillis }) => everyMillis > forMillis)
  if (sparse !== undefined) return `keeps one checkpoint in ${sparse.everyMillis} ms for less than that`
  return undefined
}

/** Fails VERSION_UNSUPPORTED where a newer program wrote the policy: one that is misread would drop checkpoints. */
export function requireKnownRetention({ name, retention }: VpgDefinition): void {
  if (retention === undefined || retention.formatVersion === 1) return
  const { formatVersion } = retention as { readonly formatVersion: unknown }
  throw new Failure(
    'VERSION_UNSUPPORTED',
    `the retention of VPG "${name}" is of format ${String(formatVersion)}, this program knows 1: use the program that wrote it, or a newer one`,
  )
}

/**
 * How long the intervals are of which one checkpoint stays, where one made at `historyMillis` lies: of the densities the last to which the whole
 * interval has come. 0: every checkpoint stays.
 */
export function everyMillisAt(densities: readonly Density[], historyMillis: number, newestMillis: number): number {
  for (let index = densities.length - 1; index > 0; index--) {
    const everyMillis = densities[index]?.everyMillis ?? 0
    const endMillis = (Math.floor(historyMillis / everyMillis) + 1) * everyMillis
    if (newestMillis - endMillis >= (densities[index - 1]?.forMillis ?? 0)) return everyMillis
  }
  return 0
}
