import type { Position, VpgId } from '../base/ids.ts'

// The protocol's messages as domain types: what `decodeFrame` returns has passed every rule of proto/README.md that can be
// checked without knowing the session.

export interface Hello {
  readonly type: 'hello'
  readonly protocolVersionMin: number
  readonly protocolVersionMax: number
  readonly vpg: string
  readonly agent: string
  readonly sessionNumber: number
  readonly epoch: number
  readonly incarnation: number
  readonly volumes: readonly HelloVolume[]
  readonly resumableFrom: Position
  readonly lastNumbered: Position
  readonly software: string
  /** 0, or the generation that the agent opens because it cannot continue exactly. */
  readonly openGeneration: number
  /** `host:port` where the other agents of the VPG reach this one; empty for none. */
  readonly peerAddress: string
  /** Of a coordinator, that this agent has heard of; 0 for none. */
  readonly highestTerm: number
}

export interface HelloVolume {
  readonly name: string
  readonly sizeBytes: number
  readonly sync: SyncKind
}

/** What a synchronisation sends; in the order of their numbers in vra.proto. */
export type SyncKind = 'none' | 'initial' | 'full' | 'delta' | 'bitmap'
export const syncKinds: readonly SyncKind[] = ['none', 'initial', 'full', 'delta', 'bitmap']

export interface Welcome {
  readonly type: 'welcome'
  readonly protocolVersion: number
  readonly vpg: VpgId
  readonly epoch: number
  readonly incarnation: number
  readonly stream: number
  readonly volumes: readonly { readonly name: string; readonly number: number; readonly sizeBytes: number }[]
  readonly durable: Position
  readonly offloaded: Position
  readonly creditBytes: number
  readonly heartbeatIntervalMillis: number
  readonly heartbeatTimeoutMillis: number
  readonly coordinator: Coordinator
}

export interface Coordinator {
  readonly agent: string
  readonly term: number
  readonly counter: number
  readonly checkpointIntervalMillis: number
  /** Every stream of the VPG; empty: only that of the agent that is told. */
  readonly participants: readonly Participant[]
}

export interface Participant {
  readonly stream: number
  readonly agent: string
  /** Empty while none is known. */
  readonly peerAddress: string
  readonly volumes: readonly number[]
}

export interface Marker {
  readonly type: 'marker'
  readonly generation: number
  readonly sequence: number
  readonly term: number
  readonly counter: number
  readonly timestampMicros: number
  readonly participants: readonly number[]
  readonly volumes: readonly MarkerVolume[]
  /** 0 where nobody asked for it. */
  readonly requestId: number
}

export interface MarkerVolume {
  readonly number: number
  readonly sizeBytes: number
  /** False while it is in a synchronisation that the checkpoint does not wait for. */
  readonly included: boolean
}

export interface Ack {
  readonly type: 'ack'
  readonly durable: Position
  readonly offloaded: Position
  readonly creditBytes: number
}

export interface Heartbeat {
  readonly type: 'heartbeat'
  readonly timestampMicros: number
}

export interface CheckpointRequest {
  readonly type: 'checkpoint-request'
  readonly requestId: number
}

export interface AgentStatus {
  readonly type: 'agent-status'
  readonly queuedBytes: number
  readonly queuedRecords: number
  readonly volumes: readonly VolumeStatus[]
  /** Why this agent makes or grants no checkpoints; empty when it does. */
  readonly noCheckpointsBecause: string
  /** The operation for which nothing is written any more, durably; empty where that is not so. */
  readonly quiescedBy: string
}

export interface VolumeStatus {
  readonly number: number
  readonly needsSync: boolean
  readonly reason: string
  readonly sinceTimestampMicros: number
  readonly sync: SyncKind
  /** Bytes of the volume that the synchronisation looks at, has looked at, and has sent as data. */
  readonly syncTotalBytes: number
  readonly syncDoneBytes: number
  readonly syncSentBytes: number
  /** Regions that the VRA may lack. */
  readonly dirtyBytes: number
}

export interface ErrorMessage {
  readonly type: 'error'
  readonly code: string
  readonly sentence: string
}

