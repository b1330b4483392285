import type { FailureCode } from '../base/failure.ts'
import type { VpgId } from '../base/ids.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { AgentStatus, SyncKind } from '../wire/messages.ts'

/** Why a session ended: in order, by the peer's Error, or by one of our codes (PEER_LOST: the connection went away). */
export type SessionEnd = FailureCode | 'GOODBYE' | 'PEER_ERROR'

export interface SessionFacts {
  readonly vpg: VpgId
  readonly stream: number
  readonly agent: string
  /** "host:port" of the peer; for the log, never a label. */
  readonly address: string
}

/** What ingest tells; metrics and the log listen. Called on the hot path: an implementation only counts. */
export interface IngestEvents {
  /** A Hello was accepted and answered. */
  sessionOpened(session: SessionFacts): void
  /** `session` is undefined for a connection that never became one; the sentence is for people. */
  sessionClosed(session: SessionFacts | undefined, end: SessionEnd, sentence: string): void
  /** A frame, a handshake or a connection was refused; the connection is closed next. */
  frameRefused(vpg: VpgId | undefined, code: FailureCode): void
  /**
   * An agent that could not continue exactly begins anew, with these synchronisations. Told before the first record of the
   * generation; again where the VRA was restarted before one was durable.
   */
  generationOpened(vpg: VpgId, opened: OpenedGeneration): void
  batchDurable(vpg: VpgId, batch: DurableBatch): void
  /** Frames that the VRA had already: dropped and acknowledged. */
  duplicateDropped(vpg: VpgId, stream: number): void
  checkpointComplete(vpg: VpgId, checkpoint: Checkpoint): void
  /** Another agent makes the checkpoints now, under a higher term. */
  coordinatorChanged(vpg: VpgId, coordinator: { readonly agent: string; readonly term: number }): void
  agentStatusChanged(vpg: VpgId, stream: number, status: AgentStatus): void
  /** The pool is used up: nothing is read from this connection until there is room. */
  readingPaused(): void
  readingResumed(): void
}

export interface OpenedGeneration {
  readonly stream: number
  readonly agent: string
  readonly generation: number
  readonly volumes: readonly { readonly number: number; readonly name: string; readonly sync: SyncKind }[]
}

export interface DurableBatch {
  readonly stream: number
  readonly writeCount: number
  readonly rawSizeBytes: number
  readonly frameSizeBytes: number
  /** When its last write was numbered, by the agent's clock. */
  readonly timestampMicros: number
  /** From the arrival of the frame's last byte until it was durable. */
  readonly ackLatencyMillis: number
}

/** For whoever does not listen. */
export const silentIngestEvents: IngestEvents = {
  sessionOpened: () => undefined,
  sessionClosed: () => undefined,
  frameRefused: () => undefined,
  generationOpened: () => undefined,
  batchDurable: () => undefined,
  duplicateDropped: () => undefined,
  checkpointComplete: () => undefined,
  coordinatorChanged: () => undefined,
  agentStatusChanged: () => undefined,
  readingPaused: () => undefined,
  readingResumed: () => undefined,
}
