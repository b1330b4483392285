import { Failure } from '../base/failure.ts'
import { kmsKeyArnPattern, type VpgDefinition } from '../timeline/definition.ts'
import type { Json, RecoveryVm } from '../timeline/recovery.ts'

// What a person says about machines and volumes in AWS: README.md lists the keys. `machine` and `volumes` at the top hold for every machine and volume;
// what stands under a name goes before. Parsing names everything that is wrong at once.

export type VolumeType = 'gp3' | 'gp2' | 'io1' | 'io2' | 'st1' | 'sc1' | 'standard'

export interface VolumeSettings {
  readonly type: VolumeType
  readonly iops: number | undefined
  /** MiB a second. */
  readonly throughput: number | undefined
  /** MiB a second at which AWS reads the volume in ahead of use; it costs by the snapshot's size. */
  readonly initializationRate: number | undefined
  /** ARN of the key of KMS with which it is encrypted, and its snapshot. */
  readonly kmsKey: string | undefined
}

/**
 * image: an image of the root volume, and an instance of that. root-swap: an instance of the helper image, whose root volume is put in place of by
 * ours, so that it keeps the licence of that image (Windows, RHEL, SUSE). nothing: volumes only.
 */
export type Start = 'image' | 'root-swap' | 'nothing'

export interface MachineSettings {
  readonly name: string
  readonly start: Start
  readonly instanceType: string | undefined
  readonly subnet: string | undefined
  readonly securityGroups: readonly string[]
  readonly key: string | undefined
  readonly iamProfile: string | undefined
  readonly privateIp: string | undefined
  readonly architecture: 'x86_64' | 'arm64'
  readonly bootMode: 'legacy-bios' | 'uefi' | 'uefi-preferred' | undefined
  readonly userData: string | undefined
  readonly helperImage: string | undefined
  /** Number of the volume that the machine boots from. */
  readonly rootVolume: number
  readonly volumes: readonly (VolumeSettings & { readonly number: number; readonly name: string })[]
}

export interface AwsSettings {
  /** Where volumes of machines without a subnet are. */
  readonly availabilityZone: string | undefined
  readonly machines: readonly MachineSettings[]
}

type Table = Readonly<Record<string, Json>>

const volumeTypes: readonly VolumeType[] = ['gp3', 'gp2', 'io1', 'io2', 'st1', 'sc1', 'standard']
const throughputPerIops = 0.25
const userDataSizeBytesMax = 16_384
/** A root device and /dev/sdb to /dev/sdz. */
export const volumesPerMachineMax = 26

/** REQUEST_INVALID, with everything that is wrong. */
export function parseSettings(
  settings: Json,
  vms: readonly RecoveryVm[],
  definition: Pick<VpgDefinition, 'volumes' | 'removedVolumes'>,
): AwsSettings {
  const faults = new Faults()
  const top = faults.table(settings ?? {}, 'the settings', ['availabilityZone', 'machine', 'machines', 'volumes'])
  const machineDefaults = faults.table(top['machine'] ?? {}, 'machine', machineKeys)
  const volumeDefaults = faults.table(top['volumes'] ?? {}, 'volumes', volumeKeys)
  const names = vms.map(({ name }) => name)
  const machines = faults.table(top['machines'] ?? {}, 'machines', names)
  const parsed = vms.map(vm => {
    const place = `machines.${vm.name}`
    const own = faults.table(machines[vm.name] ?? {}, place, [...machineKeys, 'volumes'])
    return parseMachine(
      vm,
      { ...machineDefaults, ...own },
      own['volumes'] ?? {},
      volumeDefaults,
      definition,
      place,
      faults,
    )
  })
  const availabilityZone = faults.text(top, 'availabilityZone', '', /^[a-z0-9-]+$/)
  const homeless = parsed.filter(({ subnet }) => subnet === undefined && availabilityZone === undefined)
  for (const { name } of homeless)
    faults.add(`machines.${name}: a subnet, or an availabilityZone for all, must say where its volumes are to be`)
  faults.check()
  return { availabilityZone, machines: parsed }
}

