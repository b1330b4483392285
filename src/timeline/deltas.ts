import type { Ordinal } from '../base/ids.ts'
import type { DeltaSpan, VpgState } from './state.ts'

/** The checkpoint at which the last closed delta ends; before the first, the beginning of history. */
export function lastDeltaEnd(state: Pick<VpgState, 'deltas'>): Ordinal {
  const last = state.deltas.at(-1)
  return (last?.open === undefined ? last?.toOrdinal : last.fromOrdinal) ?? (0 as Ordinal)
}

/** The deltas up to the last closed one: only at its end can the base be brought. */
export function closedDeltas(deltas: readonly DeltaSpan[]): readonly DeltaSpan[] {
  if (deltas.at(-1)?.open === undefined) return deltas // the very list: what is known of it is remembered
  return deltas.slice(0, deltas.findLastIndex(delta => delta.open === undefined) + 1)
}
