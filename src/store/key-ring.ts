import { Failure, failedWith } from '../base/failure.ts'
import { crc32c } from '../codec/crc32c.ts'
import { Permits } from '../base/permits.ts'
import type { KeyWrapper } from './key-wrapping.ts'
import type { CreateOptions, ObjectStore } from './object-store.ts'

// The keys that encrypt objects lie in the store themselves, wrapped: one for each VPG under key/<vpg>, and key/store, which encrypts what is of no
// VPG and tells by its presence which user's key this store was encrypted with. README.md has the table.

export const keyPrefix = 'key/'
export const storeKeyName = `${keyPrefix}store`
const magic = 0x4b_41_52_56 // 'VRAK'
const formatVersion = 1
const headerSizeBytes = 40
const keyObjectSizeBytesMax = 8192

export class KeyRing {
  readonly #store: ObjectStore
  readonly #wrapper: KeyWrapper
  readonly #keys = new Map<string, Uint8Array>()
  /** Of many that ask for one key at once, one asks the store; keys are few, so all of them take turns. */
  readonly #turn = new Permits(1)

  constructor(store: ObjectStore, wrapper: KeyWrapper) {
    this.#store = store
    this.#wrapper = wrapper
  }

  /** Fails CONFIG_INVALID unless the store was encrypted with this key, or holds nothing yet. */
  async check(signal: AbortSignal): Promise<void> {
    await this.#known(storeKeyName, signal, async () => {
      await this.#requireNoVpgs(signal)
      return undefined
    })
  }

  /** Of what belongs to no VPG. Made where there is none, once for all who race for it. */
  async storeKey(signal: AbortSignal, options?: CreateOptions): Promise<Uint8Array> {
    return await this.#made(storeKeyName, { signal, options }, () => this.#requireNoVpgs(signal))
  }

  /** The same where there is one: without it nothing of no VPG was ever created. */
  async storeKeyIfAny(signal: AbortSignal): Promise<Uint8Array | undefined> {
    return await this.#known(storeKeyName, signal, async () => undefined)
  }

  /** OBJECT_CORRUPT where the VPG has none: what it encrypted cannot be read any more. */
  async vpgKey(vpg: string, signal: AbortSignal): Promise<Uint8Array> {
    const name = `${keyPrefix}${vpg}`
    const found = await this.#known(name, signal, async () => undefined)
    if (found !== undefined) return found
    throw new Failure('OBJECT_CORRUPT', `${name} is missing: what VPG ${vpg} holds cannot be read without it`, {
      key: name,
    })
  }

  /** For a VPG that is new. Never for one that has objects: they would be unreadable for good, and nobody would know. */
  async makeVpgKey(vpg: string, signal: AbortSignal, options?: CreateOptions): Promise<void> {
    await this.#made(`${keyPrefix}${vpg}`, { signal, options }, async () => {
      for await (const { key } of this.#store.list(`${vpg}/`, undefined, signal))
        throw new Failure('OBJECT_CORRUPT', `${keyPrefix}${vpg} is missing, and "${key}" was encrypted with it`, {
          key,
        })
    })
  }

  async removeVpgKey(vpg: string, signal: AbortSignal): Promise<void> {
    await this.#store.remove(`${keyPrefix}${vpg}`, signal)
    this.#keys.delete(`${keyPrefix}${vpg}`)
  }

  async #made(
    name: string,
    { signal, options }: { readonly signal: AbortSignal; readonly options: CreateOptions | undefined },
    requireNew: () => Promise<void>,
  ): Promise<Uint8Array> {
    const key = await this.#known(name, signal, async () => {
      await requireNew()
      const { dataKey, wrapped } = await this.#wrapper.newKey(name, signal)
      try {
        await this.#store.create(name, encoded(this.#wrapper, wrapped), signal, options)
        return dataKey
      } catch (error) {
        if (!failedWith(error, 'ALREADY_EXISTS')) throw error
        return await this.#read(name, signal)
      }
    })
    if (key === undefined) throw new Failure('STORE_UNAVAILABLE', `${name} is gone again`, { key: name })
    return key
  }

  /** What is known stays known; what is not there is asked for each time. */
  async #known(
    name: string,
    signal: AbortSignal,
    otherwise: () => Promise<Uint8Array | undefined>,
  ): Promise<Uint8Array | undefined> {
    const known = this.#keys.get(name)
    if (known !== undefined) return known
    return await this.#turn.with(async () => {
      const found = this.#keys.get(name) ?? (await this.#read(name, signal)) ?? (await otherwise())
      if (found !== undefined) this.#keys.set(name, found)
      return found
    })
  }

  async #read(name: string, signal: AbortSignal): Promise<Uint8Array | undefined> {
    for await (const { key, sizeBytes } of this.#store.list(name, undefined, signal)) {
      if (key !== name) continue
      const endBytes = Math.min(sizeBytes, keyObjectSizeBytesMax)
      const object = await this.#store.readRange(name, { startBytes: 0, endBytes }, signal)
      return await this.#wrapper.unwrap(name, decoded(name, object, this.#wrapper), signal)
    }
    return undefined
  }

  async #requireNoVpgs(signal: AbortSignal): Promise<void> {
    for await (const { key } of this.#store.list('vpg/', undefined, signal)) {
      const sentence =
        `the store holds "${key}", and no ${storeKeyName}: its objects are not encrypted, or the key is lost. ` +
        'Encryption begins with an empty store, or a prefix of its own.'
      throw new Failure('CONFIG_INVALID', sentence, { key })
    }
  }
}

function encoded(wrapper: KeyWrapper, wrapped: Uint8Array): Uint8Array {
  const object = Buffer.alloc(headerSizeBytes + wrapped.length + 4)
  object.writeUInt32LE(magic, 0)
  object.writeUInt8(formatVersion, 4)
  object.writeUInt8(wrapper.kind, 5)
  object.writeUInt16LE(wrapped.length, 6)
  object.set(wrapper.keyId, 8)
  object.set(wrapped, headerSizeBytes)
  object.writeUInt32LE(crc32c(object.subarray(0, -4)), object.length - 4)
  return object
}

/** The wrapped bytes. CONFIG_INVALID where another key wrapped them. */
function decoded(name: string, object: Uint8Array, wrapper: KeyWrapper): Uint8Array {
  const bytes = Buffer.from(object.buffer, object.byteOffset, object.byteLength)
  const isWhole =
    bytes.length > headerSizeBytes + 4 &&
    bytes.readUInt32LE(0) === magic &&
    bytes.readUInt32LE(bytes.length - 4) === crc32c(bytes.subarray(0, -4)) &&
    bytes.readUInt16LE(6) === bytes.length - headerSizeBytes - 4
  if (!isWhole)
    throw new Failure('OBJECT_CORRUPT', `${name} is damaged: what it encrypted cannot be read`, { key: name })
  const version = bytes.readUInt8(4)
  if (version !== formatVersion)
    throw new Failure('VERSION_UNSUPPORTED', `${name} has format version ${version}; this program reads version 1`, {
      version,
    })
  const kind = bytes.readUInt8(5)
  if (kind !== wrapper.kind || !bytes.subarray(8, headerSizeBytes).equals(wrapper.keyId)) {
    const by = kind === 1 ? 'a key file' : 'KMS'
    const sentence = `the store was encrypted with another key (${name} is wrapped by ${by}); nothing is written to it with this one`
    throw new Failure('CONFIG_INVALID', sentence, { key: name })
  }
  return bytes.subarray(headerSizeBytes, bytes.length - 4)
}
