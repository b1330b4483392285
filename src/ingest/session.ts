import type { Socket } from 'node:net'
import { assert } from '../base/assert.ts'
import type { Clock } from '../base/clock.ts'
import { Failure, type FailureCode } from '../base/failure.ts'
import type { VpgId } from '../base/ids.ts'
import { frameHeaderSizeBytes } from '../base/limits.ts'
import { MiB } from '../base/units.ts'
import type { JournalWriter } from '../journal/writer.ts'
import type { ControlMessage, Directive, HashRequest, Hello } from '../wire/messages.ts'
import { decodeFrameBody, encodeFrame, protocolVersion, type FrameHeader } from '../wire/wire.ts'
import { CreditAccount } from './credit.ts'
import type { IngestEvents, SessionEnd, SessionFacts } from './events.ts'
import {
  FrameReceiver,
  isStreamFrame,
  type ControlFrameType,
  type FrameSink,
  type StreamFrame,
} from './frame-receiver.ts'
import { HashAnswers, type BlockHashes } from './hash-answers.ts'
import {
  checkHello,
  checkIdentity,
  checkVersion,
  opensGeneration,
  refusedVolumes,
  refuseStranger,
} from './handshake.ts'
import { takeStreamFrame } from './intake.ts'
import type { Refusals } from './refusals.ts'
import { readSocket, type SocketReader } from '../base/socket-reader.ts'
import type { OpenSession } from './status.ts'
import type { Notice, Stream, StreamSession } from './stream.ts'
import type { ServedVpg } from './vpg.ts'

/** What a session needs of the VRA around it. */
export interface SessionHost {
  readonly journal: JournalWriter
  readonly clock: Clock
  readonly events: IngestEvents
  readonly patience: SessionPatience
  readonly hashes: BlockHashes
  findVpg(name: string): ServedVpg | undefined
  /** Who is refused, and who is let in. */
  readonly refusals: Refusals
  /** A session began or ended to use credit; its share of the pool follows from how many do. */
  creditWindowBytes(): number
  /** The connection is gone. */
  forget(session: Session): void
}

export interface SessionPatience {
  readonly handshakeTimeoutMillis: number
  readonly heartbeatIntervalMillis: number
  readonly heartbeatTimeoutMillis: number
}

/** What a peer that does not read may leave unsent before it is given up. */
const outgoingSizeBytesMax = 1 * MiB
/** How long a refused peer has to read the Error: a connection that is torn down at once may lose it. */
const lingerMillis = 2_000
/** A frame that has begun must be whole within so many heartbeat time-outs, as it holds room that others wait for. */
const frameTimeouts = 4

type State = 'hello' | 'settling' | 'open' | 'ended'

/** What this session writes, once its Hello was accepted. */
interface Claim {
  readonly hello: Hello
  readonly vpg: ServedVpg
  readonly stream: Stream
}

/**
 * One connection, from its Hello to its end. The bytes come through a FrameReceiver, which asks admit() whether a frame may
 * come now; every refusal is a Failure and ends here, in refuse(), and with it only this session.
 */
export class Session implements FrameSink, StreamSession {
  readonly #host: SessionHost
  readonly #socket: Socket
  readonly #certifiedName: string | undefined
  readonly #address: string
  readonly #receiver: FrameReceiver
  readonly #reader: SocketReader
  readonly #credit = new CreditAccount()
  #state: State = 'hello'
  /** What it says it is, believed or not. */
  #greeting: Hello | undefined
  #claim: Claim | undefined
  #facts: OpenSession | undefined
  #hashAnswers: HashAnswers | undefined
  #welcomed = false
  #readingPaused = false
  /** On the monotonic scale: when the state was entered, the peer last heard, the last frame begun, our last frame sent. */
  #stateSinceMillis: number
  #heardAtMillis: number
  #frameSinceMillis: number | undefined
  #sentAtMillis: number
  #unsentCount = 0
  #unsentSinceMillis = 0

  /** `certifiedName` is the common name of the peer's certificate, undefined without TLS. */
  constructor(host: SessionHost, socket: Socket, certifiedName: string | undefined) {
    this.#host = host
    this.#socket = socket
    this.#certifiedName = certifiedName
    this.#address = addressOf(socket)
    this.#receiver = new FrameReceiver(host.journal, this)
    const now = host.clock.monotonicMillis()
    this.#stateSinceMillis = now
    this.#heardAtMillis = now
    this.#sentAtMillis = now
    socket.setNoDelay(true)
    socket.setKeepAlive(true, 30_000) // a peer that dies while we are not reading is noticed as well
    socket.on('error', error => this.#end('PEER_LOST', error.message))
    socket.on('end', () => this.#end('PEER_LOST', 'the peer closed the connection'))
    socket.on('close', () => {
      this.#end('PEER_LOST', 'the connection is closed')
      host.forget(this)
    })
    this.#reader = readSocket(socket, {
      nextBuffer: () => this.#receiver.nextBuffer(),
      take: (buffer, sizeBytes) => this.#takeBytes(buffer, sizeBytes),
    })
  }

