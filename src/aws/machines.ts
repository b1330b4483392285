import type { Clock } from '../base/clock.ts'
import { Failure, failedWith } from '../base/failure.ts'
import type { RecoveryRecord } from '../timeline/recovery.ts'
import { create, formerTries, type Tries } from './creation.ts'
import { tagSpecification, volumeParameters, type Ec2Calls, type Instance } from './ec2-calls.ts'
import { errorNameOf } from './failures.ts'
import { tokenOf, type Memory } from './memory.ts'
import { until } from './polling.ts'
import type { AwsConfig } from './service.ts'
import type { MachineSettings } from './settings.ts'
import { ownKeys, recoveryTags, type TagTable, type TaggedKind } from './tags.ts'

// A machine from the completed snapshots of its volumes. Every step looks what is there before it acts, so that it can be walked again from the
// beginning after a process died anywhere in it.
//
//   image      snapshot of the root ─> image ─> instance with all volumes
//   root-swap  instance of the helper image ─> stopped ─> its root volume out ─> ours in, the others too ─> started
//   nothing    volumes

export interface MachineWork {
  readonly config: AwsConfig
  readonly record: RecoveryRecord
  readonly machine: MachineSettings
  readonly memory: Memory
  readonly ec2: Ec2Calls
  readonly clock: Clock
  /** As Tries has it. */
  readonly answerSignal: AbortSignal
  /** Of volumes that no instance brings along. */
  readonly zone: string
  /** By volume number. */
  readonly snapshots: ReadonlyMap<number, string>
  readonly sizesBytes: ReadonlyMap<number, number>
}

const rootDevice = '/dev/sda1'
const settleMillisMax = 15 * 60_000
/** So long a creation of which only the beginning is known may be in no listing. */
const unlistedMillisMax = 30_000
/** So long what one server of AWS has shown may be unknown to another. */
const spreadingMillisMax = 60_000
const spreadingDelayMillis = 2_000
const instanceAttemptsMax = 4

/** All volumes are usable, and the instance, where there is to be one, runs. */
export async function makeMachine(work: MachineWork, signal: AbortSignal): Promise<void> {
  const { machine, memory } = work
  const isStarted = machine.start !== 'nothing' && memory.machine(machine.name).isBootable !== false
  if (!isStarted) {
    await ensureVolumes(work, signal)
    return
  }
  if (machine.start === 'image') await startFromImage(work, signal)
  else await startBySwap(work, signal)
}

async function startFromImage(work: MachineWork, signal: AbortSignal): Promise<void> {
  const { machine, memory, ec2, clock, snapshots } = work
  const image = await ensureImage(work, signal)
  const isAvailable = async (): Promise<true | undefined> => {
    const [found] = await known(() => ec2.images({ ids: [image] }, signal))
    if (found?.State === 'failed') throw failed(`the image ${image}`, found.StateReason?.Message)
    return found?.State === 'available' ? true : undefined
  }
  await until(`the image ${image} is available`, isAvailable, settleMillisMax, clock, signal)
  const mapping = deviceNames(machine).map(({ number, device }) => ({
    DeviceName: device,
    Ebs: {
      ...(device === rootDevice ? {} : { SnapshotId: snapshots.get(number) }),
      ...volumeParameters(settingsOf(machine, number)),
      DeleteOnTermination: false,
    },
  }))
  const userData = machine.userData
  const instance = await ensureInstance(work, signal, {
    ImageId: image,
    BlockDeviceMappings: mapping,
    ...(userData === undefined ? {} : { UserData: Buffer.from(userData).toString('base64') }),
  })
  await untilState(work, instance, 'running', signal)
  await adoptVolumes(work, instance, signal)
  await memory.setMachine(machine.name, { instance })
}

