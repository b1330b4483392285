import type { AwsConfig } from './service.ts'

// What the VRA calls, in one table: the policy of permissions is made from it, and every call names itself as it stands here.

/**
 * own: allowed only on what bears the owner's tag. making: only where what is made gets it. tagging: only in a call that makes something, and on what bears
 * the owner's tag: who may tag anything may make anything his own. attaching: a volume and a machine that each bear it. any: AWS knows no such condition for it. key: of a key of KMS, which AWS uses in the caller's
 * name; granting: the same, and only as a grant for AWS itself.
 */
export type Scope = 'any' | 'making' | 'own' | 'attaching' | 'tagging' | 'key' | 'granting'

interface CallUse {
  readonly action: string
  readonly scope: Scope
  /** What the tag that counts is of. */
  readonly key?: 'ec2' | 'ebs'
  readonly why: string
  /** Recoveries are made without it, too. */
  readonly isOptional?: true
}

export const callsUsed: readonly CallUse[] = [
  {
    action: 'ebs:StartSnapshot',
    scope: 'making',
    key: 'ebs',
    why: 'a snapshot of each volume, and the links of standby chains',
  },
  { action: 'ebs:PutSnapshotBlock', scope: 'own', key: 'ebs', why: 'their blocks' },
  { action: 'ebs:CompleteSnapshot', scope: 'own', key: 'ebs', why: 'their end' },
  { action: 'ebs:ListSnapshotBlocks', scope: 'own', key: 'ebs', why: 'which blocks a standby link has' },
  { action: 'ec2:DeleteSnapshot', scope: 'own', key: 'ebs', why: 'links that were passed, recoveries that are undone' },
  { action: 'ec2:CreateVolume', scope: 'any', why: 'volumes from snapshots' },
  { action: 'ec2:DeleteVolume', scope: 'own', key: 'ebs', why: 'recoveries that are undone' },
  { action: 'ec2:AttachVolume', scope: 'attaching', why: 'root-swap' },
  { action: 'ec2:DetachVolume', scope: 'attaching', why: 'root-swap' },
  { action: 'ec2:RegisterImage', scope: 'any', why: 'the image that a machine starts from' },
  { action: 'ec2:DeregisterImage', scope: 'own', key: 'ec2', why: 'its end' },
  { action: 'ec2:RunInstances', scope: 'any', why: 'a machine' },
  { action: 'ec2:StartInstances', scope: 'own', key: 'ec2', why: 'root-swap' },
  { action: 'ec2:StopInstances', scope: 'own', key: 'ec2', why: 'root-swap' },
  { action: 'ec2:TerminateInstances', scope: 'own', key: 'ec2', why: 'recoveries that are undone' },
  {
    action: 'ec2:CreateTags',
    scope: 'tagging',
    why: 'tags, with whatever is made and on volumes that came with an instance',
  },
  { action: 'ec2:DescribeAvailabilityZones', scope: 'any', why: 'plans' },
  { action: 'ec2:DescribeImages', scope: 'any', why: 'what there is' },
  { action: 'ec2:DescribeInstances', scope: 'any', why: 'what there is' },
  { action: 'ec2:DescribeInstanceTypeOfferings', scope: 'any', why: 'plans' },
  { action: 'ec2:DescribeInstanceTypes', scope: 'any', why: 'plans' },
  { action: 'ec2:DescribeKeyPairs', scope: 'any', why: 'plans' },
  { action: 'ec2:DescribeSecurityGroups', scope: 'any', why: 'plans' },
  { action: 'ec2:DescribeSnapshots', scope: 'any', why: 'what there is' },
  { action: 'ec2:DescribeSubnets', scope: 'any', why: 'plans' },
  { action: 'ec2:DescribeVolumes', scope: 'any', why: 'what there is' },
  { action: 'servicequotas:GetServiceQuota', scope: 'any', isOptional: true, why: 'quotas in plans' },
  { action: 'servicequotas:GetAWSDefaultServiceQuota', scope: 'any', isOptional: true, why: 'quotas in plans' },
  { action: 'kms:CreateGrant', scope: 'granting', why: 'machines with encrypted volumes' },
  { action: 'kms:Decrypt', scope: 'key', why: 'encrypted snapshots and volumes' },
  { action: 'kms:DescribeKey', scope: 'key', why: 'encrypted snapshots and volumes' },
  { action: 'kms:GenerateDataKey', scope: 'key', why: 'encrypted snapshots' },
  { action: 'kms:GenerateDataKeyWithoutPlaintext', scope: 'key', why: 'encrypted snapshots and volumes' },
  { action: 'kms:ReEncryptFrom', scope: 'key', why: 'encrypted volumes' },
  { action: 'kms:ReEncryptTo', scope: 'key', why: 'encrypted volumes' },
]

