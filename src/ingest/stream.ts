import { assert } from '../base/assert.ts'
import { comparePositions, sequence, type Ordinal, type Position } from '../base/ids.ts'
import type {
  AgentStatus,
  CheckpointRequest,
  CoordinatorChanged,
  Directive,
  SyncKind,
  SyncRequest,
} from '../wire/messages.ts'
import type { RefusedVolume } from './handshake.ts'
import type { RecordRun, VolumeSizes } from './stream-checks.ts'
import type { OpenSession, StreamStatus } from './status.ts'

/** What the VRA says to an agent unasked. */
export type Notice = CheckpointRequest | SyncRequest | Directive | CoordinatorChanged

/** The session that a stream belongs to now. */
export interface StreamSession {
  readonly facts: OpenSession | undefined
  sendAck(): void
  /** Sends it where the session is open. */
  tell(notice: Notice): void
  supersede(): void
  close(sentence: string): void
}

/**
 * What the VRA has of one stream, over all its sessions. `reached` is ahead of `durable` by what is in flight to the
 * journal; a new session begins only when the two are one.
 */
export class Stream {
  readonly number: number
  readonly agent: string
  /** Of the newest session that was accepted since ingest opened. */
  sessionNumber = 0
  session: StreamSession | undefined
  lastMarker: Ordinal
  agentStatus: AgentStatus | undefined
  volumeSizes: VolumeSizes
  /** `host:port` where other agents reach this one, as its newest Hello had it; empty for none. */
  peerAddress = ''
  /** Of the newest session: volumes that it leaves alone, and why. */
  refusedVolumes: readonly RefusedVolume[] = []
  readonly #openSyncs = new Map<number, SyncKind>()
  #durable: Position
  #offloaded: Position
  #reached: Position
  #lastRecord: Position
  #inFlightCount = 0
  #onSettled: (() => void) | undefined
  #ackScheduled = false

  constructor(known: {
    readonly number: number
    readonly agent: string
    readonly durable: Position
    readonly offloaded: Position
    readonly lastMarker: Ordinal
    readonly volumeSizes: VolumeSizes
  }) {
    this.number = known.number
    this.agent = known.agent
    this.lastMarker = known.lastMarker
    this.volumeSizes = known.volumeSizes
    this.#durable = known.durable
    this.#lastRecord = known.durable
    this.#reached = known.durable
    this.#offloaded = known.offloaded
  }

  get durable(): Position {
    return this.#durable
  }

  get offloaded(): Position {
    return this.#offloaded
  }

  get reached(): Position {
    return this.#reached
  }

  /** The newest durable record. Behind `durable` while a generation is open and holds none. */
  get lastRecord(): Position {
    return this.#lastRecord
  }

  /** The synchronisations of the present session that are not over, by the volume's number. */
  get openSyncs(): ReadonlyMap<number, SyncKind> {
    return this.#openSyncs
  }

  /** A session has begun: its Hello says which volumes are in a synchronisation. */
  beginSession(syncs: Iterable<readonly [number, SyncKind]>): void {
    this.#openSyncs.clear()
    for (const [volume, kind] of syncs) if (kind !== 'none') this.#openSyncs.set(volume, kind)
    // Another process, on another state directory perhaps: whether guests write is its to say.
    if (this.agentStatus !== undefined) this.agentStatus = { ...this.agentStatus, quiescedBy: '' }
  }

  /** What the agent of the present session says of itself; it is who ends a synchronisation. */
  takeStatus(status: AgentStatus): void {
    this.agentStatus = status
    for (const { number, sync } of status.volumes) if (sync === 'none') this.#openSyncs.delete(number)
  }

  /** From here on the stream goes on in this generation, from its beginning. What was in flight has settled. */
  openGeneration(generation: number): void {
    assert(this.#inFlightCount === 0, 'a generation is opened between two sessions')
    assert(generation > this.#durable.generation, 'generations rise')
    this.#durable = { generation, sequence: sequence(0) }
    this.#reached = this.#durable
  }

  /** A frame's records were given to the journal. */
  appended(run: RecordRun): void {
    this.#reached = { generation: run.generation, sequence: sequence(run.lastSequence) }
    this.#inFlightCount++
  }

  /** The journal has synced them; frames become durable in the order in which they were appended. */
  becameDurable(run: RecordRun): void {
    const { generation } = this.#durable
    const follows = run.generation === generation || (generation === 0 && run.generation === 1)
    assert(follows && run.firstSequence === this.#durable.sequence + 1, 'a stream becomes durable without a gap')
    this.#durable = { generation: run.generation, sequence: sequence(run.lastSequence) }
    this.#lastRecord = this.#durable
    this.#inFlightCount--
    this.scheduleAck()
    if (this.#inFlightCount > 0) return
    const onSettled = this.#onSettled
    this.#onSettled = undefined
    onSettled?.()
  }

  /** Calls back when nothing is in flight, at once if so. Only the newest caller is remembered: it has superseded the others. */
  whenSettled(callback: () => void): void {
    if (this.#inFlightCount === 0) callback()
    else this.#onSettled = callback
  }

  raiseOffloaded(position: Position): void {
    if (comparePositions(position, this.#offloaded) <= 0) return
    this.#offloaded = { generation: position.generation, sequence: position.sequence }
    this.scheduleAck()
  }

  /** One Ack for all that happens in this turn: a group of the journal makes many frames durable at once. */
  scheduleAck(): void {
    if (this.#ackScheduled) return
    this.#ackScheduled = true
    queueMicrotask(() => {
      this.#ackScheduled = false
      this.session?.sendAck()
    })
  }

  status(): StreamStatus {
    return {
      stream: this.number,
      agent: this.agent,
      peerAddress: this.peerAddress,
      session: this.session?.facts,
      durable: this.#durable,
      offloaded: this.#offloaded,
      waitingFrameCount: this.#inFlightCount,
      refusedVolumes: this.session?.facts === undefined ? [] : this.refusedVolumes,
      agentStatus: this.agentStatus,
    }
  }
}
