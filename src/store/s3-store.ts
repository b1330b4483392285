import { createHash } from 'node:crypto'
import * as http from 'node:http'
import * as https from 'node:https'
import { Readable } from 'node:stream'
import { crc32 } from 'node:zlib'
import {
  DeleteObjectCommand,
  GetObjectCommand,
  GetObjectRetentionCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  PutObjectRetentionCommand,
  S3Client,
  S3ServiceException,
  type GetObjectCommandOutput,
  type ListObjectsV2CommandOutput,
  type PutObjectCommandInput,
} from '@aws-sdk/client-s3'
import { assert } from '../base/assert.ts'
import type { Clock } from '../base/clock.ts'
import { Failure, failedWith } from '../base/failure.ts'
import { KiB } from '../base/units.ts'
import { checkKey, checkPrefix } from './keys.ts'
import type {
  ByteRange,
  CreateOptions,
  ListedObject,
  LoadFacts,
  ObjectLocks,
  PlaceConfig,
  WholeStore,
} from './object-store.ts'
import { Attempts } from './s3-attempts.ts'
import { failureOfResponse } from './s3-failures.ts'

export type S3Config = Extract<PlaceConfig, { kind: 's3' }>

export interface S3Credentials {
  readonly accessKeyId: string
  readonly secretAccessKey: string
}

/** Our own agent: the SDK's default of 50 sockets warns and queues, and a thread has at most some tens of requests under way. */
const socketsMax = 64
const connectionTimeoutMillis = 5_000
/** Of a body; over the slowest link that is good enough it takes a second. */
const pieceSizeBytes = 64 * KiB
const pageKeysMax = 1000
/** The server tells its time in whole seconds, and the SDK the end of a lock. */
const lockMarginMillis = 2_000

/**
 * Objects in a bucket, on AWS or any server that honours `If-None-Match: *`.
 *
 * Uploads are proved by the signature's SHA-256 and, where the server takes it, a CRC32 that it stores. Reads are of
 * ranges, for which S3 returns no checksum: length is checked here, content by the formats, each piece of which bears a
 * checksum of its own. ETags are never looked at: they mean different things on different servers.
 */
export class S3Store implements WholeStore {
  readonly #client: S3Client
  readonly #config: S3Config
  readonly #clock: Clock
  readonly #attempts: Attempts
  readonly locks: ObjectLocks | undefined
  readonly #pageKeysMax: number

  constructor(config: S3Config, clock: Clock, credentials: S3Credentials | undefined, pageKeysMaxAsked = pageKeysMax) {
    this.#config = config
    this.#pageKeysMax = pageKeysMaxAsked
    this.#clock = clock
    this.#attempts = new Attempts(config, clock)
    this.#client = newS3Client(config, credentials)
    if (config.objectLock !== undefined)
      this.locks = {
        lockedUntilMicros: (key, signal) => this.#lockedUntilMicros(key, signal),
        extend: (key, lockMillis, signal) => this.#extendLock(key, lockMillis, signal),
      }
  }

  get loadFacts(): LoadFacts {
    return this.#attempts.load.facts
  }