  /** Defined while the session is open. */
  get facts(): OpenSession | undefined {
    return this.#facts
  }

  get vpg(): VpgId | undefined {
    return this.#claim?.vpg.definition.id
  }

  // Incoming

  #takeBytes(buffer: Uint8Array, sizeBytes: number): void {
    if (this.#state === 'ended') return
    this.#heardAtMillis = this.#host.clock.monotonicMillis()
    try {
      this.#receiver.take(buffer, sizeBytes)
    } catch (error) {
      this.fail(error)
    }
    if (!this.#receiver.isInsideFrame) this.#frameSinceMillis = undefined
    else this.#frameSinceMillis ??= this.#heardAtMillis
  }

  admit(header: FrameHeader): void {
    const { type } = header
    const stream = isStreamFrame(type)
    this.#frameSinceMillis = this.#heardAtMillis
    const allowed =
      type === 'heartbeat' || type === 'error' || type === 'goodbye'
        ? true
        : type === 'hello'
          ? this.#state === 'hello'
          : (stream || type === 'agent-status' || type === 'hash-request') && this.#state === 'open'
    if (!allowed) throw new Failure('FRAME_INVALID', `a frame of type "${type}" has no place here`)
    if (stream) this.#credit.spend(frameHeaderSizeBytes + header.bodySizeBytes)
  }

  takeControl(type: ControlFrameType, body: Uint8Array): void {
    const message = decodeFrameBody(type, body)
    switch (message.type) {
      case 'hello':
        this.#takeHello(message)
        return
      case 'agent-status': {
        const { vpg, stream } = this.#claimed()
        stream.takeStatus(message)
        if (message.quiescedBy !== '' && message.quiescedBy !== vpg.directive.quiescedBy) this.tell(vpg.directive)
        if (stream.openSyncs.size === 0 && this.#hashAnswers?.isIdle === true) this.#endHashes()
        this.#host.events.agentStatusChanged(vpg.definition.id, stream.number, message)
        return
      }
      case 'hash-request':
        this.#takeHashRequest(message)
        return
      case 'error':
        this.#end('PEER_ERROR', `the peer says ${message.code}: ${message.sentence}`)
        return
      case 'goodbye':
        this.#end('GOODBYE', 'the agent has ended the session')
        return
      default: // A heartbeat has done its work by arriving.
    }
  }

  takeStreamFrame(frame: StreamFrame): boolean {
    const { vpg, stream } = this.#claimed()
    const { journal, clock, events } = this.#host
    const frameSizeBytes = frame.slot.frame.length
    return takeStreamFrame(frame, { vpg, stream, journal, clock, events }, () => this.#credit.release(frameSizeBytes))
  }

  #takeHashRequest(request: HashRequest): void {
    const { vpg, stream } = this.#claimed()
    this.#hashAnswers ??= new HashAnswers({
      hashes: this.#host.hashes,
      vpg: vpg.definition.id,
      positions: () => vpg.durablePositions(),
      answer: reply => this.#send(reply),
    })
    this.#hashAnswers.take(request, stream.volumeSizes)
  }

