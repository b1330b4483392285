import type { Clock } from '../base/clock.ts'
import type { RecoveryRecord } from '../timeline/recovery.ts'
import type { Ec2Calls, Image, Instance, Selection, Snapshot, Volume } from './ec2-calls.ts'
import { errorNameOf } from './failures.ts'
import { known } from './machines.ts'
import { mayBeUnnoted, memoryOf, type AwsMemory, type MachineMemory } from './memory.ts'
import { unlistedMillisMax, until } from './polling.ts'
import { deleteSnapshot } from './snapshots.ts'
import { ownKeys, type TagTable } from './tags.ts'
import type { Traces } from './traces.ts'

// Everything of a recovery goes: what bears its tag, and what the record remembers, for a thing just created may be in no listing for a while. What was
// begun and not noted bears the tag. A look that finds nothing is believed of what was seen before; of anything else only when it would be listed by now.

/** Instances that end, and the volumes that they hold. */
const goneMillisMax = 30 * 60_000

interface Found {
  readonly instances: readonly Instance[]
  readonly images: readonly Image[]
  readonly volumes: readonly Volume[]
  readonly snapshots: readonly Snapshot[]
}

/** What AWS has shown of a thing that is being removed; kept from one call to the next, for what is gone is never shown again. */
export class Sightings {
  readonly ids = new Set<string>()
  /** Of instances that were shown with all that they brought along. */
  readonly volumesOf = new Map<string, readonly string[]>()
}

/** Nothing that bears these tags or is among the traces is left on return. Fails as the calls do: called again it goes on. */
export async function removeTagged(
  tags: TagTable,
  traces: Traces,
  sightings: Sightings,
  { what }: { readonly what: string },
  ec2: Ec2Calls,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  const listedAtMillis = clock.monotonicMillis() + traces.unlistedMillis
  const { ids: seen, volumesOf: brought } = sightings
  const remembered = [...traces.snapshots, ...traces.volumes, ...traces.images, ...traces.instances]
  const isGone = async (): Promise<true | undefined> => {
    const isAllListed = clock.monotonicMillis() >= listedAtMillis // before the look: it is of then
    const found = await lookFor(tags, traces, seen, ec2, signal)
    if (countOf(found) === 0) {
      const isKnown =
        !traces.isSomethingUnnoted &&
        [...traces.volumesBrought.keys()].every(instance => brought.has(instance)) &&
        [...remembered, ...[...brought.values()].flat()].every(id => seen.has(id))
      return isKnown || isAllListed ? true : undefined
    }
    for (const [instance, volumes] of volumesOf(found))
      if (volumes.length >= (traces.volumesBrought.get(instance) ?? Infinity)) brought.set(instance, volumes)
    await removeFound(found, ec2, signal)
    return undefined
  }
  await until(what, isGone, goneMillisMax, clock, signal)
}

/** By tag, and by id what has not been seen yet. */
async function lookFor(
  tags: TagTable,
  traces: Traces,
  seen: Set<string>,
  ec2: Ec2Calls,
  signal: AbortSignal,
): Promise<Found> {
  const look = async <T>(
    list: (selection: Selection) => Promise<readonly T[]>,
    idOf: (found: T) => string | undefined,
    ids: readonly string[],
  ): Promise<readonly T[]> => {
    const found = [...(await list({ tags }))]
    const note = (): void => found.forEach(each => seen.add(idOf(each) ?? ''))
    note()
    for (const id of ids) if (!seen.has(id)) found.push(...(await known(() => list({ ids: [id] })))) // one by one: an unknown one refuses all
    note()
    return found
  }
  const instances = await look(
    each => ec2.instances(each, signal),
    ({ InstanceId }) => InstanceId,
    traces.instances,
  )
  const images = await look(
    each => ec2.images(each, signal),
    ({ ImageId }) => ImageId,
    traces.images,
  )
  const volumes = await look(
    each => ec2.volumes(each, signal),
    ({ VolumeId }) => VolumeId,
    traces.volumes,
  )
  const snapshots = await look(
    each => ec2.snapshots(each, signal),
    ({ SnapshotId }) => SnapshotId,
    traces.snapshots,
  )
  return {
    instances: instances.filter(({ State }) => State?.Name !== 'terminated'),
    images,
    volumes: volumes.filter(({ State }) => State !== 'deleting' && State !== 'deleted'),
    snapshots,
  }
}

/** By instance, as AWS shows it. */
function volumesOf({ instances }: Found): [string, string[]][] {
  return instances.map(({ InstanceId = '', BlockDeviceMappings = [] }) => [
    InstanceId,
    BlockDeviceMappings.flatMap(({ Ebs }) => Ebs?.VolumeId ?? []),
  ])
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

/** The clock may have jumped since the last creation: what lies ahead of it counts as now. */
export function tracesOf({ memory, vms }: RecoveryRecord, clock: Clock): Traces {
  const remembered = memoryOf(memory)
  const { snapshots, volumes, machines, changedAtMicros } = remembered
  const ids = (all: readonly (string | undefined)[]): string[] =>
    all.filter(id => id !== undefined && id !== '') as string[]
  const made = Object.values(machines)
  const sinceMillis = changedAtMicros === undefined ? 0 : (clock.timestampMicros() - changedAtMicros) / 1000
  return {
    snapshots: ids(Object.values(snapshots).map(({ snapshot }) => snapshot)),
    volumes: ids([
      ...Object.values(volumes).map(({ volume }) => volume),
      ...made.map(({ helperRoot, isHelperRootGone }) => (isHelperRootGone === true ? undefined : helperRoot)),
    ]),
    images: ids(made.map(({ image }) => image)),
    instances: ids(made.map(({ instance }) => instance)),
    volumesBrought: volumesBrought(remembered, vms),
    isSomethingUnnoted: hasUnnoted(remembered),
    unlistedMillis: memory === null ? 0 : Math.max(0, unlistedMillisMax - Math.max(0, sinceMillis)),
  }
}

function volumesBrought({ machines, volumes }: AwsMemory, vms: RecoveryRecord['vms']): Map<string, number> {
  const isNoted = (volume: number): boolean => volumes[volume]?.volume !== undefined
  const brought = new Map<string, number>()
  for (const { name, volumes: own } of vms) {
    const { instance } = machines[name] ?? {}
    if (instance !== undefined && !own.every(isNoted)) brought.set(instance, own.length)
  }
  return brought
}

function hasUnnoted({ snapshots, volumes, machines }: AwsMemory): boolean {
  // What AWS has refused at every try was never made. An attempt after the first follows one of which something was made.
  const mayRun = ({ attempt = 0, isInstanceRefused }: MachineMemory): boolean =>
    attempt > 1 || (attempt > 0 && isInstanceRefused !== true)
  return (
    Object.values(snapshots).some(mayBeUnnoted) ||
    Object.values(volumes).some(
      ({ begun, volume, isRefused }) => begun === true && volume === undefined && isRefused !== true,
    ) ||
    Object.values(machines).some(
      machine =>
        (machine.imageBegun === true && machine.image === undefined && machine.isImageRefused !== true) ||
        (mayRun(machine) && machine.instance === undefined) ||
        (machine.attempt ?? 0) > 1,
    )
  )
}

export function tagsOfRecovery(record: RecoveryRecord): TagTable {
  return { [ownKeys.recovery]: record.id }
}
