import { Failure } from '../../src/base/failure.ts'
import type { ByteRange, ListedObject, ObjectStore } from '../../src/store/object-store.ts'
import type { SimulatedBucket } from './s3-sim-bucket.ts'

/** What a simulated bucket holds, past the server and its faults: for a look at what is there. */
export class BucketStore implements ObjectStore {
  readonly #bucket: SimulatedBucket

  constructor(bucket: SimulatedBucket) {
    this.#bucket = bucket
  }

  async create(key: string, body: Uint8Array): Promise<void> {
    if (!(await this.#bucket.create(key, Buffer.from(body)))) throw new Failure('ALREADY_EXISTS', `${key} exists`)
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
