import { ordinal, type Ordinal } from '../base/ids.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { HistoryPoint } from '../timeline/retention.ts'

/** What aging keeps of every checkpoint that deltas hold: 16 bytes, for there may be half a million. Ascending. */
export class CheckpointHistory {
  #ordinals = new Float64Array(64)
  #historyMillis = new Float64Array(64)
  #count = 0

  add(checkpoints: readonly Checkpoint[]): void {
    const count = this.#count + checkpoints.length
    if (count > this.#ordinals.length) {
      this.#ordinals = grown(this.#ordinals, count)
      this.#historyMillis = grown(this.#historyMillis, count)
    }
    for (const checkpoint of checkpoints) {
      this.#ordinals[this.#count] = checkpoint.ordinal
      this.#historyMillis[this.#count] = checkpoint.historyMillis
      this.#count++
    }
  }

  /** Forgets those that are not retained any more. */
  keep(isRetained: (ordinal: number) => boolean): void {
    let kept = 0
    for (let index = 0; index < this.#count; index++) {
      const value = this.#ordinals[index] ?? 0
      if (!isRetained(value)) continue
      this.#ordinals[kept] = value
      this.#historyMillis[kept] = this.#historyMillis[index] ?? 0
      kept++
    }
    this.#count = kept
  }

  ordinals(): number[] {
    return [...this.#ordinals.subarray(0, this.#count)]
  }

  points(): HistoryPoint[] {
    return this.ordinals().map((value, index) => ({
      ordinal: ordinal(value),
      historyMillis: this.#historyMillis[index] ?? 0,
    }))
  }

  /** The oldest for which it is so. */
  find(isSo: (point: HistoryPoint) => boolean): HistoryPoint | undefined {
    for (let index = 0; index < this.#count; index++) if (isSo(this.#at(index))) return this.#at(index)
    return undefined
  }

  /** The newest for which it is so. */
  findLast(isSo: (point: HistoryPoint) => boolean): HistoryPoint | undefined {
    for (let index = this.#count - 1; index >= 0; index--) if (isSo(this.#at(index))) return this.#at(index)
    return undefined
  }

  #at(index: number): HistoryPoint {
    return { ordinal: ordinal(this.#ordinals[index] ?? 0), historyMillis: this.#historyMillis[index] ?? 0 }
  }

  has(wanted: Ordinal): boolean {
    return this.#ordinals.subarray(0, this.#count).includes(wanted)
  }
}

function grown(column: Float64Array, count: number): Float64Array<ArrayBuffer> {
  const roomy = new Float64Array(Math.max(count, 2 * column.length))
  roomy.set(column)
  return roomy
}
