import {
  CompleteSnapshotCommand,
  ListSnapshotBlocksCommand,
  PutSnapshotBlockCommand,
  StartSnapshotCommand,
  type EBSClient,
} from '@aws-sdk/client-ebs'
import {
  AttachVolumeCommand,
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
} from '@aws-sdk/client-ec2'
import {
  GetAWSDefaultServiceQuotaCommand,
  GetServiceQuotaCommand,
  type ServiceQuotasClient,
} from '@aws-sdk/client-service-quotas'
import { createHash, randomUUID } from 'node:crypto'
import { systemClock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import { ebsBlockSizeBytes } from '../base/limits.ts'
import { Attempts } from './attempts.ts'
import { newEbsClient, newEc2Client, newQuotaClient } from './clients.ts'
import { Ec2Calls, tagSpecification } from './ec2-calls.ts'
import { errorNameOf, isDenied } from './failures.ts'
import { callsUsed } from './policy.ts'
import type { AwsConfig } from './service.ts'
import { tagList, type TagTable } from './tags.ts'

// Whether the role may do what `callsUsed` says, found out by trying, without anything that comes of it: EC2 by its DryRun; the EBS direct APIs, which have none,
// by requests that cannot be carried out, for what they are about does not exist, or is completed long ago. Who is not allowed is told so before that.
//
// Where a permission counts only for what bears the owner's tag, it is tried on what does. Where there is nothing yet, a refusal says nothing.

export interface PermissionFinding {
  readonly action: string
  /** What the VRA needs it for. */
  readonly why: string
  /** 'untried': nobody can say without changing something. 'absent': it is missing, and recoveries are made without it. */
  readonly outcome: 'allowed' | 'missing' | 'untried' | 'absent'
  readonly sentence: string
}

/** Of what is there the ids of what bears the owner's tag. */
interface Own {
  readonly snapshot?: string
  readonly volume?: string
  readonly image?: string
  readonly instance?: string
}

interface Site {
  readonly ebs: EBSClient
  readonly ec2: EC2Client
  /** Undefined: it is not asked at all. */
  readonly quotas: ServiceQuotasClient | undefined
  readonly region: string
  readonly own: Own
  readonly tags: { readonly ec2: TagTable; readonly ebs: TagTable }
  readonly signal: AbortSignal
}

interface Probe {
  /** What of one's own it is tried on; where there is none, on something that does not exist. */
  readonly on?: keyof Own
  /** The same of a second thing. */
  readonly onToo?: keyof Own
  /** It is tried together with this one: where that is missing, nobody can say of it. */
  readonly with?: string
  readonly send: (site: Site) => Promise<unknown>
}

const absent = { snapshot: 'snap', volume: 'vol', image: 'ami', instance: 'i' } as const

function idOf({ own }: Site, kind: keyof Own): string {
  return own[kind] ?? `${absent[kind]}-0${'f'.repeat(16)}`
}

const DryRun = true
const anyQuota = { ServiceCode: 'ebs', QuotaCode: 'L-309BACF6' } as const

/** One for every call in the table, but for those of KMS, which AWS makes in our name. */
export const probes: Readonly<Record<string, Probe>> = {
  'ebs:StartSnapshot': {
    with: 'ec2:CreateTags',
    send: ({ ebs, tags, signal }) => {
      const command = new StartSnapshotCommand({
        VolumeSize: 1,
        ParentSnapshotId: `snap-0${'f'.repeat(16)}`, // there is none: nothing is started upon it
        Tags: tagList(tags.ebs),
        ClientToken: randomUUID(),
      })
      return ebs.send(command, { abortSignal: signal })
    },
  },
  'ebs:PutSnapshotBlock': {
    on: 'snapshot',
    send: site => {
      const bytes = new Uint8Array(ebsBlockSizeBytes)
      const command = new PutSnapshotBlockCommand({
        SnapshotId: idOf(site, 'snapshot'), // it is completed: nothing is put into it
        BlockIndex: 0,
        BlockData: bytes,
        DataLength: bytes.length,
        Checksum: createHash('sha256').update(bytes).digest('base64'),
        ChecksumAlgorithm: 'SHA256',
      })
      return site.ebs.send(command, { abortSignal: site.signal })
    },
  },
  'ebs:CompleteSnapshot': {
    on: 'snapshot',
    send: site => {
      const command = new CompleteSnapshotCommand({ SnapshotId: idOf(site, 'snapshot'), ChangedBlocksCount: 0 })
      return site.ebs.send(command, { abortSignal: site.signal })
    },
  },
  'ebs:ListSnapshotBlocks': {
    on: 'snapshot',
    send: site => {
      const command = new ListSnapshotBlocksCommand({ SnapshotId: idOf(site, 'snapshot'), MaxResults: 100 })
      return site.ebs.send(command, { abortSignal: site.signal })
    },
  },
  'ec2:DeleteSnapshot': {
    on: 'snapshot',
    send: site =>
      site.ec2.send(new DeleteSnapshotCommand({ DryRun, SnapshotId: idOf(site, 'snapshot') }), {
        abortSignal: site.signal,
      }),
  },
  'ec2:CreateVolume': { send: site => createVolume(site, undefined) },
  'ec2:DeleteVolume': {
    on: 'volume',
    send: site =>
      site.ec2.send(new DeleteVolumeCommand({ DryRun, VolumeId: idOf(site, 'volume') }), { abortSignal: site.signal }),
  },
  'ec2:AttachVolume': {
    on: 'volume',
    onToo: 'instance',
    send: site => {
      const command = new AttachVolumeCommand({
        ...{ DryRun, VolumeId: idOf(site, 'volume'), InstanceId: idOf(site, 'instance') },
        Device: '/dev/sdf',
      })
      return site.ec2.send(command, { abortSignal: site.signal })
    },
  },
  'ec2:DetachVolume': {
    on: 'volume',
    send: site =>
      site.ec2.send(new DetachVolumeCommand({ DryRun, VolumeId: idOf(site, 'volume') }), { abortSignal: site.signal }),
  },
  'ec2:RegisterImage': {
    send: site => {
      const Ebs = { SnapshotId: idOf(site, 'snapshot') }
      const command = new RegisterImageCommand({
        ...{ DryRun, Name: `vra-check-${randomUUID()}`, Architecture: 'x86_64', VirtualizationType: 'hvm' },
        RootDeviceName: '/dev/sda1',
        BlockDeviceMappings: [{ DeviceName: '/dev/sda1', Ebs }],
      })
      return site.ec2.send(command, { abortSignal: site.signal })
    },
  },
  'ec2:DeregisterImage': {
    on: 'image',
    send: site =>
      site.ec2.send(new DeregisterImageCommand({ DryRun, ImageId: idOf(site, 'image') }), { abortSignal: site.signal }),
  },
  'ec2:RunInstances': {
    send: site => {
      const command = new RunInstancesCommand({ DryRun, ImageId: idOf(site, 'image'), MinCount: 1, MaxCount: 1 })
      return site.ec2.send(command, { abortSignal: site.signal })
    },
  },
  'ec2:StartInstances': instanceProbe(StartInstancesCommand),
  'ec2:StopInstances': instanceProbe(StopInstancesCommand),
  'ec2:TerminateInstances': instanceProbe(TerminateInstancesCommand),
  'ec2:CreateTags': { with: 'ec2:CreateVolume', send: site => createVolume(site, site.tags.ebs) },
  'ec2:DescribeAvailabilityZones': readProbe(DescribeAvailabilityZonesCommand),
  'ec2:DescribeImages': readProbe(DescribeImagesCommand),
  'ec2:DescribeInstances': readProbe(DescribeInstancesCommand),
  'ec2:DescribeInstanceTypeOfferings': readProbe(DescribeInstanceTypeOfferingsCommand),
  'ec2:DescribeInstanceTypes': readProbe(DescribeInstanceTypesCommand),
  'ec2:DescribeKeyPairs': readProbe(DescribeKeyPairsCommand),
  'ec2:DescribeSecurityGroups': readProbe(DescribeSecurityGroupsCommand),
  'ec2:DescribeSnapshots': readProbe(DescribeSnapshotsCommand),
  'ec2:DescribeSubnets': readProbe(DescribeSubnetsCommand),
  'ec2:DescribeVolumes': readProbe(DescribeVolumesCommand),
  'servicequotas:GetServiceQuota': {
    send: ({ quotas, signal }) => quotas!.send(new GetServiceQuotaCommand(anyQuota), { abortSignal: signal }),
  },
  'servicequotas:GetAWSDefaultServiceQuota': {
    send: ({ quotas, signal }) => quotas!.send(new GetAWSDefaultServiceQuotaCommand(anyQuota), { abortSignal: signal }),
  },
}

const onKeys = 'only a snapshot, or a machine, that is encrypted with the key shows it'

type Sendable = Parameters<EC2Client['send']>[0]

function readProbe(Command: new (input: { readonly DryRun: boolean }) => unknown): Probe {
  return { send: ({ ec2, signal }) => ec2.send(new Command({ DryRun }) as Sendable, { abortSignal: signal }) }
}

function instanceProbe(
  Command: new (input: { readonly DryRun: boolean; readonly InstanceIds: string[] }) => unknown,
): Probe {
  return {
    on: 'instance',
    send: site => {
      const command = new Command({ DryRun, InstanceIds: [idOf(site, 'instance')] }) as Sendable
      return site.ec2.send(command, { abortSignal: site.signal })
    },
  }
}

async function createVolume({ ec2, region, signal }: Site, tags: TagTable | undefined): Promise<unknown> {
  const command = new CreateVolumeCommand({
    ...{ DryRun, AvailabilityZone: `${region}a`, Size: 1, VolumeType: 'gp3' as const },
    ...(tags === undefined ? {} : { TagSpecifications: [tagSpecification('volume', tags)] }),
  })
  return await ec2.send(command, { abortSignal: signal })
}

/** One for every call that the VRA makes, in the order of the table. Fails where AWS does not answer, or knows the credentials not at all. */
export async function checkPermissions(config: AwsConfig, signal: AbortSignal): Promise<readonly PermissionFinding[]> {
  const ebs = newEbsClient(config, 1)
  const ec2 = newEc2Client(config)
  const quotas = newQuotaClient(config)
  try {
    const attempts = new Attempts(config.requestTimeoutMillis, systemClock)
    const tags = {
      ec2: { [config.tagKeys.ec2]: config.siteId },
      ebs: { [config.tagKeys.ebs]: config.siteId },
    }
    const own = await ownThings(new Ec2Calls(ec2, attempts), tags, signal)
    const findings: PermissionFinding[] = []
    const site = { ebs, ec2, quotas, region: config.region, own, tags, signal }
    for (const { action, why, isOptional } of callsUsed) {
      const probe = probes[action]
      if (probe === undefined) findings.push({ action, why, outcome: 'untried', sentence: onKeys })
      else
        findings.push({
          ...{ action, why },
          ...(isOptional
            ? await triedQuotas(action, probe, attempts, site)
            : await tried(action, probe, attempts, site)),
        })
    }
    const isMissing = (action: string | undefined): boolean =>
      findings.some(each => each.action === action && each.outcome === 'missing')
    const told = findings.map((finding): PermissionFinding => {
      const other = probes[finding.action]?.with
      if (finding.outcome !== 'missing' || other === undefined || !isMissing(other)) return finding
      return {
        ...finding,
        outcome: 'untried',
        sentence: `it can be tried only together with ${other}, which is missing`,
      }
    })
    return [...told, passRole]
  } finally {
    ebs.destroy()
    ec2.destroy()
    quotas?.destroy()
  }
}

const passRole: PermissionFinding = {
  action: 'iam:PassRole',
  why: 'machines with an iamProfile',
  outcome: 'untried',
  sentence: 'only an instance that is started with a profile shows it',
}

/** Plans are made without them: neither their absence nor a service that does not answer is a fault. */
async function triedQuotas(
  action: string,
  probe: Probe,
  attempts: Attempts,
  site: Site,
): Promise<Pick<PermissionFinding, 'outcome' | 'sentence'>> {
  if (site.quotas === undefined) return { outcome: 'untried', sentence: 'aws.endpoints.quotas is not set' }
  try {
    await attempts.once(action, site.signal, signal => probe.send({ ...site, signal }))
    return { outcome: 'allowed', sentence: 'it was carried out, and reads only' }
  } catch (error) {
    site.signal.throwIfAborted()
    if (!(error instanceof Failure)) throw error
    if (isDenied(error)) return { outcome: 'absent', sentence: 'AWS does not allow it; plans do not know quotas' }
    if (error.reaction === 'retry') return { outcome: 'untried', sentence: error.message }
    return { outcome: 'allowed', sentence: `AWS looked at it (${errorNameOf(error)})` }
  }
}

async function tried(
  action: string,
  probe: Probe,
  attempts: Attempts,
  site: Site,
): Promise<Pick<PermissionFinding, 'outcome' | 'sentence'>> {
  try {
    await attempts.repeatable(action, site.signal, signal => probe.send({ ...site, signal }))
    return { outcome: 'allowed', sentence: 'it was carried out, and reads only' }
  } catch (error) {
    if (!(error instanceof Failure) || error.reaction === 'retry' || error.code === 'CLOSING') throw error
    const name = errorNameOf(error)
    if (name === 'DryRunOperation') return { outcome: 'allowed', sentence: 'AWS says that it would do it' }
    if (!isDenied(error)) return { outcome: 'allowed', sentence: `AWS looked at it (${name})` }
    if (isOfCredentials(name)) throw error
    const lacking = [probe.on, probe.onToo].find(kind => kind !== undefined && site.own[kind] === undefined)
    if (lacking !== undefined)
      return { outcome: 'untried', sentence: `there is no ${lacking} with the owner's tag to try it on` }
    return { outcome: 'missing', sentence: `AWS does not allow it (${name})` }
  }
}

/** It is not one permission that is missing: nobody is known by these credentials. */
function isOfCredentials(name: string): boolean {
  return !/^(AccessDenied|AccessDeniedException|UnauthorizedOperation)$/.test(name)
}

/** Of each kind one, completed; none where it may not be looked for. */
async function ownThings(ec2: Ec2Calls, tags: Site['tags'], signal: AbortSignal): Promise<Own> {
  const first = async <T>(
    look: () => Promise<readonly T[]>,
    idOf: (each: T) => string | undefined,
  ): Promise<string[]> => {
    try {
      return (await look()).flatMap(each => idOf(each) ?? []).slice(0, 1)
    } catch (error) {
      if (error instanceof Failure && isDenied(error) && !isOfCredentials(errorNameOf(error))) return []
      throw error
    }
  }
  const [snapshot] = await first(
    () => ec2.snapshots({ tags: tags.ebs }, signal),
    ({ State, SnapshotId }) => (State === 'completed' ? SnapshotId : undefined),
  )
  const [volume] = await first(
    () => ec2.volumes({ tags: tags.ebs }, signal),
    ({ VolumeId }) => VolumeId,
  )
  const [image] = await first(
    () => ec2.images({ tags: tags.ec2 }, signal),
    ({ ImageId }) => ImageId,
  )
  const [instance] = await first(
    () => ec2.instances({ tags: tags.ec2 }, signal),
    ({ State, InstanceId }) => (State?.Name === 'terminated' ? undefined : InstanceId),
  )
  return {
    ...(snapshot === undefined ? {} : { snapshot }),
    ...(volume === undefined ? {} : { volume }),
    ...(image === undefined ? {} : { image }),
    ...(instance === undefined ? {} : { instance }),
  }
}
