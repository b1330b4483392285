import { createHash } from 'node:crypto'
import { once } from 'node:events'
import * as http from 'node:http'
import type { AddressInfo } from 'node:net'
import { Account, type AccountOptions, type Tags } from './account.ts'
import { Ebs, ebsOperationOf, type EbsOptions } from './ebs.ts'
import { Ec2, type Ec2Options } from './ec2.ts'
import { Faults, type Fault } from './faults.ts'
import { isAllowed, type Policy } from './policy.ts'
import { list, parseQuery, text, texts, xmlOf, type Value } from './query.ts'
import { quotaOperationOf, Quotas } from './quotas.ts'
import { Refusal } from './refusal.ts'

// The EBS direct APIs, the EC2 query API and Service Quotas of one account and region, over HTTP, as strict as AWS is known to be, for whatever client has an
// endpoint option. What it holds can be looked at, what it does can be made to fail.

export type { Fault } from './faults.ts'
export { blockSizeBytes } from './account.ts'

export interface AwsSimOptions extends AccountOptions, EbsOptions, Ec2Options {
  readonly region: string
  readonly accessKeyId: string
  readonly port: number
  /** Waited before every answer, in real time. */
  readonly latencyMillis: number
  /** What the credentials may not do. */
  readonly denied: readonly string[]
  /** By which everything that takes time goes. */
  readonly nowMillis: () => number
}

const defaults: AwsSimOptions = {
  region: 'eu-central-1',
  accessKeyId: 'test',
  port: 0,
  latencyMillis: 0,
  denied: [],
  nowMillis: () => performance.now(),
  completionMillis: 20,
  snapshotUnseenMillis: 0,
  unlistedMillis: 0,
  settleMillis: 10,
  putsPerSecondMax: 1000,
  startsPerSecondMax: 10,
  pendingSnapshotsMax: 100,
  pageBlocksMax: 10_000,
  emptyPages: false,
  refusesSecondComplete: false,
  keepsBytes: true,
  pageItemsMax: 1000,
}

/** What AWS does with the key of what a call is about, in the name of whoever calls. */
const kmsActions: Readonly<Record<string, readonly string[]>> = {
  StartSnapshot: ['DescribeKey', 'Decrypt', 'GenerateDataKey', 'GenerateDataKeyWithoutPlaintext'],
  PutSnapshotBlock: ['Decrypt', 'GenerateDataKey'],
  CreateVolume: ['DescribeKey', 'Decrypt', 'GenerateDataKeyWithoutPlaintext', 'ReEncryptFrom', 'ReEncryptTo'],
  RunInstances: ['CreateGrant', 'DescribeKey', 'Decrypt', 'GenerateDataKeyWithoutPlaintext', 'ReEncryptFrom'],
  AttachVolume: ['CreateGrant', 'Decrypt'],
}

interface Answer {
  readonly status: number
  readonly headers?: Record<string, string>
  readonly body: Buffer
}

export class AwsSim {
  readonly account: Account
  readonly faults = new Faults()
  readonly quotas = new Quotas()
  /** Operations in the order in which they came. */
  readonly calls: string[] = []
  /** Sees every request before anything of it is read; true where it answers it itself. */
  beforeCall: (incoming: http.IncomingMessage, response: http.ServerResponse) => boolean = () => false
  /** Told when a call was carried out, or refused, before it is answered. */
  afterCall: (number: number, operation: string) => void = () => undefined
  denied: readonly string[]
  /** What the credentials may do; everything while there is none. */
  policy: Policy | undefined
  readonly #options: AwsSimOptions
  readonly #ebs: Ebs
  readonly #ec2: Ec2
  readonly #server: http.Server
  #skippedMillis = 0

