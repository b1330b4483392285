// Volumes as of a checkpoint, read-only over NBD; and what differs between two checkpoints. Part of service.ts.

export interface MountRequest {
  readonly vpg: string
  /** As in findCheckpoint. */
  readonly checkpoint: string
  /** All that the checkpoint includes where it is missing. */
  readonly volume?: string
}

export interface MountFacts {
  readonly id: string
  readonly vpg: string
  readonly checkpoint: string
  readonly checkpointTimestampMicros: number
  /** Where each can be read now. */
  readonly volumes: readonly { readonly name: string; readonly sizeBytes: number; readonly uri: string }[]
  readonly startedAtMicros: number
}

export interface DiffQuery {
  readonly vpg: string
  readonly volume: string
  /** As in findCheckpoint; in either order. */
  readonly from: string
  readonly to: string
}

export interface DiffFacts {
  readonly vpg: string
  readonly volume: string
  readonly from: string
  readonly to: string
  /** Of all extents together. */
  readonly sizeBytes: number
  /** Every extent is a multiple of it, but for the volume's end. */
  readonly granularityBytes: number
  /** Where the volume was written in between, ascending and apart: what differs lies in them, and they may hold what does not. */
  readonly extents: readonly { readonly offsetBytes: number; readonly sizeBytes: number }[]
}
