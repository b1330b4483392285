import { sectorSizeBytes } from '../../src/base/units.ts'
import {
  newWriteColumns,
  setWrite,
  type BatchColumns,
  type RawPart,
  type RecordSource,
  type WriteColumns,
} from '../../src/segment/record-source.ts'

/** A write as a test states it; without data its range becomes zeros. */
export interface TestWrite {
  readonly volume: number
  readonly offsetBytes: number
  readonly sizeBytes: number
  readonly data: Uint8Array | undefined
}

export interface TestBatch {
  readonly stream: number
  readonly generation: number
  readonly firstSequence: number
  readonly writes: readonly TestWrite[]
}

/** Batches in memory as a source of records; it counts how often each payload was read. */
export class MemorySource implements RecordSource {
  readonly name: string
  readonly reads: number[]
  readonly #batches: readonly TestBatch[]
  readonly #payload = new Uint8Array(2 ** 21)

  constructor(name: string, batches: readonly TestBatch[]) {
    this.name = name
    this.#batches = batches
    this.reads = batches.map(() => 0)
  }

  columns(): Promise<{ readonly writes: WriteColumns; readonly batches: BatchColumns }> {
    const count = this.#batches.reduce((sum, batch) => sum + batch.writes.length, 0)
    const writes = newWriteColumns(count)
    const numbers = (value: (batch: TestBatch) => number): number[] => this.#batches.map(value)
    let at = 0
    const firstWrite: number[] = []
    const rawSizes: number[] = []
    this.#batches.forEach(batch => {
      firstWrite.push(at)
      let rawOffsetBytes = 0
      for (const write of batch.writes) {
        setWrite(writes, at, {
          volume: write.volume,
          offsetSectors: write.offsetBytes / sectorSizeBytes,
          lengthSectors: write.sizeBytes / sectorSizeBytes,
          isZero: write.data === undefined,
        })
        rawOffsetBytes += write.data?.length ?? 0
        at++
      }
      rawSizes.push(rawOffsetBytes)
    })
    const batches = {
      count: this.#batches.length,
      stream: Uint32Array.from(numbers(batch => batch.stream)),
      generation: Float64Array.from(numbers(batch => batch.generation)),
      firstSequence: Float64Array.from(numbers(batch => batch.firstSequence)),
      firstWrite: Uint32Array.from(firstWrite),
      writeCount: Uint32Array.from(numbers(batch => batch.writes.length)),
      rawSizeBytes: Uint32Array.from(rawSizes),
      offsetBytes: new Float64Array(this.#batches.length),
      sizeBytes: new Uint32Array(this.#batches.length),
    }
    return Promise.resolve({ writes, batches })
  }

  /** The memory is overwritten by the next call, as the seam allows. */
  readBatch(batch: number): Promise<Uint8Array> {
    return Promise.resolve(this.#read(batch))
  }

  #read(batch: number): Uint8Array {
    this.reads[batch]!++
    this.#payload.fill(0xee)
    let at = 0
    for (const write of this.#batches[batch]!.writes) {
      if (write.data === undefined) continue
      this.#payload.set(write.data, at)
      at += write.data.length
    }
    return this.#payload.subarray(0, at)
  }

  /** The first time the whole, later the range and up to seven bytes on either side. */
  readPart(batch: number, range: { startBytes: number; endBytes: number }): Promise<RawPart> {
    const isFirst = this.reads[batch] === 0
    const raw = new Uint8Array(this.#read(batch))
    if (isFirst) return Promise.resolve({ rawOffsetBytes: 0, raw })
    const rawOffsetBytes = range.startBytes - (range.startBytes % 8)
    return Promise.resolve({
      rawOffsetBytes,
      raw: raw.slice(rawOffsetBytes, Math.min(raw.length, range.endBytes + 7)),
    })
  }

  async scanBatches(
    wanted: (batch: number) => boolean,
    sink: (batch: number, payload: Uint8Array) => void | Promise<void>,
  ): Promise<void> {
    for (let batch = 0; batch < this.#batches.length; batch++) {
      if (wanted(batch)) await sink(batch, await this.readBatch(batch))
    }
  }
}
