import {
  beginRound,
  cutRound,
  failRound,
  isOver,
  takeCutAnswer,
  takeHoldAnswer,
  type CutRound,
} from '../../src/cut/cut-round.ts'
import {
  appoint,
  loseHolder,
  takeCut,
  takeHold,
  takeRelease,
  type HoldRequest,
  type HoldState,
  type HoldStep,
} from '../../src/cut/hold-state.ts'
import type { CutAnswer, HoldAnswer, HoldId } from '../../src/wire/wire.ts'
import { below } from './wire-samples.ts'

// Agents, coordinators and clients on a network that loses, repeats and reorders, as one random history. Invariants, checked by faults():
//
// 1. In a checkpoint whose markers are in all streams, a client's writes are a prefix of what it wrote: it writes the next one, anywhere,
//    only when the one before was answered.
// 2. No participant numbers a write between the grant that a coordinator counted and the marker.
// 3. No stream has two markers of one id, and ids rise in it.

type Record =
  { readonly client: number; readonly index: number } | { readonly marker: HoldId; readonly sinceGrant: number }

type Message =
  | { readonly kind: 'hold'; readonly request: HoldRequest }
  | { readonly kind: 'hold-answer'; readonly answer: Omit<HoldAnswer, 'type'> }
  | { readonly kind: 'cut'; readonly id: HoldId; readonly holder: number }
  | { readonly kind: 'cut-answer'; readonly answer: Omit<CutAnswer, 'type'> }
  | { readonly kind: 'release'; readonly id: HoldId; readonly holder: number }

interface Envelope {
  readonly from: number
  readonly to: number
  /** A connection ends with either end: what is under way to a former life of an agent never arrives. */
  readonly lives: readonly [number, number]
  readonly message: Message
}

interface Agent {
  life: number
  /** Its own clock; clocks run on independently, so a hold may end at any moment. */
  nowMillis: number
  state: HoldState
  whyNot: string | undefined
  readonly stream: Record[]
  /** How long the stream was when the newest hold was granted. */
  grantLength: number
  /** On the local disk, without a number yet. */
  waiting: { readonly client: number; readonly index: number }[]
  appointedTerm: number
  round: CutRound | undefined
  lastCounter: number
}

interface Client {
  /** Writes that it has begun; the last may be unanswered. */
  begun: number
  answered: number
}

/** The rules under test; a variant breaks one of them. */
export interface CutRules {
  readonly takeHold: (state: HoldState, request: HoldRequest, nowMillis: number, whyNot: string | undefined) => HoldStep
  readonly takeCut: (state: HoldState, id: HoldId, holder: number, nowMillis: number) => HoldStep
  /** False: writes are numbered whatever is held. */
  readonly holdsNumbering: boolean
  /** True: a guest is answered when its write is on the disk, whether it has a number or not. */
  readonly answersBeforeNumber: boolean
}

export const soundRules: CutRules = { takeHold, takeCut, holdsNumbering: true, answersBeforeNumber: false }

const timeoutMillis = 100

export class CutHistory {
  readonly #random: () => number
  readonly #rules: CutRules
  readonly #agents: Agent[]
  readonly #clients: Client[]
  readonly #faulty: boolean
  #network: Envelope[] = []
  #cutOff: number | undefined
  #term = 1

