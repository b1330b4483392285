import { createHash } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import { blocksPerGiB, blockSizeBytes, type Account, type Snapshot } from './account.ts'
import { Refusal } from './refusal.ts'

// The EBS direct APIs.

export interface EbsOptions {
  /** Per second of the simulator's clock. */
  readonly putsPerSecondMax: number
  readonly startsPerSecondMax: number
  readonly pendingSnapshotsMax: number
  /** Blocks on one page of a listing at most, whatever is asked for. */
  readonly pageBlocksMax: number
  /** Every listing begins with a page that holds nothing and has a successor. */
  readonly emptyPages: boolean
  /** To complete what is completed already is refused, not answered once more. */
  readonly refusesSecondComplete: boolean
  /** False where only the caller is measured. */
  readonly keepsBytes: boolean
}

export interface EbsCall {
  readonly operation: string
  readonly snapshot: string
  readonly index: number
  readonly query: URLSearchParams
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

export interface EbsAnswer {
  readonly status: number
  readonly headers?: Record<string, string>
  readonly body: Buffer
}

const pageTokenMillis = 3_600_000
const blockTokenMillis = 7 * 24 * 3_600_000
const gibibytesMax = 65_536

export function ebsOperationOf(method: string, path: string): Pick<EbsCall, 'operation' | 'snapshot' | 'index'> {
  const routes: readonly (readonly [string, RegExp, string])[] = [
    ['POST', /^\/snapshots$/, 'StartSnapshot'],
    ['POST', /^\/snapshots\/completion\/([^/]+)$/, 'CompleteSnapshot'],
    ['PUT', /^\/snapshots\/([^/]+)\/blocks\/(\d+)$/, 'PutSnapshotBlock'],
    ['GET', /^\/snapshots\/([^/]+)\/blocks$/, 'ListSnapshotBlocks'],
    ['GET', /^\/snapshots\/([^/]+)\/changedblocks$/, 'ListChangedBlocks'],
    ['GET', /^\/snapshots\/([^/]+)\/blocks\/(\d+)$/, 'GetSnapshotBlock'],
  ]
  for (const [verb, pattern, operation] of routes) {
    const match = pattern.exec(path)
    if (verb === method && match !== null)
      return { operation, snapshot: match[1] ?? '', index: Number(match[2] ?? Number.NaN) }
  }
  throw new Refusal(404, 'UnknownOperationException', `${method} ${path}`)
}

/** So many in each second. */
class Rate {
  readonly #perSecondMax: number
  #startMillis = -Infinity
  #count = 0

  constructor(perSecondMax: number) {
    this.#perSecondMax = perSecondMax
  }

  allows(nowMillis: number): boolean {
    if (nowMillis - this.#startMillis >= 1000) {
      this.#startMillis = nowMillis
      this.#count = 0
    }
    return ++this.#count <= this.#perSecondMax
  }
}

export class Ebs {
  readonly #account: Account
  readonly #options: EbsOptions
  readonly #puts: Rate
  readonly #starts: Rate
  readonly #putsOf = new Map<string, Rate>()

  constructor(account: Account, options: EbsOptions) {
    this.#account = account
    this.#options = options
    this.#puts = new Rate(options.putsPerSecondMax)
    this.#starts = new Rate(options.startsPerSecondMax)
  }

  perform(call: EbsCall): EbsAnswer {
    switch (call.operation) {
      case 'StartSnapshot':
        return this.#start(call)
      case 'PutSnapshotBlock':
        return this.#put(call)
      case 'CompleteSnapshot':
        return this.#complete(call)
      case 'ListSnapshotBlocks':
        return this.#list(call)
      case 'ListChangedBlocks':
        return this.#listChanged(call)
      default:
        return this.#get(call)
    }
  }

