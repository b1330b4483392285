import type { Clock } from '../base/clock.ts'
import type { VpgId } from '../base/ids.ts'
import { ownershipCheckMillis, ownershipCheckMillisRare } from '../base/limits.ts'
import { listNews } from '../manifest/manifest.ts'
import type { ObjectStore } from '../store/object-store.ts'
import type { Tenure } from './tenure.ts'

// How an appliance that writes nothing hears within ten seconds that a VPG was taken from it, without a listing for each of its VPGs:
//
//   adopter:       announces the takeover below the former owner's name ──> takes over (a commit, as ever)
//   former owner:  lists what is announced below its name, one request for all VPGs ──announced──> lists that VPG's commits as often
//
// The announcement fences nobody: it may be there and the takeover never come. What fences is the commit, as found by the VPG's own listing. A process that
// could not look for a while, because it was stopped or the store did not answer, knows nothing: then every VPG asks for itself. So it does while another process
// of this appliance's id may be running, which the same listing shows: see tenure.ts.

export class TakeoverWatch {
  readonly #store: ObjectStore
  readonly #clock: Clock
  readonly #applianceId: string
  readonly #tenure: Tenure
  #announced: ReadonlyMap<VpgId, number> = new Map()
  #lookedAtMillis = -Infinity

  constructor(store: ObjectStore, clock: Clock, applianceId: string, tenure: Tenure) {
    this.#store = store
    this.#clock = clock
    this.#applianceId = applianceId
    this.#tenure = tenure
  }

  /** Looks for what is announced, and acts on what concerns the tenure. Fails as the store does. */
  async look(signal: AbortSignal): Promise<void> {
    const startMillis = this.#clock.monotonicMillis()
    const news = await listNews(this.#store, this.#applianceId, signal)
    this.#announced = news.taken
    this.#lookedAtMillis = startMillis
    await this.#tenure.see(news, signal)
  }

  /** How long after it was known last that the VPG is ours, in this epoch, that is to be asked again. */
  checkMillis(vpg: VpgId, epoch: number): number {
    const isBlind = this.#clock.monotonicMillis() - this.#lookedAtMillis > 2 * ownershipCheckMillis
    const isAnnounced = (this.#announced.get(vpg) ?? 0) > epoch
    return isBlind || isAnnounced || this.#tenure.isContested ? ownershipCheckMillis : ownershipCheckMillisRare
  }
}
