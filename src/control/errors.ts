import { z } from 'zod'
import { assertNever } from '../base/assert.ts'
import { Failure, failureToRecord, type FailureCode } from '../base/failure.ts'
import { faultInWords } from './request-faults.ts'
import type { ErrorBody } from './service.ts'

export interface ErrorAnswer {
  readonly httpStatus: number
  readonly retryAfterSeconds: number | undefined
  readonly body: ErrorBody
}

const retryAfterSeconds = 5

/** The HTTP answer to whatever was thrown. What nobody expected is a 500 that tells the caller nothing of our insides. */
export function answerToError(error: unknown): ErrorAnswer {
  if (error instanceof Failure) {
    const httpStatus = httpStatusOf(error)
    const body = failureToRecord(error)
    return { httpStatus, retryAfterSeconds: httpStatus === 503 ? retryAfterSeconds : undefined, body }
  }
  const refusal = refusalOfFramework(error)
  if (refusal !== undefined) return refusal
  const sentence = 'the daemon met a fault of its own; its log has the details'
  return { httpStatus: 500, retryAfterSeconds: undefined, body: { code: 'INTERNAL_ERROR', sentence, details: {} } }
}

const refusalStatus: Partial<Readonly<Record<FailureCode, number>>> = {
  REQUEST_INVALID: 400,
  CONFIG_INVALID: 400,
  IDENTITY_REFUSED: 403,
  UNKNOWN_VPG: 404,
  UNKNOWN_VOLUME: 404,
  ALREADY_EXISTS: 409,
  SYNC_REQUIRED: 409,
}

function httpStatusOf(failure: Failure): number {
  switch (failure.reaction) {
    case 'refuse':
      return refusalStatus[failure.code] ?? 422
    case 'missing':
      return 404
    case 'shed':
    case 'retry':
    case 'cancelled':
      return 503
    case 'stand-down':
      return 409
    case 'quarantine':
      return 500
    default:
      return assertNever(failure.reaction)
  }
}

/** A body that is no JSON, too long, of another type: the framework refuses these with a status of its own. */
function refusalOfFramework(error: unknown): ErrorAnswer | undefined {
  if (!(error instanceof Error) || !('statusCode' in error) || typeof error.statusCode !== 'number') return undefined
  if (error.statusCode < 400 || error.statusCode >= 500) return undefined
  const body = { code: 'REQUEST_INVALID', sentence: error.message, details: {} } as const
  return { httpStatus: error.statusCode, retryAfterSeconds: undefined, body }
}

/** The value as the schema gives it, or REQUEST_INVALID with everything that is wrong in one sentence. */
export function validated<S extends z.ZodType>(schema: S, value: unknown, what: string): z.output<S> {
  const parsed = schema.safeParse(value ?? {})
  if (parsed.success) return parsed.data
  const faults = parsed.error.issues.map(faultInWords)
  throw new Failure('REQUEST_INVALID', `the ${what} is not valid: ${faults.join('; ')}`, { faultCount: faults.length })
}
