import { GiB } from '../base/units.ts'
import type { Ec2Calls } from './ec2-calls.ts'
import type { Quota, QuotaCalls } from './quota-calls.ts'
import { putsPerSecondQuota } from './put-quota.ts'
import type { VolumeType } from './settings.ts'

// Whether the account's quotas leave room for a recovery: what it takes, against what the account has already, against the quota. By codes, which AWS keeps; names change.

const pendingSnapshotsQuota: Quota = { service: 'ebs', code: 'L-94D7AB7D' }
const snapshotsQuota: Quota = { service: 'ebs', code: 'L-309BACF6' }
/** In TiB. */
const storageCodes: Readonly<Record<VolumeType, string>> = {
  gp3: 'L-7A658B76',
  gp2: 'L-D18FCD1D',
  io1: 'L-FD252861',
  io2: 'L-09BD8365',
  st1: 'L-82ACEF56',
  sc1: 'L-17AF77E8',
  standard: 'L-9CF3C2EB',
}
const iopsCodes: Readonly<Partial<Record<VolumeType, string>>> = { io1: 'L-B3A130E6', io2: 'L-8D977E7E' }

interface Family {
  readonly code: string
  readonly name: string
  /** What a type's name has before its first digit. */
  readonly prefixes: readonly string[]
}

/** Of running On-Demand instances, in vCPUs. Types of other prefixes (Mac, and what came later) have quotas of their own, or none that is known here. */
const families: readonly Family[] = [
  { code: 'L-1216C47A', name: 'Standard', prefixes: ['a', 'c', 'd', 'h', 'i', 'm', 'r', 't', 'z'] },
  { code: 'L-DB2E81BA', name: 'G and VT', prefixes: ['g', 'vt'] },
  { code: 'L-417A185B', name: 'P', prefixes: ['p'] },
  { code: 'L-7295265B', name: 'X', prefixes: ['x'] },
  { code: 'L-43DA4232', name: 'High Memory', prefixes: ['u', 'u-'] },
  { code: 'L-74FC7D96', name: 'F', prefixes: ['f'] },
  { code: 'L-1945791B', name: 'Inf', prefixes: ['inf'] },
  { code: 'L-2C3B7624', name: 'Trn', prefixes: ['trn'] },
  { code: 'L-6E869C2A', name: 'DL', prefixes: ['dl'] },
  { code: 'L-F7808C92', name: 'HPC', prefixes: ['hpc'] },
]

/** What a recovery takes of the account. */
export interface Takings {
  readonly volumes: readonly {
    readonly type: VolumeType
    readonly iops: number | undefined
    readonly sizeBytes: number
  }[]
  readonly machines: readonly { readonly instanceType: string; readonly vcpuCount: number }[]
}

/** What there is of something; at least so much where not all of it was counted. */
export interface Counted {
  readonly count: number
  readonly isWhole: boolean
}

interface Need {
  readonly quota: Quota
  /** "of gp3 storage" */
  readonly what: string
  readonly unit: 'TiB' | 'IOPS' | 'vCPUs' | 'snapshots'
  readonly taken: number
  readonly used: (signal: AbortSignal) => Promise<Counted>
}

export interface QuotaFindings {
  /** One sentence for each quota that has no room. */
  readonly faults: readonly string[]
  readonly remarks: readonly string[]
  /** Undefined where they are not known. */
  readonly putsPerSecondMax: number | undefined
  readonly pendingSnapshotsMax: number | undefined
}

/** From here on a quota is told as one that may bind soon. */
const closeShare = 0.8

