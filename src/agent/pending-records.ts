import { assert } from '../base/assert.ts'
import {
  batchRawSizeBytesTarget,
  batchWriteCountMax,
  creditPerStreamBytesMax,
  writeSizeBytesMax,
  zeroSizeBytesMax,
} from '../base/limits.ts'
import { MemoryPool } from '../base/memory-pool.ts'
import { MiB, sectorSizeBytes } from '../base/units.ts'
import { BatchBuilder, encodeFrame, type Marker } from '../wire/wire.ts'
import type { SectorChange } from './volume.ts'

/** A batch or a marker as it goes over the wire. */
export interface QueuedFrame {
  readonly firstSequence: number
  readonly lastSequence: number
  readonly bytes: Buffer
}

/** Memory of frames that is kept for those that come: as much as the credit of a stream, which one acknowledgement may bring back, in sizes that the pool has. */
const frameKeptBytesMax = creditPerStreamBytesMax + 8 * MiB

/** What sealing made. */
export interface SealedFrame extends QueuedFrame {
  /** Undefined for a marker. */
  readonly batch: { readonly recordCount: number; readonly rawSizeBytes: number } | undefined
}

/** A marker without its place in the stream. */
export type UnplacedMarker = Omit<Marker, 'type' | 'generation' | 'sequence'>

interface PendingWrite {
  readonly sequence: number
  readonly volume: number
  readonly offsetBytes: number
  readonly lengthBytes: number
  readonly data: Uint8Array | undefined
  readonly timestampMicros: number
}
interface PendingMarker {
  readonly sequence: number
  readonly marker: UnplacedMarker
}

/** A zero record's length: whole pages, at most what the columns can say. */
const zeroLengthBytesMax = Math.min(zeroSizeBytesMax, (2 ** 15 - 1) * sectorSizeBytes)
/** What a pending record costs in memory beside its data. */
const recordOverheadBytes = 128
const slabSizeBytes = 1 * MiB
/** Slabs that are kept for what comes; beyond, they are left to the garbage collector. */
const slabsKeptMax = 8

/** A piece of memory that records' data is copied to, one behind the other; or that data lies in which was lent, and then nothing is copied to it. */
interface Slab {
  readonly bytes: Buffer
  filledBytes: number
  recordCount: number
  readonly giveBack: (() => void) | undefined
}

/** Room for nothing. */
const noBytes = Buffer.alloc(0)

/**
 * Records that have their numbers and are not in a frame yet, in order. Their data is copied when they get them: whose it was may use it
 * again. Or it is lent, and read where it lies until it is given back.
 */
export class PendingRecords {
  readonly #builder = new BatchBuilder()
  readonly #frameMemory = new MemoryPool(frameKeptBytesMax)
  #records: (PendingWrite | PendingMarker)[] = []
  /** Of the pending records, in order; the last one is being filled. */
  #slabs: Slab[] = []
  readonly #freeSlabs: Buffer[] = []
  #bytes = 0
  #rawBytes = 0
  #markerCount = 0

