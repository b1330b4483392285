import { createHash } from 'node:crypto'
import { once } from 'node:events'
import * as http from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { crc32 } from 'node:zlib'
import { SimulatedBucket, type BodyPlace, type Retention } from './s3-sim-bucket.ts'

// A strict S3 server for the subset in use, spoken to by the real SDK over HTTP, with faults as a first-class API.
//
// Strict: requests must be signed (presence and shape of SigV4; the signature itself is not computed), every digest that
// a request bears must be right, an object may only be created with If-None-Match: * (as a bucket policy can demand it),
// parameters and framings that S3 would treat otherwise than this server are refused with 501 instead of being ignored.

export const operations = [
  'PutObject',
  'GetObject',
  'HeadObject',
  'ListObjectsV2',
  'DeleteObject',
  'PutObjectRetention',
  'GetObjectRetention',
  'GetBucketVersioning',
  'GetBucketLifecycleConfiguration',
  'ListObjectVersions',
] as const
export type Operation = (typeof operations)[number]

export type Fault =
  /** Answers an error and does nothing. */
  | { readonly kind: 'refuse'; readonly status: number; readonly code: string }
  /** Reads the request, does nothing, and never answers. */
  | { readonly kind: 'hang' }
  /** Closes the connection and does nothing. */
  | { readonly kind: 'cut' }
  /** Does what was asked for and closes the connection instead of answering. */
  | { readonly kind: 'lose-response' }
  /** Announces the whole body, sends this many bytes of it and closes the connection. */
  | { readonly kind: 'truncate-body'; readonly sentBytes: number }
  /** Sends this many bytes of the body and says that they are all of it. */
  | { readonly kind: 'shorten-body'; readonly sentBytes: number }
  /** Sends this many bytes of the body and then nothing more, on an open connection. */
  | { readonly kind: 'stall-body'; readonly sentBytes: number }
  /** Flips a bit of what arrived, as a bad network card would. */
  | { readonly kind: 'corrupt-upload' }
  /** Flips a bit of what is sent. */
  | { readonly kind: 'corrupt-body' }
  /** Does what was asked for twice and answers as the second time, as a proxy that tries again would. */
  | { readonly kind: 'perform-twice' }
  /** A page without keys that says that the listing goes on. */
  | { readonly kind: 'empty-page' }
  /** The page's keys in the wrong order. */
  | { readonly kind: 'shuffle-page' }

/** What a server gets wrong for as long as it runs, as some that call themselves S3 do. */
export type Flaw =
  /** Creates over what exists. */
  | 'ignores-conditions'
  /** Looks whether the object exists, and creates it a moment later. */
  | 'races'
  | 'ignores-ranges'
  /** The first listing after a create does not show it. */
  | 'lists-late'
  | 'lists-unordered'
  /** The last key of a page that is not the last one is on no page. */
  | 'loses-between-pages'
  | 'ignores-checksums'
  | 'ignores-encryption'
  /** Says that it removed an object, and did not. */
  | 'keeps-removed'
  /** Takes every lock, and keeps none. */
  | 'ignores-locks'

export interface SimulatorOptions {
  readonly flaws: readonly Flaw[]
  /** What the credentials may not do. */
  readonly denied: readonly Operation[]
  readonly bucket: string
  readonly accessKeyId: string
  readonly port: number
  /** Waited before every answer. */
  readonly latencyMillis: number
  /** Above it requests get 503 SlowDown. */
  readonly requestsPerSecondMax: number
  /** Keys on one page of a listing at most, whatever the request says. */
  readonly pageKeysMax: number
  /** False for measurements, where S3's own hashing would be done by other machines. */
  readonly digestsAreChecked: boolean
  readonly bodies: BodyPlace
  /** 'locking': with versions and Object Lock. */
  readonly versions: 'none' | 'kept' | 'locking'
  /** Prefixes below which the bucket's lifecycle rules remove noncurrent versions. */
  readonly expiringPrefixes: readonly string[]
  /** By which locks end. */
  readonly nowMillis: () => number
}

const defaults: SimulatorOptions = {
  flaws: [],
  denied: [],
  bucket: 'bucket',
  accessKeyId: 'test',
  port: 0,
  latencyMillis: 0,
  requestsPerSecondMax: Infinity,
  pageKeysMax: 1000,
  digestsAreChecked: true,
  bodies: 'memory',
  versions: 'none',
  expiringPrefixes: [],
  nowMillis: () => Date.now(),
}