  async create(key: string, body: Uint8Array, signal: AbortSignal, options: CreateOptions = {}): Promise<void> {
    checkKey(key)
    const command = new PutObjectCommand({
      ...this.#place(key),
      Body: body,
      ContentLength: body.length,
      IfNoneMatch: '*',
      ...encryptionAsked(this.#config),
      ...this.#lockAsked(options),
      ...this.#checksumGiven(body, options),
    })
    // Sent again only if it surely did not arrive: after a lost answer a second try would meet our own object and
    // report it as somebody else's. The caller can tell; we cannot.
    await this.#attempts.create({ operation: 'create', key, sizeBytes: body.length }, signal, async sending => {
      await this.#client.send(command, sending)
    })
  }

  #lockAsked({ lockMillis = 0 }: CreateOptions): Partial<PutObjectCommandInput> {
    const mode = this.#lockMode
    if (mode === undefined || lockMillis <= 0) return {}
    return { ObjectLockMode: mode, ObjectLockRetainUntilDate: this.#lockEnd(lockMillis) }
  }

  /** With every lock S3 wants a digest in a header; the older one where the newer are not known. */
  #checksumGiven(body: Uint8Array, { lockMillis = 0 }: CreateOptions): Partial<PutObjectCommandInput> {
    if (this.#config.checksums === 'when-supported') return { ChecksumCRC32: checksumOf(body) }
    if (this.#config.objectLock === undefined || lockMillis <= 0) return {}
    return { ContentMD5: createHash('md5').update(body).digest('base64') }
  }

  get #lockMode(): 'GOVERNANCE' | 'COMPLIANCE' | undefined {
    const { objectLock } = this.#config
    if (objectLock === undefined) return undefined
    return objectLock === 'governance' ? 'GOVERNANCE' : 'COMPLIANCE'
  }

  /**
   * A lock that is too long cannot be taken back, so the time is the server's: the SDK learns by how much ours is wrong when a request is refused for
   * it, and none is taken before that.
   */
  #lockEnd(lockMillis: number): Date {
    const nowMillis = this.#clock.timestampMicros() / 1000 + this.#client.config.systemClockOffset
    return new Date(nowMillis + lockMillis + lockMarginMillis)
  }

  async #lockedUntilMicros(key: string, signal: AbortSignal): Promise<number> {
    checkKey(key)
    const command = new GetObjectRetentionCommand(this.#place(key))
    const answer = await this.#attempts.repeatable({ operation: 'lock', key, sizeBytes: 0 }, signal, async options => {
      return await this.#client.send(command, options).catch((error: unknown) => {
        if (isWithoutLock(error)) return { Retention: undefined }
        throw hiddenAsMissing(error, key)
      })
    })
    return (answer.Retention?.RetainUntilDate?.getTime() ?? 0) * 1000
  }

  async #extendLock(key: string, lockMillis: number, signal: AbortSignal): Promise<void> {
    checkKey(key)
    const end = this.#lockEnd(lockMillis)
    const Retention = { Mode: this.#lockMode, RetainUntilDate: end }
    const command = new PutObjectRetentionCommand({ ...this.#place(key), Retention })
    try {
      await this.#attempts.repeatable({ operation: 'lock', key, sizeBytes: 0 }, signal, async options => {
        await this.#client.send(command, options).catch((error: unknown) => {
          throw hiddenAsMissing(error, key)
        })
      })
    } catch (error) {
      // Refused for its rights, or for the lock reaches farther: that is as good.
      if (!failedWith(error, 'CONFIG_INVALID')) throw error
      if ((await this.#lockedUntilMicros(key, signal)) < end.getTime() * 1000) throw error
    }
  }

  async readRange(key: string, range: ByteRange, signal: AbortSignal): Promise<Uint8Array> {
    checkKey(key)
    assert(range.startBytes >= 0 && range.startBytes <= range.endBytes, 'a range does not end before it starts')
    const sizeBytes = range.endBytes - range.startBytes
    if (sizeBytes === 0) return await this.#readNothing(key, range, signal)
    return await this.#readPart(key, range, signal, { mayEndEarly: false })
  }

  async readUpTo(key: string, range: ByteRange, signal: AbortSignal): Promise<Uint8Array> {
    checkKey(key)
    assert(range.startBytes >= 0 && range.startBytes < range.endBytes, 'a range ends after it starts')
    return await this.#readPart(key, range, signal, { mayEndEarly: true })
  }

  async #readPart(
    key: string,
    range: ByteRange,
    signal: AbortSignal,
    options: { readonly mayEndEarly: boolean },
  ): Promise<Uint8Array> {
    const sizeBytes = range.endBytes - range.startBytes
    const command = new GetObjectCommand({
      ...this.#place(key),
      Range: `bytes=${range.startBytes}-${range.endBytes - 1}`,
    })
    return await this.#attempts.repeatable({ operation: 'read', key, sizeBytes }, signal, async sending => {
      const answer = await this.#client.send(command, sending)
      return await readBody(answer, key, options.mayEndEarly ? cutToObject(answer, range) : range)
    })
  }

  /** HTTP knows no empty range; what must hold all the same is that the object is there and reaches so far. */
  async #readNothing(key: string, range: ByteRange, signal: AbortSignal): Promise<Uint8Array> {
    const head = new HeadObjectCommand(this.#place(key))
    const { ContentLength = 0 } = await this.#attempts.repeatable(
      { operation: 'read', key, sizeBytes: 0 },
      signal,
      options => this.#client.send(head, options),
    )
    if (range.endBytes > ContentLength) throw shorterThan(key, range, ContentLength)
    return new Uint8Array(0)
  }

  async *list(prefix: string, after: string | undefined, signal: AbortSignal): AsyncGenerator<ListedObject> {
    checkPrefix(prefix)
    const ours = this.#config.prefix
    let last = after
    let token: string | undefined
    do {
      const page = await this.#page(`${ours}${prefix}`, { last, token }, signal)
      for (const { Key = '', Size } of page.Contents ?? []) {
        const key = Key.slice(ours.length)
        if (!Key.startsWith(`${ours}${prefix}`) || Size === undefined) continue
        // Taking the highest number for the newest stands on this order, so it is not taken on trust.
        if (last !== undefined && key <= last) throw outOfOrder(key, last)
        last = key
        yield { key, sizeBytes: Size }
      }
      token = page.NextContinuationToken
      if (page.IsTruncated === true && token === undefined && (page.Contents ?? []).length === 0) {
        throw new Failure('STORE_UNAVAILABLE', 'the bucket says that a listing goes on, but not where', { prefix })
      }
      if (page.IsTruncated !== true) return
    } while (true)
  }

  async #page(
    prefix: string,
    from: { readonly last: string | undefined; readonly token: string | undefined },
    signal: AbortSignal,
  ): Promise<ListObjectsV2CommandOutput> {
    const command = new ListObjectsV2Command({
      Bucket: this.#config.bucket,
      Prefix: prefix,
      MaxKeys: this.#pageKeysMax,
      ...(from.token !== undefined ? { ContinuationToken: from.token } : {}),
      ...(from.token === undefined && from.last !== undefined
        ? { StartAfter: `${this.#config.prefix}${from.last}` }
        : {}),
    })
    return await this.#attempts.repeatable({ operation: 'list', key: prefix, sizeBytes: 0 }, signal, async options => {
      const page = await this.#client.send(command, options)
      // To the SDK an empty answer is an empty page. Here that would say "nobody has taken over": it must be said in full.
      if (page.IsTruncated !== undefined) return page
      throw new Failure('STORE_UNAVAILABLE', 'the bucket answered without a listing', { errorCode: 'TruncatedBody' })
    })
  }

  /** In a bucket with versions this hides the object behind a marker, locked or not; the version goes by the bucket's lifecycle rule (README.md). */
  async remove(key: string, signal: AbortSignal): Promise<void> {
    checkKey(key)
    const command = new DeleteObjectCommand(this.#place(key))
    await this.#attempts.repeatable({ operation: 'remove', key, sizeBytes: 0 }, signal, async options => {
      await this.#client.send(command, options).catch((error: unknown) => {
        if (failureOfResponse(error, key)?.code !== 'NOT_FOUND') throw error
      })
    })
  }

  async close(): Promise<void> {
    this.#attempts.close()
    this.#client.destroy()
  }

  #place(key: string): { Bucket: string; Key: string } {
    return { Bucket: this.#config.bucket, Key: `${this.#config.prefix}${key}` }
  }
}

