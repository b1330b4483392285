import {
  DeleteObjectCommand,
  GetBucketLifecycleConfigurationCommand,
  GetBucketVersioningCommand,
  HeadObjectCommand,
  PutObjectCommand,
  S3ServiceException,
  type LifecycleRule,
  type S3Client,
} from '@aws-sdk/client-s3'
import { Failure } from '../base/failure.ts'
import { failureOfAttempt } from './s3-failures.ts'
import { encryptionAsked, newS3Client, type S3Config, type S3Credentials } from './s3-store.ts'

// What a check of a bucket asks that no store ever does.

/** The CRC32 of no bytes: wrong for any object that holds some. */
const wrongChecksum = 'AAAAAA=='

/** Puts an object whose checksum is wrong. True where the server refuses it, as it should; false where it took the object. */
export async function refusesWrongChecksum(
  config: S3Config,
  credentials: S3Credentials | undefined,
  object: { readonly key: string; readonly body: Uint8Array },
  signal: AbortSignal,
): Promise<boolean> {
  const client = newS3Client(config, credentials)
  const { key, body } = object
  const command = new PutObjectCommand({
    Bucket: config.bucket,
    Key: `${config.prefix}${key}`,
    Body: body,
    ContentLength: body.length,
    IfNoneMatch: '*',
    ChecksumCRC32: wrongChecksum,
    ...encryptionAsked(config),
  })
  try {
    await client.send(command, { abortSignal: signal, requestTimeout: config.requestTimeoutMillis })
    return false
  } catch (error) {
    if (error instanceof S3ServiceException && error.$metadata.httpStatusCode === 400) return true
    throw failureOfAttempt(error, key)
  } finally {
    client.destroy()
  }
}

/** Fails CONFIG_INVALID where the object is not encrypted as the configuration asks; else says how it is. */
export async function encryptionOf(
  config: S3Config,
  credentials: S3Credentials | undefined,
  key: string,
  signal: AbortSignal,
): Promise<string> {
  const client = newS3Client(config, credentials)
  const command = new HeadObjectCommand({ Bucket: config.bucket, Key: `${config.prefix}${key}` })
  try {
    const head = await client.send(command, { abortSignal: signal, requestTimeout: config.requestTimeoutMillis })
    const found = head.ServerSideEncryption
    const wanted = encryptionAsked(config).ServerSideEncryption
    const inWords = found === undefined ? 'without encryption' : `with ${found}`
    if (wanted !== undefined && found !== wanted)
      throw new Failure('CONFIG_INVALID', `an object that asked for ${wanted} was stored ${inWords}`)
    return `objects are stored ${inWords}${head.SSEKMSKeyId === undefined ? '' : ` (${head.SSEKMSKeyId})`}`
  } catch (error) {
    throw failureOfAttempt(error, key)
  } finally {
    client.destroy()
  }
}

/** What becomes of what is removed in a bucket with versions. */
export interface Versions {
  readonly isVersioned: boolean
  /** A lifecycle rule removes noncurrent versions below the prefix. */
  readonly expire: boolean
}

/** Undefined where the role may not ask, or the server cannot say. */
export async function versionsOf(
  config: S3Config,
  credentials: S3Credentials | undefined,
  signal: AbortSignal,
): Promise<Versions | undefined> {
  const client = newS3Client(config, credentials)
  const options = { abortSignal: signal, requestTimeout: config.requestTimeoutMillis }
  try {
    const { Status } = await client.send(new GetBucketVersioningCommand({ Bucket: config.bucket }), options)
    if (Status === undefined) return { isVersioned: false, expire: false }
    return { isVersioned: true, expire: (await rulesOf(client, config, options)).some(rule => expires(rule, config)) }
  } catch (error) {
    if (hasStatus(error, [403, 405, 501])) return undefined
    throw failureOfAttempt(error, config.bucket)
  } finally {
    client.destroy()
  }
}

async function rulesOf(
  client: S3Client,
  { bucket }: S3Config,
  options: { readonly abortSignal: AbortSignal; readonly requestTimeout: number },
): Promise<readonly LifecycleRule[]> {
  try {
    const command = new GetBucketLifecycleConfigurationCommand({ Bucket: bucket })
    return (await client.send(command, options)).Rules ?? []
  } catch (error) {
    if (hasStatus(error, [404])) return []
    throw error
  }
}

function expires(rule: LifecycleRule, { prefix }: S3Config): boolean {
  const { Status, Filter, NoncurrentVersionExpiration: expiration } = rule
  if (Status !== 'Enabled' || expiration === undefined || (expiration.NewerNoncurrentVersions ?? 0) > 0) return false
  const isLimited =
    Filter?.And !== undefined || Filter?.Tag !== undefined || Filter?.ObjectSizeGreaterThan !== undefined
  return !isLimited && prefix.startsWith(Filter?.Prefix ?? '')
}

/** Asks for the current version of the object to be destroyed. True where the server refuses, as it should for one that is locked. */
export async function refusesToDestroy(
  config: S3Config,
  credentials: S3Credentials | undefined,
  key: string,
  signal: AbortSignal,
): Promise<boolean> {
  const client = newS3Client(config, credentials)
  const options = { abortSignal: signal, requestTimeout: config.requestTimeoutMillis }
  const place = { Bucket: config.bucket, Key: `${config.prefix}${key}` }
  try {
    const { VersionId } = await client.send(new HeadObjectCommand(place), options)
    if (VersionId === undefined)
      throw new Failure('CONFIG_INVALID', 'the bucket takes a lock and keeps no versions: nothing is locked in it', {
        key,
      })
    await client.send(new DeleteObjectCommand({ ...place, VersionId }), options)
    return false
  } catch (error) {
    if (hasStatus(error, [403])) return true
    throw failureOfAttempt(error, key)
  } finally {
    client.destroy()
  }
}

function hasStatus(error: unknown, statuses: readonly number[]): boolean {
  return error instanceof S3ServiceException && statuses.includes(error.$metadata.httpStatusCode ?? 0)
}
