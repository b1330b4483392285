import type { Clock } from '../base/clock.ts'
import type { Closable } from '../base/shutdown.ts'
import type { CutAnswer, HoldAnswer, HoldId, Participant as PeerPlace, PeerHello } from '../wire/wire.ts'
import {
  beginRound,
  cutRound,
  failRound,
  hasTwice,
  isOver,
  takeCutAnswer,
  takeHoldAnswer,
  type CutRound,
  type RoundFailure,
} from './cut-round.ts'
import type { CutEvents } from './events.ts'
import { idOf, type CutStream, type Participant } from './participant.ts'
import { PeerLink } from './peer-link.ts'
import type { PeerNetwork } from './peer-network.ts'

export interface CoordinatorOptions {
  readonly agent: string
  /** This agent's own. */
  readonly streamNumber: number
  readonly stream: CutStream
  readonly participant: Participant
  readonly clock: Clock
  readonly events: CutEvents
  readonly network: PeerNetwork
  readonly holdTimeoutMillis: number
  readonly term: number
  /** All others of the VPG. */
  readonly others: readonly PeerPlace[]
  readonly hello: () => PeerHello
}

/** What became of a checkpoint; with a failure it cost this one checkpoint and nothing else. */
export type CutOutcome = HoldId & { readonly failure: RoundFailure | undefined }

/** That wait for the one before them. */
const askedMax = 16

/** Makes the checkpoints of one term, one at a time, over connections to all other agents that it keeps open. */
export class Coordinator implements Closable {
  readonly #options: CoordinatorOptions
  readonly #links: readonly PeerLink[]
  #round: CutRound | undefined
  #requestId = 0
  #onOver: (() => void) | undefined
  #last: Promise<unknown> = Promise.resolve()
  #closed = false
  #asked = 0

