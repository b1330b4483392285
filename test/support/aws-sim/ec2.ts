import type { Account, Image, Instance, Snapshot, Tags, Volume } from './account.ts'
import { isTag } from './ebs.ts'
import { list, number, structure, text, texts, type Value, type Xml } from './query.ts'
import { Refusal, refuse } from './refusal.ts'

// The calls of the EC2 API that a recovery makes, with their states.

type Parameters = Readonly<Record<string, Value>>

/** Parameters that an action knows; others are refused, so that nothing is asked for in vain. */
const known: Readonly<Record<string, readonly string[]>> = {
  DescribeSnapshots: ['SnapshotId', 'Owner', 'Filter', 'MaxResults', 'NextToken'],
  DeleteSnapshot: ['SnapshotId'],
  CreateVolume: [
    'AvailabilityZone',
    'SnapshotId',
    'Size',
    'VolumeType',
    'Iops',
    'Throughput',
    'VolumeInitializationRate',
    'ClientToken',
    'TagSpecification',
  ],
  DescribeVolumes: ['VolumeId', 'Filter', 'MaxResults', 'NextToken'],
  AttachVolume: ['VolumeId', 'InstanceId', 'Device'],
  DetachVolume: ['VolumeId', 'InstanceId', 'Device', 'Force'],
  DeleteVolume: ['VolumeId'],
  RegisterImage: [
    'Name',
    'Description',
    'Architecture',
    'RootDeviceName',
    'BlockDeviceMapping',
    'VirtualizationType',
    'BootMode',
    'EnaSupport',
    'ImdsSupport',
    'TpmSupport',
    'TagSpecification',
  ],
  DeregisterImage: ['ImageId'],
  DescribeImages: ['ImageId', 'Owner', 'Filter', 'MaxResults', 'NextToken'],
  RunInstances: [
    'MinCount',
    'MaxCount',
    'ImageId',
    'InstanceType',
    'KeyName',
    'ClientToken',
    'UserData',
    'IamInstanceProfile',
    'NetworkInterface',
    'BlockDeviceMapping',
    'TagSpecification',
    'SubnetId',
    'SecurityGroupId',
    'PrivateIpAddress',
    'MetadataOptions',
  ],
  DescribeInstances: ['InstanceId', 'Filter', 'MaxResults', 'NextToken'],
  StopInstances: ['InstanceId', 'Force'],
  StartInstances: ['InstanceId'],
  TerminateInstances: ['InstanceId'],
  CreateTags: ['ResourceId', 'Tag'],
  DescribeAvailabilityZones: ['ZoneName', 'Filter'],
  DescribeSubnets: ['SubnetId', 'Filter', 'MaxResults', 'NextToken'],
  DescribeInstanceTypeOfferings: ['LocationType', 'Filter', 'MaxResults', 'NextToken'],
  DescribeInstanceTypes: ['InstanceType', 'Filter', 'MaxResults', 'NextToken'],
  DescribeSecurityGroups: ['GroupId', 'Filter', 'MaxResults', 'NextToken'],
  DescribeKeyPairs: ['KeyName', 'Filter'],
}

const idPatterns: Readonly<Record<string, RegExp>> = {
  snap: /^snap-[0-9a-f]{17}$/,
  vol: /^vol-[0-9a-f]{17}$/,
  ami: /^ami-[0-9a-f]{17}$/,
  i: /^i-[0-9a-f]{17}$/,
}

export interface Ec2Options {
  /** On one page of a listing. */
  readonly pageItemsMax: number
}

interface Disk {
  readonly device: string
  readonly volume: Omit<Volume, 'attachment' | 'settlesAtMillis'>
  readonly deleteOnTermination: boolean
}

export class Ec2 {
  readonly #account: Account
  readonly #options: Ec2Options
  readonly #deregistered = new Set<string>()

  constructor(account: Account, options: Ec2Options) {
    this.#account = account
    this.#options = options
  }

