import { BatchBuilder } from '../src/wire/wire.ts'
import { crc32c } from '../src/codec/crc32c.ts'
import { DataGenerator, Random, type DataKind } from './data.ts'

// Batches built once and sent many times, so that what is measured is the receiver.
//
// A frame that is sent again differs in its position, its time and its offsets. Protobuf leaves the order of fields free, so
// these go to the end of the body, in a tail of fixed size: the checksum over all before it is computed once, and the
// body, which is most of the bytes, is never touched again while sockets may still be reading it.
//
//   ┌ header, 16 bytes ┐┌ fixed: columns, block table, payload ┐┌ tail: generation, sequence, time, offsets ┐
//     made per sending     shared by all sendings                  made per sending

export interface Workload {
  readonly pattern: 'random' | 'sequential'
  readonly writeSizeBytes: number
  readonly writesPerBatch: number
  readonly data: DataKind
  /** Random writes go from here on to the end of the volume. */
  readonly fromBytes?: number
}

const headerSizeBytes = 16
const varintSizeBytes = 8

export class FramePool {
  readonly writesPerFrame: number
  readonly rawSizeBytes: number
  /** Raw bytes over stored bytes, as LZ4 made them. */
  readonly ratio: number
  readonly #templates: readonly Template[]
  readonly #workload: Workload
  readonly #random: Random
  #next = 0

  constructor(workload: Workload, templateCount: number, seed: number) {
    const generator = new DataGenerator(workload.data, seed)
    this.#workload = workload
    this.#random = new Random(seed + 1)
    this.writesPerFrame = workload.writesPerBatch
    this.rawSizeBytes = workload.writesPerBatch * workload.writeSizeBytes
    this.#templates = Array.from({ length: templateCount }, () => new Template(workload, generator))
    this.ratio =
      this.rawSizeBytes /
      (this.#templates.reduce((sum, { storedSizeBytes }) => sum + storedSizeBytes, 0) / templateCount)
  }

  /** The pieces of the next frame. `cursor` is where a sequential stream of this volume stands, in writes. */
  next(
    position: { readonly sequence: number; readonly cursor: number },
    volumeSizeBytes: number,
  ): readonly [Buffer, Buffer, Buffer] {
    const template = this.#templates[this.#next++ % this.#templates.length]
    if (template === undefined) throw new Error('no frames')
    const { pattern, writeSizeBytes, fromBytes = 0 } = this.#workload
    const placeCount = Math.floor((volumeSizeBytes - fromBytes) / writeSizeBytes)
    return template.instance(position.sequence, index =>
      pattern === 'random'
        ? fromBytes + this.#random.below(placeCount) * writeSizeBytes
        : ((position.cursor + index) % placeCount) * writeSizeBytes,
    )
  }
}

class Template {
  readonly storedSizeBytes: number
  readonly #writeCount: number
  readonly #fixed: Buffer
  readonly #fixedChecksum: number
  readonly #header: Buffer

  constructor(workload: Workload, generator: DataGenerator) {
    const builder = new BatchBuilder()
    for (let index = 0; index < workload.writesPerBatch; index++) {
      const data = Buffer.alloc(workload.writeSizeBytes)
      generator.fill(data)
      builder.add({ volume: 1, offsetBytes: 0, data }) // the first volume of a VPG has the number 1
    }
    const frame = builder.finish({ generation: 1, firstSequence: 1, timestampMicros: 1 })
    this.#writeCount = workload.writesPerBatch
    this.#fixed = Buffer.concat(
      fieldsOf(frame.subarray(headerSizeBytes))
        .filter(({ field }) => !inTail.has(field))
        .map(({ bytes }) => bytes),
    )
    this.#header = Buffer.from(frame.subarray(0, headerSizeBytes))
    this.#header.writeUInt32LE(this.#fixed.length + this.#tailSizeBytes, 8)
    this.#fixedChecksum = crc32c(this.#fixed, crc32c(this.#header.subarray(0, 12)))
    this.storedSizeBytes = headerSizeBytes + this.#fixed.length + this.#tailSizeBytes
  }

  get #tailSizeBytes(): number {
    return 2 + 2 * (1 + varintSizeBytes) + 1 + varintSizeBytes + 8 * this.#writeCount
  }

  instance(sequence: number, offsetOf: (index: number) => number): readonly [Buffer, Buffer, Buffer] {
    const head = Buffer.allocUnsafe(headerSizeBytes + this.#tailSizeBytes)
    let at = headerSizeBytes
    at = writeVarintField(head, at, 1, 1, 1)
    at = writeVarintField(head, at, 2, sequence, varintSizeBytes)
    at = writeVarintField(head, at, 4, Date.now() * 1000, varintSizeBytes)
    head[at++] = 6 * 8 + 2
    at = writeVarint(head, at, 8 * this.#writeCount, varintSizeBytes)
    for (let index = 0; index < this.#writeCount; index++, at += 8) {
      const offsetBytes = offsetOf(index)
      head.writeUInt32LE(offsetBytes % 2 ** 32, at)
      head.writeUInt32LE(Math.floor(offsetBytes / 2 ** 32), at + 4)
    }
    const tail = head.subarray(headerSizeBytes)
    this.#header.copy(head)
    head.writeUInt32LE(crc32c(tail, this.#fixedChecksum), 12)
    return [head.subarray(0, headerSizeBytes), this.#fixed, tail]
  }
}

/** generation, first_sequence, timestamp_micros, offsets */
const inTail = new Set([1, 2, 4, 6])

function fieldsOf(body: Buffer): { field: number; bytes: Buffer }[] {
  const fields: { field: number; bytes: Buffer }[] = []
  for (let at = 0; at < body.length;) {
    const startBytes = at
    const key = body[at++] ?? 0
    let value = 0
    for (let factor = 1; ; factor *= 128) {
      const byte = body[at++] ?? 0
      value += (byte % 128) * factor
      if (byte < 128) break
    }
    if (key % 8 === 2) at += value
    fields.push({ field: Math.floor(key / 8), bytes: body.subarray(startBytes, at) })
  }
  return fields
}

function writeVarintField(target: Buffer, at: number, field: number, value: number, sizeBytes: number): number {
  target[at] = field * 8
  return writeVarint(target, at + 1, value, sizeBytes)
}

/** As many bytes as told, the number filled up with zero bits: so the tail's size does not depend on it. */
function writeVarint(target: Buffer, at: number, value: number, sizeBytes: number): number {
  for (let index = 1; index < sizeBytes; index++, value = Math.floor(value / 128)) target[at++] = (value % 128) + 128
  target[at++] = value % 128
  return at
}
