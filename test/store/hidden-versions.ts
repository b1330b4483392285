import t from 'tap'
import { failedWith } from '../../src/base/failure.ts'
import { hiddenVersions } from '../../src/store/hidden-versions.ts'
import { hiddenVersionsOf, openStore, type StoreConfig } from '../../src/store/store.ts'
import { S3Simulator, type SimulatorOptions } from '../support/s3-sim.ts'

const { signal } = new AbortController()
const credentials = { accessKeyId: 'test', secretAccessKey: 'test' }

function configOf(endpoint: string): Extract<StoreConfig, { kind: 's3' }> {
  return {
    ...{ kind: 's3', bucket: 'bucket', prefix: 'a/', region: 'eu-central-1', endpoint, forcePathStyle: true },
    ...{ checksums: 'when-supported', requestTimeoutMillis: 10_000, serverSideEncryption: 'bucket-default' },
    kmsKeyId: undefined,
  }
}

async function filled(t: { teardown(close: () => unknown): void }, options: Partial<SimulatorOptions>) {
  const simulator = await S3Simulator.start(options)
  const config = configOf(simulator.endpoint)
  const store = await openStore(config, { credentials })
  t.teardown(async () => {
    await store.close()
    await simulator.close()
  })
  const keys = ['v1/commit/1', 'v1/commit/2', 'v1/base/1', 'v1/delta/1', 'v2/base/1']
  for (const [index, key] of keys.entries()) await store.create(key, Buffer.alloc(100 + index), signal)
  for (const key of ['v1/commit/1', 'v1/delta/1', 'v2/base/1']) await store.remove(key, signal)
  return { simulator, config, look: () => hiddenVersionsOf(config, 'v1/', signal, credentials) }
}

t.test('what was removed is counted by its part, page after page, and what is there is not', async t => {
  const { look, config } = await filled(t, { versions: 'kept', pageKeysMax: 2 })
  t.strictSame(await look(), {
    isVersioned: true,
    expire: false,
    parts: [
      { part: 'commit', count: 1, sizeBytes: 100 },
      { part: 'delta', count: 1, sizeBytes: 103 },
    ],
    markerCount: 2,
    isWhole: true,
  })
  t.match(await hiddenVersions(config, credentials, 'v1/', signal, 1), { isWhole: false, markerCount: 1 })
})

t.test('a lifecycle rule that removes it is told', async t => {
  const { look } = await filled(t, { versions: 'kept', expiringPrefixes: ['a/'] })
  t.match(await look(), { expire: true })
})

t.test('where nothing is kept nothing is listed', async t => {
  const { look, simulator } = await filled(t, {})
  t.match(await look(), { isVersioned: false, parts: [] })
  t.equal(simulator.requestCounts.ListObjectVersions, 0)
  const directory = { kind: 'directory', directory: t.testdir() } as const
  t.match(await hiddenVersionsOf(directory, 'v1/', signal), { isVersioned: false })
})

t.test('who may not ask whether there are versions is told so; who may not list them is refused', async t => {
  const { look, simulator } = await filled(t, { versions: 'kept' })
  simulator.failNext('GetBucketVersioning', { kind: 'refuse', status: 403, code: 'AccessDenied' })
  t.match(await look(), { isVersioned: undefined, parts: [] })
  simulator.failNext('ListObjectVersions', { kind: 'refuse', status: 403, code: 'AccessDenied' })
  await look().then(
    () => t.fail('it should be refused'),
    (error: unknown) => t.ok(failedWith(error, 'CONFIG_INVALID')),
  )
})
