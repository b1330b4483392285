import { assert } from '../base/assert.ts'
import { sectorSizeBytes } from '../base/units.ts'
import { Uint32Column } from './columns.ts'
import { Merger, type Fragments } from './merge.ts'
import { extentEntrySizeBytes } from './pack-format.ts'
import { noData, type Bucket, type WriteIndex } from './write-index.ts'

// What survives of the writes, in order of place, cut into packs and partitions. A pack ends only where no fragment crosses, so
// that packs never overlap in range: at the end of a region where that fits, else between units of 512 KiB, and inside of one
// where the retained checkpoints of that one place alone are more than a pack.

export interface PlannedPack {
  readonly volume: number
  /** Half-open, fragments. */
  readonly first: number
  readonly end: number
  readonly rawSizeBytes: number
}

export interface FoldPlanLimits {
  readonly packSizeBytesMax: number
  /** Fragments with data cross no multiple of this. */
  readonly unitSectors: number
}

export class FoldPlan {
  readonly #index: WriteIndex
  readonly #limits: FoldPlanLimits
  readonly #merger = new Merger()
  readonly #piece = new Uint32Column()
  readonly #start = new Uint32Column()
  readonly #length = new Uint32Column()
  readonly #buckets: (Bucket & { readonly firstFragment: number })[] = []
  readonly #packStarts: { volume: number; first: number }[] = []
  #packSizeBytes = 0
  #rawSizeBytes = 0
  #partitionStarts: Uint32Array = new Uint32Array(0)

  constructor(index: WriteIndex, limits: FoldPlanLimits) {
    this.#index = index
    this.#limits = limits
  }

  get rawSizeBytes(): number {
    return this.#rawSizeBytes
  }

  /** Merges the bucket's writes; buckets come in order. */
  addBucket(bucket: Bucket): void {
    const { first, end } = bucket
    const count = end - first
    const ids = this.#index.order.subarray(first, end)
    const pieces = {
      count,
      start: new Uint32Array(count),
      length: new Uint32Array(count),
      group: new Uint16Array(count),
    }
    for (let at = 0; at < count; at++) {
      pieces.start[at] = this.#index.start[ids[at]!]!
      pieces.length[at] = this.#index.length[ids[at]!]!
      pieces.group[at] = this.#index.group[ids[at]!]!
    }
    const fragments = this.#merger.merge(pieces)
    const newVolume = this.#packStarts.at(-1)?.volume !== bucket.volume
    if (newVolume) this.#beginPack(bucket.volume)
    const isZero = (fragment: number): boolean =>
      this.#index.rawOffsetBytes[ids[fragments.piece[fragment]!]!] === noData
    const cuts = this.#cutsOf(fragments, isZero)
    this.#buckets.push({ ...bucket, firstFragment: this.#piece.count })
    if (cuts.length === 0) this.#addAll(fragments, ids)
    else this.#addCut(fragments, ids, cuts, bucket.volume)
  }

