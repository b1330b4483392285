import { assert } from '../base/assert.ts'
import { copyInto } from '../base/copy.ts'
import {
  batchRawSizeBytesTarget,
  batchWriteCountMax,
  sealingPieceSizeBytes,
  writeSizeBytesMax,
  zeroSizeBytesMax,
} from '../base/limits.ts'
import { sectorSizeBytes } from '../base/units.ts'
import type { Marker } from '../wire/wire.ts'
import type { Pieces } from './sealing/pieces.ts'
import type { BatchWrite } from './sealing/sealer.ts'
import type { SectorChange } from './volume.ts'

/** A marker without its place in the stream. */
export type UnplacedMarker = Omit<Marker, 'type' | 'generation' | 'sequence'>

interface PendingWrite extends BatchWrite {
  readonly sequence: number
  readonly timestampMicros: number
  readonly memory: RecordMemory | undefined
}
interface PendingMarker {
  readonly sequence: number
  readonly marker: UnplacedMarker
}

/** What makes one frame. */
export type TakenRecords = TakenMarker | TakenWrites

export interface TakenMarker {
  readonly kind: 'marker'
  readonly sequence: number
  readonly marker: UnplacedMarker
}

export interface TakenWrites {
  readonly kind: 'writes'
  readonly firstSequence: number
  readonly lastSequence: number
  readonly timestampMicros: number
  readonly rawSizeBytes: number
  /** In memory, as they count among the pending records. */
  readonly bytes: number
  /** All of their data is in pieces. */
  readonly isInPieces: boolean
  /** Their data is there until it is released. */
  readonly writes: readonly BatchWrite[]
  /** Their data is not read any more. Call it once. */
  release(): void
}

/** Data that its owner lends: not copied, and unchanged until it is given back, which is once. */
export interface Loan {
  /** It lies in one of the pieces. */
  readonly isPiece: boolean
  giveBack(): void
}

const nothingKept = { data: undefined, memory: undefined }

/** A zero record's length: whole pages, at most what the columns can say. */
const zeroLengthBytesMax = Math.min(zeroSizeBytesMax, (2 ** 15 - 1) * sectorSizeBytes)
/** What a pending record costs in memory beside its data. */
const recordOverheadBytes = 128

/** What data of records lies in. */
interface RecordMemory {
  readonly bytes: Buffer
  /** Up to where data was copied to it. */
  filledBytes: number
  recordCount: number
  readonly isPiece: boolean
  /** Of what was lent. */
  readonly giveBack: (() => void) | undefined
}

/** Room for nothing. */
const noBytes = Buffer.alloc(0)

/**
 * Records that have their numbers and are not in a frame yet, in order. Their data is copied when they get them: whose it was may use it
 * again. Or it is lent, and read where it lies until it is given back. Both ways it is in pieces that a sealer can read, as long as there are any.
 */
export class PendingRecords {
  #records: (PendingWrite | PendingMarker)[] = []
  readonly #pieces: Pieces
  /** What is copied next goes here. */
  #filling: RecordMemory | undefined
  #bytes = 0
  #rawBytes = 0
  #markerCount = 0

  constructor(pieces: Pieces) {
    this.#pieces = pieces
  }

  get isEmpty(): boolean {
    return this.#records.length === 0
  }
  /** In memory. */
  get bytes(): number {
    return this.#bytes
  }
  /** Of the data in memory. */
  get rawSizeBytes(): number {
    return this.#rawBytes
  }
  get firstSequence(): number | undefined {
    return this.#records[0]?.sequence
  }
  /** True where a frame should be sealed without waiting for more. */
  get isWorthAFrame(): boolean {
    return (
      this.#rawBytes >= batchRawSizeBytesTarget || this.#records.length >= batchWriteCountMax || this.#markerCount > 0
    )
  }

