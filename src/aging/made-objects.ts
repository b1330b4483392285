import { failedWith } from '../base/failure.ts'
import type { VpgId } from '../base/ids.ts'
import { parseCommitKey } from '../segment/segment.ts'
import type { ObjectStore } from '../store/object-store.ts'
import { vpgOfKey } from './store-requests.ts'

// What a process makes of a VPG before the commit that names it: packs, and pages of manifests. A process that is killed leaves such objects behind, so the
// next one looks through the whole manifest and all that the store has of the VPG, for some seconds. That is spared a VPG of which nothing was being made:
//
//   settled, and all that was made is named ──> "all committed" into the VPG's memory, on disk │ before the next object is made ──> taken back, on disk
//
// The memory tells of the commit that was the newest then, and is believed at a start whose store shows just that one as its newest. It is taken back by the
// store that everything of this thread goes through, so nobody can forget to. A disk that does not take that keeps what it has: what is left behind then is
// found when something is due of the VPG, for then it is looked through all the same.

export class MadeObjects {
  readonly #tell: (isAllCommitted: boolean) => void
  /** Not known to be named by a commit. */
  readonly #unnamed = new Set<string>()
  /** Of these, whose creation was not answered: it may take effect after the object was removed. */
  readonly #inDoubt = new Set<string>()
  #isAllCommitted = false

  /** `tell` is called when it changes; on return that is on disk. */
  constructor(tell: (isAllCommitted: boolean) => void) {
    this.#tell = tell
  }

  /** As this process knows; what a former one left is for who looks through the VPG. */
  get isAllCommitted(): boolean {
    return this.#isAllCommitted
  }

  /** A former process has said so, of the commit that is the newest still. */
  believe(): void {
    this.#isAllCommitted = true
  }

  /** Before the object is made. */
  making(key: string): void {
    this.#unnamed.add(key)
    if (!this.#isAllCommitted) return
    this.#isAllCommitted = false
    this.#tell(false)
  }

  notAnswered(key: string): void {
    this.#inDoubt.add(key)
  }

  removed(key: string): void {
    if (!this.#inDoubt.has(key)) this.#unnamed.delete(key)
  }

  /** The VPG was looked through by this process, and nothing is due of it; `known` are the keys that its newest manifest names, garbage included. */
  review(known: () => ReadonlySet<string>): void {
    if (this.#isAllCommitted) return
    const keys = this.#unnamed.size === 0 ? new Set<string>() : known()
    for (const key of this.#unnamed) {
      if (!keys.has(key)) continue
      this.#unnamed.delete(key)
      this.#inDoubt.delete(key)
    }
    if (this.#unnamed.size > 0) return
    this.#isAllCommitted = true
    this.#tell(true)
  }
}

interface Maker {
  readonly writer: { readonly made: MadeObjects }
}

/** The store, where each VPG of these hears of what is made of it. Its commits are found by whoever starts: they are not counted among that. */
export function tellingStore(store: ObjectStore, vpgs: ReadonlyMap<VpgId, Maker>): ObjectStore {
  const madeOf = (key: string): MadeObjects | undefined => {
    const vpg = parseCommitKey(key) === undefined ? vpgOfKey(key) : undefined
    return vpg === undefined ? undefined : vpgs.get(vpg as VpgId)?.writer.made
  }
  return {
    create: async (key, body, signal, options) => {
      const made = madeOf(key)
      made?.making(key)
      try {
        await store.create(key, body, signal, options)
      } catch (error) {
        if (!failedWith(error, 'ALREADY_EXISTS')) made?.notAnswered(key)
        throw error
      }
    },
    readRange: (key, range, signal, spare) => store.readRange(key, range, signal, spare),
    list: (prefix, after, signal) => store.list(prefix, after, signal),
    remove: async (key, signal) => {
      await store.remove(key, signal)
      madeOf(key)?.removed(key)
    },
    locks: store.locks,
    get loadFacts() {
      return store.loadFacts
    },
    close: () => store.close(),
  }
}
