import { createServer, type Server, type Socket } from 'node:net'
import { createServer as createTlsServer, type TLSSocket } from 'node:tls'
import { assert } from '../base/assert.ts'
import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import type { PositionVector, StreamPosition, VpgId } from '../base/ids.ts'
import { handshakeTimeoutMillis, heartbeatIntervalMillis, heartbeatTimeoutMillis, sessionsMax } from '../base/limits.ts'
import type { JournalWriter } from '../journal/writer.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { VpgDefinition } from '../timeline/definition.ts'
import { creditWindowBytes } from './credit.ts'
import type { IngestEvents } from './events.ts'
import type { BlockHashes } from './hash-answers.ts'
import type { IngestVpg } from './registry.ts'
import { Refusals, type Refusal } from './refusals.ts'
import { addressOf, Session, type SessionHost, type SessionPatience } from './session.ts'
import type { VpgIngestStatus } from './status.ts'
import { ServedVpg, type ServedVpgHost } from './vpg.ts'

// Ingest takes the streams of all agents: steps 6 to 9 of the way of a write (src/README.md).
//
//   socket ─> FrameReceiver ─────> Session ──────> takeStreamFrame ───> journal ─────────> Stream ──> Ack
//             header, checksum,    may it come      position, bounds,    durable, in the     durable    one a group
//             room in the pool     now? credit      marker's label       order of appends    position
//
// What is known of a stream (Stream) outlives its sessions: a new session of the same agent ends the old one, waits until
// what that one sent is durable, and goes on from there. Everything from outside is refused by code and costs the peer its
// session, nothing else. All runs on the main thread and nothing here waits: what must wait is a callback of the journal.

export type { Refusal } from './refusals.ts'
export type { BlockHashes, OpenHashes } from './hash-answers.ts'
export type { OpenSession, StreamStatus, VpgIngestStatus } from './status.ts'

export interface IngestOptions {
  /** With port 0 the system chooses one, see `port`. */
  readonly listen: { readonly host: string; readonly port: number }
  /** PEM texts. Undefined: plain TCP, where the agent is who it says it is. */
  readonly tls?: { readonly certificate: string; readonly privateKey: string; readonly authority: string } | undefined
  readonly journal: JournalWriter
  readonly vpgs: readonly IngestVpg[]
  readonly clock: Clock
  readonly events: IngestEvents
  /** See ServedVpgHost. */
  readonly issueTerm: ServedVpgHost['issueTerm']
  readonly hashes: BlockHashes
  readonly patience?: SessionPatience
  readonly sessionsMax?: number
  /** Who accepts the connections, where that is not a listener of this machine; with `tls` its sockets are certified. */
  readonly server?: Server
}

const defaultPatience: SessionPatience = { handshakeTimeoutMillis, heartbeatIntervalMillis, heartbeatTimeoutMillis }
const ticksPerInterval = 4
/** How long a closing VRA waits for its peers to have read why. */
const closeMillisMax = 1_000

export class Ingest {
  readonly #options: IngestOptions
  readonly #patience: SessionPatience
  readonly #host: SessionHost
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  readonly #sessions = new Set<Session>()
  readonly #vpgs = new Map<VpgId, ServedVpg>()
  readonly #refusals: Refusals
  readonly #closing = new AbortController()
  readonly #ticking: Promise<void>
  #onEmpty: (() => void) | undefined

