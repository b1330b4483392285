import type { Ordinal, PositionVector } from '../base/ids.ts'

/** One consistent cut of a VPG that exists: the markers of all participants are durable. */
export interface Checkpoint {
  readonly ordinal: Ordinal
  /** A label for people, in microseconds since 1970; rises with the ordinal, may differ from any clock. */
  readonly timestampMicros: number
  /** The VPG's history clock when it became complete; ages are differences of it. */
  readonly historyMillis: number
  /** The markers' own positions: a record belongs to the checkpoint when it lies before its stream's. */
  readonly vector: PositionVector
  readonly volumes: readonly CheckpointVolume[]
}

export interface CheckpointVolume {
  readonly number: number
  readonly sizeBytes: number
  readonly included: boolean
}

/** A name that a person or a script gave to a checkpoint. */
export interface Tag {
  readonly ordinal: Ordinal
  readonly name: string
  readonly taggedAtMicros: number
  /** Undefined: until it is untagged. Else for so long from then on, on the VPG's history clock. */
  readonly keep?: { readonly millis: number; readonly fromHistoryMillis: number } | undefined
}

/** Keeps a checkpoint recoverable: while somebody reads it in this process, or as long as the record of a recovery, or of standby copies, needs it. */
export interface Pin {
  readonly id: string
  readonly ordinal: Ordinal
  readonly owner: string
  readonly kind: 'export' | 'image' | 'recovery' | 'standby'
}
