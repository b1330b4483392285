import type { HoldId } from '../wire/wire.ts'

// A participant's side of a cut, as pure steps over what it must remember. The runner (participant.ts) closes and opens the numbering
// as `hold` comes and goes.
//
//            Hold                    Cut: the marker is numbered, and the hold is over
//   open ─────────────> in force ───────────────────────────────────────────────────────> open
//                           └── Release, its connection lost, its time over, a higher hold, a higher term ──> open
//
// Invariants: at most one hold is in force. A counter that was in force once never is again, so a Hold that comes late or twice cannot
// stand for one whose answer the coordinator has counted. A cut happens only while exactly its hold is in force.

export interface HoldState {
  /** The highest term seen, from the VRA or a peer. A lower one is refused. */
  readonly highestTerm: number
  /** Who coordinates in that term; empty while it was only heard of. */
  readonly coordinator: string
  /** Every counter up to it is spent. */
  readonly highestCounter: number
  readonly hold: HoldInForce | undefined
}

export interface HoldInForce extends HoldId {
  /** The connection that asked for it: only over that one it is cut or released. */
  readonly holder: number
  readonly sinceMillis: number
  readonly untilMillis: number
}

export interface HoldRequest extends HoldId {
  /** The agent that asks. */
  readonly agent: string
  readonly holder: number
  readonly timeoutMillis: number
}

/** Why a hold or a cut is refused; a metric's label. */
export type RefusalReason = 'term' | 'coordinator' | 'counter' | 'stream' | 'not-held' | 'volumes' | 'state'

export interface Refusal {
  readonly reason: RefusalReason
  /** For people. */
  readonly sentence: string
}

export interface HoldStep {
  readonly state: HoldState
  /** Undefined: what was asked for is so. */
  readonly refusal: Refusal | undefined
}

/** Hold. `whyNot` is the stream's own reason to take part in no checkpoint. */
export function takeHold(
  before: HoldState,
  request: HoldRequest,
  nowMillis: number,
  whyNot: string | undefined,
): HoldStep {
  const { term, counter, agent, holder } = request
  let state = expireHold(before, nowMillis)
  if (term < state.highestTerm)
    return refused(state, 'term', `term ${term} is over: term ${state.highestTerm} has been seen`)
  if (term === state.highestTerm && state.coordinator !== '' && state.coordinator !== agent)
    return refused(state, 'coordinator', `"${state.coordinator}" coordinates in term ${term}, not "${agent}"`)
  state = seeTerm(state, { term, coordinator: agent })
  if (isInForce(state, request)) return { state, refusal: undefined }
  if (counter <= state.highestCounter)
    return refused(state, 'counter', `counter ${counter} is spent: ${state.highestCounter} was used already`)
  if (whyNot !== undefined) return refused(state, 'stream', whyNot)
  const hold = { term, counter, holder, sinceMillis: nowMillis, untilMillis: nowMillis + request.timeoutMillis }
  return { state: { ...state, highestCounter: counter, hold }, refusal: undefined }
}

/** Cut. Without a refusal the hold was in force and is over now: the marker is to be numbered in this same step. */
export function takeCut(before: HoldState, id: HoldId, holder: number, nowMillis: number): HoldStep {
  const state = expireHold(before, nowMillis)
  if (!isInForce(state, { ...id, holder }))
    return refused(state, 'not-held', `the hold ${id.term}.${id.counter} is not in force any more`)
  return { state: { ...state, hold: undefined }, refusal: undefined }
}

/** Release. It spends its counter, so a Hold of the same that comes later is refused. */
export function takeRelease(before: HoldState, id: HoldId, holder: number): HoldState {
  const state = isInForce(before, { ...id, holder }) ? { ...before, hold: undefined } : before
  return id.term === state.highestTerm ? seeCounter(state, id.counter) : state
}

/** The connection with this number is gone, and with it the hold that it asked for. */
export function loseHolder(state: HoldState, holder: number): HoldState {
  return state.hold?.holder === holder ? { ...state, hold: undefined } : state
}

export function expireHold(state: HoldState, nowMillis: number): HoldState {
  return state.hold !== undefined && state.hold.untilMillis <= nowMillis ? { ...state, hold: undefined } : state
}

/** A term was heard of; with an empty coordinator only that there is one. A higher one ends the hold of a lower. */
export function seeTerm(state: HoldState, seen: { readonly term: number; readonly coordinator: string }): HoldState {
  if (seen.term < state.highestTerm) return state
  if (seen.term === state.highestTerm)
    return state.coordinator === '' ? { ...state, coordinator: seen.coordinator } : state
  return { ...state, highestTerm: seen.term, coordinator: seen.coordinator, hold: undefined }
}

/** The VRA names the coordinator: of two words about one term its own counts. */
export function appoint(
  state: HoldState,
  by: { readonly term: number; readonly coordinator: string; readonly counter: number },
): HoldState {
  const seen = seeCounter(seeTerm(state, by), by.counter)
  return by.term === seen.highestTerm ? { ...seen, coordinator: by.coordinator } : seen
}

function seeCounter(state: HoldState, counter: number): HoldState {
  return counter > state.highestCounter ? { ...state, highestCounter: counter } : state
}

function isInForce(state: HoldState, id: HoldId & { readonly holder: number }): boolean {
  const { hold } = state
  return hold?.term === id.term && hold.counter === id.counter && hold.holder === id.holder
}

function refused(state: HoldState, reason: RefusalReason, sentence: string): HoldStep {
  return { state, refusal: { reason, sentence } }
}