  private constructor(options: IngestOptions, server: Server) {
    this.#options = options
    this.#patience = options.patience ?? defaultPatience
    this.#server = server
    this.#refusals = new Refusals(options.clock)
    this.#host = {
      journal: options.journal,
      clock: options.clock,
      events: options.events,
      hashes: options.hashes,
      patience: this.#patience,
      findVpg: name => [...this.#vpgs.values()].find(vpg => vpg.definition.name === name),
      refusals: this.#refusals,
      creditWindowBytes: () => creditWindowBytes(this.#sessions.size),
      forget: session => this.#forget(session),
    }
    for (const vpg of options.vpgs) this.addVpg(vpg)
    this.#ticking = this.#tick(this.#closing.signal)
  }

  /** Listens on return. Fails CONFIG_INVALID when it cannot. */
  static async open(options: IngestOptions): Promise<Ingest> {
    const { tls } = options
    const server = options.server ?? (tls === undefined ? createServer() : createCertifiedServer(tls, options.patience))
    // Beyond sessionsMax a peer is told so; far beyond, it is not even answered.
    server.maxConnections = 2 * (options.sessionsMax ?? sessionsMax)
    await listen(server, options.listen)
    const ingest = new Ingest(options, server)
    ingest.#serve()
    return ingest
  }

  get port(): number {
    const address = this.#server.address()
    return typeof address === 'object' && address !== null ? address.port : 0
  }

  get sessionCount(): number {
    return this.#sessions.size
  }

  addVpg(vpg: IngestVpg): void {
    assert(!this.#vpgs.has(vpg.definition.id), 'a VPG is added once')
    this.#vpgs.set(vpg.definition.id, new ServedVpg(vpg, this.#options))
  }

  /** Ends its sessions. What they have sent may still become durable. */
  removeVpg(id: VpgId): void {
    const vpg = this.#vpgs.get(id)
    this.#vpgs.delete(id)
    this.#refusals.forget(id)
    this.#endSessions(vpg, 'the VPG was deleted')
    vpg?.requests.close()
  }

  /**
   * Goes on by another definition of the same VPG. What a Welcome says reaches the agents by a new one, so their sessions end;
   * rate and pause are told by a Directive.
   */
  updateVpg(definition: VpgDefinition): void {
    const vpg = this.#served(definition.id)
    const { definition: before, directive } = vpg
    assert(before.name === definition.name, 'the name of a VPG is fixed')
    vpg.redefine(definition)
    const isRetold = JSON.stringify(toldByWelcome(before)) !== JSON.stringify(toldByWelcome(definition))
    if (isRetold) this.#endSessions(vpg, 'the definition of the VPG has changed; reconnect')
    else if (JSON.stringify(directive) !== JSON.stringify(vpg.directive)) vpg.tellDirective()
  }

  /** All synchronisations of the VPG are to wait, for this reason; undefined: none but those that wait for reasons of their own. */
  holdSyncs(id: VpgId, reason: string | undefined): void {
    this.#vpgs.get(id)?.holdSyncs(reason)
  }

  /** For this reason nothing is taken from the VPG's agents: their sessions end, and new ones fail BUSY. Undefined: they may come. */
  stopIntake(id: VpgId, reason: string | undefined): void {
    const vpg = this.#vpgs.get(id)
    if (vpg === undefined) return
    vpg.notTakenBecause = reason
    if (reason !== undefined) this.#endSessions(vpg, reason)
  }

  /** Asks the agents of these volumes for a synchronisation. Fails PEER_LOST where one of them is not connected. */
  requestSync(id: VpgId, kind: 'full' | 'delta', volumes: readonly number[]): void {
    this.#served(id).requestSync(kind, volumes)
  }

  /** Raises the offloaded mark and tells the agents. A position below what was told before changes nothing. */
  offloaded(id: VpgId, positions: readonly StreamPosition[]): void {
    const vpg = this.#vpgs.get(id)
    for (const position of positions)
      vpg?.streams.find(stream => stream.number === position.stream)?.raiseOffloaded(position)
  }

  /** Checkpoints with a marker up to here that are not complete will not be told of. */
  giveUp(id: VpgId, through: PositionVector): void {
    this.#vpgs.get(id)?.giveUp(through)
  }

  /** A checkpoint after this call. Fails PEER_LOST when no agent is connected, TIMED_OUT when it makes none in 30 s. */
  async requestCheckpoint(id: VpgId): Promise<Checkpoint> {
    return this.#served(id).requestCheckpoint()
  }

  status(id: VpgId): VpgIngestStatus {
    return { ...this.#served(id).status(), refusals: this.#refusals.of(id) }
  }

  /** Of peers that belong to no VPG here, the newest first. */
  refusals(): readonly Refusal[] {
    return this.#refusals.of(undefined)
  }

  /** Ends every session with CLOSING. Nothing is appended after it returns; what was may still become durable. */
  async close(): Promise<void> {
    this.#closing.abort()
    await this.#ticking
    for (const vpg of this.#vpgs.values()) vpg.requests.close()
    for (const session of this.#sessions) session.close('the VRA is shutting down')
    const closed = new Promise<void>(resolve => this.#server.close(() => resolve()))
    await this.#whenEmpty()
    await closed
  }

  /** Peers that have not closed their side in time, or never became sessions, are cut off. */
  async #whenEmpty(): Promise<void> {
    if (this.#sessions.size > 0) {
      const waiting = new AbortController()
      this.#onEmpty = () => waiting.abort()
      await this.#options.clock.sleep(closeMillisMax, waiting.signal).catch(ignoreAbort)
    }
    for (const socket of this.#sockets) socket.destroy()
  }

  #serve(): void {
    const { events, tls } = this.#options
    const refuse = (): void => events.frameRefused(undefined, tls === undefined ? 'BUSY' : 'IDENTITY_REFUSED')
    this.#server.on('error', refuse) // of a connection that could not be accepted
    this.#server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket)
      addressOf(socket) // asked for once it is remembered: a peer whose certificate is refused is gone when that is told
      socket.on('close', () => this.#sockets.delete(socket))
      if (tls === undefined) this.#accept(socket, undefined)
    })
    this.#server.on('secureConnection', (socket: TLSSocket) => this.#acceptCertified(socket))
    this.#server.on('tlsClientError', (error: Error, socket: TLSSocket) => {
      refuse()
      this.#noteStranger(
        beneath(socket),
        `its certificate or its TLS is not accepted: ${handshakeProblem(error, socket)}`,
      )
      socket.destroy()
    })
  }

  #acceptCertified(socket: TLSSocket): void {
    const name: unknown = socket.getPeerCertificate().subject?.CN
    if (typeof name === 'string') this.#accept(socket, name)
    else {
      this.#options.events.frameRefused(undefined, 'IDENTITY_REFUSED')
      this.#noteStranger(socket, 'its certificate has no common name')
      socket.destroy()
    }
  }

