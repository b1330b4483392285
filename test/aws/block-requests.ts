import { createHash, createHmac } from 'node:crypto'
import { once } from 'node:events'
import * as http from 'node:http'
import type { AddressInfo } from 'node:net'
import { PutSnapshotBlockCommand } from '@aws-sdk/client-ebs'
import t, { type Test } from 'tap'
import { Attempts } from '../../src/aws/attempts.ts'
import { BlockRequests } from '../../src/aws/block-requests.ts'
import { newEbsClient } from '../../src/aws/clients.ts'
import { putBlock } from '../../src/aws/ebs-calls.ts'
import { failureOfCall } from '../../src/aws/failures.ts'
import type { AwsConfig } from '../../src/aws/service.ts'
import { systemClock } from '../../src/base/clock.ts'

// A put past the SDK's middleware against the same put by the SDK's client: what the server sees, and what the caller hears.

const region = 'eu-central-1'
const secret = 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY'
process.env['AWS_ACCESS_KEY_ID'] = 'AKIDEXAMPLE'
process.env['AWS_SECRET_ACCESS_KEY'] = secret
process.env['AWS_SESSION_TOKEN'] = 'a+session/token='

const call = 'ebs:PutSnapshotBlock'
const snapshot = 'snap-0123456789abcdef0'
const { signal } = new AbortController()
const taken: Answer = { status: 201, body: '{}' }

interface Seen {
  readonly method: string
  readonly path: string
  readonly headers: http.IncomingHttpHeaders
  readonly body: Buffer
}

interface Answer {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
  /** The connection breaks after so many bytes of the body. */
  readonly cutAfter?: number
}