  /** Its image keeps files of the log from being recycled, and other agents from theirs. A later question opens another. */
  #endHashes(): void {
    this.#hashAnswers?.close()
    this.#hashAnswers = undefined
  }

  #takeHello(hello: Hello): void {
    this.#greeting = hello
    checkVersion(hello)
    checkIdentity(hello, this.#certifiedName)
    const vpg = this.#host.findVpg(hello.vpg)
    if (vpg === undefined) throw new Failure('UNKNOWN_VPG', `there is no VPG "${hello.vpg}" here`)
    const stream = vpg.streamOf(hello.agent)
    if (stream === undefined)
      throw new Failure('IDENTITY_REFUSED', `the VPG "${hello.vpg}" does not list the agent "${hello.agent}"`)
    vpg.requireIntake()
    vpg.requireTerm()
    const { epoch, term, definition } = vpg
    const { number, durable, sessionNumber } = stream
    checkHello(hello, { definition, stream: number, epoch, term, durable, sessionNumber })
    if (stream.session?.facts !== undefined) refuseStranger(hello, durable)
    this.#claim = { hello, vpg, stream }
    this.#enter('settling')
    stream.sessionNumber = hello.sessionNumber
    const older = stream.session
    stream.session = this
    older?.supersede()
    // What the older session sent is durable before the answer says from where to go on.
    stream.whenSettled(() => this.#welcome())
  }

  #welcome(): void {
    if (this.#state !== 'settling') return
    const { hello, vpg, stream } = this.#claimed()
    const { definition, epoch, term } = vpg
    try {
      // What the older session sent is durable by now, and the VPG may have been redefined, or stopped.
      vpg.requireIntake()
      checkHello(hello, {
        ...{ definition, stream: stream.number, epoch, term },
        ...{ durable: stream.durable, sessionNumber: 0 },
      })
    } catch (error) {
      this.fail(error)
      return
    }
    const volumes = definition.volumes.filter(volume => volume.stream === stream.number)
    const syncs = volumes.map(({ number, name }) => {
      return { number, name, sync: hello.volumes.find(offered => offered.name === name)?.sync ?? 'none' }
    })
    stream.beginSession(syncs.map(({ number, sync }) => [number, sync]))
    stream.refusedVolumes = refusedVolumes(hello, { definition, stream: stream.number })
    const opens = opensGeneration(hello, stream.durable)
    if (opens) stream.openGeneration(hello.openGeneration)
    this.#enter('open')
    this.#facts = {
      address: this.#address,
      software: hello.software,
      sinceTimestampMicros: this.#host.clock.timestampMicros(),
    }
    vpg.sessionOpened(stream, hello)
    const { coordinator } = vpg
    assert(coordinator !== undefined, 'a VPG with a stream that writes has a coordinator')
    this.#send({
      type: 'welcome',
      protocolVersion,
      vpg: definition.id,
      epoch,
      incarnation: definition.incarnation,
      stream: stream.number,
      volumes: volumes.map(({ number, name, sizeBytes }) => ({ number, name, sizeBytes })),
      durable: stream.durable,
      offloaded: stream.offloaded,
      creditBytes: this.#credit.grant(this.#host.creditWindowBytes()),
      heartbeatIntervalMillis: this.#host.patience.heartbeatIntervalMillis,
      heartbeatTimeoutMillis: this.#host.patience.heartbeatTimeoutMillis,
      coordinator,
    })
    this.#welcomed = true
    if (needsDirective(hello, vpg.directive)) this.#send(vpg.directive)
    this.#host.refusals.letIn(definition.id, hello)
    this.#host.events.sessionOpened(this.#sessionFacts({ vpg, stream }))
    if (!opens) return
    const { number, agent } = stream
    const { openGeneration: generation } = hello
    this.#host.events.generationOpened(definition.id, { stream: number, agent, generation, volumes: syncs })
  }

  pauseReading(paused: boolean): void {
    if (this.#readingPaused === paused) return
    this.#readingPaused = paused
    // The silence was ours: the peer has its whole time again.
    this.#heardAtMillis = this.#host.clock.monotonicMillis()
    if (this.#frameSinceMillis !== undefined) this.#frameSinceMillis = this.#heardAtMillis
    if (paused) {
      this.#socket.pause()
      this.#host.events.readingPaused()
    } else {
      this.#socket.resume()
      this.#host.events.readingResumed()
    }
  }

  // Outgoing

  sendAck(): void {
    if (this.#state !== 'open') return
    const { stream } = this.#claimed()
    const creditBytes = this.#credit.grant(this.#host.creditWindowBytes())
    this.#send({ type: 'ack', durable: stream.durable, offloaded: stream.offloaded, creditBytes })
  }

  tell(notice: Notice): void {
    if (this.#state === 'open' && this.#welcomed) this.#send(notice)
  }

  #send(message: ControlMessage): void {
    if (!this.#socket.writable) return
    this.#sentAtMillis = this.#host.clock.monotonicMillis()
    if (this.#unsentCount === 0) this.#unsentSinceMillis = this.#sentAtMillis
    this.#unsentCount++
    this.#socket.write(encodeFrame(message), this.#onSent)
    if (this.#socket.writableLength > outgoingSizeBytesMax) this.#giveUp('the peer does not read')
  }

  readonly #onSent = (): void => {
    this.#unsentCount--
    this.#unsentSinceMillis = this.#host.clock.monotonicMillis()
  }

  // Time

  /** Called some times in a heartbeat's interval: sends what is due and ends what has been silent for too long. */
  tick(): void {
    const now = this.#host.clock.monotonicMillis()
    const { handshakeTimeoutMillis, heartbeatIntervalMillis, heartbeatTimeoutMillis } = this.#host.patience
    const inStateMillis = now - this.#stateSinceMillis
    switch (this.#state) {
      case 'ended':
        if (inStateMillis > lingerMillis) this.#socket.destroy()
        return
      case 'hello':
        if (inStateMillis > handshakeTimeoutMillis) this.#end('TIMED_OUT', 'no Hello in time')
        return
      case 'settling':
        if (inStateMillis > handshakeTimeoutMillis)
          this.#end('BUSY', 'what an earlier session sent is not durable yet; reconnect later')
        return
      case 'open':
        if (this.#unsentCount > 0 && now - this.#unsentSinceMillis > heartbeatTimeoutMillis)
          this.#giveUp('the peer does not read')
        else if (!this.#readingPaused && now - this.#heardAtMillis > heartbeatTimeoutMillis)
          this.#end('TIMED_OUT', `nothing was heard for ${heartbeatTimeoutMillis} ms`)
        else if (!this.#readingPaused && now - (this.#frameSinceMillis ?? now) > frameTimeouts * heartbeatTimeoutMillis)
          this.#end('TIMED_OUT', 'a frame was begun and did not come')
        else if (now - this.#sentAtMillis >= heartbeatIntervalMillis)
          this.#send({ type: 'heartbeat', timestampMicros: this.#host.clock.timestampMicros() })
    }
  }

  // Ends

  supersede(): void {
    this.#end('SESSION_SUPERSEDED', 'a newer session of this agent has begun')
  }

  close(sentence: string): void {
    this.#end('CLOSING', sentence)
  }

  /** A Failure costs the peer its session; anything else is a bug and ends the process. */
  fail(error: unknown): void {
    if (!(error instanceof Failure)) throw error
    if (this.#state === 'ended') return
    this.#noteRefusal(error)
    this.#host.events.frameRefused(this.vpg, error.code)
    this.#end(error.code, error.message)
  }

  #noteRefusal({ code, message: sentence }: Failure): void {
    const named = this.#greeting
    const owner = named === undefined ? undefined : this.#host.findVpg(named.vpg)?.definition.id
    const agent = named?.agent ?? this.#certifiedName
    this.#host.refusals.add(owner, { vpg: named?.vpg, agent, address: this.#address, code, sentence })
  }

  #giveUp(sentence: string): void {
    this.#end('PEER_LOST', sentence)
    this.#socket.destroy()
  }

  /** Says why, closes our side, and lets go of the stream; the peer has a moment to read it. */
  #end(end: SessionEnd, sentence: string): void {
    if (this.#state === 'ended') return
    const facts = this.#claim === undefined ? undefined : this.#sessionFacts(this.#claim)
    this.#enter('ended')
    this.#facts = undefined
    this.#receiver.close()
    this.#reader.renew()
    if (this.#readingPaused) this.pauseReading(false)
    if (end !== 'GOODBYE' && end !== 'PEER_ERROR' && end !== 'PEER_LOST') this.#sendError(end, sentence)
    this.#socket.end()
    this.#leaveStream()
    this.#host.events.sessionClosed(facts, end, sentence)
  }

  #sendError(code: FailureCode, sentence: string): void {
    this.#send({ type: 'error', code, sentence })
  }

  #leaveStream(): void {
    this.#endHashes()
    if (this.#claim === undefined || this.#claim.stream.session !== this) return
    const { vpg, stream } = this.#claim
    stream.session = undefined
    vpg.sessionEnded(stream)
  }

  #enter(state: State): void {
    this.#state = state
    this.#stateSinceMillis = this.#host.clock.monotonicMillis()
  }

  #claimed(): Claim {
    assert(this.#claim !== undefined, 'a session past its Hello')
    return this.#claim
  }

  #sessionFacts({ vpg, stream }: Pick<Claim, 'vpg' | 'stream'>): SessionFacts {
    return { vpg: vpg.definition.id, stream: stream.number, agent: stream.agent, address: this.#address }
  }
}

export function addressOf(socket: Socket): string {
  return `${socket.remoteAddress ?? 'unknown'}:${socket.remotePort ?? 0}`
}

/** A client that synchronises nothing needs not know the message, as long as it says nothing. */
function needsDirective(hello: Hello, { syncRateBytesPerSecond, paused, heldSyncs, quiescedBy }: Directive): boolean {
  const mayKnowAnother = hello.openGeneration !== 0 || hello.volumes.some(({ sync }) => sync !== 'none')
  return paused || quiescedBy !== '' || syncRateBytesPerSecond !== 0 || heldSyncs.length > 0 || mayKnowAnother
}
