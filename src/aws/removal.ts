import type { Clock } from '../base/clock.ts'
import type { RecoveryRecord } from '../timeline/recovery.ts'
import type { Ec2Calls, Image, Instance, Snapshot, Volume } from './ec2-calls.ts'
import { errorNameOf } from './failures.ts'
import { known } from './machines.ts'
import type { AwsMemory } from './memory.ts'
import { until } from './polling.ts'
import { deleteSnapshot } from './snapshots.ts'
import { ownKeys, type TagTable } from './tags.ts'

// Everything of a recovery goes, found by its tag: what the record remembers is not asked, for a process may have died between a creation and
// its noting. What was begun and not noted may also be in no listing for a while; so the look that finds nothing is repeated before it is believed.

/** Instances that end, and the volumes that they hold. */
const goneMillisMax = 30 * 60_000
/** What was created just before a process died is listed within this. */
const unlistedMillisMax = 20_000

interface Found {
  readonly instances: readonly Instance[]
  readonly images: readonly Image[]
  readonly volumes: readonly Volume[]
  readonly snapshots: readonly Snapshot[]
}

/** Nothing that bears these tags is left on return. */
export async function removeTagged(
  tags: TagTable,
  isSomethingUnnoted: boolean,
  ec2: Ec2Calls,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  let emptySinceMillis: number | undefined
  const isGone = async (): Promise<true | undefined> => {
    const found = await lookFor(tags, ec2, signal)
    if (countOf(found) === 0) {
      const nowMillis = clock.monotonicMillis()
      emptySinceMillis ??= nowMillis
      return !isSomethingUnnoted || nowMillis - emptySinceMillis >= unlistedMillisMax ? true : undefined
    }
    emptySinceMillis = undefined
    await removeFound(found, ec2, signal)
    return undefined
  }
  await until('all of the recovery is gone', isGone, goneMillisMax, clock, signal)
}

async function lookFor(tags: TagTable, ec2: Ec2Calls, signal: AbortSignal): Promise<Found> {
  const instances = await ec2.instances({ tags }, signal)
  return {
    instances: instances.filter(({ State }) => State?.Name !== 'terminated'),
    images: await ec2.images({ tags }, signal),
    volumes: (await ec2.volumes({ tags }, signal)).filter(({ State }) => State !== 'deleting' && State !== 'deleted'),
    snapshots: await ec2.snapshots({ tags }, signal),
  }
}

function countOf({ instances, images, volumes, snapshots }: Found): number {
  return instances.length + images.length + volumes.length + snapshots.length
}

/** One round: what others still hold waits for the next. */
async function removeFound(
  { instances, images, volumes, snapshots }: Found,
  ec2: Ec2Calls,
  signal: AbortSignal,
): Promise<void> {
  for (const { InstanceId = '', State } of instances)
    if (State?.Name !== 'shutting-down') await gone(() => ec2.terminateInstance(InstanceId, signal))
  for (const { ImageId = '' } of images) await gone(() => ec2.deregisterImage(ImageId, signal))
  for (const { VolumeId = '', State } of volumes)
    if (State === 'available' || State === 'error') await gone(() => ec2.deleteVolume(VolumeId, signal))
  for (const { SnapshotId = '' } of snapshots) await gone(() => deleteSnapshot(SnapshotId, ec2, signal))
}

const heldNames = new Set(['VolumeInUse', 'IncorrectState', 'InvalidSnapshot.InUse', 'IncorrectInstanceState'])

async function gone(remove: () => Promise<void>): Promise<void> {
  try {
    await known(async () => (await remove(), []))
  } catch (error) {
    if (!heldNames.has(errorNameOf(error))) throw error
  }
}

/** True where a creation has begun of which the record does not have the end. */
export function hasUnnoted({ snapshots, volumes, machines }: AwsMemory): boolean {
  return (
    Object.values(snapshots).some(({ snapshot }) => snapshot === undefined) ||
    Object.values(volumes).some(({ begun, volume }) => begun === true && volume === undefined) ||
    Object.values(machines).some(
      ({ imageBegun, image, attempt, instance }) =>
        (imageBegun === true && image === undefined) || (attempt !== undefined && instance === undefined),
    )
  )
}

export function tagsOfRecovery(record: RecoveryRecord): TagTable {
  return { [ownKeys.recovery]: record.id }
}
