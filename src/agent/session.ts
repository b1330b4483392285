import * as net from 'node:net'
import * as tls from 'node:tls'
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
  type Hello,
  type Welcome,
} from '../wire/wire.ts'
import type { AgentConfig } from './options.ts'
import type { Stream } from './stream.ts'

/** What a session asks and tells the agent. */
export interface SessionOwner {
  readonly stream: Stream
  readonly clock: Clock
  hello(): Hello
  /** Throws a Failure where this VRA cannot be continued with. */
  welcomed(welcome: Welcome): void
  /** The session is open, and what is queued is on its way. */
  opened(address: string): void
  acknowledged(ack: Ack): void
  checkpointRequested(requestId: number): void
  status(): AgentStatus
  /** The session is over, and why. */
  ended(problem: Failure): void
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
  readonly #socket: net.Socket
  readonly #reader = new FrameReader()
  #welcome: Welcome | undefined
  #creditBytes = 0
  #sentBytes = 0
  #lastSentMillis = 0
  #lastHeardMillis = 0
  #lastStatus = ''
  #lastStatusMillis = 0
  #timer: NodeJS.Timeout | undefined
  #problem: Failure | undefined
  readonly #ended: Promise<Failure>

  constructor(target: AgentConfig['vra'], owner: SessionOwner, onWelcome: () => void) {
    this.#owner = owner
    this.#lastHeardMillis = this.#lastSentMillis = owner.clock.monotonicMillis()
    const socket = connect(target)
    this.#socket = socket
    socket.setNoDelay(true)
    socket.setTimeout(handshakeTimeoutMillis, () => this.#end(new Failure('TIMED_OUT', 'the VRA does not answer')))
    socket.once(target.tls === undefined ? 'connect' : 'secureConnect', () => this.#greet())
    socket.on('data', chunk => this.#receive(chunk, onWelcome))
    socket.on('drain', () => this.#pump())
    socket.on('end', () => this.#end(new Failure('PEER_LOST', 'the VRA closed the connection')))
    this.#ended = new Promise(resolve => {
      socket.on('error', cause => {
        this.#problem ??= new Failure('PEER_LOST', `the connection failed: ${cause.message}`, {}, { cause })
      })
      socket.on('close', () => {
        clearInterval(this.#timer)
        owner.stream.suspend()
        resolve(this.#problem ?? new Failure('PEER_LOST', 'the connection was closed'))
      })
    })
  }

  /** Why it ended. Never rejects. */
  get ended(): Promise<Failure> {
    return this.#ended
  }

  get isOpen(): boolean {
    return this.#welcome !== undefined && !this.#socket.destroyed
  }

  /** Says goodbye and closes. */
  close(): void {
    this.#problem ??= new Failure('CLOSING', 'the agent is stopping')
    if (!this.isOpen) {
      this.#socket.destroy()
      return
    }
    this.#sendStatus()
    this.#send({ type: 'goodbye' })
    this.#socket.end()
    this.#socket.setTimeout(goodbyeTimeoutMillis, () => this.#socket.destroy())
  }

  #end(problem: Failure): void {
    this.#problem ??= problem
    this.#socket.destroy()
  }

  #greet(): void {
    try {
      this.#send(this.#owner.hello())
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      this.#end(error)
    }
  }

  #receive(chunk: Buffer, onWelcome: () => void): void {
    this.#lastHeardMillis = this.#owner.clock.monotonicMillis()
    try {
      for (const frame of this.#reader.push(chunk)) {
        const message = decodeFrame(frame)
        if (message.type === 'write-batch') throw new Failure('FRAME_INVALID', 'the VRA sent a write batch')
        this.#take(message, onWelcome)
        if (this.#socket.destroyed) return
      }
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      this.#end(error)
    }
  }

  #take(message: ControlMessage, onWelcome: () => void): void {
    if (message.type === 'error') throw failureFromPeer(message.code, message.sentence)
    if (this.#welcome === undefined) {
      if (message.type !== 'welcome') throw new Failure('FRAME_INVALID', `the VRA answered Hello with ${message.type}`)
      this.#begin(message)
      onWelcome()
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
    this.#socket.setTimeout(0)
    if (!this.#owner.stream.resume(welcome.durable.sequence, () => this.#pump()))
      throw new Failure(
        'SYNC_REQUIRED',
        `the VRA has records up to ${welcome.durable.sequence}, from where the agent cannot continue: it has acknowledgements up to ` +
          `${this.#owner.stream.durable} and numbers up to ${this.#owner.stream.lastNumbered}`,
      )
    const tickMillis = Math.max(10, Math.min(welcome.heartbeatIntervalMillis, statusIntervalMillis) / 4)
    this.#timer = setInterval(() => this.#tick(welcome), tickMillis)
    this.#sendStatus()
    this.#pump()
  }

  #tick(welcome: Welcome): void {
    const now = this.#owner.clock.monotonicMillis()
    if (now - this.#lastHeardMillis > welcome.heartbeatTimeoutMillis) {
      this.#end(new Failure('TIMED_OUT', `the VRA was silent for ${welcome.heartbeatTimeoutMillis} ms`))
      return
    }
    if (now - this.#lastStatusMillis >= statusIntervalMillis) this.#sendStatus()
    if (now - this.#lastSentMillis >= welcome.heartbeatIntervalMillis)
      this.#send({ type: 'heartbeat', timestampMicros: this.#owner.clock.timestampMicros() })
  }

  /** Sends what the stream has, as far as credit and socket allow. */
  #pump(): void {
    const stream = this.#owner.stream
    for (let frame = stream.nextFrame(); frame !== undefined; frame = stream.nextFrame()) {
      const sizeBytes = frame.bytes.length
      if (this.#sentBytes + sizeBytes > this.#creditBytes) return // an Ack brings more
      if (this.#socket.destroyed || this.#socket.writableLength > sendBufferSizeBytesMax) return // 'drain' goes on
      stream.frameSent()
      this.#sentBytes += sizeBytes
      this.#write(frame.bytes)
    }
  }

  #sendStatus(): void {
    const status = this.#owner.status()
    const text = JSON.stringify(status)
    if (text === this.#lastStatus) return
    this.#lastStatus = text
    this.#lastStatusMillis = this.#owner.clock.monotonicMillis()
    this.#send(status)
  }

  #send(message: ControlMessage): void {
    this.#write(encodeFrame(message))
  }

  #write(bytes: Buffer): void {
    this.#lastSentMillis = this.#owner.clock.monotonicMillis()
    this.#socket.write(bytes)
  }
}

function connect(target: AgentConfig['vra']): net.Socket {
  const { host, port } = target
  if (target.tls === undefined) return net.connect({ host, port })
  const { certificateAuthority, certificate, privateKey, serverName } = target.tls
  return tls.connect({
    host,
    port,
    minVersion: 'TLSv1.3',
    ca: certificateAuthority,
    cert: certificate,
    key: privateKey,
    ...(serverName === undefined ? {} : { servername: serverName }),
  })
}

function failureFromPeer(code: string, sentence: string): Failure {
  const known = code in reactionTo ? (code as FailureCode) : 'FRAME_INVALID'
  return new Failure(known, sentence, { from: 'vra', code })
}
