import {
  AttachVolumeCommand,
  CreateTagsCommand,
  CreateVolumeCommand,
  DeleteSnapshotCommand,
  DeleteVolumeCommand,
  DeregisterImageCommand,
  DescribeAvailabilityZonesCommand,
  DescribeImagesCommand,
  DescribeInstancesCommand,
  DescribeInstanceTypeOfferingsCommand,
  DescribeInstanceTypesCommand,
  DescribeKeyPairsCommand,
  DescribeSecurityGroupsCommand,
  DescribeSnapshotsCommand,
  DescribeSubnetsCommand,
  DescribeVolumesCommand,
  DetachVolumeCommand,
  RegisterImageCommand,
  RunInstancesCommand,
  StartInstancesCommand,
  StopInstancesCommand,
  TerminateInstancesCommand,
  type EC2Client,
  type Image,
  type Instance,
  type InstanceTypeInfo,
  type RegisterImageCommandInput,
  type RunInstancesCommandInput,
  type SecurityGroup,
  type Snapshot,
  type Subnet,
  type Volume,
} from '@aws-sdk/client-ec2'
import type { Attempts } from './attempts.ts'
import type { Tries } from './creation.ts'
import type { VolumeSettings } from './settings.ts'
import { tagList, type TagTable, type TaggedKind } from './tags.ts'

export type { Image, Instance, InstanceTypeInfo, SecurityGroup, Snapshot, Subnet, Volume } from '@aws-sdk/client-ec2'

/** Ids of what is looked for, or a tag that it bears. */
export type Selection = { readonly ids: readonly string[] } | { readonly tags: TagTable }

const pageItemsMax = 500
/** What an account has in use is counted so far: a plan does not wait for the rest. */
const usagePagesMax = 40

type Page<T> = { readonly items: readonly T[] | undefined; readonly next: string | undefined }

/** The calls of the EC2 API that a recovery makes. All may be made again: creations by token, or after a look whether it is there. */
export class Ec2Calls {
  readonly #client: EC2Client
  readonly #attempts: Attempts

  constructor(client: EC2Client, attempts: Attempts) {
    this.#client = client
    this.#attempts = attempts
  }

