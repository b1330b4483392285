import type { Tags } from './account.ts'

// Whether a policy of IAM allows a call: what IAM knows of it, as far as policies here need it. Whatever else stands in one is refused, not passed over.

export interface Statement {
  readonly Effect: 'Allow' | 'Deny'
  readonly Action: readonly string[]
  readonly Resource: string | readonly string[]
  readonly Condition?: unknown
}

export interface Policy {
  readonly Statement: readonly Statement[]
}

export interface Asked {
  /** "ec2:DeleteSnapshot" */
  readonly action: string
  readonly region: string
  /** Of what is made. */
  readonly requestTags: Tags
  /** Of each thing that the call is about, its tags; undefined for one that is not there. */
  readonly resources: readonly Thing[]
  /** Of tags that are given in a call that makes something. */
  readonly createAction?: string
}

interface Thing {
  readonly id: string
  readonly tags: Tags | undefined
}

const kindOf = { vol: 'volume', i: 'instance', snap: 'snapshot', ami: 'image' } as const

/** Each of the things that the call is about must be allowed, by whichever statement. */
export function isAllowed({ Statement }: Policy, asked: Asked): boolean {
  const { resources } = asked
  const each = resources.length === 0 ? [[]] : resources.map(resource => [resource])
  return each.every(only => {
    const holding = Statement.filter(statement => {
      if (!statement.Action.includes(asked.action) || !isMeant(statement.Resource, only[0])) return false
      return holds(statement.Condition ?? {}, { ...asked, resources: only })
    })
    return holding.some(({ Effect }) => Effect === 'Allow') && !holding.some(({ Effect }) => Effect === 'Deny')
  })
}

/** All, or all of a kind. */
function isMeant(resource: Statement['Resource'], thing: Thing | undefined): boolean {
  if (resource === '*') return true
  const kind = typeof resource === 'string' ? /^arn:aws:ec2:[a-z0-9-]+:\*:([a-z]+)\/\*$/.exec(resource)?.[1] : undefined
  if (kind === undefined) throw new Error(`the resource ${String(resource)} is not known here`)
  return kind === kindOf[thing?.id.split('-')[0] as keyof typeof kindOf]
}

function holds(condition: unknown, asked: Asked): boolean {
  for (const [operator, keys] of Object.entries(condition as Record<string, Record<string, string | string[]>>)) {
    if (operator !== 'StringEquals' && operator !== 'Bool')
      throw new Error(`the operator ${operator} is not known here`)
    for (const [key, wanted] of Object.entries(keys)) {
      const values = Array.isArray(wanted) ? wanted : [wanted]
      const found = valuesOf(key, asked)
      if (found.length === 0 || !found.every(value => value !== undefined && values.includes(value))) return false
    }
  }
  return true
}

function valuesOf(key: string, { region, requestTags, resources, createAction }: Asked): (string | undefined)[] {
  const [kind, tag = ''] = key.split('/')
  switch (kind) {
    case 'aws:RequestedRegion':
      return [region]
    case 'aws:RequestTag':
      return [requestTags.get(tag)]
    case 'aws:ResourceTag':
      return resources.map(({ tags }) => tags?.get(tag))
    case 'ec2:CreateAction':
      return [createAction]
    case 'kms:GrantIsForAWSResource':
      return ['true']
    case 'iam:PassedToService':
      return ['ec2.amazonaws.com']
    default:
      throw new Error(`the condition ${key} is not known here`)
  }
}
