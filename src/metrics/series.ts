import { setImmediate as turnOfOthers } from 'node:timers/promises'

// Series by VPG are most of what is scraped: about a hundred lines of each. prom-client would keep every one under a hash of its labels; here they are
// written as they stand, and the event loop, which serves agents, has its turns meanwhile.

/** The event loop is held so long at a time. */
const turnMillisMax = 4
/** What is sent at a time. */
const textLengthMin = 65_536
/** So many VPGs, or volumes, between two looks at the time. */
const itemsPerPiece = 64

/** A metric of many things of one kind. */
export interface Series<T> {
  readonly type: 'counter' | 'gauge'
  readonly name: string
  readonly help: string
  /** Of one of them: labels beyond its own, as extraLabel() gives them, with the value. Without a value there is no such sample. */
  readonly samples: (of: T) => Iterable<readonly [extraLabels: string, value: number | undefined]>
}

/** One of them, with its labels as labelOf() gives them. */
export interface Labelled<T> {
  readonly labels: string
  readonly of: T
}

/** The common kind: one sample. */
export function seriesOf<T>(
  type: Series<T>['type'],
  table: readonly (readonly [name: string, help: string, valueOf: (of: T) => number | undefined])[],
): Series<T>[] {
  return table.map(([name, help, valueOf]) => ({ type, name, help, samples: of => [['', valueOf(of)]] }))
}

export function labelOf(name: string, value: string): string {
  return `${name}="${value.replace(/[\\\n"]/g, character => escapes[character] ?? '')}"`
}

export function extraLabel(name: string, value: string): string {
  return `,${labelOf(name, value)}`
}

const escapes: Readonly<Record<string, string>> = { '\\': '\\\\', '\n': '\\n', '"': '\\"' }

/** The Prometheus text of one metric, in pieces. */
export function* piecesOf<T>(
  { type, name, help, samples }: Series<T>,
  things: readonly Labelled<T>[],
): Generator<string> {
  let text = `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`
  for (const [index, { labels, of }] of things.entries()) {
    for (const [extra, value] of samples(of))
      if (value !== undefined) text += `${name}{${labels}${extra}} ${textOf(value)}\n`
    if (index % itemsPerPiece < itemsPerPiece - 1) continue
    yield text
    text = ''
  }
  yield text
}

function textOf(value: number): string {
  if (Number.isFinite(value)) return String(value)
  return Number.isNaN(value) ? 'NaN' : value > 0 ? '+Inf' : '-Inf'
}

/** The same in larger pieces. Whoever takes them lets others have their turns in the event loop meanwhile. */
export async function* inTurns(pieces: Iterable<string>): AsyncGenerator<string> {
  let text = ''
  let endMillis = performance.now() + turnMillisMax
  for (const piece of pieces) {
    text += piece
    if (text.length < textLengthMin && performance.now() < endMillis) continue
    yield text
    text = ''
    await turnOfOthers()
    endMillis = performance.now() + turnMillisMax
  }
  yield text
}
