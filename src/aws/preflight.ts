import { ebsBlockSizeBytes, snapshotsWrittenAtOnceMax } from '../base/limits.ts'
import { Failure, failedWith } from '../base/failure.ts'
import { GiB, MiB } from '../base/units.ts'
import type { TargetPlan, TargetRequest } from '../recovery/target.ts'
import { snapshotKeyOf, type VpgDefinition } from '../timeline/definition.ts'
import type { Ec2Calls, Image, Subnet } from './ec2-calls.ts'
import type { ChainOutlook } from './chains.ts'
import { errorNameOf } from './failures.ts'
import type { PutQuota } from './put-quota.ts'
import type { QuotaCalls } from './quota-calls.ts'
import { checkQuotas } from './quotas.ts'
import type { AwsConfig } from './service.ts'
import { parseSettings, settingsToJson, type AwsSettings, type MachineSettings, type VolumeType } from './settings.ts'

// What can be known before anything is created: whether what the settings name exists and fits together, what will be put, how long that takes, what it costs.

/** In USD, where AWS publishes it: us-east-1. */
const putPriceUsdPerBlock = 0.006 / 1000
const storagePriceUsdPerGiBMonth = 0.05
/** A machine needs about so long from its last snapshot to running. */
const machineMillis = 120_000
const completionMillis = 60_000
/** From a put to its answer, where the region is near. */
const millisPerPut = 100
/** Where the account's quota is not known. */
const pendingSnapshotsMaxDefault = 100
const iopsPerGiBMax: Readonly<Partial<Record<VolumeType, number>>> = { gp3: 500, io1: 50, io2: 1000 }
const iopsOfItself: Readonly<Partial<Record<VolumeType, number>>> = { gp3: 3000, io1: 100, io2: 100 }
const gibibytesMax = 65_536

/** Of a volume that is to be encrypted with the key what its standby chain has: undefined where there is none. */
export type LookAtChain = (volume: number, kmsKey: string | undefined) => Promise<ChainOutlook | undefined>

interface PlanTools {
  readonly config: AwsConfig
  readonly ec2: Ec2Calls
  readonly quotas: QuotaCalls
  readonly putQuota: Pick<PutQuota, 'follow'>
}