export async function checkQuotas(
  takings: Takings,
  quotas: QuotaCalls,
  ec2: Ec2Calls,
  signal: AbortSignal,
): Promise<QuotaFindings> {
  const needs = [...volumeNeeds(takings, ec2), ...machineNeeds(takings, ec2)]
  const asked = [...needs.map(({ quota }) => quota), putsPerSecondQuota, pendingSnapshotsQuota]
  const { values, unknownBecause } = await quotas.read(asked, signal)
  const faults: string[] = []
  const close: string[] = []
  const roomy: string[] = []
  const unknown: string[] = []
  for (const need of needs) {
    const limit = values.get(need.quota.code)
    const takes = `${amount(need.taken, need.unit)} ${need.what}`
    if (limit === undefined) {
      unknown.push(takes)
      continue
    }
    const used = await need.used(signal)
    const total = used.count + need.taken
    const inUse = need.unit === 'TiB' ? amount(used.count, need.unit) : String(used.count)
    const has = `${used.isWhole ? '' : 'at least '}${inUse}`
    const sentence = `${takes} (${has} of ${amount(limit, need.unit)} in use)`
    if (total > limit)
      faults.push(
        `the quota ${need.quota.code} has no room for ${sentence}: have it raised (Service Quotas in the console of AWS), or recover less at once`,
      )
    else if (!used.isWhole) unknown.push(`${sentence}, and not all was counted`)
    else if (total > closeShare * limit) close.push(`${sentence}, ${need.quota.code}`)
    else roomy.push(sentence)
  }
  const other = takings.machines.filter(({ instanceType }) => familyOf(instanceType) === undefined)
  unknown.push(...other.map(({ instanceType, vcpuCount }) => `${vcpuCount} vCPUs of ${instanceType}`))
  const remarks = [
    ...(close.length === 0 ? [] : [`quotas that it nearly fills: ${close.join('; ')}`]),
    ...(roomy.length === 0 ? [] : [`quotas have room for ${roomy.join('; ')}`]),
    ...(unknown.length === 0
      ? []
      : [
          `whether quotas have room is not known of ${unknown.join('; ')}${unknownBecause === undefined ? '' : `: ${unknownBecause}`}`,
        ]),
  ]
  return {
    ...{ faults, remarks },
    putsPerSecondMax: values.get(putsPerSecondQuota.code),
    pendingSnapshotsMax: values.get(pendingSnapshotsQuota.code),
  }
}

function volumeNeeds({ volumes }: Takings, ec2: Ec2Calls): Need[] {
  const needs: Need[] = []
  for (const type of new Set(volumes.map(each => each.type))) {
    const ofType = volumes.filter(each => each.type === type)
    const sizeGiB = ofType.reduce((sum, { sizeBytes }) => sum + Math.max(1, Math.ceil(sizeBytes / GiB)), 0)
    let usage: ReturnType<Ec2Calls['storageInUse']> | undefined
    const inUse = (signal: AbortSignal) => (usage ??= ec2.storageInUse(type, signal))
    needs.push({
      quota: { service: 'ebs', code: storageCodes[type] },
      ...{ what: `of ${type}`, unit: 'TiB', taken: sizeGiB / 1024 },
      used: async signal => {
        const { sizeGiB: count, isWhole } = await inUse(signal)
        return { count: count / 1024, isWhole }
      },
    })
    const code = iopsCodes[type]
    const iops = ofType.reduce((sum, each) => sum + (each.iops ?? 0), 0)
    if (code === undefined) continue
    needs.push({
      quota: { service: 'ebs', code },
      ...{ what: `of ${type}`, unit: 'IOPS', taken: iops },
      used: async signal => {
        const { iops: count, isWhole } = await inUse(signal)
        return { count, isWhole }
      },
    })
  }
  return [
    ...needs,
    {
      quota: snapshotsQuota,
      ...{ what: 'of the region', unit: 'snapshots', taken: volumes.length },
      used: signal => ec2.snapshotCount(signal),
    },
  ]
}

function machineNeeds({ machines }: Takings, ec2: Ec2Calls): Need[] {
  let usage: ReturnType<Ec2Calls['runningVcpus']> | undefined
  return families.flatMap((family): Need[] => {
    const own = machines.filter(({ instanceType }) => familyOf(instanceType) === family)
    if (own.length === 0) return []
    return [
      {
        quota: { service: 'ec2', code: family.code },
        what: `of running On-Demand instances (${family.name})`,
        unit: 'vCPUs',
        taken: own.reduce((sum, { vcpuCount }) => sum + vcpuCount, 0),
        used: async signal => {
          const { byType, isWhole } = await (usage ??= ec2.runningVcpus(signal))
          const running = [...byType].filter(([type]) => familyOf(type) === family)
          return { count: running.reduce((sum, [, count]) => sum + count, 0), isWhole }
        },
      },
    ]
  })
}

function familyOf(instanceType: string): Family | undefined {
  const prefix = /^[a-z]+-?/.exec(instanceType)?.[0] ?? ''
  return families.find(({ prefixes }) => prefixes.includes(prefix))
}

function amount(count: number, unit: Need['unit']): string {
  if (unit !== 'TiB') return `${count} ${unit}`
  return count < 1 ? `${Math.round(count * 1024)} GiB` : `${Number(count.toFixed(2))} TiB`
}