  #noteStranger(socket: Socket, sentence: string): void {
    const address = addressOf(socket)
    this.#refusals.add(undefined, { vpg: undefined, agent: undefined, address, code: 'IDENTITY_REFUSED', sentence })
  }

  #accept(socket: Socket, certifiedName: string | undefined): void {
    const session = new Session(this.#host, socket, certifiedName)
    this.#sessions.add(session)
    const countMax = this.#options.sessionsMax ?? sessionsMax
    if (this.#closing.signal.aborted) session.close('the VRA is shutting down')
    else if (this.#sessions.size > countMax) session.fail(new Failure('BUSY', `there are ${countMax} sessions already`))
  }

  #forget(session: Session): void {
    this.#sessions.delete(session)
    if (this.#sessions.size === 0) this.#onEmpty?.()
  }

  #endSessions(vpg: ServedVpg | undefined, sentence: string): void {
    for (const stream of vpg?.streams ?? []) stream.session?.close(sentence)
  }

  #served(id: VpgId): ServedVpg {
    const vpg = this.#vpgs.get(id)
    if (vpg === undefined) throw new Failure('UNKNOWN_VPG', `ingest serves no VPG ${id}`)
    return vpg
  }

  async #tick(signal: AbortSignal): Promise<void> {
    const tickMillis = this.#patience.heartbeatIntervalMillis / ticksPerInterval
    while (!signal.aborted) {
      await this.#options.clock.sleep(tickMillis, signal).catch(ignoreAbort)
      for (const session of this.#sessions) session.tick()
      for (const vpg of this.#vpgs.values()) {
        vpg.requests.expire()
        vpg.review()
      }
    }
  }
}

/** The TCP socket that a TLS socket is over: Node keeps it, and does not say so. */
function beneath(socket: TLSSocket): Socket {
  return (socket as unknown as { readonly _parent?: Socket | null })._parent ?? socket
}

/** A refused certificate is in the socket ("CERT_HAS_EXPIRED"), and the error only says that the socket was closed for it. */
function handshakeProblem(error: Error, socket: TLSSocket): string {
  const { reason } = error as { readonly reason?: string } // OpenSSL's words, without its file and line
  const refused: unknown = socket.authorizationError
  return typeof refused === 'string' ? refused : (reason ?? error.message)
}

function ignoreAbort(error: unknown): void {
  if (!(error instanceof Error && error.name === 'AbortError')) throw error
}

function createCertifiedServer(tls: NonNullable<IngestOptions['tls']>, patience = defaultPatience): Server {
  try {
    return createTlsServer({
      cert: tls.certificate,
      key: tls.privateKey,
      ca: tls.authority,
      minVersion: 'TLSv1.3',
      requestCert: true,
      rejectUnauthorized: true,
      handshakeTimeout: patience.handshakeTimeoutMillis,
    })
  } catch (error) {
    throw new Failure(
      'CONFIG_INVALID',
      `the certificate or its key (listen.tls) is of no use: ${String(error)}`,
      {},
      { cause: error },
    )
  }
}

function listen(server: Server, at: IngestOptions['listen']): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', error => {
      reject(
        new Failure('CONFIG_INVALID', `cannot listen on ${at.host}:${at.port}: ${error.message}`, {}, { cause: error }),
      )
    })
    server.listen(at.port, at.host, () => {
      server.removeAllListeners('error')
      resolve()
    })
  })
}

function toldByWelcome({ incarnation, volumes, streams, checkpointIntervalMillis }: VpgDefinition): unknown {
  const told = volumes.map(({ number, name, sizeBytes, stream }) => [number, name, sizeBytes, stream])
  return [incarnation, told, streams, checkpointIntervalMillis]
}
