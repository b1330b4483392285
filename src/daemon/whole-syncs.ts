import type { Aging } from '../aging/aging.ts'
import type { VpgId } from '../base/ids.ts'
import type { WholeSync } from '../timeline/repair.ts'

export type VpgWholeSync = { readonly vpg: VpgId } & WholeSync

export interface WholeSyncsParts {
  readonly aging: Pick<Aging, 'generationOpened' | 'isStoreAway'>
  readonly notNoted: (sync: VpgWholeSync, error: unknown) => void
}

/**
 * Tells aging which volumes are synchronised whole, and from when on: that repairs holes. After a start without the store nobody can be told before
 * that is back; the agent, which goes on meanwhile, does not begin again for it, and the hole would stay.
 */
export class WholeSyncs {
  readonly #parts: WholeSyncsParts
  /** Of each stream and list of volumes the newest generation: what that repairs, it repairs of all before. Undefined once the store is here. */
  #untold: Map<string, VpgWholeSync> | undefined

  constructor(parts: WholeSyncsParts) {
    this.#parts = parts
    if (parts.aging.isStoreAway) this.#untold = new Map()
  }

  begun(sync: VpgWholeSync): void {
    const key = `${sync.vpg}/${sync.stream}/${sync.wholeVolumes.toSorted((a, b) => a - b).join()}`
    if (this.#untold === undefined) this.#tell(sync)
    else this.#untold.set(key, sync)
  }

  /** The store is here, and aging has started. */
  storeReturned(): void {
    const untold = this.#untold?.values() ?? []
    this.#untold = undefined
    for (const sync of untold) this.#tell(sync)
  }

  #tell(sync: VpgWholeSync): void {
    const { aging, notNoted } = this.#parts
    // Where it does not get there, holes stay open until the next synchronisation.
    aging.generationOpened(sync).catch((error: unknown) => notNoted(sync, error))
  }
}
