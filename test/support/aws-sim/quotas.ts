import { Refusal } from './refusal.ts'

// Service Quotas of the account: what was raised is applied, of the rest only the default is known.

const target = 'ServiceQuotasV20190624.'

/** As AWS has them for a new account, by service and code. */
const defaults: Readonly<Record<string, number>> = {
  'ebs L-AFAE1BE8': 1000,
  'ebs L-94D7AB7D': 100,
  'ebs L-309BACF6': 100_000,
  'ebs L-7A658B76': 50,
  'ebs L-D18FCD1D': 50,
  'ebs L-FD252861': 50,
  'ebs L-09BD8365': 20,
  'ebs L-82ACEF56': 50,
  'ebs L-17AF77E8': 50,
  'ebs L-9CF3C2EB': 50,
  'ebs L-B3A130E6': 300_000,
  'ebs L-8D977E7E': 100_000,
  'ec2 L-1216C47A': 64,
  'ec2 L-7295265B': 0,
}

/** The operation of a request to Service Quotas; undefined where the request is to another service. */
export function quotaOperationOf(headers: Readonly<Record<string, string | string[] | undefined>>): string | undefined {
  const value = headers['x-amz-target']
  return typeof value === 'string' && value.startsWith(target) ? value.slice(target.length) : undefined
}

export class Quotas {
  /** By code. */
  readonly applied = new Map<string, number>()

  /** The answer, as JSON. */
  perform(operation: string, body: Buffer): object {
    const asked = JSON.parse(body.toString()) as Record<string, unknown>
    const { ServiceCode, QuotaCode, ...unknown } = asked
    if (Object.keys(unknown).length > 0 || typeof ServiceCode !== 'string' || typeof QuotaCode !== 'string')
      throw new Refusal(400, 'IllegalArgumentException', 'ServiceCode and QuotaCode are wanted, and nothing else')
    const standard = defaults[`${ServiceCode} ${QuotaCode}`]
    const absent = (): Refusal => new Refusal(400, 'NoSuchResourceException', `The request failed: ${QuotaCode}`)
    if (standard === undefined) throw absent()
    const told = (Value: number): object => ({ Quota: { ServiceCode, QuotaCode, Value, Adjustable: true } })
    if (operation === 'GetAWSDefaultServiceQuota') return told(standard)
    if (operation !== 'GetServiceQuota') throw new Refusal(400, 'UnknownOperationException', operation)
    const value = this.applied.get(QuotaCode)
    if (value === undefined) throw absent()
    return told(value)
  }
}