/** Each volume that came with the instance gets the tags that are its own. */
async function adoptVolumes(work: MachineWork, instance: string, signal: AbortSignal): Promise<void> {
  const { machine, memory, ec2, clock } = work
  const devices = deviceNames(machine)
  const look = async (): Promise<Map<string, string> | undefined> => {
    const [found] = await known(() => ec2.instances({ ids: [instance] }, signal))
    const mapped = new Map(
      (found?.BlockDeviceMappings ?? []).map(({ DeviceName = '', Ebs }) => [DeviceName, Ebs?.VolumeId ?? '']),
    )
    return devices.every(({ device }) => mapped.has(device)) ? mapped : undefined
  }
  const mapped = await until(`the volumes of ${instance} are attached`, look, settleMillisMax, clock, signal)
  for (const { number, device } of devices) {
    const volume = mapped.get(device) ?? ''
    if (memory.volume(number).volume === volume) continue
    const tag = (): Promise<true | undefined> =>
      known(async () => (await ec2.createTags(volume, volumeTags(work, number), signal), [true as const])).then(
        ([done]) => done,
      )
    await until(`the volume ${volume} is known`, tag, settleMillisMax, clock, signal)
    await memory.setVolume(number, { volume })
  }
}

async function startBySwap(work: MachineWork, signal: AbortSignal): Promise<void> {
  const { machine, memory, ec2 } = work
  const instance = await ensureInstance(work, signal, { ImageId: machine.helperImage })
  await ensureVolumes(work, signal)
  const devices = deviceNames(machine)
  const ours = new Set(devices.map(({ number }) => memory.volume(number).volume))
  const attached = await attachedTo(work, instance, signal)
  if (![...ours].every(volume => [...attached.values()].includes(volume ?? ''))) {
    await stop(work, instance, signal)
    await removeHelperRoot(work, instance, ours, signal)
    const root = await helperRootDevice(work, instance, signal)
    for (const { number, device } of devices)
      await attach(work, memory.volume(number).volume ?? '', instance, device === rootDevice ? root : device, signal)
  }
  await start(work, instance, signal)
  await onceKnown(() => ec2.createTags(instance, machineTags(work, 'instance'), signal), work, signal)
}

async function helperRootDevice(work: MachineWork, instance: string, signal: AbortSignal): Promise<string> {
  const [found] = await onceKnown(() => work.ec2.instances({ ids: [instance] }, signal), work, signal)
  return found?.RootDeviceName ?? rootDevice
}

/** The helper's own root volume is detached and deleted. */
async function removeHelperRoot(
  work: MachineWork,
  instance: string,
  ours: ReadonlySet<string | undefined>,
  signal: AbortSignal,
): Promise<void> {
  const { machine, memory, ec2, clock } = work
  const root = await helperRootDevice(work, instance, signal)
  const inPlace = (await attachedTo(work, instance, signal)).get(root)
  if (inPlace !== undefined && !ours.has(inPlace)) {
    await memory.setMachine(machine.name, { helperRoot: inPlace })
    await tolerating(['IncorrectState'], () => onceKnown(() => ec2.detachVolume(inPlace, signal), work, signal))
  }
  const { helperRoot, isHelperRootGone } = memory.machine(machine.name)
  if (helperRoot === undefined || isHelperRootGone === true) return
  const isGone = async (): Promise<true | undefined> => {
    const [found] = await known(() => ec2.volumes({ ids: [helperRoot] }, signal))
    if (found === undefined) return true
    if (found.State !== 'available') return undefined
    await known(async () => (await ec2.deleteVolume(helperRoot, signal), []))
    return true
  }
  await until(`the helper's root volume ${helperRoot} is detached`, isGone, settleMillisMax, clock, signal)
  await memory.setMachine(machine.name, { isHelperRootGone: true })
}

async function attach(
  work: MachineWork,
  volume: string,
  instance: string,
  device: string,
  signal: AbortSignal,
): Promise<void> {
  const { ec2, clock } = work
  const isAttached = async (): Promise<true | undefined> => {
    const [found] = await known(() => ec2.volumes({ ids: [volume] }, signal))
    const own = found?.Attachments?.find(({ InstanceId }) => InstanceId === instance)
    if (own?.State === 'attached') return true
    if (found?.State === 'available')
      await tolerating(['VolumeInUse', 'IncorrectState'], () =>
        onceKnown(() => ec2.attachVolume(volume, instance, device, signal), work, signal),
      )
    return undefined
  }
  await until(`the volume ${volume} is attached`, isAttached, settleMillisMax, clock, signal)
}

