import { sectorSizeBytes } from '../base/units.ts'
import type { Fragments } from './merge.ts'
import { extentEntrySizeBytes } from './pack-format.ts'

// Where packs end. Only where no fragment crosses, so that packs never overlap in range: at the end of a region where that fits, else between units of
// 512 KiB, and inside of one where the retained checkpoints of that one place alone are more than a pack.

export interface PackLimits {
  readonly packSizeBytesMax: number
  /** Fragments with data cross no multiple of this. */
  readonly unitSectors: number
}

/** Decides, region by region in order, where the pack under construction ends. */
export class PackCuts {
  readonly #limits: PackLimits
  #packSizeBytes = 0

  constructor(limits: PackLimits) {
    this.#limits = limits
  }

  /** What follows is another pack's: another volume begins. */
  restart(): void {
    this.#packSizeBytes = 0
  }

  /**
   * Where, in sectors of the region, packs must end inside of these fragments or before them; what follows the last cut is in the pack under
   * construction then.
   */
  of(fragments: Fragments, isZero: (fragment: number) => boolean): number[] {
    const { unitSectors, packSizeBytesMax } = this.#limits
    const sizeOf = (fragment: number, from: number, end: number): number => {
      const start = Math.max(from, fragments.start[fragment]!)
      const sectors = Math.min(end, fragments.start[fragment]! + fragments.length[fragment]!) - start
      if (sectors <= 0) return 0
      return extentEntrySizeBytes + (isZero(fragment) ? 0 : sectors * sectorSizeBytes)
    }
    const cuts: number[] = []
    let packSizeBytes = this.#packSizeBytes
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
}

interface Carried {
  readonly piece: number
  readonly start: number
  readonly length: number
}

/** Gives the fragments by place, then group, and says where a pack ends; a fragment that crosses a cut is divided there. */
export function divideAtCuts(
  fragments: Fragments,
  cuts: readonly number[],
  groupOf: (piece: number) => number,
  to: { readonly add: (piece: number, start: number, length: number) => void; readonly cut: () => void },
): void {
  let fragment = 0
  let carried: Carried[] = []
  for (const cut of [...cuts, Infinity]) {
    const before = carried
    carried = []
    const add = (piece: number, start: number, length: number): void => {
      const own = Math.min(length, cut - start)
      to.add(piece, start, own)
      if (own < length) carried.push({ piece, start: cut, length: length - own })
    }
    const first = fragment
    while (fragment < fragments.count && fragments.start[fragment]! < cut) fragment++
    const pieceOf = (index: number): Carried => ({
      piece: fragments.piece[index]!,
      start: fragments.start[index]!,
      length: fragments.length[index]!,
    })
    if (before.length === 0) {
      for (let index = first; index < fragment; index++)
        add(fragments.piece[index]!, fragments.start[index]!, fragments.length[index]!)
    } else {
      const own = [...before, ...Array.from({ length: fragment - first }, (_, index) => pieceOf(first + index))]
      own.sort((a, b) => a.start - b.start || groupOf(a.piece) - groupOf(b.piece))
      for (const { piece, start, length } of own) add(piece, start, length)
    }
    if (cut !== Infinity) to.cut()
  }
}
