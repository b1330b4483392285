import { logGroupTurnBytes } from '../base/limits.ts'

interface Item {
  readonly streamKey: string
  readonly sizeBytes: number
}

interface StreamQueue<T> {
  readonly items: T[]
  /** What it may still put in before the next stream's turn. */
  allowanceBytes: number
}

/**
 * Records that wait for the next group. Streams take turns of equal bytes, so one that sends much delays the others by
 * turns, not by its backlog; inside a stream the order is kept.
 */
export class GroupQueue<T extends Item> {
  readonly #groupSizeBytesMax: number
  /** In the order of their turns; a stream without items has none. */
  #turns: string[] = []
  readonly #streams = new Map<string, StreamQueue<T>>()
  #count = 0
  #sizeBytes = 0

  constructor(groupSizeBytesMax: number) {
    this.#groupSizeBytesMax = groupSizeBytesMax
  }

  get count(): number {
    return this.#count
  }

  get sizeBytes(): number {
    return this.#sizeBytes
  }

  add(item: T): void {
    const queue = this.#streams.get(item.streamKey)
    if (queue === undefined) {
      this.#streams.set(item.streamKey, { items: [item], allowanceBytes: 0 })
      this.#turns.push(item.streamKey)
    } else queue.items.push(item)
    this.#count++
    this.#sizeBytes += item.sizeBytes
  }

  /** The next group; empty when nothing waits. */
  takeGroup(): T[] {
    const group: T[] = []
    let sizeBytes = 0
    while (this.#turns.length > 0) {
      const later: string[] = []
      for (const [turn, streamKey] of this.#turns.entries()) {
        const queue = this.#streams.get(streamKey)
        if (queue === undefined) continue
        queue.allowanceBytes += logGroupTurnBytes
        let taken = 0
        for (const item of queue.items) {
          if (item.sizeBytes > queue.allowanceBytes) break
          if (sizeBytes + item.sizeBytes > this.#groupSizeBytesMax) {
            queue.items.splice(0, taken)
            queue.allowanceBytes -= logGroupTurnBytes // its turn was cut short: it comes first in the next group
            this.#turns = [...this.#turns.slice(turn), ...later]
            return this.#took(group, sizeBytes)
          }
          queue.allowanceBytes -= item.sizeBytes
          sizeBytes += item.sizeBytes
          group.push(item)
          taken++
        }
        queue.items.splice(0, taken)
        if (queue.items.length > 0) later.push(streamKey)
        else this.#streams.delete(streamKey)
      }
      this.#turns = later
    }
    return this.#took(group, sizeBytes)
  }

  #took(group: T[], sizeBytes: number): T[] {
    this.#count -= group.length
    this.#sizeBytes -= sizeBytes
    return group
  }
}
