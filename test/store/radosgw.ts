import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import * as net from 'node:net'
import * as path from 'node:path'
import * as readline from 'node:readline'
import { CreateBucketCommand, PutBucketLifecycleConfigurationCommand, S3Client } from '@aws-sdk/client-s3'
import t from 'tap'
import { checkStore } from '../../src/store/check.ts'
import { openStore, type StoreConfig } from '../../src/store/store.ts'
import { failsWith, objectStoreContract } from '../contract/object-store.ts'

// The contract against a real S3 server, which nobody wrote for this test.

type S3Config = Extract<StoreConfig, { kind: 's3' }>

const { signal } = new AbortController()
const credentials = { accessKeyId: 'test', secretAccessKey: 'test' }
const script = path.resolve(import.meta.dirname, '../../../test/support/radosgw.sh')
const startMillisMax = 120_000

const missing = ['radosgw', 'ceph-mon', 'ceph-osd', 'ceph'].filter(
  command => spawnSync('which', [command]).status !== 0,
)

t.test('against radosgw', { skip: missing.length > 0 && `not installed: ${missing.join(', ')}` }, async t => {
  const endpoint = await startGateway()
  const client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true, credentials })
  await client.send(new CreateBucketCommand({ Bucket: 'bucket' }))
  await client.send(new CreateBucketCommand({ Bucket: 'locked', ObjectLockEnabledForBucket: true }))
  const rule = {
    ...({ ID: 'versions', Status: 'Enabled', Filter: { Prefix: '' } } as const),
    NoncurrentVersionExpiration: { NoncurrentDays: 1 },
  }
  const LifecycleConfiguration = { Rules: [rule] }
  await client.send(new PutBucketLifecycleConfigurationCommand({ Bucket: 'locked', LifecycleConfiguration }))
  client.destroy()

  let stores = 0
  const config = (changes: { prefix: string; checksums: 'when-supported' | 'when-required' }): S3Config => ({
    kind: 's3',
    bucket: 'bucket',
    region: 'us-east-1',
    endpoint,
    forcePathStyle: true,
    requestTimeoutMillis: 30_000,
    serverSideEncryption: 'bucket-default',
    kmsKeyId: undefined,
    ...changes,
  })

  t.test('the contract', async t => {
    objectStoreContract(t, async t => {
      const changes = { prefix: `test-${stores++}/`, checksums: 'when-required' } as const
      const store = await openStore(config(changes), { credentials })
      const other = await openStore(config(changes), { credentials })
      t.teardown(async () => {
        await store.close()
        await other.close()
      })
      return { store, other, manyObjects: 1050 }
    })
  })

  t.test('it is found fit', async t => {
    const findings = await checkStore(config({ prefix: 'check/', checksums: 'when-required' }), { credentials }, signal)
    for (const { check, outcome, sentence } of findings) t.not(outcome, 'failed', `${check}: ${sentence}`)
  })

  t.test('it locks objects, and what is removed goes when its lock is over', async t => {
    const locking = { ...config({ prefix: 'check/', checksums: 'when-required' }), bucket: 'locked' }
    for (const objectLock of ['governance', 'compliance'] as const) {
      const findings = await checkStore({ ...locking, objectLock }, { credentials }, signal)
      // Version 16.2 honours no conditions in a bucket with versions, and the check finds that out; all else it does.
      const others = findings.filter(({ check }) => !['create-once', 'one-winner'].includes(check))
      for (const { check, outcome, sentence } of others) t.not(outcome, 'failed', `${check}: ${sentence}`)
      t.equal(findings.find(({ check }) => check === 'object-lock')?.outcome, 'passed')
      t.match(findings.find(({ check }) => check === 'versions')?.sentence, /lifecycle rule/)
    }
    const store = await openStore({ ...locking, objectLock: 'compliance' }, { credentials })
    await store.create('k', Buffer.from('body'), signal, { lockMillis: 60_000 })
    await store.remove('k', signal)
    await failsWith(t, 'NOT_FOUND', store.readRange('k', { startBytes: 0, endBytes: 1 }, signal), 'it is hidden')
    await failsWith(t, 'NOT_FOUND', store.locks!.extend('k', 120_000, signal), 'and not locked any longer')
    await store.create('k', Buffer.from('again'), signal)
    t.equal(Buffer.from(await store.readRange('k', { startBytes: 0, endBytes: 5 }, signal)).toString(), 'again')
    await store.close()
  })

  t.test('newer checksum headers do no harm', async t => {
    const store = await openStore(config({ prefix: 'newer/', checksums: 'when-supported' }), { credentials })
    await store.create('k', Buffer.from('body'), signal)
    await failsWith(t, 'ALREADY_EXISTS', store.create('k', Buffer.from('b'), signal), 'a second create')
    t.equal(Buffer.from(await store.readRange('k', { startBytes: 0, endBytes: 4 }, signal)).toString(), 'body')
    await store.close()
  })
})

/** The gateway's endpoint; it ends with this process, whose end of the pipe it watches. */
async function startGateway(): Promise<string> {
  const directory = t.testdir()
  const [port, monitorPort] = [await freePort(), await freePort()]
  const gateway = spawn(script, [directory, String(port), String(monitorPort)], { stdio: ['pipe', 'pipe', 'inherit'] })
  t.teardown(async () => {
    gateway.stdin.end()
    if (gateway.exitCode === null) await once(gateway, 'exit')
  })
  const lines = readline.createInterface({ input: gateway.stdout })
  const started = once(lines, 'line', { signal: AbortSignal.timeout(startMillisMax) })
  await Promise.race([started, once(gateway, 'exit')])
  if (gateway.exitCode !== null)
    throw new Error(readFileSync(path.join(directory, 'log/commands'), 'utf8').slice(-2000))
  await started
  return `http://127.0.0.1:${port}`
}

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as net.AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