interface Planned {
  readonly operation: Operation
  readonly fault: Fault
  left: number
}

/** The fault that a request meets; they are counted from 0, whatever they ask for. */
export type FaultOf = (request: { readonly number: number; readonly operation: Operation }) => Fault | undefined

interface Request {
  readonly operation: Operation
  readonly key: string
  readonly query: URLSearchParams
  readonly headers: http.IncomingHttpHeaders
  readonly body: Buffer
}

interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | number>>
  readonly body: Buffer
}

class Refusal extends Error {
  readonly status: number
  readonly code: string

  constructor(status: number, code: string, message: string) {
    super(message)
    this.status = status
    this.code = code
  }
}

export class S3Simulator {
  readonly bucket: SimulatedBucket
  readonly requestCounts: Record<Operation, number>
  readonly #options: SimulatorOptions
  readonly #server: http.Server
  readonly #planned: Planned[] = []
  #faultOf: FaultOf = () => undefined
  #port = 0
  #windowStartMillis = 0
  #windowRequests = 0
  #received: (() => void)[] = []
  readonly #encryption = new Map<string, string>()
  readonly #unlisted = new Set<string>()

  private constructor(options: SimulatorOptions) {
    this.#options = options
    this.bucket = new SimulatedBucket(options.bodies, { isVersioned: options.versions !== 'none' })
    this.requestCounts = Object.fromEntries(operations.map(operation => [operation, 0])) as Record<Operation, number>
    this.#server = http.createServer((request, response) => {
      this.#serve(request, response).catch(() => request.socket.destroy())
    })
  }

  static async start(options: Partial<SimulatorOptions> = {}): Promise<S3Simulator> {
    const simulator = new S3Simulator({ ...defaults, ...options })
    simulator.#server.listen(simulator.#options.port, '127.0.0.1')
    await once(simulator.#server, 'listening')
    return simulator
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  /** The next `times` requests of this kind meet the fault. */
  failNext(operation: Operation, fault: Fault, times = 1): void {
    this.#planned.push({ operation, fault, left: times })
  }

  /** Asked at every request from now on, until mend(). */
  failWhere(faultOf: FaultOf): void {
    this.#faultOf = faultOf
  }

  /** Forgets all faults that are still to come. */
  mend(): void {
    this.#planned.length = 0
    this.#faultOf = () => undefined
  }

  /** Of all requests so far. */
  get requestCount(): number {
    return operations.reduce((sum, operation) => sum + this.requestCounts[operation], 0)
  }

  /** Resolves when the next request has arrived, whatever becomes of it. */
  async nextRequest(): Promise<void> {
    await new Promise<void>(resolve => this.#received.push(resolve))
  }

  async connectionCount(): Promise<number> {
    return await new Promise(resolve => this.#server.getConnections((_error, count) => resolve(count)))
  }

  /** Nobody listens any more; what is stored stays. */
  async goAway(): Promise<void> {
    this.#port = Number(new URL(this.endpoint).port)
    await this.close()
  }

  /** At the same place as before. */
  async comeBack(): Promise<void> {
    this.#server.listen(this.#port, '127.0.0.1')
    await once(this.#server, 'listening')
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise<void>(resolve => this.#server.close(() => resolve()))
  }

  async #serve(incoming: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const url = new URL(incoming.url ?? '/', this.endpoint)
    const chunks: Buffer[] = []
    for await (const chunk of incoming as AsyncIterable<Buffer>) chunks.push(chunk)
    let answer: Answer
    let fault: Fault | undefined
    try {
      const operation = operationOf(incoming.method ?? '', url)
      fault = this.#faultOf({ number: this.requestCount, operation }) ?? this.#takeFault(operation)
      this.requestCounts[operation]++
      for (const tell of this.#received.splice(0)) tell()
      if (fault?.kind === 'hang') return
      if (fault?.kind === 'cut') throw new Error('cut')
      await delay(this.#options.latencyMillis)
      this.#checkRate()
      if (fault?.kind === 'refuse') throw new Refusal(fault.status, fault.code, 'as planned')
      const body = Buffer.concat(chunks)
      if (fault?.kind === 'corrupt-upload' && body.length > 0) body[body.length >> 1]! ^= 1
      const key = decodeURIComponent(url.pathname.split('/').slice(2).join('/'))
      this.#checkSigned(incoming.headers, url)
      if (this.#options.denied.includes(operation)) throw new Refusal(403, 'AccessDenied', 'Access Denied')
      const request = { operation, key, query: url.searchParams, headers: incoming.headers, body }
      if (fault?.kind === 'perform-twice') await this.#perform(request, undefined)
      answer = await this.#perform(request, fault)
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
      answer = errorAnswer(error)
    }
    if (fault?.kind === 'lose-response') throw new Error('response lost')
    await send(response, incoming.method === 'HEAD', answer, fault)
  }

  #takeFault(operation: Operation): Fault | undefined {
    const planned = this.#planned.find(candidate => candidate.operation === operation && candidate.left > 0)
    if (planned === undefined) return undefined
    planned.left--
    return planned.fault
  }

  #checkRate(): void {
    const now = performance.now()
    if (now - this.#windowStartMillis >= 1000) {
      this.#windowStartMillis = now
      this.#windowRequests = 0
    }
    if (++this.#windowRequests > this.#options.requestsPerSecondMax) {
      throw new Refusal(503, 'SlowDown', 'Please reduce your request rate.')
    }
  }

  #checkSigned(headers: http.IncomingHttpHeaders, url: URL): void {
    const match = /^AWS4-HMAC-SHA256 Credential=([^/]+)\/\d{8}\/[a-z0-9-]+\/s3\/aws4_request, ?SignedHeaders=/.exec(
      headers.authorization ?? '',
    )
    if (match === null || headers['x-amz-date'] === undefined || headers['x-amz-content-sha256'] === undefined) {
      throw new Refusal(403, 'AccessDenied', 'The request is not signed.')
    }
    if (match[1] !== this.#options.accessKeyId) {
      throw new Refusal(403, 'InvalidAccessKeyId', 'The access key Id you provided does not exist in our records.')
    }
    if (url.pathname.split('/')[1] !== this.#options.bucket) {
      throw new Refusal(404, 'NoSuchBucket', 'The specified bucket does not exist')
    }
  }

  async #perform(request: Request, fault: Fault | undefined): Promise<Answer> {
    switch (request.operation) {
      case 'PutObject':
        return await this.#put(request)
      case 'GetObject':
        return await this.#get(request)
      case 'HeadObject': {
        const sizeBytes = this.bucket.sizeBytes(request.key)
        if (sizeBytes === undefined) return { status: 404, headers: {}, body: Buffer.alloc(0) }
        const encryption = this.#encryptionHeaders(request.key)
        const headers = {
          'content-length': sizeBytes,
          etag: '"opaque"',
          ...encryption,
          ...this.#versionHeader(request.key),
        }
        return { status: 200, headers, body: Buffer.alloc(0) }
      }
      case 'DeleteObject':
        return await this.#delete(request)
      case 'PutObjectRetention':
        return this.#putRetention(request)
      case 'GetObjectRetention':
        return this.#getRetention(request)
      case 'GetBucketVersioning':
        return xmlAnswer(
          `<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${this.#isVersioned ? '<Status>Enabled</Status>' : ''}</VersioningConfiguration>`,
        )
      case 'GetBucketLifecycleConfiguration':
        return this.#lifecycle()
      case 'ListObjectsV2':
        return this.#list(request.query, fault)
      case 'ListObjectVersions':
        return this.#listVersions(request.query)
    }
  }

  async #put({ key, headers, body }: Request): Promise<Answer> {
    if (headers['content-encoding'] !== undefined || headers['transfer-encoding'] !== undefined) {
      throw new Refusal(501, 'NotImplemented', 'A header asks for what this server cannot do')
    }
    if (headers['content-length'] === undefined) throw new Refusal(411, 'MissingContentLength', 'no length')
    if (Number(headers['content-length']) !== body.length) throw new Refusal(400, 'IncompleteBody', 'too short')
    if (headers['if-none-match'] !== '*') throw new Refusal(403, 'AccessDenied', 'explicit deny in a bucket policy')
    const unknown = Object.keys(headers).find(name => name.startsWith('x-amz-') && !putHeaders.has(name))
    if (unknown !== undefined && !unknown.startsWith('x-amz-checksum-'))
      throw new Refusal(501, 'NotImplemented', unknown)
    if (this.#options.digestsAreChecked) checkDigests(headers, body, !this.#has('ignores-checksums'))
    const encryption = encryptionIn(headers)
    const retention = this.#retentionIn(headers)
    if (this.#has('ignores-conditions')) await this.bucket.remove(key)
    if (this.#has('races') && this.bucket.sizeBytes(key) === undefined) {
      await delay(20)
      await this.bucket.remove(key)
    }
    if (!(await this.bucket.create(key, body, retention))) {
      throw new Refusal(412, 'PreconditionFailed', 'At least one of the pre-conditions you specified did not hold')
    }
    if (encryption !== undefined && !this.#has('ignores-encryption')) this.#encryption.set(key, encryption)
    this.#unlisted.add(key)
    return {
      status: 200,
      headers: { etag: '"opaque"', ...this.#encryptionHeaders(key), ...this.#versionHeader(key) },
      body: Buffer.alloc(0),
    }
  }

  /** Without a version a marker hides the object, whatever locks it; with one that version goes, unless it is locked. */
  async #delete({ key, query }: Request): Promise<Answer> {
    const id = query.get('versionId')
    const done = { status: 204, headers: {}, body: Buffer.alloc(0) }
    if (id === null) {
      if (!this.#has('keeps-removed')) await this.bucket.remove(key)
      return done
    }
    if (!this.#isVersioned) throw new Refusal(400, 'InvalidArgument', 'Invalid version id specified')
    const untilMillis = this.bucket.versions(key).find(version => version.id === id)?.retention?.untilMillis ?? 0
    if (untilMillis > this.#options.nowMillis())
      throw new Refusal(403, 'AccessDenied', 'Access Denied because object protected by object lock.')
    this.bucket.removeVersion(key, id)
    return done
  }

  #putRetention({ key, headers, body }: Request): Answer {
    if (headers['content-md5'] === undefined && !Object.keys(headers).some(name => /^x-amz-checksum-/.test(name)))
      throw new Refusal(400, 'InvalidRequest', 'Missing required header for this request: Content-MD5')
    checkDigests(headers, body, true)
    const current = this.#lockable(key)
    const text = body.toString()
    const retention = retentionOf(/<Mode>(\w+)<\/Mode>/.exec(text)?.[1], /<RetainUntilDate>([^<]+)</.exec(text)?.[1])
    this.#checkRetention(retention)
    const former = current.retention
    const isWeaker =
      former !== undefined &&
      former.untilMillis > this.#options.nowMillis() &&
      (retention.untilMillis < former.untilMillis || (former.mode === 'COMPLIANCE' && retention.mode !== 'COMPLIANCE'))
    if (isWeaker) throw new Refusal(403, 'AccessDenied', 'Access Denied because object protected by object lock.')
    this.bucket.setRetention(key, retention)
    return { status: 200, headers: {}, body: Buffer.alloc(0) }
  }

  #getRetention({ key }: Request): Answer {
    const { retention } = this.#lockable(key)
    if (retention === undefined)
      throw new Refusal(
        404,
        'NoSuchObjectLockConfiguration',
        'The specified object does not have a ObjectLock configuration',
      )
    const until = new Date(retention.untilMillis).toISOString()
    return xmlAnswer(`<Retention><Mode>${retention.mode}</Mode><RetainUntilDate>${until}</RetainUntilDate></Retention>`)
  }

  #lockable(key: string): { readonly retention: Retention | undefined } {
    if (this.#options.versions !== 'locking')
      throw new Refusal(400, 'InvalidRequest', 'Bucket is missing Object Lock Configuration')
    const current = this.bucket.versions(key).at(-1)
    if (current === undefined) throw new Refusal(404, 'NoSuchKey', 'The specified key does not exist.')
    if (current.isMarker)
      throw new Refusal(405, 'MethodNotAllowed', 'The specified method is not allowed against this resource.')
    return current
  }

  #retentionIn(headers: http.IncomingHttpHeaders): Retention | undefined {
    const [mode, until] = ['mode', 'retain-until-date'].map(
      name => headers[`x-amz-object-lock-${name}`] as string | undefined,
    )
    if (mode === undefined && until === undefined) return undefined
    const retention = retentionOf(mode, until)
    if (this.#options.versions !== 'locking')
      throw new Refusal(400, 'InvalidRequest', 'Bucket is missing Object Lock Configuration')
    if (headers['content-md5'] === undefined && headers['x-amz-checksum-crc32'] === undefined)
      throw new Refusal(
        400,
        'InvalidRequest',
        'Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters',
      )
    this.#checkRetention(retention)
    return this.#has('ignores-locks') ? undefined : retention
  }

  #checkRetention({ untilMillis }: Retention): void {
    if (untilMillis <= this.#options.nowMillis())
      throw new Refusal(400, 'InvalidArgument', 'The retain until date must be in the future!')
  }

  #lifecycle(): Answer {
    const { expiringPrefixes } = this.#options
    if (expiringPrefixes.length === 0)
      throw new Refusal(404, 'NoSuchLifecycleConfiguration', 'The lifecycle configuration does not exist')
    const rules = expiringPrefixes.map(
      prefix =>
        `<Rule><Filter><Prefix>${escaped(prefix)}</Prefix></Filter><Status>Enabled</Status><NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration></Rule>`,
    )
    return xmlAnswer(`<LifecycleConfiguration>${rules.join('')}</LifecycleConfiguration>`)
  }

  get #isVersioned(): boolean {
    return this.#options.versions !== 'none'
  }

  #versionHeader(key: string): Record<string, string> {
    const id = this.bucket.versions(key).at(-1)?.id
    return id === undefined ? {} : { 'x-amz-version-id': id }
  }

  #has(flaw: Flaw): boolean {
    return this.#options.flaws.includes(flaw)
  }

  #encryptionHeaders(key: string): Record<string, string> {
    const [algorithm, kmsKeyId] = this.#encryption.get(key)?.split(' ') ?? []
    return {
      ...(algorithm === undefined ? {} : { 'x-amz-server-side-encryption': algorithm }),
      ...(kmsKeyId === undefined ? {} : { 'x-amz-server-side-encryption-aws-kms-key-id': kmsKeyId }),
    }
  }

  async #get({ key, headers }: Request): Promise<Answer> {
    const sizeBytes = this.bucket.sizeBytes(key)
    if (sizeBytes === undefined) throw new Refusal(404, 'NoSuchKey', 'The specified key does not exist.')
    if (headers.range === undefined || this.#has('ignores-ranges')) {
      return { status: 200, headers: {}, body: await this.bucket.read(key, 0, sizeBytes) }
    }
    const match = /^bytes=(\d+)-(\d+)$/.exec(headers.range)
    if (match === null) throw new Refusal(501, 'NotImplemented', 'only one range with both its ends')
    const [first, last] = [Number(match[1]), Math.min(Number(match[2]), sizeBytes - 1)]
    if (first >= sizeBytes) throw new Refusal(416, 'InvalidRange', 'The requested range is not satisfiable')
    const body = await this.bucket.read(key, first, last + 1)
    return { status: 206, headers: { 'content-range': `bytes ${first}-${last}/${sizeBytes}`, etag: '"opaque"' }, body }
  }

  #hides(key: string): boolean {
    return this.#unlisted.delete(key) && this.#has('lists-late')
  }

  #listVersions(query: URLSearchParams): Answer {
    for (const name of query.keys()) {
      if (!versionListParameters.has(name)) throw new Refusal(501, 'NotImplemented', `parameter ${name}`)
    }
    const limit = Math.min(Number(query.get('max-keys') ?? 1000), this.#options.pageKeysMax)
    const [key = '', id = ''] = [query.get('key-marker') ?? '', query.get('version-id-marker') ?? '']
    const all = this.bucket.allVersions(query.get('prefix') ?? '')
    const from = key === '' ? 0 : 1 + all.findIndex(each => each.key === key && each.id === id)
    const page = all.slice(from, from + limit)
    const items = page.map(({ key, id, sizeBytes, isLatest }) => {
      const head = `<Key>${escaped(key)}</Key><VersionId>${id}</VersionId><IsLatest>${isLatest}</IsLatest>`
      return sizeBytes === undefined
        ? `<DeleteMarker>${head}</DeleteMarker>`
        : `<Version>${head}<Size>${sizeBytes}</Size></Version>`
    })
    const last = page.at(-1)
    const isTruncated = from + limit < all.length
    const next =
      isTruncated && last !== undefined
        ? `<NextKeyMarker>${escaped(last.key)}</NextKeyMarker><NextVersionIdMarker>${last.id}</NextVersionIdMarker>`
        : ''
    return xmlAnswer(
      `<ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>${isTruncated}</IsTruncated>${next}${items.join('')}</ListVersionsResult>`,
    )
  }

  #list(query: URLSearchParams, fault: Fault | undefined): Answer {
    for (const name of query.keys()) {
      if (!listParameters.has(name)) throw new Refusal(501, 'NotImplemented', `parameter ${name}`)
    }
    const prefix = query.get('prefix') ?? ''
    const token = query.get('continuation-token')
    const after = token === null ? (query.get('start-after') ?? '') : keyOfToken(token)
    const limit = Math.min(Number(query.get('max-keys') ?? 1000), this.#options.pageKeysMax)
    const found = this.bucket.keysAfter(prefix, after, limit + 1).filter(key => !this.#hides(key))
    const keys = fault?.kind === 'empty-page' ? [] : found.slice(0, limit)
    const isTruncated = fault?.kind === 'empty-page' || found.length > limit
    const last = keys.at(-1) ?? after
    if (fault?.kind === 'shuffle-page' || this.#has('lists-unordered')) keys.reverse()
    if (isTruncated && this.#has('loses-between-pages')) keys.pop()
    const contents = keys.map(
      key => `<Contents><Key>${escaped(key)}</Key><Size>${this.bucket.sizeBytes(key)}</Size></Contents>`,
    )
    const next = isTruncated ? `<NextContinuationToken>${tokenOfKey(last)}</NextContinuationToken>` : ''
    return xmlAnswer(
      `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>${this.#options.bucket}</Name><Prefix>${escaped(prefix)}</Prefix><KeyCount>${keys.length}</KeyCount><MaxKeys>${limit}</MaxKeys><IsTruncated>${isTruncated}</IsTruncated>${next}${contents.join('')}</ListBucketResult>`,
    )
  }
}

const putHeaders = new Set([
  'x-amz-content-sha256',
  'x-amz-date',
  'x-amz-user-agent',
  'x-amz-security-token',
  'x-amz-sdk-checksum-algorithm',
  'x-amz-server-side-encryption',
  'x-amz-server-side-encryption-aws-kms-key-id',
  'x-amz-server-side-encryption-bucket-key-enabled',
  'x-amz-object-lock-mode',
  'x-amz-object-lock-retain-until-date',
])

const versionListParameters = new Set(['versions', 'prefix', 'key-marker', 'version-id-marker', 'max-keys'])
const listParameters = new Set(['list-type', 'prefix', 'start-after', 'continuation-token', 'max-keys'])

function operationOf(method: string, url: URL): Operation {
  const isBucket = url.pathname.split('/').slice(2).join('/') === ''
  const id = url.searchParams.get('x-id')
  if (method === 'GET' && isBucket && url.searchParams.get('list-type') === '2') return 'ListObjectsV2'
  if (method === 'GET' && isBucket && url.searchParams.has('versions')) return 'ListObjectVersions'
  if (method === 'GET' && isBucket && url.searchParams.has('versioning')) return 'GetBucketVersioning'
  if (method === 'GET' && isBucket && url.searchParams.has('lifecycle')) return 'GetBucketLifecycleConfiguration'
  if (method === 'GET' && !isBucket && url.searchParams.has('retention')) return 'GetObjectRetention'
  if (method === 'PUT' && !isBucket && url.searchParams.has('retention')) return 'PutObjectRetention'
  if (method === 'GET' && !isBucket && id === 'GetObject') return 'GetObject'
  if (method === 'PUT' && !isBucket && id === 'PutObject') return 'PutObject'
  if (method === 'DELETE' && !isBucket && id === 'DeleteObject') return 'DeleteObject'
  if (method === 'HEAD' && !isBucket) return 'HeadObject'
  throw new Refusal(501, 'NotImplemented', `${method} ${url.pathname}${url.search}`)
}

function retentionOf(mode: string | undefined, until: string | undefined): Retention {
  const untilMillis = Date.parse(until ?? '')
  if ((mode !== 'GOVERNANCE' && mode !== 'COMPLIANCE') || Number.isNaN(untilMillis))
    throw new Refusal(
      400,
      'InvalidArgument',
      'x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied',
    )
  return { mode, untilMillis }
}

function xmlAnswer(text: string): Answer {
  const body = Buffer.from(`<?xml version="1.0" encoding="UTF-8"?>\n${text}`)
  return { status: 200, headers: { 'content-type': 'application/xml' }, body }
}

/** "AES256", or "aws:kms" and the key's id; undefined where nothing is asked for. */
function encryptionIn(headers: http.IncomingHttpHeaders): string | undefined {
  const algorithm = headers['x-amz-server-side-encryption']
  const kmsKeyId = headers['x-amz-server-side-encryption-aws-kms-key-id']
  if (algorithm === 'aws:kms') return `aws:kms ${kmsKeyId === undefined ? 'default-key' : String(kmsKeyId)}`
  if (kmsKeyId !== undefined || (algorithm !== undefined && algorithm !== 'AES256'))
    throw new Refusal(400, 'InvalidArgument', 'Server Side Encryption headers that do not go together')
  return algorithm
}

function checkDigests(headers: http.IncomingHttpHeaders, body: Buffer, checksumsAreKnown: boolean): void {
  const signed = headers['x-amz-content-sha256']
  if (signed !== 'UNSIGNED-PAYLOAD' && signed !== createHash('sha256').update(body).digest('hex')) {
    throw new Refusal(400, 'XAmzContentSHA256Mismatch', 'The provided x-amz-content-sha256 does not match')
  }
  const md5 = headers['content-md5']
  if (md5 !== undefined && md5 !== createHash('md5').update(body).digest('base64')) {
    throw new Refusal(400, 'BadDigest', 'The Content-MD5 you specified did not match what we received.')
  }
  for (const [name, value] of Object.entries(headers)) {
    if (!name.startsWith('x-amz-checksum-') || !checksumsAreKnown) continue
    if (name !== 'x-amz-checksum-crc32') throw new Refusal(501, 'NotImplemented', name)
    const sum = Buffer.alloc(4)
    sum.writeUInt32BE(crc32(body))
    if (value !== sum.toString('base64')) throw new Refusal(400, 'BadDigest', 'The CRC32 did not match.')
  }
}

/** Opaque to the client, and with the characters that break those who paste it into a URL unescaped. */
function tokenOfKey(key: string): string {
  return `1+/${Buffer.from(key).toString('base64')}`
}

function keyOfToken(token: string): string {
  if (!token.startsWith('1+/')) throw new Refusal(400, 'InvalidArgument', 'The continuation token is incorrect')
  return Buffer.from(token.slice(3), 'base64').toString()
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
}

function errorAnswer({ status, code, message }: Refusal): Answer {
  const text = `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code><Message>${escaped(message)}</Message><RequestId>0</RequestId></Error>`
  return { status, headers: { 'content-type': 'application/xml' }, body: Buffer.from(text) }
}

function flipped(body: Buffer): Buffer {
  const copy = Buffer.from(body)
  if (copy.length > 0) copy[copy.length >> 1]! ^= 1
  return copy
}

async function send(
  response: http.ServerResponse,
  isHead: boolean,
  answer: Answer,
  fault: Fault | undefined,
): Promise<void> {
  const sentBytes = fault !== undefined && 'sentBytes' in fault ? fault.sentBytes : answer.body.length
  const body = fault?.kind === 'corrupt-body' ? flipped(answer.body) : answer.body.subarray(0, sentBytes)
  const announcedBytes = fault?.kind === 'shorten-body' ? body.length : answer.body.length
  response.writeHead(answer.status, {
    ...(isHead || answer.status === 204 ? {} : { 'content-length': announcedBytes }),
    ...answer.headers,
    'x-amz-request-id': '0',
  })
  if (fault?.kind === 'stall-body') {
    response.write(body)
  } else if (fault?.kind === 'truncate-body') {
    response.write(body, () => response.destroy())
  } else {
    response.end(isHead ? undefined : body)
  }
}
