import { assert } from '../base/assert.ts'
import type { Ordinal, VpgId } from '../base/ids.ts'
import { extentAlignmentBytes } from '../base/limits.ts'
import { Permits } from '../base/permits.ts'
import { alignUp, sectorSizeBytes } from '../base/units.ts'
import type { ObjectStore } from '../store/object-store.ts'
import { eachRegion } from '../timeline/region-sizes.ts'
import type { DeltaSpan, PackRef } from '../timeline/state.ts'
import { Uint32Column } from './columns.ts'
import { packOpener, readFragments, RegionPieces, type LayerBlocks, type OpenPack } from './layers.ts'
import { Merger, type Fragments } from './merge.ts'
import { divideAtCuts, PackCuts } from './pack-cuts.ts'
import type { PackReader, RegionExtents } from './pack-reader.ts'
import { PackWriter } from './pack-writer.ts'
import { Pace } from './pace.ts'
import { radixOrder } from './radix.ts'
import { settleAll } from './settle.ts'
import type { FoldResult, MirrorTools } from './types.ts'
import { noData } from './write-index.ts'

// Merging adjacent deltas: per place the last write of each checkpoint that is still retained. src/timeline/README.md says what may be left out and why
// every image shows the same afterwards.
//
//   region by region, in windows:  sections of all packs ─> one merge, grouped by retained checkpoint ─> what survives, by place
//                                  in lots of 16 MiB: blocks of the packs ─> lot ─> pack under construction ─> store when it is full
//
// In memory are a window's extents (about 40 bytes each), the sections of a few packs, one lot, and one pack.

/** The run: deltas one behind the other, oldest first, and what is read of them. */
export interface MergedRun {
  readonly deltas: readonly DeltaSpan[]
  /** The retained checkpoints that it holds, ascending, and its end. */
  readonly groups: readonly Ordinal[]
  /** True when everybody who would read the extent has it in the region's base version. */
  readonly isBased: (volume: number, region: number, ordinal: number) => boolean
}

export interface MergeLimits {
  readonly packRawSizeBytesMax: number
  readonly regionSizeBytes: number
  /** Extents in memory at once. */
  readonly extentCountMax: number
  readonly lotSizeBytes: number
}

export interface MergeRequest extends MirrorTools, MergedRun {
  readonly vpg: VpgId
  readonly epoch: number
  readonly limits: MergeLimits
}

/** Raw bytes of the regions that were looked at: all there are, and those that a merge would keep. */
export interface Survey {
  readonly rawSizeBytes: number
  readonly liveSizeBytes: number
}

/**
 * Makes one delta of the run. On return its packs are durable in the store and in no manifest yet. Fails as the store does, and OBJECT_CORRUPT where an
 * object that it reads is damaged; packs that were created before a failure have keys that newKey gave.
 */
export async function mergeDeltas(request: MergeRequest): Promise<FoldResult> {
  const { limits, store, signal } = request
  const pace = new Pace(request.yieldNow, signal)
  const sheet = new PackSheet(request)
  const merger = new Merger()
  const run = new RunReader(request, store, limits, signal)
  for (const at of run.regions()) {
    for await (const window of run.windows(at)) {
      await pace.step()
      const fragments = merger.merge(window.pieces)
      await sheet.add(at, window, fragments, pace)
    }
  }
  await sheet.finishPack()
  const { packs } = sheet
  return {
    packs,
    rawSizeBytes: packs.reduce((sum, pack) => sum + pack.rawSizeBytes, 0),
    storedSizeBytes: packs.reduce((sum, pack) => sum + pack.object.sizeBytes, 0),
  }
}

/** What a merge of these regions would keep, by their indexes alone: nothing is written. */
export async function surveyDeltas(
  request: MergedRun & Pick<MergeRequest, 'store' | 'signal' | 'limits' | 'yieldNow'>,
  regions: readonly RegionAt[],
): Promise<Survey> {
  const { store, signal, limits } = request
  const pace = new Pace(request.yieldNow, signal)
  const merger = new Merger()
  const run = new RunReader(request, store, limits, signal)
  let [rawSizeBytes, liveSizeBytes] = [0, 0]
  for (const at of regions) {
    for await (const window of run.windows(at)) {
      await pace.step()
      rawSizeBytes += window.rawSizeBytes
      const { count, piece, length } = merger.merge(window.pieces)
      for (let fragment = 0; fragment < count; fragment++) {
        if (window.pieces.rawOffsetBytes[piece[fragment]!] !== noData)
          liveSizeBytes += length[fragment]! * sectorSizeBytes
      }
    }
  }
  return { rawSizeBytes, liveSizeBytes }
}

