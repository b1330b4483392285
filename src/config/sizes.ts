import { KiB } from '../base/units.ts'

const unitSizeBytes: Readonly<Record<string, number>> = {
  '': 1,
  B: 1,
  KiB,
  MiB: KiB ** 2,
  GiB: KiB ** 3,
  TiB: KiB ** 4,
}

/** The bytes that "1.5 GiB", "4096" or "64MiB" mean, or undefined. Decimal units are not known, so that nobody guesses. */
export function parseSize(text: string): number | undefined {
  const match = /^\s*(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]*)\s*$/.exec(text)
  const unit = unitSizeBytes[match?.[2] ?? 'none']
  return match === null || unit === undefined ? undefined : Number(match[1]) * unit
}

/** In the largest unit that keeps it exact: 67108864 is "64 MiB". */
export function formatSizeExactly(size: number): string {
  const units = ['TiB', 'GiB', 'MiB', 'KiB'] as const
  const unit = units.find(candidate => size > 0 && size % (unitSizeBytes[candidate] ?? 1) === 0)
  return unit === undefined ? `${size} B` : `${size / (unitSizeBytes[unit] ?? 1)} ${unit}`
}
