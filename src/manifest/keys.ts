import { randomUUID } from 'node:crypto'
import { type VpgId, vpgId } from '../base/ids.ts'
import { commitKey, parseCommitKey } from '../segment/segment.ts'
import type { ObjectStore } from '../store/object-store.ts'

//   vpg/<vpg>                        registry: this VPG exists; created before its first commit, removed last
//   <vpg>/commit/<number>            16 decimal digits: a segment or a manifest root
//   <vpg>/page/<epoch>-<uuid>        a page of a manifest
//   <vpg>/delta/<epoch>-<uuid>       a pack of a delta
//   <vpg>/base/<epoch>-<uuid>        a pack of one version of a base region
//   taken/<appliance>/<vpg>-<epoch>  somebody is about to take the VPG from this appliance, and to begin this epoch

export { commitKey, parseCommitKey }

export type ObjectKind = 'page' | 'delta' | 'base'

const registryPrefix = 'vpg/'

export function registryKey(vpg: VpgId): string {
  return `${registryPrefix}${vpg}`
}

export function commitPrefix(vpg: VpgId): string {
  return `${vpg}/commit/`
}

/** A name that was never used before and never will be again. */
export function newObjectKey(vpg: VpgId, kind: ObjectKind, epoch: number): string {
  return `${vpg}/${kind}/${epoch}-${randomUUID()}`
}

/** Every VPG that the store holds, deleted ones whose objects are still being removed included. */
export async function listVpgs(store: ObjectStore, signal: AbortSignal): Promise<VpgId[]> {
  const found: VpgId[] = []
  for await (const { key } of store.list(registryPrefix, undefined, signal)) {
    const name = key.slice(registryPrefix.length)
    if (/^[0-9a-f]{32}$/.test(name)) found.push(vpgId(name))
  }
  return found
}

const takenPrefix = 'taken/'

export function takenKey(from: string, vpg: VpgId, epoch: number): string {
  return `${takenPrefix}${from}/${announcedName(vpg, epoch)}`
}

/** VPGs that others took from this appliance, or were about to, with the newest epoch of each. */
export async function listTaken(
  store: ObjectStore,
  applianceId: string,
  signal: AbortSignal,
): Promise<ReadonlyMap<VpgId, number>> {
  const prefix = `${takenPrefix}${applianceId}/`
  const taken = new Map<VpgId, number>()
  for await (const { key } of store.list(prefix, undefined, signal)) {
    const [, name, epoch] = /^([0-9a-f]{32})-(\d+)$/.exec(key.slice(prefix.length)) ?? []
    if (name === undefined) continue
    taken.set(vpgId(name), Math.max(Number(epoch), taken.get(vpgId(name)) ?? 0))
  }
  return taken
}

/** Takeovers of any appliance's VPGs that were announced, each as its VPG and the epoch that it was to begin. */
export async function listAnnounced(store: ObjectStore, signal: AbortSignal): Promise<ReadonlySet<string>> {
  const announced = new Set<string>()
  for await (const { key } of store.list(takenPrefix, undefined, signal))
    announced.add(key.slice(key.lastIndexOf('/') + 1))
  return announced
}

/** How listAnnounced names it. */
export function announcedName(vpg: VpgId, epoch: number): string {
  return `${vpg}-${epoch}`
}
