import { AssertionFailed } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'

// What an answer of AWS, or none, means here. By status and name: messages change.

/** Of the answers below 500 these pass by themselves. */
const passing = new Set([
  'ConcurrentLimitExceededException', // of StartSnapshot: too many snapshots are open at this moment
  'ExpiredTokenException',
  'InsufficientInstanceCapacity',
  'InsufficientVolumeCapacity',
  'RequestExpired',
  'RequestLimitExceeded',
  'RequestThrottled',
  'RequestThrottleException',
  'RequestThrottledException',
  'ResourceLimitExceeded',
  'Throttling',
  'ThrottlingException',
  'TooManyRequestsException',
])

/** Of the passing ones, those that say: slower. */
const throttling = /Throttl|RequestLimitExceeded|TooManyRequests|ConcurrentLimitExceeded/

/** Names that say that a thing is not there, beside those that end with "NotFound": of an image that was deregistered, or is not known everywhere yet. */
const missingNames = new Set(['InvalidAMIID.Unavailable'])

/** Reasons of a ValidationException that a second try mends. */
const passingReasons = new Set(['WRITE_REQUEST_TIMEOUT', 'CONFLICTING_BLOCK_UPDATE'])

const permissionNames = new Set([
  'AccessDeniedException',
  'AccessDenied',
  'UnauthorizedOperation',
  'AuthFailure',
  'SignatureDoesNotMatch',
  'MissingAuthenticationToken',
  'UnrecognizedClientException',
  'InvalidClientTokenId',
])

interface ServiceError extends Error {
  readonly $metadata: {
    readonly httpStatusCode?: number
    readonly requestId?: string
    readonly clockSkewCorrected?: boolean
  }
  readonly Reason?: string
}

/** The failure that any error of one call is. */
export function failureOfCall(error: unknown, call: string): Failure {
  if (error instanceof AssertionFailed) throw error
  if (error instanceof Failure) return error
  if (isServiceError(error) && error.$metadata.httpStatusCode !== undefined) return failureOfAnswer(error, call)
  const { code, name, message } = error as NodeJS.ErrnoException
  const details = { call, errorCode: code ?? name }
  if (name === 'CredentialsProviderError') {
    const hint =
      'give the instance a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment of the VRA (/etc/vra/vra.env) and start it again'
    return new Failure('CLOUD_UNAVAILABLE', `no credentials for AWS: ${hint}`, details, { cause: error })
  }
  return new Failure('CLOUD_UNAVAILABLE', `AWS does not answer ${call}: ${message}`, details, { cause: error })
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && '$metadata' in error
}

function failureOfAnswer(error: ServiceError, call: string): Failure {
  const httpStatus = error.$metadata.httpStatusCode ?? 0
  const reason = error.Reason
  const details = { call, errorCode: error.name, httpStatus, reason, requestId: error.$metadata.requestId }
  const said = `${error.name}${error.message === '' || error.message === error.name ? '' : `: ${error.message}`}`
  const isPassing =
    httpStatus >= 500 ||
    httpStatus === 429 ||
    (httpStatus >= 200 && httpStatus < 300) || // an answer that could not be read
    error.$metadata.clockSkewCorrected === true || // the next request bears the right time
    passing.has(error.name) ||
    passingReasons.has(reason ?? '') ||
    error.message.includes('Failed to read block data')
  const cause = { cause: error }
  if (isPassing) return new Failure('CLOUD_UNAVAILABLE', `AWS puts ${call} off (${said})`, details, cause)
  if (permissionNames.has(error.name)) {
    const hint = 'the VRA lacks a permission: `vra aws policy` prints all that it needs'
    return new Failure('CLOUD_REFUSED', `AWS does not allow ${call} (${said}): ${hint}`, details, cause)
  }
  if (httpStatus === 404 || /\.NotFound$/.test(error.name) || missingNames.has(error.name))
    return new Failure('NOT_FOUND', `AWS does not know what ${call} is about (${said})`, details, cause)
  return new Failure('CLOUD_REFUSED', `AWS refuses ${call} (${said})`, details, cause)
}

/** It is not allowed to whoever asks. */
export function isDenied(failure: Failure): boolean {
  return permissionNames.has(errorNameOf(failure))
}

/** AWS's name of the error; empty where there was no answer. */
export function errorNameOf(error: unknown): string {
  return error instanceof Failure ? String(error.details['errorCode'] ?? '') : ''
}

export function isThrottle(failure: Failure): boolean {
  return throttling.test(errorNameOf(failure))
}
