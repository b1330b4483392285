import {
  checkpointOrdinal,
  comparePositions,
  sequence,
  type Ordinal,
  type PositionVector,
  type StreamPosition,
} from '../base/ids.ts'
import type { Checkpoint, CheckpointVolume } from './checkpoint.ts'
import { liesWithin } from './positions.ts'

/** A marker that is durable in its stream. */
export interface DurableMarker {
  readonly stream: number
  readonly generation: number
  readonly sequence: number
  readonly term: number
  readonly counter: number
  /** As the VRA labelled it, see RecordHeader. */
  readonly timestampMicros: number
  readonly historyMillis: number
  readonly participants: readonly number[]
  readonly volumes: readonly CheckpointVolume[]
}

/**
 * Checkpoints that still miss a marker; more than this many are given up, those of the lowest ordinals. A stream that is far behind sends
 * its markers in order: those that come too late must not push out the ones that it completes next.
 */
const pendingMax = 64

/**
 * Makes checkpoints of markers. Whoever feeds it the same markers gets the same checkpoints: ingest as they become durable,
 * the aging thread and a rebuild as they read them.
 */
export class CheckpointAssembler {
  readonly #pending = new Map<Ordinal, DurableMarker[]>()

  /** The checkpoint that this marker completes, if it does. A marker that was fed before changes nothing. */
  add(marker: DurableMarker): Checkpoint | undefined {
    const ordinal = checkpointOrdinal(marker.term, marker.counter)
    const markers = [...(this.#pending.get(ordinal) ?? []).filter(other => other.stream !== marker.stream), marker]
    const complete = marker.participants.every(stream => markers.some(other => other.stream === stream))
    if (complete) {
      // Every stream has gone past the older ones: what they still miss does not come any more.
      for (const older of this.#pending.keys()) if (older <= ordinal) this.#pending.delete(older)
      return checkpointOf(ordinal, markers)
    }
    this.#pending.set(ordinal, markers)
    if (this.#pending.size > pendingMax) {
      this.#pending.delete([...this.#pending.keys()].reduce((lowest, each) => (each < lowest ? each : lowest)))
    }
    return undefined
  }

  /** No checkpoint is made any more of a marker that lies within: what it would hold is merged with what came after it. */
  giveUp(through: PositionVector): void {
    for (const [ordinal, markers] of this.#pending)
      if (markers.some(marker => isMarkerWithin(through, marker))) this.#pending.delete(ordinal)
  }

  /** Markers of checkpoints that are not complete yet, to be fed to another assembler that goes on from here. */
  pending(): readonly DurableMarker[] {
    return [...this.#pending.values()].flat()
  }
}

export function isMarkerWithin(through: PositionVector, { stream, generation, sequence: at }: DurableMarker): boolean {
  return liesWithin(through, stream, { generation, sequence: sequence(at) })
}

function checkpointOf(ordinal: Ordinal, markers: readonly DurableMarker[]): Checkpoint {
  const vector: StreamPosition[] = markers
    .map(marker => ({ stream: marker.stream, generation: marker.generation, sequence: sequence(marker.sequence) }))
    .sort((a, b) => a.stream - b.stream || comparePositions(a, b))
  const volumes = new Map(markers.flatMap(marker => marker.volumes).map(volume => [volume.number, volume]))
  return {
    ordinal,
    timestampMicros: Math.max(...markers.map(marker => marker.timestampMicros)),
    historyMillis: Math.max(...markers.map(marker => marker.historyMillis)),
    vector,
    volumes: [...volumes.values()].sort((a, b) => a.number - b.number),
  }
}
