import { assert } from '../base/assert.ts'
import { extentSizeBytesMax } from '../base/limits.ts'
import { alignDown, alignUp, KiB, MiB, sectorSizeBytes } from '../base/units.ts'
import { isZero } from '../codec/zeros.ts'
import type { RegionVersion } from '../timeline/state.ts'
import { Layers, loadLayers, packOpener, readFragments, RegionPieces } from './layers.ts'
import { Merger, type Fragments } from './merge.ts'
import { PackWriter } from './pack-writer.ts'
import { Pace } from './pace.ts'
import type { RewriteRequest } from './types.ts'
import { noData } from './write-index.ts'

/** The region is put together in slices of this size. */
const sliceSizeBytesMax = 16 * MiB
/** Zeros are left out in units of this size. */
const pageSizeBytes = 4 * KiB
const pageSectors = pageSizeBytes / sectorSizeBytes

/**
 * The region as of the end of a delta, whole, as a new version: from its newest version before that and the deltas between. The
 * pack is durable in the store on return and in no manifest yet; there is none when the region is all zeros. Fails OBJECT_CORRUPT
 * where an object that it reads is damaged.
 */
export async function rewriteRegion(request: RewriteRequest): Promise<RegionVersion> {
  const { state, volume, region, asOfOrdinal, regionSizeBytes, store, signal } = request
  assert(
    state.deltas.some(delta => delta.toOrdinal === asOfOrdinal),
    'a region version is as of the end of a delta',
  )
  const pace = new Pace(request.yieldNow, signal)
  const layers = new Layers(state, asOfOrdinal, regionSizeBytes)
  const found = new RegionPieces()
  const loaded = await loadLayers(layers.of(volume, region), region, packOpener(store), found, signal)
  const pieces = found.columns()
  const fragments = new Merger().merge(pieces)
  await pace.step()

  const writer = new PackWriter(request.workspace.pack)
  const key = request.newKey()
  const { vpg, epoch } = request
  const identity = { kind: 'base', volume, vpg, key, epoch, fromOrdinal: 0, toOrdinal: asOfOrdinal } as const
  writer.begin({ ...identity, regionSizeBytes }, [asOfOrdinal], hintsOf(fragments, regionSizeBytes))
  const hasData = (fragment: number): boolean => pieces.rawOffsetBytes[fragments.piece[fragment]!] !== noData
  const regionSectors = regionSizeBytes / sectorSizeBytes
  const sliceSectors = Math.min(sliceSizeBytesMax / sectorSizeBytes, regionSectors)
  const slice = request.workspace.partition.reserve(sliceSectors * sectorSizeBytes)
  for (let from = 0; from < regionSectors; from += sliceSectors) {
    const end = Math.min(from + sliceSectors, regionSectors)
    const wanted = fragmentsWithin(fragments, from, end).filter(hasData)
    if (wanted.length === 0) continue
    const bytes = slice.subarray(0, (end - from) * sectorSizeBytes)
    const runs = pageRuns(fragments, wanted, from, end)
    for (const gap of runs.gaps) bytes.fill(0, gap.startBytes, gap.endBytes)
    const take = (fragment: number, unit: Uint8Array): void => {
      const piece = fragments.piece[fragment]!
      const start = Math.max(fragments.start[fragment]!, from)
      const sectors = Math.min(fragments.start[fragment]! + fragments.length[fragment]!, end) - start
      const at = pieces.rawOffsetBytes[piece]! + (start - pieces.start[piece]!) * sectorSizeBytes
      bytes.set(unit.subarray(at, at + sectors * sectorSizeBytes), (start - from) * sectorSizeBytes)
    }
    await readFragments(loaded, pieces, fragments, wanted, take, signal)
    for (const { startBytes, endBytes } of runs.pages) {
      const startSector = region * regionSectors + from + startBytes / sectorSizeBytes
      await addNonZeros(writer, startSector, asOfOrdinal, bytes.subarray(startBytes, endBytes), pace)
    }
  }
  if (writer.extentCount === 0) return { volume, region, asOfOrdinal, pack: undefined }
  const { bytes, ref } = writer.finish()
  await store.create(key, bytes, signal)
  return { volume, region, asOfOrdinal, pack: ref }
}

/** Fragments that reach into [from, end), in sectors. They are sorted and do not overlap. */
function fragmentsWithin(
  fragments: { count: number; start: Uint32Array; length: Uint32Array },
  from: number,
  end: number,
): Uint32Array {
  const wanted: number[] = []
  for (let index = 0; index < fragments.count; index++) {
    if (fragments.start[index]! < end && fragments.start[index]! + fragments.length[index]! > from) wanted.push(index)
  }
  return Uint32Array.from(wanted)
}

/** How much of a pack the region will at most be: extents end at every page that is not there, and at every 64 KiB. */
function hintsOf(
  { count, length }: Fragments,
  regionSizeBytes: number,
): { readonly rawSizeBytes: number; readonly extentCount: number } {
  let sizeBytes = 0
  for (let index = 0; index < count; index++) sizeBytes += length[index]! * sectorSizeBytes
  const rawSizeBytes = Math.min(regionSizeBytes, sizeBytes + 2 * pageSizeBytes * count)
  return {
    rawSizeBytes,
    extentCount: Math.min(count + rawSizeBytes / extentSizeBytesMax, rawSizeBytes / pageSizeBytes),
  }
}

interface Run {
  readonly startBytes: number
  readonly endBytes: number
}

/** The pages that fragments reach into, as runs, and what of these pages no fragment covers; in bytes from the slice's start. */
function pageRuns(
  fragments: Fragments,
  wanted: Uint32Array,
  from: number,
  end: number,
): { readonly pages: readonly Run[]; readonly gaps: readonly Run[] } {
  const pages: Run[] = []
  const gaps: Run[] = []
  const push = (runs: Run[], start: number, after: number): void => {
    if (start >= after) return
    runs.push({ startBytes: (start - from) * sectorSizeBytes, endBytes: (after - from) * sectorSizeBytes })
  }
  let runStart = from
  let coveredTo = from
  for (const fragment of wanted) {
    const start = Math.max(fragments.start[fragment]!, from)
    const pageStart = alignDown(start, pageSectors)
    const runEnd = alignUp(coveredTo, pageSectors)
    if (pageStart > runEnd) {
      push(gaps, coveredTo, runEnd)
      push(pages, runStart, runEnd)
      push(gaps, pageStart, start)
      runStart = pageStart
    } else push(gaps, coveredTo, start)
    coveredTo = Math.min(fragments.start[fragment]! + fragments.length[fragment]!, end)
  }
  const runEnd = alignUp(coveredTo, pageSectors)
  push(gaps, coveredTo, runEnd)
  push(pages, runStart, runEnd)
  return { pages, gaps }
}

/** Adds what is not zeros, in whole pages but for the last, from the sector on. */
export async function addNonZeros(
  writer: PackWriter,
  startSector: number,
  ordinal: number,
  bytes: Uint8Array,
  pace: Pace,
): Promise<void> {
  let runStart = -1
  for (let at = 0; at < bytes.length + pageSizeBytes; at += pageSizeBytes) {
    const data = at < bytes.length && !isZero(bytes.subarray(at, at + pageSizeBytes))
    if (data && runStart < 0) runStart = at
    const runEnds = runStart >= 0 && (!data || at - runStart >= MiB)
    if (!runEnds) continue
    writer.add(startSector + runStart / sectorSizeBytes, ordinal, bytes.subarray(runStart, Math.min(at, bytes.length)))
    runStart = data ? at : -1
    if (pace.due) await pace.step()
  }
}
