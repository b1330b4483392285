import { MiB, sectorSizeBytes } from '../base/units.ts'
import { readFragments, settleAll, Uint32Column, type BatchPlaces } from '../mirror/mirror.ts'
import type { RecordSource } from '../segment/record-source.ts'
import { firstEndingAfter, hasData, imagePace, isUnfolded, type ResolvedRegion } from './resolved-region.ts'
import { spooledRuns } from './spool.ts'
import type { PieceSink, SpooledRegion, VolumeRange } from './types.ts'
import { UnfoldedPieces } from './unfolded-pieces.ts'

/** Regions under way at once: the next one's index is read while this one's data comes in. */
const regionsAtOnce = 2
/** What is read of a spool at once. */
const spoolRunSizeBytesMax = 1 * MiB

export interface ScatterRequest {
  /** Ascending. */
  readonly regions: readonly number[]
  readonly resolve: (region: number) => Promise<ResolvedRegion>
  readonly batches: BatchPlaces
  readonly sources: readonly RecordSource[]
  /** Of the region, where its unfolded writes are in a spool. */
  readonly spooled: (region: number) => SpooledRegion | undefined
  readonly range: VolumeRange
  readonly regionSizeBytes: number
  readonly sink: PieceSink
  readonly signal: AbortSignal
}

/**
 * First the packs, region by region: in a pack a region's blocks lie together. Of the writes that no delta holds only the places are noted
 * on the way; then their sources are read, each once and from front to back, however the writes are spread over the volume. Where there is a
 * spool of them, it is read with its region.
 */
export async function scatterVolume(request: ScatterRequest): Promise<void> {
  const { regions, resolve, range, regionSizeBytes, sink, signal } = request
  const pace = imagePace(signal)
  const unfolded = new UnfoldedPieces(request.batches, request.sources)
  const progress = { doneBytes: 0, totalBytes: regions.length * regionSizeBytes }
  const scatterRegion = async (region: number): Promise<void> => {
    signal.throwIfAborted()
    const resolved = await resolve(region)
    const { loaded, pieces, fragments } = resolved
    const regionOffsetBytes = region * regionSizeBytes
    const own = {
      startBytes: Math.max(0, range.startBytes - regionOffsetBytes),
      endBytes: Math.min(regionSizeBytes, range.endBytes - regionOffsetBytes),
    }
    const spooled = request.spooled(region)
    const noteUnfolded = (fragment: number): void => {
      const piece = fragments.piece[fragment]!
      const placed = clip(fragments.start[fragment]!, fragments.length[fragment]!, regionOffsetBytes, range)
      const offsetInPiece = placed.offsetBytes - regionOffsetBytes - pieces.start[piece]! * sectorSizeBytes
      const at = pieces.rawOffsetBytes[piece]! + offsetInPiece
      unfolded.add(pieces.unit[piece]!, at, placed.offsetBytes, placed.sizeBytes)
    }
    const wanted = new Uint32Column()
    const wantedOfSpool: number[] = []
    let sizeBytes = 0
    const first = firstEndingAfter(resolved, Math.floor(own.startBytes / sectorSizeBytes))
    for (let fragment = first; fragment < fragments.count; fragment++) {
      if (fragments.start[fragment]! * sectorSizeBytes >= own.endBytes) break
      if (!hasData(resolved, fragment)) continue
      const placed = clip(fragments.start[fragment]!, fragments.length[fragment]!, regionOffsetBytes, range)
      if (placed.sizeBytes <= 0) continue
      sizeBytes += placed.sizeBytes
      if (!isUnfolded(resolved, fragment)) wanted.push(fragment)
      else if (spooled !== undefined) wantedOfSpool.push(fragment)
      else noteUnfolded(fragment)
    }
    progress.totalBytes -= regionSizeBytes - sizeBytes
    const take = (fragment: number, unit: Uint8Array): void => {
      const piece = fragments.piece[fragment]!
      const placed = clip(fragments.start[fragment]!, fragments.length[fragment]!, regionOffsetBytes, range)
      const offsetInPiece = placed.offsetBytes - regionOffsetBytes - pieces.start[piece]! * sectorSizeBytes
      const at = pieces.rawOffsetBytes[piece]! + offsetInPiece
      sink.piece(placed.offsetBytes, unit.subarray(at, at + placed.sizeBytes))
      progress.doneBytes += placed.sizeBytes
    }
    await readFragments(loaded, pieces, fragments, wanted.values(), take, signal)
    if (spooled !== undefined) {
      const runs = spooledRuns(resolved, wantedOfSpool, own, spooled.startBytes, spoolRunSizeBytesMax)
      const memory = new Uint8Array(Math.max(0, ...runs.map(run => run.sizeBytes)))
      let givenCount = 0
      for (const { offsetBytes, sizeBytes: runSizeBytes, parts, fragmentCount } of runs) {
        signal.throwIfAborted()
        const bytes = memory.subarray(0, runSizeBytes)
        try {
          await spooled.file.read(bytes, offsetBytes)
        } catch (error) {
          spooled.drop(error)
          wantedOfSpool.slice(givenCount).forEach(noteUnfolded)
          break
        }
        givenCount += fragmentCount
        for (let part = 0, at = 0; part < parts.length; at += parts[part++]!.sizeBytes)
          sink.piece(regionOffsetBytes + parts[part]!.startBytes, bytes.subarray(at, at + parts[part]!.sizeBytes))
        progress.doneBytes += runSizeBytes
      }
    }
    sink.progress(progress.doneBytes, progress.totalBytes)
    await pace.step()
  }
  await eachOf(regions, scatterRegion)
  await unfolded.scatter(sink, progress, signal)
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
