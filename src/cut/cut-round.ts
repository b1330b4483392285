import type { CutAnswer, HoldAnswer, HoldId, MarkerVolume } from '../wire/wire.ts'

// The coordinator's side of one checkpoint, as pure steps.
//
//   holding ── every other participant has granted ──> granted ── own marker, Cuts are out ──> cutting ── every answer ──> complete
//      └───────────────────────────┴── a refusal, a peer lost, the time over ──────────────────────┴──> failed
//
// Whatever the end, the coordinator then releases everybody; a failed round has spent its counter and costs that one checkpoint.

export type CutRound = HoldId & {
  /** The streams of the other participants, ascending. */
  readonly others: readonly number[]
} & (
    | { readonly phase: 'holding'; readonly waiting: readonly number[]; readonly volumes: readonly MarkerVolume[] }
    | { readonly phase: 'granted'; readonly volumes: readonly MarkerVolume[] }
    | { readonly phase: 'cutting'; readonly waiting: readonly number[] }
    | { readonly phase: 'complete' }
    | { readonly phase: 'failed'; readonly failure: RoundFailure }
  )

/** A metric's label. */
export type RoundFailureReason = 'unreachable' | 'refused' | 'timed-out' | 'lost' | 'volumes' | 'stream'

export interface RoundFailure {
  readonly reason: RoundFailureReason
  /** For people. */
  readonly sentence: string
}

/** The Holds are to be sent to all others; with none the round is granted already. */
export function beginRound(id: HoldId, others: readonly number[]): CutRound {
  const { term, counter } = id
  const round = { term, counter, others, volumes: [] }
  return others.length === 0 ? { ...round, phase: 'granted' } : { ...round, phase: 'holding', waiting: others }
}

/** An answer of another round, or a second one, changes nothing. */
export function takeHoldAnswer(round: CutRound, stream: number, answer: Omit<HoldAnswer, 'type'>): CutRound {
  if (round.phase !== 'holding' || !isOf(round, answer) || !round.waiting.includes(stream)) return round
  if (answer.refusal !== '') return failRound(round, { reason: 'refused', sentence: answer.refusal })
  const volumes = [...round.volumes, ...answer.volumes]
  if (hasTwice(volumes)) return failRound(round, { reason: 'volumes', sentence: 'two agents hold the same volume' })
  const waiting = round.waiting.filter(each => each !== stream)
  return waiting.length === 0 ? { ...round, phase: 'granted', volumes } : { ...round, waiting, volumes }
}

/** The own marker has its number, and the Cuts are to be sent to all others. */
export function cutRound(round: CutRound): CutRound {
  if (round.phase !== 'granted') return round
  return round.others.length === 0
    ? { ...round, phase: 'complete' }
    : { ...round, phase: 'cutting', waiting: round.others }
}

export function takeCutAnswer(round: CutRound, stream: number, answer: Omit<CutAnswer, 'type'>): CutRound {
  if (round.phase !== 'cutting' || !isOf(round, answer) || !round.waiting.includes(stream)) return round
  if (answer.refusal !== '') return failRound(round, { reason: 'refused', sentence: answer.refusal })
  const waiting = round.waiting.filter(each => each !== stream)
  return waiting.length === 0 ? { ...round, phase: 'complete' } : { ...round, waiting }
}

/** A round that is over stays as it is. */
export function failRound(round: CutRound, failure: RoundFailure): CutRound {
  return isOver(round) ? round : { ...round, phase: 'failed', failure }
}

export function isOver(round: CutRound): boolean {
  return round.phase === 'complete' || round.phase === 'failed'
}

export function hasTwice(volumes: readonly MarkerVolume[]): boolean {
  return new Set(volumes.map(volume => volume.number)).size !== volumes.length
}

function isOf(round: CutRound, id: HoldId): boolean {
  return round.term === id.term && round.counter === id.counter
}
