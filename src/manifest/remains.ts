import { Failure } from '../base/failure.ts'
import type { VpgId } from '../base/ids.ts'
import type { ObjectStore } from '../store/object-store.ts'
import { registryKey } from './keys.ts'
import { listCommits, readSealed } from './read.ts'

/**
 * Removes what is left of a VPG that has no commit: its creation was not finished, or its removal all but. Nothing is removed,
 * and the answer is false, where there is a commit after all, or where the registry object is another appliance's, which may
 * be creating the VPG at this moment. OBJECT_CORRUPT, and nothing is removed, where there are objects that only commits refer to: then it is the
 * listing that lacks these.
 */
export async function removeRemains(
  store: ObjectStore,
  vpg: VpgId,
  applianceId: string,
  signal: AbortSignal,
): Promise<boolean> {
  for await (const registry of store.list(registryKey(vpg), undefined, signal)) {
    const { header } = await readSealed(store, registry, signal)
    if (header.applianceId !== applianceId) return false
  }
  if ((await listCommits(store, vpg, undefined, signal)).length > 0) return false
  const keys: string[] = []
  for await (const { key } of store.list(`${vpg}/`, undefined, signal)) keys.push(key)
  const committed = keys.find(key => !key.startsWith(`${vpg}/page/`))
  if (committed !== undefined) {
    const sentence =
      `the store lists no commit of VPG ${vpg}, and "${committed}", which is there because of one: its listing lies, or ` +
      'the commits are lost. Nothing is removed; `vra store check` says more.'
    throw new Failure('OBJECT_CORRUPT', sentence, { vpg, key: committed })
  }
  for (const key of [...keys, registryKey(vpg)]) await store.remove(key, signal)
  return true
}
