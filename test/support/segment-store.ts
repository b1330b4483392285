import { Failure } from '../../src/base/failure.ts'
import type { ByteRange, ListedObject, ObjectStore } from '../../src/store/object-store.ts'

/** Objects in memory, which a test may damage; counts and measures the ranges that are read. */
export class MemoryStore implements ObjectStore {
  readonly objects = new Map<string, Uint8Array>()
  readonly reads: ByteRange[] = []

  async create(key: string, body: Uint8Array): Promise<void> {
    if (this.objects.has(key)) throw new Failure('ALREADY_EXISTS', `${key} exists`)
    this.objects.set(key, Uint8Array.from(body))
  }

  async readRange(key: string, range: ByteRange, signal: AbortSignal): Promise<Uint8Array> {
    signal.throwIfAborted()
    this.reads.push(range)
    const body = this.objects.get(key)
    if (body === undefined) throw new Failure('NOT_FOUND', `${key} is missing`)
    if (range.startBytes < 0 || range.endBytes > body.length)
      throw new Failure('OBJECT_CORRUPT', `${key} ends at byte ${body.length}, before ${range.endBytes}`)
    return Uint8Array.from(body.subarray(range.startBytes, range.endBytes))
  }

  async *list(prefix: string, after: string | undefined): AsyncIterable<ListedObject> {
    for (const key of [...this.objects.keys()].sort())
      if (key.startsWith(prefix) && (after === undefined || key > after))
        yield { key, sizeBytes: this.objects.get(key)?.length ?? 0 }
  }

  async remove(key: string): Promise<void> {
    this.objects.delete(key)
  }

  async close(): Promise<void> {}
}