export async function planRecovery(
  request: TargetRequest,
  { config, ec2, quotas, putQuota }: PlanTools,
  lookAtChain: LookAtChain,
  signal: AbortSignal,
): Promise<TargetPlan> {
  const settings = withKeys(parseSettings(request.settings, request.vms, request.definition), request.definition)
  const faults = [...addressFaults(settings), ...keyFaults(settings, config)]
  const remarks: string[] = []
  const { availabilityZone } = settings
  if (availabilityZone !== undefined)
    await existing(
      () => ec2.zone(availabilityZone, signal),
      () => faults.push(`there is no availability zone ${availabilityZone} in ${config.region}`),
      /^InvalidParameterValue$/,
    )
  const needs: MachineNeeds[] = []
  for (const machine of settings.machines)
    needs.push(await checkMachine(machine, settings, ec2, { faults, remarks }, signal))
  faults.push(...roomFaults(needs))
  const sizes = settings.machines
    .flatMap(({ volumes }) => volumes)
    .map(({ number, name, type, iops, kmsKey }) => {
      const known = request.sizes.find(({ volume }) => volume === number)
      const sizeBytes = known?.sizeBytes ?? 0
      return { number, name, type, iops, kmsKey, sizeBytes, dataSizeBytes: known?.dataSizeBytes ?? sizeBytes }
    })
  for (const { name, sizeBytes, type, iops } of sizes) {
    const sizeGiB = Math.max(1, Math.ceil(sizeBytes / GiB))
    if (sizeGiB > gibibytesMax) faults.push(`${name}: EBS has no volumes above ${gibibytesMax} GiB`)
    const perGiB = iopsPerGiBMax[type]
    if (perGiB === undefined || iops === undefined) continue
    const most = Math.max(iopsOfItself[type] ?? 0, perGiB * sizeGiB) // what it has of itself is never too much
    if (iops > most) faults.push(`${name}: ${type} of ${sizeGiB} GiB has at most ${most} IOPS (${perGiB} a GiB)`)
  }
  // Whoever has to mend the rest first need not wait for what is in use to be counted.
  const taken =
    faults.length > 0
      ? undefined
      : await checkQuotas(
          { volumes: sizes, machines: needs.filter(({ instanceType }) => instanceType !== '') },
          quotas,
          ec2,
          signal,
        )
  if (taken?.putsPerSecondMax !== undefined) putQuota.follow(taken.putsPerSecondMax)
  faults.push(...(taken?.faults ?? []))
  if (taken === undefined || faults.length > 0)
    throw new Failure('REQUEST_INVALID', `AWS cannot do this: ${faults.join('; ')}`, { faultCount: faults.length })

  let copySizeBytes = 0
  for (const { number, name, kmsKey, sizeBytes, dataSizeBytes } of sizes) {
    const chain = await lookAtChain(number, kmsKey)
    copySizeBytes += typeof chain === 'object' ? chain.putSizeBytesMax : dataSizeBytes
    if (chain === 'other-key')
      remarks.push(`${name}: its standby snapshot is not encrypted with the key that is wanted: all of it is put`)
    else if (chain !== undefined)
      remarks.push(
        `${name}: only what differs from its standby snapshot, ${minutes(chain.behindMillis)} away, is put: ${mebibytes(chain.putSizeBytesMax)} at most`,
      )
    if (sizeBytes % GiB !== 0)
      remarks.push(
        `${name}: ${sizeBytes} bytes become a volume of ${Math.ceil(sizeBytes / GiB)} GiB, for EBS has whole GiB only; the original size stands in its tags`,
      )
  }
  const blocks = copySizeBytes / ebsBlockSizeBytes
  const putsPerSecondMax = Math.min(config.putsPerSecondMax, taken.putsPerSecondMax ?? Infinity)
  const putsPerSecond = Math.min(putsPerSecondMax, (config.putsAtOnceMax * 1000) / millisPerPut)
  const putMillis = (blocks / putsPerSecond) * 1000
  remarks.push(
    `about ${Math.ceil(blocks)} blocks of 512 KiB are put, at most ${Math.floor(putsPerSecond)} of them a second${taken.putsPerSecondMax === undefined ? ", or what the account's quota allows" : ` (the account's quota is ${taken.putsPerSecondMax} a second)`}; zeros are left out, and thinly spread data of a volume without a standby snapshot takes more blocks`,
    `the puts cost ${usd(blocks * putPriceUsdPerBlock)}, the snapshots ${usd((copySizeBytes / GiB) * storagePriceUsdPerGiBMonth)} a month while they are kept (prices of us-east-1); volumes and instances cost what they cost anywhere`,
  )
  for (const key of new Set(sizes.flatMap(({ kmsKey }) => kmsKey ?? [])))
    remarks.push(`whether the key ${key} exists, and may be used by the VRA, shows when the first snapshot begins`)
  const pendingCount = await ec2.pendingSnapshotCount(signal)
  const pendingSnapshotsMax = taken.pendingSnapshotsMax ?? pendingSnapshotsMaxDefault
  if (pendingCount + Math.min(sizes.length, snapshotsWrittenAtOnceMax) > pendingSnapshotsMax)
    remarks.push(
      `an account may have ${pendingSnapshotsMax} snapshots pending, and has ${pendingCount} at this moment: the recovery waits until some of them are completed`,
    )
  remarks.push(...taken.remarks)
  const expectedMillis = putMillis + completionMillis + machineMillis
  return { settings: settingsToJson(settings), copySizeBytes, expectedMillis, remarks }
}

/** Whoever names no key for this recovery has named it for the VPG: what the record keeps is what was planned, whatever is named later. */
function withKeys(settings: AwsSettings, definition: VpgDefinition): AwsSettings {
  const machines = settings.machines.map(machine => {
    const volumes = machine.volumes.map(volume => ({
      ...volume,
      kmsKey: volume.kmsKey ?? snapshotKeyOf(definition, volume.number),
    }))
    return { ...machine, volumes }
  })
  return { ...settings, machines }
}

function keyFaults({ machines }: AwsSettings, { region }: AwsConfig): string[] {
  const keys = new Set(machines.flatMap(({ volumes }) => volumes.flatMap(({ kmsKey }) => kmsKey ?? [])))
  const elsewhere = [...keys].filter(key => key.split(':')[3] !== region)
  return elsewhere.map(key => `the key ${key} is not of ${region}, and encrypts nothing there`)
}

/** An address is one machine's; in subnets of different networks it may be of two. */
function addressFaults({ machines }: AwsSettings): string[] {
  const holders = new Map<string, string>()
  const faults: string[] = []
  for (const { name, start, subnet, privateIp } of machines) {
    if (privateIp === undefined || start === 'nothing') continue
    const place = `${subnet} ${privateIp}`
    const holder = holders.get(place)
    if (holder === undefined) holders.set(place, name)
    else faults.push(`${name}: ${privateIp} is the privateIp of ${holder} already`)
  }
  return faults
}

/** What a machine takes of what others may need, too. */
interface MachineNeeds {
  readonly name: string
  /** Undefined: it takes no address. */
  readonly subnet: Subnet | undefined
  /** Empty: none is started. */
  readonly instanceType: string
  readonly vcpuCount: number
}

/** Each machine takes an address of its subnet. */
function roomFaults(needs: readonly MachineNeeds[]): string[] {
  const bySubnet = new Map<string, { readonly free: number; readonly names: string[] }>()
  for (const { name, subnet } of needs) {
    const { SubnetId = '', AvailableIpAddressCount: free } = subnet ?? {}
    if (free === undefined) continue
    const { names } = bySubnet.get(SubnetId) ?? { names: [] }
    bySubnet.set(SubnetId, { free, names: [...names, name] })
  }
  const narrow = [...bySubnet].filter(([, { free, names }]) => names.length > free)
  return narrow.map(([subnet, { free, names }]) => {
    const left = free === 0 ? 'no address' : `${free} ${free === 1 ? 'address' : 'addresses'}`
    return `the subnet ${subnet} has ${left} left, and ${names.join(', ')} ${names.length === 1 ? 'needs one' : `need ${names.length}`}`
  })
}

interface Findings {
  readonly faults: string[]
  readonly remarks: string[]
}

async function checkMachine(
  machine: MachineSettings,
  settings: AwsSettings,
  ec2: Ec2Calls,
  { faults, remarks }: Findings,
  signal: AbortSignal,
): Promise<MachineNeeds> {
  const { name, subnet: subnetId, instanceType, securityGroups, key, privateIp, helperImage } = machine
  const fault = (sentence: string): void => void faults.push(`${name}: ${sentence}`)
  const subnet =
    subnetId === undefined
      ? undefined
      : await existing(
          () => ec2.subnet(subnetId, signal),
          () => fault(`there is no subnet ${subnetId}`),
        )
  if (subnet !== undefined) checkSubnet(subnet, settings, privateIp, fault)
  if (machine.start === 'nothing') return { name, subnet: undefined, instanceType: '', vcpuCount: 0 }
  const type =
    instanceType === undefined
      ? undefined
      : await existing(
          () => ec2.instanceType(instanceType, signal),
          () => fault(`there is no instance type ${instanceType}`),
        )
  if (type !== undefined) {
    const architectures: readonly string[] = type.ProcessorInfo?.SupportedArchitectures ?? []
    if (!architectures.includes(machine.architecture))
      fault(`${instanceType} is ${architectures.join(' or ')}, not ${machine.architecture}`)
    const bootModes: readonly string[] = type.SupportedBootModes ?? []
    const wanted = machine.bootMode
    if (wanted !== undefined && wanted !== 'uefi-preferred' && bootModes.length > 0 && !bootModes.includes(wanted))
      fault(`${instanceType} does not boot by ${wanted}`)
    const zones = await ec2.zonesOffering(instanceType ?? '', signal)
    const zone = subnet?.AvailabilityZone
    if (zone !== undefined && !zones.includes(zone))
      fault(
        `there is no ${instanceType} in ${zone}, where ${subnetId} is: ${zones.length === 0 ? 'nowhere in the region' : `only in ${zones.join(', ')}`}`,
      )
  }
  if (securityGroups.length > 0) {
    const groups = await existing(
      () => ec2.securityGroups(securityGroups, signal),
      () => fault(`not all of these security groups exist: ${securityGroups.join(', ')}`),
    )
    for (const { GroupId, VpcId } of groups ?? [])
      if (subnet?.VpcId !== undefined && VpcId !== subnet.VpcId)
        fault(`the security group ${GroupId} is of ${VpcId}, the subnet of ${subnet.VpcId}`)
  } else remarks.push(`${name}: without security groups it gets the default one of its VPC`)
  if (key !== undefined)
    await existing(
      () => ec2.keyPair(key, signal),
      () => fault(`there is no key pair "${key}"`),
    )
  if (helperImage !== undefined) {
    const images = await existing(
      () => ec2.images({ ids: [helperImage] }, signal),
      () => fault(`there is no image ${helperImage}`),
    )
    if (images !== undefined) checkHelper(images[0], machine, fault)
  }
  if (machine.iamProfile !== undefined)
    remarks.push(
      `${name}: whether the instance profile ${machine.iamProfile} exists, and whether the VRA may give its role to a machine (\`vra aws policy --role\`), shows when the instance starts`,
    )
  return { name, subnet, instanceType: instanceType ?? '', vcpuCount: type?.VCpuInfo?.DefaultVCpus ?? 0 }
}

function checkSubnet(
  subnet: Subnet,
  { availabilityZone }: AwsSettings,
  privateIp: string | undefined,
  fault: (sentence: string) => void,
): void {
  if (availabilityZone !== undefined && subnet.AvailabilityZone !== availabilityZone)
    fault(`the subnet ${subnet.SubnetId} is in ${subnet.AvailabilityZone}, not in ${availabilityZone}`)
  if (privateIp !== undefined && !isInside(privateIp, subnet.CidrBlock ?? ''))
    fault(`${privateIp} is not an address of the subnet's ${subnet.CidrBlock}`)
  else if (privateIp !== undefined && isReserved(privateIp, subnet.CidrBlock ?? ''))
    fault(`${privateIp} is reserved: AWS keeps the first four addresses of ${subnet.CidrBlock}, and the last`)
}

function checkHelper(image: Image | undefined, machine: MachineSettings, fault: (sentence: string) => void): void {
  if (image?.Architecture !== undefined && image.Architecture !== machine.architecture)
    fault(`the image ${machine.helperImage} is ${image.Architecture}, not ${machine.architecture}`)
}

export function isInside(address: string, cidr: string): boolean {
  const [network = '', bits = '32'] = cidr.split('/')
  const span = 2 ** (32 - Number(bits))
  return Math.floor(asNumber(address) / span) === Math.floor(asNumber(network) / span)
}

/** AWS keeps the first four addresses of a subnet, and the last. */
function isReserved(address: string, cidr: string): boolean {
  const span = 2 ** (32 - Number(cidr.split('/')[1] ?? '32'))
  const place = asNumber(address) % span // a network begins at a multiple of its size
  return place < 4 || place === span - 1
}

function asNumber(address: string): number {
  return address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0)
}

/** Names by which AWS says that what was named does not exist, though not with "NotFound". */
const absentNames =
  /^(InvalidInstanceType|InvalidGroupId\.Malformed|InvalidSubnetID\.Malformed|InvalidAMIID\.Malformed)$/

async function existing<T>(look: () => Promise<T>, absent: () => void, names = absentNames): Promise<T | undefined> {
  try {
    return await look()
  } catch (error) {
    if (!failedWith(error, 'NOT_FOUND') && !names.test(errorNameOf(error))) throw error
    absent()
    return undefined
  }
}

function minutes(millis: number): string {
  return `${Math.max(1, Math.round(millis / 60_000))} min`
}

function mebibytes(sizeBytes: number): string {
  return `${(sizeBytes / MiB).toFixed(1)} MiB`
}

function usd(amount: number): string {
  return amount < 0.01 ? 'less than 0.01 USD' : `about ${amount.toFixed(2)} USD`
}