async function newServer(t: Test, answer: (seen: Seen) => Answer, pathPrefix = '') {
  const seen: Seen[] = []
  const server = http.createServer(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk)
    const { method = '', url = '', headers } = request
    const one = { method, path: url, headers, body: Buffer.concat(chunks) }
    seen.push(one)
    const { status, headers: answered = {}, body = '', cutAfter } = answer(one)
    response.writeHead(status, { 'content-length': body.length, ...answered })
    if (cutAfter === undefined) response.end(body)
    else response.write(body.slice(0, cutAfter), () => request.socket.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}${pathPrefix}`
  const aws: AwsConfig = {
    ...{ region, endpoints: { ebs: endpoint, ec2: endpoint, quotas: undefined }, siteId: 's', tagKeys: {} as never },
    ...{ putsPerSecondMax: 1000, putsAtOnceMax: 4, putThreads: 1, requestTimeoutMillis: 5_000 },
  }
  const client = newEbsClient(aws, 4)
  t.teardown(async () => {
    client.destroy()
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  })
  const requests = new BlockRequests(client)
  const attempts = new Attempts(5_000, systemClock)
  const put = (index: number, bytes = blockOf(index)) =>
    putBlock(requests, attempts, { snapshot, index, bytes }, signal)
  return { client, requests, put, seen }
}

function blockOf(index: number): Uint8Array {
  return new Uint8Array(524_288).fill(index + 1)
}

function hashOf(bytes: Uint8Array | string): Buffer {
  return createHash('sha256').update(bytes).digest()
}

/** As AWS calculates it, from what has arrived (SigV4, "Create a signed AWS API request"). */
function signatureOf({ method, path, headers, body }: Seen): string {
  const match = /Credential=[^/]+\/(\d{8})\/.*SignedHeaders=([^,]+),/.exec(headers.authorization ?? '') ?? []
  const [, day = '', names = ''] = match
  const lines = names.split(';').map(name => `${name}:${String(headers[name]).trim().replace(/ +/g, ' ')}\n`)
  const canonical = [method, path, '', lines.join(''), names, hashOf(body).toString('hex')].join('\n')
  const scope = `${day}/${region}/ebs/aws4_request`
  let key: Buffer | string = `AWS4${secret}`
  for (const part of scope.split('/')) key = createHmac('sha256', key).update(part).digest()
  const text = ['AWS4-HMAC-SHA256', headers['x-amz-date'], scope, hashOf(canonical).toString('hex')].join('\n')
  return createHmac('sha256', key).update(text).digest('hex')
}

function without(headers: http.IncomingHttpHeaders, ...names: readonly string[]): http.IncomingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !names.includes(name)))
}

for (const pathPrefix of ['', '/gateway'])
  t.test(`every block is signed, and sent as the SDK sends it, to ${pathPrefix || 'the root'}`, async t => {
    const { client, put, seen } = await newServer(t, () => taken, pathPrefix)
    for (const index of [0, 7, 70_000]) {
      t.strictSame(Buffer.from(await put(index)), hashOf(blockOf(index)))
      const command = new PutSnapshotBlockCommand({
        ...{ SnapshotId: snapshot, BlockIndex: index, BlockData: blockOf(index), DataLength: 524_288 },
        ...{ Checksum: hashOf(blockOf(index)).toString('base64'), ChecksumAlgorithm: 'SHA256' },
      })
      await client.send(command)
      const [own, theirs] = seen.splice(0)
      t.equal(own?.path, `${pathPrefix}/snapshots/${snapshot}/blocks/${index}`)
      t.equal(own?.path, theirs?.path)
      t.ok(own?.body.equals(theirs!.body))
      t.match(own?.headers['x-amz-security-token'], 'a+session/token=')
      for (const one of [own, theirs])
        t.match(one?.headers.authorization, `Signature=${signatureOf(one!)}`, 'the signature is that of what arrived')
      const ofEachTry = ['amz-sdk-invocation-id', 'amz-sdk-request', 'authorization', 'x-amz-date', 'user-agent']
      t.strictSame(without(own!.headers, ...ofEachTry), without(theirs!.headers, ...ofEachTry))
    }
  })

const id = { 'x-amzn-requestid': '7a62c49f' }
const json = { 'content-type': 'application/json', ...id }
const answers: Readonly<Record<string, Answer>> = {
  'a throttle of the snapshot': {
    status: 400,
    headers: { ...json, 'x-amzn-errortype': 'RequestThrottledException' },
    body: '{"message":"slower","Reason":"RESOURCE_LEVEL_THROTTLE"}',
  },
  'a throttle that the model does not know': {
    status: 400,
    headers: { ...json, 'x-amzn-errortype': 'ThrottlingException:http://internal.amazon.com/' },
    body: '{"message":"Rate exceeded"}',
  },
  'a checksum that does not fit': {
    status: 400,
    headers: json,
    body: '{"__type":"ValidationException","Message":"bad","Reason":"INVALID_BLOCK"}',
  },
  'a snapshot that is unknown': {
    status: 404,
    headers: { ...json, 'x-amzn-errortype': 'ResourceNotFoundException' },
    body: '{"Message":"no such snapshot","Reason":"SNAPSHOT_NOT_FOUND"}',
  },
  'a permission that is missing': {
    status: 403,
    headers: { ...json, 'x-amzn-errortype': 'AccessDeniedException' },
    body: '{"Message":"no","Reason":"UNAUTHORIZED_ACCOUNT"}',
  },
  'a fault of the service': {
    status: 500,
    headers: { ...json, 'x-amzn-errortype': 'InternalServerException' },
    body: '{}',
  },
  'a page of a proxy': { status: 502, headers: { 'content-type': 'text/html', ...id }, body: '<html>bad gateway' },
  'an unknown name without a body': { status: 418, headers: { ...id, 'x-amzn-errortype': 'TeapotException' } },
  'a way elsewhere': { status: 307, headers: { ...id, location: 'http://127.0.0.1:1/' } },
}

for (const [what, answer] of Object.entries(answers))
  t.test(`${what} is the failure that the SDK makes of it`, async t => {
    const { client, requests, put } = await newServer(t, () => answer)
    const bytes = blockOf(1)
    const digest = hashOf(bytes)
    const own = failureOfCall(await failing(requests.send({ snapshot, index: 1, bytes, digest }, signal)), call)
    const command = new PutSnapshotBlockCommand({
      ...{ SnapshotId: snapshot, BlockIndex: 1, BlockData: bytes, DataLength: bytes.length },
      ...{ Checksum: digest.toString('base64'), ChecksumAlgorithm: 'SHA256' },
    })
    const theirs = failureOfCall(await failing(client.send(command)), call)
    t.equal(own.code, theirs.code)
    t.equal(own.message, theirs.message)
    t.strictSame(own.details, theirs.details)
    await t.rejects(put(1), { code: theirs.code })
  })

async function failing(work: Promise<unknown>): Promise<unknown> {
  return await work.then(
    () => t.fail('it should have failed'),
    (error: unknown) => error,
  )
}

t.test('a success whose body does not arrive may be put again', async t => {
  const { put } = await newServer(t, () => ({ status: 201, body: '{"a":"long one"}', cutAfter: 3 }))
  await t.rejects(put(1), { code: 'CLOUD_UNAVAILABLE' })
})

t.test('a clock that is off is corrected by the first answer that says so, and that put is made again', async t => {
  const aheadMillis = 20 * 60_000
  const skewed = ({ headers }: Seen): Answer => {
    const [, date = '', time = ''] = /^(\d{8})T(\d{6})Z$/.exec(String(headers['x-amz-date'])) ?? []
    const sent = `${date.replace(/^(....)(..)/, '$1-$2-')}T${time.replace(/^(..)(..)/, '$1:$2:')}Z`
    const now = new Date(Date.now() + aheadMillis)
    const common = { ...json, date: now.toUTCString() }
    if (Math.abs(Date.parse(sent) - now.getTime()) < 300_000) return { ...taken, headers: common }
    const headersOfRefusal = { ...common, 'x-amzn-errortype': 'InvalidSignatureException' }
    return { status: 403, headers: headersOfRefusal, body: '{"message":"Signature expired"}' }
  }
  const { put, seen } = await newServer(t, skewed)
  await t.rejects(put(1), { code: 'CLOUD_UNAVAILABLE', reaction: 'retry' })
  await put(1)
  await put(2)
  t.equal(seen.length, 3)
})

t.test('whoever gives up ends the request', async t => {
  const abort = new AbortController()
  const { requests, seen } = await newServer(t, () => {
    abort.abort()
    return { status: 201, body: 'x'.repeat(1_000_000), cutAfter: 1 }
  })
  const bytes = blockOf(1)
  await t.rejects(requests.send({ snapshot, index: 1, bytes, digest: hashOf(bytes) }, abort.signal))
  t.equal(seen.length, 1)
})
