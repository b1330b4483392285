import { createOnce } from '../manifest/manifest.ts'
import type { ObjectStore } from '../store/object-store.ts'
import type { Patience } from './store-patience.ts'

/** The store for long operations: a call that fails for what may pass is tried again, not the hour of work around it. */
export function patientStore(store: ObjectStore, patience: Patience): ObjectStore {
  return {
    // Keys of these operations are new, so an object that exists already is what an earlier attempt created.
    create: (key, body, signal) => patience.attempt(each => createOnce(store, key, body, undefined, each), signal),
    readRange: (key, range, signal, spare) =>
      patience.attempt(each => store.readRange(key, range, each, spare), signal),
    list: (prefix, after, signal) => store.list(prefix, after, signal),
    remove: (key, signal) => patience.attempt(each => store.remove(key, each), signal),
    close: async () => undefined,
  }
}
