import type { Aging, AgingHandlers } from '../aging/aging.ts'
import type { StopNote } from '../aging/service.ts'
import type { Closable } from '../base/shutdown.ts'
import type { VpgId } from '../base/ids.ts'
import type { Catalog } from '../catalog/catalog.ts'
import type { VpgTable } from './vpg-table.ts'

// How a start comes to read nothing of a VPG's history: aging notes what it has of each VPG, when that has changed and at a stop, and the index keeps the
// notes of those of which it has all that the notes are about.
//
//   commit N counts ──> its notices: rows of the index change ──> note "as of N" into the index, in their order
//   next start: is N, with its nonce, in the store, and are only segments behind it? ──yes──> these are read, nothing else ──no──> all is read
//
// A note that is behind the index is as good as a newer one: what came between is in the store, and is read again, or has all read again. One that is ahead
// of it would be a lie, and is what must not be: hence the order, and none after a change that failed.
//
// A checkpoint comes into the index from ingest, and only then, usually, into the store. What is sealed while ingest is closing may hold one that
// nobody has told the index: nothing is noted of that VPG any more. And of a VPG that the store gives late, rows are added beside serving: what is noted
// meanwhile is held back until they are there.

export class StopNotes implements Closable {
  readonly #aging: Pick<Aging, 'stop'>
  readonly #catalog: Pick<Catalog, 'keepNotes'>
  readonly #table: VpgTable
  readonly #sealedLate = new Set<VpgId>()
  readonly #waiting = new Map<VpgId, StopNote>()
  /** Of VPGs that are being indexed. */
  readonly #heldBack = new Map<VpgId, StopNote>()
  #notKept: (error: unknown) => void = () => undefined
  #keeping: Promise<void> | undefined
  #indexIsWhole = false
  #ingestIsClosing = false

  constructor(parts: {
    readonly aging: Pick<Aging, 'stop'>
    readonly catalog: Pick<Catalog, 'keepNotes'>
    readonly table: VpgTable
  }) {
    this.#aging = parts.aging
    this.#catalog = parts.catalog
    this.#table = parts.table
  }

  /** From now on the index has all that the store and the log say, as far as it is told what changes. */
  indexIsWhole(): void {
    this.#indexIsWhole = true
  }

  /** Before it does. */
  ingestIsClosing(): void {
    this.#ingestIsClosing = true
  }

  /** The same handlers, heard; `notKept` is told why, where the index does not take a note. */
  watching(handlers: AgingHandlers, notKept: (error: unknown) => void): AgingHandlers {
    this.#notKept = notKept
    return {
      ...handlers,
      segmentCommitted: notice => {
        if (this.#ingestIsClosing) this.#sealedLate.add(notice.vpg)
        handlers.segmentCommitted?.(notice)
      },
      noted: note => {
        if (this.#table.get(note.vpg)?.isBeingIndexed === true) this.#heldBack.set(note.vpg, note)
        else this.#keep(note)
      },
    }
  }

  /** What the store said of the VPG, late, is in the index. */
  indexed(vpg: VpgId): void {
    const note = this.#heldBack.get(vpg)
    this.#heldBack.delete(vpg)
    if (note !== undefined) this.#keep(note)
  }

  /** Closes aging, and has the index keep what it noted. */
  async close(): Promise<void> {
    const notes = await this.#aging.stop()
    this.#waiting.clear()
    this.#heldBack.clear()
    await this.#keeping
    const kept = notes.filter(note => this.#isTrue(note))
    if (kept.length > 0) await this.#catalog.keepNotes(kept)
  }

  #keep(note: StopNote): void {
    if (!this.#isTrue(note)) return
    this.#waiting.set(note.vpg, note)
    this.#keeping ??= this.#keepWaiting().catch(this.#notKept)
  }

  async #keepWaiting(): Promise<void> {
    try {
      while (this.#waiting.size > 0) {
        const notes = [...this.#waiting.values()]
        this.#waiting.clear()
        await this.#catalog.keepNotes(notes)
      }
    } finally {
      this.#keeping = undefined
    }
  }

  #isTrue({ vpg }: StopNote): boolean {
    const entry = this.#table.get(vpg)
    if (!this.#indexIsWhole || entry === undefined || this.#sealedLate.has(vpg)) return false
    const isWhole = entry.unreadThrough === undefined && entry.rememberedBecause === undefined && !entry.isBeingIndexed
    return entry.fenced === undefined && isWhole
  }
}
