import type { Clock } from '../base/clock.ts'
import type { VpgId } from '../base/ids.ts'
import { peekCommitObject } from '../segment/segment.ts'
import type { ObjectStore } from '../store/object-store.ts'

// What this thread has asked of the store, by VPG and by the form of what was written: who pays for it wants to see it, and what is
// written too often is seen here first. Every attempt counts, as it is billed.

export interface Requests {
  readonly count: number
  readonly sizeBytes: number
}

/** The forms in which something is put; a region version is of the base, whatever follows it. */
export const putForms = ['segments', 'deltas', 'base', 'manifests'] as const
export type PutForm = (typeof putForms)[number]

export interface StoreRequestFacts {
  readonly sinceMicros: number
  readonly puts: Readonly<Record<PutForm, Requests>>
  readonly gets: Requests
  /** Pages of listings, which cost as much as puts do. */
  readonly listCount: number
  /** Guest bytes of the data in the segments put, uncompressed: what all else is measured against. */
  readonly rawSizeBytes: number
}

type Changing = { count: number; sizeBytes: number }

interface Counts {
  readonly sinceMicros: number
  readonly puts: Record<PutForm, Changing>
  readonly gets: Changing
  listCount: number
  rawSizeBytes: number
}

const listPageKeys = 1000

export class StoreRequests {
  readonly #byVpg = new Map<string, Counts>()
  readonly #clock: Clock

  constructor(clock: Clock) {
    this.#clock = clock
  }

  factsOf(vpg: VpgId): StoreRequestFacts {
    return this.#of(vpg)
  }

  addRaw(vpg: VpgId, sizeBytes: number): void {
    this.#of(vpg).rawSizeBytes += sizeBytes
  }

  forget(vpg: VpgId): void {
    this.#byVpg.delete(vpg)
  }

  /** The same store, with what is asked of it counted here. */
  counting(store: ObjectStore): ObjectStore {
    const add = (to: Changing | undefined, sizeBytes: number): void => {
      if (to === undefined) return
      to.count++
      to.sizeBytes += sizeBytes
    }
    const countsOf = (key: string): Counts | undefined => {
      const vpg = vpgOfKey(key)
      return vpg === undefined ? undefined : this.#of(vpg)
    }
    const listed = this.#listed.bind(this)
    return {
      create: (key, body, signal, options) => {
        add(countsOf(key)?.puts[formOf(key, body)], body.length)
        return store.create(key, body, signal, options)
      },
      readRange: (key, range, signal, spare) => {
        add(countsOf(key)?.gets, range.endBytes - range.startBytes)
        return store.readRange(key, range, signal, spare)
      },
      list: (prefix, after, signal) => listed(countsOf(prefix), store.list(prefix, after, signal)),
      remove: (key, signal) => store.remove(key, signal),
      locks: store.locks,
      get loadFacts() {
        return store.loadFacts
      },
      close: () => store.close(),
    }
  }

  async *#listed<T>(counts: Counts | undefined, keys: AsyncIterable<T>): AsyncGenerator<T> {
    let keyCount = 0
    try {
      for await (const key of keys) {
        keyCount++
        yield key
      }
    } finally {
      if (counts !== undefined) counts.listCount += Math.max(1, Math.ceil(keyCount / listPageKeys))
    }
  }

  #of(vpg: string): Counts {
    const known = this.#byVpg.get(vpg)
    if (known !== undefined) return known
    const begun = noCounts(this.#clock.timestampMicros())
    this.#byVpg.set(vpg, begun)
    return begun
  }
}

/** Nothing has been asked of the store. */
export const noStoreRequests: StoreRequestFacts = noCounts(0)

function noCounts(sinceMicros: number): Counts {
  const none = (): Changing => ({ count: 0, sizeBytes: 0 })
  const puts = { segments: none(), deltas: none(), base: none(), manifests: none() }
  return { sinceMicros, puts, gets: none(), listCount: 0, rawSizeBytes: 0 }
}

/** `<vpg>/...`, or the registry's `vpg/<vpg>`. */
export function vpgOfKey(key: string): string | undefined {
  return /^(?:vpg\/)?([0-9a-f]{32})(?:\/|$)/.exec(key)?.[1]
}

function formOf(key: string, body: Uint8Array): PutForm {
  const kind = key.split('/')[1]
  if (kind === 'delta') return 'deltas'
  if (kind === 'base') return 'base'
  if (kind !== 'commit') return 'manifests'
  return peekCommitObject(body) === 'segment' ? 'segments' : 'manifests'
}