  /** NOT_FOUND where an id is unknown. */
  snapshots(selection: Selection, signal: AbortSignal): Promise<Snapshot[]> {
    const [ids, filters] = selected(selection)
    return this.#all('ec2:DescribeSnapshots', signal, async (NextToken, abortSignal) => {
      const command = new DescribeSnapshotsCommand({
        OwnerIds: ['self'],
        ...filters,
        ...(ids === undefined ? paged(NextToken) : { SnapshotIds: ids }),
      })
      const page = await this.#client.send(command, { abortSignal })
      return { items: page.Snapshots, next: page.NextToken }
    })
  }

  volumes(selection: Selection, signal: AbortSignal): Promise<Volume[]> {
    const [ids, filters] = selected(selection)
    return this.#all('ec2:DescribeVolumes', signal, async (NextToken, abortSignal) => {
      const command = new DescribeVolumesCommand({
        ...filters,
        ...(ids === undefined ? paged(NextToken) : { VolumeIds: ids }),
      })
      const page = await this.#client.send(command, { abortSignal })
      return { items: page.Volumes, next: page.NextToken }
    })
  }

  images(selection: Selection, signal: AbortSignal): Promise<Image[]> {
    const [ids, filters] = selected(selection)
    return this.#all('ec2:DescribeImages', signal, async (NextToken, abortSignal) => {
      const command = new DescribeImagesCommand({
        ...filters,
        ...(ids === undefined ? { Owners: ['self'], ...paged(NextToken) } : { ImageIds: ids }),
      })
      const page = await this.#client.send(command, { abortSignal })
      return { items: page.Images, next: page.NextToken }
    })
  }

  /** Terminated ones, which are shown for an hour, too. */
  instances(selection: Selection, signal: AbortSignal): Promise<Instance[]> {
    const [ids, filters] = selected(selection)
    return this.#all('ec2:DescribeInstances', signal, async (NextToken, abortSignal) => {
      const command = new DescribeInstancesCommand({
        ...filters,
        ...(ids === undefined ? paged(NextToken) : { InstanceIds: ids }),
      })
      const page = await this.#client.send(command, { abortSignal })
      return { items: page.Reservations?.flatMap(({ Instances = [] }) => Instances), next: page.NextToken }
    })
  }

  /** The volume's id. */
  async createVolume(
    volume: {
      readonly token: string
      readonly snapshot: string
      readonly zone: string
      readonly settings: VolumeSettings
      readonly tags: TagTable
    },
    tries: Tries,
    signal: AbortSignal,
  ): Promise<string> {
    const { token, snapshot, zone, settings, tags } = volume
    const command = new CreateVolumeCommand({
      AvailabilityZone: zone,
      SnapshotId: snapshot,
      ClientToken: token,
      ...volumeParameters(settings),
      TagSpecifications: [tagSpecification('volume', tags)],
    })
    const { VolumeId = '' } = await this.#attempts.creating('ec2:CreateVolume', tries, signal, abortSignal =>
      this.#client.send(command, { abortSignal }),
    )
    return VolumeId
  }

  /** CLOUD_REFUSED with InvalidAMIName.Duplicate where one of its name is there. */
  async registerImage(input: RegisterImageCommandInput, tries: Tries, signal: AbortSignal): Promise<string> {
    const command = new RegisterImageCommand(input)
    const { ImageId = '' } = await this.#attempts.creating('ec2:RegisterImage', tries, signal, abortSignal =>
      this.#client.send(command, { abortSignal }),
    )
    return ImageId
  }

  async runInstance(
    input: Omit<RunInstancesCommandInput, 'MinCount' | 'MaxCount'>,
    tries: Tries,
    signal: AbortSignal,
  ): Promise<Instance> {
    const command = new RunInstancesCommand({ ...input, MinCount: 1, MaxCount: 1 })
    const { Instances = [] } = await this.#attempts.creating('ec2:RunInstances', tries, signal, abortSignal =>
      this.#client.send(command, { abortSignal }),
    )
    return Instances[0] ?? {}
  }

  async attachVolume(volume: string, instance: string, device: string, signal: AbortSignal): Promise<void> {
    const command = new AttachVolumeCommand({ VolumeId: volume, InstanceId: instance, Device: device })
    await this.#send('ec2:AttachVolume', signal, abortSignal => this.#client.send(command, { abortSignal }))
  }

  async detachVolume(volume: string, signal: AbortSignal): Promise<void> {
    const command = new DetachVolumeCommand({ VolumeId: volume })
    await this.#send('ec2:DetachVolume', signal, abortSignal => this.#client.send(command, { abortSignal }))
  }

  async stopInstance(instance: string, signal: AbortSignal): Promise<void> {
    const command = new StopInstancesCommand({ InstanceIds: [instance] })
    await this.#send('ec2:StopInstances', signal, abortSignal => this.#client.send(command, { abortSignal }))
  }

  async startInstance(instance: string, signal: AbortSignal): Promise<void> {
    const command = new StartInstancesCommand({ InstanceIds: [instance] })
    await this.#send('ec2:StartInstances', signal, abortSignal => this.#client.send(command, { abortSignal }))
  }

  async terminateInstance(instance: string, signal: AbortSignal): Promise<void> {
    const command = new TerminateInstancesCommand({ InstanceIds: [instance] })
    await this.#send('ec2:TerminateInstances', signal, abortSignal => this.#client.send(command, { abortSignal }))
  }

  async deregisterImage(image: string, signal: AbortSignal): Promise<void> {
    const command = new DeregisterImageCommand({ ImageId: image })
    await this.#send('ec2:DeregisterImage', signal, abortSignal => this.#client.send(command, { abortSignal }))
  }

  async deleteVolume(volume: string, signal: AbortSignal): Promise<void> {
    const command = new DeleteVolumeCommand({ VolumeId: volume })
    await this.#send('ec2:DeleteVolume', signal, abortSignal => this.#client.send(command, { abortSignal }))
  }

  async deleteSnapshot(snapshot: string, signal: AbortSignal): Promise<void> {
    const command = new DeleteSnapshotCommand({ SnapshotId: snapshot })
    await this.#send('ec2:DeleteSnapshot', signal, abortSignal => this.#client.send(command, { abortSignal }))
  }

  async createTags(resource: string, tags: TagTable, signal: AbortSignal): Promise<void> {
    const command = new CreateTagsCommand({ Resources: [resource], Tags: tagList(tags) })
    await this.#send('ec2:CreateTags', signal, abortSignal => this.#client.send(command, { abortSignal }))
  }

  async subnet(id: string, signal: AbortSignal): Promise<Subnet> {
    const command = new DescribeSubnetsCommand({ SubnetIds: [id] })
    const { Subnets = [] } = await this.#send('ec2:DescribeSubnets', signal, abortSignal =>
      this.#client.send(command, { abortSignal }),
    )
    return Subnets[0] ?? {}
  }

  /** CLOUD_REFUSED with InvalidParameterValue where the region has none of the name. */
  async zone(name: string, signal: AbortSignal): Promise<void> {
    const command = new DescribeAvailabilityZonesCommand({ ZoneNames: [name] })
    await this.#send('ec2:DescribeAvailabilityZones', signal, abortSignal =>
      this.#client.send(command, { abortSignal }),
    )
  }

  async instanceType(name: string, signal: AbortSignal): Promise<InstanceTypeInfo> {
    const command = new DescribeInstanceTypesCommand({
      InstanceTypes: [name as NonNullable<InstanceTypeInfo['InstanceType']>],
    })
    const { InstanceTypes = [] } = await this.#send('ec2:DescribeInstanceTypes', signal, abortSignal =>
      this.#client.send(command, { abortSignal }),
    )
    return InstanceTypes[0] ?? {}
  }

  /** The zones of the region that have machines of the type; none where there is no such type. */
  async zonesOffering(instanceType: string, signal: AbortSignal): Promise<readonly string[]> {
    const Filters = [{ Name: 'instance-type', Values: [instanceType] }]
    const offerings = await this.#all('ec2:DescribeInstanceTypeOfferings', signal, async (NextToken, abortSignal) => {
      const command = new DescribeInstanceTypeOfferingsCommand({
        LocationType: 'availability-zone',
        Filters,
        ...paged(NextToken),
      })
      const page = await this.#client.send(command, { abortSignal })
      return { items: page.InstanceTypeOfferings, next: page.NextToken }
    })
    return offerings.map(({ Location = '' }) => Location).sort()
  }

  /** Of the account, whoever has begun them. */
  async pendingSnapshotCount(signal: AbortSignal): Promise<number> {
    const Filters = [{ Name: 'status', Values: ['pending'] }]
    const pending = await this.#all('ec2:DescribeSnapshots', signal, async (NextToken, abortSignal) => {
      const command = new DescribeSnapshotsCommand({ OwnerIds: ['self'], Filters, ...paged(NextToken) })
      const page = await this.#client.send(command, { abortSignal })
      return { items: page.Snapshots, next: page.NextToken }
    })
    return pending.length
  }

  /** Of all volumes of a type, whoever has made them; at least so much where it is not whole. */
  async storageInUse(type: string, signal: AbortSignal): Promise<{ sizeGiB: number; iops: number; isWhole: boolean }> {
    const Filters = [{ Name: 'volume-type', Values: [type] }]
    const inUse = { sizeGiB: 0, iops: 0 }
    const isWhole = await this.#pages('ec2:DescribeVolumes', usagePagesMax, signal, async (NextToken, abortSignal) => {
      const command = new DescribeVolumesCommand({ Filters, ...paged(NextToken) })
      const { Volumes = [], NextToken: next } = await this.#client.send(command, { abortSignal })
      const add = (): void => {
        for (const { Size = 0, Iops = 0 } of Volumes) {
          inUse.sizeGiB += Size
          inUse.iops += Iops
        }
      }
      return { take: add, next }
    })
    return { ...inUse, isWhole }
  }

  /** Of the account, whoever has begun them. */
  async snapshotCount(signal: AbortSignal): Promise<{ count: number; isWhole: boolean }> {
    let count = 0
    const isWhole = await this.#pages(
      'ec2:DescribeSnapshots',
      usagePagesMax,
      signal,
      async (NextToken, abortSignal) => {
        const command = new DescribeSnapshotsCommand({ OwnerIds: ['self'], ...paged(NextToken) })
        const { Snapshots = [], NextToken: next } = await this.#client.send(command, { abortSignal })
        return { take: () => void (count += Snapshots.length), next }
      },
    )
    return { count, isWhole }
  }

  /** Of On-Demand instances of the account that run, or are about to, by type. */
  async runningVcpus(signal: AbortSignal): Promise<{ byType: ReadonlyMap<string, number>; isWhole: boolean }> {
    const Filters = [{ Name: 'instance-state-name', Values: ['pending', 'running'] }]
    const byType = new Map<string, number>()
    const isWhole = await this.#pages(
      'ec2:DescribeInstances',
      usagePagesMax,
      signal,
      async (NextToken, abortSignal) => {
        const command = new DescribeInstancesCommand({ Filters, ...paged(NextToken) })
        const { Reservations = [], NextToken: next } = await this.#client.send(command, { abortSignal })
        const onDemand = Reservations.flatMap(({ Instances = [] }) => Instances).filter(
          ({ InstanceLifecycle }) => InstanceLifecycle === undefined,
        )
        const add = (): void => {
          for (const { InstanceType = '', CpuOptions: { CoreCount = 0, ThreadsPerCore = 1 } = {} } of onDemand)
            byType.set(InstanceType, (byType.get(InstanceType) ?? 0) + CoreCount * ThreadsPerCore)
        }
        return { take: add, next }
      },
    )
    return { byType, isWhole }
  }

  async securityGroups(ids: readonly string[], signal: AbortSignal): Promise<readonly SecurityGroup[]> {
    const command = new DescribeSecurityGroupsCommand({ GroupIds: [...ids] })
    const { SecurityGroups = [] } = await this.#send('ec2:DescribeSecurityGroups', signal, abortSignal =>
      this.#client.send(command, { abortSignal }),
    )
    return SecurityGroups
  }

  /** NOT_FOUND where there is none of the name. */
  async keyPair(name: string, signal: AbortSignal): Promise<void> {
    const command = new DescribeKeyPairsCommand({ KeyNames: [name] })
    await this.#send('ec2:DescribeKeyPairs', signal, abortSignal => this.#client.send(command, { abortSignal }))
  }

  async #send<T>(call: string, signal: AbortSignal, send: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return await this.#attempts.repeatable(call, signal, send)
  }

  async #all<T>(
    call: string,
    signal: AbortSignal,
    send: (nextToken: string | undefined, signal: AbortSignal) => Promise<Page<T>>,
  ): Promise<T[]> {
    const all: T[] = []
    await this.#pages(call, Infinity, signal, async (token, abortSignal) => {
      const { items = [], next } = await send(token, abortSignal)
      return { take: () => void all.push(...items), next }
    })
    return all
  }

  /** Each page is taken once, however often it was asked for. Whether those were all pages. */
  async #pages(
    call: string,
    pagesMax: number,
    signal: AbortSignal,
    send: (
      nextToken: string | undefined,
      signal: AbortSignal,
    ) => Promise<{ readonly take: () => void; readonly next: string | undefined }>,
  ): Promise<boolean> {
    let token: string | undefined
    for (let pageCount = 0; pageCount < pagesMax; pageCount++) {
      const { take, next } = await this.#send(call, signal, abortSignal => send(token, abortSignal))
      take()
      token = next === '' ? undefined : next
      if (token === undefined) return true
    }
    return false
  }
}

export function tagSpecification(kind: TaggedKind, tags: TagTable) {
  return { ResourceType: kind, Tags: tagList(tags) }
}

/** As CreateVolume and the mappings of RunInstances take them. */
export function volumeParameters({ type, iops, throughput, initializationRate }: VolumeSettings) {
  return {
    VolumeType: type,
    ...(iops === undefined ? {} : { Iops: iops }),
    ...(throughput === undefined ? {} : { Throughput: throughput }),
    ...(initializationRate === undefined ? {} : { VolumeInitializationRate: initializationRate }),
  }
}

function selected(
  selection: Selection,
): [string[] | undefined, { readonly Filters?: { Name: string; Values: string[] }[] }] {
  if ('ids' in selection) return [[...selection.ids], {}]
  const Filters = Object.entries(selection.tags).map(([key, value]) => ({ Name: `tag:${key}`, Values: [value] }))
  return [undefined, { Filters }]
}

function paged(token: string | undefined): { readonly MaxResults: number; readonly NextToken?: string } {
  return { MaxResults: pageItemsMax, ...(token === undefined ? {} : { NextToken: token }) }
}