  get isEmpty(): boolean {
    return this.#records.length === 0
  }
  /** In memory. */
  get bytes(): number {
    return this.#bytes
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
   * Numbers changes from `sequence` on, in pieces that a record can hold; returns how many. With `giveBack` their data is lent: it is called once,
   * when nothing reads the data any more, and that may be within this call.
   */
  addChanges(
    sequence: number,
    volume: number,
    changes: readonly SectorChange[],
    timestampMicros: number,
    giveBack: (() => void) | undefined,
  ): number {
    const lent = giveBack === undefined ? undefined : { bytes: noBytes, filledBytes: 0, recordCount: 0, giveBack }
    let next = sequence
    for (const change of changes) {
      const pieceMax = change.data === undefined ? zeroLengthBytesMax : writeSizeBytesMax
      for (let at = 0; at < change.lengthBytes; at += pieceMax) {
        const lengthBytes = Math.min(pieceMax, change.lengthBytes - at)
        const piece = change.data?.subarray(at, at + lengthBytes)
        const data = piece === undefined ? undefined : this.#keep(piece, lent)
        const offsetBytes = change.offsetBytes + at
        this.#records.push({ sequence: next++, volume, offsetBytes, lengthBytes, data, timestampMicros })
        this.#bytes += recordOverheadBytes + (data?.length ?? 0)
        this.#rawBytes += data?.length ?? 0
      }
    }
    if (lent?.recordCount === 0) lent.giveBack()
    return next - sequence
  }

  addMarker(sequence: number, marker: UnplacedMarker): void {
    this.#records.push({ sequence, marker })
    this.#bytes += recordOverheadBytes
    this.#markerCount++
  }

  clear(): void {
    this.#records = []
    for (const { giveBack } of this.#slabs.splice(0)) giveBack?.()
    this.#bytes = this.#rawBytes = this.#markerCount = 0
  }

  /** Takes the first records out and makes a frame of them: one marker, or the writes before the next one as far as a batch holds. */
  sealFirst(generation: number): SealedFrame {
    const head = this.#records[0]
    assert(head !== undefined, 'there is something to seal')
    if (!('marker' in head)) return this.#sealBatch(head, generation)
    this.#records.shift()
    this.#bytes -= recordOverheadBytes
    this.#markerCount--
    const { sequence } = head
    const bytes = encodeFrame({ type: 'marker', generation, sequence, ...head.marker })
    return { firstSequence: sequence, lastSequence: sequence, bytes, batch: undefined }
  }

  /** Nobody needs the bytes of this frame any more. */
  recycle(frame: QueuedFrame): void {
    this.#frameMemory.give(frame.bytes)
  }

  #sealBatch(head: PendingWrite, generation: number): SealedFrame {
    const builder = this.#builder
    let last = head
    let count = 0
    let dataCount = 0
    for (const write of this.#records) {
      if ('marker' in write || builder.isFull || !builder.hasRoom(write.data?.length ?? 0)) break
      const { volume, offsetBytes, lengthBytes, data } = write
      if (data === undefined) builder.addZero({ volume, offsetBytes, lengthBytes })
      else builder.add({ volume, offsetBytes, data })
      last = write
      count++
      this.#bytes -= recordOverheadBytes + (data?.length ?? 0)
      this.#rawBytes -= data?.length ?? 0
      if (data !== undefined) dataCount++
    }
    this.#records.splice(0, count)
    const { rawSizeBytes } = builder
    const position = { generation, firstSequence: head.sequence, timestampMicros: last.timestampMicros }
    const bytes = builder.finish(position, sizeBytes => this.#frameMemory.take(sizeBytes))
    for (let released = 0; released < dataCount; released++) this.#release()
    const batch = { recordCount: count, rawSizeBytes }
    return { firstSequence: head.sequence, lastSequence: last.sequence, bytes, batch }
  }

  /** The data of the last record, where it stays until #release(). */
  #keep(data: Uint8Array, lent: Slab | undefined): Uint8Array {
    if (lent === undefined) return this.#copy(data)
    if (lent.recordCount === 0) this.#slabs.push(lent)
    lent.recordCount++
    return data
  }

  #copy(data: Uint8Array): Uint8Array {
    let slab = this.#slabs.at(-1)
    if (slab === undefined || slab.filledBytes + data.length > slab.bytes.length) {
      const bytes = this.#freeSlabs.pop() ?? Buffer.allocUnsafeSlow(slabSizeBytes)
      slab = { bytes, filledBytes: 0, recordCount: 0, giveBack: undefined }
      this.#slabs.push(slab)
    }
    const copy = slab.bytes.subarray(slab.filledBytes, slab.filledBytes + data.length)
    copy.set(data)
    slab.filledBytes += data.length
    slab.recordCount++
    return copy
  }

  /** The data of the first record that has any is not read any more. */
  #release(): void {
    const [slab] = this.#slabs
    assert(slab !== undefined && slab.recordCount > 0, 'a record with data is in the first slab')
    slab.recordCount--
    if (slab.recordCount > 0) return
    this.#slabs.shift()
    if (slab.giveBack !== undefined) slab.giveBack()
    else if (this.#freeSlabs.length < slabsKeptMax) this.#freeSlabs.push(slab.bytes)
  }
}