  /**
   * Numbers changes from `sequence` on, in pieces that a record can hold; returns how many. Their data may be on loan.
   */
  addChanges(
    sequence: number,
    volume: number,
    changes: readonly SectorChange[],
    timestampMicros: number,
    loan: Loan | undefined,
  ): number {
    const lent = loan === undefined ? undefined : { bytes: noBytes, filledBytes: 0, recordCount: 0, ...loan }
    let next = sequence
    for (const change of changes) {
      const pieceMax = change.data === undefined ? zeroLengthBytesMax : writeSizeBytesMax
      for (let at = 0; at < change.lengthBytes; at += pieceMax) {
        const lengthBytes = Math.min(pieceMax, change.lengthBytes - at)
        const piece = change.data?.subarray(at, at + lengthBytes)
        const { data, memory } = piece === undefined ? nothingKept : this.#keep(piece, lent)
        const offsetBytes = change.offsetBytes + at
        this.#records.push({ sequence: next++, volume, offsetBytes, lengthBytes, data, timestampMicros, memory })
        this.#bytes += recordOverheadBytes + (data?.length ?? 0)
        this.#rawBytes += data?.length ?? 0
      }
    }
    if (lent?.recordCount === 0) lent.giveBack?.()
    return next - sequence
  }

  addMarker(sequence: number, marker: UnplacedMarker): void {
    this.#records.push({ sequence, marker })
    this.#bytes += recordOverheadBytes
    this.#markerCount++
  }

  clear(): void {
    for (const record of this.#records.splice(0)) if ('memory' in record) this.#release(record.memory)
    this.#bytes = this.#rawBytes = this.#markerCount = 0
  }

  /** Takes the first records out: one marker, or the writes before the next one as far as a frame holds them. Release the data of writes some time. */
  takeFirst(): TakenRecords {
    const head = this.#records[0]
    assert(head !== undefined, 'there is something to take')
    if (!('marker' in head)) return this.#takeWrites(head)
    this.#records.shift()
    this.#bytes -= recordOverheadBytes
    this.#markerCount--
    return { kind: 'marker', ...head }
  }

  #takeWrites(head: PendingWrite): TakenWrites {
    const writes: PendingWrite[] = []
    let rawSizeBytes = 0
    let isInPieces = true
    for (const write of this.#records) {
      if ('marker' in write || rawSizeBytes >= batchRawSizeBytesTarget || writes.length === batchWriteCountMax) break
      writes.push(write)
      rawSizeBytes += write.data?.length ?? 0
      isInPieces &&= write.memory?.isPiece !== false
    }
    this.#records.splice(0, writes.length)
    const { sequence: lastSequence, timestampMicros } = writes.at(-1) ?? head
    const bytes = rawSizeBytes + recordOverheadBytes * writes.length
    this.#bytes -= bytes
    this.#rawBytes -= rawSizeBytes
    const taken = { firstSequence: head.sequence, lastSequence, timestampMicros, rawSizeBytes, bytes }
    const release = (): void => {
      for (const { memory } of writes) this.#release(memory)
    }
    return { kind: 'writes', ...taken, isInPieces, writes, release }
  }

  /** The data of the next record, and what it lies in until #release(). */
  #keep(data: Uint8Array, lent: RecordMemory | undefined): { data: Uint8Array; memory: RecordMemory } {
    const memory = lent ?? this.#roomFor(data.length)
    memory.recordCount++
    if (memory === lent) return { data, memory }
    const copy = memory.bytes.subarray(memory.filledBytes, memory.filledBytes + data.length)
    copyInto(copy, 0, data)
    memory.filledBytes += data.length
    return { data: copy, memory }
  }

  #roomFor(sizeBytes: number): RecordMemory {
    const filling = this.#filling
    if (filling !== undefined && filling.filledBytes + sizeBytes <= filling.bytes.length) return filling
    this.#filling = undefined
    if (filling?.recordCount === 0) this.#giveBack(filling)
    const piece = this.#pieces.take()
    const bytes = piece ?? Buffer.allocUnsafeSlow(sealingPieceSizeBytes)
    const isPiece = piece !== undefined
    this.#filling = { bytes, filledBytes: 0, recordCount: 0, isPiece, giveBack: undefined }
    return this.#filling
  }

  /** The data of one of its records is not read any more. */
  #release(memory: RecordMemory | undefined): void {
    if (memory === undefined) return
    assert(memory.recordCount > 0, 'data is released once')
    memory.recordCount--
    if (memory.recordCount > 0) return
    if (memory === this.#filling) memory.filledBytes = 0
    else this.#giveBack(memory)
  }

  #giveBack({ bytes, isPiece, giveBack }: RecordMemory): void {
    if (giveBack !== undefined) giveBack()
    else if (isPiece) this.#pieces.give(bytes)
  }
}
