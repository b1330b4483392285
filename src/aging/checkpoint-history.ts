import { ordinal, type Ordinal } from '../base/ids.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { ThinningPoint } from '../timeline/thinning.ts'

/** What aging keeps of every checkpoint that deltas hold: 18 bytes, for there may be half a million. Ascending. */
export class CheckpointHistory {
  #ordinals = new Float64Array(64)
  #historyMillis = new Float64Array(64)
  #includedCount = new Uint16Array(64)
  #count = 0

  add(checkpoints: readonly Checkpoint[]): void {
    const count = this.#count + checkpoints.length
    if (count > this.#ordinals.length) this.#grow(Math.max(count, 2 * this.#ordinals.length))
    for (const checkpoint of checkpoints) {
      const { ordinal: value, historyMillis, includedCount } = pointOf(checkpoint)
      this.#ordinals[this.#count] = value
      this.#historyMillis[this.#count] = historyMillis
      this.#includedCount[this.#count] = includedCount
      this.#count++
    }
  }

  /** Forgets all of them, and gives back their memory. */
  clear(): void {
    this.#ordinals = new Float64Array(64)
    this.#historyMillis = new Float64Array(64)
    this.#includedCount = new Uint16Array(64)
    this.#count = 0
  }

  /** Forgets those that are not retained any more. */
  keep(isRetained: (ordinal: number) => boolean): void {
    let kept = 0
    for (let index = 0; index < this.#count; index++) {
      const value = this.#ordinals[index] ?? 0
      if (!isRetained(value)) continue
      this.#ordinals[kept] = value
      this.#historyMillis[kept] = this.#historyMillis[index] ?? 0
      this.#includedCount[kept] = this.#includedCount[index] ?? 0
      kept++
    }
    this.#count = kept
  }

  points(): ThinningPoint[] {
    return Array.from({ length: this.#count }, (_, index) => this.#at(index))
  }

  /** The oldest for which it is so. */
  find(isSo: (point: ThinningPoint) => boolean): ThinningPoint | undefined {
    for (let index = 0; index < this.#count; index++) if (isSo(this.#at(index))) return this.#at(index)
    return undefined
  }

  /** The newest for which it is so. */
  findLast(isSo: (point: ThinningPoint) => boolean): ThinningPoint | undefined {
    for (let index = this.#count - 1; index >= 0; index--) if (isSo(this.#at(index))) return this.#at(index)
    return undefined
  }

  has(wanted: Ordinal): boolean {
    let [low, high] = [0, this.#count] // They ascend.
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#ordinals[middle] ?? Infinity) < wanted) low = middle + 1
      else high = middle
    }
    return low < this.#count && this.#ordinals[low] === wanted
  }

  #at(index: number): ThinningPoint {
    return {
      ordinal: ordinal(this.#ordinals[index] ?? 0),
      historyMillis: this.#historyMillis[index] ?? 0,
      includedCount: this.#includedCount[index] ?? 0,
    }
  }

  #grow(capacity: number): void {
    const ordinals = new Float64Array(capacity)
    ordinals.set(this.#ordinals)
    const historyMillis = new Float64Array(capacity)
    historyMillis.set(this.#historyMillis)
    const includedCount = new Uint16Array(capacity)
    includedCount.set(this.#includedCount)
    this.#ordinals = ordinals
    this.#historyMillis = historyMillis
    this.#includedCount = includedCount
  }
}

export function pointOf({ ordinal: value, historyMillis, volumes }: Checkpoint): ThinningPoint {
  return { ordinal: value, historyMillis, includedCount: volumes.filter(volume => volume.included).length }
}
