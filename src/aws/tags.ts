import type { RecoveryRecord } from '../timeline/recovery.ts'
import type { AwsConfig } from './service.ts'

// The tags of everything that is made in AWS. Whoever looks for what a recovery has left looks for its id; the policy of permissions, and those who
// bill, go by the owner's keys, whose value is the owner's site id.

/** What is made, and which of the owner's keys it bears. */
export const ownerKeyOf = {
  instance: 'ec2',
  'network-interface': 'ec2',
  image: 'ec2',
  volume: 'ebs',
  snapshot: 'ebs',
} as const

export type TaggedKind = keyof typeof ownerKeyOf

/** The owner's keys, unless the configuration has others. */
export const ownerKeys = {
  ec2: 'ZERTO_EC2_RESOURCE',
  ebs: 'ZERTO_EBS_RESOURCE',
  vpc: 'ZERTO_VPC_RESOURCE',
  s3: 'ZERTO_S3_RESOURCE',
} as const

export const ownKeys = {
  recovery: 'vra-recovery',
  standby: 'vra-standby',
  vpg: 'vra-vpg',
  vm: 'vra-vm',
  volume: 'vra-volume',
  checkpoint: 'vra-checkpoint',
  /** Of the volume at the protected site: EBS rounds to GiB. */
  sizeBytes: 'vra-size-bytes',
  /** What it is for, where there are several of a kind. */
  role: 'vra-role',
} as const

export type TagTable = Readonly<Record<string, string>>

const valueCharactersMax = 255

/** What everything of the recovery bears. */
export function recoveryTags(kind: TaggedKind, config: AwsConfig, record: RecoveryRecord, more: TagTable): TagTable {
  return {
    [config.tagKeys[ownerKeyOf[kind]]]: config.siteId,
    [ownKeys.recovery]: record.id,
    [ownKeys.checkpoint]: String(record.checkpoint?.ordinal ?? ''),
    ...more,
  }
}

export function tagList(table: TagTable): { Key: string; Value: string }[] {
  return Object.entries(table).map(([Key, value]) => ({ Key, Value: value.slice(0, valueCharactersMax) }))
}

export function tagTable(
  tags: readonly { readonly Key?: string | undefined; readonly Value?: string | undefined }[] | undefined,
): TagTable {
  return Object.fromEntries((tags ?? []).map(({ Key = '', Value = '' }) => [Key, Value]))
}
