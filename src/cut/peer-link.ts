import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import type { Closable } from '../base/shutdown.ts'
import type { CutAnswer, HoldAnswer, Participant as PeerPlace, PeerHello, PeerMessage } from '../wire/wire.ts'
import type { CutEvents } from './events.ts'
import type { PeerConnection, PeerNetwork } from './peer-network.ts'
import { checkPeer, PeerSession } from './peer-session.ts'

export interface PeerLinkOwner {
  readonly clock: Clock
  readonly events: CutEvents
  readonly network: PeerNetwork
  hello(): PeerHello
  heardOfTerm(term: number): void
  answered(stream: number, answer: HoldAnswer | CutAnswer): void
  /** The connection broke: what was asked over it will not be answered. */
  lost(stream: number, sentence: string): void
}

const retryDelayMillisFirst = 100
const retryDelayMillisMax = 2_000

/** The coordinator's connection to one other agent: opened, and opened again. */
export class PeerLink implements Closable {
  readonly peer: PeerPlace
  readonly #owner: PeerLinkOwner
  readonly #stop = new AbortController()
  readonly #running: Promise<void>
  #session: PeerSession | undefined
  #problem = 'not connected yet'

  constructor(peer: PeerPlace, owner: PeerLinkOwner) {
    this.peer = peer
    this.#owner = owner
    this.#running = this.#run()
  }

  get isUp(): boolean {
    return this.#session?.isOpen === true
  }

  /** Why it is not up, for people. */
  get problem(): string {
    return this.isUp ? '' : this.#problem
  }

  send(message: PeerMessage): void {
    if (this.isUp) this.#session?.send(message)
  }

  async close(): Promise<void> {
    this.#stop.abort()
    this.#session?.close('this agent does not coordinate any more')
    await this.#running
  }

  async #run(): Promise<void> {
    const signal = this.#stop.signal
    const { clock } = this.#owner
    let delayMillis = retryDelayMillisFirst
    while (!signal.aborted) {
      const wasUp = await this.#connectOnce()
      if (wasUp) delayMillis = retryDelayMillisFirst
      await clock.sleep(delayMillis * (0.5 + Math.random() / 2), signal).catch(() => undefined) // aborted: the loop ends
      delayMillis = Math.min(2 * delayMillis, retryDelayMillisMax)
    }
  }

  /** One session to its end; whether it was open. */
  async #connectOnce(): Promise<boolean> {
    const { network, clock, events, hello, heardOfTerm, answered, lost } = this.#owner
    const { agent, stream, peerAddress: address } = this.peer
    let connection: PeerConnection
    try {
      connection = network.connect(address)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      this.#problem = error.message
      return false
    }
    let wasUp = false
    const owner = {
      clock,
      hello,
      greeted: (said: PeerHello, certifiedName: string | undefined) => {
        checkPeer(said, { vpg: hello().vpg, agent, stream }, certifiedName)
        wasUp = true
        heardOfTerm(said.term)
        events.peerUp({ agent, address })
      },
      received: (message: { readonly type: string }) => {
        const answer = message as HoldAnswer | CutAnswer
        if (answer.type !== 'hold-answer' && answer.type !== 'cut-answer')
          throw new Failure('FRAME_INVALID', `an agent answered with ${message.type}`)
        answered(stream, answer)
      },
      ended: (sentence: string) => {
        this.#problem = sentence
        this.#session = undefined
        if (wasUp) events.peerDown({ agent, address, sentence })
        lost(stream, sentence)
      },
    }
    const session = new PeerSession(connection, owner, 'connected')
    this.#session = session
    await session.ended
    return wasUp
  }
}
