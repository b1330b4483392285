import { assert } from '../base/assert.ts'
import { Failure, failedWith } from '../base/failure.ts'
import { segmentSizeBytesTarget } from '../base/limits.ts'
import { MiB } from '../base/units.ts'
import { checkKey } from './keys.ts'
import { keyPrefix, KeyRing, storeKeyName } from './key-ring.ts'
import type { KeyWrapper } from './key-wrapping.ts'
import type {
  ByteRange,
  CreateOptions,
  ListedObject,
  LoadFacts,
  ObjectLocks,
  ObjectStore,
  WholeStore,
} from './object-store.ts'
import { chunkDataSizeBytes, chunkSizeBytes, openChunks, plainSizeBytes, sealChunks } from './sealed-chunks.ts'

/** So much memory is kept for the next object: one of the usual segment's size. */
const spareSizeBytesMax = segmentSizeBytesTarget + 1 * MiB

const vpgKeyPattern = /^([0-9a-f]{32})\//
const registryPattern = /^vpg\/([0-9a-f]{32})$/

/**
 * A store whose objects are encrypted before they leave this host. Names, and sizes within some bytes, can be seen by whoever sees the bucket;
 * to a caller they are what they would be without. Nothing is written, nor listed, before the user's key has been proved to be the store's.
 */
export class EncryptedStore implements ObjectStore {
  readonly #store: WholeStore
  readonly #wrapper: KeyWrapper
  readonly #ring: KeyRing
  readonly locks: ObjectLocks | undefined
  #isChecked = false
  /** Of the last create that has ended well: nobody reads it any more. */
  #spare: Buffer | undefined

  constructor(store: WholeStore, wrapper: KeyWrapper) {
    this.#store = store
    this.#wrapper = wrapper
    this.#ring = new KeyRing(store, wrapper)
    this.locks = store.locks && withKeys(store.locks)
  }

  get loadFacts(): LoadFacts | undefined {
    return this.#store.loadFacts
  }

  async create(key: string, body: Uint8Array, signal: AbortSignal, options?: CreateOptions): Promise<void> {
    checkOwn(key)
    const dataKey = await this.#keyToWrite(key, signal, options)
    const spare = this.#spare
    this.#spare = undefined // for one at a time
    const stored = await sealChunks(key, dataKey, body, spare)
    const vpg = registryPattern.exec(key)?.[1]
    try {
      await this.#store.create(key, stored, signal, options)
    } catch (error) {
      if (failedWith(error, 'ALREADY_EXISTS') && vpg !== undefined) await this.#ring.makeVpgKey(vpg, signal, options)
      throw error
    }
    for (const memory of [spare, stored]) this.#keepSpare(memory)
    // After the registry object, so that whatever comes in between leaves nothing that nobody finds.
    if (vpg !== undefined) await this.#ring.makeVpgKey(vpg, signal, options)
  }

  #keepSpare(memory: Buffer | undefined): void {
    if (memory === undefined || memory.length > spareSizeBytesMax) return
    if (memory.length > (this.#spare?.length ?? 0)) this.#spare = memory
  }

  async readRange(key: string, range: ByteRange, signal: AbortSignal, spare?: Uint8Array): Promise<Uint8Array> {
    checkOwn(key)
    const { startBytes, endBytes } = range
    assert(startBytes >= 0 && startBytes <= endBytes, 'a range does not end before it starts')
    const isEmpty = startBytes === endBytes
    // Of an empty range it is asked whether the object reaches so far: the byte before it tells.
    const firstChunk = Math.floor((isEmpty ? Math.max(0, startBytes - 1) : startBytes) / chunkDataSizeBytes)
    const endChunk = Math.max(firstChunk + 1, Math.ceil(endBytes / chunkDataSizeBytes))
    const stored = { startBytes: firstChunk * chunkSizeBytes, endBytes: endChunk * chunkSizeBytes }
    const dataKey = await this.#keyToRead(key, signal)
    const sealed = await this.#store.readUpTo(key, stored, signal)
    const from = startBytes - firstChunk * chunkDataSizeBytes
    const end = endBytes - firstChunk * chunkDataSizeBytes
    const sizeBytes = end - from
    const target = spare !== undefined && spare.length >= sizeBytes ? spare : Buffer.allocUnsafeSlow(sizeBytes)
    await openChunks(key, dataKey, sealed, firstChunk, { startBytes: from, endBytes: end }, target)
    if (end > plainSizeBytes(sealed.length))
      throw new Failure('OBJECT_CORRUPT', `the object "${key}" is shorter than it should be`, { key, ...range })
    return target.subarray(0, sizeBytes)
  }

  async *list(prefix: string, after: string | undefined, signal: AbortSignal): AsyncGenerator<ListedObject> {
    await this.#check(signal)
    for await (const { key, sizeBytes } of this.#store.list(prefix, after, signal))
      if (!key.startsWith(keyPrefix)) yield { key, sizeBytes: plainSizeBytes(sizeBytes) }
  }

  async remove(key: string, signal: AbortSignal): Promise<void> {
    checkOwn(key)
    await this.#check(signal)
    const vpg = registryPattern.exec(key)?.[1]
    // Before the registry object, by which a VPG is found: then whoever goes on with the removal finds it again.
    if (vpg !== undefined) await this.#ring.removeVpgKey(vpg, signal)
    await this.#store.remove(key, signal)
  }

  async close(): Promise<void> {
    this.#wrapper.close()
    await this.#store.close()
  }

  async #check(signal: AbortSignal): Promise<void> {
    if (!this.#isChecked) await this.#ring.check(signal)
    this.#isChecked = true
  }

  async #keyToWrite(key: string, signal: AbortSignal, options: CreateOptions | undefined): Promise<Uint8Array> {
    const vpg = vpgKeyPattern.exec(key)?.[1]
    await this.#check(signal)
    return vpg === undefined ? await this.#ring.storeKey(signal, options) : await this.#ring.vpgKey(vpg, signal)
  }

  async #keyToRead(key: string, signal: AbortSignal): Promise<Uint8Array> {
    const vpg = vpgKeyPattern.exec(key)?.[1]
    await this.#check(signal)
    const found = vpg === undefined ? await this.#ring.storeKeyIfAny(signal) : await this.#ring.vpgKey(vpg, signal)
    if (found !== undefined) return found
    throw new Failure('NOT_FOUND', `there is no object "${key}"`, { key })
  }
}

/** Keys of keys are not for callers: a forged manifest must not have them read or removed. */
function checkOwn(key: string): void {
  checkKey(key)
  if (key.startsWith(keyPrefix)) throw new Failure('REQUEST_INVALID', `"${key}" is the store's own`, { key })
}

/** A VPG is found by its registry object, and without its key it is nothing: they are locked together, and with them the key of the store. */
function withKeys(locks: ObjectLocks): ObjectLocks {
  return {
    lockedUntilMicros: (key, signal) => locks.lockedUntilMicros(key, signal),
    extend: async (key, lockMillis, signal) => {
      checkOwn(key)
      const vpg = registryPattern.exec(key)?.[1]
      if (vpg !== undefined)
        for (const name of [storeKeyName, `${keyPrefix}${vpg}`]) await locks.extend(name, lockMillis, signal)
      await locks.extend(key, lockMillis, signal)
    },
  }
}
