import type { Ordinal, StreamPosition } from '../base/ids.ts'
import type { DurableMarker } from '../timeline/assembler.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { VpgDefinition } from '../timeline/definition.ts'

/** A VPG as ingest is told of it at start, or when it is created. */
export interface IngestVpg {
  readonly definition: VpgDefinition
  readonly epoch: number
  /** What recovery found durable, and what is offloaded; a stream without records is (0, 0). */
  readonly durable: readonly StreamPosition[]
  readonly offloaded: readonly StreamPosition[]
  /** The newest complete checkpoint: labels, history clock, terms and counters go on from it. */
  readonly lastCheckpoint: Checkpoint | undefined
  /** The highest (term, counter) of any durable marker, complete or not; 0 for none. */
  readonly lastMarker: Ordinal
  /** Durable markers of checkpoints that miss others. */
  readonly pendingMarkers: readonly DurableMarker[]
}
