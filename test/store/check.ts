import * as fs from 'node:fs'
import * as path from 'node:path'
import t, { type Test } from 'tap'
import { checkStore, type StoreFinding } from '../../src/store/check.ts'
import { openStore, type StoreConfig } from '../../src/store/store.ts'
import { S3Simulator, type Flaw, type Operation, type SimulatorOptions } from '../support/s3-sim.ts'

// A store that is fit passes every check, one that is not fails the check that is about its flaw, in words, with a remedy; and
// nothing is left behind in either.

const credentials = { accessKeyId: 'test', secretAccessKey: 'secret' }
const never = new AbortController().signal

type S3Config = Extract<StoreConfig, { kind: 's3' }>

async function checked(
  t: Test,
  options: Partial<SimulatorOptions>,
  changes: Partial<S3Config> = {},
): Promise<{ readonly findings: readonly StoreFinding[]; readonly simulator: S3Simulator }> {
  const simulator = await S3Simulator.start(options)
  t.teardown(() => simulator.close())
  const config: S3Config = {
    kind: 's3',
    bucket: 'bucket',
    prefix: 'vra/',
    region: 'eu-central-1',
    endpoint: simulator.endpoint,
    forcePathStyle: true,
    checksums: 'when-supported',
    requestTimeoutMillis: 10_000,
    serverSideEncryption: 'bucket-default',
    kmsKeyId: undefined,
    ...changes,
  }
  return { findings: await checkStore(config, { credentials }, never), simulator }
}

/** A bucket as Object Lock wants it. */
const locking = { versions: 'locking', expiringPrefixes: ['vra/'] } as const

function failedOf(findings: readonly StoreFinding[]): string[] {
  return findings.filter(({ outcome }) => outcome === 'failed').map(({ check }) => check)
}

t.test('a bucket that is fit passes, however objects are encrypted, and nothing is left in it', async t => {
  for (const serverSideEncryption of ['bucket-default', 's3', 'kms'] as const) {
    const kmsKeyId = serverSideEncryption === 'kms' ? 'alias/vra' : undefined
    const { findings, simulator } = await checked(t, {}, { serverSideEncryption, kmsKeyId })
    t.strictSame(failedOf(findings), [], JSON.stringify(findings))
    t.strictSame(
      findings.filter(({ outcome }) => outcome === 'skipped').map(({ check }) => check),
      ['object-lock'],
    )
    t.equal(simulator.bucket.objectCount, 0)
    const said = { 'bucket-default': /without encryption/, s3: /AES256/, kms: /aws:kms \(alias\/vra\)/ }
    t.match(findings.find(({ check }) => check === 'encryption')?.sentence, said[serverSideEncryption])
  }
})

const flaws: Readonly<Record<Flaw, readonly string[]>> = {
  'ignores-conditions': ['create-once', 'one-winner'],
  races: ['one-winner'],
  'ignores-ranges': ['ranges'],
  'lists-late': ['listing'],
  'lists-unordered': ['listing'],
  'loses-between-pages': ['listing'],
  'ignores-checksums': ['checksums'],
  'ignores-encryption': ['encryption'],
  'keeps-removed': ['remove'],
  'ignores-locks': ['object-lock'],
}

for (const [flaw, checks] of Object.entries(flaws) as [Flaw, readonly string[]][]) {
  t.test(`a server that ${flaw} is found out`, async t => {
    const { findings, simulator } = await checked(
      t,
      { ...locking, flaws: [flaw] },
      { serverSideEncryption: 's3', objectLock: 'compliance' },
    )
    t.strictSame(failedOf(findings), checks, JSON.stringify(findings, undefined, 1))
    for (const { outcome, remedy } of findings) t.equal(outcome === 'failed', remedy !== undefined)
    if (flaw !== 'keeps-removed') t.equal(simulator.bucket.objectCount, 0)
  })
}

t.test('a bucket with Object Lock is proved to lock, in either mode and with either digest', async t => {
  for (const objectLock of ['governance', 'compliance'] as const)
    for (const checksums of ['when-supported', 'when-required'] as const) {
      const { findings, simulator } = await checked(t, locking, { objectLock, checksums })
      t.strictSame(failedOf(findings), [], JSON.stringify(findings))
      t.match(findings.find(({ check }) => check === 'object-lock')?.sentence, /cannot be destroyed.*a minute/)
      t.equal(simulator.bucket.objectCount, 0, 'nothing of it is seen any more')
      simulator.bucket.expireVersions(Date.now())
      t.equal(simulator.bucket.versionCount, 1, 'one small object is kept by its lock')
      simulator.bucket.expireVersions(Date.now() + 2 * 60_000)
      t.equal(simulator.bucket.versionCount, 0, 'for some minute')
    }
})