export interface Goodbye {
  readonly type: 'goodbye'
}

export interface SyncRequest {
  readonly type: 'sync-request'
  readonly kind: SyncKind
  readonly volumes: readonly number[]
}

export interface HashRequest {
  readonly type: 'hash-request'
  readonly requestId: number
  readonly volume: number
  readonly offsetBytes: number
  readonly blockSizeBytes: number
  readonly blockCount: number
}

export interface HashReply {
  readonly type: 'hash-reply'
  readonly requestId: number
  /** Of hashSizeBytes a block; all zeros for a block of zeros. */
  readonly hashes: Uint8Array
  /** Why there are none, a sentence; else empty. */
  readonly failure: string
  /** Of a failure: the same question may be answered in a while. */
  readonly passing: boolean
}

export interface Directive {
  readonly type: 'directive'
  /** 0 for no limit. */
  readonly syncRateBytesPerSecond: number
  readonly paused: boolean
  /** Volumes whose synchronisation is to wait, and why. */
  readonly heldSyncs: readonly HeldSync[]
  /** Volumes of which a first synchronisation sends only what differs: the VRA has an image of them. */
  readonly comparedVolumes: readonly number[]
  /** The operation for which no write is to be taken any more; empty: they are taken. */
  readonly quiescedBy: string
}

export interface HeldSync {
  readonly volumes: readonly number[]
  readonly reason: string
}

export interface CoordinatorChanged {
  readonly type: 'coordinator-changed'
  readonly coordinator: Coordinator
}

export interface PeerHello {
  readonly type: 'peer-hello'
  readonly vpg: VpgId
  readonly agent: string
  readonly stream: number
  readonly term: number
}

/** Of a hold, and of the checkpoint that it is for. */
export interface HoldId {
  readonly term: number
  readonly counter: number
}

export interface Hold extends HoldId {
  readonly type: 'hold'
  readonly timeoutMillis: number
}

export interface HoldAnswer extends HoldId {
  readonly type: 'hold-answer'
  /** Why not; empty: the hold is in force. */
  readonly refusal: string
  readonly highestTerm: number
  readonly volumes: readonly MarkerVolume[]
  /** Every counter up to it is spent. */
  readonly highestCounter: number
}

export interface Cut extends HoldId {
  readonly type: 'cut'
  readonly timestampMicros: number
  readonly participants: readonly number[]
  readonly volumes: readonly MarkerVolume[]
  readonly requestId: number
}

export interface CutAnswer extends HoldId {
  readonly type: 'cut-answer'
  /** Empty: the marker has its number. */
  readonly refusal: string
}

export interface Release extends HoldId {
  readonly type: 'release'
}

/** What the agents of one VPG say to each other. */
export type PeerMessage = PeerHello | Hold | HoldAnswer | Cut | CutAnswer | Release

/** Every message but the write batch, whose columns are read in place: see BatchView. */
export type ControlMessage =
  | Hello
  | Welcome
  | Marker
  | Ack
  | Heartbeat
  | CheckpointRequest
  | AgentStatus
  | ErrorMessage
  | Goodbye
  | SyncRequest
  | HashRequest
  | HashReply
  | Directive
  | CoordinatorChanged
  | PeerMessage

/**
 * A write batch over the bytes that it arrived in: nothing is copied, so it is valid as long as they are. Columns, sums and the
 * block table have been checked; volumes and bounds have not (the session knows those), nor whether the blocks decompress.
 */
export interface BatchView {
  readonly type: 'write-batch'
  readonly generation: number
  readonly firstSequence: number
  readonly writeCount: number
  readonly timestampMicros: number
  /** Guest bytes of its data writes, uncompressed. */
  readonly rawSizeBytes: number
  readonly blockCount: number
  volume(index: number): number
  offsetBytes(index: number): number
  lengthBytes(index: number): number
  isZero(index: number): boolean
  blockRawSizeBytes(block: number): number
  blockStoredSizeBytes(block: number): number
  /** All stored blocks, one behind the other. */
  readonly payload: Uint8Array
}
