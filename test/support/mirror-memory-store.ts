import { Failure } from '../../src/base/failure.ts'
import type { ByteRange, ListedObject, ObjectStore } from '../../src/store/object-store.ts'

/** An object store in memory, with the seam's promises; it counts, and its objects can be damaged. */
export class MemoryStore implements ObjectStore {
  readonly objects = new Map<string, Uint8Array>()
  readCount = 0
  readSizeBytes = 0

  create(key: string, body: Uint8Array): Promise<void> {
    if (this.objects.has(key)) return Promise.reject(new Failure('ALREADY_EXISTS', `${key} exists`, { key }))
    this.objects.set(key, Uint8Array.from(body))
    return Promise.resolve()
  }

  readRange(key: string, { startBytes, endBytes }: ByteRange, signal: AbortSignal): Promise<Uint8Array> {
    if (signal.aborted) return Promise.reject(signal.reason as Error)
    const object = this.objects.get(key)
    if (object === undefined) return Promise.reject(new Failure('NOT_FOUND', `no ${key}`, { key }))
    if (startBytes < 0 || startBytes >= endBytes || endBytes > object.length)
      return Promise.reject(new Failure('OBJECT_CORRUPT', `${key} is shorter than ${endBytes}`, { key }))
    this.readCount++
    this.readSizeBytes += endBytes - startBytes
    return Promise.resolve(Uint8Array.from(object.subarray(startBytes, endBytes)))
  }

  async *list(prefix: string, after: string | undefined): AsyncGenerator<ListedObject> {
    for (const key of [...this.objects.keys()].sort()) {
      if (key.startsWith(prefix) && (after === undefined || key > after))
        yield { key, sizeBytes: this.objects.get(key)!.length }
    }
  }

  remove(key: string): Promise<void> {
    this.objects.delete(key)
    return Promise.resolve()
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}
