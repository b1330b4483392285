import { assert } from '../base/assert.ts'
import { sectorSizeBytes } from '../base/units.ts'
import { Float64Column, radixOrder, readFragments, settleAll, Uint32Column, type WriteIndex } from '../mirror/mirror.ts'
import type { RecordSource } from '../segment/record-source.ts'
import { hasData, imagePace, type ResolvedRegion } from './resolved-region.ts'
import type { PieceSink, VolumeRange } from './types.ts'

/** Regions under way at once: the next one's index is read while this one's data comes in. */
const regionsAtOnce = 2

export interface ScatterRequest {
  /** Ascending. */
  readonly regions: readonly number[]
  readonly resolve: (region: number) => Promise<ResolvedRegion>
  readonly index: WriteIndex
  readonly sources: readonly RecordSource[]
  readonly range: VolumeRange
  readonly regionSizeBytes: number
  readonly sink: PieceSink
  readonly signal: AbortSignal
}

/**
 * First the packs, region by region: in a pack a region's blocks lie together. Of the writes that no delta holds only the places are noted
 * on the way; then their sources are read, each once and from front to back, however the writes are spread over the volume.
 */
export async function scatterVolume(request: ScatterRequest): Promise<void> {
  const { regions, resolve, range, regionSizeBytes, sink, signal } = request
  const pace = imagePace(signal)
  const unfolded = new UnfoldedPieces(request)
  const progress = { doneBytes: 0, totalBytes: regions.length * regionSizeBytes }
  const scatterRegion = async (region: number): Promise<void> => {
    signal.throwIfAborted()
    const resolved = await resolve(region)
    const { loaded, pieces, fragments, writesSource } = resolved
    const wanted = new Uint32Column()
    let sizeBytes = 0
    for (let fragment = 0; fragment < fragments.count; fragment++) {
      if (!hasData(resolved, fragment)) continue
      const piece = fragments.piece[fragment]!
      const placed = clip(fragments.start[fragment]!, fragments.length[fragment]!, region * regionSizeBytes, range)
      if (placed.sizeBytes <= 0) continue
      sizeBytes += placed.sizeBytes
      const rawOffsetBytes = pieces.rawOffsetBytes[piece]!
      const offsetInPiece = placed.offsetBytes - region * regionSizeBytes - pieces.start[piece]! * sectorSizeBytes
      if (pieces.source[piece] !== writesSource) wanted.push(fragment)
      else unfolded.add(pieces.unit[piece]!, rawOffsetBytes + offsetInPiece, placed.offsetBytes, placed.sizeBytes)
    }
    progress.totalBytes -= regionSizeBytes - sizeBytes
    const take = (fragment: number, unit: Uint8Array): void => {
      const piece = fragments.piece[fragment]!
      const placed = clip(fragments.start[fragment]!, fragments.length[fragment]!, region * regionSizeBytes, range)
      const offsetInPiece = placed.offsetBytes - region * regionSizeBytes - pieces.start[piece]! * sectorSizeBytes
      const at = pieces.rawOffsetBytes[piece]! + offsetInPiece
      sink.piece(placed.offsetBytes, unit.subarray(at, at + placed.sizeBytes))
      progress.doneBytes += placed.sizeBytes
    }
    await readFragments(loaded, pieces, fragments, wanted.values(), take, signal)
    sink.progress(progress.doneBytes, progress.totalBytes)
    await pace.step()
  }
  await eachOf(regions, scatterRegion)
  await unfolded.scatter(sink, progress)
}

/** Runs a bounded number of walkers over the list: no promise per element of a long list. None goes on after one has failed. */
async function eachOf(list: readonly number[], work: (element: number) => Promise<void>): Promise<void> {
  const rest = list.values()
  let failed = false
  const walk = async (): Promise<void> => {
    for (const element of rest) {
      if (failed) return
      try {
        await work(element)
      } catch (error) {
        failed = true
        throw error
      }
    }
  }
  await settleAll(Array.from({ length: regionsAtOnce }, walk))
}

/** The part of a fragment of a region that lies in the range, in bytes of the volume. */
function clip(
  startSector: number,
  sectors: number,
  regionOffsetBytes: number,
  range: VolumeRange,
): { readonly offsetBytes: number; readonly sizeBytes: number } {
  const startBytes = regionOffsetBytes + startSector * sectorSizeBytes
  const offsetBytes = Math.max(startBytes, range.startBytes)
  const endBytes = Math.min(startBytes + sectors * sectorSizeBytes, range.endBytes)
  return { offsetBytes, sizeBytes: endBytes - offsetBytes }
}

/** Live pieces of writes that no delta holds, as columns, until their sources are read. */
class UnfoldedPieces {
  readonly #request: ScatterRequest
  readonly #batch = new Uint32Column()
  readonly #rawOffsetBytes = new Uint32Column()
  readonly #offsetBytes = new Float64Column()
  readonly #sizeBytes = new Uint32Column()

  constructor(request: ScatterRequest) {
    this.#request = request
  }

  add(batch: number, rawOffsetBytes: number, offsetBytes: number, sizeBytes: number): void {
    this.#batch.push(batch)
    this.#rawOffsetBytes.push(rawOffsetBytes)
    this.#offsetBytes.push(offsetBytes)
    this.#sizeBytes.push(sizeBytes)
  }

  /** Batches are numbered in the order of the sources. */
  async scatter(sink: PieceSink, progress: { doneBytes: number; totalBytes: number }): Promise<void> {
    const { index, sources, signal } = this.#request
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
      const sourceIndex = index.batchSource[batch[order[next]!]!]!
      const wanted = new Set<number>()
      let end = next
      for (; end < count && index.batchSource[batch[order[end]!]!] === sourceIndex; end++)
        wanted.add(index.batchNumber[batch[order[end]!]!]!)
      const give = async (number: number, payload: Uint8Array): Promise<void> => {
        for (; next < end && index.batchNumber[batch[order[next]!]!] === number; next++) {
          const at = order[next]!
          const bytes = payload.subarray(rawOffsetBytes[at]!, rawOffsetBytes[at]! + sizeBytes[at]!)
          sink.piece(offsetBytes[at]!, bytes)
          progress.doneBytes += bytes.length
        }
        if (!pace.due) return
        sink.progress(progress.doneBytes, progress.totalBytes)
        await pace.step()
      }
      await sources[sourceIndex]!.scanBatches(candidate => wanted.has(candidate), give, signal)
      assert(next === end, 'a source gives every batch that is wanted, in order')
      sink.progress(progress.doneBytes, progress.totalBytes)
    }
  }
}