export interface RegionAt {
  readonly volume: number
  readonly region: number
}

/** A part of a region, of which the index was read: the live extents, oldest first. */
interface Window {
  readonly pieces: ReturnType<RegionPieces['columns']> & { readonly group: Uint16Array }
  readonly loaded: readonly LayerBlocks[]
  /** Of all extents in it, dead ones as well. */
  readonly rawSizeBytes: number
}

/** Sections that are in memory at once, and requests under way. */
const sectionsAtOnce = 8

/** Reads the indexes of the run's packs. */
class RunReader {
  readonly #run: MergedRun
  readonly #limits: MergeLimits
  readonly #signal: AbortSignal
  readonly #open: OpenPack
  /** The packs that touch a region, oldest first. */
  readonly #packs = new Map<number, PackRef[]>()
  readonly #readers = new Map<PackRef, Promise<PackReader>>()

  constructor(run: MergedRun, store: ObjectStore, limits: MergeLimits, signal: AbortSignal) {
    this.#run = run
    this.#limits = limits
    this.#signal = signal
    this.#open = packOpener(store)
    for (const pack of run.deltas.flatMap(delta => delta.packs)) {
      for (const [region] of eachRegion(pack.regionRawSizeBytes)) {
        const key = placeKey({ volume: pack.volume, region })
        const packs = this.#packs.get(key)
        if (packs === undefined) this.#packs.set(key, [pack])
        else packs.push(pack)
      }
    }
  }

