import { Failure, failedWith } from '../base/failure.ts'
import { formatCheckpointId, type VpgId } from '../base/ids.ts'
import { verifyPack } from '../mirror/mirror.ts'
import type { ObjectStore } from '../store/object-store.ts'
import type { ObjectRef, PackRef, SegmentSpan, VpgState } from '../timeline/state.ts'
import { readCheckpointPage, readManifest, type NumberedObject, type ReadManifest } from './read.ts'

// Reads every object that a VPG's newest manifest refers to, and says of each that is damaged or missing what that costs.

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
  const manifest = await attempted(report, `${vpg}/commit/`, 'the whole VPG', () => readManifest(store, vpg, signal))
  if (manifest === undefined) return
  for (const object of [manifest.rootObject, ...pagesOf(manifest)]) report.whole(object)
  const { state } = manifest.contents
  for (const segment of [...state.segments, ...manifest.after.map(spanlessSegment)]) {
    await checkParts(report, segment.object, affectedBySegment(segment), async () => {
      return (await verifySegment(store, segment.object, signal)).faults
    })
  }
  for (const delta of state.deltas) {
    const span = `checkpoints ${formatCheckpointId(delta.fromOrdinal)} to ${formatCheckpointId(delta.toOrdinal)}`
    await checkParts(report, delta.checkpoints, `the list of ${span}`, async () => {
      await readCheckpointPage(store, vpg, delta.checkpoints, signal)
      return []
    })
    for (const pack of delta.packs) {
      await checkPack(store, report, pack, `${placeOf(state, pack)} in ${span} and in later ones`, signal)
    }
  }
  for (const { pack, asOfOrdinal } of state.regions) {
    if (pack === undefined) continue
    const place = placeOf(state, pack)
    await checkPack(store, report, pack, `${place} in checkpoints from ${formatCheckpointId(asOfOrdinal)} on`, signal)
  }
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

async function checkPack(
  store: ObjectStore,
  report: VerifyReport,
  pack: PackRef,
  affects: string,
  signal: AbortSignal,
): Promise<void> {
  await checkParts(report, pack.object, affects, async () => (await verifyPack(store, pack.object, signal)).faults)
}

async function checkParts(
  report: VerifyReport,
  object: ObjectRef,
  affects: string,
  check: () => Promise<readonly PlacedFault[]>,
): Promise<void> {
  const { key } = object
  const faults = await attempted(report, key, affects, check)
  if (faults === undefined) return
  if (faults.length === 0) report.whole(object)
  for (const fault of faults) report.damage({ key, ...fault, affects })
}

/** What `read` returns; undefined where the object is damaged, of another version or missing, which is then reported. */
async function attempted<T>(
  report: VerifyReport,
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
