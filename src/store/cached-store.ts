import { cacheBlockSizeBytes } from '../base/limits.ts'
import { MiB } from '../base/units.ts'
import type { BlockCache } from './block-cache.ts'
import type {
  ByteRange,
  CacheFacts,
  CreateOptions,
  ListedObject,
  LoadFacts,
  ObjectLocks,
  ObjectStore,
} from './object-store.ts'

/** A range that is shorter is read from the start of its first block on, so that neighbours find it. */
const longSizeBytes = 1 * MiB

/**
 * A store whose ranges are read through a cache on the local disk. Objects are immutable, and what the cache gives has passed its checksum. A
 * name is never used again once its object was removed, so nothing here can be out of date.
 */
export class CachedStore implements ObjectStore {
  readonly #store: ObjectStore
  readonly #cache: BlockCache

  constructor(store: ObjectStore, cache: BlockCache) {
    this.#store = store
    this.#cache = cache
  }

  create(key: string, body: Uint8Array, signal: AbortSignal, options?: CreateOptions): Promise<void> {
    return this.#store.create(key, body, signal, options)
  }

  get loadFacts(): LoadFacts | undefined {
    return this.#store.loadFacts
  }

  get locks(): ObjectLocks | undefined {
    return this.#store.locks
  }

  async readRange(key: string, range: ByteRange, signal: AbortSignal): Promise<Uint8Array> {
    signal.throwIfAborted()
    const { startBytes, endBytes } = range
    if (endBytes <= startBytes) return await this.#store.readRange(key, range, signal)
    const target = Buffer.allocUnsafeSlow(endBytes - startBytes)
    const missing = await this.#readHere(key, range, target)
    for (const run of missing) await this.#readThere(key, run, { range, target, signal })
    const missSizeBytes = missing.reduce((sum, run) => sum + run.endBytes - run.startBytes, 0)
    this.#cache.count(target.length - missSizeBytes, missSizeBytes)
    return target
  }

  get cacheFacts(): CacheFacts {
    return this.#cache.facts
  }

  list(prefix: string, after: string | undefined, signal: AbortSignal): AsyncIterable<ListedObject> {
    return this.#store.list(prefix, after, signal)
  }

  remove(key: string, signal: AbortSignal): Promise<void> {
    return this.#store.remove(key, signal)
  }

  async close(): Promise<void> {
    await this.#cache.close()
    await this.#store.close()
  }

  /** Fills in what is here; the runs that are not. */
  async #readHere(key: string, { startBytes, endBytes }: ByteRange, target: Uint8Array): Promise<ByteRange[]> {
    const missing: { startBytes: number; endBytes: number }[] = []
    for (const block of blocksOf(startBytes, endBytes)) {
      const blockStart = block * cacheBlockSizeBytes
      const from = Math.max(startBytes, blockStart)
      const to = Math.min(endBytes, blockStart + cacheBlockSizeBytes)
      const bytes = await this.#cache.read(nameOf(key, block), to - blockStart)
      const last = missing.at(-1)
      if (bytes !== undefined) target.set(bytes.subarray(from - blockStart, to - blockStart), from - startBytes)
      else if (last?.endBytes === from) last.endBytes = to
      else missing.push({ startBytes: from, endBytes: to })
    }
    return missing
  }

  async #readThere(
    key: string,
    run: ByteRange,
    { range, target, signal }: { readonly range: ByteRange; readonly target: Uint8Array; readonly signal: AbortSignal },
  ): Promise<void> {
    const isLong = run.endBytes - run.startBytes >= longSizeBytes
    const startBytes = isLong ? run.startBytes : run.startBytes - (run.startBytes % cacheBlockSizeBytes)
    const bytes = await this.#store.readRange(key, { startBytes, endBytes: run.endBytes }, signal)
    target.set(bytes.subarray(run.startBytes - startBytes), run.startBytes - range.startBytes)
    for (const block of blocksOf(startBytes, run.endBytes)) {
      const blockStart = block * cacheBlockSizeBytes
      if (blockStart < startBytes) continue
      const end = Math.min(run.endBytes, blockStart + cacheBlockSizeBytes)
      await this.#cache.keep(nameOf(key, block), bytes.subarray(blockStart - startBytes, end - startBytes))
    }
  }
}

function nameOf(key: string, block: number): string {
  return `${key}#${block}`
}

function blocksOf(startBytes: number, endBytes: number): number[] {
  const first = Math.floor(startBytes / cacheBlockSizeBytes)
  return Array.from({ length: Math.ceil(endBytes / cacheBlockSizeBytes) - first }, (_, index) => first + index)
}
