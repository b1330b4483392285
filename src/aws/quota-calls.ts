import {
  GetAWSDefaultServiceQuotaCommand,
  GetServiceQuotaCommand,
  type ServiceQuotasClient,
} from '@aws-sdk/client-service-quotas'
import { Failure } from '../base/failure.ts'
import type { Attempts } from './attempts.ts'
import { isDenied, isThrottle } from './failures.ts'

// A plan is better for knowing quotas, but must not depend on it: whoever may not ask, or gets no answer, is told so, and nothing waits for long.

const throttledAttemptsMax = 4

export interface Quota {
  readonly service: 'ebs' | 'ec2'
  readonly code: string
}

export interface KnownQuotas {
  /** By code. A quota that AWS does not tell is not there. */
  readonly values: ReadonlyMap<string, number>
  /** Why some are not known. */
  readonly unknownBecause: string | undefined
}

/** The calls of Service Quotas that a plan makes. */
export class QuotaCalls {
  readonly #client: ServiceQuotasClient | undefined
  readonly #attempts: Attempts

  /** Without a client no quota is known. */
  constructor(client: ServiceQuotasClient | undefined, attempts: Attempts) {
    this.#client = client
    this.#attempts = attempts
  }

  /** Fails only where the signal is aborted. */
  async read(quotas: readonly Quota[], signal: AbortSignal): Promise<KnownQuotas> {
    const values = new Map<string, number>()
    const known = (unknownBecause?: string): KnownQuotas => ({ values, unknownBecause })
    if (this.#client === undefined)
      return known('aws.endpoints.quotas is not set in the configuration, where other endpoints are')
    for (const quota of quotas)
      try {
        const value = await this.#valueOf(this.#client, quota, signal)
        if (value !== undefined) values.set(quota.code, value)
      } catch (error) {
        signal.throwIfAborted()
        if (!(error instanceof Failure)) throw error
        if (isDenied(error))
          return known(
            'the VRA may not ask Service Quotas, which `vra aws policy` would let it: an optional permission',
          )
        return known(error.message)
      }
    const missing = quotas.filter(({ code }) => !values.has(code)).map(({ code }) => code)
    return known(missing.length === 0 ? undefined : `Service Quotas does not know ${missing.join(', ')} here`)
  }

  /** What applies to the account; where nobody has ever asked for a change AWS may know the default only. Undefined: it knows neither. */
  async #valueOf(
    client: ServiceQuotasClient,
    { service, code }: Quota,
    signal: AbortSignal,
  ): Promise<number | undefined> {
    const input = { ServiceCode: service, QuotaCode: code }
    const { Quota: applied } = await this.#orNothing('servicequotas:GetServiceQuota', signal, abortSignal =>
      client.send(new GetServiceQuotaCommand(input), { abortSignal }),
    )
    if (applied?.Value !== undefined) return applied.Value
    const { Quota: standard } = await this.#orNothing('servicequotas:GetAWSDefaultServiceQuota', signal, abortSignal =>
      client.send(new GetAWSDefaultServiceQuotaCommand(input), { abortSignal }),
    )
    return standard?.Value
  }

  async #orNothing<T extends object>(
    call: string,
    signal: AbortSignal,
    send: (signal: AbortSignal) => Promise<T>,
  ): Promise<Partial<T>> {
    const mayRepeat = (failure: Failure, attempt: number): boolean =>
      isThrottle(failure) && attempt < throttledAttemptsMax
    try {
      return await this.#attempts.repeat(() => this.#attempts.once(call, signal, send), mayRepeat, 'fail', signal)
    } catch (error) {
      if (error instanceof Failure && error.details['errorCode'] === 'NoSuchResourceException') return {}
      throw error
    }
  }
}
