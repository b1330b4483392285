import { assert } from '../base/assert.ts'
import type { ObjectStore } from '../store/object-store.ts'
import type { ObjectRef } from '../timeline/state.ts'
import type { PackReport } from './types.ts'

/** Reads the whole pack and checks every byte of it. */
export async function verifyPack(_store: ObjectStore, _object: ObjectRef, _signal: AbortSignal): Promise<PackReport> {
  assert(false, 'being written')
}

/** What the pack says, a fact a line. Fails OBJECT_CORRUPT where it cannot be read. */
// eslint-disable-next-line require-yield
export async function* dumpPack(_store: ObjectStore, _object: ObjectRef, _signal: AbortSignal): AsyncGenerator<string> {
  assert(false, 'being written')
}
