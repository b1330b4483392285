import type { Position } from '../base/ids.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { RefusedVolume } from './handshake.ts'
import type { Refusal } from './refusals.ts'
import type { AgentStatus, Directive } from '../wire/messages.ts'

/** What ingest knows of a VPG now, for people. */
export interface VpgIngestStatus {
  readonly streams: readonly StreamStatus[]
  /** The newest complete checkpoint that ingest knows. */
  readonly lastCheckpoint: Checkpoint | undefined
  /** Who makes checkpoints; undefined when the VPG has no agent. */
  readonly coordinator: string | undefined
  readonly term: number
  /** Why no checkpoints are made now, in a sentence; undefined when they are. */
  readonly noCheckpointsBecause: string | undefined
  /** Synchronisations that the agents are told to have wait. */
  readonly heldSyncs: Directive['heldSyncs']
  /** Peers that asked for this VPG and were refused, the newest first. */
  readonly refusals: readonly Refusal[]
  /** When the newest checkpoint was made; before the first, when this VRA began to serve the VPG. */
  readonly noCheckpointsSinceMicros: number
}

export interface StreamStatus {
  readonly stream: number
  readonly agent: string
  /** `host:port` for the other agents; empty for none. */
  readonly peerAddress: string
  /** Undefined while no session is open. */
  readonly session: OpenSession | undefined
  readonly durable: Position
  readonly offloaded: Position
  /** Frames taken but not durable yet. */
  readonly waitingFrameCount: number
  /** Of the open session: volumes that are not served in it, and why. */
  readonly refusedVolumes: readonly RefusedVolume[]
  /** What the agent said last, in this or an earlier session. */
  readonly agentStatus: AgentStatus | undefined
}

export interface OpenSession {
  /** "host:port" of the peer. */
  readonly address: string
  readonly software: string
  readonly sinceTimestampMicros: number
}
