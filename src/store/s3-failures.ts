import { S3ServiceException } from '@aws-sdk/client-s3'
import { Failure } from '../base/failure.ts'

/** Of the answers below 500 these pass by themselves: clocks, tokens and bytes on the way. */
const passingNames = new Set([
  'BadDigest',
  'ConditionalRequestConflict',
  'ExpiredToken',
  'IncompleteBody',
  'OperationAborted',
  'RequestTimeout',
  'RequestTimeTooSkewed',
  'SlowDown',
  'Throttling',
  'ThrottlingException',
  'TooManyRequestsException',
  'XAmzContentChecksumMismatch',
  'XAmzContentSHA256Mismatch',
])

/** The request cannot have reached a server, so that even a create may be sent again. */
const neverSentCodes = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH'])

/** What a server's refusal means here; undefined where there was no answer. Goes by status and name: some servers send no message. */
export function failureOfResponse(error: unknown, key: string): Failure | undefined {
  if (!(error instanceof S3ServiceException)) return undefined
  const status = error.$metadata.httpStatusCode ?? 0
  const details = { key, errorCode: error.name, httpStatus: status, requestId: error.$metadata.requestId }
  const cause = { cause: error }
  const said = `${error.name}${error.message === '' || error.message === error.name ? '' : `: ${error.message}`}`
  if (passingNames.has(error.name) || status >= 500 || status === 429 || status === 409 || status === 408) {
    if (status === 501) return new Failure('CONFIG_INVALID', `the object store cannot do this: ${said}`, details, cause)
    return new Failure('STORE_UNAVAILABLE', `the object store put us off (${status} ${said})`, details, cause)
  }
  if (status === 412) return new Failure('ALREADY_EXISTS', `the object "${key}" exists`, details, cause)
  if (status === 416)
    return new Failure('OBJECT_CORRUPT', `the object "${key}" is shorter than it should be`, details, cause)
  if (error.name === 'NoSuchBucket') {
    return new Failure('CONFIG_INVALID', 'there is no such bucket: create it, or mend the name', details, cause)
  }
  if (status === 404) return new Failure('NOT_FOUND', `there is no object "${key}"`, details, cause)
  if (error.name === 'InvalidObjectState') {
    const sentence = `the object "${key}" was moved to an archive (${said}): restore it, and keep this prefix out of lifecycle rules`
    return new Failure('OBJECT_CORRUPT', sentence, details, cause)
  }
  if (status === 403) {
    const hint = 'check the credentials and the policies of role and bucket (get, put, delete, list are needed)'
    return new Failure('CONFIG_INVALID', `the bucket refuses us (${said}): ${hint}`, details, cause)
  }
  if (status === 301 || status === 307) {
    return new Failure('CONFIG_INVALID', `the bucket is elsewhere (${said}): mend region or endpoint`, details, cause)
  }
  if (status === 200 || status === 0) {
    return new Failure('STORE_UNAVAILABLE', `the object store's answer makes no sense (${said})`, details, cause)
  }
  return new Failure('CONFIG_INVALID', `the object store refuses the request (${status} ${said})`, details, cause)
}

/** What any error of an attempt means to the caller. */
export function failureOfAttempt(error: unknown, key: string): Failure {
  if (error instanceof Failure) return error
  const answered = failureOfResponse(error, key)
  if (answered !== undefined) return answered
  const { code, name, message } = error as NodeJS.ErrnoException
  const details = { key, errorCode: code ?? name }
  if (name === 'CredentialsProviderError') {
    const hint = 'give the instance a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY'
    return new Failure('STORE_UNAVAILABLE', `no credentials for the bucket: ${hint}`, details, { cause: error })
  }
  return new Failure('STORE_UNAVAILABLE', `the object store does not answer: ${message}`, details, { cause: error })
}

export function surelyNeverSent(failure: Failure): boolean {
  return neverSentCodes.has(String(failure.details['errorCode']))
}
