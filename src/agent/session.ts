import type { Clock } from '../base/clock.ts'
import { Failure, type FailureCode, reactionTo } from '../base/failure.ts'
import { handshakeTimeoutMillis } from '../base/limits.ts'
import { MiB } from '../base/units.ts'
import {
  decodeFrame,
  encodeFrame,
  FrameReader,
  type Ack,
  type AgentStatus,
  type ControlMessage,
  type Coordinator,
  type Directive,
  type HashReply,
  type HashRequest,
  type Hello,
  type SyncRequest,
  type Welcome,
} from '../wire/wire.ts'
import type { Connect, Connection, ConnectionEnd, VraTarget } from './connect.ts'
import type { Stream } from './stream.ts'

/** What a session asks and tells the agent. */
export interface SessionOwner {
  readonly stream: Stream
  readonly clock: Clock
  readonly connect: Connect
  /** On return what the next Hello will say is durable. Fails where it cannot be written. */
  prepare(): Promise<void>
  hello(): Hello
  /** Throws a Failure where this VRA cannot be continued with. */
  welcomed(welcome: Welcome): void
  /** The session is open, and what is queued is on its way. */
  opened(address: string): void
  acknowledged(ack: Ack): void
  checkpointRequested(requestId: number): void
  directed(directive: Directive): void
  syncRequested(request: SyncRequest): void
  coordinatorChanged(coordinator: Coordinator): void
  /** False where nobody asked for it. */
  hashesTold(reply: HashReply): boolean
  /** Where questions go while the session is open; undefined when it is over. */
  askBy(send: ((request: HashRequest) => void) | undefined): void
  status(): AgentStatus
  /** The session is over, and why. */
  ended(problem: Failure, wasOpen: boolean): void
}

/** How far the kernel's and our own socket buffers are filled before the next frame waits. */
const sendBufferSizeBytesMax = 4 * MiB
const statusIntervalMillis = 1_000
/** How long the VRA may take to close its side after Goodbye. */
const goodbyeTimeoutMillis = 1_000

/**
 * One TCP connection to the VRA, from Hello to its end. Stream frames leave as credit and socket allow; everything else at once.
 */
export class Session {
  readonly #owner: SessionOwner
  readonly #clock: Clock
  readonly #connection: Connection
  readonly #reader = new FrameReader()
  readonly #onWelcome: () => void
  #welcome: Welcome | undefined
  #creditBytes = 0
  #sentBytes = 0
  #lastSentMillis = 0
  #lastHeardMillis = 0
  #lastStatus = ''
  #lastStatusMillis = 0
  #isOver = false
  #isClosed = false
  #clearTimer: () => void
  #problem: Failure | undefined
  readonly #ended: Promise<Failure>
  #tellEnded: (problem: Failure) => void = () => undefined

