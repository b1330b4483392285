import { assert } from '../base/assert.ts'
import type { Clock } from '../base/clock.ts'
import type { Closable } from '../base/shutdown.ts'
import type { Cut, CutAnswer, Hold, HoldAnswer, HoldId, MarkerVolume } from '../wire/wire.ts'
import type { CutEvents, HoldEnd } from './events.ts'
import {
  appoint,
  expireHold,
  loseHolder,
  seeTerm,
  takeCut,
  takeHold,
  takeRelease,
  type HoldInForce,
  type HoldRequest,
  type HoldState,
  type Refusal,
} from './hold-state.ts'

/** The marker of one checkpoint, the same in every stream. */
export type CutMarker = Omit<Cut, 'type'>

/** What a cut needs of its agent's stream. Every call is one synchronous step: nothing is numbered between its lines. */
export interface CutStream {
  /** Why the stream can be in no checkpoint now, a sentence; undefined where it can. */
  whyNot(): string | undefined
  /** This agent's volumes, as its marker would name them. */
  volumes(): readonly MarkerVolume[]
  /** The VPG's volumes that are not among those that its agents have named, none of them included. */
  absent(named: readonly MarkerVolume[]): readonly MarkerVolume[]
  /** From its return until release() no record gets a number, so no write that has none is answered. Never twice without release(). */
  hold(): void
  /** Numbering goes on. It does so in a later step: the caller may hold again before. */
  release(): void
  /** On return the marker has the next number, held or not. Throws where the agent cannot write down what it must remember of it. */
  mark(marker: CutMarker): void
}

export interface ParticipantOptions {
  readonly stream: CutStream
  readonly clock: Clock
  readonly events: CutEvents
  /** No hold lasts longer here, whatever the coordinator asks for. */
  readonly holdTimeoutMillis: number
  readonly saved: Pick<HoldState, 'highestTerm' | 'coordinator' | 'highestCounter'>
  /** On return a restart will know the term. May throw: the hold is then refused. */
  readonly saveTerm: (seen: { readonly term: number; readonly coordinator: string }) => void
}

/** The connection number of the coordinator to itself. */
const ownHolder = 0

/** Runs a HoldState over the agent's stream: closes the numbering while a hold is in force, and opens it however that ends. */
export class Participant implements Closable {
  readonly #options: ParticipantOptions
  readonly #stream: CutStream
  readonly #clock: Clock
  #state: HoldState
  #savedTerm: number
  #issuedCounter = 0
  #cancelExpiry: (() => void) | undefined

  constructor(options: ParticipantOptions) {
    this.#options = options
    this.#stream = options.stream
    this.#clock = options.clock
    this.#state = { ...options.saved, hold: undefined }
    this.#savedTerm = options.saved.highestTerm
  }

  get highestTerm(): number {
    return this.#state.highestTerm
  }

