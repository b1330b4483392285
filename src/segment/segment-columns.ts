import { sectorSizeBytes } from '../base/units.ts'
import type { BatchView } from '../wire/wire.ts'
import type { BatchColumns, WriteColumns } from './record-source.ts'

/** What is known of a batch beside its own columns. */
export interface BatchPlace {
  readonly stream: number
  readonly offsetBytes: number
  readonly sizeBytes: number
}

export interface Columns {
  readonly writes: WriteColumns
  readonly batches: BatchColumns
}

/** Gathers the columns of batches, in order, in arrays that double when they are full. */
export class ColumnGatherer {
  #writeCount = 0
  #batchCount = 0
  #rawSizeBytes = 0
  #volume = new Uint16Array(1024)
  #offsetSectors = new Float64Array(1024)
  #lengthSectors = new Uint16Array(1024)
  #zero = new Uint8Array(1024)
  #batch = new Uint32Array(1024)
  #rawOffsetBytes = new Uint32Array(1024)
  #stream = new Uint32Array(64)
  #generation = new Float64Array(64)
  #firstSequence = new Float64Array(64)
  #firstWrite = new Uint32Array(64)
  #batchWriteCount = new Uint32Array(64)
  #batchRawSizeBytes = new Uint32Array(64)
  #offsetBytes = new Float64Array(64)
  #sizeBytes = new Uint32Array(64)

  get writeCount(): number {
    return this.#writeCount
  }

  get batchCount(): number {
    return this.#batchCount
  }

  get rawSizeBytes(): number {
    return this.#rawSizeBytes
  }

  add(batch: BatchView, place: BatchPlace): void {
    this.#growTo(this.#writeCount + batch.writeCount, this.#batchCount + 1)
    const at = this.#batchCount++
    this.#stream[at] = place.stream
    this.#generation[at] = batch.generation
    this.#firstSequence[at] = batch.firstSequence
    this.#firstWrite[at] = this.#writeCount
    this.#batchWriteCount[at] = batch.writeCount
    this.#batchRawSizeBytes[at] = batch.rawSizeBytes
    this.#offsetBytes[at] = place.offsetBytes
    this.#sizeBytes[at] = place.sizeBytes
    this.#rawSizeBytes += batch.rawSizeBytes
    let rawOffsetBytes = 0
    for (let index = 0; index < batch.writeCount; index++) {
      const write = this.#writeCount++
      const lengthBytes = batch.lengthBytes(index)
      const zero = batch.isZero(index)
      this.#volume[write] = batch.volume(index)
      this.#offsetSectors[write] = batch.offsetBytes(index) / sectorSizeBytes
      this.#lengthSectors[write] = lengthBytes / sectorSizeBytes
      this.#zero[write] = zero ? 1 : 0
      this.#batch[write] = at
      this.#rawOffsetBytes[write] = zero ? 0 : rawOffsetBytes
      if (!zero) rawOffsetBytes += lengthBytes
    }
  }

  /** Views of what was gathered so far; later calls of add() do not change them. */
  columns(): Columns {
    const writes = this.#writeCount
    const batches = this.#batchCount
    return {
      writes: {
        count: writes,
        volume: this.#volume.subarray(0, writes),
        offsetSectors: this.#offsetSectors.subarray(0, writes),
        lengthSectors: this.#lengthSectors.subarray(0, writes),
        zero: this.#zero.subarray(0, writes),
        batch: this.#batch.subarray(0, writes),
        rawOffsetBytes: this.#rawOffsetBytes.subarray(0, writes),
      },
      batches: {
        count: batches,
        stream: this.#stream.subarray(0, batches),
        generation: this.#generation.subarray(0, batches),
        firstSequence: this.#firstSequence.subarray(0, batches),
        firstWrite: this.#firstWrite.subarray(0, batches),
        writeCount: this.#batchWriteCount.subarray(0, batches),
        rawSizeBytes: this.#batchRawSizeBytes.subarray(0, batches),
        offsetBytes: this.#offsetBytes.subarray(0, batches),
        sizeBytes: this.#sizeBytes.subarray(0, batches),
      },
    }
  }

  #growTo(writeCount: number, batchCount: number): void {
    if (writeCount > this.#volume.length) {
      const capacity = Math.max(writeCount, 2 * this.#volume.length)
      this.#volume = grown(this.#volume, new Uint16Array(capacity))
      this.#offsetSectors = grown(this.#offsetSectors, new Float64Array(capacity))
      this.#lengthSectors = grown(this.#lengthSectors, new Uint16Array(capacity))
      this.#zero = grown(this.#zero, new Uint8Array(capacity))
      this.#batch = grown(this.#batch, new Uint32Array(capacity))
      this.#rawOffsetBytes = grown(this.#rawOffsetBytes, new Uint32Array(capacity))
    }
    if (batchCount > this.#stream.length) {
      const capacity = 2 * this.#stream.length
      this.#stream = grown(this.#stream, new Uint32Array(capacity))
      this.#generation = grown(this.#generation, new Float64Array(capacity))
      this.#firstSequence = grown(this.#firstSequence, new Float64Array(capacity))
      this.#firstWrite = grown(this.#firstWrite, new Uint32Array(capacity))
      this.#batchWriteCount = grown(this.#batchWriteCount, new Uint32Array(capacity))
      this.#batchRawSizeBytes = grown(this.#batchRawSizeBytes, new Uint32Array(capacity))
      this.#offsetBytes = grown(this.#offsetBytes, new Float64Array(capacity))
      this.#sizeBytes = grown(this.#sizeBytes, new Uint32Array(capacity))
    }
  }
}

function grown<A extends { set(from: A): void }>(from: A, to: A): A {
  to.set(from)
  return to
}