/** As parseSettings takes it: what the record keeps. */
export function settingsToJson({ availabilityZone, machines }: AwsSettings): Json {
  const given = (table: Readonly<Record<string, Json | undefined>>): Json =>
    Object.fromEntries(Object.entries(table).filter(([, value]) => value !== undefined)) as Json
  return given({
    availabilityZone,
    machines: Object.fromEntries(
      machines.map(({ name, volumes, rootVolume, ...rest }) => {
        const rootName = volumes.find(({ number }) => number === rootVolume)?.name
        const own = Object.fromEntries(
          volumes.map(({ name: volume, number: _, ...settings }) => [volume, given(settings)]),
        )
        return [name, given({ ...rest, rootVolume: rootName, volumes: own })]
      }),
    ),
  })
}

const volumeKeys = ['type', 'iops', 'throughput', 'initializationRate', 'kmsKey']
const machineKeys = [
  'start',
  'instanceType',
  'subnet',
  'securityGroups',
  'key',
  'iamProfile',
  'privateIp',
  'architecture',
  'bootMode',
  'userData',
  'helperImage',
  'rootVolume',
]

function parseMachine(
  vm: RecoveryVm,
  table: Table,
  volumeTables: Json,
  volumeDefaults: Table,
  definition: Pick<VpgDefinition, 'volumes' | 'removedVolumes'>,
  place: string,
  faults: Faults,
): MachineSettings {
  const all = [...definition.volumes, ...definition.removedVolumes]
  const own = vm.volumes.map(number => ({
    number,
    name: all.find(each => each.number === number)?.name ?? `${number}`,
  }))
  const names = own.map(({ name }) => name)
  if (own.length > volumesPerMachineMax)
    faults.add(`${place}: an instance takes at most ${volumesPerMachineMax} volumes, this machine has ${own.length}`)
  const tables = faults.table(volumeTables, `${place}.volumes`, names)
  const volumes = own.map(({ number, name }) => {
    const at = `${place}.volumes.${name}`
    const given = { ...volumeDefaults, ...faults.table(tables[name] ?? {}, at, volumeKeys) }
    return { number, name, ...parseVolume(given, at, faults) }
  })
  const start = faults.oneOf(table, 'start', place, ['image', 'root-swap', 'nothing'] as const) ?? 'image'
  const rootName = faults.text(table, 'rootVolume', place) ?? names[0]
  const root = own.find(({ name }) => name === rootName)
  if (root === undefined) faults.add(`${place}.rootVolume: "${rootName}" is none of its volumes (${names.join(', ')})`)
  const machine: MachineSettings = {
    name: vm.name,
    start,
    instanceType: faults.text(table, 'instanceType', place, /^[a-z0-9-]+\.[a-z0-9-]+$/),
    subnet: faults.text(table, 'subnet', place, /^subnet-[\w-]+$/),
    securityGroups: faults.texts(table, 'securityGroups', place, /^sg-[\w-]+$/),
    key: faults.text(table, 'key', place),
    iamProfile: faults.text(table, 'iamProfile', place),
    privateIp: faults.text(table, 'privateIp', place, /^\d{1,3}(\.\d{1,3}){3}$/),
    architecture: faults.oneOf(table, 'architecture', place, ['x86_64', 'arm64'] as const) ?? 'x86_64',
    bootMode: faults.oneOf(table, 'bootMode', place, ['legacy-bios', 'uefi', 'uefi-preferred'] as const),
    userData: faults.text(table, 'userData', place),
    helperImage: faults.text(table, 'helperImage', place, /^ami-[0-9a-f]+$/),
    rootVolume: root?.number ?? 0,
    volumes,
  }
  if (start !== 'nothing') {
    if (machine.instanceType === undefined) faults.add(`${place}.instanceType: must say what kind of instance to start`)
    if (machine.subnet === undefined) faults.add(`${place}.subnet: must say where the instance is to be`)
  }
  if (start === 'root-swap') {
    if (machine.helperImage === undefined)
      faults.add(`${place}.helperImage: root-swap needs the image whose licence the machine is to have`)
    if (machine.userData !== undefined)
      faults.add(`${place}.userData: with root-swap the helper's own system would run it, not the recovered one`)
  }
  if (machine.architecture === 'arm64' && machine.bootMode === 'legacy-bios')
    faults.add(`${place}.bootMode: arm64 boots by uefi only`)
  if (Buffer.byteLength(machine.userData ?? '') > userDataSizeBytesMax)
    faults.add(`${place}.userData: at most ${userDataSizeBytesMax} bytes`)
  return machine
}

