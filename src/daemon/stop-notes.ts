import type { Aging, AgingHandlers } from '../aging/aging.ts'
import type { Closable } from '../base/shutdown.ts'
import type { VpgId } from '../base/ids.ts'
import type { Catalog } from '../catalog/catalog.ts'
import type { VpgTable } from './vpg-table.ts'

// How a start comes to read nothing of a VPG's history: at a stop aging notes what it has of each VPG, and the index keeps the notes of those of which
// it has all that the notes are about.
//
//   ingest closes ──> aging closes: no commit any more, its last notice has been told ──> notes into the index ──> index closes
//
// A checkpoint comes into the index from ingest, and only then, usually, into the store. What is sealed while ingest is closing may hold one that
// nobody has told the index: that VPG is read at the next start. So is every VPG after an end that is no stop.

export class StopNotes implements Closable {
  readonly #aging: Pick<Aging, 'stop'>
  readonly #catalog: Pick<Catalog, 'keepNotes'>
  readonly #table: VpgTable
  readonly #sealedLate = new Set<VpgId>()
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

  /** The same handlers, heard. */
  watching(handlers: AgingHandlers): AgingHandlers {
    return {
      ...handlers,
      segmentCommitted: notice => {
        if (this.#ingestIsClosing) this.#sealedLate.add(notice.vpg)
        handlers.segmentCommitted?.(notice)
      },
    }
  }

  /** Closes aging, and has the index keep what it noted. */
  async close(): Promise<void> {
    const notes = await this.#aging.stop()
    if (!this.#indexIsWhole) return
    const isKnown = (vpg: VpgId): boolean => {
      const entry = this.#table.get(vpg)
      return entry !== undefined && entry.fenced === undefined && !this.#sealedLate.has(vpg)
    }
    await this.#catalog.keepNotes(notes.filter(({ vpg }) => isKnown(vpg)))
  }
}
