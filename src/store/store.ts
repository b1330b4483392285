import { assertNever } from '../base/assert.ts'
import type { Clock } from '../base/clock.ts'
import { systemClock } from '../base/clock.ts'
import { realFileCalls } from '../disk/disk.ts'
import { BlockCache } from './block-cache.ts'
import { CachedStore } from './cached-store.ts'
import { DirectoryStore } from './directory-store.ts'
import { EncryptedStore } from './encrypted-store.ts'
import type { HiddenVersions } from './hidden-versions.ts'
import { readKeyFile, FileWrapper, type KeyWrapper } from './key-wrapping.ts'
import type {
  CacheConfig,
  EncryptionConfig,
  ObjectStore,
  PlaceConfig,
  StoreConfig,
  WholeStore,
} from './object-store.ts'

// Two stores behind one seam (object-store.ts). Nothing outside this folder asks which of the two it has.
//
//   directory   <directory>/objects/<key>, one file an object, made in <directory>/staging and linked to its name
//   s3          s3://<bucket>/<prefix><key>, created with If-None-Match: *, on any server that honours that
//
// and a third over either, which encrypts (encrypted-store.ts; README.md has the format).

export type {
  ByteRange,
  CacheConfig,
  CacheFacts,
  CreateOptions,
  ListedObject,
  LoadFacts,
  ObjectLocks,
  ObjectStore,
  StoreConfig,
} from './object-store.ts'
export type { HiddenVersions } from './hidden-versions.ts'
export { newSharedLoad } from './store-load.ts'

export interface StoreOptions {
  readonly clock?: Clock
  /** Instead of what the environment, the shared files or the instance's role give. */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string }
  /** Ranges of a bucket's objects are read through a file of blocks on the local disk; those of a directory are on one already. */
  readonly cache?: CacheConfig | undefined
  /** Keys on a page of a listing; 1000 where it is not given. */
  readonly pageKeysMax?: number
}

/**
 * The store that the configuration names. A directory is made where there is none; a bucket must exist. Where it is encrypted here, fails
 * CONFIG_INVALID without the user's key; whether that is the store's is seen at the first call.
 */
export async function openStore(config: StoreConfig, options: StoreOptions = {}): Promise<ObjectStore> {
  const { clientEncryption } = config
  const wrapper = clientEncryption === undefined ? undefined : await openWrapper(clientEncryption)
  const place = await openPlace(config, options)
  const store = wrapper === undefined ? place : new EncryptedStore(place, wrapper)
  return config.kind === 's3' ? await cached(store, options.cache) : store
}

/** What of removed objects below the prefix the place of the store still keeps; nothing, where it keeps none. Fails as a listing does. */
export async function hiddenVersionsOf(
  config: StoreConfig,
  prefix: string,
  signal: AbortSignal,
  credentials?: StoreOptions['credentials'],
): Promise<HiddenVersions> {
  const { hiddenVersions, noHiddenVersions } = await import('./hidden-versions.ts')
  if (config.kind === 'directory') return noHiddenVersions
  return await hiddenVersions(config, credentials, prefix, signal)
}

async function openWrapper(config: EncryptionConfig): Promise<KeyWrapper> {
  if (config.key === 'file') return new FileWrapper(readKeyFile(config.keyFile))
  const { KmsWrapper } = await import('./kms-wrapping.ts')
  return new KmsWrapper(config)
}

async function openPlace(config: PlaceConfig, options: StoreOptions): Promise<WholeStore> {
  switch (config.kind) {
    case 'directory':
      return await DirectoryStore.open(config.directory)
    case 's3': {
      // The SDK costs some 60 MiB and a third of a second: only the threads that speak to a bucket pay it.
      // The version in use is pinned: what later versions will need of Node is no news for an operator's log.
      process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] ??= 'true'
      const { S3Store } = await import('./s3-store.ts')
      return new S3Store(config, options.clock ?? systemClock, options.credentials, options.pageKeysMax)
    }
    default:
      return assertNever(config)
  }
}

/** The store, its ranges read through the cache; as it is where there is none, or no place for it. */
export async function cached(store: ObjectStore, cache: CacheConfig | undefined): Promise<ObjectStore> {
  const opened = cache && (await BlockCache.open(realFileCalls, cache.file, cache.sizeBytesMax))
  return opened === undefined ? store : new CachedStore(store, opened)
}