function parseVolume(table: Table, place: string, faults: Faults): VolumeSettings {
  const type = faults.oneOf(table, 'type', place, volumeTypes) ?? 'gp3'
  const [iopsMin, iopsMax] = type === 'gp3' ? [3000, 80_000] : [100, type === 'io1' ? 64_000 : 256_000]
  const iops = faults.number(table, 'iops', place, iopsMin, iopsMax)
  const throughput = faults.number(table, 'throughput', place, 125, 2000)
  if (iops !== undefined && !['gp3', 'io1', 'io2'].includes(type))
    faults.add(`${place}.iops: ${type} has none to choose`)
  if (iops === undefined && ['io1', 'io2'].includes(type)) faults.add(`${place}.iops: ${type} needs a number`)
  if (throughput !== undefined && type !== 'gp3') faults.add(`${place}.throughput: only gp3 has one to choose`)
  if (type === 'gp3' && throughput !== undefined && throughput > throughputPerIops * (iops ?? iopsMin))
    faults.add(
      `${place}.throughput: gp3 has at most ${throughputPerIops} MiB/s for each of its ${iops ?? iopsMin} IOPS`,
    )
  const initializationRate = faults.number(table, 'initializationRate', place, 100, 300)
  return { type, iops, throughput, initializationRate, kmsKey: faults.text(table, 'kmsKey', place, kmsKeyArnPattern) }
}

const textCharactersMax = 24_000

class Faults {
  readonly #sentences: string[] = []

  add(sentence: string): void {
    this.#sentences.push(sentence)
  }

  check(): void {
    if (this.#sentences.length === 0) return
    const details = { faultCount: this.#sentences.length }
    throw new Failure('REQUEST_INVALID', `the AWS settings are not valid: ${this.#sentences.join('; ')}`, details)
  }

  table(value: Json, place: string, keys: readonly string[]): Table {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      this.add(`${place}: must be a table`)
      return {}
    }
    for (const key of Object.keys(value))
      if (!keys.includes(key)) this.add(`${place}: "${key}" is not known; known are ${keys.join(', ')}`)
    return value as Table
  }

  text(table: Table, key: string, place: string, pattern = /^[^\0]+$/): string | undefined {
    const value = table[key]
    if (value === undefined || value === null) return undefined
    if (typeof value === 'string' && value.length <= textCharactersMax && pattern.test(value)) return value
    this.add(`${dotted(place, key)}: ${JSON.stringify(value)} does not look like one`)
    return undefined
  }

  texts(table: Table, key: string, place: string, pattern: RegExp): readonly string[] {
    const value = table[key]
    if (value === undefined || value === null) return []
    if (Array.isArray(value) && value.every(each => typeof each === 'string' && pattern.test(each)))
      return value as string[]
    this.add(`${dotted(place, key)}: must be a list of ids`)
    return []
  }

  number(table: Table, key: string, place: string, min: number, max: number): number | undefined {
    const value = table[key]
    if (value === undefined || value === null) return undefined
    if (Number.isInteger(value) && Number(value) >= min && Number(value) <= max) return Number(value)
    this.add(`${dotted(place, key)}: must be a whole number from ${min} to ${max}`)
    return undefined
  }

  oneOf<T extends string>(table: Table, key: string, place: string, allowed: readonly T[]): T | undefined {
    const value = table[key]
    if (value === undefined || value === null) return undefined
    const found = allowed.find(each => each === value)
    if (found === undefined) this.add(`${dotted(place, key)}: must be one of ${allowed.join(', ')}`)
    return found
  }
}

function dotted(place: string, key: string): string {
  return place === '' ? key : `${place}.${key}`
}
