import { type VpgId, vpgId } from '../../src/base/ids.ts'
import { crc32c } from '../../src/codec/crc32c.ts'
import type { RecordHeader } from '../../src/journal/record.ts'
import { BatchBuilder, encodeFrame } from '../../src/wire/wire.ts'

/** A record as the log has it. */
export interface TestRecord {
  readonly header: RecordHeader
  readonly frame: Uint8Array
  /** What the batch's raw payload is; undefined for a marker. */
  readonly payload: Uint8Array | undefined
  readonly writes: readonly TestWrite[]
}

export interface TestWrite {
  readonly volume: number
  readonly offsetBytes: number
  readonly lengthBytes: number
  readonly zero: boolean
}

export const someVpg = vpgId('0123456789abcdef0123456789abcdef')
export const otherVpg = vpgId('f'.repeat(32))

/** Numbers in [0, 1), the same for the same seed (mulberry32). */
export function randomFrom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

export interface TestStreams {
  readonly random: () => number
  readonly vpg: VpgId
  readonly streams: readonly number[]
  readonly recordCount: number
  /** A marker in so many records. */
  readonly markerEvery: number
  readonly writesPerBatchMax: number
}

/** Records of several streams, mixed; sequences go on without gaps, now and then a stream opens a new generation. */
export function randomRecords(options: TestStreams): TestRecord[] {
  const { random, vpg } = options
  const below = (end: number): number => Math.floor(random() * end)
  const positions = new Map(options.streams.map(stream => [stream, { generation: 1, next: 1 + below(2 ** 40) }]))
  const records: TestRecord[] = []
  let counter = 1
  for (let index = 0; index < options.recordCount; index++) {
    const stream = options.streams[below(options.streams.length)] ?? 1
    const position = positions.get(stream) ?? { generation: 1, next: 1 }
    if (below(50) === 0) Object.assign(position, { generation: position.generation + 1, next: 1 })
    const at = { vpg, stream, generation: position.generation, sequence: position.next }
    const record =
      below(options.markerEvery) === 0
        ? markerRecord({ ...at, counter: counter++, participants: options.streams, timestampMicros: 10 ** 15 + index })
        : batchRecord({ ...at, writes: randomWrites(random, 1 + below(options.writesPerBatchMax)), random })
    position.next = record.header.lastSequence + 1
    records.push(record)
  }
  return records
}

function randomWrites(random: () => number, count: number): TestWrite[] {
  return Array.from({ length: count }, () => {
    const zero = random() < 0.2
    const sectors = zero ? 1 + Math.floor(random() ** 8 * 32767) : 1 + Math.floor(random() ** 4 * 64)
    const offsetBytes = Math.floor(random() ** 4 * 2 ** 37) * 512
    return { volume: 1 + Math.floor(random() ** 4 * 65535), offsetBytes, lengthBytes: sectors * 512, zero }
  })
}

export interface TestPosition {
  readonly vpg: VpgId
  readonly stream: number
  readonly generation: number
  readonly sequence: number
}

/** Half of each write's data can be compressed. */
export function batchRecord(
  options: TestPosition & { readonly writes: readonly TestWrite[]; readonly random: () => number },
): TestRecord {
  const { generation, sequence, random } = options
  const builder = new BatchBuilder()
  const payload: Buffer[] = []
  const writes: TestWrite[] = []
  for (const write of options.writes) {
    if (!builder.hasRoom(write.zero ? 0 : write.lengthBytes)) break
    writes.push(write)
    if (write.zero) {
      builder.addZero(write)
      continue
    }
    const data = Buffer.alloc(write.lengthBytes)
    for (let at = 0; at < data.length; at += random() < 0.5 ? 4 : 64) data[at] = Math.floor(random() * 256)
    builder.add({ ...write, data })
    payload.push(data)
  }
  const frame = builder.finish({ generation, firstSequence: sequence, timestampMicros: 1 })
  const lastSequence = sequence + writes.length - 1
  return { header: headerOf(options, 'batch', lastSequence, frame), frame, payload: Buffer.concat(payload), writes }
}

export function markerRecord(
  options: TestPosition & {
    readonly counter: number
    readonly participants: readonly number[]
    readonly timestampMicros: number
  },
): TestRecord {
  const { generation, sequence, counter, participants, timestampMicros } = options
  const frame = encodeFrame({
    type: 'marker',
    generation,
    sequence,
    term: 3,
    counter,
    timestampMicros: 5,
    participants,
    volumes: [
      { number: 1, sizeBytes: 64 * 2 ** 40, included: true },
      { number: 2, sizeBytes: 4096, included: false },
    ],
    requestId: 0,
  })
  const header = headerOf(options, 'marker', sequence, frame)
  return {
    header: { ...header, timestampMicros, historyMillis: 1000 * counter },
    frame,
    payload: undefined,
    writes: [],
  }
}

function headerOf(at: TestPosition, kind: 'batch' | 'marker', lastSequence: number, frame: Uint8Array): RecordHeader {
  return {
    kind,
    fileIdentity: 77,
    offsetBytes: 4096,
    vpg: at.vpg,
    stream: at.stream,
    epoch: 2,
    generation: at.generation,
    firstSequence: at.sequence,
    lastSequence,
    durableOffsetBytes: 4096,
    frameSizeBytes: frame.length,
    frameCrc32c: crc32c(frame),
    timestampMicros: 6,
    historyMillis: 0,
  }
}
