import { Failure, failedWith } from '../base/failure.ts'
import { formatCheckpointId, type VpgId } from '../base/ids.ts'
import { verifyPack } from '../mirror/mirror.ts'
import type { ObjectStore } from '../store/object-store.ts'
import type { ObjectRef, PackRef, SegmentSpan, VpgState } from '../timeline/state.ts'
import type { Pin } from '../timeline/checkpoint.ts'
import { objectKeys } from '../timeline/reach.ts'
import { pinOf } from '../timeline/recovery.ts'
import { listVpgs } from './keys.ts'
import { readCheckpointPage, readManifest, type NumberedObject, type ReadManifest } from './read.ts'

// Reads every object that a VPG's newest manifest refers to, and says of each that is damaged or missing what that costs.
//
// The VPG goes on meanwhile: objects leave the manifest and are removed. So what seems damaged is looked at again, and is damaged if the
// manifest that is the newest then still refers to it.

export interface VerifyReport {
  /** An object that was read and is whole. */
  whole(object: ObjectRef): void
  /** Something is wrong: where, what, and what it affects. */
  damage(finding: Finding): void
}

export interface Finding {
  readonly key: string
  /** In the object; undefined where it is missing. */
  readonly offsetBytes: number | undefined
  readonly sentence: string
  readonly affects: string
}

/** Checks one segment object wholly; returns its faults, none where it is whole. */
export type VerifySegment = (
  store: ObjectStore,
  object: ObjectRef,
  signal: AbortSignal,
) => Promise<{ readonly faults: readonly PlacedFault[] }>

export interface PlacedFault {
  readonly offsetBytes: number | undefined
  readonly sentence: string
}

/** Goes on after damage; fails only as the store does. */
export async function verifyVpg(
  store: ObjectStore,
  vpg: VpgId,
  report: VerifyReport,
  verifySegment: VerifySegment,
  signal: AbortSignal,
): Promise<void> {
  const manifest = await attempted(report, `${vpg}/commit/`, 'the whole VPG', () => settledManifest(store, vpg, signal))
  if (manifest === undefined) return
  const isReferredTo = (key: string): Promise<boolean> => refersTo(store, vpg, key, signal)
  for (const object of [manifest.rootObject, ...pagesOf(manifest)]) report.whole(object)
  const { state } = manifest.contents
  for (const sentence of unpinned(state))
    report.damage({ key: manifest.rootObject.key, offsetBytes: undefined, sentence, affects: 'what is recovered' })
  for (const segment of [...state.segments, ...manifest.after.map(spanlessSegment)]) {
    await checkParts(report, segment.object, affectedBySegment(segment), isReferredTo, async () => {
      return (await verifySegment(store, segment.object, signal)).faults
    })
  }
  const check = async (pack: PackRef, affects: string): Promise<void> =>
    await checkParts(report, pack.object, affects, isReferredTo, async () => {
      return (await verifyPack(store, pack.object, signal)).faults
    })
  for (const delta of state.deltas) {
    const span = `checkpoints ${formatCheckpointId(delta.fromOrdinal)} to ${formatCheckpointId(delta.toOrdinal)}`
    await checkParts(report, delta.checkpoints, `the list of ${span}`, isReferredTo, async () => {
      await readCheckpointPage(store, vpg, delta.checkpoints, signal)
      return []
    })
    for (const pack of delta.packs) {
      await check(pack, `${placeOf(state, pack)} in ${span} and in later ones`)
    }
  }
  for (const { pack, asOfOrdinal } of state.regions) {
    if (pack === undefined) continue
    const place = placeOf(state, pack)
    await check(pack, `${place} in checkpoints from ${formatCheckpointId(asOfOrdinal)} on`)
  }
}

/** What is recovered, and may leave the history all the same. */
function unpinned({ recoveries, pins }: VpgState): string[] {
  const isMissing = (pin: Pin): boolean => !pins.some(({ id, ordinal }) => id === pin.id && ordinal === pin.ordinal)
  return recoveries
    .flatMap(pinOf)
    .filter(isMissing)
    .map(({ id, ordinal }) => `recovery ${id} has no pin on its checkpoint ${formatCheckpointId(ordinal)}`)
}

function pagesOf(manifest: ReadManifest): ObjectRef[] {
  const { written, indexes } = manifest.pageSet
  return [...indexes, ...written.values()].map(page => page.place.page)
}

