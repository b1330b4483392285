import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import { handshakeTimeoutMillis, peerHeartbeatIntervalMillis, peerHeartbeatTimeoutMillis } from '../base/limits.ts'
import { decodeFrame, encodeFrame, FrameReader, type ControlMessage, type PeerHello } from '../wire/wire.ts'
import type { PeerConnection } from './peer-network.ts'

/** What one end of a connection between two agents is told and asked. */
export interface PeerSessionOwner {
  readonly clock: Clock
  hello(): PeerHello
  /** Throws a Failure where the peer is not who it must be; the session ends. */
  greeted(hello: PeerHello, certifiedName: string | undefined): void
  /** Any message after PeerHello but heartbeats. Throws a Failure where it does not belong here. */
  received(message: ControlMessage): void
  /** The session is over; once, the last call. `wasOpen`: PeerHello had been accepted. */
  ended(sentence: string, wasOpen: boolean): void
}

/** Messages are small: a peer that lets so much wait does not read. */
const bufferedBytesMax = 1024 * 1024
const ticksPerInterval = 4

/** One connection between two agents, from PeerHello to its end. The side that connected speaks first. */
export class PeerSession {
  readonly #connection: PeerConnection
  readonly #owner: PeerSessionOwner
  readonly #speaksFirst: boolean
  readonly #reader = new FrameReader()
  readonly #stop = new AbortController()
  #certifiedName: string | undefined
  #isOpen = false
  #problem: string | undefined
  #lastSentMillis: number
  #lastHeardMillis: number
  #endBy: number
  /** Settles when the session has ended. */
  readonly ended: Promise<void>

  constructor(connection: PeerConnection, owner: PeerSessionOwner, side: 'connected' | 'accepted') {
    this.#connection = connection
    this.#owner = owner
    this.#speaksFirst = side === 'connected'
    const now = owner.clock.monotonicMillis()
    this.#lastSentMillis = this.#lastHeardMillis = now
    this.#endBy = now + handshakeTimeoutMillis
    const closed = new Promise<void>(resolve => {
      connection.attach({
        opened: certifiedName => {
          this.#certifiedName = certifiedName
          if (this.#speaksFirst) this.send(owner.hello())
        },
        received: chunk => this.#receive(chunk),
        closed: sentence => {
          this.#stop.abort()
          const wasOpen = this.#isOpen
          this.#isOpen = false
          owner.ended(this.#problem ?? sentence, wasOpen)
          resolve()
        },
      })
    })
    this.ended = Promise.all([closed, this.#tick()]).then(() => undefined)
  }

  get isOpen(): boolean {
    return this.#isOpen
  }

  get address(): string {
    return this.#connection.address
  }

  send(message: ControlMessage): void {
    this.#lastSentMillis = this.#owner.clock.monotonicMillis()
    this.#connection.send(encodeFrame(message))
  }

  /** Ends it. With a failure the peer is told why. */
  close(problem: Failure | string): void {
    if (this.#problem !== undefined) return
    this.#problem = typeof problem === 'string' ? problem : problem.message
    if (problem instanceof Failure && problem.code !== 'PEER_LOST' && problem.code !== 'TIMED_OUT')
      this.send({ type: 'error', code: problem.code, sentence: problem.message.slice(0, 1000) })
    const nothingToSay = problem instanceof Failure ? problem.code === 'TIMED_OUT' : !this.#isOpen
    this.#connection.close(nothingToSay ? 'at-once' : 'flush')
  }

  #receive(chunk: Uint8Array): void {
    this.#lastHeardMillis = this.#owner.clock.monotonicMillis()
    try {
      for (const frame of this.#reader.push(chunk)) {
        if (this.#problem !== undefined) return
        const message = decodeFrame(frame)
        if (message.type === 'write-batch') throw new Failure('FRAME_INVALID', 'an agent sent a write batch to another')
        this.#take(message)
      }
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      this.close(error)
    }
  }

  #take(message: ControlMessage): void {
    if (message.type === 'error') {
      this.close(`the other agent ended the connection: ${message.sentence} (${message.code})`)
    } else if (message.type === 'heartbeat') {
      return
    } else if (this.#isOpen) {
      this.#owner.received(message)
    } else if (message.type === 'peer-hello') {
      this.#owner.greeted(message, this.#certifiedName)
      this.#isOpen = true
      if (!this.#speaksFirst) this.send(this.#owner.hello())
    } else throw new Failure('FRAME_INVALID', `an agent began with ${message.type}`)
  }

  async #tick(): Promise<void> {
    const { clock } = this.#owner
    const signal = this.#stop.signal
    while (!signal.aborted) {
      await clock.sleep(peerHeartbeatIntervalMillis / ticksPerInterval, signal).catch(() => undefined) // aborted: it has ended
      const now = clock.monotonicMillis()
      const silent = this.#isOpen ? now - this.#lastHeardMillis > peerHeartbeatTimeoutMillis : now > this.#endBy
      if (silent) this.close(new Failure('TIMED_OUT', 'the other agent is silent'))
      if (this.#connection.bufferedBytes > bufferedBytesMax)
        this.close(new Failure('TIMED_OUT', 'the other agent does not read'))
      if (this.#isOpen && !signal.aborted && now - this.#lastSentMillis >= peerHeartbeatIntervalMillis)
        this.send({ type: 'heartbeat', timestampMicros: clock.timestampMicros() })
    }
  }
}

/** An agent is who its certificate says, and the one that is meant. Fails IDENTITY_REFUSED. */
export function checkPeer(
  hello: PeerHello,
  expected: { readonly vpg: string; readonly agent: string; readonly stream: number },
  certifiedName: string | undefined,
): void {
  const { vpg, agent, stream } = hello
  const why =
    certifiedName !== undefined && certifiedName !== agent
      ? `it calls itself "${agent}", its certificate says "${certifiedName}"`
      : vpg !== expected.vpg
        ? `it belongs to another VPG`
        : agent !== expected.agent || stream !== expected.stream
          ? `it is "${agent}" with stream ${stream}, not "${expected.agent}" with stream ${expected.stream}`
          : undefined
  if (why !== undefined) throw new Failure('IDENTITY_REFUSED', `the other agent was refused: ${why}`)
}
