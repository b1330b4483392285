import { assert } from '../base/assert.ts'
import { Float64Column, radixOrder, Uint32Column, type BatchPlaces } from '../mirror/mirror.ts'
import type { RecordSource } from '../segment/record-source.ts'
import { imagePace } from './resolved-region.ts'
import type { PieceSink } from './types.ts'

/** Live pieces of writes that no delta holds, as columns, until their sources are read: each once and from front to back. */
export class UnfoldedPieces {
  readonly #batches: BatchPlaces
  readonly #sources: readonly RecordSource[]
  readonly #batch = new Uint32Column()
  readonly #rawOffsetBytes = new Uint32Column()
  readonly #offsetBytes = new Float64Column()
  readonly #sizeBytes = new Uint32Column()

  constructor(batches: BatchPlaces, sources: readonly RecordSource[]) {
    this.#batches = batches
    this.#sources = sources
  }

  /** The offset is the sink's. */
  add(batch: number, rawOffsetBytes: number, offsetBytes: number, sizeBytes: number): void {
    this.#batch.push(batch)
    this.#rawOffsetBytes.push(rawOffsetBytes)
    this.#offsetBytes.push(offsetBytes)
    this.#sizeBytes.push(sizeBytes)
  }

  /** Batches are numbered in the order of the sources. */
  async scatter(
    sink: PieceSink,
    progress: { doneBytes: number; totalBytes: number },
    signal: AbortSignal,
  ): Promise<void> {
    const { batchSource, batchNumber } = this.#batches
    const batch = this.#batch.values()
    const [rawOffsetBytes, offsetBytes, sizeBytes] = [
      this.#rawOffsetBytes.values(),
      this.#offsetBytes.values(),
      this.#sizeBytes.values(),
    ]
    const count = batch.length
    const order = radixOrder(batch, count, new Uint32Array(count), new Uint32Array(count))
    const pace = imagePace(signal)
    for (let next = 0; next < count;) {
      const sourceIndex = batchSource[batch[order[next]!]!]!
      const wanted = new Set<number>()
      let end = next
      for (; end < count && batchSource[batch[order[end]!]!] === sourceIndex; end++)
        wanted.add(batchNumber[batch[order[end]!]!]!)
      const give = async (number: number, payload: Uint8Array): Promise<void> => {
        for (; next < end && batchNumber[batch[order[next]!]!] === number; next++) {
          const at = order[next]!
          const bytes = payload.subarray(rawOffsetBytes[at]!, rawOffsetBytes[at]! + sizeBytes[at]!)
          sink.piece(offsetBytes[at]!, bytes)
          progress.doneBytes += bytes.length
        }
        if (!pace.due) return
        sink.progress(progress.doneBytes, progress.totalBytes)
        await pace.step()
      }
      await this.#sources[sourceIndex]!.scanBatches(candidate => wanted.has(candidate), give, signal)
      assert(next === end, 'a source gives every batch that is wanted, in order')
      sink.progress(progress.doneBytes, progress.totalBytes)
    }
  }
}
