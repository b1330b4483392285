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
  readonly volumes: readonly { readonly name: string; readonly sizeBytes: number }[]
  readonly resumableFrom: Position
  readonly lastNumbered: Position
  readonly software: string
}

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
}

export interface Marker {
  readonly type: 'marker'
  readonly generation: number
  readonly sequence: number
  readonly term: number
  readonly counter: number
  readonly timestampMicros: number
  readonly participants: readonly number[]
  readonly volumes: readonly { readonly number: number; readonly sizeBytes: number; readonly included: boolean }[]
  /** 0 where nobody asked for it. */
  readonly requestId: number
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
}

export interface VolumeStatus {
  readonly number: number
  readonly needsSync: boolean
  readonly reason: string
  readonly sinceTimestampMicros: number
}

export interface ErrorMessage {
  readonly type: 'error'
  readonly code: string
  readonly sentence: string
}

export interface Goodbye {
  readonly type: 'goodbye'
}

/** Every message but the write batch, whose columns are read in place: see BatchView. */
export type ControlMessage =
  Hello | Welcome | Marker | Ack | Heartbeat | CheckpointRequest | AgentStatus | ErrorMessage | Goodbye

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