interface CheckedSegment {
  readonly object: ObjectRef
  readonly firstOrdinal?: SegmentSpan['firstOrdinal']
  readonly lastOrdinal?: SegmentSpan['lastOrdinal']
}

function spanlessSegment(object: NumberedObject): CheckedSegment {
  return { object: { key: object.key, sizeBytes: object.sizeBytes } }
}

function affectedBySegment({ firstOrdinal, lastOrdinal }: CheckedSegment): string {
  if (firstOrdinal === undefined || lastOrdinal === undefined || lastOrdinal === 0) return 'the newest checkpoints'
  return `checkpoints from ${formatCheckpointId(firstOrdinal)} on`
}

function placeOf(state: VpgState, pack: PackRef): string {
  const name = state.definition.volumes.find(volume => volume.number === pack.volume)?.name ?? String(pack.volume)
  return `volume "${name}", bytes ${pack.startBytes} to ${pack.endBytes},`
}

async function checkParts(
  report: VerifyReport,
  object: ObjectRef,
  affects: string,
  isReferredTo: (key: string) => Promise<boolean>,
  check: () => Promise<readonly PlacedFault[]>,
): Promise<void> {
  const { key } = object
  const seen = await findingsOf(key, affects, check)
  if (seen.length > 0 && !(await isReferredTo(key))) return // it has left the manifest meanwhile
  const findings = seen.length > 0 ? await findingsOf(key, affects, check) : seen
  if (findings.length === 0) report.whole(object)
  for (const finding of findings) report.damage(finding)
}

async function findingsOf(
  key: string,
  affects: string,
  check: () => Promise<readonly PlacedFault[]>,
): Promise<Finding[]> {
  const findings: Finding[] = []
  const report = { damage: (finding: Finding) => void findings.push(finding) }
  const faults = await attempted(report, key, affects, check)
  return [...findings, ...(faults ?? []).map(fault => ({ key, ...fault, affects }))]
}

const readsMax = 5

/**
 * The newest manifest. While it was read it may have been followed by another and been removed, root or pages: what fails twice in the
 * same way is damaged. Undefined where the VPG is not there any more.
 */
async function settledManifest(store: ObjectStore, vpg: VpgId, signal: AbortSignal): Promise<ReadManifest | undefined> {
  let before: Failure | undefined
  for (let reads = 1; ; reads++) {
    try {
      return await readManifest(store, vpg, signal)
    } catch (error) {
      if (!isDamage(error)) throw error
      if (before?.message === error.message || reads === readsMax) {
        if (failedWith(error, 'NOT_FOUND') && !(await isRegistered(store, vpg, signal))) return undefined
        throw error
      }
      before = error
    }
  }
}

async function isRegistered(store: ObjectStore, vpg: VpgId, signal: AbortSignal): Promise<boolean> {
  return (await listVpgs(store, signal)).includes(vpg)
}

/** Whether the newest manifest refers to the object. Where it cannot be read, nothing says that it does not. */
async function refersTo(store: ObjectStore, vpg: VpgId, key: string, signal: AbortSignal): Promise<boolean> {
  try {
    const manifest = await settledManifest(store, vpg, signal)
    if (manifest === undefined) return false
    const keys = [...objectKeys(manifest.contents.state), ...manifest.after.map(each => each.key)]
    return keys.includes(key)
  } catch (error) {
    if (!isDamage(error)) throw error
    return true
  }
}

/** What `read` returns; undefined where the object is damaged, of another version or missing, which is then reported. */
async function attempted<T>(
  report: Pick<VerifyReport, 'damage'>,
  key: string,
  affects: string,
  read: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await read()
  } catch (error) {
    if (!isDamage(error)) throw error
    const { key: named, offsetBytes } = error.details
    report.damage({
      key: typeof named === 'string' ? named : key,
      offsetBytes: typeof offsetBytes === 'number' ? offsetBytes : undefined,
      sentence: error.message,
      affects,
    })
    return undefined
  }
}

/** Failures that speak of the object itself, not of the way to it. */
export function isDamage(error: unknown): error is Failure {
  return (['OBJECT_CORRUPT', 'RECORD_CORRUPT', 'NOT_FOUND', 'VERSION_UNSUPPORTED'] as const).some(code =>
    failedWith(error, code),
  )
}
