import type { Clock } from '../base/clock.ts'
import type { VpgId } from '../base/ids.ts'
import { ownershipCheckMillis, ownershipCheckMillisRare } from '../base/limits.ts'
import { listTaken } from '../manifest/manifest.ts'
import type { ObjectStore } from '../store/object-store.ts'

// How an appliance that writes nothing hears within ten seconds that a VPG was taken from it, without a listing for each of its VPGs:
//
//   adopter:       announces the takeover below the former owner's name ──> takes over (a commit, as ever)
//   former owner:  lists what is announced below its name, one request for all VPGs ──announced──> lists that VPG's commits as often
//
// The announcement fences nobody: it may be there and the takeover never come. What fences is the commit, as found by the VPG's own listing. A process that
// could not look for a while, because it was stopped or the store did not answer, knows nothing: then every VPG asks for itself.

export class TakeoverWatch {
  readonly #store: ObjectStore
  readonly #clock: Clock
  readonly #applianceId: string
  #announced: ReadonlyMap<VpgId, number> = new Map()
  #lookedAtMillis = -Infinity

  constructor(store: ObjectStore, clock: Clock, applianceId: string) {
    this.#store = store
    this.#clock = clock
    this.#applianceId = applianceId
  }

  /** Looks for what is announced. Fails as the store does. */
  async look(signal: AbortSignal): Promise<void> {
    const startMillis = this.#clock.monotonicMillis()
    this.#announced = await listTaken(this.#store, this.#applianceId, signal)
    this.#lookedAtMillis = startMillis
  }

  /** How long after it was known last that the VPG is ours, in this epoch, that is to be asked again. */
  checkMillis(vpg: VpgId, epoch: number): number {
    const isBlind = this.#clock.monotonicMillis() - this.#lookedAtMillis > 2 * ownershipCheckMillis
    const isAnnounced = (this.#announced.get(vpg) ?? 0) > epoch
    return isBlind || isAnnounced ? ownershipCheckMillis : ownershipCheckMillisRare
  }
}