async function attachedTo(work: MachineWork, instance: string, signal: AbortSignal): Promise<Map<string, string>> {
  const [found] = await known(() => work.ec2.instances({ ids: [instance] }, signal))
  return new Map(
    (found?.BlockDeviceMappings ?? []).map(({ DeviceName = '', Ebs }) => [DeviceName, Ebs?.VolumeId ?? '']),
  )
}

async function stop(work: MachineWork, instance: string, signal: AbortSignal): Promise<void> {
  const state = await untilSettled(work, instance, signal)
  if (state === 'running') await onceKnown(() => work.ec2.stopInstance(instance, signal), work, signal)
  await untilState(work, instance, 'stopped', signal)
}

async function start(work: MachineWork, instance: string, signal: AbortSignal): Promise<void> {
  if ((await untilSettled(work, instance, signal)) === 'stopped')
    await onceKnown(() => work.ec2.startInstance(instance, signal), work, signal)
  await untilState(work, instance, 'running', signal)
}

/** The image of the machine's root volume, made once. */
async function ensureImage(work: MachineWork, signal: AbortSignal): Promise<string> {
  const { machine, memory, ec2, record, snapshots, clock } = work
  const { image, imageBegun, isImageRefused } = memory.machine(machine.name)
  if (image !== undefined) return image
  const former = formerTries(imageBegun === true, isImageRefused)
  const look = async (): Promise<string | undefined> =>
    (await ec2.images({ tags: { [ownKeys.recovery]: record.id, [ownKeys.vm]: machine.name } }, signal))[0]?.ImageId
  const found = former === 'doubtful' ? await patiently(look, clock, signal) : undefined
  const register = async (tries: Tries): Promise<string> => {
    try {
      const registerImage = () =>
        ec2.registerImage(
          {
            Name: `vra ${record.id} ${machine.name}`,
            Description: `${machine.name} as of ${checkpointOf(record)}, recovered by ${record.id}`,
            Architecture: machine.architecture,
            VirtualizationType: 'hvm',
            RootDeviceName: rootDevice,
            EnaSupport: true,
            ...(machine.bootMode === undefined ? {} : { BootMode: machine.bootMode }),
            BlockDeviceMappings: [
              {
                DeviceName: rootDevice,
                Ebs: { SnapshotId: snapshots.get(machine.rootVolume), DeleteOnTermination: false },
              },
            ],
            TagSpecifications: [tagSpecification('image', machineTags(work, 'image'))],
          },
          tries,
          signal,
        )
      return await onceKnown(registerImage, work, signal)
    } catch (error) {
      if (errorNameOf(error) !== 'InvalidAMIName.Duplicate') throw error
      return await until(`the image of ${machine.name} is listed`, look, settleMillisMax, clock, signal) // an answer was lost
    }
  }
  const notes = {
    former,
    begun: () => memory.setMachine(machine.name, { imageBegun: true, isImageRefused: false }),
    refused: () => memory.setMachine(machine.name, { isImageRefused: true }),
  }
  const made = found ?? (await create(notes, work.answerSignal, register))
  await memory.setMachine(machine.name, { image: made })
  return made
}

