import { assert } from '../base/assert.ts'
import { frameSizeBytesMax, logRecordHeaderSizeBytes } from '../base/limits.ts'
import { sectorSizeBytes } from '../base/units.ts'
import { recordSizeBytes } from './record.ts'
import type { Slot } from './writer.ts'

/** Room for one record: its header, the frame, and padding, in one piece that can be written as it stands. */
export interface PoolSlot extends Slot {
  readonly record: Uint8Array
  /** Of the record in the pool's memory. */
  readonly offsetBytes: number
}

const granuleSizeBytes = sectorSizeBytes
const none = -1

/**
 * Slots in one block of memory that the commit thread shares. Free runs of granules are kept in lists by their length; the
 * shortest that fits is taken, and what is given back joins its neighbours, so nothing is copied, zeroed or compacted.
 * Whoever finds no room waits in one queue: nobody overtakes, so a large frame is not starved by small ones.
 */
export class SlotPool {
  readonly memory: SharedArrayBuffer
  /** At the first and the last granule of a run: its length, negative while it is taken. */
  readonly #runs: Int32Array
  readonly #next: Int32Array
  readonly #previous: Int32Array
  /** The first free run of each length; the last list is of that length and all above. */
  readonly #lists: Int32Array
  readonly #waiting: { readonly frameSizeBytes: number; readonly callback: () => void }[] = []
  #freeCount = 0
  #serving = false

  constructor(sizeBytes: number) {
    this.memory = new SharedArrayBuffer(sizeBytes)
    const count = sizeBytes / granuleSizeBytes
    assert(Number.isSafeInteger(count) && count > granulesOf(frameSizeBytesMax), 'the pool holds a frame of any size')
    this.#runs = new Int32Array(count)
    this.#next = new Int32Array(count)
    this.#previous = new Int32Array(count)
    this.#lists = new Int32Array(granulesOf(frameSizeBytesMax) + 1).fill(none)
    this.#addRun(0, count)
  }

  freeBytes(): number {
    return this.#freeCount * granuleSizeBytes
  }

  reserve(frameSizeBytes: number): PoolSlot | undefined {
    assert(frameSizeBytes > 0 && frameSizeBytes <= frameSizeBytesMax, `a frame of ${frameSizeBytes} bytes`)
    if (this.#waiting.length > 0 && !this.#serving) return undefined
    const start = this.#take(granulesOf(frameSizeBytes))
    if (start === none) return undefined
    const offsetBytes = start * granuleSizeBytes
    const record = new Uint8Array(this.memory, offsetBytes, recordSizeBytes(frameSizeBytes))
    record.fill(0, logRecordHeaderSizeBytes + frameSizeBytes)
    const frame = record.subarray(logRecordHeaderSizeBytes, logRecordHeaderSizeBytes + frameSizeBytes)
    return { frame, record, offsetBytes }
  }

  /** Calls back once, in the order of asking, when a frame of this size has room; at once where it has it now. */
  whenRoom(frameSizeBytes: number, callback: () => void): void {
    this.#waiting.push({ frameSizeBytes, callback })
    this.serveWaiting()
  }

  /** Gives the slot's memory back; those who wait are called by serveWaiting(). */
  release(slot: PoolSlot): void {
    let start = slot.offsetBytes / granuleSizeBytes
    let count = granulesOf(slot.frame.length)
    assert(this.#runs[start] === -count, 'a slot is given back once')
    const before = start > 0 ? (this.#runs[start - 1] ?? 0) : 0
    if (before > 0) {
      start -= before
      count += before
      this.#removeRun(start)
    }
    const after = this.#runs[start + count] ?? 0
    if (after > 0) {
      this.#removeRun(start + count)
      count += after
    }
    this.#addRun(start, count)
  }

  serveWaiting(): void {
    if (this.#serving) return
    this.#serving = true
    try {
      for (let first = this.#waiting[0]; first !== undefined; first = this.#waiting[0]) {
        if (this.#findRun(granulesOf(first.frameSizeBytes)) === none) return
        this.#waiting.shift()
        first.callback()
      }
    } finally {
      this.#serving = false
    }
  }

  #take(count: number): number {
    const start = this.#findRun(count)
    if (start === none) return none
    const found = this.#runs[start] ?? 0
    this.#removeRun(start)
    if (found > count) this.#addRun(start + count, found - count)
    this.#runs[start] = -count
    this.#runs[start + count - 1] = -count
    return start
  }

  #findRun(count: number): number {
    for (let list = count; list < this.#lists.length; list++) {
      const start = this.#lists[list] ?? none
      if (start !== none) return start
    }
    return none
  }

  #addRun(start: number, count: number): void {
    this.#runs[start] = count
    this.#runs[start + count - 1] = count
    const list = Math.min(count, this.#lists.length - 1)
    const first = this.#lists[list] ?? none
    this.#next[start] = first
    this.#previous[start] = none
    if (first !== none) this.#previous[first] = start
    this.#lists[list] = start
    this.#freeCount += count
  }

  #removeRun(start: number): void {
    const count = this.#runs[start] ?? 0
    const next = this.#next[start] ?? none
    const previous = this.#previous[start] ?? none
    if (next !== none) this.#previous[next] = previous
    if (previous !== none) this.#next[previous] = next
    else this.#lists[Math.min(count, this.#lists.length - 1)] = next
    this.#freeCount -= count
  }
}

function granulesOf(frameSizeBytes: number): number {
  return Math.ceil(recordSizeBytes(frameSizeBytes) / granuleSizeBytes)
}