  #start({ body }: EbsCall): EbsAnswer {
    const request = parseStart(body)
    if (!this.#starts.allows(this.#account.nowMillis()))
      throw throttled('ACCOUNT_THROTTLED', 'The number of StartSnapshot requests exceeds the account limit.')
    const mismatch = (): Refusal =>
      new Refusal(409, 'ConflictException', 'The client token was used with other parameters.')
    const id = this.#account.once(request.ClientToken, JSON.stringify(request), mismatch, () => this.#create(request))
    const snapshot = this.#account.snapshots.get(id)
    if (snapshot === undefined) throw notFound(id) // it was deleted meanwhile; the token still names it
    const answer = {
      SnapshotId: id,
      Status: this.#account.stateOfSnapshot(snapshot),
      VolumeSize: snapshot.sizeGiB,
      BlockSize: blockSizeBytes,
      Description: snapshot.description,
      Tags: request.Tags,
      ParentSnapshotId: snapshot.parent,
      SseType: snapshot.kmsKey === undefined ? 'none' : 'sse-kms',
      KmsKeyArn: snapshot.kmsKey,
      StartTime: 1_790_000_000,
      OwnerId: '111122223333',
    }
    return { status: 201, body: Buffer.from(JSON.stringify(answer)) }
  }

  #create(request: StartRequest): string {
    const account = this.#account
    const open = [...account.snapshots.values()].filter(each => account.stateOfSnapshot(each) === 'pending')
    if (open.length >= this.#options.pendingSnapshotsMax)
      throw new Refusal(400, 'ConcurrentLimitExceededException', 'Too many pending snapshots.')
    const parent = request.ParentSnapshotId === undefined ? undefined : this.#readable(request.ParentSnapshotId)
    if (parent !== undefined && parent.sizeGiB > request.VolumeSize)
      throw invalid('INVALID_VOLUME_SIZE', 'The volume is smaller than that of the parent snapshot.')
    const kmsKey = parent === undefined ? request.KmsKeyArn : parent.kmsKey
    if (kmsKey !== undefined && !account.kmsKeys.has(kmsKey))
      throw invalid('INVALID_CUSTOMER_KEY', `The key ${kmsKey} does not exist, is not enabled, or may not be used.`)
    const nowMillis = account.nowMillis()
    const id = account.newId('snap')
    account.snapshots.set(id, {
      id,
      sizeGiB: request.VolumeSize,
      parent: parent?.id,
      kmsKey,
      description: request.Description ?? '',
      tags: new Map((request.Tags ?? []).map(({ Key, Value }) => [Key, Value])),
      timeoutMillis: (request.Timeout ?? 60) * 60_000,
      startedMillis: nowMillis,
      own: new Map(),
      inherited: parent === undefined ? new Map<number, Buffer>() : account.blocksOf(parent),
      digests: new Map(),
      lastWriteMillis: nowMillis,
      completesAtMillis: undefined,
    })
    return id
  }