/** As ec2:CreateAction has them. */
const makingCalls = ['CreateVolume', 'RegisterImage', 'RunInstances', 'StartSnapshot']

interface Statement {
  readonly Sid: string
  readonly Effect: 'Allow'
  readonly Action: readonly string[]
  readonly Resource: string | readonly string[]
  readonly Condition?: unknown
}

export interface PolicyDocument {
  readonly Version: '2012-10-17'
  readonly Statement: readonly Statement[]
}

/**
 * The least that recovery to AWS needs, as a policy of IAM: one statement for each scope. Roles, by name, are those of the instance profiles that recovered machines are started with: who may give a
 * machine any role may have whatever that one may.
 */
export function policyDocument(
  { region, siteId, tagKeys }: Pick<AwsConfig, 'region' | 'siteId' | 'tagKeys'>,
  roles: readonly string[],
): PolicyDocument {
  const actions = (scope: Scope, key?: 'ec2' | 'ebs'): string[] =>
    callsUsed.filter(use => use.scope === scope && use.key === key).map(({ action }) => action)
  const here = { StringEquals: { 'aws:RequestedRegion': region } }
  const statement = (Sid: string, Action: readonly string[], condition: object): Statement => ({
    Sid,
    Effect: 'Allow',
    Action,
    Resource: '*',
    Condition: { StringEquals: { ...here.StringEquals, ...condition } },
  })
  return {
    Version: '2012-10-17',
    Statement: [
      statement('Any', actions('any'), {}),
      statement('MakeSnapshots', actions('making', 'ebs'), { [`aws:RequestTag/${tagKeys.ebs}`]: siteId }),
      statement('TagWhatIsMade', actions('tagging'), { 'ec2:CreateAction': makingCalls }),
      statement('OwnStorage', [...actions('own', 'ebs'), ...actions('tagging')], {
        [`aws:ResourceTag/${tagKeys.ebs}`]: siteId,
      }),
      statement('OwnMachines', [...actions('own', 'ec2'), ...actions('tagging')], {
        [`aws:ResourceTag/${tagKeys.ec2}`]: siteId,
      }),
      {
        ...statement('AttachOwnVolumes', actions('attaching'), { [`aws:ResourceTag/${tagKeys.ebs}`]: siteId }),
        Resource: `arn:aws:ec2:${region}:*:volume/*`,
      },
      {
        ...statement('AttachToOwnMachines', actions('attaching'), { [`aws:ResourceTag/${tagKeys.ec2}`]: siteId }),
        Resource: `arn:aws:ec2:${region}:*:instance/*`,
      },
      statement('UseKeys', actions('key'), {}),
      {
        Sid: 'GrantKeys',
        Effect: 'Allow',
        Action: actions('granting'),
        Resource: '*',
        Condition: { ...here, Bool: { 'kms:GrantIsForAWSResource': 'true' } },
      },
      ...(roles.length === 0 ? [] : [passRoles(roles)]),
    ],
  }
}

function passRoles(roles: readonly string[]): Statement {
  return {
    Sid: 'PassRoles',
    Effect: 'Allow',
    Action: ['iam:PassRole'],
    Resource: roles.map(role => (role.startsWith('arn:') ? role : `arn:aws:iam::*:role/${role}`)),
    Condition: { StringEquals: { 'iam:PassedToService': 'ec2.amazonaws.com' } },
  }
}
