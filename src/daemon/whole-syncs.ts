import type { Aging } from '../aging/aging.ts'
import type { VpgId } from '../base/ids.ts'
import type { WholeSync } from '../timeline/repair.ts'

export type VpgWholeSync = { readonly vpg: VpgId } & WholeSync

export interface WholeSyncsParts {
  /** VPGs that the store has not given since the start: of them nobody can be told. */
  readonly waiting: Pick<ReadonlyMap<VpgId, string>, 'has'>
  readonly aging: Pick<Aging, 'generationOpened' | 'isStoreAway'>
  readonly notNoted: (sync: VpgWholeSync, error: unknown) => void
}

/**
 * Tells aging which volumes are synchronised whole, and from when on: that repairs holes. After a start without the store nobody can be told before
 * that is back, and of a VPG that waits not before the store gives it; the agent, which goes on meanwhile, does not begin again for it, and the hole would stay.
 */
export class WholeSyncs {
  readonly #parts: WholeSyncsParts
  /** Of each stream and list of volumes the newest generation: what that repairs, it repairs of all before. */
  readonly #untold = new Map<string, VpgWholeSync>()
  #isStoreAway: boolean

  constructor(parts: WholeSyncsParts) {
    this.#parts = parts
    this.#isStoreAway = parts.aging.isStoreAway
  }

  begun(sync: VpgWholeSync): void {
    const key = `${sync.vpg}/${sync.stream}/${sync.wholeVolumes.toSorted((a, b) => a - b).join()}`
    if (this.#isStoreAway || this.#parts.waiting.has(sync.vpg)) this.#untold.set(key, sync)
    else this.#tell(sync)
  }

  /** The store is here, and aging has started. */
  storeReturned(): void {
    this.#isStoreAway = false
    this.#tellUntold(({ vpg }) => !this.#parts.waiting.has(vpg))
  }

  /** The VPG waits no more, and aging has it. */
  vpgOpened(vpg: VpgId): void {
    this.#tellUntold(sync => sync.vpg === vpg)
  }

  /** It waits no more, and is not here: nobody is left to be told. */
  vpgGone(vpg: VpgId): void {
    for (const [key, sync] of this.#untold) if (sync.vpg === vpg) this.#untold.delete(key)
  }

  #tellUntold(isOne: (sync: VpgWholeSync) => boolean): void {
    for (const [key, sync] of this.#untold) {
      if (!isOne(sync)) continue
      this.#untold.delete(key)
      this.#tell(sync)
    }
  }

  #tell(sync: VpgWholeSync): void {
    const { aging, notNoted } = this.#parts
    // Where it does not get there, holes stay open until the next synchronisation.
    aging.generationOpened(sync).catch((error: unknown) => notNoted(sync, error))
  }
}