  constructor(options: CoordinatorOptions) {
    this.#options = options
    this.#links = options.others
      .filter(peer => peer.peerAddress !== '')
      .map(peer => new PeerLink(peer, { ...this.#linkOwner(), ...options }))
  }

  /** Why there can be no checkpoint now, for people; undefined where there can. */
  whyNot(): RoundFailure | undefined {
    const { participant, stream, term, others, agent } = this.#options
    const sentence = stream.whyNot()
    if (sentence !== undefined) return { reason: 'stream', sentence: `${agent}: ${sentence}` }
    if (this.#closed || participant.highestTerm !== term || participant.coordinator !== agent)
      return { reason: 'refused', sentence: `"${agent}" does not coordinate any more` }
    for (const peer of others) {
      const link = this.#links.find(each => each.peer.stream === peer.stream)
      const why = link === undefined ? 'it has not said where it can be reached (peers.advertise)' : link.problem
      if (why !== '') return { reason: 'unreachable', sentence: `agent "${peer.agent}" is not reached: ${why}` }
    }
    return undefined
  }

  get peers(): readonly { readonly agent: string; readonly address: string; readonly problem: string }[] {
    return this.#options.others.map(({ agent, stream, peerAddress: address }) => {
      const link = this.#links.find(each => each.peer.stream === stream)
      return { agent, address, problem: link?.problem ?? 'its address is not known' }
    })
  }

  /** A checkpoint in which every participant has its marker, or what kept it from that. Never rejects; bounded by two hold times. */
  checkpoint(requestId: number): Promise<CutOutcome> {
    if (this.#asked >= askedMax) {
      const failure = { reason: 'refused', sentence: `${askedMax} checkpoints are being made already` } as const
      return Promise.resolve(
        this.#failed({ term: this.#options.term, counter: this.#options.participant.highestCounter }, failure),
      )
    }
    this.#asked++
    const outcome = this.#last.then(() => this.#run(requestId)).finally(() => this.#asked--)
    this.#last = outcome
    return outcome
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#fail({ reason: 'lost', sentence: `"${this.#options.agent}" does not coordinate any more` })
    await this.#last
    for (const link of this.#links) await link.close()
  }

  async #run(requestId: number): Promise<CutOutcome> {
    const { term, participant, others, clock, events } = this.#options
    const whyNot = this.whyNot()
    if (whyNot !== undefined) return this.#failed({ term, counter: participant.highestCounter }, whyNot)
    const counter = participant.issueCounter()
    const startMillis = clock.monotonicMillis()
    this.#requestId = requestId
    const over = new Promise<void>(resolve => (this.#onOver = resolve))
    this.#become(
      beginRound(
        { term, counter },
        others.map(each => each.stream),
      ),
    )
    await this.#untilOver(over)
    const { round } = this.#finish()
    if (round.phase === 'failed') return this.#failed(round, round.failure)
    const roundMillis = clock.monotonicMillis() - startMillis
    events.checkpointCut({ ...idOf(round), participantCount: others.length + 1, roundMillis })
    return { ...idOf(round), failure: undefined }
  }

  /** The holds last as long as the first wait; the second is for answers only. */
  async #untilOver(over: Promise<void>): Promise<void> {
    const { clock, holdTimeoutMillis } = this.#options
    for (const phase of ['holding', 'cutting'] as const) {
      if (this.#round?.phase !== phase) continue
      const patience = new AbortController()
      const bound = clock.sleep(holdTimeoutMillis, patience.signal).catch(() => undefined) // aborted: it is over in time
      await Promise.race([over, bound])
      patience.abort()
      await bound
      if (this.#round.phase !== phase) continue
      const waiting = this.#round.waiting.map(stream => `"${this.#agentOf(stream)}"`).join(', ')
      this.#fail({ reason: 'timed-out', sentence: `no answer from ${waiting} within ${holdTimeoutMillis} ms` })
    }
    await over
  }

  /** Every step of a round passes here: when all have granted, the markers follow in the same step, so holds are short. */
  #become(next: CutRound): void {
    const before = this.#round
    if (before === next) return
    this.#round = next
    if (next.phase === 'holding' && before === undefined)
      this.#sendAll({ type: 'hold', ...idOf(next), timeoutMillis: this.#options.holdTimeoutMillis })
    if (next.phase === 'granted') this.#cut(next)
    if (!isOver(next)) return
    if (next.others.length > 0) this.#sendAll({ type: 'release', ...idOf(next) })
    this.#onOver?.()
  }

  #cut(round: CutRound & { readonly phase: 'granted' }): void {
    const { stream, streamNumber, participant, clock, agent } = this.#options
    const named = [...stream.volumes(), ...round.volumes]
    const volumes = [...named, ...stream.absent(named)].sort((a, b) => a.number - b.number)
    if (hasTwice(volumes)) return this.#fail({ reason: 'volumes', sentence: 'two agents hold the same volume' })
    if (!volumes.some(volume => volume.included))
      return this.#fail({ reason: 'volumes', sentence: 'every volume is in its first synchronisation' })
    const participants = [streamNumber, ...round.others].sort((a, b) => a - b)
    const timestampMicros = clock.timestampMicros()
    const marker = { ...idOf(round), timestampMicros, participants, volumes, requestId: this.#requestId }
    const refusal = participant.cutNow(marker, agent)
    if (refusal !== undefined) return this.#fail({ reason: 'stream', sentence: refusal.sentence })
    this.#sendAll({ type: 'cut', ...marker })
    this.#become(cutRound(round))
  }

  #fail(failure: RoundFailure): void {
    if (this.#round !== undefined) this.#become(failRound(this.#round, failure))
  }

  #finish(): { readonly round: CutRound } {
    const round = this.#round!
    this.#round = undefined
    return { round }
  }

  #failed(id: HoldId, failure: RoundFailure): CutOutcome {
    this.#options.events.checkpointFailed({ ...idOf(id), ...failure })
    return { ...idOf(id), failure }
  }

  #sendAll(message: Parameters<PeerLink['send']>[0]): void {
    for (const link of this.#links) link.send(message)
  }

  #linkOwner() {
    return {
      heardOfTerm: (term: number) => this.#options.participant.heardOfTerm(term),
      answered: (stream: number, answer: HoldAnswer | CutAnswer) => this.#answered(stream, answer),
      lost: (stream: number, sentence: string) => {
        if (this.#round !== undefined)
          this.#fail({ reason: 'lost', sentence: `agent "${this.#agentOf(stream)}" was lost: ${sentence}` })
      },
    }
  }

  #answered(stream: number, answer: HoldAnswer | CutAnswer): void {
    if (answer.type === 'hold-answer') {
      this.#options.participant.heardOfTerm(answer.highestTerm)
      this.#options.participant.heardOfCounter(answer.highestCounter)
    }
    if (this.#round === undefined) return
    const named = answer.refusal === '' ? '' : `agent "${this.#agentOf(stream)}" refused: ${answer.refusal}`
    const step = { ...answer, refusal: named }
    this.#become(
      step.type === 'hold-answer'
        ? takeHoldAnswer(this.#round, stream, step)
        : takeCutAnswer(this.#round, stream, step),
    )
  }

  #agentOf(stream: number): string {
    return this.#options.others.find(peer => peer.stream === stream)?.agent ?? `stream ${stream}`
  }
}
