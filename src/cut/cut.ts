import type { Clock } from '../base/clock.ts'
import type { VpgId } from '../base/ids.ts'
import type { Closable } from '../base/shutdown.ts'
import type { Coordinator as Appointment, Participant as PeerPlace, PeerHello } from '../wire/wire.ts'
import { Coordinator, type CutOutcome } from './coordinator.ts'
import type { CutEvents } from './events.ts'
import { Participant, type CutStream } from './participant.ts'
import type { PeerListenAddress, PeerNetwork } from './peer-network.ts'
import { PeerServer } from './peer-server.ts'

// One checkpoint over the streams of several agents: DESIGN's consistent cut, proto/README.md section 8.
//
//        coordinator                                every other participant
//            │ ── Hold ──────────────────────────────> numbers nothing more          ┐
//            │ <───────────────────────── HoldAnswer ──                              │ one round trip
//   all have granted: own marker, and                                                │
//            │ ── Cut ───────────────────────────────> the marker, and numbers go on ┘
//            │ <────────────────────────── CutAnswer ──
//            │ ── Release ───────────────────────────> (ends what a failure left)
//
// Why it is a cut. Let G be the moment when the last participant granted. Every other had granted before and numbers nothing from its grant
// to its marker, and no marker is written before G. So each stream up to its marker is the stream as it stood at G: the
// checkpoint is the state of all disks at one instant. A write is answered after it was numbered, so what was written because of an answer
// has its number later than what was answered, at G too.
//
// - The coordinator grants last, and its hold and its marker are one step: its own guests are never held. With nobody else there is no hold
//   at all.
// - A hold ends by itself, a cut without its hold is refused, a counter is held once: late, lost and repeated messages
//   cost a checkpoint, never its truth. A refusal or a silence of one participant costs that checkpoint, never a guest's write.
// - Who coordinates, and in which term, is the VRA's word (appoint()); agents obey the highest term that they have seen. Without the
//   VRA the coordinator goes on.

export type { CutOutcome } from './coordinator.ts'
export { silentCutEvents, type CutEvents } from './events.ts'
export type { CutMarker, CutStream } from './participant.ts'
export { parseAddress, TcpNetwork, type PeerTls } from './tcp-network.ts'
export type * from './peer-network.ts'

export interface CutOptions {
  readonly agent: string
  readonly stream: CutStream
  readonly clock: Clock
  readonly events: CutEvents
  readonly network: PeerNetwork
  /** Where the other agents reach this one; undefined: nobody does, and a VPG of several agents has no checkpoints. */
  readonly listen: PeerListenAddress | undefined
  readonly holdTimeoutMillis: number
  /** What was known before a restart. */
  readonly saved: { readonly highestTerm: number; readonly coordinator: string; readonly highestCounter: number }
  /** On return a restart will know it. May throw: a hold is then refused. */
  readonly saveTerm: (seen: { readonly term: number; readonly coordinator: string }) => void
}

/** Who this agent is to the VRA, and who makes the checkpoints. */
export interface CutAppointment {
  readonly vpg: VpgId
  readonly stream: number
  readonly coordinator: Appointment
}

export interface CutStatus {
  readonly coordinator: string
  readonly term: number
  readonly counter: number
  readonly isCoordinator: boolean
  /** The other agents that a coordinator needs, and why one is not reached. */
  readonly peers: readonly { readonly agent: string; readonly address: string; readonly problem: string }[]
}

/** The part of one agent in the checkpoints of its VPG: coordinator or participant, as the VRA says. */
export class Cut implements Closable {
  readonly #options: CutOptions
  readonly #participant: Participant
  #server: PeerServer | undefined
  #appointment: CutAppointment | undefined
  #coordinator: Coordinator | undefined
  #former: Promise<void> = Promise.resolve()
  #lastFailure = ''

  private constructor(options: CutOptions) {
    this.#options = options
    this.#participant = new Participant(options)
  }

