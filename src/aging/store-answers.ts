import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import type { VpgId } from '../base/ids.ts'
import type { ObjectStore } from '../store/object-store.ts'
import { mayPass } from './store-patience.ts'
import { vpgOfKey } from './store-requests.ts'

// Whom the store answers. One that is down fails for everybody, and whoever holds something may as well wait with it in hand; one that throttles or
// refuses what a single VPG asks for (a prefix, a key of KMS) is no reason for the others to wait.

type Operation = 'create' | 'read' | 'list' | 'remove'

interface Answer {
  /** Undefined where it was asked for all. */
  readonly vpg: string | undefined
  readonly atMillis: number
}

export class StoreAnswers {
  readonly #clock: Clock
  /** Newest first: the last answer, and the last to another VPG. */
  readonly #answers = new Map<Operation, readonly Answer[]>()
  /** What a VPG asked for when it got no answer last. */
  readonly #failed = new Map<string, Operation>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** True where others got answers since then (monotonic milliseconds) to the kind of call that failed for this VPG last. */
  answersOthers(vpg: VpgId, sinceMillis: number): boolean {
    const operation = this.#failed.get(vpg)
    const answers = operation === undefined ? undefined : this.#answers.get(operation)
    return answers?.some(answer => answer.vpg !== vpg && answer.atMillis >= sinceMillis) === true
  }

  forget(vpg: VpgId): void {
    this.#failed.delete(vpg)
  }

  /** The same store, with its answers seen here. */
  watching(store: ObjectStore): ObjectStore {
    const watched = async <T>(operation: Operation, key: string, call: Promise<T>): Promise<T> => {
      const vpg = vpgOfKey(key)
      try {
        const result = await call
        this.#answered(operation, vpg)
        return result
      } catch (error) {
        this.#noteFailure(operation, vpg, error)
        throw error
      }
    }
    return {
      create: (key, body, signal, options) => watched('create', key, store.create(key, body, signal, options)),
      readRange: (key, range, signal, spare) => watched('read', key, store.readRange(key, range, signal, spare)),
      list: (prefix, after, signal) => this.#listed(vpgOfKey(prefix), store.list(prefix, after, signal)),
      remove: (key, signal) => watched('remove', key, store.remove(key, signal)),
      locks: store.locks,
      get loadFacts() {
        return store.loadFacts
      },
      close: () => store.close(),
    }
  }

  async *#listed<T>(vpg: string | undefined, keys: AsyncIterable<T>): AsyncGenerator<T> {
    try {
      yield* keys
      this.#answered('list', vpg)
    } catch (error) {
      this.#noteFailure('list', vpg, error)
      throw error
    }
  }

  #answered(operation: Operation, vpg: string | undefined): void {
    const other = this.#answers.get(operation)?.find(answer => answer.vpg !== vpg)
    const newest = { vpg, atMillis: this.#clock.monotonicMillis() }
    this.#answers.set(operation, other === undefined ? [newest] : [newest, other])
  }

  /** That something is not there, or there already, is an answer. */
  #noteFailure(operation: Operation, vpg: string | undefined, error: unknown): void {
    if (!(error instanceof Failure) || error.reaction === 'cancelled') return
    if (!mayPass(error)) this.#answered(operation, vpg)
    else if (vpg !== undefined) this.#failed.set(vpg, operation)
  }
}