  /** Every counter up to it is spent, here or with others. */
  get highestCounter(): number {
    return Math.max(this.#issuedCounter, this.#state.highestCounter)
  }

  /** For a checkpoint that this agent coordinates: never given before, whatever becomes of it. */
  issueCounter(): number {
    this.#issuedCounter = this.highestCounter + 1
    return this.#issuedCounter
  }

  /** Another agent says that every counter up to it is spent. */
  heardOfCounter(counter: number): void {
    this.#issuedCounter = Math.max(this.#issuedCounter, counter)
  }

  /** Who coordinates in the highest term; empty while unknown. */
  get coordinator(): string {
    return this.#state.coordinator
  }

  /** The VRA's word. It is for the agent to write down. */
  appoint(by: { readonly term: number; readonly coordinator: string; readonly counter: number }): void {
    this.#become(appoint(this.#state, by), 'replaced')
    this.#savedTerm = Math.max(this.#savedTerm, by.term)
  }

  heardOfTerm(term: number): void {
    this.#become(seeTerm(this.#state, { term, coordinator: '' }), 'replaced')
  }

  hold(message: Hold, from: { readonly agent: string; readonly holder: number }): HoldAnswer {
    const timeoutMillis = Math.min(message.timeoutMillis, this.#options.holdTimeoutMillis)
    const refusal = this.#takeHold({ ...message, ...from, timeoutMillis })
    if (refusal !== undefined) this.#tellRefusal(message, refusal, from.agent)
    return {
      type: 'hold-answer',
      ...idOf(message),
      refusal: refusal?.sentence ?? '',
      highestTerm: this.#state.highestTerm,
      highestCounter: this.#state.highestCounter,
      volumes: refusal === undefined ? this.#stream.volumes() : [],
    }
  }

  cut(message: Cut, from: { readonly agent: string; readonly holder: number }): CutAnswer {
    this.#expire()
    const { type: _cut, ...marker } = message
    const refusal = this.#takeCut(marker, from.holder)
    if (refusal !== undefined) this.#tellRefusal(message, refusal, from.agent)
    return { type: 'cut-answer', ...idOf(message), refusal: refusal?.sentence ?? '' }
  }

  release(id: HoldId, holder: number): void {
    this.#expire()
    this.#become(takeRelease(this.#state, id, holder), 'released')
  }

  lost(holder: number): void {
    this.#become(loseHolder(this.#state, holder), 'lost')
  }

  /** The coordinator's own part: hold and marker in one step, when all the others have granted. */
  cutNow(marker: CutMarker, agent: string): Refusal | undefined {
    const request = { ...idOf(marker), agent, holder: ownHolder, timeoutMillis: this.#options.holdTimeoutMillis }
    return this.#takeHold(request) ?? this.#takeCut(marker, ownHolder)
  }

  async close(): Promise<void> {
    this.#become({ ...this.#state, hold: undefined }, 'released')
  }

  #takeHold(request: HoldRequest): Refusal | undefined {
    this.#expire()
    const step = takeHold(this.#state, request, this.#clock.monotonicMillis(), this.#stream.whyNot())
    const refusal = step.refusal ?? this.#whyNotSaved(step.state)
    this.#become(refusal === step.refusal ? step.state : { ...step.state, hold: undefined }, 'replaced')
    return refusal
  }

  #takeCut(marker: CutMarker, holder: number): Refusal | undefined {
    const step = takeCut(this.#state, marker, holder, this.#clock.monotonicMillis())
    if (step.refusal !== undefined) return step.refusal
    const refusal = this.#mark(marker)
    this.#become(step.state, refusal === undefined ? 'cut' : 'released')
    return refusal
  }

  #mark(marker: CutMarker): Refusal | undefined {
    const whyNot = this.#stream.whyNot()
    if (whyNot !== undefined) return { reason: 'stream', sentence: whyNot }
    for (const own of this.#stream.volumes()) {
      const named = marker.volumes.find(volume => volume.number === own.number)
      if (named?.sizeBytes !== own.sizeBytes || named.included !== own.included)
        return { reason: 'volumes', sentence: `volume ${own.number} is not any more as it was when the hold began` }
    }
    try {
      this.#stream.mark(marker)
      return undefined
    } catch (error) {
      return { reason: 'state', sentence: `the agent cannot write down its state: ${messageOf(error)}` }
    }
  }

  /** A term is durable before the first marker of it: after a restart a lower one would be obeyed again. */
  #whyNotSaved({ highestTerm, coordinator }: HoldState): Refusal | undefined {
    if (highestTerm <= this.#savedTerm) return undefined
    try {
      this.#options.saveTerm({ term: highestTerm, coordinator })
      this.#savedTerm = highestTerm
      return undefined
    } catch (error) {
      return { reason: 'state', sentence: `the agent cannot write down its state: ${messageOf(error)}` }
    }
  }

  #expire(): void {
    this.#become(expireHold(this.#state, this.#clock.monotonicMillis()), 'expired')
  }

  /** The one place where the state changes, and the numbering with it. */
  #become(next: HoldState, end: HoldEnd): void {
    const [before, after] = [this.#state.hold, next.hold]
    this.#state = next
    if (before === after) return
    if (before !== undefined) {
      this.#cancelExpiry?.()
      if (before.holder !== ownHolder) this.#endHold(before, end)
    }
    if (after === undefined || after.holder === ownHolder) return // its own hold ends in the step in which it began
    this.#stream.hold()
    this.#endInTime(after)
  }

  #endInTime(hold: HoldInForce): void {
    const leftMillis = Math.max(1, hold.untilMillis - this.#clock.monotonicMillis())
    this.#cancelExpiry = this.#clock.after(leftMillis, () => {
      this.#expire()
      if (this.#state.hold === hold) this.#endInTime(hold) // the timer was early
    })
  }

  #endHold(hold: HoldInForce, end: HoldEnd): void {
    this.#stream.release()
    const heldMillis = this.#clock.monotonicMillis() - hold.sinceMillis
    this.#options.events.holdEnded({ ...idOf(hold), end, heldMillis })
  }

  #tellRefusal(id: HoldId, refusal: Refusal, agent: string): void {
    assert(refusal.sentence !== '', 'a refusal says why')
    this.#options.events.holdRefused({ ...idOf(id), ...refusal, agent })
  }
}

export function idOf({ term, counter }: HoldId): HoldId {
  return { term, counter }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
