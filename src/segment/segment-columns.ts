import { sectorSizeBytes } from '../base/units.ts'
import type { BatchView } from '../wire/wire.ts'
import { newWriteColumns, zeroFlag, type BatchColumns, type WriteColumns } from './record-source.ts'

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

const highSectors = 2 ** 32
/** Exclusive: what the columns hold. */
export const offsetSectorsEnd = 2 ** 40

/** False where a write lies past the largest volume that there can be. */
export function fitsColumns(batch: BatchView): boolean {
  for (let index = 0; index < batch.writeCount; index++) {
    if (batch.offsetBytes(index) / sectorSizeBytes >= offsetSectorsEnd) return false
  }
  return true
}

/** Gathers the columns of batches that fit, in order, in arrays that double when they are full. */
export class ColumnGatherer {
  #writeCount = 0
  #batchCount = 0
  #rawSizeBytes = 0
  #writes: WriteColumns
  #stream = new Uint32Array(64)
  #generation = new Float64Array(64)
  #firstSequence = new Float64Array(64)
  #firstWrite = new Uint32Array(64)
  #batchWriteCount = new Uint32Array(64)
  #batchRawSizeBytes = new Uint32Array(64)
  #offsetBytes = new Float64Array(64)
  #sizeBytes = new Uint32Array(64)

  /** For about so many writes: growing touches all memory anew. */
  constructor(writeCount = 1024) {
    this.#writes = newWriteColumns(Math.max(1024, writeCount))
  }

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
    const { volume, offsetLow, offsetHigh, lengthAndFlag } = this.#writes
    for (let index = 0; index < batch.writeCount; index++) {
      const write = this.#writeCount++
      const offsetSectors = batch.offsetBytes(index) / sectorSizeBytes
      const offsetSectorsHigh = Math.floor(offsetSectors / highSectors)
      volume[write] = batch.volume(index)
      offsetLow[write] = offsetSectors - offsetSectorsHigh * highSectors
      offsetHigh[write] = offsetSectorsHigh
      lengthAndFlag[write] = batch.lengthBytes(index) / sectorSizeBytes - 1 + (batch.isZero(index) ? zeroFlag : 0)
    }
  }

  /** Views of what was gathered so far; later calls of add() do not change them. */
  columns(): Columns {
    const writes = this.#writeCount
    const batches = this.#batchCount
    return {
      writes: {
        count: writes,
        volume: this.#writes.volume.subarray(0, writes),
        offsetLow: this.#writes.offsetLow.subarray(0, writes),
        offsetHigh: this.#writes.offsetHigh.subarray(0, writes),
        lengthAndFlag: this.#writes.lengthAndFlag.subarray(0, writes),
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
    if (writeCount > this.#writes.count) {
      const grownColumns = newWriteColumns(Math.max(writeCount, 2 * this.#writes.count))
      grown(this.#writes.volume, grownColumns.volume)
      grown(this.#writes.offsetLow, grownColumns.offsetLow)
      grown(this.#writes.offsetHigh, grownColumns.offsetHigh)
      grown(this.#writes.lengthAndFlag, grownColumns.lengthAndFlag)
      this.#writes = grownColumns
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