  constructor(target: VraTarget, owner: SessionOwner, onWelcome: () => void) {
    this.#owner = owner
    this.#clock = owner.clock
    this.#onWelcome = onWelcome
    this.#lastHeardMillis = this.#lastSentMillis = this.#clock.monotonicMillis()
    this.#ended = new Promise(resolve => {
      this.#tellEnded = resolve
    })
    this.#clearTimer = this.#clock.after(handshakeTimeoutMillis, () =>
      this.#end(new Failure('TIMED_OUT', 'the VRA does not answer')),
    )
    this.#connection = owner.connect(target, {
      opened: () => this.#greet(),
      received: chunk => this.#receive(chunk),
      drained: () => this.#pump(),
      closed: end => this.#closed(end),
    })
  }

  /** Why it ended. Never rejects. */
  get ended(): Promise<Failure> {
    return this.#ended
  }

  get isOpen(): boolean {
    return this.#welcome !== undefined && !this.#isOver && !this.#isClosed
  }

  /** True when it was open once. */
  get wasOpen(): boolean {
    return this.#welcome !== undefined
  }

  /** Sends the status now, where it is another than the last. */
  tellStatus(): void {
    this.#sendStatus()
  }

  /** Says goodbye and closes; the reason is what `ended` tells. */
  close(reason: Failure): void {
    this.#problem ??= reason
    if (!this.isOpen) {
      this.#connection.destroy()
      return
    }
    this.#isOver = true
    this.#sendStatus()
    this.#send({ type: 'goodbye' })
    this.#connection.end()
    this.#clearTimer()
    this.#clearTimer = this.#clock.after(goodbyeTimeoutMillis, () => this.#connection.destroy())
  }

  #end(problem: Failure): void {
    this.#problem ??= problem
    this.#isOver = true
    this.#connection.destroy()
  }

  #closed({ by, cause }: ConnectionEnd): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#clearTimer()
    this.#owner.stream.suspend()
    this.#owner.askBy(undefined)
    this.#tellEnded(
      this.#problem ?? (by === 'peer' ? new Failure('PEER_LOST', this.#sentenceOfClose()) : connectionFailure(cause)),
    )
  }

  /** With TLS 1.3 the handshake is over for the agent before the VRA has looked at its certificate. */
  #sentenceOfClose(): string {
    if (this.#welcome !== undefined) return 'the VRA closed the connection'
    return 'the VRA closed the connection before it answered; where that goes on, `vra status` there says why: a certificate, or TLS on one side only'
  }

  #greet(): void {
    try {
      this.#send(this.#owner.hello())
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      this.#end(error)
    }
  }

  #receive(chunk: Buffer): void {
    if (this.#isOver) return
    this.#lastHeardMillis = this.#clock.monotonicMillis()
    try {
      for (const frame of this.#reader.push(chunk)) {
        const message = decodeFrame(frame)
        if (message.type === 'write-batch') throw new Failure('FRAME_INVALID', 'the VRA sent a write batch')
        this.#take(message)
        if (this.#isOver) return
      }
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      this.#end(error)
    }
  }

  #take(message: ControlMessage): void {
    if (message.type === 'error') throw failureFromPeer(message.code, message.sentence)
    if (this.#welcome === undefined) {
      if (message.type !== 'welcome') throw new Failure('FRAME_INVALID', `the VRA answered Hello with ${message.type}`)
      this.#begin(message)
      this.#onWelcome()
      return
    }
    switch (message.type) {
      case 'ack':
        this.#creditBytes = Math.max(this.#creditBytes, message.creditBytes)
        this.#owner.acknowledged(message)
        this.#pump()
        return
      case 'checkpoint-request':
        this.#owner.checkpointRequested(message.requestId)
        return
      case 'directive':
        this.#owner.directed(message)
        return
      case 'sync-request':
        this.#owner.syncRequested(message)
        return
      case 'coordinator-changed':
        this.#owner.coordinatorChanged(message.coordinator)
        return
      case 'hash-reply':
        if (this.#owner.hashesTold(message)) return
        throw new Failure(
          'FRAME_INVALID',
          `the VRA answered hashes (request ${message.requestId}) that nobody asked for`,
        )
      case 'heartbeat':
        return
      default:
        throw new Failure('FRAME_INVALID', `the VRA sent ${message.type} inside a session`)
    }
  }

  #begin(welcome: Welcome): void {
    this.#owner.welcomed(welcome)
    this.#welcome = welcome
    this.#creditBytes = welcome.creditBytes
    if (!this.#owner.stream.resume(welcome.durable.sequence, () => this.#pump()))
      throw new Failure(
        'SYNC_REQUIRED',
        `the VRA has records up to ${welcome.durable.sequence}, from where the agent cannot continue: it has acknowledgements up to ` +
          `${this.#owner.stream.durable} and numbers up to ${this.#owner.stream.lastNumbered}`,
      )
    this.#planTick(welcome)
    this.#sendStatus()
    this.#owner.askBy(request => this.#send(request))
    this.#pump()
  }

  #planTick(welcome: Welcome): void {
    const tickMillis = Math.max(10, Math.min(welcome.heartbeatIntervalMillis, statusIntervalMillis) / 4)
    this.#clearTimer()
    this.#clearTimer = this.#clock.after(tickMillis, () => {
      this.#planTick(welcome)
      this.#tick(welcome)
    })
  }

  #tick(welcome: Welcome): void {
    const now = this.#clock.monotonicMillis()
    if (now - this.#lastHeardMillis > welcome.heartbeatTimeoutMillis) {
      this.#end(new Failure('TIMED_OUT', `the VRA was silent for ${welcome.heartbeatTimeoutMillis} ms`))
      return
    }
    if (now - this.#lastStatusMillis >= statusIntervalMillis) this.#sendStatus()
    if (now - this.#lastSentMillis >= welcome.heartbeatIntervalMillis)
      this.#send({ type: 'heartbeat', timestampMicros: this.#clock.timestampMicros() })
  }

  /** Sends what the stream has, as far as credit and socket allow. */
  #pump(): void {
    const stream = this.#owner.stream
    for (let frame = stream.nextFrame(); frame !== undefined; frame = stream.nextFrame()) {
      const sizeBytes = frame.length
      if (this.#sentBytes + sizeBytes > this.#creditBytes) return // an Ack brings more
      if (this.#isOver || this.#isClosed || this.#connection.bufferedBytes > sendBufferSizeBytesMax) return // drained() goes on
      this.#sentBytes += sizeBytes
      this.#write(frame, stream.frameSent())
    }
  }

  #sendStatus(): void {
    const status = this.#owner.status()
    const text = JSON.stringify(status)
    if (text === this.#lastStatus) return
    this.#lastStatus = text
    this.#lastStatusMillis = this.#clock.monotonicMillis()
    this.#send(status)
  }

  #send(message: ControlMessage): void {
    this.#write(encodeFrame(message))
  }

  #write(bytes: Buffer, taken?: () => void): void {
    this.#lastSentMillis = this.#clock.monotonicMillis()
    this.#connection.write(bytes, taken)
  }
}

function failureFromPeer(code: string, sentence: string): Failure {
  const known = code in reactionTo ? (code as FailureCode) : 'FRAME_INVALID'
  return new Failure(known, sentence, { from: 'vra', code })
}

/** One of the two does not accept the other's certificate: nothing that passes by itself, as a lost connection does. */
function connectionFailure(cause: NodeJS.ErrnoException | undefined): Failure {
  const {
    code = '',
    message: told = 'it is gone',
    reason,
  } = (cause ?? {}) as Partial<NodeJS.ErrnoException & Error> & {
    readonly reason?: string // OpenSSL's words, without its file and line
  }
  const message = reason ?? told
  const refused = (sentence: string): Failure =>
    new Failure('IDENTITY_REFUSED', `${sentence}: ${message}`, { code }, { cause })
  if (code === 'ERR_SSL_WRONG_VERSION_NUMBER')
    return refused('this agent speaks TLS, and what answers at the address of the VRA does not')
  if (/^ERR_SSL_.*ALERT/.test(code)) return refused('the VRA does not accept this agent')
  if (/CERT|SIGNATURE|ISSUER/.test(code)) return refused("the VRA's certificate is not accepted")
  return new Failure('PEER_LOST', `the connection failed: ${message}`, {}, { cause })
}
