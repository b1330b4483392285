import { Failure } from '../base/failure.ts'
import { parseCheckpointId, type Ordinal } from '../base/ids.ts'
import type { Density } from '../timeline/densities.ts'

// How people name a checkpoint and an instant. The daemon reads both, so that "10m ago" is by the clock that labelled the checkpoints.

export type CheckpointReference =
  | { readonly kind: 'latest' }
  | { readonly kind: 'id'; readonly ordinal: Ordinal }
  /** The newest at or before it. */
  | { readonly kind: 'time'; readonly timestampMicros: number }
  | { readonly kind: 'tag'; readonly tag: string }

/** Fails REQUEST_INVALID for what cannot be any of the four. */
export function parseCheckpointReference(text: string, nowMicros: number): CheckpointReference {
  const trimmed = text.trim()
  if (trimmed === 'latest') return { kind: 'latest' }
  const ordinal = parseCheckpointId(trimmed)
  if (ordinal !== undefined) return { kind: 'id', ordinal }
  const timestampMicros = parseInstant(trimmed, nowMicros)
  if (timestampMicros !== undefined) return { kind: 'time', timestampMicros }
  if (tagPattern.test(trimmed)) return { kind: 'tag', tag: trimmed }
  throw new Failure(
    'REQUEST_INVALID',
    `"${text}" names no checkpoint: give "latest", an id (3.1204), a tag, or a time (2026-03-29T02:15:00Z, "10m ago")`,
    { checkpoint: text },
  )
}

export const tagPattern = /^[A-Za-z][A-Za-z0-9._-]{0,63}$/

/** True for what may be a tag: a name that means no id, time or "latest". */
export function isTagName(text: string): boolean {
  return tagPattern.test(text) && text !== 'latest' && text !== 'now'
}

const agoUnitMillis: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  min: 60_000,
  h: 3_600_000,
  d: 86_400_000,
}
const isoPattern = /^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?))?\s*(Z|[+-]\d{2}:?\d{2})?$/

/**
 * An instant in microseconds since 1970: "now", "10m ago", "1h30m ago", or ISO 8601 ("2026-03-29T02:15:00Z", "2026-03-29 02:15"; UTC where no
 * zone is given). Undefined for anything else, the 30th of February included.
 */
export function parseInstant(text: string, nowMicros: number): number | undefined {
  const trimmed = text.trim()
  if (trimmed === 'now') return nowMicros
  const ago = /^(.+?)\s*ago$/.exec(trimmed)
  if (ago !== null) {
    const millis = parseDuration(ago[1] ?? '')
    return millis === undefined ? undefined : Math.max(0, nowMicros - millis * 1000)
  }
  const iso = isoPattern.exec(trimmed)
  if (iso === null) return undefined
  const [, day = '', time = '00:00', zone = 'Z'] = iso
  const millis = Date.parse(`${day}T${time.replace(/(\.\d{3})\d+$/, '$1')}${zone}`)
  const midnightMillis = Date.parse(`${day}T00:00Z`)
  if (Number.isNaN(millis) || Number.isNaN(midnightMillis)) return undefined
  if (!new Date(midnightMillis).toISOString().startsWith(day)) return undefined // Date.parse takes February 30th for March 2nd
  const micros = Number((/\.\d{3}(\d{1,3})/.exec(time)?.[1] ?? '').padEnd(3, '0'))
  return millis * 1000 + micros
}

/** "all:4h,1m:2d,1h:14d": undefined for what is no list of times. */
export function parseRetention(text: string): Density[] | undefined {
  const densities = text.split(',').map(entry => {
    const [every = '', length = '', ...others] = entry.trim().split(':')
    const everyMillis = every.trim() === 'all' ? 0 : parseDuration(every)
    const forMillis = parseDuration(length)
    return everyMillis === undefined || forMillis === undefined || others.length > 0
      ? undefined
      : { everyMillis, forMillis }
  })
  return densities.some(density => density === undefined)
    ? undefined
    : densities.filter(density => density !== undefined)
}

/** Milliseconds of "30s", "4h", "1h30m", "60min", "7d", "500ms"; undefined for anything else. A number without a unit is not guessed at. */
export function parseDuration(text: string): number | undefined {
  const compact = text.replaceAll(/\s+/g, '')
  if (!/^(\d{1,9}(\.\d{1,3})?(ms|min|s|m|h|d))+$/.test(compact)) return undefined
  let millis = 0
  for (const [, count = '', , unit = ''] of compact.matchAll(/(\d+(\.\d+)?)(ms|min|s|m|h|d)/g))
    millis += Number(count) * (agoUnitMillis[unit] ?? 0)
  return Math.round(millis)
}