t.test('a bucket that cannot lock, and one in which versions would pile up, are told with what to do', async t => {
  const without = await checked(t, { versions: 'kept', expiringPrefixes: [''] }, { objectLock: 'compliance' })
  t.strictSame(failedOf(without.findings), ['object-lock'])
  t.match(without.findings.find(({ check }) => check === 'object-lock')?.remedy, /made with Object Lock/)
  for (const expiringPrefixes of [[], ['other/']]) {
    const { findings } = await checked(t, { versions: 'kept', expiringPrefixes })
    t.strictSame(failedOf(findings), ['versions'])
    t.match(findings.find(({ check }) => check === 'versions')?.remedy, /NoncurrentVersionExpiration/)
  }
  const denied = await checked(t, { ...locking, denied: ['PutObjectRetention'] }, { objectLock: 'compliance' })
  t.strictSame(failedOf(denied.findings), ['object-lock'])
  t.match(denied.findings.find(({ check }) => check === 'object-lock')?.remedy, /s3:PutObjectRetention/)
})

t.test('a checksum mode for servers that do not know the headers', async t => {
  const { findings } = await checked(t, { flaws: ['ignores-checksums'] }, { checksums: 'when-required' })
  t.strictSame(failedOf(findings), [])
  t.equal(findings.find(({ check }) => check === 'checksums')?.outcome, 'skipped')
})

const permissions: readonly (readonly [Operation, string, RegExp])[] = [
  ['ListObjectsV2', 'list', /s3:ListBucket/],
  ['PutObject', 'create-and-read', /s3:PutObject/],
  ['GetObject', 'create-and-read', /s3:GetObject/],
  ['DeleteObject', 'remove', /s3:DeleteObject/],
]

for (const [operation, check, needed] of permissions) {
  t.test(`a role that may not ${operation} is told what it lacks`, async t => {
    const { findings } = await checked(t, { denied: [operation] })
    const finding = findings.find(each => each.check === check)
    t.match(finding, { outcome: 'failed', sentence: /AccessDenied/, remedy: needed })
    if (operation === 'ListObjectsV2') t.ok(findings.slice(1).every(({ outcome }) => outcome !== 'failed'))
  })
}

t.test('a server that does not answer is not tried further', async t => {
  const simulator = await S3Simulator.start()
  const { endpoint } = simulator
  await simulator.close()
  const { findings } = await checked(t, {}, { endpoint })
  t.strictSame(failedOf(findings), ['list'])
  t.equal(findings[0]?.failureCode, 'STORE_UNAVAILABLE')
})

t.test('a directory is checked as well, and one that was not there is not there afterwards', async t => {
  const directory = path.join(t.testdir(), 'store')
  const config: StoreConfig = { kind: 'directory', directory }
  t.strictSame(failedOf(await checkStore(config, {}, never)), [])
  t.notOk(fs.existsSync(directory))
  fs.mkdirSync(path.join(directory, 'objects/vpg'), { recursive: true })
  t.strictSame(failedOf(await checkStore(config, {}, never)), [])
  t.strictSame(fs.readdirSync(path.join(directory, 'objects')), ['vpg'])
})

t.test('the key that encrypts here is proved to be the store’s, and nothing of it is left either', async t => {
  const directory = path.join(t.testdir({ one: 'a'.repeat(32), other: 'b'.repeat(32) }), 'store')
  const config = (name: string): StoreConfig => {
    const keyFile = path.join(directory, '..', name)
    fs.chmodSync(keyFile, 0o600)
    return { kind: 'directory', directory, clientEncryption: { key: 'file', keyFile } }
  }
  t.strictSame(failedOf(await checkStore(config('one'), {}, never)), [])
  t.notOk(fs.existsSync(directory))
  const store = await openStore(config('one'))
  await store.create('vpg/0123456789abcdef0123456789abcdef', Buffer.from('x'), never)
  await store.close()
  t.strictSame(failedOf(await checkStore(config('one'), {}, never)), [])
  const wrong = await checkStore(config('other'), {}, never)
  t.strictSame(failedOf(wrong), ['client-encryption'])
  t.match(
    wrong.find(({ check }) => check === 'client-encryption'),
    { sentence: /another key/, remedy: /clientEncryption/ },
  )
})

t.test('whoever interrupts it leaves nothing behind either', async t => {
  const simulator = await S3Simulator.start()
  t.teardown(() => simulator.close())
  const stop = new AbortController()
  const config: S3Config = {
    ...{ kind: 's3', bucket: 'bucket', prefix: '', region: 'eu-central-1', forcePathStyle: true },
    ...{ checksums: 'when-supported', requestTimeoutMillis: 10_000, serverSideEncryption: 'bucket-default' },
    endpoint: simulator.endpoint,
    kmsKeyId: undefined,
  }
  const checking = checkStore(config, { credentials }, stop.signal)
  while (simulator.bucket.objectCount < 2) await simulator.nextRequest()
  stop.abort(new Error('stopped'))
  await t.rejects(checking, /stopped/)
  t.equal(simulator.bucket.objectCount, 0)
})
