import { Failure, failedWith } from '../base/failure.ts'
import { formatCheckpointId, type VpgId } from '../base/ids.ts'
import { verifyPack } from '../mirror/mirror.ts'
import type { ObjectStore } from '../store/object-store.ts'
import type { ObjectRef, PackRef, SegmentSpan, VpgState } from '../timeline/state.ts'
import type { Pin } from '../timeline/checkpoint.ts'
import { objectKeys } from '../timeline/reach.ts'
import { pinOf } from '../timeline/recovery.ts'
import { pinsOfStandby } from '../timeline/standby.ts'
import { listVpgs } from './keys.ts'
import { decodeSealed } from './sealed-object.ts'
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
  const unread = manifest.after.map(object => segmentCheck(spanlessSegment(object), verifySegment))
  for (const check of [...checksOf(state, verifySegment), ...unread])
    await checkOne(check, { store, report, isReferredTo, signal })
}

/** An object, what it costs when it is damaged, and how that is found out. */
export interface ObjectCheck {
  readonly object: ObjectRef
  readonly affects: string
  readonly faults: (store: ObjectStore, signal: AbortSignal) => Promise<readonly PlacedFault[]>
}

/** All objects that the state refers to. */
export function checksOf(state: VpgState, verifySegment: VerifySegment): ObjectCheck[] {
  const { id: vpg } = state.definition
  const deltas = state.deltas.flatMap(({ fromOrdinal, toOrdinal, checkpoints, packs }): ObjectCheck[] => {
    const span = `checkpoints ${formatCheckpointId(fromOrdinal)} to ${formatCheckpointId(toOrdinal)}`
    const page: ObjectCheck = {
      object: checkpoints,
      affects: `the list of ${span}`,
      faults: async (store, signal) => {
        await readCheckpointPage(store, vpg, checkpoints, signal)
        return []
      },
    }
    return [page, ...packs.map(pack => packCheck(pack, `${placeOf(state, pack)} in ${span} and in later ones`))]
  })
  const regions = state.regions.flatMap(({ pack, asOfOrdinal }) => {
    if (pack === undefined) return []
    return [packCheck(pack, `${placeOf(state, pack)} in checkpoints from ${formatCheckpointId(asOfOrdinal)} on`)]
  })
  return [...state.segments.map(segment => segmentCheck(segment, verifySegment)), ...deltas, ...regions]
}

/** The root of a manifest, or a page of it. */
export function manifestCheck(object: ObjectRef): ObjectCheck {
  return {
    object,
    affects: 'the whole VPG, at the next start',
    faults: async (store, signal) => {
      const range = { startBytes: 0, endBytes: object.sizeBytes }
      decodeSealed(object.key, await store.readRange(object.key, range, signal))
      return []
    },
  }
}

function segmentCheck(segment: CheckedSegment, verifySegment: VerifySegment): ObjectCheck {
  const { object } = segment
  return {
    object,
    affects: affectedBySegment(segment),
    faults: async (store, signal) => (await verifySegment(store, object, signal)).faults,
  }
}

function packCheck({ object }: PackRef, affects: string): ObjectCheck {
  return { object, affects, faults: async (store, signal) => (await verifyPack(store, object, signal)).faults }
}

/** What is recovered, and may leave the history all the same. */
function unpinned({ recoveries, standby, pins }: VpgState): string[] {
  const isMissing = (pin: Pin): boolean => !pins.some(({ id, ordinal }) => id === pin.id && ordinal === pin.ordinal)
  return [...recoveries.flatMap(pinOf), ...pinsOfStandby(standby)]
    .filter(isMissing)
    .map(({ id, owner, ordinal }) => `${owner} ${id}: no pin is on the checkpoint ${formatCheckpointId(ordinal)}`)
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

interface Checking {
  readonly store: ObjectStore
  readonly report: VerifyReport
  readonly isReferredTo: (key: string) => Promise<boolean>
  readonly signal: AbortSignal
}

async function checkOne(check: ObjectCheck, { store, report, isReferredTo, signal }: Checking): Promise<void> {
  const seen = await damageIn(check, store, signal)
  if (seen.length > 0 && !(await isReferredTo(check.object.key))) return // it has left the manifest meanwhile
  const findings = seen.length > 0 ? await damageIn(check, store, signal) : seen
  if (findings.length === 0) report.whole(check.object)
  for (const finding of findings) report.damage(finding)
}

/** What is wrong with the object; nothing where it is whole. Fails only as the store does. */
export async function damageIn(
  { object: { key }, affects, faults }: ObjectCheck,
  store: ObjectStore,
  signal: AbortSignal,
): Promise<Finding[]> {
  const findings: Finding[] = []
  const report = { damage: (finding: Finding) => void findings.push(finding) }
  const found = await attempted(report, key, affects, () => faults(store, signal))
  return [...findings, ...(found ?? []).map(fault => ({ key, ...fault, affects }))]
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
