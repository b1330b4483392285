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

interface Asking {
  readonly client: S3Client
  readonly options: { readonly abortSignal: AbortSignal; readonly requestTimeout: number }
}

/** With a client that lives as long as the question. Fails as an attempt of a store does, and says so of `name`. */
async function asked<T>(
  { config, credentials, signal, name }: Question,
  ask: (asking: Asking) => Promise<T>,
): Promise<T> {
  const client = newS3Client(config, credentials)
  try {
    return await ask({ client, options: { abortSignal: signal, requestTimeout: config.requestTimeoutMillis } })
  } catch (error) {
    throw failureOfAttempt(error, name)
  } finally {
    client.destroy()
  }
}

interface Question {
  readonly config: S3Config
  readonly credentials: S3Credentials | undefined
  readonly signal: AbortSignal
  readonly name: string
}

/** Puts an object whose checksum is wrong. True where the server refuses it, as it should; false where it took the object. */
export async function refusesWrongChecksum(
  config: S3Config,
  credentials: S3Credentials | undefined,
  object: { readonly key: string; readonly body: Uint8Array },
  signal: AbortSignal,
): Promise<boolean> {
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
  return await asked({ config, credentials, signal, name: key }, ({ client, options }) =>
    client.send(command, options).then(() => false, ifStatus([400], true)),
  )
}

/** Fails CONFIG_INVALID where the object is not encrypted as the configuration asks; else says how it is. */
export async function encryptionOf(
  config: S3Config,
  credentials: S3Credentials | undefined,
  key: string,
  signal: AbortSignal,
): Promise<string> {
  const command = new HeadObjectCommand({ Bucket: config.bucket, Key: `${config.prefix}${key}` })
  return await asked({ config, credentials, signal, name: key }, async ({ client, options }) => {
    const head = await client.send(command, options)
    const found = head.ServerSideEncryption
    const wanted = encryptionAsked(config).ServerSideEncryption
    const inWords = found === undefined ? 'without encryption' : `with ${found}`
    if (wanted !== undefined && found !== wanted)
      throw new Failure('CONFIG_INVALID', `an object that asked for ${wanted} was stored ${inWords}`)
    return `objects are stored ${inWords}${head.SSEKMSKeyId === undefined ? '' : ` (${head.SSEKMSKeyId})`}`
  })
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
  const look = async (asking: Asking): Promise<Versions> => {
    const { client, options } = asking
    const { Status } = await client.send(new GetBucketVersioningCommand({ Bucket: config.bucket }), options)
    if (Status === undefined) return { isVersioned: false, expire: false }
    return { isVersioned: true, expire: (await rulesOf(asking, config)).some(rule => expires(rule, config)) }
  }
  return await asked({ config, credentials, signal, name: config.bucket }, asking =>
    look(asking).catch(ifStatus([403, 405, 501], undefined)),
  )
}

async function rulesOf({ client, options }: Asking, { bucket }: S3Config): Promise<readonly LifecycleRule[]> {
  const command = new GetBucketLifecycleConfigurationCommand({ Bucket: bucket })
  return await client.send(command, options).then(({ Rules }) => Rules ?? [], ifStatus([404], []))
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
  const place = { Bucket: config.bucket, Key: `${config.prefix}${key}` }
  const destroy = async ({ client, options }: Asking): Promise<boolean> => {
    const { VersionId } = await client.send(new HeadObjectCommand(place), options)
    if (VersionId === undefined)
      throw new Failure('CONFIG_INVALID', 'the bucket takes a lock and keeps no versions: nothing is locked in it', {
        key,
      })
    await client.send(new DeleteObjectCommand({ ...place, VersionId }), options)
    return false
  }
  return await asked({ config, credentials, signal, name: key }, asking => destroy(asking).catch(ifStatus([403], true)))
}

/** What an answer of one of these statuses stands for; any other error stays one. */
function ifStatus<T>(statuses: readonly number[], value: T): (error: unknown) => T {
  return error => {
    if (error instanceof S3ServiceException && statuses.includes(error.$metadata.httpStatusCode ?? 0)) return value
    throw error
  }
}
