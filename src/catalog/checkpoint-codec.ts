import { ordinal, sequence, type StreamPosition } from '../base/ids.ts'
import type { Checkpoint, CheckpointVolume } from '../timeline/checkpoint.ts'

// How a checkpoint stands in its row. Vectors are short texts, `[stream,generation,sequence,...]`. The list of volumes is the same
// in long runs of checkpoints, so it stands once in a table of its own, `[number,sizeBytes,included,...]`.

export interface CheckpointRow {
  readonly ordinal: number
  readonly timestampMicros: number
  readonly historyMillis: number
  readonly vector: string
  readonly volumes: string
}

export function checkpointToRow(checkpoint: Checkpoint): CheckpointRow {
  const { timestampMicros, historyMillis, vector, volumes } = checkpoint
  return {
    ordinal: checkpoint.ordinal,
    timestampMicros,
    historyMillis,
    vector: JSON.stringify(vector.flatMap(at => [at.stream, at.generation, at.sequence])),
    volumes: JSON.stringify(volumes.flatMap(each => [each.number, each.sizeBytes, each.included ? 1 : 0])),
  }
}

/** Rows to checkpoints; those with the same list of volumes share it. */
export function checkpointsFromRows(rows: readonly CheckpointRow[]): Checkpoint[] {
  const lists = new Map<string, readonly CheckpointVolume[]>()
  const volumesOf = (text: string): readonly CheckpointVolume[] => {
    const list = lists.get(text) ?? parseVolumes(text)
    lists.set(text, list)
    return list
  }
  return rows.map(row => checkpointFromRow(row, volumesOf))
}

function checkpointFromRow(row: CheckpointRow, volumesOf: (text: string) => readonly CheckpointVolume[]): Checkpoint {
  const vector: StreamPosition[] = []
  const numbers = JSON.parse(row.vector) as number[]
  for (let at = 0; at + 2 < numbers.length; at += 3) {
    const [stream = 0, generation = 0, last = 0] = [numbers[at], numbers[at + 1], numbers[at + 2]]
    vector.push({ stream, generation, sequence: sequence(last) })
  }
  return {
    ordinal: ordinal(row.ordinal),
    timestampMicros: row.timestampMicros,
    historyMillis: row.historyMillis,
    vector,
    volumes: volumesOf(row.volumes),
  }
}

/** True when a row's list of volumes includes all of these. */
export function includesAll(text: string, numbers: readonly number[]): boolean {
  const included = new Set(parseVolumes(text).flatMap(volume => (volume.included ? [volume.number] : [])))
  return numbers.every(number => included.has(number))
}

function parseVolumes(text: string): CheckpointVolume[] {
  const volumes: CheckpointVolume[] = []
  const numbers = JSON.parse(text) as number[]
  for (let at = 0; at + 2 < numbers.length; at += 3) {
    const [number = 0, sizeBytes = 0, included = 0] = [numbers[at], numbers[at + 1], numbers[at + 2]]
    volumes.push({ number, sizeBytes, included: included === 1 })
  }
  return volumes
}