  /** Every region that the run touches, by volume and place. */
  regions(): RegionAt[] {
    return [...this.#packs.keys()]
      .sort((a, b) => a - b)
      .map(key => ({ volume: Math.floor(key / 2 ** 32), region: key % 2 ** 32 }))
  }

  /** The region in as many parts as memory asks for. */
  async *windows(at: RegionAt): AsyncIterable<Window> {
    const packs = this.#packs.get(placeKey(at)) ?? []
    this.#forgetBefore(at)
    const readers = await this.#readersOf(packs)
    const extentCount = readers.reduce((sum, reader) => sum + (reader.entryOf(at.region)?.extentCount ?? 0), 0)
    const regionSectors = this.#limits.regionSizeBytes / sectorSizeBytes
    const windowCount = Math.max(1, Math.ceil(extentCount / this.#limits.extentCountMax))
    const windowSectors = alignUp(Math.ceil(regionSectors / windowCount), extentAlignmentBytes / sectorSizeBytes)
    for (let from = 0; from < regionSectors; from += windowSectors) {
      yield await this.#read(readers, at, { from, end: Math.min(regionSectors, from + windowSectors) })
    }
  }

  async #read(readers: readonly PackReader[], at: RegionAt, window: SectorRange): Promise<Window> {
    const pieces = new RegionPieces()
    const group = new Uint32Column()
    const loaded: LayerBlocks[] = []
    let rawSizeBytes = 0
    for (let first = 0; first < readers.length; first += sectionsAtOnce) {
      const some = readers.slice(first, first + sectionsAtOnce)
      const sections = await settleAll(some.map(reader => reader.readRegion(at.region, this.#signal)))
      for (const [index, extents] of sections.entries()) {
        const reader = some[index]
        if (extents === undefined || reader === undefined) continue
        rawSizeBytes += this.#add({ reader, extents }, at, window, { pieces, group, source: loaded.length })
        loaded.push({ reader, extents: { blocks: extents.blocks } })
      }
    }
    return { pieces: { ...pieces.columns(), group: Uint16Array.from(group.values()) }, loaded, rawSizeBytes }
  }

  /** Extents lie by place; a later checkpoint's hide an earlier one's, so they are added by ordinal. Returns the raw bytes in the window. */
  #add(
    { reader, extents }: { readonly reader: PackReader; readonly extents: RegionExtents },
    { volume, region }: RegionAt,
    window: SectorRange,
    to: { readonly pieces: RegionPieces; readonly group: Uint32Column; readonly source: number },
  ): number {
    const { count, start, length, zero, ordinalIndex, block, rawOffsetBytes } = extents
    const order = radixOrder(Uint32Array.from(ordinalIndex), count, new Uint32Array(count), new Uint32Array(count))
    let [rawSizeBytes, lastIndex, group] = [0, -1, deadGroup]
    for (const extent of order) {
      const from = Math.max(start[extent]!, window.from)
      const end = Math.min(start[extent]! + length[extent]!, window.end)
      if (from >= end) continue
      if (zero[extent] === 0) rawSizeBytes += (end - from) * sectorSizeBytes
      if (ordinalIndex[extent] !== lastIndex) {
        lastIndex = ordinalIndex[extent]!
        const ordinal = reader.ordinals[lastIndex]!
        group = this.#run.isBased(volume, region, ordinal) ? deadGroup : this.#groupOf(ordinal)
      }
      if (group === deadGroup) continue
      const skipped = (from - start[extent]!) * sectorSizeBytes
      const at = zero[extent] === 1 ? noData : rawOffsetBytes[extent]! + skipped
      to.pieces.add(from, end - from, to.source, block[extent]!, at)
      to.group.push(group)
    }
    return rawSizeBytes
  }

  #groupOf(ordinal: number): number {
    const { groups } = this.#run
    let [low, high] = [0, groups.length]
    while (low < high) {
      const middle = Math.floor((low + high) / 2)
      if (groups[middle]! < ordinal) low = middle + 1
      else high = middle
    }
    assert(low < groups.length, "the last group is the run's end")
    return low
  }

  async #readersOf(packs: readonly PackRef[]): Promise<PackReader[]> {
    const permits = new Permits(sectionsAtOnce)
    const opened = packs.map(pack => {
      const known = this.#readers.get(pack)
      if (known !== undefined) return known
      const opening = permits.with(() => this.#open(pack, this.#signal))
      this.#readers.set(pack, opening)
      return opening
    })
    return await settleAll(opened)
  }

  /** Regions come in order: packs that end before this one are not wanted any more. */
  #forgetBefore({ volume, region }: RegionAt): void {
    for (const pack of this.#readers.keys()) {
      if (pack.volume < volume || (pack.volume === volume && pack.endBytes <= region * this.#limits.regionSizeBytes))
        this.#readers.delete(pack)
    }
  }
}

/** Sectors from the region's start, half-open. */
interface SectorRange {
  readonly from: number
  readonly end: number
}

const deadGroup = -1

function placeKey({ volume, region }: RegionAt): number {
  return volume * 2 ** 32 + region
}

/** Puts what survives into packs, and these into the store. */
class PackSheet {
  readonly packs: PackRef[] = []
  readonly #request: MergeRequest
  readonly #writer: PackWriter
  readonly #cuts: PackCuts
  readonly #input: { readonly rawSizeBytes: number; readonly extentCount: number }
  #volume: number | undefined
  #isOpen = false

  constructor(request: MergeRequest) {
    const { limits, workspace, deltas } = request
    this.#request = request
    this.#writer = new PackWriter(workspace.pack)
    const unitSectors = extentAlignmentBytes / sectorSizeBytes
    this.#cuts = new PackCuts({ packSizeBytesMax: limits.packRawSizeBytesMax, unitSectors })
    const packs = deltas.flatMap(delta => delta.packs)
    this.#input = {
      rawSizeBytes: Math.min(limits.packRawSizeBytesMax, sum(packs.map(pack => pack.rawSizeBytes))),
      extentCount: sum(packs.map(pack => pack.extentCount)),
    }
  }

  /** Adds the window's fragments; windows come by place. */
  async add(at: RegionAt, window: Window, fragments: Fragments, pace: Pace): Promise<void> {
    if (fragments.count === 0) return
    if (at.volume !== this.#volume) {
      await this.finishPack()
      this.#cuts.restart()
      this.#volume = at.volume
    }
    const { pieces } = window
    const isZero = (fragment: number): boolean => pieces.rawOffsetBytes[fragments.piece[fragment]!] === noData
    const parts = [new Parts()]
    divideAtCuts(fragments, this.#cuts.of(fragments, isZero), piece => pieces.group[piece]!, {
      add: (piece, start, length) => parts.at(-1)?.add(piece, start, length),
      cut: () => parts.push(new Parts()),
    })
    for (const [index, part] of parts.entries()) {
      if (index > 0) await this.finishPack()
      await this.#addPart(at, window, part.fragments(), pace)
    }
  }

  async #addPart(at: RegionAt, { pieces, loaded }: Window, part: Fragments, pace: Pace): Promise<void> {
    const { limits, signal, workspace, groups } = this.#request
    const firstSector = (at.region * limits.regionSizeBytes) / sectorSizeBytes
    for (let first = 0; first < part.count;) {
      const lot = lotFrom(part, first, pieces.rawOffsetBytes, limits.lotSizeBytes)
      const buffer = workspace.partition.reserve(lot.sizeBytes)
      const take = (fragment: number, unit: Uint8Array): void => {
        const piece = part.piece[fragment]!
        const from = pieces.rawOffsetBytes[piece]! + (part.start[fragment]! - pieces.start[piece]!) * sectorSizeBytes
        buffer.set(
          unit.subarray(from, from + part.length[fragment]! * sectorSizeBytes),
          lot.placeBytes[fragment - first]!,
        )
      }
      await readFragments(loaded, pieces, part, lot.fragments, take, signal)
      for (const fragment of lot.fragments) {
        const piece = part.piece[fragment]!
        const ordinal = groups[pieces.group[piece]!]!
        const start = firstSector + part.start[fragment]!
        const sectors = part.length[fragment]!
        const place = lot.placeBytes[fragment - first]!
        this.#open(at.volume)
        if (pieces.rawOffsetBytes[piece] === noData) this.#writer.addZeros(start, ordinal, sectors)
        else this.#writer.add(start, ordinal, buffer.subarray(place, place + sectors * sectorSizeBytes))
        if (pace.due) await pace.step()
      }
      first += lot.fragments.length
    }
  }

  #open(volume: number): void {
    if (this.#isOpen) return
    this.#isOpen = true
    const { vpg, epoch, deltas, groups, limits, newKey } = this.#request
    const [fromOrdinal, toOrdinal] = [deltas[0]?.fromOrdinal, groups.at(-1)]
    assert(fromOrdinal !== undefined && toOrdinal !== undefined, 'a run has a beginning and an end')
    const { regionSizeBytes } = limits
    const identity = {
      kind: 'delta',
      volume,
      vpg,
      key: newKey(),
      epoch,
      fromOrdinal,
      toOrdinal,
      regionSizeBytes,
    } as const
    this.#writer.begin(identity, groups, this.#input)
  }

  /** What was added since the last pack is a pack in the store on return. */
  async finishPack(): Promise<void> {
    if (!this.#isOpen) return
    this.#isOpen = false
    const { bytes, ref } = this.#writer.finish()
    await this.#request.store.create(ref.object.key, bytes, this.#request.signal)
    this.packs.push(ref)
  }
}

/** Fragments of one pack in one window. */
class Parts {
  readonly #piece = new Uint32Column()
  readonly #start = new Uint32Column()
  readonly #length = new Uint32Column()

  add(piece: number, start: number, length: number): void {
    this.#piece.push(piece)
    this.#start.push(start)
    this.#length.push(length)
  }

  fragments(): Fragments {
    const piece = this.#piece.values()
    return { count: piece.length, piece, start: this.#start.values(), length: this.#length.values() }
  }
}

interface Lot {
  readonly fragments: Uint32Array
  /** Where each one's data is to lie in the lot's buffer. */
  readonly placeBytes: Uint32Array
  readonly sizeBytes: number
}

/** As many fragments, one at least, as have this much data together. */
function lotFrom(part: Fragments, first: number, rawOffsetBytes: Uint32Array, sizeBytesMax: number): Lot {
  const place = new Uint32Column()
  let [sizeBytes, end] = [0, first]
  for (; end < part.count && (end === first || sizeBytes < sizeBytesMax); end++) {
    place.push(sizeBytes)
    if (rawOffsetBytes[part.piece[end]!] !== noData) sizeBytes += part.length[end]! * sectorSizeBytes
  }
  const fragments = Uint32Array.from({ length: end - first }, (_, index) => first + index)
  return { fragments, placeBytes: place.values(), sizeBytes }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}
