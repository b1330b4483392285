import type { ImagePlan } from '../aging/service.ts'
import { assert } from '../base/assert.ts'
import type { Clock } from '../base/clock.ts'
import { formatCheckpointId } from '../base/ids.ts'
import { machinesMadeAtOnceMax, snapshotsWrittenAtOnceMax } from '../base/limits.ts'
import type { Image, SpoolableImage } from '../image/image.ts'
import type { TargetContext, TargetPlan, TargetRequest } from '../recovery/target.ts'
import { hasBootRecord } from './boot-record.ts'
import type { Chains } from './chains.ts'
import type { Ec2Calls } from './ec2-calls.ts'
import { known, makeMachine } from './machines.ts'
import { Memory, tokenOf } from './memory.ts'
import { planRecovery } from './preflight.ts'
import type { PutQuota } from './put-quota.ts'
import type { QuotaCalls } from './quota-calls.ts'
import { removeTagged, Sightings, tagsOfRecovery, tracesOf } from './removal.ts'
import type { AwsConfig } from './service.ts'
import { parseSettings, type AwsSettings, type MachineSettings } from './settings.ts'
import { sideBySide } from './side-by-side.ts'
import { makeSnapshot, type SnapshotTools } from './snapshots.ts'
import { ownKeys, recoveryTags } from './tags.ts'

// Recoveries as AWS has them: the story of each call, in the thread that speaks to AWS. What it asks of the daemon comes with the call.

export interface RecoveryTools extends SnapshotTools {
  readonly config: AwsConfig
  readonly ec2: Ec2Calls
  readonly quotas: QuotaCalls
  readonly putQuota: PutQuota
  readonly clock: Clock
  readonly chains: Chains
  readonly openImage: (plan: ImagePlan, signal: AbortSignal) => Promise<SpoolableImage>
}

interface VolumeOfMachine {
  readonly machine: MachineSettings
  readonly number: number
  readonly name: string
  readonly kmsKey: string | undefined
}

export class AwsRecoveries {
  readonly #tools: RecoveryTools
  /** Of removals that have not ended, by recovery. */
  readonly #sightings = new Map<string, Sightings>()

  constructor(tools: RecoveryTools) {
    this.#tools = tools
  }

