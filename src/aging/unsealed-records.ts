import { assert } from '../base/assert.ts'
import type { Ordinal, VpgId } from '../base/ids.ts'
import type { RecordHeader } from '../journal/record.ts'

/** Where a record stands in the commit log; sizes with header and padding. */
/** Where the tail of the log has come to. */
export interface TailPlace {
  readonly place: Place
  /** So many stretches before it could not be read. */
  readonly stretchCount: number
}

export interface Place {
  readonly fileIdentity: number
  readonly offsetBytes: number
  readonly sizeBytes: number
}

export interface UnsealedRecord {
  readonly header: RecordHeader
  readonly place: Place
  /** The last marker before it in its stream: should its bytes rot, later checkpoints are without it. */
  readonly afterOrdinal: Ordinal
}

/** Numbers kept of a record: 14 of 8 bytes, not an object, for a log may hold hundreds of thousands while the store is away. */
const stride = 14
const recordsMin = 64

/** The records of one VPG that are in the log and in no committed segment, in the order of the log. */
export class UnsealedRecords {
  readonly #vpg: VpgId
  #rows = new Float64Array(recordsMin * stride)
  #first = 0
  #end = 0
  #sizeBytes = 0

  constructor(vpg: VpgId) {
    this.#vpg = vpg
  }

  get count(): number {
    return this.#end - this.#first
  }

  /** As they stand in the log. */
  get sizeBytes(): number {
    return this.#sizeBytes
  }

  push({ header, place, afterOrdinal }: UnsealedRecord): void {
    if ((this.#end + 1) * stride > this.#rows.length) this.#makeRoom()
    this.#rows.set(
      [
        place.fileIdentity,
        place.offsetBytes,
        place.sizeBytes,
        header.kind === 'marker' ? 1 : 0,
        header.stream,
        header.epoch,
        header.generation,
        header.firstSequence,
        header.lastSequence,
        header.frameSizeBytes,
        header.frameCrc32c,
        header.timestampMicros,
        header.historyMillis,
        afterOrdinal,
      ],
      this.#end * stride,
    )
    this.#end++
    this.#sizeBytes += place.sizeBytes
  }

  /** The record at this index, 0 being the oldest. */
  at(index: number): UnsealedRecord {
    assert(index >= 0 && index < this.count, `record ${index} of ${this.count}`)
    const row = (this.#first + index) * stride
    const cell = (column: number): number => this.#rows[row + column] ?? 0
    return {
      place: { fileIdentity: cell(0), offsetBytes: cell(1), sizeBytes: cell(2) },
      header: {
        kind: cell(3) === 1 ? 'marker' : 'batch',
        fileIdentity: cell(0),
        offsetBytes: cell(1),
        vpg: this.#vpg,
        stream: cell(4),
        epoch: cell(5),
        generation: cell(6),
        firstSequence: cell(7),
        lastSequence: cell(8),
        durableOffsetBytes: 0,
        frameSizeBytes: cell(9),
        frameCrc32c: cell(10),
        timestampMicros: cell(11),
        historyMillis: cell(12),
      },
      afterOrdinal: cell(13) as Ordinal,
    }
  }

  /** Forgets the oldest records. */
  dropFirst(count: number): void {
    for (let index = 0; index < count; index++) this.#sizeBytes -= this.at(index).place.sizeBytes
    this.#first += count
    if (this.#first === this.#end) [this.#first, this.#end] = [0, 0]
  }

  /** Forgets one record. */
  dropAt(index: number): void {
    this.#sizeBytes -= this.at(index).place.sizeBytes
    const row = (this.#first + index) * stride
    this.#rows.copyWithin(row, row + stride, this.#end * stride)
    this.#end--
  }

  /** Moves what is left to the front, into more room where less than half is free. */
  #makeRoom(): void {
    const left = this.#rows.subarray(this.#first * stride, this.#end * stride)
    const roomy = left.length * 2 > this.#rows.length ? new Float64Array(this.#rows.length * 2) : this.#rows
    roomy.set(left)
    this.#rows = roomy
    this.#end -= this.#first
    this.#first = 0
  }
}
