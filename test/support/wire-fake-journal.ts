import { ingestPoolSizeBytes } from '../../src/base/limits.ts'
import type { AppendFields, JournalWriter, Slot } from '../../src/journal/writer.ts'

export interface FakeRecord {
  readonly fields: AppendFields
  readonly frame: Buffer
}

/** A journal in memory. Nothing is durable before the test says so, unless `automatic` is set. */
export class FakeJournal implements JournalWriter {
  /** Every record that is durable, in order. */
  readonly durable: FakeRecord[] = []
  /** Slots that were reserved and neither appended nor released. */
  readonly openSlots = new Set<Slot>()
  automatic: boolean
  poolSizeBytes = ingestPoolSizeBytes
  #usedBytes = 0
  readonly #waiting: { record: FakeRecord; sizeBytes: number; onDurable: () => void }[] = []
  readonly #roomSeekers: (() => void)[] = []

  constructor(options: { readonly automatic: boolean }) {
    this.automatic = options.automatic
  }

  /** Appended, not durable. */
  get waitingCount(): number {
    return this.#waiting.length
  }

  get roomSeekerCount(): number {
    return this.#roomSeekers.length
  }

  reserve(frameSizeBytes: number): Slot | undefined {
    if (this.#usedBytes + frameSizeBytes > this.poolSizeBytes) return undefined
    this.#usedBytes += frameSizeBytes
    const slot = { frame: new Uint8Array(new SharedArrayBuffer(frameSizeBytes)) }
    this.openSlots.add(slot)
    return slot
  }

  whenRoom(_frameSizeBytes: number, callback: () => void): void {
    this.#roomSeekers.push(callback)
  }

  release(slot: Slot): void {
    this.#take(slot)
    this.#giveBack(slot.frame.length)
  }

  append(slot: Slot, fields: AppendFields, onDurable: () => void): void {
    this.#take(slot)
    this.#waiting.push({
      record: { fields, frame: Buffer.from(slot.frame) },
      sizeBytes: slot.frame.length,
      onDurable,
    })
    if (this.automatic) queueMicrotask(() => this.sync(1))
  }

  /** Makes the oldest records durable, as one group. */
  sync(count = Infinity): void {
    const group = this.#waiting.splice(0, count)
    for (const { sizeBytes } of group) this.#giveBack(sizeBytes)
    for (const { record, onDurable } of group) {
      this.durable.push(record)
      onDurable()
    }
  }

  /** Gives the pool another size and wakes who waits for room. */
  resizePool(sizeBytes: number): void {
    this.poolSizeBytes = sizeBytes
    this.#giveBack(0)
  }

  #take(slot: Slot): void {
    if (!this.openSlots.delete(slot)) throw new Error('a slot is appended or released once')
  }

  #giveBack(sizeBytes: number): void {
    this.#usedBytes -= sizeBytes
    for (const callback of this.#roomSeekers.splice(0)) callback()
  }
}