  #addAll(fragments: Fragments, ids: Uint32Array): void {
    for (let fragment = 0; fragment < fragments.count; fragment++)
      this.#add(ids[fragments.piece[fragment]!]!, fragments.start[fragment]!, fragments.length[fragment]!)
  }

  #add(piece: number, start: number, length: number): void {
    this.#piece.push(piece)
    this.#start.push(start)
    this.#length.push(length)
    if (this.#index.rawOffsetBytes[piece] !== noData) this.#rawSizeBytes += length * sectorSizeBytes
  }

  /** The same with a new pack at every cut; a fragment that crosses one is divided there. */
  #addCut(fragments: Fragments, ids: Uint32Array, cuts: readonly number[], volume: number): void {
    let fragment = 0
    let carried: Carried[] = []
    for (const cut of [...cuts, Infinity]) {
      const own: Carried[] = carried
      for (; fragment < fragments.count && fragments.start[fragment]! < cut; fragment++) {
        const piece = ids[fragments.piece[fragment]!]!
        own.push({ piece, start: fragments.start[fragment]!, length: fragments.length[fragment]! })
      }
      carried = this.#addUpTo(cut, own)
      if (cut !== Infinity) this.#beginPack(volume)
    }
  }

  /** Adds what lies before the cut, and returns what lies after. */
  #addUpTo(cut: number, fragments: readonly Carried[]): Carried[] {
    const group = ({ piece }: Carried): number => this.#index.group[piece]!
    const after: Carried[] = []
    const sorted = [...fragments].sort((a, b) => a.start - b.start || group(a) - group(b))
    for (const { piece, start, length } of sorted) {
      const own = Math.min(length, cut - start)
      this.#add(piece, start, own)
      if (own < length) after.push({ piece, start: cut, length: length - own })
    }
    return after
  }

  #beginPack(volume: number): void {
    const first = this.#piece.count
    const last = this.#packStarts.at(-1)
    if (last?.first === first) this.#packStarts.pop()
    this.#packStarts.push({ volume, first })
  }

  /** Where, in sectors of the region, packs must end inside of the bucket or before it; accounts for what follows the last cut. */
  #cutsOf(fragments: Fragments, isZero: (fragment: number) => boolean): number[] {
    const { unitSectors, packSizeBytesMax } = this.#limits
    const sizeOf = (fragment: number, from: number, end: number): number => {
      const start = Math.max(from, fragments.start[fragment]!)
      const sectors = Math.min(end, fragments.start[fragment]! + fragments.length[fragment]!) - start
      if (sectors <= 0) return 0
      return extentEntrySizeBytes + (isZero(fragment) ? 0 : sectors * sectorSizeBytes)
    }
    const newPack = this.#packStarts.at(-1)!.first === this.#piece.count
    const cuts: number[] = []
    let packSizeBytes = newPack ? 0 : this.#packSizeBytes
    let total = 0
    for (let fragment = 0; fragment < fragments.count; fragment++) total += sizeOf(fragment, 0, Infinity)
    if (packSizeBytes > 0 && packSizeBytes + total > packSizeBytesMax) {
      cuts.push(0)
      packSizeBytes = 0
    }
    const add = (first: number, after: number, from: number, end: number): void => {
      let sizeBytes = 0
      for (let fragment = first; fragment < after; fragment++) sizeBytes += sizeOf(fragment, from, end)
      if (packSizeBytes + sizeBytes <= packSizeBytesMax) {
        packSizeBytes += sizeBytes
      } else if (sizeBytes <= packSizeBytesMax || end - from <= 1) {
        if (packSizeBytes > 0) cuts.push(from)
        packSizeBytes = sizeBytes
      } else {
        const middle = from + Math.ceil((end - from) / 2)
        add(first, after, from, middle)
        add(first, after, middle, end)
      }
    }
    for (let first = 0; first < fragments.count;) {
      const unit = Math.floor(fragments.start[first]! / unitSectors)
      let after = first
      while (after < fragments.count && Math.floor(fragments.start[after]! / unitSectors) === unit) after++
      add(first, after, unit * unitSectors, (unit + 1) * unitSectors)
      first = after
    }
    this.#packSizeBytes = packSizeBytes
    return cuts
  }

  /** Divides the data into so many partitions of about the same size. */
  partition(count: number): void {
    const starts = new Uint32Column()
    const sizeBytes = this.#rawSizeBytes / count
    let sumBytes = 0
    const { piece, length } = this.fragments()
    starts.push(0)
    for (let fragment = 0; fragment < piece.length; fragment++) {
      if (sumBytes >= starts.count * sizeBytes && starts.count < count) starts.push(fragment)
      if (this.#index.rawOffsetBytes[piece[fragment]!] !== noData) sumBytes += length[fragment]! * sectorSizeBytes
    }
    this.#partitionStarts = starts.values()
  }

  partitionOf(fragment: number): number {
    return lastAtOrBefore(this.#partitionStarts.length, at => this.#partitionStarts[at]!, fragment)
  }

  regionOf(fragment: number): number {
    return this.#buckets[lastAtOrBefore(this.#buckets.length, at => this.#buckets[at]!.firstFragment, fragment)]!.region
  }

  fragments(): Fragments {
    const piece = this.#piece.values()
    return { count: piece.length, piece, start: this.#start.values(), length: this.#length.values() }
  }

  packs(): PlannedPack[] {
    const { piece, length } = this.fragments()
    return this.#packStarts.map(({ volume, first }, index) => {
      const end = this.#packStarts[index + 1]?.first ?? piece.length
      assert(end > first, 'a pack holds something')
      let rawSizeBytes = 0
      for (let fragment = first; fragment < end; fragment++) {
        if (this.#index.rawOffsetBytes[piece[fragment]!] !== noData) rawSizeBytes += length[fragment]! * sectorSizeBytes
      }
      return { volume, first, end, rawSizeBytes }
    })
  }
}

interface Carried {
  readonly piece: number
  readonly start: number
  readonly length: number
}

/** The index of the last of `count` ascending values that is not above. */
function lastAtOrBefore(count: number, valueAt: (index: number) => number, value: number): number {
  let low = 0
  let high = count
  while (low < high) {
    const middle = Math.floor((low + high) / 2)
    if (valueAt(middle) <= value) low = middle + 1
    else high = middle
  }
  assert(low > 0, 'the first value is not above')
  return low - 1
}
