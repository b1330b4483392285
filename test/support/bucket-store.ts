import { Failure } from '../../src/base/failure.ts'
import type { ByteRange, CreateOptions, ListedObject, ObjectLocks, ObjectStore } from '../../src/store/object-store.ts'
import type { SimulatedBucket } from './s3-sim-bucket.ts'

/** What a simulated bucket holds, past the server and its faults: for a look at what is there, or to work on it without requests. */
export class BucketStore implements ObjectStore {
  readonly #bucket: SimulatedBucket
  readonly locks: ObjectLocks | undefined
  readonly #nowMillis: () => number
  /** How often a lock was extended. */
  extendedCount = 0
  /** What the next extensions fail with. */
  readonly extendFailures: Failure[] = []

  /** With a clock it locks objects by it. */
  constructor(bucket: SimulatedBucket, nowMillis?: () => number) {
    this.#bucket = bucket
    this.#nowMillis = nowMillis ?? (() => 0)
    if (nowMillis !== undefined)
      this.locks = {
        lockedUntilMicros: async key => this.#untilMillis(key) * 1000,
        extend: (key, lockMillis) => this.#extend(key, lockMillis),
      }
  }

  #untilMillis(key: string): number {
    const current = this.#bucket.versions(key).at(-1)
    if (current === undefined || current.isMarker) throw new Failure('NOT_FOUND', `no ${key}`)
    return current.retention?.untilMillis ?? 0
  }

  async #extend(key: string, lockMillis: number): Promise<void> {
    this.extendedCount++
    const failure = this.extendFailures.shift()
    if (failure !== undefined) throw failure
    const untilMillis = this.#nowMillis() + lockMillis
    if (this.#untilMillis(key) < untilMillis) this.#bucket.setRetention(key, { mode: 'COMPLIANCE', untilMillis })
  }

  async create(
    key: string,
    body: Uint8Array,
    _signal?: AbortSignal,
    { lockMillis = 0 }: CreateOptions = {},
  ): Promise<void> {
    const untilMillis = this.#nowMillis() + lockMillis
    const retention =
      lockMillis > 0 && this.locks !== undefined ? ({ mode: 'COMPLIANCE', untilMillis } as const) : undefined
    if (!(await this.#bucket.create(key, Buffer.from(body), retention)))
      throw new Failure('ALREADY_EXISTS', `${key} exists`)
  }

  async readRange(key: string, { startBytes, endBytes }: ByteRange): Promise<Uint8Array> {
    const sizeBytes = this.#bucket.sizeBytes(key)
    if (sizeBytes === undefined) throw new Failure('NOT_FOUND', `no ${key}`)
    if (endBytes > sizeBytes) throw new Failure('OBJECT_CORRUPT', `${key} is shorter than ${endBytes}`)
    return Uint8Array.from(await this.#bucket.read(key, startBytes, endBytes))
  }

  async *list(prefix: string, after: string | undefined): AsyncGenerator<ListedObject> {
    for (const key of this.#bucket.keysAfter(prefix, after ?? '', Infinity))
      yield { key, sizeBytes: this.#bucket.sizeBytes(key) ?? 0 }
  }

  async remove(key: string): Promise<void> {
    await this.#bucket.remove(key)
  }

  async close(): Promise<void> {}
}