/** The machine's instance, asked for with a token that gives the same one again. */
async function ensureInstance(
  work: MachineWork,
  signal: AbortSignal,
  source: Pick<Parameters<Ec2Calls['runInstance']>[0], 'ImageId' | 'BlockDeviceMappings' | 'UserData'>,
): Promise<string> {
  const { machine, memory, ec2, record } = work
  for (;;) {
    const known = memory.machine(machine.name)
    if (known.instance !== undefined) return known.instance
    const attempt = known.attempt ?? 1
    if (attempt > instanceAttemptsMax)
      throw new Failure('CLOUD_REFUSED', `the instance of ${machine.name} ends again and again`, {
        machine: machine.name,
      })
    const notes = {
      former: formerTries(known.attempt !== undefined, known.isInstanceRefused),
      begun: () => memory.setMachine(machine.name, { attempt, isInstanceRefused: false }),
      refused: () => memory.setMachine(machine.name, { isInstanceRefused: true }),
    }
    const run = (tries: Tries) =>
      ec2.runInstance(
        {
          ...source,
          ClientToken: tokenOf(record.id, machine.name, 'instance', attempt),
          InstanceType: machine.instanceType as NonNullable<Instance['InstanceType']>,
          ...(machine.key === undefined ? {} : { KeyName: machine.key }),
          ...(machine.iamProfile === undefined ? {} : { IamInstanceProfile: { Name: machine.iamProfile } }),
          NetworkInterfaces: [
            {
              DeviceIndex: 0,
              SubnetId: machine.subnet,
              ...(machine.securityGroups.length === 0 ? {} : { Groups: [...machine.securityGroups] }),
              ...(machine.privateIp === undefined ? {} : { PrivateIpAddress: machine.privateIp }),
            },
          ],
          TagSpecifications: [
            tagSpecification('instance', machineTags(work, 'instance')),
            tagSpecification('network-interface', machineTags(work, 'network-interface')),
            tagSpecification('volume', machineTags(work, 'volume')),
          ],
        },
        tries,
        signal,
      )
    const made = await create(notes, work.answerSignal, tries => onceKnown(() => run(tries), work, signal))
    const isEnding = ['shutting-down', 'terminated'].includes(made.State?.Name ?? '')
    if (isEnding) await memory.setMachine(machine.name, { attempt: attempt + 1 })
    else await memory.setMachine(machine.name, { instance: made.InstanceId ?? '' })
  }
}

/** The volumes by themselves, usable on return. AWS makes them side by side: all are asked for before one is waited for. */
async function ensureVolumes(work: MachineWork, signal: AbortSignal): Promise<void> {
  const { volumes } = work.machine
  for (const { number } of volumes) await createVolume(work, number, signal)
  for (const { number } of volumes) await untilAvailable(work, number, signal)
}

async function createVolume(work: MachineWork, number: number, signal: AbortSignal): Promise<void> {
  const { machine, memory, ec2, record, snapshots, zone } = work
  const { begun, isRefused, volume: known } = memory.volume(number)
  if (known !== undefined) return
  const notes = {
    former: formerTries(begun === true, isRefused),
    begun: () => memory.setVolume(number, { begun: true, isRefused: false }),
    refused: () => memory.setVolume(number, { isRefused: true }),
  }
  const volume = {
    token: tokenOf(record.id, number, 'volume'),
    snapshot: snapshots.get(number) ?? '',
    zone,
    settings: settingsOf(machine, number),
    tags: volumeTags(work, number),
  }
  const ask = (tries: Tries) => onceKnown(() => ec2.createVolume(volume, tries, signal), work, signal)
  await memory.setVolume(number, { volume: await create(notes, work.answerSignal, ask) })
}

async function untilAvailable(work: MachineWork, number: number, signal: AbortSignal): Promise<void> {
  const { memory, ec2, clock } = work
  const volume = memory.volume(number).volume ?? ''
  const isThere = async (): Promise<true | undefined> => {
    const [found] = await known(() => ec2.volumes({ ids: [volume] }, signal))
    if (found?.State === 'error') throw failed(`the volume ${volume}`, undefined)
    return found?.State === 'available' || found?.State === 'in-use' ? true : undefined
  }
  await until(`the volume ${volume} is available`, isThere, settleMillisMax, clock, signal)
}

