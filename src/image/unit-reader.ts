import { batchRawSizeBytesTarget } from '../base/limits.ts'
import { Permits } from '../base/permits.ts'
import { settleAll, type WriteIndex } from '../mirror/mirror.ts'
import type { RecordSource } from '../segment/record-source.ts'
import type { ResolvedRegion } from './resolved-region.ts'
import { SizedCache } from './sized-cache.ts'

// Units are what sources read at once: a block of a pack, a batch of a segment or of the log. However many reads want a unit at a time, it is
// read once; of a pack those that one read wants come in few large requests.

/** Of the cache, what one prefetch may bring: reads that are under way keep the rest. */
const prefetchShare = 1 / 4

interface WantedUnit {
  readonly key: string
  /** Of ResolvedRegion. */
  readonly source: number
  readonly unit: number
}

export class UnitReader {
  readonly #index: WriteIndex
  readonly #sources: readonly RecordSource[]
  readonly #cache: SizedCache<Uint8Array>
  readonly #prefetchSizeBytesMax: number
  /** Being read. */
  readonly #underWay = new Map<string, Promise<Uint8Array>>()
  /** A source's memory is its own only until its next call. */
  readonly #permits = new Map<number, Permits>()

  constructor(index: WriteIndex, sources: readonly RecordSource[], cacheSizeBytes: number) {
    this.#index = index
    this.#sources = sources
    this.#cache = new SizedCache(cacheSizeBytes)
    this.#prefetchSizeBytesMax = cacheSizeBytes * prefetchShare
  }

  /** Calls back with every fragment's unit. Units that others began to read fail with the signal of those. */
  async each(
    resolved: ResolvedRegion,
    fragments: readonly number[],
    signal: AbortSignal,
    take: (fragment: number, unit: Uint8Array) => void,
  ): Promise<void> {
    const missing = new Map<string, WantedUnit>()
    const waiting: { readonly fragment: number; readonly key: string }[] = []
    for (const fragment of fragments) {
      const wanted = this.#unitOf(resolved, fragment)
      const known = this.#cache.get(wanted.key)
      if (known !== undefined) {
        take(fragment, known)
        continue
      }
      waiting.push({ fragment, key: wanted.key })
      missing.set(wanted.key, wanted)
    }
    if (waiting.length === 0) return
    const units = await this.#read(resolved, missing, signal)
    for (const { fragment, key } of waiting) take(fragment, units.get(key)!)
  }

  /** Brings units of the fragments into the cache, as many as one prefetch may. */
  async prefetch(resolved: ResolvedRegion, fragments: readonly number[], signal: AbortSignal): Promise<void> {
    const missing = new Map<string, WantedUnit>()
    let sizeBytes = 0
    for (const fragment of fragments) {
      const wanted = this.#unitOf(resolved, fragment)
      if (missing.has(wanted.key) || this.#cache.get(wanted.key) !== undefined) continue
      sizeBytes += this.#sizeOf(resolved, wanted)
      if (sizeBytes > this.#prefetchSizeBytesMax) break
      missing.set(wanted.key, wanted)
    }
    await this.#read(resolved, missing, signal)
  }

  #unitOf({ fragments, pieces, loaded }: ResolvedRegion, fragment: number): WantedUnit {
    const piece = fragments.piece[fragment]!
    const [source, unit] = [pieces.source[piece]!, pieces.unit[piece]!]
    const layer = loaded[source]
    const key = layer === undefined ? `${unit}` : `${layer.reader.object.key} ${layer.extents.blocks.firstBlock + unit}`
    return { key, source, unit }
  }

  #sizeOf({ loaded }: ResolvedRegion, { source, unit }: WantedUnit): number {
    const layer = loaded[source]
    return layer === undefined ? batchSizeBytesGuess : layer.extents.blocks.rawSizeBytes[unit]!
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
      this.#cache.set(key, bytes, bytes.length)
      this.#underWay.delete(key)
      keep(key, bytes)
      promises.get(key)!.resolve(bytes)
      promises.delete(key)
    }
    try {
      const layer = resolved.loaded[group[0]!.source]
      if (layer === undefined) await this.#readBatches(group, done, signal)
      else {
        const ascending = group.toSorted((a, b) => a.unit - b.unit)
        const keys = new Map(ascending.map(({ unit, key }) => [unit, key]))
        const units = ascending.map(({ unit }) => unit)
        await layer.reader.readBlocks(
          layer.extents.blocks,
          units,
          (unit, raw) => done(keys.get(unit)!, raw.slice()),
          signal,
        )
      }
    } catch (error) {
      for (const [key, { reject }] of promises) {
        this.#underWay.delete(key)
        reject(error)
      }
      throw error
    }
  }

  async #readBatches(
    group: readonly WantedUnit[],
    done: (key: string, bytes: Uint8Array) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const bySegment = new Map<number, WantedUnit[]>()
    for (const wanted of group) {
      const source = this.#index.batchSource[wanted.unit]!
      const own = bySegment.get(source)
      if (own === undefined) bySegment.set(source, [wanted])
      else own.push(wanted)
    }
    const reading = [...bySegment].map(async ([number, wanted]) => {
      for (const { key, unit } of wanted) {
        await this.#permitsOf(number).with(async () => {
          const batch = this.#index.batchNumber[unit]!
          const bytes = await this.#sources[number]!.readBatch(batch, signal)
          done(key, bytes.slice())
        })
      }
    })
    await settleAll(reading)
  }

  #permitsOf(source: number): Permits {
    const known = this.#permits.get(source)
    if (known !== undefined) return known
    const permits = new Permits(1)
    this.#permits.set(source, permits)
    return permits
  }
}

/** Agents close a batch at this size or before. */
const batchSizeBytesGuess = batchRawSizeBytesTarget

function bySource(wanted: readonly WantedUnit[]): Iterable<readonly WantedUnit[]> {
  const groups = new Map<number, WantedUnit[]>()
  for (const each of wanted) {
    const own = groups.get(each.source)
    if (own === undefined) groups.set(each.source, [each])
    else own.push(each)
  }
  return groups.values()
}
