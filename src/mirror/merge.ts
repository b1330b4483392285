import { grownUint32, roundUpCapacity } from './columns.ts'
import { radixOrder } from './radix.ts'

// The one merge: which byte of which write is what a place holds. Folding segments into a delta, rewriting a region of the base and
// resolving an image are this function with different inputs.
//
// Pieces are given oldest first, so a piece's number is its age; a later piece hides an earlier one where they overlap,
// by sectors, however they overlap. With groups (the retained checkpoints of a delta) a piece hides only those of its own group. The
// answer is the visible fragments, sorted by start, then group.
//
// Pieces are sorted by start; then most stand alone, or are whole overwrites of one place, and are answered at once. Only a
// cluster of pieces that overlap otherwise is swept: from left to right with a heap of the pieces under the sweep, whose
// top, the newest, is what is seen.

/** Columns of fragments; valid until the next merge. */
export interface Fragments {
  readonly count: number
  /** The number of the piece that it is a part of. */
  readonly piece: Uint32Array
  readonly start: Uint32Array
  readonly length: Uint32Array
}

export interface Pieces {
  readonly count: number
  readonly start: Uint32Array
  readonly length: Uint32Array
  /** Undefined: all in one group. */
  readonly group: Uint16Array | undefined
}

/** Its buffers are used again: one merger serves one merge at a time. */
export class Merger {
  #order = new Uint32Array(0)
  #spare = new Uint32Array(0)
  #heap = new Uint32Array(0)
  #heapCount = 0
  #piece = new Uint32Array(64)
  #start = new Uint32Array(64)
  #length = new Uint32Array(64)
  #count = 0

  merge(pieces: Pieces): Fragments {
    if (this.#order.length < pieces.count) {
      const capacity = roundUpCapacity(pieces.count)
      this.#order = new Uint32Array(capacity)
      this.#spare = new Uint32Array(capacity)
      this.#heap = new Uint32Array(capacity)
    }
    this.#count = 0
    const { start, length, count } = pieces
    const order = radixOrder(start, count, this.#order, this.#spare)
    for (let first = 0; first < count;) {
      const firstStart = start[order[first]!]!
      const firstLength = length[order[first]!]!
      let end = firstStart + firstLength
      let alike = true
      let after = first + 1
      for (; after < count; after++) {
        const id = order[after]!
        if (start[id]! >= end) break
        alike &&= start[id] === firstStart && length[id] === firstLength
        end = Math.max(end, start[id]! + length[id]!)
      }
      if (!alike || !this.#emitAlike(pieces, order, first, after))
        this.#emitCluster(pieces, order.subarray(first, after))
      first = after
    }
    return { count: this.#count, piece: this.#piece, start: this.#start, length: this.#length }
  }

  /** Pieces of one and the same place: the newest of each group. False, and nothing emitted, when groups are not in order of age. */
  #emitAlike(pieces: Pieces, order: Uint32Array, first: number, after: number): boolean {
    const { group, start, length } = pieces
    const countBefore = this.#count
    for (let index = first; index < after; index++) {
      const id = order[index]!
      const next = index + 1 < after ? order[index + 1]! : undefined
      if (next !== undefined) {
        const [own, nextOwn] = group === undefined ? [0, 0] : [group[id]!, group[next]!]
        if (own === nextOwn) continue
        if (own > nextOwn) {
          this.#count = countBefore
          return false
        }
      }
      this.#emit(id, start[id]!, length[id]!)
    }
    return true
  }

  #emitCluster(pieces: Pieces, ids: Uint32Array): void {
    const { group } = pieces
    if (group === undefined) {
      this.#sweep(pieces, ids)
      return
    }
    const first = this.#count
    const groups = Uint32Array.from(ids, id => group[id]!)
    const byGroup = radixOrder(groups, ids.length, new Uint32Array(ids.length), new Uint32Array(ids.length)).map(
      index => ids[index]!,
    )
    for (let from = 0; from < byGroup.length;) {
      let after = from + 1
      while (after < byGroup.length && group[byGroup[after]!] === group[byGroup[from]!]) after++
      this.#sweep(pieces, byGroup.subarray(from, after))
      from = after
    }
    this.#sortFrom(first)
  }

  /** Emits what is seen of the pieces, which are sorted by start. */
  #sweep({ start, length }: Pieces, ids: Uint32Array): void {
    let seen = -1
    let seenStart = 0
    let at = 0
    this.#heapCount = 0
    for (let next = 0; next < ids.length || this.#heapCount > 0;) {
      if (this.#heapCount === 0) at = start[ids[next]!]!
      while (next < ids.length && start[ids[next]!]! <= at) this.#push(ids[next++]!)
      while (this.#heapCount > 0 && start[this.#heap[0]!]! + length[this.#heap[0]!]! <= at) this.#pop()
      const top = this.#heapCount > 0 ? this.#heap[0]! : -1
      if (top !== seen) {
        if (seen >= 0) this.#emit(seen, seenStart, at - seenStart)
        seen = top
        seenStart = at
      }
      if (top < 0) continue
      const end = start[top]! + length[top]!
      at = next < ids.length ? Math.min(end, start[ids[next]!]!) : end
    }
    if (seen >= 0) this.#emit(seen, seenStart, at - seenStart)
  }

  #emit(piece: number, start: number, length: number): void {
    if (this.#count === this.#piece.length) {
      const capacity = 2 * this.#count
      this.#piece = grownUint32(this.#piece, capacity)
      this.#start = grownUint32(this.#start, capacity)
      this.#length = grownUint32(this.#length, capacity)
    }
    this.#piece[this.#count] = piece
    this.#start[this.#count] = start
    this.#length[this.#count++] = length
  }

  /** Sorts the fragments from `first` on by start, then group; they come by group, then start. */
  #sortFrom(first: number): void {
    const piece = this.#piece.slice(first, this.#count)
    const start = this.#start.slice(first, this.#count)
    const length = this.#length.slice(first, this.#count)
    const order = radixOrder(start, start.length, new Uint32Array(start.length), new Uint32Array(start.length))
    order.forEach((from, index) => {
      this.#piece[first + index] = piece[from]!
      this.#start[first + index] = start[from]!
      this.#length[first + index] = length[from]!
    })
  }

  #push(id: number): void {
    const heap = this.#heap
    let hole = this.#heapCount++
    while (hole > 0) {
      const parent = Math.floor((hole - 1) / 2)
      if (heap[parent]! >= id) break
      heap[hole] = heap[parent]!
      hole = parent
    }
    heap[hole] = id
  }

  #pop(): void {
    const heap = this.#heap
    const id = heap[--this.#heapCount]!
    let hole = 0
    for (;;) {
      let child = 2 * hole + 1
      if (child >= this.#heapCount) break
      if (child + 1 < this.#heapCount && heap[child + 1]! > heap[child]!) child++
      if (heap[child]! <= id) break
      heap[hole] = heap[child]!
      hole = child
    }
    heap[hole] = id
  }
}
