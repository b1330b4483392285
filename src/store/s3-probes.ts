import { HeadObjectCommand, PutObjectCommand, S3ServiceException } from '@aws-sdk/client-s3'
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