  private constructor(options: AwsSimOptions) {
    this.#options = options
    this.denied = options.denied
    this.account = new Account(options, () => options.nowMillis() + this.#skippedMillis)
    this.#ebs = new Ebs(this.account, options)
    this.#ec2 = new Ec2(this.account, options)
    this.#server = http.createServer((request, response) => {
      if (this.beforeCall(request, response)) return
      this.#serve(request, response).catch(() => request.socket.destroy())
    })
  }

  /** With a VPC of one subnet (10.0.0.0/24 in the first zone), a group, a key, and some types of instances. */
  static async start(options: Partial<AwsSimOptions> = {}): Promise<AwsSim> {
    const sim = new AwsSim({ ...defaults, ...options })
    const { account } = sim
    const zone = `${sim.#options.region}a`
    account.subnets.set('subnet-1', { id: 'subnet-1', vpc: 'vpc-1', zone, cidr: '10.0.0.0/24' })
    account.groups.set('sg-1', 'vpc-1').set('sg-other', 'vpc-2')
    account.keyPairs.add('operator')
    account.instanceTypes
      .set('m7i.large', { architectures: ['x86_64'], bootModes: ['legacy-bios', 'uefi'], vcpuCount: 2 })
      .set('m7g.large', { architectures: ['arm64'], bootModes: ['uefi'], vcpuCount: 2 })
    sim.#server.listen(sim.#options.port, '127.0.0.1')
    await once(sim.#server, 'listening')
    return sim
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  get region(): string {
    return this.#options.region
  }

  /** Lets time pass at once. */
  pass(millis: number): void {
    this.#skippedMillis += millis
  }

  callCount(operation: string): number {
    return this.calls.filter(call => call === operation).length
  }

  /** An image as AWS and its sellers offer them, whose root volume holds nothing of interest. */
  addStockImage(platform: 'windows' | undefined): string {
    const { account } = this
    const snapshot = account.newId('snap')
    account.snapshots.set(snapshot, {
      id: snapshot,
      sizeGiB: 1,
      parent: undefined,
      kmsKey: undefined,
      description: 'stock',
      tags: new Map(),
      timeoutMillis: 0,
      startedMillis: -1e12,
      own: new Map([[0, Buffer.alloc(524_288, 0x77)]]),
      inherited: new Map(),
      digests: new Map(),
      lastWriteMillis: -1e12,
      completesAtMillis: -1e12,
    })
    const id = account.newId('ami')
    account.images.set(id, {
      id,
      name: `stock ${platform ?? 'linux'}`,
      architecture: 'x86_64',
      bootMode: undefined,
      rootDevice: '/dev/sda1',
      rootSnapshot: snapshot,
      tags: new Map(),
      platform,
      createdMillis: -1e12,
      availableAtMillis: -1e12,
    })
    return id
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise<void>(resolve => this.#server.close(() => resolve()))
  }

  async #serve(incoming: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of incoming as AsyncIterable<Buffer>) chunks.push(chunk)
    const body = Buffer.concat(chunks)
    const url = new URL(incoming.url ?? '/', this.endpoint)
    const quotaOperation = quotaOperationOf(incoming.headers)
    const isEc2 = url.pathname === '/' && quotaOperation === undefined
    const service = isEc2 ? 'ec2' : quotaOperation === undefined ? 'ebs' : 'servicequotas'
    const isOfQuotas = quotaOperation !== undefined
    let fault: Fault | undefined
    let answer: Answer
    let number = 0
    let operation = ''
    try {
      const query = isEc2 ? parseQuery(body.toString()) : {}
      operation = isEc2
        ? (text(query['Action']) ?? '')
        : (quotaOperation ?? ebsOperationOf(incoming.method ?? '', url.pathname).operation)
      number = this.calls.push(operation)
      fault = this.faults.take(operation, number)
      if (fault?.kind === 'hang') {
        this.afterCall(number, operation)
        return
      }
      if (fault?.kind === 'cut') throw new Error('cut')
      if (this.#options.latencyMillis > 0)
        await new Promise(resolve => setTimeout(resolve, this.#options.latencyMillis))
      if (fault?.kind === 'refuse')
        throw new Refusal(fault.status, fault.code, fault.message ?? 'as planned', fault.reason)
      if (fault?.kind === 'corrupt' && operation === 'PutSnapshotBlock') body[body.length >> 1]! ^= 1
      this.#checkSigned(incoming.headers, body, service, fault?.kind === 'corrupt')
      const denies =
        this.denied.includes(operation) ||
        (this.policy !== undefined && !this.#isAllowed(this.policy, { service, operation, query, url, body }))
      if (denies)
        throw isEc2
          ? new Refusal(403, 'UnauthorizedOperation', `You are not authorized to perform: ec2:${operation}.`)
          : new Refusal(
              isOfQuotas ? 400 : 403,
              'AccessDeniedException',
              `not authorized to perform: ${service}:${operation}`,
            )
      if (isOfQuotas) answer = { status: 200, body: Buffer.from(JSON.stringify(this.quotas.perform(operation, body))) }
      else if (isEc2) {
        const inside = xmlOf(this.#ec2.perform(operation, query))
        const namespace = 'http://ec2.amazonaws.com/doc/2016-11-15/'
        const xml = `<?xml version="1.0" encoding="UTF-8"?>\n<${operation}Response xmlns="${namespace}"><requestId>0</requestId>${inside}</${operation}Response>`
        answer = { status: 200, headers: { 'content-type': 'text/xml;charset=UTF-8' }, body: Buffer.from(xml) }
      } else {
        const call = ebsOperationOf(incoming.method ?? '', url.pathname)
        answer = this.#ebs.perform({ ...call, query: url.searchParams, headers: incoming.headers, body })
      }
      if (fault?.kind === 'corrupt' && operation === 'GetSnapshotBlock') {
        const flipped = Buffer.from(answer.body)
        flipped[100]! ^= 1
        answer = { ...answer, body: flipped }
      }
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
      answer = isEc2 ? ec2Error(error) : ebsError(error)
    }
    this.afterCall(number, operation)
    if (fault?.kind === 'hang-after') return
    if (fault?.kind === 'lose-response') throw new Error('response lost')
    const headers = { 'content-type': 'application/json', 'content-length': answer.body.length, ...answer.headers }
    response.writeHead(answer.status, headers)
    response.end(answer.body)
  }

  /** The call itself, and the tags that it gives to what it makes. */
  #isAllowed(
    policy: Policy,
    asked: { service: string; operation: string; query: Record<string, Value>; url: URL; body: Buffer },
  ): boolean {
    const { service, operation, query, body } = asked
    const { pathname } = asked.url
    const { account } = this
    const { region } = this.#options
    const isEc2 = service === 'ec2'
    const tagsOf = (id: string): Tags | undefined =>
      [account.snapshots, account.volumes, account.images, account.instances]
        .map(all => all.get(id)?.tags)
        .find(Boolean)
    const idNames = ['SnapshotId', 'VolumeId', 'ImageId', 'InstanceId', 'ResourceId']
    const ids = isEc2
      ? idNames.flatMap(name => [...texts(query[name]), ...[text(query[name])].filter(id => id !== undefined)])
      : [/^\/snapshots\/(?:completion\/)?([^/]+)/.exec(pathname)?.[1]].filter(id => id !== undefined)
    const given = isEc2
      ? list(query['TagSpecification']).flatMap(({ Tag }) => list(Tag))
      : operation === 'StartSnapshot'
        ? ((JSON.parse(body.toString()) as { readonly Tags?: readonly { Key: string; Value: string }[] }).Tags ?? [])
        : []
    const requestTags = new Map(given.map(({ Key, Value }) => [text(Key) ?? '', text(Value) ?? '']))
    const resources = ids.map(id => ({ id, tags: tagsOf(id) }))
    const action = `${service}:${operation}`
    const tagging = { action: 'ec2:CreateTags', region, requestTags, resources: [], createAction: operation }
    const kmsKeys = this.#kmsKeysOf(operation, ids, body)
    const ofKeys = kmsKeys.size === 0 ? [] : (kmsActions[operation] ?? [])
    return (
      isAllowed(policy, { action, region, requestTags, resources }) &&
      (requestTags.size === 0 || isAllowed(policy, tagging)) &&
      ofKeys.every(each => isAllowed(policy, { action: `kms:${each}`, region, requestTags: new Map(), resources: [] }))
    )
  }

  /** Of what the call is about, and of what it makes. */
  #kmsKeysOf(operation: string, ids: readonly string[], body: Buffer): Set<string> {
    const { snapshots, volumes, images } = this.account
    const asked = operation === 'StartSnapshot' ? (JSON.parse(body.toString()) as Record<string, string>) : {}
    const all = [...ids, asked['ParentSnapshotId'] ?? '', ...ids.map(id => images.get(id)?.rootSnapshot ?? '')]
    const keys = all.map(id => snapshots.get(id)?.kmsKey ?? volumes.get(id)?.kmsKey)
    return new Set([asked['KmsKeyArn'], ...keys].filter(key => key !== undefined))
  }

  #checkSigned(headers: http.IncomingHttpHeaders, body: Buffer, service: string, isCorrupted: boolean): void {
    const match =
      /^AWS4-HMAC-SHA256 Credential=([^/]+)\/\d{8}\/([a-z0-9-]+)\/([a-z0-9]+)\/aws4_request, ?SignedHeaders=([a-z0-9;-]+), ?Signature=[0-9a-f]{64}$/.exec(
        headers.authorization ?? '',
      )
    if (match === null || headers['x-amz-date'] === undefined)
      throw new Refusal(403, 'MissingAuthenticationToken', 'The request is not signed.')
    if (match[1] !== this.#options.accessKeyId) throw new Refusal(403, 'AuthFailure', 'These are not our credentials.')
    if (match[2] !== this.#options.region || match[3] !== service)
      throw new Refusal(
        403,
        'SignatureDoesNotMatch',
        `Credential should be scoped to ${this.#options.region}/${service}.`,
      )
    const signed = (match[4] ?? '').split(';')
    for (const name of Object.keys(headers))
      if (name.startsWith('x-amz-') && !signed.includes(name))
        throw new Refusal(403, 'SignatureDoesNotMatch', `The header ${name} is not signed.`)
    const digest = headers['x-amz-content-sha256']
    if (isCorrupted || digest === 'UNSIGNED-PAYLOAD' || !this.#options.keepsBytes) return
    if (digest !== createHash('sha256').update(body).digest('hex'))
      throw new Refusal(403, 'SignatureDoesNotMatch', 'The signature is of another body.')
  }
}

function ec2Error({ status, code, message }: Refusal): Answer {
  const inside = xmlOf({ Errors: { Error: { Code: code, Message: message } }, RequestID: '0' })
  const xml = `<?xml version="1.0" encoding="UTF-8"?>\n<Response>${inside}</Response>`
  return { status, headers: { 'content-type': 'text/xml;charset=UTF-8' }, body: Buffer.from(xml) }
}

function ebsError({ status, code, message, reason }: Refusal): Answer {
  const body = Buffer.from(JSON.stringify({ Message: message, ...(reason === undefined ? {} : { Reason: reason }) }))
  return { status, headers: { 'content-type': 'application/json', 'x-amzn-errortype': code }, body }
}
