import type { Clock } from '../base/clock.ts'
import type { VpgId } from '../base/ids.ts'
import { listVpgs } from '../manifest/manifest.ts'
import type { ObjectStore } from '../store/object-store.ts'
import type { LogFiles } from './log-files.ts'

// Records in the log of a VPG that the store does not know. They may be all that is left of it, so they are kept, and their files
// with them, until it is certain that the VPG is gone. A store that does not answer says nothing, nor does one that is empty: it may be
// a directory that is not mounted, or another bucket. One that lists a VPG of ours is ours: what it does not list, registry object,
// commits and all, was deleted, or lost with it. Twice, a grace period apart, so that who has put back an older copy of the store has
// the time to notice.

export interface StrangersOptions {
  readonly store: ObjectStore
  readonly clock: Clock
  readonly logFiles: LogFiles
  readonly graceMillis: number
}

export class Strangers {
  readonly #options: StrangersOptions
  readonly #filesOf = new Map<VpgId, Set<number>>()
  readonly #gone = new Set<VpgId>()
  readonly #absentSinceMillis = new Map<VpgId, number>()
  #lookedAtMillis = -Infinity

  constructor(options: StrangersOptions) {
    this.#options = options
  }

  /** Keeps the file that a record of this VPG is in. True where it is the first that is met. */
  meet(vpg: VpgId, fileIdentity: number): boolean {
    if (this.#gone.has(vpg)) return false
    const files = this.#filesOf.get(vpg)
    if (files?.has(fileIdentity) === true) return false
    this.#options.logFiles.hold(fileIdentity)
    if (files === undefined) this.#filesOf.set(vpg, new Set([fileIdentity]))
    else files.add(fileIdentity)
    return files === undefined
  }

  /** True where the log was found to have records of it. */
  knows(vpg: VpgId): boolean {
    return this.#filesOf.has(vpg)
  }

  /** It is none any more: who has taken its records keeps their files. With `beforeFile` that is so of files below it. */
  release(vpg: VpgId, beforeFile = Infinity): void {
    const files = this.#filesOf.get(vpg) ?? new Set()
    if (beforeFile === Infinity) {
      this.#filesOf.delete(vpg)
      this.#absentSinceMillis.delete(vpg)
    }
    for (const file of [...files]) {
      if (file >= beforeFile) continue
      files.delete(file)
      this.#options.logFiles.release(file)
    }
  }

  /**
   * Looks, if it is time to, and gives back the log files of those that are certainly gone; returns them. `ours` are VPGs that the
   * store had when they were opened. Fails as the store does; nothing is concluded then.
   */
  async forgetGone(ours: Iterable<VpgId>, signal: AbortSignal): Promise<VpgId[]> {
    const { clock, graceMillis } = this.#options
    const nowMillis = clock.monotonicMillis()
    if (this.#filesOf.size === 0 || nowMillis - this.#lookedAtMillis < graceMillis) return []
    this.#lookedAtMillis = nowMillis
    const absent = await this.#absent(new Set(ours), signal)
    for (const vpg of this.#absentSinceMillis.keys()) if (!absent.has(vpg)) this.#absentSinceMillis.delete(vpg)
    const gone: VpgId[] = []
    for (const vpg of absent) {
      const sinceMillis = this.#absentSinceMillis.get(vpg)
      if (sinceMillis === undefined) this.#absentSinceMillis.set(vpg, nowMillis)
      else if (nowMillis - sinceMillis >= graceMillis) gone.push(vpg)
    }
    for (const vpg of gone) this.#forget(vpg)
    return gone
  }

  /** Those of which the store has nothing; none where it does not show that it is ours. */
  async #absent(ours: ReadonlySet<VpgId>, signal: AbortSignal): Promise<ReadonlySet<VpgId>> {
    const listed = new Set(await listVpgs(this.#options.store, signal))
    const absent = new Set<VpgId>()
    if (![...ours].some(vpg => listed.has(vpg))) return absent
    for (const vpg of this.#filesOf.keys())
      if (!listed.has(vpg) && !(await this.#hasObjects(vpg, signal))) absent.add(vpg)
    return absent
  }

  async #hasObjects(vpg: VpgId, signal: AbortSignal): Promise<boolean> {
    for await (const object of this.#options.store.list(`${vpg}/`, undefined, signal))
      if (object.key !== '') return true
    return false
  }

  #forget(vpg: VpgId): void {
    this.#gone.add(vpg)
    this.release(vpg)
  }
}
