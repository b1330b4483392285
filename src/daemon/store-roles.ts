import { storeReadPatienceMillis } from '../base/limits.ts'
import type { VraStoreConfig } from '../config/config.ts'
import { newSharedLoad } from '../store/store.ts'

/** All threads that speak to the bucket count together what it puts off. */
export function withSharedLoad(store: VraStoreConfig): VraStoreConfig {
  if (store.kind === 'directory') return store
  const shared = { ...store, sharedLoad: newSharedLoad() }
  return shared
}

/** Of those who read images, for whom guests and people wait. */
export function ofReaders(store: VraStoreConfig): VraStoreConfig {
  if (store.kind === 'directory') return store
  const patient = { ...store, readPatienceMillis: storeReadPatienceMillis }
  return patient
}
