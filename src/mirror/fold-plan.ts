import { assert } from '../base/assert.ts'
import { sectorSizeBytes } from '../base/units.ts'
import { Uint32Column } from './columns.ts'
import { Merger, type Fragments } from './merge.ts'
import { divideAtCuts, PackCuts, type PackLimits } from './pack-cuts.ts'
import { noData, type Bucket, type WriteIndex } from './write-index.ts'

// What survives of the writes, in order of place, cut into packs (pack-cuts.ts) and partitions.

export interface PlannedPack {
  readonly volume: number
  /** Half-open, fragments. */
  readonly first: number
  readonly end: number
  readonly rawSizeBytes: number
}

export class FoldPlan {
  readonly #index: WriteIndex
  readonly #cuts: PackCuts
  readonly #merger = new Merger()
  readonly #piece = new Uint32Column()
  readonly #start = new Uint32Column()
  readonly #length = new Uint32Column()
  readonly #buckets: (Bucket & { readonly firstFragment: number })[] = []
  readonly #packStarts: { volume: number; first: number }[] = []
  #rawSizeBytes = 0
  #partitionStarts: Uint32Array = new Uint32Array(0)

  constructor(index: WriteIndex, limits: PackLimits) {
    this.#index = index
    this.#cuts = new PackCuts(limits)
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
    if (newVolume) {
      this.#beginPack(bucket.volume)
      this.#cuts.restart()
    }
    const isZero = (fragment: number): boolean =>
      this.#index.rawOffsetBytes[ids[fragments.piece[fragment]!]!] === noData
    const cuts = this.#cuts.of(fragments, isZero)
    this.#buckets.push({ ...bucket, firstFragment: this.#piece.count })
    if (cuts.length === 0) this.#addAll(fragments, ids)
    else {
      divideAtCuts(fragments, cuts, piece => this.#index.group[ids[piece]!]!, {
        add: (piece, start, length) => this.#add(ids[piece]!, start, length),
        cut: () => this.#beginPack(bucket.volume),
      })
    }
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

  #beginPack(volume: number): void {
    const first = this.#piece.count
    const last = this.#packStarts.at(-1)
    if (last?.first === first) this.#packStarts.pop()
    this.#packStarts.push({ volume, first })
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
