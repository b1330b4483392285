import { sectorSizeBytes } from '../base/units.ts'
import { Merger, noData, RegionPieces, type Pace, type RegionWrites } from '../mirror/mirror.ts'
import type { ByteRange } from '../store/object-store.ts'
import type { ResolvedRegion } from './resolved-region.ts'
import type { SpoolFile, SpoolPlaces } from './types.ts'
import type { UnfoldedPieces } from './unfolded-pieces.ts'

// Writes that no delta holds lie by time. Where they were random, each 4 KiB of a place is in another batch, and reading the place decompresses
// them all. A spool has what is live of these writes once more, by place, in a file of its own; one pass over the batches makes it, and then any
// range of a region is one read:
//
//   | volume 1, region 0: its live bytes, ascending | volume 1, region 3 | volume 2, region 0 | ...
//
// There are no gaps: where a piece stands is told by how much of its region's lies before it. How it gets there, see spool-partitions.ts. The file has no name, is never synced, and is gone with its process.
// It is a second copy: where a read of it fails, or is not what was written (see spool-sums.ts), the image is read from the batches again.

/** Where everything will stand; adds every live piece of these volumes, with its place in the spool. */
export async function planSpool(
  writes: RegionWrites,
  volumes: ReadonlySet<number>,
  pieces: UnfoldedPieces,
  pace: Pace,
): Promise<SpoolPlaces> {
  const merger = new Merger()
  const startBytes = new Float64Array(writes.buckets.length).fill(-1)
  let sizeBytes = 0
  await writes.sort(pace)
  for (const [number, bucket] of writes.buckets.entries()) {
    if (!volumes.has(bucket.volume)) continue
    startBytes[number] = sizeBytes
    const found = new RegionPieces()
    await writes.eachPiece(bucket, pace, (start, length, batch, rawOffsetBytes) =>
      found.add(start, length, 0, batch, rawOffsetBytes),
    )
    sizeBytes = addBucket(found.columns(), merger, pieces, sizeBytes)
    await pace.step()
  }
  return { sizeBytes, startBytes }
}

/** These writes are an image's newest, so that none of them is hidden but by another of them: nothing else needs to be known. Returns where the bucket ends. */
function addBucket(
  own: ReturnType<RegionPieces['columns']>,
  merger: Merger,
  pieces: UnfoldedPieces,
  startBytes: number,
): number {
  const merged = merger.merge(own)
  let at = startBytes
  for (let fragment = 0; fragment < merged.count; fragment++) {
    const piece = merged.piece[fragment]!
    if (own.rawOffsetBytes[piece] === noData) continue
    const offsetInPiece = (merged.start[fragment]! - own.start[piece]!) * sectorSizeBytes
    const sizeBytes = merged.length[fragment]! * sectorSizeBytes
    pieces.add(own.unit[piece]!, own.rawOffsetBytes[piece]! + offsetInPiece, at, sizeBytes)
    at += sizeBytes
  }
  return at
}

/** In bytes from the region's start. */
interface SpooledPart {
  readonly startBytes: number
  readonly sizeBytes: number
}

/** Neighbouring bytes of a spool, and what they are. */
export interface SpooledRun {
  readonly offsetBytes: number
  readonly sizeBytes: number
  /** Ascending; one behind the other in the run. Neighbours in the volume are one. */
  readonly parts: readonly SpooledPart[]
  /** Of the fragments that were asked for, how many it has. */
  readonly fragmentCount: number
}

/**
 * What the fragments, which are ascending and all of the region's that are unfolded and reach into the range, have there: one run for every
 * `runSizeBytesMax` bytes. The range is in bytes from the region's start.
 */
export function spooledRuns(
  resolved: ResolvedRegion,
  fragments: readonly number[],
  range: ByteRange,
  regionStartBytes: number,
  runSizeBytesMax: number,
): SpooledRun[] {
  const runs: SpooledRun[] = []
  let parts: SpooledPart[] = []
  let runOffsetBytes = 0
  let runSizeBytes = 0
  let fragmentCount = 0
  const endRun = (): void => {
    if (runSizeBytes > 0) runs.push({ offsetBytes: runOffsetBytes, sizeBytes: runSizeBytes, parts, fragmentCount })
    parts = []
    runSizeBytes = 0
    fragmentCount = 0
  }
  for (const fragment of fragments) {
    const part = partOf(resolved, fragment, range)
    if (runSizeBytes + part.sizeBytes > runSizeBytesMax) endRun()
    if (runSizeBytes === 0) {
      const before = resolved.unfoldedBeforeBytes[fragment]!
      const skipped = part.startBytes - resolved.fragments.start[fragment]! * sectorSizeBytes
      runOffsetBytes = regionStartBytes + before + skipped
    }
    const last = parts.at(-1)
    if (last !== undefined && last.startBytes + last.sizeBytes === part.startBytes)
      parts[parts.length - 1] = { startBytes: last.startBytes, sizeBytes: last.sizeBytes + part.sizeBytes }
    else parts.push(part)
    runSizeBytes += part.sizeBytes
    fragmentCount++
  }
  endRun()
  return runs
}

function partOf({ fragments }: ResolvedRegion, fragment: number, range: ByteRange): SpooledPart {
  const fragmentStart = fragments.start[fragment]! * sectorSizeBytes
  const startBytes = Math.max(range.startBytes, fragmentStart)
  const endBytes = Math.min(range.endBytes, fragmentStart + fragments.length[fragment]! * sectorSizeBytes)
  return { startBytes, sizeBytes: endBytes - startBytes }
}

/**
 * Fills the target, which begins `startBytes` after its region's start, with what the run has of it, and zeros. The run is read to the target's end; from there its parts move to
 * their places, of which none lies behind where it came from.
 */
export async function readSpooled(
  file: SpoolFile,
  run: SpooledRun | undefined,
  startBytes: number,
  target: Uint8Array,
): Promise<void> {
  const { offsetBytes, sizeBytes, parts } = run ?? { offsetBytes: 0, sizeBytes: 0, parts: [] }
  let from = target.length - sizeBytes
  if (sizeBytes > 0) await file.read(target.subarray(from), offsetBytes)
  let filled = 0
  for (const part of parts) {
    const to = part.startBytes - startBytes
    if (to !== from) target.copyWithin(to, from, from + part.sizeBytes)
    target.fill(0, filled, to)
    filled = to + part.sizeBytes
    from += part.sizeBytes
  }
  target.fill(0, filled)
}
