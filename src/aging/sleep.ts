import { checkpointsBeforeFoldMax, garbageCompanyShare, thinningShare } from '../base/limits.ts'
import type { SinceAsleep, VpgBrief, VpgContents } from '../manifest/manifest.ts'
import { preseeding } from '../timeline/region-plan.ts'
import { foldThresholdBytes, waitingBytes, type FoldLimits } from '../timeline/fold-plan.ts'
import { historySizeBytes } from '../timeline/journal-limit.ts'
import { edgeShare } from './housekeeping.ts'

// Until when a VPG may sleep: it is awake again when a merge may be due, though not always at once when one is.

export interface SleepTerms {
  readonly rawSizeBytesMax: number
  readonly sizeBytesMax: number
  readonly checkpointCountMax: number
  /** On the history clock. */
  readonly untilHistoryMillis: number
  /** On the monotonic clock: then the first garbage may go. */
  readonly untilMonotonicMillis: number
}

/** Undefined where it has to stay awake: what is due then is looked for at every segment, or all the time. */
export function sleepTerms(
  { state, recent, segmentsFrom, deletedAtMicros }: VpgContents,
  known: {
    readonly limits: FoldLimits
    readonly pointCount: number
    readonly newestHistoryMillis: number
    readonly graceMillis: number
    readonly ageMillis: (leftAtMicros: number) => number
    readonly nowMillis: number
  },
): SleepTerms | undefined {
  const { definition, segments, holes, garbage, tags } = state
  if (deletedAtMicros !== undefined || holes.length > 0 || preseeding(definition).size > 0) return undefined
  const { journalLimitSizeBytes } = definition
  const room = journalLimitSizeBytes === 0 ? Infinity : journalLimitSizeBytes - historySizeBytes(state)
  if (room <= 0) return undefined
  const ends = tags.flatMap(({ keep }) => (keep === undefined ? [] : [keep.fromHistoryMillis + keep.millis]))
  const { newestHistoryMillis, nowMillis, graceMillis } = known
  const companyMillis = graceMillis * garbageCompanyShare
  const oldestMillis = garbage.reduce((oldest, { leftAtMicros }) => Math.max(oldest, known.ageMillis(leftAtMicros)), 0)
  return {
    rawSizeBytesMax: Math.max(0, foldThresholdBytes(state, known.limits) - waitingBytes(segments, segmentsFrom)),
    sizeBytesMax: room,
    checkpointCountMax: Math.max(
      0,
      Math.min(known.pointCount * thinningShare, checkpointsBeforeFoldMax - recent.length),
    ),
    untilHistoryMillis: Math.min(newestHistoryMillis + definition.historyMillis * edgeShare, ...ends),
    // What may go already, and somebody still reads, is looked at again when there may be company.
    untilMonotonicMillis:
      garbage.length === 0 ? Infinity : nowMillis + Math.max(graceMillis - oldestMillis, 0) + companyMillis,
  }
}

export function mayHaveWork(terms: SleepTerms, since: SinceAsleep, { recent }: VpgBrief, nowMillis: number): boolean {
  return (
    since.rawSizeBytes > terms.rawSizeBytesMax ||
    since.sizeBytes > terms.sizeBytesMax ||
    since.checkpointCount > terms.checkpointCountMax ||
    (recent.at(-1)?.historyMillis ?? 0) >= terms.untilHistoryMillis ||
    nowMillis >= terms.untilMonotonicMillis
  )
}

/** As a note has them: what is left of them. */
export interface NotedTerms extends Pick<SleepTerms, 'rawSizeBytesMax' | 'checkpointCountMax'> {
  /** Absent: without end, as the others that may be. */
  readonly sizeBytesMax?: number | undefined
  readonly untilHistoryMillis?: number | undefined
  readonly lastingMillis?: number | undefined
}

/** What the terms still allow after what was committed since. */
export function notedTerms(terms: SleepTerms, since: SinceAsleep, nowMillis: number): NotedTerms {
  const finite = (value: number): number | undefined => (Number.isFinite(value) ? value : undefined)
  return {
    rawSizeBytesMax: terms.rawSizeBytesMax - since.rawSizeBytes,
    sizeBytesMax: finite(terms.sizeBytesMax - since.sizeBytes),
    checkpointCountMax: terms.checkpointCountMax - since.checkpointCount,
    untilHistoryMillis: finite(terms.untilHistoryMillis),
    lastingMillis: finite(Math.max(0, terms.untilMonotonicMillis - nowMillis)),
  }
}

/** The time that the process did not run does not count. */
export function termsOf(noted: NotedTerms, nowMillis: number): SleepTerms {
  const { untilHistoryMillis = Infinity, lastingMillis = Infinity, sizeBytesMax = Infinity, ...counts } = noted
  return { ...counts, sizeBytesMax, untilHistoryMillis, untilMonotonicMillis: nowMillis + lastingMillis }
}

/** Terms that are over: something is due. */
export const termsOver: SleepTerms = {
  rawSizeBytesMax: -1,
  sizeBytesMax: -1,
  checkpointCountMax: -1,
  untilHistoryMillis: 0,
  untilMonotonicMillis: 0,
}