async function untilState(work: MachineWork, instance: string, state: string, signal: AbortSignal): Promise<void> {
  const look = async (): Promise<true | undefined> => {
    const [found] = await known(() => work.ec2.instances({ ids: [instance] }, signal))
    const name = found?.State?.Name
    if (name === 'terminated' || name === 'shutting-down')
      throw failed(`the instance ${instance}`, found?.StateReason?.Message)
    return name === state ? true : undefined
  }
  await until(`the instance ${instance} is ${state}`, look, settleMillisMax, work.clock, signal)
}

async function untilSettled(work: MachineWork, instance: string, signal: AbortSignal): Promise<string> {
  const look = async (): Promise<string | undefined> => {
    const [found] = await known(() => work.ec2.instances({ ids: [instance] }, signal))
    const name = found?.State?.Name
    return name === 'running' || name === 'stopped' || name === 'terminated' ? name : undefined
  }
  return await until(`the instance ${instance} settles`, look, settleMillisMax, work.clock, signal)
}

/** The devices of the machine's volumes: the root's, then /dev/sdf to /dev/sdp as AWS advises, then the other letters. */
export function deviceNames(machine: MachineSettings): { readonly number: number; readonly device: string }[] {
  const letters = [...'fghijklmnopbcdeqrstuvwxyz']
  return machine.volumes.map(({ number }) => {
    const device = number === machine.rootVolume ? rootDevice : `/dev/sd${letters.shift() ?? ''}`
    return { number, device }
  })
}

function settingsOf(machine: MachineSettings, number: number) {
  return machine.volumes.find(each => each.number === number)!
}

function machineTags({ config, record, machine }: MachineWork, kind: TaggedKind): TagTable {
  return recoveryTags(kind, config, record, { [ownKeys.vm]: machine.name, Name: `${machine.name} (${record.id})` })
}

function volumeTags({ config, record, machine, sizesBytes }: MachineWork, number: number): TagTable {
  const { name } = settingsOf(machine, number)
  return recoveryTags('volume', config, record, {
    [ownKeys.vm]: machine.name,
    [ownKeys.volume]: String(number),
    [ownKeys.sizeBytes]: String(sizesBytes.get(number) ?? 0),
    Name: `${machine.name} ${name} (${record.id})`,
  })
}

function checkpointOf({ checkpoint }: RecoveryRecord): string {
  return checkpoint === undefined ? 'a checkpoint' : new Date(checkpoint.timestampMicros / 1000).toISOString()
}

function failed(what: string, why: string | undefined): Failure {
  return new Failure('CLOUD_REFUSED', `${what} has failed: ${why ?? 'AWS does not say why'}`)
}

/** What is unknown (yet) is no failure: it is nothing. */
export async function known<T>(look: () => Promise<readonly T[]>): Promise<readonly T[]> {
  try {
    return await look()
  } catch (error) {
    if (failedWith(error, 'NOT_FOUND')) return []
    throw error
  }
}

/** AWS's servers learn of a thing one after the other: one that was seen a moment ago may be unknown to the next call, for a while. */
async function onceKnown<T>(act: () => Promise<T>, { clock }: MachineWork, signal: AbortSignal): Promise<T> {
  const deadlineMillis = clock.monotonicMillis() + spreadingMillisMax
  for (;;) {
    try {
      return await act()
    } catch (error) {
      if (!failedWith(error, 'NOT_FOUND') || clock.monotonicMillis() > deadlineMillis) throw error
    }
    await clock.sleep(spreadingDelayMillis, signal)
  }
}

/** These refusals say that somebody was faster, most likely ourselves. */
async function tolerating(names: readonly string[], act: () => Promise<void>): Promise<void> {
  try {
    await act()
  } catch (error) {
    if (!names.includes(errorNameOf(error))) throw error
  }
}

/** What was begun by a process that died may be listed late, or never have been. */
async function patiently<T>(
  look: () => Promise<T | undefined>,
  clock: Clock,
  signal: AbortSignal,
): Promise<T | undefined> {
  try {
    return await until('it is listed', look, unlistedMillisMax, clock, signal)
  } catch (error) {
    if (failedWith(error, 'CLOUD_UNAVAILABLE') && errorNameOf(error) === '') return undefined
    throw error
  }
}