  #put({ snapshot: id, index, headers, body }: EbsCall): EbsAnswer {
    const account = this.#account
    const snapshot = this.#writable(id)
    const ownRate = this.#putsOf.get(id) ?? new Rate(this.#options.putsPerSecondMax)
    this.#putsOf.set(id, ownRate)
    if (!ownRate.allows(account.nowMillis()))
      throw throttled('RESOURCE_LEVEL_THROTTLE', 'Too many PutSnapshotBlock requests for the snapshot.')
    if (!this.#puts.allows(account.nowMillis()))
      throw throttled('ACCOUNT_THROTTLED', 'The number of PutSnapshotBlock requests exceeds the account limit.')
    if (headers['x-amz-data-length'] !== String(blockSizeBytes) || body.length !== blockSizeBytes)
      throw invalid('INVALID_BLOCK', `A block is ${blockSizeBytes} bytes; these are ${body.length}.`)
    if (headers['x-amz-checksum-algorithm'] !== 'SHA256') throw invalid('INVALID_PARAMETER_VALUE', 'ChecksumAlgorithm')
    if (index >= snapshot.sizeGiB * blocksPerGiB) throw invalid('INVALID_BLOCK', `Block ${index} is past the end.`)
    const digest = createHash('sha256').update(body).digest()
    const checksum = digest.toString('base64')
    if (headers['x-amz-checksum'] !== checksum)
      throw invalid('INVALID_BLOCK', 'The checksum is not that of the block data.')
    snapshot.own.set(index, this.#options.keepsBytes ? Buffer.from(body) : Buffer.alloc(0))
    snapshot.digests.set(index, digest)
    snapshot.lastWriteMillis = account.nowMillis()
    const answered = { 'x-amz-checksum': checksum, 'x-amz-checksum-algorithm': 'SHA256' }
    return { status: 201, headers: answered, body: Buffer.from('{}') }
  }

  #complete({ snapshot: id, headers }: EbsCall): EbsAnswer {
    const account = this.#account
    const snapshot = this.#seen(id)
    const answer = (Status: string): EbsAnswer => ({ status: 202, body: Buffer.from(JSON.stringify({ Status })) })
    if (snapshot.completesAtMillis !== undefined) {
      if (this.#options.refusesSecondComplete) throw invalid('INVALID_SNAPSHOT_ID', 'The snapshot is not pending.')
      return answer(account.stateOfSnapshot(snapshot))
    }
    if (account.stateOfSnapshot(snapshot) !== 'pending')
      throw invalid('INVALID_SNAPSHOT_ID', 'The snapshot has failed.')
    const count = headers['x-amz-changedblockscount']
    if (count !== String(snapshot.own.size))
      throw invalid('INVALID_PARAMETER_VALUE', `ChangedBlocksCount is ${String(count)}, not ${snapshot.own.size}.`)
    const checksum = headers['x-amz-checksum']
    const names = [headers['x-amz-checksum-algorithm'], headers['x-amz-checksum-aggregation-method']]
    if (checksum === undefined ? names.some(name => name !== undefined) : names.join() !== 'SHA256,LINEAR')
      throw invalid('INVALID_PARAMETER_VALUE', 'Checksum, its algorithm and its method go together.')
    if (checksum !== undefined && checksum !== linearChecksum(snapshot))
      throw invalid('INVALID_PARAMETER_VALUE', 'The checksum is not that of the blocks.')
    snapshot.completesAtMillis = account.nowMillis() + account.options.completionMillis
    return answer(account.stateOfSnapshot(snapshot))
  }

  #list({ snapshot: id, query }: EbsCall): EbsAnswer {
    const snapshot = this.#readable(id)
    const indexes = [...this.#account.blocksOf(snapshot).keys()].sort((a, b) => a - b)
    const blocks = (of: readonly number[]): object[] =>
      of.map(index => ({ BlockIndex: index, BlockToken: this.#blockToken(id, index) }))
    return this.#page('Blocks', snapshot, indexes, query, blocks)
  }

  #listChanged({ snapshot: id, query }: EbsCall): EbsAnswer {
    const first = query.get('firstSnapshotId')
    if (first === null) throw invalid('INVALID_PARAMETER_VALUE', 'FirstSnapshotId must be specified.')
    const [older, newer] = [this.#readable(first), this.#readable(id)]
    if (!this.#isRelated(older, newer))
      throw invalid('UNRELATED_SNAPSHOTS', `${older.id} and ${newer.id} are not related.`)
    const [before, after] = [this.#account.blocksOf(older), this.#account.blocksOf(newer)]
    const indexes = [...new Set([...before.keys(), ...after.keys()])]
      .filter(index => before.get(index) !== after.get(index))
      .sort((a, b) => a - b)
    const blocks = (of: readonly number[]): object[] =>
      of.map(index => ({
        BlockIndex: index,
        ...(before.has(index) ? { FirstBlockToken: this.#blockToken(first, index) } : {}),
        ...(after.has(index) ? { SecondBlockToken: this.#blockToken(id, index) } : {}),
      }))
    return this.#page('ChangedBlocks', newer, indexes, query, blocks)
  }

  #isRelated(older: Snapshot, newer: Snapshot): boolean {
    for (let at: string | undefined = newer.id; at !== undefined; at = this.#account.snapshots.get(at)?.parent)
      if (at === older.id) return true
    return false
  }

  #page(
    name: string,
    snapshot: Snapshot,
    indexes: readonly number[],
    query: URLSearchParams,
    blocks: (indexes: readonly number[]) => object[],
  ): EbsAnswer {
    const token = query.get('pageToken')
    const asked = Math.max(100, Number(query.get('maxResults') ?? 10_000))
    const limit = Math.min(asked, this.#options.pageBlocksMax)
    const from = token === null ? Number(query.get('startingBlockIndex') ?? 0) : this.#fromPageToken(token)
    const rest = indexes.filter(index => index >= from)
    const isEmpty = token === null && this.#options.emptyPages
    const page = isEmpty ? [] : rest.slice(0, limit)
    const next = isEmpty ? from : rest[page.length]
    const answer = {
      [name]: blocks(page),
      ExpiryTime: 1_790_000_000,
      VolumeSize: snapshot.sizeGiB,
      BlockSize: blockSizeBytes,
      ...(next === undefined ? {} : { NextToken: this.#token(['page', next], pageTokenMillis) }),
    }
    return { status: 200, body: Buffer.from(JSON.stringify(answer)) }
  }

  #get({ snapshot: id, index, query }: EbsCall): EbsAnswer {
    const snapshot = this.#readable(id)
    const parts = this.#ofToken(query.get('blockToken') ?? '', 'INVALID_BLOCK_TOKEN')
    if (parts[0] !== id || parts[1] !== index) throw invalid('INVALID_BLOCK_TOKEN', 'The token is of another block.')
    const bytes = this.#account.blocksOf(snapshot).get(index)
    if (bytes === undefined) throw invalid('INVALID_BLOCK', `There is no block ${index}.`)
    const checksum = createHash('sha256').update(bytes).digest('base64')
    const headers = {
      'content-type': 'application/octet-stream',
      'x-amz-data-length': String(bytes.length),
      'x-amz-checksum': checksum,
      'x-amz-checksum-algorithm': 'SHA256',
    }
    return { status: 200, headers, body: bytes }
  }

  #known(id: string): Snapshot {
    if (!/^snap-[0-9a-f]{17}$/.test(id)) throw invalid('INVALID_SNAPSHOT_ID', `"${id}" is no id of a snapshot.`)
    const snapshot = this.#account.snapshots.get(id)
    if (snapshot === undefined) throw notFound(id)
    return snapshot
  }

  /** As writes see it: late. */
  #seen(id: string): Snapshot {
    const snapshot = this.#known(id)
    const { snapshotUnseenMillis } = this.#account.options
    if (this.#account.nowMillis() < snapshot.startedMillis + snapshotUnseenMillis) throw notFound(id)
    return snapshot
  }

  #writable(id: string): Snapshot {
    const snapshot = this.#seen(id)
    if (snapshot.completesAtMillis !== undefined || this.#account.stateOfSnapshot(snapshot) !== 'pending')
      throw invalid('INVALID_SNAPSHOT_ID', `The snapshot ${id} is not pending.`)
    return snapshot
  }

  #readable(id: string): Snapshot {
    const snapshot = this.#known(id)
    if (this.#account.stateOfSnapshot(snapshot) !== 'completed')
      throw invalid('INVALID_SNAPSHOT_ID', `The snapshot ${id} is not completed.`)
    return snapshot
  }

  #blockToken(id: string, index: number): string {
    return this.#token([id, index], blockTokenMillis)
  }

  /** With the characters that break those who paste it into a URL unescaped. */
  #token(parts: readonly (string | number)[], lifeMillis: number): string {
    const text = JSON.stringify([...parts, this.#account.nowMillis() + lifeMillis])
    return `A+/${Buffer.from(text).toString('base64')}`
  }

  #ofToken(token: string, reason: string): (string | number)[] {
    if (!token.startsWith('A+/')) throw invalid(reason, 'The token is not one of ours.')
    const parts = JSON.parse(Buffer.from(token.slice(3), 'base64').toString()) as (string | number)[]
    if (this.#account.nowMillis() > Number(parts.at(-1))) throw invalid(reason, 'The token has expired.')
    return parts
  }

  #fromPageToken(token: string): number {
    const [kind, index] = this.#ofToken(token, 'INVALID_PAGE_TOKEN')
    if (kind !== 'page') throw invalid('INVALID_PAGE_TOKEN', 'The token is not of a page.')
    return Number(index)
  }
}

interface StartRequest {
  readonly VolumeSize: number
  readonly ParentSnapshotId?: string
  readonly Tags?: readonly { readonly Key: string; readonly Value: string }[]
  readonly Description?: string
  readonly ClientToken?: string
  readonly Encrypted?: boolean
  readonly KmsKeyArn?: string
  readonly Timeout?: number
}

const startKeys = [
  'VolumeSize',
  'ParentSnapshotId',
  'Tags',
  'Description',
  'ClientToken',
  'Encrypted',
  'KmsKeyArn',
  'Timeout',
]

function parseStart(body: Buffer): StartRequest {
  const request = JSON.parse(body.toString()) as StartRequest
  const { VolumeSize, Tags = [], Timeout = 60, ClientToken, Description = '' } = request
  const faults = [
    ...Object.keys(request).filter(key => !startKeys.includes(key)),
    ...(Number.isInteger(VolumeSize) && VolumeSize >= 1 && VolumeSize <= gibibytesMax ? [] : ['VolumeSize']),
    ...(Number.isInteger(Timeout) && Timeout >= 10 && Timeout <= 4320 ? [] : ['Timeout']),
    ...(ClientToken === undefined || /^\S{1,64}$/.test(ClientToken) ? [] : ['ClientToken']),
    ...(Description.length <= 255 ? [] : ['Description']),
    ...(Tags.length <= 50 && Tags.every(({ Key, Value }) => isTag(Key, Value)) ? [] : ['Tags']),
    ...(new Set(Tags.map(({ Key }) => Key)).size === Tags.length ? [] : ['Tags']),
  ]
  if (faults.length > 0) throw invalid('INVALID_PARAMETER_VALUE', `not valid: ${faults.join(', ')}`)
  if (request.ParentSnapshotId !== undefined && request.Encrypted !== undefined)
    throw invalid('INVALID_PARAMETER_VALUE', 'ParentSnapshotId and Encrypted exclude each other.')
  if (request.KmsKeyArn !== undefined && request.Encrypted !== true)
    throw invalid('INVALID_PARAMETER_VALUE', 'KmsKeyArn needs Encrypted.')
  return request
}

export function isTag(key: unknown, value: unknown): boolean {
  return (
    typeof key === 'string' &&
    key.length > 0 &&
    key.length <= 127 &&
    !key.startsWith('aws:') &&
    typeof value === 'string' &&
    value.length <= 255
  )
}

function linearChecksum(snapshot: Snapshot): string {
  const hash = createHash('sha256')
  for (const [, digest] of [...snapshot.digests].sort(([a], [b]) => a - b)) hash.update(digest)
  return hash.digest('base64')
}

function invalid(reason: string, message: string): Refusal {
  return new Refusal(400, 'ValidationException', message, reason)
}

function throttled(reason: string, message: string): Refusal {
  return new Refusal(400, 'RequestThrottledException', message, reason)
}

function notFound(id: string): Refusal {
  return new Refusal(404, 'ResourceNotFoundException', `The snapshot '${id}' does not exist.`, 'SNAPSHOT_NOT_FOUND')
}
