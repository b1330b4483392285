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
//   taken/<appliance>/tenure-<number>         10 decimal digits: a process that is this appliance; that of the highest number is
//   taken/<appliance>/claim-<number>-<nonce>  a process that will begin this tenure, where the one before does not answer

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

export function tenureKey(applianceId: string, number: number): string {
  return `${takenPrefix}${applianceId}/tenure-${numberInKey(number)}`
}

export function claimKey(applianceId: string, { number, nonce }: Pick<Claim, 'number' | 'nonce'>): string {
  return `${takenPrefix}${applianceId}/claim-${numberInKey(number)}-${nonce}`
}

function numberInKey(number: number): string {
  return String(number).padStart(10, '0')
}

/** A process that will begin the tenure of this number, unless somebody does before. */
export interface Claim {
  readonly number: number
  readonly nonce: string
  readonly sizeBytes: number
}

/** What concerns one appliance, all of it below one prefix. */
export interface ApplianceNews {
  /** VPGs that others took from it, or were about to, with the newest epoch of each. */
  readonly taken: ReadonlyMap<VpgId, number>
  /** With the bytes of each one's object. */
  readonly tenures: ReadonlyMap<number, number>
  readonly claims: readonly Claim[]
}

/** One listing. Names that are none of these are passed over. */
export async function listNews(store: ObjectStore, applianceId: string, signal: AbortSignal): Promise<ApplianceNews> {
  const prefix = `${takenPrefix}${applianceId}/`
  const taken = new Map<VpgId, number>()
  const tenures = new Map<number, number>()
  const claims: Claim[] = []
  for await (const { key, sizeBytes } of store.list(prefix, undefined, signal)) {
    const name = key.slice(prefix.length)
    const [, vpg, epoch] = /^([0-9a-f]{32})-(\d+)$/.exec(name) ?? []
    const [, tenure] = /^tenure-(\d{10})$/.exec(name) ?? []
    const [, claimed, nonce] = /^claim-(\d{10})-([0-9a-f-]{36})$/.exec(name) ?? []
    if (vpg !== undefined) taken.set(vpgId(vpg), Math.max(Number(epoch), taken.get(vpgId(vpg)) ?? 0))
    if (tenure !== undefined) tenures.set(Number(tenure), sizeBytes)
    if (nonce !== undefined) claims.push({ number: Number(claimed), nonce, sizeBytes })
  }
  return { taken, tenures, claims }
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
