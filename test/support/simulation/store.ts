import { Failure } from '../../../src/base/failure.ts'
import type { ByteRange, ListedObject, ObjectStore } from '../../../src/store/object-store.ts'
import type { Life, World } from './world.ts'

/**
 * The object store, which outlives the processes that use it. A request has its effect at one moment and its answer at a later one; either
 * may fail to come: the request is lost, or only its answer. What a killed process has asked for may still take effect.
 */
export class SimulatedStore {
  /** Nobody is answered; some of what is asked for takes effect. */
  isDown = false
  /** So many requests fail, as by 503 SlowDown. */
  failureShare = 0
  delayMillisMax = 20
  readonly #world: World
  readonly #objects = new Map<string, Uint8Array>()
  /** Who asks now: what a dead process has asked for takes effect until the next one is there. */
  #newest: Life | undefined

  constructor(world: World) {
    this.#world = world
  }

  of(life: Life): ObjectStore {
    this.#newest = life
    return {
      create: (key, body) => {
        const copy = body.slice()
        return this.#ask(life, 'create', () => {
          if (this.#objects.has(key)) throw new Failure('ALREADY_EXISTS', `${key} exists`)
          this.#objects.set(key, copy)
        })
      },
      readRange: (key, range) => this.#ask(life, 'read', () => this.#read(key, range)),
      list: (prefix, after) => this.#list(life, prefix, after),
      remove: key => this.#ask(life, 'remove', () => void this.#objects.delete(key)),
      close: () => Promise.resolve(),
    }
  }

  #read(key: string, { startBytes, endBytes }: ByteRange): Uint8Array {
    const body = this.#objects.get(key)
    if (body === undefined) throw new Failure('NOT_FOUND', `${key} is missing`)
    if (startBytes < 0 || endBytes > body.length)
      throw new Failure('OBJECT_CORRUPT', `${key} ends at byte ${body.length}, before ${endBytes}`)
    return body.slice(startBytes, endBytes)
  }

  async *#list(life: Life, prefix: string, after: string | undefined): AsyncIterable<ListedObject> {
    yield* await this.#ask(life, 'list', () =>
      [...this.#objects]
        .filter(([key]) => key.startsWith(prefix) && (after === undefined || key > after))
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([key, body]) => ({ key, sizeBytes: body.length })),
    )
  }

  /** Never answers a process that is dead by then. */
  #ask<T>(life: Life, what: string, act: () => T): Promise<T> {
    const world = this.#world
    const isLost = this.isDown || (this.failureShare > 0 && world.random.chance(this.failureShare))
    const hasEffect = !isLost || world.random.chance(0.5)
    const effectMillis = world.delay(0.1, this.delayMillisMax)
    return new Promise((resolve, reject) => {
      let result: { readonly value: T } | { readonly error: unknown } | undefined
      world.after(effectMillis, () => {
        if (!hasEffect || (this.#newest !== life && !life.isAlive)) return
        if (!life.isAlive && (what === 'create' || what === 'remove'))
          world.count(`a store's ${what} of a dead process takes effect`)
        try {
          result = { value: act() }
        } catch (error) {
          result = { error }
        }
      })
      life.after(effectMillis + world.delay(0.1, isLost ? 2_000 : this.delayMillisMax), () => {
        if (isLost) {
          world.count(`a store's ${what} fails${result === undefined ? '' : ', with its effect'}`)
          reject(new Failure('STORE_UNAVAILABLE', `the store does not answer (${what})`))
        } else if (result === undefined) reject(new Failure('STORE_UNAVAILABLE', 'the request was overtaken'))
        else if ('error' in result) reject(result.error as Error)
        else resolve(result.value)
      })
    })
  }
}