  async plan(request: TargetRequest, signal: AbortSignal): Promise<TargetPlan> {
    const { chains } = this.#tools
    const lookAtChain = (volume: number, kmsKey: string | undefined) =>
      chains.outlookOf({ vpg: request.definition.id, volume, kmsKey }, request.checkpoint, signal)
    return await planRecovery(request, this.#tools, lookAtChain, signal)
  }

  async prepare(context: TargetContext): Promise<void> {
    const { record, definition } = context
    const { config, ec2, clock, putQuota } = this.#tools
    const settings = parseSettings(record.target.settings, record.vms, definition)
    const memory = new Memory(record.memory, json => context.remember(json), clock)
    const snapshots = await putQuota.learnDuring(context.signal, () => this.#makeSnapshots(context, settings, memory))
    const sizesBytes = new Map((record.checkpoint?.volumes ?? []).map(({ number, sizeBytes }) => [number, sizeBytes]))
    const work = { config, record, memory, ec2, clock, answerSignal: context.signal, snapshots, sizesBytes }
    await sideBySide(settings.machines, machinesMadeAtOnceMax, context.signal, async (machine, signal) => {
      await this.#lookWhetherItBoots(context, machine, memory, signal)
      const zone = await this.#zoneOf(machine, settings, signal)
      await makeMachine({ ...work, machine, zone }, signal)
    })
  }

  /** Held for as long as one volume takes: a plan keeps files of the log. */
  async #withImage<T>(
    context: TargetContext,
    signal: AbortSignal,
    work: (image: SpoolableImage) => Promise<T>,
  ): Promise<T> {
    const plan = await context.openPlan()
    try {
      return await work(await this.#tools.openImage(plan, signal))
    } finally {
      await context.release(plan)
    }
  }

  /** By volume number, each completed. */
  async #makeSnapshots(
    context: TargetContext,
    settings: AwsSettings,
    memory: Memory,
  ): Promise<ReadonlyMap<number, string>> {
    const volumes = settings.machines.flatMap(machine =>
      machine.volumes.map(({ number, name, kmsKey }) => ({ machine, number, name, kmsKey })),
    )
    const made = new Map<number, string>()
    await sideBySide(volumes, snapshotsWrittenAtOnceMax, context.signal, async (volume, signal) => {
      const make = (image: SpoolableImage) => this.#makeSnapshot(context, volume, memory, image, signal)
      made.set(volume.number, await this.#snapshotOf(context, volume.number, memory, signal, make))
    })
    return made
  }

  /** Nothing is read of a volume whose snapshot is completed. */
  async #snapshotOf(
    context: TargetContext,
    volume: number,
    memory: Memory,
    signal: AbortSignal,
    make: (image: SpoolableImage) => Promise<string>,
  ): Promise<string> {
    const known = memory.snapshot(volume)
    if (known?.isComplete === true && known.snapshot !== undefined) return known.snapshot
    return await this.#withImage(context, signal, make)
  }

  async #makeSnapshot(
    context: TargetContext,
    { machine, number, name, kmsKey }: VolumeOfMachine,
    memory: Memory,
    image: SpoolableImage,
    signal: AbortSignal,
  ): Promise<string> {
    const { record, definition } = context
    const { config, chains } = this.#tools
    const sizeBytes = image.volumes.find(each => each.number === number)?.sizeBytes ?? 0
    const { checkpoint } = image
    return await makeSnapshot(
      {
        image,
        volume: number,
        sizeBytes,
        description: `${machine.name} ${name} of ${definition.name} as of checkpoint ${formatCheckpointId(checkpoint.ordinal)}`,
        tags: recoveryTags('snapshot', config, record, {
          [ownKeys.vpg]: definition.id,
          [ownKeys.vm]: machine.name,
          [ownKeys.volume]: String(number),
          [ownKeys.sizeBytes]: String(sizeBytes),
          Name: `${machine.name} ${name} (${record.id})`,
        }),
        memory: () => memory.snapshot(number),
        remember: own => memory.setSnapshots({ [number]: own }),
        token: attempt => tokenOf(record.id, number, 'snapshot', attempt),
        kmsKey,
        chooseParent: () => chains.newestLink(definition.id, number, kmsKey),
        changes: parent => chains.changes({ vpg: definition.id, volume: number, parent, checkpoint }, signal),
        onProgress: doneBytes => context.progress(number, Math.min(doneBytes, sizeBytes), sizeBytes),
        answerSignal: context.signal,
      },
      this.#tools,
      signal,
    )
  }

  async #lookWhetherItBoots(
    context: TargetContext,
    machine: MachineSettings,
    memory: Memory,
    signal: AbortSignal,
  ): Promise<void> {
    if (machine.start === 'nothing' || memory.machine(machine.name).isBootable !== undefined) return
    const look = (image: Image): Promise<boolean> => hasBootRecord(image, machine.rootVolume, signal)
    await memory.setMachine(machine.name, { isBootable: await this.#withImage(context, signal, look) })
  }

  async #zoneOf(machine: MachineSettings, settings: AwsSettings, signal: AbortSignal): Promise<string> {
    if (machine.subnet === undefined) return settings.availabilityZone ?? ''
    const { AvailabilityZone } = await this.#tools.ec2.subnet(machine.subnet, signal)
    assert(AvailabilityZone !== undefined, 'a subnet lies in a zone')
    return AvailabilityZone
  }

  /** Machines and volumes stand by themselves; the image that started them goes, the snapshots stay: the way back reads what has changed since. */
  async commit({ record, signal }: TargetContext): Promise<void> {
    const { ec2 } = this.#tools
    const images = await ec2.images({ tags: tagsOfRecovery(record) }, signal)
    for (const { ImageId = '' } of images) await known(async () => (await ec2.deregisterImage(ImageId, signal), []))
  }

  async remove({ record, signal }: TargetContext): Promise<void> {
    const { ec2, clock } = this.#tools
    const what = `all of recovery ${record.id} is gone`
    const sightings = this.#sightings.get(record.id) ?? new Sightings()
    this.#sightings.set(record.id, sightings)
    await removeTagged(tagsOfRecovery(record), tracesOf(record, clock), sightings, { what }, ec2, clock, signal)
    this.#sightings.delete(record.id)
  }
}
