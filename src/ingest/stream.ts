import { assert } from '../base/assert.ts'
import { comparePositions, sequence, type Ordinal, type Position } from '../base/ids.ts'
import type { AgentStatus } from '../wire/messages.ts'
import type { RecordRun } from './stream-checks.ts'
import type { OpenSession, StreamStatus } from './status.ts'

/** The session that a stream belongs to now. */
export interface StreamSession {
  readonly facts: OpenSession | undefined
  sendAck(): void
  requestCheckpoint(requestId: number): void
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
  #durable: Position
  #offloaded: Position
  #reached: Position
  #inFlightCount = 0
  #onSettled: (() => void) | undefined
  #ackScheduled = false

  constructor(known: {
    readonly number: number
    readonly agent: string
    readonly durable: Position
    readonly offloaded: Position
    readonly lastMarker: Ordinal
  }) {
    this.number = known.number
    this.agent = known.agent
    this.lastMarker = known.lastMarker
    this.#durable = known.durable
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

  /** A frame's records were given to the journal. */
  appended(run: RecordRun): void {
    this.#reached = { generation: run.generation, sequence: sequence(run.lastSequence) }
    this.#inFlightCount++
  }

  /** The journal has synced them; frames become durable in the order in which they were appended. */
  becameDurable(run: RecordRun): void {
    assert(run.firstSequence === this.#durable.sequence + 1, `a stream becomes durable without a gap`)
    this.#durable = { generation: run.generation, sequence: sequence(run.lastSequence) }
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
      session: this.session?.facts,
      durable: this.#durable,
      offloaded: this.#offloaded,
      waitingFrameCount: this.#inFlightCount,
      agentStatus: this.agentStatus,
    }
  }
}
