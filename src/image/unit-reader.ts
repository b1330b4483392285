import { batchRawSizeBytesTarget } from '../base/limits.ts'
import { sectorSizeBytes } from '../base/units.ts'
import { settleAll, type BatchPlaces } from '../mirror/mirror.ts'
import type { RawPart, RecordSource } from '../segment/record-source.ts'
import type { ByteRange } from '../store/object-store.ts'
import { BatchParts, type Parts, type WantedPart } from './batch-parts.ts'
import { isUnfolded, type ResolvedRegion } from './resolved-region.ts'
import { SizedCache } from './sized-cache.ts'

// Units are what packs are read by, their blocks. However many reads want a unit at a time, it is read once; those that one read
// wants come in few large requests. What no pack has are parts of batches, of a segment or of the log: see batch-parts.ts.

/** Of the cache, what one prefetch may bring: reads that are under way keep the rest. */
const prefetchShare = 1 / 4
/** Agents close a batch at this size or before, and a read may want all of it. */
const batchSizeBytesGuess = batchRawSizeBytesTarget

interface WantedUnit {
  readonly key: string
  /** Of ResolvedRegion. */
  readonly source: number
  readonly unit: number
}

export class UnitReader {
  readonly #cache: SizedCache<Parts>
  readonly #batches: BatchParts
  readonly #prefetchSizeBytesMax: number
  /** Being read. */
  readonly #underWay = new Map<string, Promise<Uint8Array>>()
  #usedSizeBytes = 0

  constructor(batches: BatchPlaces, sources: readonly RecordSource[], cacheSizeBytes: number) {
    this.#cache = new SizedCache(cacheSizeBytes)
    this.#batches = new BatchParts(batches, sources, this.#cache)
    this.#prefetchSizeBytesMax = cacheSizeBytes * prefetchShare
  }

  /** Of batches what was brought, less what reads have had of it. */
  get wastedSizeBytes(): number {
    return this.#batches.broughtSizeBytes - this.#usedSizeBytes
  }

  /**
   * Calls back with the bytes of every fragment that lie in the range, which is in bytes from the region's start and reaches
   * into every fragment. Units that others began to read fail with the signal of those.
   */
  async each(
    resolved: ResolvedRegion,
    fragments: readonly number[],
    range: ByteRange,
    signal: AbortSignal,
    take: (fragment: number, bytes: Uint8Array) => void,
  ): Promise<void> {
    const missing = new Map<string, WantedUnit>()
    const waiting: { readonly fragment: number; readonly key: string }[] = []
    const parts = new WantedParts()
    const fragmentsOf = new Map<number, number[]>()
    const takeOf = (fragment: number, { rawOffsetBytes, raw }: RawPart): void => {
      const { startBytes, endBytes } = rawRangeOf(resolved, fragment, range)
      if (isUnfolded(resolved, fragment)) this.#usedSizeBytes += endBytes - startBytes
      take(fragment, raw.subarray(startBytes - rawOffsetBytes, endBytes - rawOffsetBytes))
    }
    for (const fragment of fragments) {
      if (isUnfolded(resolved, fragment)) {
        const wanted = { batch: unitOf(resolved, fragment), range: rawRangeOf(resolved, fragment, range) }
        const known = this.#batches.known(wanted)
        if (known !== undefined) takeOf(fragment, known)
        else if (parts.add(wanted)) fragmentsOf.set(wanted.batch, [fragment])
        else fragmentsOf.get(wanted.batch)!.push(fragment)
      } else {
        const wanted = packUnitOf(resolved, fragment)
        const known = this.#cache.get(wanted.key)?.[0]
        if (known === undefined) {
          waiting.push({ fragment, key: wanted.key })
          missing.set(wanted.key, wanted)
        } else takeOf(fragment, known)
      }
    }
    const readUnits = async (): Promise<void> => {
      const units = await this.#read(resolved, missing, signal)
      for (const { fragment, key } of waiting) takeOf(fragment, { rawOffsetBytes: 0, raw: units.get(key)! })
    }
    const readParts = parts.list().map(async wanted => {
      const part = await this.#batches.read(wanted, signal)
      for (const fragment of fragmentsOf.get(wanted.batch)!) takeOf(fragment, part)
    })
    await settleAll(missing.size === 0 ? readParts : [...readParts, readUnits()])
  }

