import type { HoldId } from '../wire/wire.ts'
import type { RoundFailure } from './cut-round.ts'
import type { Refusal } from './hold-state.ts'

/** How a hold ended: with its marker, or without. */
export type HoldEnd = 'cut' | 'released' | 'expired' | 'lost' | 'replaced'

/** What a cut over several agents tells; the log and the metrics implement it. */
export interface CutEvents {
  /** Guests' writes were held for so long, and go on. */
  holdEnded(hold: HoldId & { readonly end: HoldEnd; readonly heldMillis: number }): void
  /** This agent refused a hold or a cut that `agent` asked for. */
  holdRefused(refusal: HoldId & Refusal & { readonly agent: string }): void
  /** This agent coordinated a checkpoint that came to nothing. */
  checkpointFailed(checkpoint: HoldId & RoundFailure): void
  /** Every participant has its marker; `roundMillis` from the first Hold to the last answer. */
  checkpointCut(checkpoint: HoldId & { readonly participantCount: number; readonly roundMillis: number }): void
  /** A connection to or from another agent of the VPG is open. */
  peerUp(peer: { readonly agent: string; readonly address: string }): void
  peerDown(peer: { readonly agent: string; readonly address: string; readonly sentence: string }): void
  /** Somebody connected who is not another agent of the VPG, or does not say so. */
  peerRefused(peer: { readonly address: string; readonly sentence: string }): void
}

export const silentCutEvents: CutEvents = {
  holdEnded: () => undefined,
  holdRefused: () => undefined,
  checkpointFailed: () => undefined,
  checkpointCut: () => undefined,
  peerUp: () => undefined,
  peerDown: () => undefined,
  peerRefused: () => undefined,
}
