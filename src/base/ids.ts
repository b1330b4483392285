import { randomBytes } from 'node:crypto'
import { assert } from './assert.ts'

/** A VPG's identity for ever: 32 lower-case hexadecimal digits. Its name may change, this may not. */
export type VpgId = string & { readonly brand: 'VpgId' }

/** One record's place in a generation of a stream: consecutive from 1, never reused. 0 means "nothing yet". */
export type Sequence = number & { readonly brand: 'Sequence' }

/** A checkpoint's place in its VPG's history; see checkpointOrdinal(). 0 means "before the first". */
export type Ordinal = number & { readonly brand: 'Ordinal' }

/** A place in a stream. Every record at or below it, in its generation, and all earlier generations, lie before it. */
export interface Position {
  readonly generation: number
  readonly sequence: Sequence
}

/** A place in one stream of a VPG. */
export interface StreamPosition extends Position {
  readonly stream: number
}

/** A consistent cut: one position a stream, ascending by stream. */
export type PositionVector = readonly StreamPosition[]

export function vpgId(text: string): VpgId {
  assert(/^[0-9a-f]{32}$/.test(text), `not a VPG id: ${text}`)
  return text as VpgId
}

export function newVpgId(): VpgId {
  return randomBytes(16).toString('hex') as VpgId
}

export function sequence(value: number): Sequence {
  assert(Number.isSafeInteger(value) && value >= 0, `not a sequence: ${value}`)
  return value as Sequence
}

const countersPerTerm = 2 ** 32
const termMax = 2 ** 20

/**
 * The ordinal of checkpoint (term, counter): term * 2^32 + counter. It is derived, not assigned, so that a rebuild from
 * any source gives the same order. Coordinators issue counters that never fall, under terms that never fall.
 */
export function checkpointOrdinal(term: number, counter: number): Ordinal {
  assert(Number.isSafeInteger(term) && term >= 0 && term < termMax, `not a term: ${term}`)
  assert(Number.isSafeInteger(counter) && counter >= 0 && counter < countersPerTerm, `not a counter: ${counter}`)
  return (term * countersPerTerm + counter) as Ordinal
}

export function ordinal(value: number): Ordinal {
  assert(Number.isSafeInteger(value) && value >= 0, `not an ordinal: ${value}`)
  return value as Ordinal
}

/** A checkpoint's id as people write it: "term.counter". */
export function formatCheckpointId(at: Ordinal): string {
  return `${Math.floor(at / countersPerTerm)}.${at % countersPerTerm}`
}

/** The ordinal that the text names, or undefined when it is not a checkpoint id. */
export function parseCheckpointId(text: string): Ordinal | undefined {
  const match = /^(\d{1,7})\.(\d{1,10})$/.exec(text)
  if (match === null) return undefined
  const [term, counter] = [Number(match[1]), Number(match[2])]
  if (term >= termMax || counter >= countersPerTerm) return undefined
  return checkpointOrdinal(term, counter)
}

/** Negative, zero or positive as a lies before, at or after b. */
export function comparePositions(a: Position, b: Position): number {
  return a.generation - b.generation || a.sequence - b.sequence
}
