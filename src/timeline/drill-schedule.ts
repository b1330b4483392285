import { drillLateMillisMax } from '../base/limits.ts'
import type { Json, RecoveryTargetKind } from './recovery.ts'

/** When a VPG is drilled, and how; part of its definition. */
export interface DrillSchedule {
  /** So long after the one before was begun, or at this minute of each day (UTC). */
  readonly when: { readonly everyMillis: number } | { readonly minuteOfDay: number }
  /** The name of a check that the daemon's configuration has. */
  readonly check: string
  readonly target: { readonly kind: RecoveryTargetKind; readonly settings: Json }
  readonly setAtMicros: number
}

const dayMicros = 24 * 3_600_000_000

/**
 * When the next one is due, which has been when it lies in the past; `begunAtMicros` is when the last one was begun. Where nothing could be begun at its time of the day, it is
 * due for an hour and then not before the next day; an interval that has passed is due until it is begun.
 */
export function drillDueAtMicros(
  { when, setAtMicros }: DrillSchedule,
  begunAtMicros: number | undefined,
  nowMicros: number,
): number {
  // What lies in the future was noted by a clock that was set back since.
  const fromMicros = Math.max(0, ...[setAtMicros, begunAtMicros ?? 0].filter(micros => micros <= nowMicros))
  if ('everyMillis' in when) return fromMicros + when.everyMillis * 1000
  const intoDayMicros = when.minuteOfDay * 60_000_000
  const lastMicros = Math.floor((nowMicros - intoDayMicros) / dayMicros) * dayMicros + intoDayMicros
  const isDue = lastMicros > fromMicros && nowMicros - lastMicros <= drillLateMillisMax * 1000
  return isDue ? lastMicros : lastMicros + dayMicros
}