  /** Listens for the other agents on return. Fails CONFIG_INVALID. */
  static async open(options: CutOptions): Promise<Cut> {
    const cut = new Cut(options)
    const { listen, clock, events, network } = options
    if (listen !== undefined)
      cut.#server = await PeerServer.open(listen, {
        clock,
        events,
        network,
        participant: cut.#participant,
        hello: () => cut.#hello(),
        peers: () => cut.#others(),
      })
    return cut
  }

  /** Where it listens; undefined where it does not. */
  get port(): number | undefined {
    return this.#server?.port
  }

  /** The VRA has said, in Welcome or later, who this agent is and who coordinates. An older term than has been seen changes nothing. */
  appoint(appointment: CutAppointment): void {
    const { term, agent, counter } = appointment.coordinator
    const before = this.#appointment
    if (term < (before?.coordinator.term ?? 0)) return
    this.#appointment = appointment
    this.#participant.appoint({ term, coordinator: agent, counter })
    if (before !== undefined && sameRole(before, appointment)) return
    this.#endCoordinator()
    if (agent === this.#options.agent && term === this.#participant.highestTerm) this.#beginCoordinator(appointment)
  }

  get isCoordinator(): boolean {
    return this.#coordinator !== undefined && this.#participant.highestTerm === this.#appointment?.coordinator.term
  }

  /** True where this agent coordinates and nothing stands against a checkpoint now. */
  get isReady(): boolean {
    return this.#coordinator !== undefined && this.#coordinator.whyNot() === undefined
  }

  /** A checkpoint of the whole VPG, where this agent coordinates. Never rejects; bounded by twice the hold time. */
  async checkpoint(requestId: number): Promise<CutOutcome | undefined> {
    const coordinator = this.#coordinator
    const outcome = await coordinator?.checkpoint(requestId)
    if (coordinator !== this.#coordinator) return outcome // ended by another appointment, of which it says nothing
    // What stands against it in this agent is told as long as it does, and not until the next checkpoint.
    const isOwn = this.#options.stream.whyNot() !== undefined
    this.#lastFailure = isOwn ? '' : (outcome?.failure?.sentence ?? '')
    return outcome
  }

  /** Why this agent makes or grants no checkpoints, a sentence for people; empty where it does. */
  whyNoCheckpoints(): string {
    const own = this.#options.stream.whyNot()
    if (own !== undefined) return own
    if (this.#appointment === undefined) return 'the VRA has not said yet who makes the checkpoints'
    const { coordinator } = this.#appointment
    if (coordinator.term < this.#participant.highestTerm)
      return `term ${this.#participant.highestTerm} has been seen, and the VRA names the coordinator of term ${coordinator.term}`
    if (this.#others().length > 0 && !this.isCoordinator && this.#server === undefined)
      return `the coordinator "${coordinator.agent}" cannot reach this agent: peers.listen is not configured`
    return this.#coordinator?.whyNot()?.sentence ?? this.#lastFailure
  }

  status(): CutStatus {
    const { highestTerm, highestCounter, coordinator } = this.#participant
    return {
      coordinator,
      term: highestTerm,
      counter: highestCounter,
      isCoordinator: this.isCoordinator,
      peers: this.#coordinator?.peers ?? [],
    }
  }

  /** Ends every hold and every connection. */
  async close(): Promise<void> {
    this.#endCoordinator()
    await this.#former
    await this.#server?.close()
    await this.#participant.close()
  }

  #beginCoordinator({ stream: streamNumber, coordinator }: CutAppointment): void {
    const options = this.#options
    this.#coordinator = new Coordinator({
      ...options,
      streamNumber,
      participant: this.#participant,
      term: coordinator.term,
      others: this.#others(),
      hello: () => this.#hello()!,
    })
  }

  #endCoordinator(): void {
    const closing = this.#coordinator?.close()
    this.#coordinator = undefined
    this.#lastFailure = ''
    if (closing !== undefined) this.#former = Promise.all([this.#former, closing]).then(() => undefined)
  }

  #hello(): PeerHello | undefined {
    if (this.#appointment === undefined) return undefined
    const { vpg, stream } = this.#appointment
    return { type: 'peer-hello', vpg, agent: this.#options.agent, stream, term: this.#participant.highestTerm }
  }

  #others(): readonly PeerPlace[] {
    const { stream, coordinator } = this.#appointment ?? {}
    return coordinator?.participants.filter(each => each.stream !== stream) ?? []
  }
}

/** True where only what the VRA counts has changed: connections stay. */
function sameRole(a: CutAppointment, b: CutAppointment): boolean {
  const role = ({ vpg, stream, coordinator: { agent, term, participants } }: CutAppointment): string =>
    JSON.stringify([vpg, stream, agent, term, participants])
  return role(a) === role(b)
}
