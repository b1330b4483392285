/** What a bench is given: a directory of its own on the disk that is measured, and how much time it may take. */
export interface BenchContext {
  readonly directory: string
  readonly quick: boolean
  /** Larger than usual, where a bench has such a size. */
  readonly full: boolean
  /** Only rows whose names hold this text; empty for all. */
  readonly rows: string
  /** Tells what is being done; one line, for people. */
  say(line: string): void
}

export interface Column {
  readonly name: string
  readonly digits: number
}

export type Cell = number | string | undefined

export interface ResultTable {
  readonly title: string
  readonly columns: readonly Column[]
  readonly rows: readonly (readonly Cell[])[]
  /** How the figures are to be read. */
  readonly notes: readonly string[]
}

/** What is aimed at, and what was measured. Printed, never asserted. */
export interface Aim {
  readonly what: string
  readonly aim: string
  readonly measured: string
  /** Undefined where it was not measured in this run. */
  readonly met: boolean | undefined
}

export interface LatencyCurve {
  readonly name: string
  readonly counts: readonly number[]
}

export interface BenchResult {
  readonly tables: readonly ResultTable[]
  readonly aims: readonly Aim[]
  readonly curves: readonly LatencyCurve[]
}

export interface Bench {
  readonly name: string
  readonly describes: string
  run(context: BenchContext): Promise<BenchResult>
}

export function atLeast(what: string, aim: number, measured: number | undefined, unit: string): Aim {
  const met = measured === undefined ? undefined : measured >= aim
  return { what, aim: `>= ${aim} ${unit}`.trim(), measured: shown(measured, unit), met }
}

export function atMost(what: string, aim: number, measured: number | undefined, unit: string): Aim {
  const met = measured === undefined ? undefined : measured <= aim
  return { what, aim: `<= ${aim} ${unit}`.trim(), measured: shown(measured, unit), met }
}

function shown(value: number | undefined, unit: string): string {
  if (value === undefined) return 'not measured'
  return `${value.toFixed(value < 10 ? 2 : 0)} ${unit}`.trim()
}
