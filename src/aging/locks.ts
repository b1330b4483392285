import { Failure, failedWith } from '../base/failure.ts'
import type { VpgId } from '../base/ids.ts'
import { lockRenewalMillisMin } from '../base/limits.ts'
import { Permits } from '../base/permits.ts'
import { registryKey } from '../manifest/manifest.ts'
import type { ObjectStore } from '../store/object-store.ts'
import { objectKeys } from '../timeline/reach.ts'
import type { LockFacts } from './service.ts'
import { vpgOfKey } from './store-requests.ts'
import type { AgingTools } from './tools.ts'
import type { VpgAging } from './vpg-aging.ts'

// In a store that locks objects, whatever a VPG needs cannot be destroyed for the length of its history from any moment on, whoever asks for it:
//
//   created            locked for the history and two renewals
//   once a renewal     all that the newest manifest needs is locked anew, for as long: most of a disk is written once and needed for ever
//   in the end         the registry object is, too: so its lock says, to whoever starts next, when all of that was done
//
// What left the manifest is removed as everywhere, when its grace is over, and its lock runs out behind the marker that hides it.

/** A renewal costs a request for each object: no more of them than one a day, nor, of a long history, than eight in its length. */
export function renewalMillis(historyMillis: number): number {
  return Math.max(lockRenewalMillisMin, historyMillis / 8)
}

function lockMillisOf(historyMillis: number): number {
  return historyMillis + 2 * renewalMillis(historyMillis)
}

type Locked = Pick<VpgAging, 'vpg' | 'isDeleted' | 'writer'>

/** The store, where it locks objects: whatever is created for a VPG is locked. For one that nobody knows yet it is as for the shortest history. */
export function lockingStore(store: ObjectStore, vpgs: ReadonlyMap<VpgId, Locked>): ObjectStore {
  if (store.locks === undefined) return store
  const lockMillis = (key: string): number => {
    const vpg = vpgOfKey(key)
    const known = vpg === undefined ? undefined : vpgs.get(vpg as VpgId)
    return lockMillisOf(known?.writer.brief.state.definition.historyMillis ?? 0)
  }
  return {
    create: (key, body, signal) => store.create(key, body, signal, { lockMillis: lockMillis(key) }),
    readRange: (key, range, signal, spare) => store.readRange(key, range, signal, spare),
    list: (prefix, after, signal) => store.list(prefix, after, signal),
    remove: (key, signal) => store.remove(key, signal),
    locks: store.locks,
    get loadFacts() {
      return store.loadFacts
    },
    close: () => store.close(),
  }
}

const extendedAtOnce = 8
const keysPerStep = 256
/** While the store does not answer; while it refuses us, which a person has to mend. */
const awayMillis = 15_000
const refusedMillis = 300_000

interface Known {
  /** Until when all that the VPG needs is locked at least; undefined until the store was asked. */
  lockedUntilMicros: number | undefined
  failure: string | undefined
  /** Nothing is tried before. */
  afterMillis: number
  /** Of the renewal under way. */
  renewal: { readonly untilMicros: number; readonly keys: readonly string[]; doneCount: number } | undefined
}

/** Renews the locks of what VPGs need. */
export class Locks {
  readonly #tools: Pick<AgingTools, 'store' | 'clock' | 'turns' | 'notify' | 'signal'>
  readonly #vpgs: ReadonlyMap<VpgId, Locked>
  readonly #isAdopting: boolean
  readonly #known = new Map<VpgId, Known>()

  constructor(tools: AgingTools, vpgs: ReadonlyMap<VpgId, Locked>) {
    this.#tools = tools
    this.#vpgs = vpgs
    this.#isAdopting = tools.config.adopt
  }

  factsOf(vpg: VpgId): LockFacts | undefined {
    const known = this.#known.get(vpg)
    return known && { lockedUntilMicros: known.lockedUntilMicros, failure: known.failure }
  }