/** As every request of a store is sent. */
export function newS3Client(config: S3Config, credentials: S3Credentials | undefined): S3Client {
  const agentOptions = { keepAlive: true, maxSockets: socketsMax }
  const client = new S3Client({
    region: config.region,
    forcePathStyle: config.forcePathStyle,
    ...(config.endpoint === undefined ? {} : { endpoint: config.endpoint }),
    ...(credentials === undefined ? {} : { credentials }),
    maxAttempts: 1, // the tries are ours: see s3-attempts.ts
    requestChecksumCalculation: config.checksums === 'when-supported' ? 'WHEN_SUPPORTED' : 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    expectContinueHeader: false, // some servers never answer it, and the wait would be a round trip for every object
    requestHandler: {
      connectionTimeout: connectionTimeoutMillis,
      requestTimeout: config.requestTimeoutMillis,
      throwOnRequestTimeout: true,
      // No byte in either direction, whatever the size of the body: a hung connection costs no more than a request without one. What moves goes on.
      socketTimeout: config.requestTimeoutMillis,
      httpAgent: new http.Agent(agentOptions),
      httpsAgent: new https.Agent(agentOptions),
    },
  })
  // Behind the signature: what is signed is the whole body.
  client.middlewareStack.add(next => args => next({ ...args, request: withBodyInPieces(args.request) }), {
    name: 'bodyInPieces',
    step: 'deserialize',
  })
  return client
}

/** A body that is written at once is, over TLS, one write: until its end nothing of it is seen to move. */
function withBodyInPieces(request: unknown): unknown {
  const { body } = request as { readonly body?: unknown }
  if (!(body instanceof Uint8Array) || body.length <= pieceSizeBytes) return request
  const pieces = Readable.from(piecesOf(body), { objectMode: false, highWaterMark: pieceSizeBytes })
  return Object.assign(Object.create(Object.getPrototypeOf(request) as object) as object, request, { body: pieces })
}

