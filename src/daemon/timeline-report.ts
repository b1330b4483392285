import type { Aging } from '../aging/aging.ts'
import type { StoreRequestFacts } from '../aging/service.ts'
import type { Clock } from '../base/clock.ts'
import { formatCheckpointId } from '../base/ids.ts'
import { GiB } from '../base/units.ts'
import type { Catalog } from '../catalog/catalog.ts'
import { pricesDefault, type VraConfig } from '../config/config.ts'
import type { CheckpointAt, CostFacts, FormSize, GapFacts, VpgTimeline, VpgVersions } from '../control/service.ts'
import type { HiddenVersions } from '../store/store.ts'
import { densitiesOf } from '../timeline/densities.ts'
import type { Gap, RecoverablePoint } from '../timeline/recoverable.ts'
import type { Histories } from './histories.ts'
import type { VpgEntry } from './vpg-table.ts'

type Prices = VraConfig['prices']

const monthMillis = 730 * 3_600_000

/** What of the VPG can be recovered how densely, what it takes in the store, and what that costs. Fails as the aging thread does. */
export async function timelineOf(
  entry: VpgEntry,
  parts: { aging: Aging; catalog: Catalog; clock: Clock; histories: Pick<Histories, 'untilIndexed'>; prices: Prices },
): Promise<VpgTimeline> {
  const { aging, catalog, clock, histories, prices } = parts
  await histories.untilIndexed(entry)
  const { definition, holes } = entry
  const vpg = definition.id
  const retention = densitiesOf(definition)
  const { checkpointIntervalMillis } = definition
  const [recoverable, { forms, requests, garbageCount }] = await Promise.all([
    catalog.recoverable({ vpg, densities: retention, checkpointIntervalMillis, holes }),
    aging.status({ vpg }),
  ])
  const { oldest, newest, gaps, ...facts } = recoverable
  const nowMicros = clock.timestampMicros()
  const historyMillis = oldest === undefined || newest === undefined ? 0 : newest.historyMillis - oldest.historyMillis
  return {
    vpg: definition.name,
    nowMicros,
    retention,
    checkpointIntervalMillis,
    ...facts,
    oldest: oldest === undefined ? undefined : checkpointAt(oldest),
    newest: newest === undefined ? undefined : checkpointAt(newest),
    historyMillis,
    gaps: gaps.map(gapFacts),
    forms,
    garbageCount,
    requests,
    ...amplificationOf(requests),
    cost: costOf(forms, requests, { prices, elapsedMillis: (nowMicros - requests.sinceMicros) / 1000 }),
  }
}

const versionForms = { commit: 'commits', page: 'pages', delta: 'deltas', base: 'base' } as const

/** What of the VPG's removed objects its bucket still keeps, and what that costs. */
export function versionsIn(
  { name }: Pick<VpgEntry['definition'], 'name'>,
  { isVersioned, expire, parts, markerCount, isWhole }: HiddenVersions,
  { storagePerGiBMonth, currency }: Prices,
): VpgVersions {
  const forms = Object.entries(versionForms).map(([part, form]) => {
    const { count = 0, sizeBytes = 0 } = parts.find(each => each.part === part) ?? {}
    return { form, count, sizeBytes }
  })
  return {
    vpg: name,
    versioning: isVersioned === undefined ? 'unknown' : isVersioned ? 'kept' : 'none',
    ...{ expire, forms, markerCount, isWhole, currency },
    costPerMonth: (sum(parts.map(({ sizeBytes }) => sizeBytes)) / GiB) * storagePerGiBMonth,
  }
}

function checkpointAt({ ordinal, timestampMicros }: RecoverablePoint): CheckpointAt {
  return { checkpoint: formatCheckpointId(ordinal), timestampMicros }
}

function gapFacts({ after, before, wallMillis, historyMillis, withdrawnCount, reason }: Gap): GapFacts {
  const withdrawn = `${withdrawnCount} withdrawn${reason === undefined ? '' : `: ${reason}`}`
  return {
    after: checkpointAt(after),
    before: checkpointAt(before),
    wallMillis,
    historyMillis,
    reason: withdrawnCount > 0 ? withdrawn : 'none was made, or it was dropped under another retention',
  }
}

export function amplificationOf({ puts, rawSizeBytes }: StoreRequestFacts): {
  readonly writeAmplification: number | undefined
  readonly putsPerGiB: number | undefined
} {
  if (rawSizeBytes === 0) return { writeAmplification: undefined, putsPerGiB: undefined }
  const all = Object.values(puts)
  return {
    writeAmplification: sum(all.map(({ sizeBytes }) => sizeBytes)) / rawSizeBytes,
    putsPerGiB: sum(all.map(({ count }) => count)) / (rawSizeBytes / GiB),
  }
}

export function costOf(
  forms: readonly FormSize[],
  { puts, gets, listCount }: StoreRequestFacts,
  { prices, elapsedMillis }: { readonly prices: Prices; readonly elapsedMillis: number },
): CostFacts {
  const { storagePerGiBMonth, putsPerThousand, getsPerThousand } = prices
  const perMonth = (count: number): number => (count * monthMillis) / Math.max(1, elapsedMillis)
  const costs = {
    storage: (sum(forms.map(({ sizeBytes }) => sizeBytes)) / GiB) * storagePerGiBMonth,
    puts: (perMonth(sum(Object.values(puts).map(({ count }) => count))) / 1000) * putsPerThousand,
    lists: (perMonth(listCount) / 1000) * putsPerThousand,
    gets: (perMonth(gets.count) / 1000) * getsPerThousand,
  }
  const isDefault = (Object.keys(pricesDefault) as (keyof Prices)[]).every(key => prices[key] === pricesDefault[key])
  return { prices: { ...prices, isDefault }, ...costs, total: sum(Object.values(costs)) }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}
