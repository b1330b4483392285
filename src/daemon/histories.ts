import type { Aging } from '../aging/aging.ts'
import type { AgingNotices } from '../aging/service.ts'
import type { VpgId } from '../base/ids.ts'
import type { Catalog } from '../catalog/catalog.ts'
import { decodeCheckpoints } from '../manifest/checkpoint-page.ts'
import type { VpgEntry, VpgTable } from './vpg-table.ts'

// How the index comes to have VPGs whose manifests a start has not read: an adoption, a lost index. They are served from the first moment on, the newest
// checkpoints are there, and aging reads the others' one VPG after the other; whoever asks for those of one VPG has it read next.
//
//   start: root ──> served, newest checkpoint │ later: manifest ──historyRead──> all its rows in one step │ rows of what changes since, in their order
//
// Until then nothing leaves the VPG's history, so all that the index has of it beyond the checkpoint that was the newest at the start came since.

export class Histories {
  readonly #aging: Pick<Aging, 'readHistory'>
  readonly #catalog: Pick<Catalog, 'loadVpg'>
  readonly #table: VpgTable
  readonly #loads = new Map<VpgId, Promise<void>>()

  constructor(parts: {
    readonly aging: Pick<Aging, 'readHistory'>
    readonly catalog: Pick<Catalog, 'loadVpg'>
    readonly table: VpgTable
  }) {
    this.#aging = parts.aging
    this.#catalog = parts.catalog
    this.#table = parts.table
  }

  /** Has the index take what was read. Rejects where it does not. */
  async read({ vpg, segments, checkpointPage, offloaded }: AgingNotices['historyRead']): Promise<void> {
    const entry = this.#table.get(vpg)
    const keepAbove = entry?.unreadThrough
    if (entry === undefined || keepAbove === undefined) return
    entry.unreadThrough = undefined
    const checkpoints = decodeCheckpoints('the aging thread’s answer', checkpointPage)
    const load = this.#catalog.loadVpg({ vpg, segments, checkpoints, offloaded, keepAbove })
    this.#loads.set(vpg, load)
    await load
    this.#loads.delete(vpg)
  }

  /** On return the index has all checkpoints of the VPG. Fails as the store does, or the index. */
  async untilIndexed({ definition, unreadThrough }: VpgEntry): Promise<void> {
    const vpg = definition.id
    if (unreadThrough !== undefined) await this.#aging.readHistory({ vpg })
    await this.#loads.get(vpg)
  }
}