  constructor(random: () => number, rules: CutRules, faulty = true) {
    this.#random = random
    this.#rules = rules
    this.#faulty = faulty
    this.#agents = Array.from({ length: 2 + below(random, 3) }, () => ({
      life: 0,
      nowMillis: below(random, 1000),
      state: { highestTerm: 1, coordinator: '0', highestCounter: 0, hold: undefined },
      whyNot: undefined,
      stream: [],
      grantLength: 0,
      waiting: [],
      appointedTerm: 0,
      round: undefined,
      lastCounter: 0,
    }))
    this.#agents[0]!.appointedTerm = 1
    this.#clients = Array.from({ length: 1 + below(random, 4) }, () => ({ begun: 0, answered: 0 }))
  }

  run(stepCount: number): void {
    for (let step = 0; step < stepCount; step++) this.#step()
  }

  get checkpointCount(): number {
    return this.#complete().length
  }

  /** What the history proves wrong; empty where every invariant holds. */
  faults(): string[] {
    const faults: string[] = []
    for (const [index, { stream }] of this.#agents.entries()) {
      let last = 0
      for (const record of stream) {
        if (!('marker' in record)) continue
        const { term, counter } = record.marker
        if (counter <= last) faults.push(`agent ${index}: marker ${term}.${counter} behind counter ${last}`)
        last = counter
        if (record.sinceGrant !== 0)
          faults.push(`agent ${index}: ${record.sinceGrant} writes inside ${term}.${counter}`)
      }
    }
    return [...faults, ...this.tornCheckpoints()]
  }

  /** Invariant 1 alone: what a person who recovers would see. */
  tornCheckpoints(): string[] {
    return this.#complete().flatMap(id => this.#tornClients(id))
  }

  /** Ids whose markers are in every stream. */
  #complete(): string[] {
    const markersOf = ({ stream }: Agent): Set<string> =>
      new Set(stream.flatMap(record => ('marker' in record ? [nameOf(record.marker)] : [])))
    const [first, ...others] = this.#agents.map(markersOf)
    return [...first!].filter(name => others.every(markers => markers.has(name)))
  }

  #tornClients(id: string): string[] {
    const included = this.#clients.map(() => new Set<number>())
    for (const { stream } of this.#agents)
      for (const record of stream) {
        if (!('marker' in record)) included[record.client]!.add(record.index)
        else if (nameOf(record.marker) === id) break
      }
    return included.flatMap((indexes, client) => {
      const missing = Array.from({ length: Math.max(0, ...indexes) }, (_, at) => at + 1).find(at => !indexes.has(at))
      return missing === undefined ? [] : [`checkpoint ${id}: client ${client} lacks ${missing} and has a later one`]
    })
  }

  #step(): void {
    const agent = below(this.#random, this.#agents.length)
    const kind = this.#random()
    if (this.#random() < 0.05) this.#cutOff = undefined
    if (this.#random() < 0.05) this.#agents[agent]!.whyNot = undefined
    if (kind < 0.35) this.#clientStep()
    else if (kind < 0.75) this.#deliver()
    else if (kind < 0.83) this.#beginRound()
    else if (kind < 0.93) this.#agents[agent]!.nowMillis += below(this.#random, timeoutMillis / 4)
    else if (this.#faulty) this.#disturb(agent)
    this.#openExpired()
  }

  #disturb(index: number): void {
    const agent = this.#agents[index]!
    const kind = this.#random()
    if (kind < 0.2) agent.nowMillis += timeoutMillis
    else if (kind < 0.35) this.#network.splice(below(this.#random, this.#network.length + 1), 1)
    else if (kind < 0.5 && agent.round !== undefined)
      this.#advance(index, failRound(agent.round, { reason: 'timed-out', sentence: 'late' }))
    else if (kind < 0.6) this.#crash(index)
    else if (kind < 0.7) this.#appointAnother(index)
    else if (kind < 0.8) this.#cutOff = this.#cutOff === undefined ? index : undefined
    else if (kind < 0.9) agent.whyNot = agent.whyNot === undefined ? 'a synchronisation is open' : undefined
    else this.#loseConnection(index)
  }

  // Clients.

  #clientStep(): void {
    const ready = this.#clients.flatMap(({ begun, answered }, index) => (begun === answered ? [index] : []))
    const index = ready[below(this.#random, ready.length)]
    if (index === undefined) return
    const client = this.#clients[index]!
    const agent = this.#agents[below(this.#random, this.#agents.length)]!
    client.begun++
    agent.waiting.push({ client: index, index: client.begun })
    if (this.#rules.answersBeforeNumber) client.answered = client.begun
    this.#numberWaiting(agent)
  }

  #numberWaiting(agent: Agent): void {
    if (this.#rules.holdsNumbering && agent.state.hold !== undefined) return
    for (const write of agent.waiting.splice(0)) {
      agent.stream.push(write)
      const client = this.#clients[write.client]!
      client.answered = Math.max(client.answered, write.index)
    }
  }

  // Agents.

  #openExpired(): void {
    for (const agent of this.#agents) {
      const { hold } = agent.state
      if (hold !== undefined && hold.untilMillis <= agent.nowMillis)
        this.#become(agent, { ...agent.state, hold: undefined })
    }
  }

  #become(agent: Agent, state: HoldState): void {
    if (state.hold !== undefined && state.hold !== agent.state.hold) agent.grantLength = agent.stream.length
    agent.state = state
    this.#numberWaiting(agent)
  }

  #mark(agent: Agent, marker: HoldId): void {
    agent.stream.push({ marker, sinceGrant: agent.stream.length - agent.grantLength })
  }

  /** Its memory is gone but for the term; the VRA tells it the counters of its stream. What had no number is never answered. */
  #crash(index: number): void {
    const agent = this.#agents[index]!
    agent.life++
    const lost = new Set(agent.waiting.map(write => write.client))
    for (const client of lost) {
      this.#clients[client]!.answered = -1 // it waits for ever, and another takes its place
      this.#clients.push({ begun: 0, answered: 0 })
    }
    agent.waiting = []
    agent.round = undefined
    agent.lastCounter = 0
    const counters = agent.stream.flatMap(record => ('marker' in record ? [record.marker.counter] : []))
    const { highestTerm, coordinator } = agent.state
    agent.state = { highestTerm, coordinator, highestCounter: Math.max(0, ...counters), hold: undefined }
  }

  /** The VRA names another coordinator; the others hear of it from that one, or later from the VRA. */
  #appointAnother(index: number): void {
    const term = this.#random() < 0.8 ? ++this.#term : this.#term
    const agent = this.#agents[index]!
    if (term > this.#term - 1 && this.#agents.some(each => each.appointedTerm === term)) return
    agent.appointedTerm = term
    this.#become(agent, appoint(agent.state, { term, coordinator: String(index), counter: 0 }))
  }

  #loseConnection(index: number): void {
    const holder = this.#agents[index]!.state.hold?.holder
    if (holder !== undefined) this.#become(this.#agents[index]!, loseHolder(this.#agents[index]!.state, holder))
  }

  // Rounds.

  #beginRound(): void {
    const heedless = this.#random() < 0.1 // begins a round although it has seen a higher term
    const candidates = this.#agents.flatMap(({ appointedTerm, round, state }, index) =>
      appointedTerm > 0 && round === undefined && (heedless || appointedTerm === state.highestTerm) ? [index] : [],
    )
    const index = candidates[below(this.#random, candidates.length)]
    if (index === undefined) return
    const agent = this.#agents[index]!
    const id = { term: agent.appointedTerm, counter: Math.max(agent.lastCounter, agent.state.highestCounter) + 1 }
    agent.lastCounter = id.counter
    const others = this.#agents.flatMap((_, other) => (other === index ? [] : [other]))
    agent.round = beginRound(id, others)
    const request = { ...id, agent: String(index), holder: this.#holderOf(index), timeoutMillis }
    for (const to of others) this.#send(index, to, { kind: 'hold', request })
  }

  #holderOf(index: number): number {
    return 1 + index * 1000 + this.#agents[index]!.life
  }

  #advance(index: number, round: CutRound): void {
    const agent = this.#agents[index]!
    agent.round = round
    const id = { term: round.term, counter: round.counter }
    const holder = this.#holderOf(index)
    if (round.phase === 'granted') {
      const request = { ...id, agent: String(index), holder: 0, timeoutMillis }
      const held = this.#rules.takeHold(agent.state, request, agent.nowMillis, agent.whyNot)
      this.#become(agent, held.state)
      if (held.refusal !== undefined)
        return this.#advance(index, failRound(round, { reason: 'stream', sentence: held.refusal.sentence }))
      this.#mark(agent, id)
      this.#become(agent, takeCut(agent.state, id, 0, agent.nowMillis).state)
      for (const to of round.others) this.#send(index, to, { kind: 'cut', id, holder })
      return this.#advance(index, cutRound(round))
    }
    if (!isOver(round)) return
    agent.round = undefined
    for (const to of round.others) this.#send(index, to, { kind: 'release', id, holder })
  }

  // The network.

  #send(from: number, to: number, message: Message): void {
    const lives = [this.#agents[from]!.life, this.#agents[to]!.life] as const
    this.#network.push({ from, to, lives, message })
  }

  #deliver(): void {
    const at = below(this.#random, this.#network.length)
    const envelope = this.#network[at]
    if (envelope === undefined) return
    const { from, to, lives, message } = envelope
    if (this.#cutOff === from || this.#cutOff === to) return
    if (!this.#faulty || this.#random() < 0.85) this.#network.splice(at, 1)
    if (this.#agents[to]!.life !== lives[1]) return
    this.#receive(envelope, message)
  }

  #receive({ from, to }: Envelope, message: Message): void {
    const agent = this.#agents[to]!
    switch (message.kind) {
      case 'hold': {
        const step = this.#rules.takeHold(agent.state, message.request, agent.nowMillis, agent.whyNot)
        this.#become(agent, step.state)
        const { term, counter } = message.request
        const { highestTerm, highestCounter } = agent.state
        const refusal = step.refusal?.sentence ?? ''
        const answer = { term, counter, refusal, highestTerm, highestCounter, volumes: [] }
        this.#send(to, from, { kind: 'hold-answer', answer })
        return
      }
      case 'cut': {
        const step = this.#rules.takeCut(agent.state, message.id, message.holder, agent.nowMillis)
        if (step.refusal === undefined) this.#mark(agent, message.id)
        this.#become(agent, step.state)
        this.#send(to, from, { kind: 'cut-answer', answer: { ...message.id, refusal: step.refusal?.sentence ?? '' } })
        return
      }
      case 'release':
        this.#become(agent, takeRelease(agent.state, message.id, message.holder))
        return
      case 'hold-answer':
        agent.lastCounter = Math.max(agent.lastCounter, message.answer.highestCounter)
        if (agent.round !== undefined) this.#advance(to, takeHoldAnswer(agent.round, from, message.answer))
        return
      case 'cut-answer':
        if (agent.round !== undefined) this.#advance(to, takeCutAnswer(agent.round, from, message.answer))
    }
  }
}

function nameOf({ term, counter }: HoldId): string {
  return `${term}.${counter}`
}
