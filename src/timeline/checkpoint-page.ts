import { Failure } from '../base/failure.ts'
import { type Ordinal, type Sequence, type StreamPosition } from '../base/ids.ts'
import type { Checkpoint, CheckpointVolume } from './checkpoint.ts'

// Checkpoints, ascending by ordinal, in about 12 bytes each: a month of one every five seconds is half a million. The
// body is a sequence of LEB128 numbers ("varint"; the signed ones zigzag):
//
//   count
//   shapeCount, then per shape its length in bytes and that many bytes of JSON: the list of volumes of some checkpoints
//   per checkpoint, each number as the difference from the checkpoint before it:
//     ordinal (signed), timestampMicros (signed), historyMillis * 1000 rounded (signed), shape (index, no difference)
//     streamCount, then per stream: stream (no difference), generation (signed), sequence (signed), both as the difference
//     from the last position of that stream in this page
//
// Checksum, version and identity are in the header of the object: see src/manifest. Threads tell each other of checkpoints so, too.

class Writer {
  #bytes = new Uint8Array(4096)
  #length = 0

  unsigned(value: number): void {
    if (this.#length + 10 > this.#bytes.length) this.#grow(10)
    let rest = value
    while (rest >= 128) {
      this.#bytes[this.#length++] = (rest % 128) + 128
      rest = Math.floor(rest / 128)
    }
    this.#bytes[this.#length++] = rest
  }

  signed(value: number): void {
    this.unsigned(value < 0 ? -value * 2 - 1 : value * 2)
  }

  bytes(piece: Uint8Array): void {
    if (this.#length + piece.length > this.#bytes.length) this.#grow(piece.length)
    this.#bytes.set(piece, this.#length)
    this.#length += piece.length
  }

  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#length)
  }

  #grow(sizeBytes: number): void {
    const grown = new Uint8Array(Math.max(2 * this.#bytes.length, this.#length + sizeBytes))
    grown.set(this.#bytes)
    this.#bytes = grown
  }
}

class Reader {
  readonly #key: string
  readonly #body: Uint8Array
  #at = 0

  constructor(key: string, body: Uint8Array) {
    this.#key = key
    this.#body = body
  }

  unsigned(): number {
    let [value, unit] = [0, 1]
    for (;;) {
      const byte = this.#body[this.#at++]
      if (byte === undefined) throw corrupt(this.#key, this.#at, 'ends inside a checkpoint')
      value += (byte % 128) * unit
      if (byte < 128) break
      unit *= 128
    }
    if (!Number.isSafeInteger(value)) throw corrupt(this.#key, this.#at, 'holds a number past 2^53')
    return value
  }

  signed(): number {
    const value = this.unsigned()
    return value % 2 === 1 ? -(value + 1) / 2 : value / 2
  }

  bytes(length: number): Uint8Array {
    if (this.#at + length > this.#body.length) throw corrupt(this.#key, this.#at, 'ends inside a list of volumes')
    this.#at += length
    return this.#body.subarray(this.#at - length, this.#at)
  }

  get atEnd(): boolean {
    return this.#at === this.#body.length
  }
}

export function encodeCheckpoints(checkpoints: readonly Checkpoint[]): Uint8Array {
  const shapes = new Map<string, number>()
  const indexOf = new Map<readonly CheckpointVolume[], number>()
  const shapeOf = checkpoints.map(({ volumes }) => {
    const known = indexOf.get(volumes)
    if (known !== undefined) return known
    const shape = JSON.stringify(volumes)
    const index = shapes.get(shape) ?? shapes.size
    shapes.set(shape, index)
    indexOf.set(volumes, index)
    return index
  })
  const writer = new Writer()
  writer.unsigned(checkpoints.length)
  writer.unsigned(shapes.size)
  for (const shape of shapes.keys()) {
    const bytes = Buffer.from(shape)
    writer.unsigned(bytes.length)
    writer.bytes(bytes)
  }
  let [ordinal, timestampMicros, historyMicros] = [0, 0, 0]
  const positions = new Map<number, StreamPosition>()
  checkpoints.forEach((checkpoint, index) => {
    const micros = Math.round(checkpoint.historyMillis * 1000)
    writer.signed(checkpoint.ordinal - ordinal)
    writer.signed(checkpoint.timestampMicros - timestampMicros)
    writer.signed(micros - historyMicros)
    writer.unsigned(shapeOf[index] ?? 0)
    writer.unsigned(checkpoint.vector.length)
    for (const position of checkpoint.vector) {
      const before = positions.get(position.stream)
      writer.unsigned(position.stream)
      writer.signed(position.generation - (before?.generation ?? 0))
      writer.signed(position.sequence - (before?.sequence ?? 0))
      positions.set(position.stream, position)
    }
    ordinal = checkpoint.ordinal
    timestampMicros = checkpoint.timestampMicros
    historyMicros = micros
  })
  return writer.finish()
}

/** OBJECT_CORRUPT, naming the key, for anything that encodeCheckpoints does not write. */
export function decodeCheckpoints(key: string, body: Uint8Array): Checkpoint[] {
  const [all = []] = decodePortions(key, body, Infinity)
  return all
}

/** The same in portions of at most so many, each decoded when it is asked for: what is wrong is said by the portion that meets it. */
export function* decodePortions(key: string, body: Uint8Array, countMax: number): Generator<Checkpoint[]> {
  const reader = new Reader(key, body)
  const count = reader.unsigned()
  const shapes: (readonly CheckpointVolume[])[] = []
  for (let left = reader.unsigned(); left > 0; left--) shapes.push(parseShape(key, reader.bytes(reader.unsigned())))
  let [ordinal, timestampMicros, historyMicros] = [0, 0, 0]
  const positions = new Map<number, StreamPosition>()
  let checkpoints: Checkpoint[] = []
  for (let left = count; left > 0; left--) {
    ordinal += reader.signed()
    timestampMicros += reader.signed()
    historyMicros += reader.signed()
    const volumes = shapes[reader.unsigned()]
    if (volumes === undefined) throw corrupt(key, 0, 'names a list of volumes that it does not hold')
    const vector: StreamPosition[] = []
    for (let left = reader.unsigned(); left > 0; left--) {
      const stream = reader.unsigned()
      const before = positions.get(stream)
      const generation = (before?.generation ?? 0) + reader.signed()
      const position = { stream, generation, sequence: ((before?.sequence ?? 0) + reader.signed()) as Sequence }
      positions.set(stream, position)
      vector.push(position)
    }
    checkpoints.push({
      ordinal: ordinal as Ordinal,
      timestampMicros,
      historyMillis: historyMicros / 1000,
      vector,
      volumes,
    })
    if (left === 1 || checkpoints.length < countMax) continue
    yield checkpoints
    checkpoints = []
  }
  if (!reader.atEnd) throw corrupt(key, 0, 'goes on behind its last checkpoint')
  if (checkpoints.length > 0) yield checkpoints
}

function corrupt(key: string, offsetBytes: number, what: string): Failure {
  return new Failure('OBJECT_CORRUPT', `${key} ${what} (at byte ${offsetBytes})`, { key, offsetBytes })
}

function parseShape(key: string, bytes: Uint8Array): readonly CheckpointVolume[] {
  try {
    return JSON.parse(Buffer.from(bytes).toString()) as readonly CheckpointVolume[]
  } catch {
    throw corrupt(key, 0, 'holds a list of volumes that is not JSON')
  }
}