  /** Renews some locks of one VPG; false when none is due. */
  async step(): Promise<boolean> {
    for (const vpg of this.#known.keys()) if (!this.#vpgs.has(vpg)) this.#known.delete(vpg)
    for (const vpg of this.#vpgs.values()) {
      const known = this.#knownOf(vpg.vpg)
      if (!this.#isDue(vpg, known)) continue
      await this.#stepOf(vpg, known)
      return true
    }
    return false
  }

  #knownOf(vpg: VpgId): Known {
    const known = this.#known.get(vpg)
    if (known !== undefined) return known
    // Who takes a VPG over does not know how far its former owner came, and begins with all of it.
    const lockedUntilMicros = this.#isAdopting ? 0 : undefined
    const first: Known = { lockedUntilMicros, failure: undefined, afterMillis: 0, renewal: undefined }
    this.#known.set(vpg, first)
    return first
  }

  #isDue({ isDeleted, writer }: Locked, { lockedUntilMicros, afterMillis, renewal }: Known): boolean {
    const { clock } = this.#tools
    if (isDeleted || writer.halted !== undefined || clock.monotonicMillis() < afterMillis) return false
    if (lockedUntilMicros === undefined || renewal !== undefined) return true
    const { historyMillis } = writer.brief.state.definition
    return lockedUntilMicros < clock.timestampMicros() + (historyMillis + renewalMillis(historyMillis)) * 1000
  }

  async #stepOf(vpg: Locked, known: Known): Promise<void> {
    const { clock, signal } = this.#tools
    try {
      if (known.lockedUntilMicros === undefined) known.lockedUntilMicros = await this.#asked(vpg)
      else await this.#renewSome(vpg, known)
      known.failure = undefined
    } catch (error) {
      // Of the store, or of a VPG that cannot be woken, for it is damaged or another's: the others go on.
      if (!(error instanceof Failure) || signal.aborted) throw error
      known.failure = error.message
      known.afterMillis = clock.monotonicMillis() + (error.reaction === 'retry' ? awayMillis : refusedMillis)
    }
  }

  async #asked({ vpg }: Locked): Promise<number> {
    const { store, signal } = this.#tools
    return (await store.locks?.lockedUntilMicros(registryKey(vpg), signal).catch(missingIs(0))) ?? 0
  }

  async #renewSome(vpg: Locked, known: Known): Promise<void> {
    const { clock, turns } = this.#tools
    const lockMillis = lockMillisOf(vpg.writer.brief.state.definition.historyMillis)
    const renewal = (known.renewal ??= {
      untilMicros: clock.timestampMicros() + lockMillis * 1000,
      keys: await neededBy(vpg),
      doneCount: 0,
    })
    const keys = renewal.keys.slice(renewal.doneCount, renewal.doneCount + keysPerStep)
    await turns.yieldNow()
    const permits = new Permits(extendedAtOnce)
    const extended = await Promise.allSettled(keys.map(key => permits.with(() => this.#extend(vpg, key, lockMillis))))
    for (const outcome of extended) if (outcome.status === 'rejected') throw outcome.reason
    renewal.doneCount += keys.length
    if (renewal.doneCount < renewal.keys.length) return
    await this.#extend(vpg, registryKey(vpg.vpg), lockMillis)
    known.lockedUntilMicros = renewal.untilMicros
    known.renewal = undefined
  }

  async #extend(vpg: Locked, key: string, lockMillis: number): Promise<void> {
    const { store, notify, signal } = this.#tools
    const isThere = await store.locks?.extend(key, lockMillis, signal).then(() => true, missingIs(false))
    // It may have left since.
    if (isThere !== false || (key !== registryKey(vpg.vpg) && !(await neededBy(vpg)).includes(key))) return
    notify('damageFound', { vpg: vpg.vpg, sentence: `${key}: it is missing, and its lock was to be renewed` })
  }
}

async function neededBy({ writer }: Locked): Promise<string[]> {
  return await writer.awakeBriefly(async () => [...objectKeys(writer.contents.state), ...writer.commits.manifestKeys()])
}

function missingIs<T>(value: T): (error: unknown) => T {
  return error => {
    if (failedWith(error, 'NOT_FOUND')) return value
    throw error
  }
}