  /** Brings what the range has of the fragments into the cache, as much as one prefetch may. */
  async prefetch(
    resolved: ResolvedRegion,
    fragments: readonly number[],
    range: ByteRange,
    signal: AbortSignal,
  ): Promise<void> {
    const missing = new Map<string, WantedUnit>()
    const parts = new WantedParts()
    let sizeBytes = 0
    for (const fragment of fragments) {
      if (isUnfolded(resolved, fragment)) {
        const wanted = { batch: unitOf(resolved, fragment), range: rawRangeOf(resolved, fragment, range) }
        if (this.#batches.known(wanted) !== undefined) continue
        if (!parts.has(wanted.batch)) sizeBytes += batchSizeBytesGuess
        if (sizeBytes > this.#prefetchSizeBytesMax) break
        parts.add(wanted)
      } else {
        const wanted = packUnitOf(resolved, fragment)
        if (missing.has(wanted.key) || this.#cache.get(wanted.key) !== undefined) continue
        sizeBytes += resolved.loaded[wanted.source]!.extents.blocks.rawSizeBytes[wanted.unit]!
        if (sizeBytes > this.#prefetchSizeBytesMax) break
        missing.set(wanted.key, wanted)
      }
    }
    const readBatches = parts.list().map(wanted => this.#batches.read(wanted, signal))
    await settleAll<unknown>([...readBatches, this.#read(resolved, missing, signal)])
  }

  async #read(
    resolved: ResolvedRegion,
    missing: ReadonlyMap<string, WantedUnit>,
    signal: AbortSignal,
  ): Promise<Map<string, Uint8Array>> {
    const units = new Map<string, Uint8Array>()
    const own: WantedUnit[] = []
    const waits: Promise<unknown>[] = []
    for (const wanted of missing.values()) {
      const underWay = this.#underWay.get(wanted.key)
      if (underWay === undefined) own.push(wanted)
      else waits.push(underWay.then(bytes => units.set(wanted.key, bytes)))
    }
    const keep = (key: string, bytes: Uint8Array): void => void units.set(key, bytes)
    for (const group of bySource(own)) waits.push(this.#readOfSource(resolved, group, keep, signal))
    await settleAll(waits)
    return units
  }

  /** The units are of one source. They are under way from here on for everybody. */
  async #readOfSource(
    resolved: ResolvedRegion,
    group: readonly WantedUnit[],
    keep: (key: string, bytes: Uint8Array) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const promises = new Map<string, { resolve: (bytes: Uint8Array) => void; reject: (error: unknown) => void }>()
    for (const { key } of group) {
      const promise = new Promise<Uint8Array>((resolve, reject) => promises.set(key, { resolve, reject }))
      promise.catch(() => undefined) // this call fails with the same
      this.#underWay.set(key, promise)
    }
    const done = (key: string, bytes: Uint8Array): void => {
      this.#cache.set(key, [{ rawOffsetBytes: 0, raw: bytes }], bytes.length)
      this.#underWay.delete(key)
      keep(key, bytes)
      promises.get(key)!.resolve(bytes)
      promises.delete(key)
    }
    try {
      const layer = resolved.loaded[group[0]!.source]!
      const ascending = group.toSorted((a, b) => a.unit - b.unit)
      const keys = new Map(ascending.map(({ unit, key }) => [unit, key]))
      const units = ascending.map(({ unit }) => unit)
      await layer.reader.readBlocks(
        layer.extents.blocks,
        units,
        (unit, raw) => done(keys.get(unit)!, raw.slice()),
        signal,
      )
    } catch (error) {
      for (const [key, { reject }] of promises) {
        this.#underWay.delete(key)
        reject(error)
      }
      throw error
    }
  }
}

/** Of each batch one part: where a volume was written from front to back, what is wanted of a batch is neighbours. */
class WantedParts {
  readonly #ofBatch = new Map<number, WantedPart>()

  /** True for the first of its batch. */
  add({ batch, range }: WantedPart): boolean {
    const before = this.#ofBatch.get(batch)?.range ?? range
    const startBytes = Math.min(before.startBytes, range.startBytes)
    const endBytes = Math.max(before.endBytes, range.endBytes)
    const isFirst = !this.has(batch)
    this.#ofBatch.set(batch, { batch, range: { startBytes, endBytes } })
    return isFirst
  }

  has(batch: number): boolean {
    return this.#ofBatch.has(batch)
  }

  list(): WantedPart[] {
    return [...this.#ofBatch.values()]
  }
}

/** Of RegionWrites, where the fragment is of a batch; else of its pack's blocks. */
function unitOf({ pieces, fragments }: ResolvedRegion, fragment: number): number {
  return pieces.unit[fragments.piece[fragment]!]!
}

function packUnitOf(resolved: ResolvedRegion, fragment: number): WantedUnit {
  const { fragments, pieces, loaded } = resolved
  const source = pieces.source[fragments.piece[fragment]!]!
  const { reader, extents } = loaded[source]!
  const unit = unitOf(resolved, fragment)
  return { key: `${reader.object.key} ${extents.blocks.firstBlock + unit}`, source, unit }
}

/** Where the part of the fragment that lies in the range, in bytes from the region's start, is in the raw bytes of its unit. */
function rawRangeOf({ fragments, pieces }: ResolvedRegion, fragment: number, range: ByteRange): ByteRange {
  const piece = fragments.piece[fragment]!
  const fragmentStart = fragments.start[fragment]! * sectorSizeBytes
  const fragmentEnd = fragmentStart + fragments.length[fragment]! * sectorSizeBytes
  const base = pieces.rawOffsetBytes[piece]! - pieces.start[piece]! * sectorSizeBytes
  return {
    startBytes: base + Math.max(range.startBytes, fragmentStart),
    endBytes: base + Math.min(range.endBytes, fragmentEnd),
  }
}

function bySource(wanted: readonly WantedUnit[]): Iterable<readonly WantedUnit[]> {
  const groups = new Map<number, WantedUnit[]>()
  for (const each of wanted) {
    const own = groups.get(each.source)
    if (own === undefined) groups.set(each.source, [each])
    else own.push(each)
  }
  return groups.values()
}