function* piecesOf(body: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < body.length; at += pieceSizeBytes) yield body.subarray(at, at + pieceSizeBytes)
}

/** Without a bucket key every object would cost a request to KMS. */
export function encryptionAsked({ serverSideEncryption, kmsKeyId }: S3Config): Partial<PutObjectCommandInput> {
  if (serverSideEncryption === 'bucket-default') return {}
  if (serverSideEncryption === 's3') return { ServerSideEncryption: 'AES256' }
  return {
    ServerSideEncryption: 'aws:kms',
    BucketKeyEnabled: true,
    ...(kmsKeyId === undefined ? {} : { SSEKMSKeyId: kmsKeyId }),
  }
}

/** S3 answers so for an object that was never locked; other servers with the name alone. */
function isWithoutLock(error: unknown): boolean {
  return error instanceof S3ServiceException && error.name === 'NoSuchObjectLockConfiguration'
}

/** An object that was removed is a marker, of which S3 says that one cannot do this to it. */
function hiddenAsMissing(error: unknown, key: string): unknown {
  if (!(error instanceof S3ServiceException) || error.$metadata.httpStatusCode !== 405) return error
  return new Failure('NOT_FOUND', `there is no object "${key}"`, { key }, { cause: error })
}

function checksumOf(body: Uint8Array): string {
  const sum = Buffer.alloc(4)
  sum.writeUInt32BE(crc32(body))
  return sum.toString('base64')
}

/** Takes the body off the wire, exactly as long as asked for; whatever happens, its socket is given back. */
async function readBody(answer: GetObjectCommandOutput, key: string, range: ByteRange): Promise<Uint8Array> {
  const body = answer.Body as unknown as Readable
  try {
    checkRange(answer, key, range)
    const target = Buffer.allocUnsafeSlow(range.endBytes - range.startBytes)
    let filled = 0
    for await (const chunk of body as AsyncIterable<Buffer>) {
      if (filled + chunk.length > target.length) throw truncated(key, range, filled + chunk.length)
      filled += chunk.copy(target, filled)
    }
    if (filled < target.length) throw truncated(key, range, filled)
    return target
  } finally {
    body.destroy()
  }
}

/** The range as far as the object goes, of which the answer says the size. */
function cutToObject({ ContentRange, ContentLength }: GetObjectCommandOutput, range: ByteRange): ByteRange {
  const said = /\/(\d+)$/.exec(ContentRange ?? '')?.[1]
  const sizeBytes = said === undefined ? range.startBytes + (ContentLength ?? 0) : Number(said)
  return { startBytes: range.startBytes, endBytes: Math.min(range.endBytes, sizeBytes) }
}

/** S3 shortens a range that passes the end without a word: what the object's size is stands behind the slash. */
function checkRange(answer: GetObjectCommandOutput, key: string, range: ByteRange): void {
  const match = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(answer.ContentRange ?? '')
  if (match === null) {
    if (range.startBytes === 0 && answer.ContentLength === range.endBytes) return
    throw new Failure('CONFIG_INVALID', `the object store answers without the range that was asked for`, { key })
  }
  const [startBytes, lastBytes, sizeBytes] = [Number(match[1]), Number(match[2]), Number(match[3])]
  if (sizeBytes < range.endBytes) throw shorterThan(key, range, sizeBytes)
  if (startBytes !== range.startBytes || lastBytes !== range.endBytes - 1) {
    throw truncated(key, range, lastBytes + 1 - startBytes)
  }
}

function shorterThan(key: string, range: ByteRange, sizeBytes: number): Failure {
  return new Failure('OBJECT_CORRUPT', `the object "${key}" is shorter than it should be`, {
    key,
    sizeBytes,
    ...range,
  })
}

function truncated(key: string, range: ByteRange, receivedBytes: number): Failure {
  return new Failure('STORE_UNAVAILABLE', `the answer for "${key}" was not as long as asked for`, {
    key,
    receivedBytes,
    errorCode: 'TruncatedBody',
    ...range,
  })
}

function outOfOrder(key: string, last: string): Failure {
  return new Failure('CONFIG_INVALID', `the bucket lists "${key}" after "${last}": it must list in byte order`, {
    key,
  })
}