  /** The answer's inside. */
  perform(action: string, all: Parameters): Xml {
    const parameters = Object.fromEntries(
      Object.entries(all).filter(([name]) => !['Action', 'Version', 'DryRun'].includes(name)),
    )
    const names = known[action] ?? refuse('InvalidAction', `The action ${action} is not valid for this web service.`)
    const unknown = Object.keys(parameters).find(name => !names.includes(name))
    if (unknown !== undefined) refuse('UnknownParameter', `The parameter ${unknown} is not recognized`)
    if (all['Version'] !== '2016-11-15') refuse('NoSuchVersion', 'The requested version does not exist.')
    const plan = this.#actions[action]!(parameters)
    if (all['DryRun'] === 'true')
      throw new Refusal(412, 'DryRunOperation', 'Request would have succeeded, but DryRun flag is set.')
    return plan()
  }

  /** Each checks everything, and returns what does it. */
  readonly #actions: Readonly<Record<string, (parameters: Parameters) => () => Xml>> = {
    DescribeSnapshots: parameters => () => {
      if (!texts(parameters['Owner']).includes('self') && texts(parameters['SnapshotId']).length === 0)
        refuse('InvalidParameterCombination', 'all public snapshots would be listed')
      const seen = [...this.#account.snapshots.values()].filter(each =>
        this.#account.isListed({ createdMillis: each.startedMillis }),
      )
      return this.#describe(
        'snapshotSet',
        parameters,
        'SnapshotId',
        'InvalidSnapshot.NotFound',
        seen,
        each => ({
          snapshotId: each.id,
          status: this.#account.stateOfSnapshot(each),
          volumeSize: each.sizeGiB,
          encrypted: each.kmsKey !== undefined,
          kmsKeyId: each.kmsKey,
          progress: this.#account.stateOfSnapshot(each) === 'completed' ? '100%' : '0%',
          description: each.description,
          ownerId: '111122223333',
          startTime: '2026-01-01T00:00:00.000Z',
          tagSet: tagSet(each.tags),
        }),
        each => ({ status: this.#account.stateOfSnapshot(each) }),
      )
    },
    DeleteSnapshot: parameters => {
      const snapshot = this.#snapshot(text(parameters['SnapshotId']))
      const image = [...this.#account.images.values()].find(each => each.rootSnapshot === snapshot.id)
      if (image !== undefined)
        refuse('InvalidSnapshot.InUse', `The snapshot ${snapshot.id} is currently in use by ${image.id}`)
      return () => {
        this.#account.snapshots.delete(snapshot.id)
        return { return: true }
      }
    },
    CreateVolume: parameters => {
      const volume = this.#newVolume(parameters, text(parameters['AvailabilityZone']) ?? '')
      for (const [key, value] of tagsFor(parameters, 'volume')) volume.tags.set(key, value)
      return () => {
        const id = this.#once(parameters, () => {
          this.#account.volumes.set(volume.id, { ...volume, attachment: undefined, settlesAtMillis: 0 })
          return volume.id
        })
        const made = this.#account.volumes.get(id)
        return made === undefined ? { volumeId: id, status: 'deleted' } : this.#volumeXml(made)
      }
    },
    DescribeVolumes: parameters => () =>
      this.#describe(
        'volumeSet',
        parameters,
        'VolumeId',
        'InvalidVolume.NotFound',
        this.#listed(this.#account.volumes),
        each => this.#volumeXml(each),
        each => ({ 'volume-type': each.type }),
      ),
    AttachVolume: parameters => {
      const volume = this.#volume(text(parameters['VolumeId']))
      const instance = this.#instance(text(parameters['InstanceId']))
      const device = text(parameters['Device']) ?? refuse('MissingParameter', 'Device')
      if (this.#account.stateOfVolume(volume) === 'in-use') refuse('VolumeInUse', `${volume.id} is already attached`)
      if (this.#account.stateOfVolume(volume) !== 'available') refuse('IncorrectState', `${volume.id} is not available`)
      if (!['running', 'stopped'].includes(this.#account.stateOfInstance(instance)))
        refuse('IncorrectState', `${instance.id} is not running or stopped`)
      if (volume.zone !== instance.zone) refuse('InvalidVolume.ZoneMismatch', volume.id)
      if (this.#disksOf(instance).some(other => other.attachment?.device === device))
        refuse('InvalidParameterValue', `Invalid value '${device}' for unixDevice. Attachment point is already in use`)
      return () => {
        volume.attachment = { instance: instance.id, device, deleteOnTermination: false }
        volume.settlesAtMillis = this.#later()
        return attachmentXml(volume, 'attaching')
      }
    },
    DetachVolume: parameters => {
      const volume = this.#volume(text(parameters['VolumeId']))
      const { attachment } = volume
      if (this.#account.stateOfVolume(volume) !== 'in-use' || attachment === undefined)
        return refuse('IncorrectState', `Volume '${volume.id}' is in the 'available' state.`)
      const instance = this.#account.instances.get(attachment.instance)
      if (instance !== undefined && attachment.device === instance.rootDevice)
        if (this.#account.stateOfInstance(instance) !== 'stopped')
          refuse('OperationNotPermitted', `Unable to detach root volume '${volume.id}'`)
      return () => {
        const answer = attachmentXml(volume, 'detaching')
        volume.attachment = undefined
        volume.settlesAtMillis = this.#later()
        return answer
      }
    },
    DeleteVolume: parameters => {
      const volume = this.#volume(text(parameters['VolumeId']))
      if (this.#account.stateOfVolume(volume) === 'in-use') refuse('VolumeInUse', `Volume ${volume.id} is in use`)
      if (this.#account.stateOfVolume(volume) === 'creating') refuse('IncorrectState', `${volume.id} is being created`)
      return () => {
        this.#account.volumes.delete(volume.id)
        return { return: true }
      }
    },
    RegisterImage: parameters => {
      const name = text(parameters['Name']) ?? ''
      if (!/^[A-Za-z0-9()[\] ./\-'@_]{3,128}$/.test(name)) refuse('InvalidAMIName.Malformed', `AMI name "${name}"`)
      const other = [...this.#account.images.values()].find(each => each.name === name)
      if (other !== undefined)
        refuse('InvalidAMIName.Duplicate', `AMI name ${name} is already in use by AMI ${other.id}`)
      const rootDevice = text(parameters['RootDeviceName']) ?? refuse('MissingParameter', 'RootDeviceName')
      const mapped = list(parameters['BlockDeviceMapping']).find(each => each['DeviceName'] === rootDevice)
      const ebs = structure(mapped?.['Ebs'])
      if (ebs['Encrypted'] !== undefined) refuse('InvalidParameterCombination', 'encryption follows the snapshot')
      const snapshot = this.#completed(text(ebs['SnapshotId']))
      const architecture = text(parameters['Architecture']) ?? 'i386'
      const bootMode = text(parameters['BootMode'])
      if (!['x86_64', 'arm64'].includes(architecture)) refuse('InvalidParameterValue', `Architecture ${architecture}`)
      if (bootMode !== undefined && !['legacy-bios', 'uefi', 'uefi-preferred'].includes(bootMode))
        refuse('InvalidParameterValue', `BootMode ${bootMode}`)
      if (parameters['VirtualizationType'] !== 'hvm') refuse('InvalidParameterCombination', 'paravirtual is not served')
      const tags = tagsFor(parameters, 'image')
      return () => {
        const now = this.#account.nowMillis()
        const image: Image = {
          id: this.#account.newId('ami'),
          name,
          architecture,
          bootMode,
          rootDevice,
          rootSnapshot: snapshot.id,
          tags,
          platform: undefined,
          createdMillis: now,
          availableAtMillis: this.#later(),
        }
        this.#account.images.set(image.id, image)
        return { imageId: image.id }
      }
    },
    DeregisterImage: parameters => {
      const image = this.#image(text(parameters['ImageId']))
      return () => {
        this.#account.images.delete(image.id)
        this.#deregistered.add(image.id)
        return { return: true }
      }
    },
    DescribeImages: parameters => () =>
      this.#describe(
        'imagesSet',
        parameters,
        'ImageId',
        'InvalidAMIID.NotFound',
        this.#listed(this.#account.images),
        each => ({
          imageId: each.id,
          name: each.name,
          imageState: this.#account.nowMillis() >= each.availableAtMillis ? 'available' : 'pending',
          architecture: each.architecture,
          bootMode: each.bootMode,
          rootDeviceName: each.rootDevice,
          platform: each.platform,
          platformDetails: each.platform === 'windows' ? 'Windows' : 'Linux/UNIX',
          tagSet: tagSet(each.tags),
        }),
      ),
    RunInstances: parameters => {
      const instance = this.#newInstance(parameters)
      const disks = this.#newDisks(parameters, instance)
      return () => {
        const id = this.#once(parameters, () => {
          this.#account.instances.set(instance.id, instance)
          for (const { volume, device, deleteOnTermination } of disks)
            this.#account.volumes.set(volume.id, {
              ...volume,
              availableAtMillis: 0,
              attachment: { instance: instance.id, device, deleteOnTermination },
              settlesAtMillis: 0,
            })
          return instance.id
        })
        return { reservationId: 'r-0', instancesSet: [this.#instanceXml(this.#account.instances.get(id)!)] }
      }
    },
    DescribeInstances: parameters => () => {
      const shown = [...this.#account.instances.values()].filter(each => this.#account.isShown(each))
      return this.#describe(
        'reservationSet',
        parameters,
        'InstanceId',
        'InvalidInstanceID.NotFound',
        shown,
        each => ({ reservationId: 'r-0', instancesSet: [this.#instanceXml(each)] }),
        each => ({ 'client-token': each.token ?? '', 'instance-state-name': this.#account.stateOfInstance(each) }),
      )
    },
    StopInstances: parameters =>
      this.#turn(parameters, 'stopped', ['running', 'pending', 'stopping', 'stopped'], 'stopped'),
    StartInstances: parameters => this.#turn(parameters, 'running', ['stopped', 'running', 'pending'], 'running'),
    TerminateInstances: parameters => this.#turn(parameters, 'terminated', undefined, 'terminated'),
    CreateTags: parameters => {
      const owners = texts(parameters['ResourceId']).map(id => this.#tagsOf(id))
      const tags = readTags(parameters['Tag'])
      return () => {
        for (const own of owners) for (const [key, value] of tags) own.set(key, value)
        return { return: true }
      }
    },
    DescribeSubnets: parameters => () =>
      this.#describe(
        'subnetSet',
        parameters,
        'SubnetId',
        'InvalidSubnetID.NotFound',
        [...this.#account.subnets.values()],
        each => ({
          subnetId: each.id,
          vpcId: each.vpc,
          availabilityZone: each.zone,
          cidrBlock: each.cidr,
          state: 'available',
          availableIpAddressCount: this.#account.freeAddressCount(each),
        }),
      ),
    DescribeInstanceTypes: parameters => () => {
      for (const name of texts(parameters['InstanceType']))
        if (!this.#account.instanceTypes.has(name))
          refuse('InvalidInstanceType', `The following supplied instance types do not exist: [${name}]`)
      const found = [...this.#account.instanceTypes].filter(([name]) =>
        texts(parameters['InstanceType']).includes(name),
      )
      return {
        instanceTypeSet: found.map(([instanceType, { architectures, bootModes, vcpuCount }]) => ({
          instanceType,
          processorInfo: { supportedArchitectures: architectures },
          supportedBootModes: bootModes,
          vCpuInfo: { defaultVCpus: vcpuCount },
        })),
      }
    },
    DescribeInstanceTypeOfferings: parameters => () => {
      if (text(parameters['LocationType']) !== 'availability-zone')
        refuse('InvalidParameterValue', 'only zones are served here')
      const zones = [...new Set([...this.#account.subnets.values()].map(({ zone }) => zone))]
      const all = [...this.#account.instanceTypes].flatMap(([type, { zones: own = zones }]) =>
        own.map(zone => ({ id: `${type} ${zone}`, type, zone })),
      )
      return this.#describe(
        'instanceTypeOfferingSet',
        parameters,
        'none',
        'none',
        all,
        ({ type, zone }) => ({ instanceType: type, locationType: 'availability-zone', location: zone }),
        ({ type, zone }) => ({ 'instance-type': type, location: zone }),
      )
    },
    DescribeSecurityGroups: parameters => () =>
      this.#describe(
        'securityGroupInfo',
        parameters,
        'GroupId',
        'InvalidGroup.NotFound',
        [...this.#account.groups].map(([id, vpc]) => ({ id, vpc })),
        ({ id, vpc }) => ({ groupId: id, vpcId: vpc, groupName: id }),
      ),
    DescribeAvailabilityZones: parameters => () => {
      const zones = [...new Set([...this.#account.subnets.values()].map(({ zone }) => zone))]
      const missing = texts(parameters['ZoneName']).find(name => !zones.includes(name))
      if (missing !== undefined) refuse('InvalidParameterValue', `Invalid availability zone: [${missing}]`)
      return { availabilityZoneInfo: zones.map(zoneName => ({ zoneName, zoneState: 'available' })) }
    },
    DescribeKeyPairs: parameters => () => {
      const names = texts(parameters['KeyName'])
      const missing = names.find(name => !this.#account.keyPairs.has(name))
      if (missing !== undefined) refuse('InvalidKeyPair.NotFound', `The key pair '${missing}' does not exist`)
      return { keySet: [...this.#account.keyPairs].map(keyName => ({ keyName })) }
    },
  }

  #later(): number {
    return this.#account.nowMillis() + this.#account.options.settleMillis
  }

  #listed<T extends { readonly createdMillis: number }>(all: ReadonlyMap<string, T>): T[] {
    return [...all.values()].filter(each => this.#account.isListed(each))
  }

  #once(parameters: Parameters, create: () => string): string {
    const mismatch = (): Refusal =>
      new Refusal(400, 'IdempotentParameterMismatch', 'The token was used with other parameters.')
    const token = text(parameters['ClientToken'])
    if (token !== undefined && !/^[\x21-\x7e]{1,64}$/.test(token)) refuse('InvalidParameterValue', 'ClientToken')
    return this.#account.once(token, JSON.stringify(parameters), mismatch, create)
  }

  /** One page of what the ids and filters name. */
  #describe<T extends { readonly id: string; readonly tags?: Tags }>(
    set: string,
    parameters: Parameters,
    idParameter: string,
    missing: string,
    all: readonly T[],
    xml: (each: T) => Xml,
    fields: (each: T) => Readonly<Record<string, string>> = () => ({}),
  ): Xml {
    const ids = texts(parameters[idParameter])
    for (const id of ids) {
      const pattern = idPatterns[id.split('-')[0] ?? '']
      if (pattern !== undefined && !pattern.test(id))
        refuse(missing.replace('NotFound', 'Malformed'), `Invalid id: "${id}"`)
      if (!all.some(each => each.id === id)) refuse(missing, `The ID '${id}' does not exist`)
    }
    if (ids.length > 0 && parameters['MaxResults'] !== undefined)
      refuse('InvalidParameterCombination', 'MaxResults and ids exclude each other')
    const found = all
      .filter(each => ids.length === 0 || ids.includes(each.id))
      .filter(each =>
        list(parameters['Filter']).every(filter => {
          const name = text(filter['Name']) ?? ''
          const values = texts(filter['Value'])
          if (name.startsWith('tag:')) return values.includes(each.tags?.get(name.slice(4)) ?? '\0')
          const value = fields(each)[name]
          if (value === undefined) refuse('InvalidParameterValue', `The filter '${name}' is invalid`)
          return values.includes(value)
        }),
      )
    const from = Number((text(parameters['NextToken']) ?? 'p+/0').slice(3))
    const limit =
      ids.length > 0 ? Infinity : Math.min(this.#options.pageItemsMax, number(parameters['MaxResults']) ?? 1000)
    const page = found.slice(from, from + limit)
    const nextToken = from + limit < found.length ? `p+/${from + limit}` : undefined
    return { [set]: page.map(xml), nextToken }
  }

  #snapshot(id = ''): Snapshot {
    const found = this.#account.snapshots.get(id)
    if (found !== undefined && this.#account.isListed({ createdMillis: found.startedMillis })) return found
    return refuse('InvalidSnapshot.NotFound', `The snapshot '${id}' does not exist.`)
  }

  #completed(id: string | undefined): Snapshot {
    const snapshot = this.#snapshot(id)
    if (this.#account.stateOfSnapshot(snapshot) === 'completed') return snapshot
    return refuse('IncorrectState', `Snapshot is in invalid state - ${this.#account.stateOfSnapshot(snapshot)}`)
  }

  #volume(id = ''): Volume {
    const found = this.#account.volumes.get(id)
    if (found !== undefined && this.#account.isListed(found)) return found
    return refuse('InvalidVolume.NotFound', `The volume '${id}' does not exist.`)
  }

  #image(id = ''): Image {
    const found = this.#account.images.get(id)
    if (found !== undefined && this.#account.isListed(found)) return found
    if (this.#deregistered.has(id)) refuse('InvalidAMIID.Unavailable', `The image ID '${id}' is no longer available`)
    return refuse('InvalidAMIID.NotFound', `The image id '[${id}]' does not exist`)
  }

  #instance(id = ''): Instance {
    const found = this.#account.instances.get(id)
    if (found !== undefined && this.#account.isShown(found)) return found
    return refuse('InvalidInstanceID.NotFound', `The instance ID '${id}' does not exist`)
  }

  #disksOf(instance: Instance): Volume[] {
    return [...this.#account.volumes.values()].filter(({ attachment }) => attachment?.instance === instance.id)
  }

  #tagsOf(id: string): Tags {
    const kind = id.split('-')[0]
    if (kind === 'vol') return this.#volume(id).tags
    if (kind === 'snap') return this.#snapshot(id).tags
    if (kind === 'ami') return this.#image(id).tags
    if (kind === 'i') return this.#instance(id).tags
    const owner = [...this.#account.instances.values()].find(({ nic }) => nic.id === id)
    return owner?.nic.tags ?? refuse('InvalidID', `The ID '${id}' is not valid`)
  }

  #newVolume(ebs: Parameters, zone: string): Disk['volume'] {
    const snapshotId = text(ebs['SnapshotId'])
    const snapshot = snapshotId === undefined ? undefined : this.#completed(snapshotId)
    const sizeGiB = number(ebs['Size']) ?? number(ebs['VolumeSize']) ?? snapshot?.sizeGiB ?? 0
    if (sizeGiB < Math.max(1, snapshot?.sizeGiB ?? 1))
      refuse('InvalidParameterValue', `Volume of ${sizeGiB}GiB is smaller than snapshot '${snapshotId}'`)
    if (![...this.#account.subnets.values()].some(subnet => subnet.zone === zone))
      refuse('InvalidZone.NotFound', `The zone '${zone}' does not exist.`)
    const type = text(ebs['VolumeType']) ?? 'gp2'
    const [iops, throughput] = [number(ebs['Iops']), number(ebs['Throughput'])]
    const initializationRate = number(ebs['VolumeInitializationRate'])
    if (!['gp2', 'gp3', 'io1', 'io2', 'st1', 'sc1', 'standard'].includes(type)) refuse('UnknownVolumeType', type)
    if (iops !== undefined && !['gp3', 'io1', 'io2'].includes(type))
      refuse('InvalidParameterCombination', `The parameter iops is not supported for ${type} volumes.`)
    if (throughput !== undefined && type !== 'gp3')
      refuse('InvalidParameterCombination', `The parameter throughput is not supported for ${type} volumes.`)
    if (type === 'gp3' && iops !== undefined && (iops < 3000 || iops > 80_000))
      refuse('InvalidParameterValue', `Volume iops of ${iops} is out of its bounds`)
    if (throughput !== undefined && (throughput < 125 || throughput > 2000))
      refuse('InvalidParameterValue', `Throughput of ${throughput} is out of its bounds`)
    if (initializationRate !== undefined && (initializationRate < 100 || initializationRate > 300))
      refuse('InvalidParameterValue', `VolumeInitializationRate of ${initializationRate} is out of its bounds`)
    if (initializationRate !== undefined && snapshot === undefined)
      refuse('InvalidParameterCombination', 'VolumeInitializationRate needs a snapshot')
    return {
      id: this.#account.newId('vol'),
      sizeGiB,
      snapshot: snapshotId,
      kmsKey: snapshot?.kmsKey,
      zone,
      type,
      iops,
      throughput,
      initializationRate,
      tags: new Map<string, string>(),
      blocks: snapshot === undefined ? new Map<number, Buffer>() : this.#account.blocksOf(snapshot),
      createdMillis: this.#account.nowMillis(),
      availableAtMillis: this.#later(),
    }
  }

  #newInstance(parameters: Parameters): Instance {
    const image = this.#image(text(parameters['ImageId']))
    if (this.#account.nowMillis() < image.availableAtMillis) refuse('InvalidAMIID.Unavailable', image.id)
    if (parameters['MinCount'] !== '1' || parameters['MaxCount'] !== '1') refuse('InvalidParameterValue', 'MinCount')
    const typeName = text(parameters['InstanceType']) ?? 'm1.small'
    const type = this.#account.instanceTypes.get(typeName)
    if (type === undefined) return refuse('InvalidParameterValue', `Invalid value '${typeName}' for InstanceType.`)
    if (!type.architectures.includes(image.architecture))
      refuse('InvalidParameterValue', `The architecture '${image.architecture}' is not that of ${typeName}.`)
    if (image.bootMode === 'uefi' && !type.bootModes.includes('uefi'))
      refuse('InvalidParameterCombination', `${typeName} cannot boot by UEFI.`)
    const nics = list(parameters['NetworkInterface'])
    const nic = structure(nics[0])
    if (nics.length !== 1 || nic['DeviceIndex'] !== '0') refuse('InvalidParameterCombination', 'one interface')
    const subnet = this.#account.subnets.get(text(nic['SubnetId']) ?? '')
    if (subnet === undefined) return refuse('InvalidSubnetID.NotFound', `The subnet ID '${text(nic['SubnetId'])}'`)
    const groups = texts(nic['SecurityGroupId'])
    for (const group of groups)
      if (this.#account.groups.get(group) !== subnet.vpc) refuse('InvalidGroup.NotFound', `The group '${group}'`)
    if (type.zones !== undefined && !type.zones.includes(subnet.zone))
      refuse('Unsupported', `Your requested instance type (${typeName}) is not supported in ${subnet.zone}.`)
    const key = text(parameters['KeyName'])
    if (key !== undefined && !this.#account.keyPairs.has(key)) refuse('InvalidKeyPair.NotFound', key)
    const count = this.#account.instances.size
    const privateIp = text(nic['PrivateIpAddress']) ?? `${subnet.cidr.split('.').slice(0, 3).join('.')}.${10 + count}`
    const token = text(parameters['ClientToken'])
    const isAgain = token !== undefined && this.#account.tokens.has(token)
    const live = [...this.#account.instances.values()].filter(
      each => this.#account.stateOfInstance(each) !== 'terminated',
    )
    if (!isAgain && this.#account.freeAddressCount(subnet) < 1)
      refuse('InsufficientFreeAddressesInSubnet', `There are not enough free addresses in subnet '${subnet.id}'.`)
    if (!isAgain && live.some(each => each.privateIp === privateIp && each.subnet === subnet.id))
      refuse('InvalidIPAddress.InUse', `Address ${privateIp} is in use.`)
    return {
      id: this.#account.newId('i'),
      image: image.id,
      type: typeName,
      subnet: subnet.id,
      zone: subnet.zone,
      groups,
      key,
      profile: text(structure(parameters['IamInstanceProfile'])['Name']),
      privateIp,
      userData: text(parameters['UserData']),
      rootDevice: image.rootDevice,
      token,
      tags: tagsFor(parameters, 'instance'),
      nic: { id: this.#account.newId('eni'), tags: tagsFor(parameters, 'network-interface') },
      createdMillis: this.#account.nowMillis(),
      heading: 'running',
      settlesAtMillis: this.#later(),
    }
  }

  #newDisks(parameters: Parameters, instance: Instance): Disk[] {
    const image = this.#account.images.get(instance.image)!
    const mapped = list(parameters['BlockDeviceMapping']).map(each => ({
      device: text(each['DeviceName']) ?? '',
      ebs: structure(each['Ebs']),
    }))
    if (new Set(mapped.map(({ device }) => device)).size !== mapped.length)
      refuse('InvalidBlockDeviceMapping', 'a device is mapped twice')
    const root = mapped.find(({ device }) => device === image.rootDevice)
    const rootEbs: Parameters = { ...root?.ebs, SnapshotId: image.rootSnapshot }
    if (root?.ebs['SnapshotId'] !== undefined && root.ebs['SnapshotId'] !== image.rootSnapshot)
      refuse('InvalidBlockDeviceMapping', 'snapshotId cannot be modified on root device')
    const others = mapped.filter(({ device }) => device !== image.rootDevice)
    return [{ device: image.rootDevice, ebs: rootEbs }, ...others].map(({ device, ebs }) => {
      const volume = this.#newVolume(ebs, instance.zone)
      for (const [key, value] of tagsFor(parameters, 'volume')) volume.tags.set(key, value)
      return { device, volume, deleteOnTermination: ebs['DeleteOnTermination'] !== 'false' }
    })
  }

  #turn(
    parameters: Parameters,
    heading: Instance['heading'],
    from: readonly Instance['heading'][] | undefined,
    idle: Instance['heading'],
  ): () => Xml {
    const instances = texts(parameters['InstanceId']).map(id => this.#instance(id))
    for (const instance of instances) {
      const state = this.#account.stateOfInstance(instance)
      if (from !== undefined && !from.includes(state))
        refuse('IncorrectInstanceState', `The instance '${instance.id}' is in the state '${state}'.`)
    }
    return () => {
      for (const instance of instances) {
        if (this.#account.stateOfInstance(instance) === idle || instance.heading === heading) continue
        instance.heading = heading
        instance.settlesAtMillis = this.#later()
        if (heading !== 'terminated') continue
        for (const volume of this.#disksOf(instance))
          if (volume.attachment?.deleteOnTermination === true) this.#account.volumes.delete(volume.id)
      }
      return {
        instancesSet: instances.map(instance => ({
          instanceId: instance.id,
          currentState: { code: 0, name: this.#account.stateOfInstance(instance) },
        })),
      }
    }
  }

  #volumeXml(volume: Volume): Xml {
    const status = this.#account.stateOfVolume(volume)
    const isSettled = this.#account.isSettled(volume)
    return {
      volumeId: volume.id,
      size: volume.sizeGiB,
      snapshotId: volume.snapshot ?? '',
      availabilityZone: volume.zone,
      status,
      volumeType: volume.type,
      encrypted: volume.kmsKey !== undefined,
      kmsKeyId: volume.kmsKey,
      iops: volume.iops,
      throughput: volume.throughput,
      attachmentSet:
        volume.attachment === undefined ? [] : [attachmentXml(volume, isSettled ? 'attached' : 'attaching')],
      tagSet: tagSet(volume.tags),
    }
  }

  #instanceXml(instance: Instance): Xml {
    const isGone = this.#account.stateOfInstance(instance) === 'terminated'
    return {
      instanceId: instance.id,
      imageId: instance.image,
      instanceState: { code: 0, name: this.#account.stateOfInstance(instance) },
      privateIpAddress: isGone ? undefined : instance.privateIp,
      instanceType: instance.type,
      cpuOptions: { coreCount: this.#account.instanceTypes.get(instance.type)?.vcpuCount, threadsPerCore: 1 },
      clientToken: instance.token,
      rootDeviceName: instance.rootDevice,
      subnetId: isGone ? undefined : instance.subnet,
      placement: { availabilityZone: instance.zone },
      blockDeviceMapping: this.#disksOf(instance).map(volume => ({
        deviceName: volume.attachment?.device,
        ebs: { volumeId: volume.id, status: 'attached' },
      })),
      networkInterfaceSet: isGone ? [] : [{ networkInterfaceId: instance.nic.id }],
      tagSet: tagSet(instance.tags),
    }
  }
}

function attachmentXml(volume: Volume, status: string): Xml {
  const { instance, device, deleteOnTermination } = volume.attachment!
  return { volumeId: volume.id, instanceId: instance, device, status, deleteOnTermination }
}

function tagSet(tags: Tags): Xml {
  return [...tags].map(([key, value]) => ({ key, value }))
}

function readTags(value: Value | undefined): Map<string, string> {
  const tags = new Map<string, string>()
  for (const tag of list(value)) {
    const [key, content = ''] = [text(tag['Key']), text(tag['Value'])]
    if (!isTag(key, content)) refuse('InvalidParameterValue', `Tag '${key}'`)
    if (tags.has(key!)) refuse('InvalidParameterValue', `Duplicate tag key '${key}'`)
    tags.set(key!, content)
  }
  if (tags.size > 50) refuse('TagLimitExceeded', 'more than 50 tags')
  return tags
}

const taggedKinds: Readonly<Record<string, readonly string[]>> = {
  volume: ['volume'],
  image: ['image', 'snapshot'],
  instance: ['instance', 'volume', 'network-interface'],
}

/** Of the specification for this kind of resource. */
function tagsFor(parameters: Parameters, kind: string): Map<string, string> {
  const specifications = list(parameters['TagSpecification'])
  const allowed = Object.values(taggedKinds).flat()
  for (const { ResourceType } of specifications)
    if (!allowed.includes(text(ResourceType) ?? ''))
      refuse('InvalidParameterValue', `ResourceType '${text(ResourceType)}'`)
  return readTags(specifications.find(each => each['ResourceType'] === kind)?.['Tag'])
}
