import type { VpgId } from '../base/ids.ts'

// What ingest needs of the journal: room for a frame, and word that it is durable.

/** Room in the shared pool for one record. Fill `frame` wholly, then append or release the slot; use neither twice. */
export interface Slot {
  /** Exactly the bytes asked for, in memory that the commit thread reads. */
  readonly frame: Uint8Array
}

/** What the record's header says beside what the journal itself knows. */
export interface AppendFields {
  readonly kind: 'batch' | 'marker'
  readonly vpg: VpgId
  readonly stream: number
  readonly epoch: number
  readonly generation: number
  readonly firstSequence: number
  readonly lastSequence: number
  readonly frameCrc32c: number
  readonly timestampMicros: number
  readonly historyMillis: number
}

export interface JournalWriter {
  /** Room for a frame of this size, or undefined while the pool is used up (then see whenRoom). */
  reserve(frameSizeBytes: number): Slot | undefined
  /** Calls back once, in the order of asking, when there may be room for a frame of this size again. */
  whenRoom(frameSizeBytes: number, callback: () => void): void
  /** Gives back a slot that will not be appended. */
  release(slot: Slot): void
  /**
   * Puts the record in the next group. `onDurable` is called after the group's sync, in the order of appends of a stream; by then
   * the slot is given back. It is never called for a record that is not durable. While the journal is full, or its disk
   * fails, records wait: the caller stops acknowledging because nothing calls back.
   */
  append(slot: Slot, fields: AppendFields, onDurable: () => void): void
}
