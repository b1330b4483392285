import { randomBytes } from 'node:crypto'
import * as net from 'node:net'
import t, { type Test } from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { failedWith, type Failure } from '../../src/base/failure.ts'
import { newSharedLoad, openStore, type ObjectStore, type StoreConfig } from '../../src/store/store.ts'
import { failsWith, keysOf, objectStoreContract } from '../contract/object-store.ts'
import { S3Simulator, type Fault, type SimulatorOptions } from '../support/s3-sim.ts'

const signal = new AbortController().signal
const credentials = { accessKeyId: 'test', secretAccessKey: 'secret' }
/** Waits between tries are made at once: what is tested is what comes of them. */
const clock = { ...systemClock, sleep: async () => undefined }

const hourMillis = 3_600_000

type S3Config = Extract<StoreConfig, { kind: 's3' }>

function configOf(endpoint: string, changes: Partial<S3Config> = {}): S3Config {
  return {
    kind: 's3',
    bucket: 'bucket',
    prefix: 'site-a/',
    region: 'eu-central-1',
    endpoint,
    forcePathStyle: true,
    serverSideEncryption: 'bucket-default',
    kmsKeyId: undefined,
    checksums: 'when-supported',
    requestTimeoutMillis: 10_000,
    ...changes,
  }
}

interface Pair {
  readonly store: ObjectStore
  readonly simulator: S3Simulator
}

async function start(t: Test, changes: Partial<S3Config> = {}, options: Partial<SimulatorOptions> = {}): Promise<Pair> {
  const simulator = await S3Simulator.start(options)
  const store = await openStore(configOf(simulator.endpoint, changes), { credentials, clock })
  t.teardown(async () => {
    await store.close()
    await simulator.close()
  })
  return { store, simulator }
}

async function failureOf(work: Promise<unknown>): Promise<Failure | undefined> {
  return await work.then(
    () => undefined,
    (error: unknown) => (failedWith(error, 'STORE_UNAVAILABLE') ? error : undefined),
  )
}

for (const checksums of ['when-supported', 'when-required'] as const) {
  t.test(`against the simulator, checksums ${checksums}`, async t => {
    objectStoreContract(t, async t => {
      const pageKeysMax = checksums === 'when-supported' ? 1000 : 7
      // Whoever knows no lock sees no difference in a bucket with versions.
      const versions = checksums === 'when-supported' ? 'none' : 'locking'
      const { store, simulator } = await start(t, { checksums }, { pageKeysMax, versions })
      const other = await openStore(configOf(simulator.endpoint, { checksums }), { credentials, clock })
      t.teardown(async () => await other.close())
      return { store, other, manyObjects: checksums === 'when-supported' ? 1100 : 100 }
    })
  })
}

for (const checksums of ['when-supported', 'when-required'] as const)
  t.test(`a locked object is removed from sight, and its bytes stay until the lock ends (${checksums})`, async t => {
    const { store, simulator } = await start(t, { objectLock: 'compliance', checksums }, { versions: 'locking' })
    const { bucket } = simulator
    const before = Date.now()
    await store.create('vpg/1', Buffer.from('body'), signal, { lockMillis: hourMillis })
    await store.create('vpg/2', Buffer.from('body'), signal)
    const [locked] = bucket.versions('site-a/vpg/1')
    t.match(locked, { isMarker: false, retention: { mode: 'COMPLIANCE' } })
    t.ok((locked?.retention?.untilMillis ?? 0) >= before + hourMillis)
    t.strictSame(bucket.versions('site-a/vpg/2')[0]?.retention, undefined, 'what asks for no lock gets none')
    for (const key of ['vpg/1', 'vpg/2']) {
      await store.remove(key, signal)
      await store.remove(key, signal)
      await failsWith(t, 'NOT_FOUND', store.readRange(key, { startBytes: 0, endBytes: 1 }, signal), key)
    }
    t.strictSame(await keysOf(store.list('', undefined, signal)), [])
    bucket.expireVersions(before + hourMillis)
    t.equal(bucket.versionCount, 1, 'the locked one is there')
    await store.create('vpg/1', Buffer.from('again'), signal)
    t.strictSame((await store.readRange('vpg/1', { startBytes: 0, endBytes: 5 }, signal)).toString(), 'again')
    bucket.expireVersions(before + 2 * hourMillis)
    t.equal(bucket.versionCount, 1, 'and goes when its lock is over')
  })

t.test('a lock is extended, never shortened, and told', async t => {
  const { store, simulator } = await start(t, { objectLock: 'governance' }, { versions: 'locking' })
  const { locks } = store
  await store.create('k', Buffer.from('body'), signal)
  t.equal(await locks?.lockedUntilMicros('k', signal), 0)
  await locks?.extend('k', 2 * hourMillis, signal)
  const untilMicros = await locks?.lockedUntilMicros('k', signal)
  t.ok((untilMicros ?? 0) > (Date.now() + hourMillis) * 1000)
  await locks?.extend('k', hourMillis, signal)
  t.equal(await locks?.lockedUntilMicros('k', signal), untilMicros, 'the longer one stays')
  await locks?.extend('k', 3 * hourMillis, signal)
  t.ok(((await locks?.lockedUntilMicros('k', signal)) ?? 0) > (untilMicros ?? 0))
  simulator.failNext('PutObjectRetention', { kind: 'refuse', status: 403, code: 'AccessDenied' })
  await failsWith(t, 'CONFIG_INVALID', locks!.extend('k', 9 * hourMillis, signal), 'a role that may not')
  await store.remove('k', signal)
  for (const key of ['k', 'nowhere']) {
    await failsWith(t, 'NOT_FOUND', locks!.extend(key, hourMillis, signal), `extend ${key}`)
    await failsWith(t, 'NOT_FOUND', locks!.lockedUntilMicros(key, signal), `ask ${key}`)
  }
  const { store: plain } = await start(t)
  t.equal(plain.locks, undefined, 'a store that is not to lock says so')
})

t.test('objects of other prefixes are not seen', async t => {
  const { store, simulator } = await start(t)
  const other = await openStore(configOf(simulator.endpoint, { prefix: 'site-b/' }), { credentials, clock })
  t.teardown(async () => await other.close())
  await store.create('vpg/1', Buffer.from('a'), signal)
  await other.create('vpg/2', Buffer.from('b'), signal)
  t.strictSame(await keysOf(store.list('', undefined, signal)), ['vpg/1'])
  t.strictSame(simulator.bucket.keysAfter('', '', 10), ['site-a/vpg/1', 'site-b/vpg/2'])
})

const passing: readonly Fault[] = [
  { kind: 'refuse', status: 503, code: 'SlowDown' },
  { kind: 'refuse', status: 500, code: 'InternalError' },
  { kind: 'refuse', status: 429, code: 'TooManyRequests' },
  { kind: 'refuse', status: 400, code: 'RequestTimeout' },
  { kind: 'cut' },
  { kind: 'hang' },
]

t.test('a create that is put off is not tried again, and says what happened', async t => {
  const { store, simulator } = await start(t, { requestTimeoutMillis: 300 })
  const conflict: Fault = { kind: 'refuse', status: 409, code: 'ConditionalRequestConflict' }
  const corrupt: Fault = { kind: 'corrupt-upload' }
  for (const [index, fault] of [...passing, conflict, corrupt].entries()) {
    simulator.failNext('PutObject', fault)
    const before = simulator.requestCounts.PutObject
    const failure = await failureOf(store.create(`k/${index}`, randomBytes(1000), signal))
    t.ok(failure, `${JSON.stringify(fault)} is STORE_UNAVAILABLE`)
    t.type(failure?.details['errorCode'], 'string', `with its code: ${String(failure?.details['errorCode'])}`)
    if ('code' in fault) t.equal(failure?.details['errorCode'], fault.code)
    t.equal(simulator.requestCounts.PutObject, before + 1, 'one request')
    t.strictSame(await keysOf(store.list(`k/${index}`, undefined, signal)), [], 'nothing is there')
    await store.create(`k/${index}`, Buffer.from('later'), signal)
  }
})

t.test('a connection on which nothing moves is given up long before a slow one would be, either way', async t => {
  const { store, simulator } = await start(t, { requestTimeoutMillis: 1_000 })
  const body = Buffer.alloc(16 * 1024 * 1024) // slowly it would take minutes
  simulator.failNext('PutObject', { kind: 'hang' })
  const failure = await failureOf(store.create('k', body, signal))
  t.match(failure?.message, /does not answer: .* of inactivity/)
  await store.create('k', body.subarray(0, 1_000_000), signal)
  simulator.failNext('GetObject', { kind: 'stall-body', sentBytes: 1000 })
  const found = await store.readRange('k', { startBytes: 0, endBytes: 1_000_000 }, signal)
  t.equal(found.length, 1_000_000, 'a read is tried again')
})

t.test('a create whose answer is lost is STORE_UNAVAILABLE, and its object is there', async t => {
  const { store, simulator } = await start(t)
  const body = randomBytes(70_000)
  simulator.failNext('PutObject', { kind: 'lose-response' })
  await failsWith(t, 'STORE_UNAVAILABLE', store.create('manifest/7', body, signal), 'the outcome is unknown')
  t.ok(body.equals(await store.readRange('manifest/7', { startBytes: 0, endBytes: 70_000 }, signal)))
  await failsWith(t, 'ALREADY_EXISTS', store.create('manifest/7', body, signal), 'the caller asks again')
})

t.test('a create that found nobody to speak to is sent again', async t => {
  const probe = net.createServer().listen(0, '127.0.0.1')
  await new Promise(resolve => probe.once('listening', resolve))
  const { port } = probe.address() as net.AddressInfo
  await new Promise(resolve => probe.close(resolve))
  let simulator: S3Simulator | undefined
  const starting = { ...clock, sleep: async () => void (simulator ??= await S3Simulator.start({ port })) }
  const store = await openStore(configOf(`http://127.0.0.1:${port}`), { credentials, clock: starting })
  t.teardown(async () => {
    await store.close()
    await simulator?.close()
  })
  await store.create('k', Buffer.from('x'), signal)
  t.equal(simulator?.requestCounts.PutObject, 1)
})

t.test('reads, listings and removals are tried again until they succeed', async t => {
  const { store, simulator } = await start(t, { requestTimeoutMillis: 300 })
  const body = randomBytes(50_000)
  await store.create('k', body, signal)
  const ofBodies: readonly Fault[] = [
    { kind: 'truncate-body', sentBytes: 20_000 },
    { kind: 'shorten-body', sentBytes: 20_000 },
    { kind: 'shorten-body', sentBytes: 0 },
    { kind: 'stall-body', sentBytes: 20_000 },
    { kind: 'lose-response' },
  ]
  for (const fault of [...passing, ...ofBodies]) {
    const named = JSON.stringify(fault)
    simulator.failNext('GetObject', fault, 2)
    const found = await store.readRange('k', { startBytes: 5, endBytes: 49_000 }, signal)
    t.ok(body.subarray(5, 49_000).equals(found), `read through ${named}`)
    simulator.failNext('ListObjectsV2', fault)
    t.strictSame(await keysOf(store.list('', undefined, signal)), ['k'], `list through ${named}`)
    simulator.failNext('DeleteObject', fault)
    await store.remove('nothing', signal)
  }
})

t.test('a 404 to what need not be there is no answer: it is asked again, or in doubt', async t => {
  const { store, simulator } = await start(t)
  await store.create('k/1', Buffer.from('a'), signal)
  const fault: Fault = { kind: 'refuse', status: 404, code: 'NotFound' }
  simulator.failNext('ListObjectsV2', fault)
  t.strictSame(await keysOf(store.list('k/', undefined, signal)), ['k/1'])
  simulator.failNext('PutObject', fault)
  await failsWith(t, 'STORE_UNAVAILABLE', store.create('k/2', Buffer.from('b'), signal), 'a create')
})

t.test('what goes on failing is STORE_UNAVAILABLE, never wrong data', async t => {
  const { store, simulator } = await start(t, { requestTimeoutMillis: 200 })
  await store.create('k', randomBytes(1000), signal)
  const faults: readonly Fault[] = [
    ...passing,
    { kind: 'truncate-body', sentBytes: 1 },
    { kind: 'shorten-body', sentBytes: 999 },
  ]
  for (const fault of faults) {
    simulator.failNext('GetObject', fault, 5)
    const failure = await failureOf(store.readRange('k', { startBytes: 0, endBytes: 1000 }, signal))
    t.ok(failure, `${JSON.stringify(fault)}: ${String(failure?.details['errorCode'])}`)
  }
})

t.test('tries have a budget: a store in trouble gets few more requests than were asked for', async t => {
  const { store, simulator } = await start(t)
  simulator.failNext('GetObject', { kind: 'refuse', status: 503, code: 'SlowDown' }, Infinity)
  for (let index = 0; index < 200; index++) {
    await failsWith(t, 'STORE_UNAVAILABLE', store.readRange('k', { startBytes: 0, endBytes: 1 }, signal), 'refused')
  }
  t.equal(simulator.requestCounts.GetObject, 250, '200 first tries and the budget of 50')
})

t.test('a read for which somebody waits goes on for as long as that, and no longer; nothing else does', async t => {
  let nowMillis = 0
  let sleepCount = 0
  const sleep = (delayMillis: number): Promise<void> => {
    sleepCount++
    nowMillis += Math.max(1, delayMillis)
    return Promise.resolve()
  }
  const simulator = await S3Simulator.start()
  const config = configOf(simulator.endpoint, { readPatienceMillis: 60_000 })
  const ofClock = { ...systemClock, monotonicMillis: () => nowMillis, sleep }
  const store = await openStore(config, { credentials, clock: ofClock })
  t.teardown(async () => {
    await store.close()
    await simulator.close()
  })
  await store.create('k', Buffer.from('body'), signal)
  const read = () => store.readRange('k', { startBytes: 0, endBytes: 4 }, signal)
  for (const fault of [
    { status: 503, code: 'SlowDown' },
    { status: 500, code: 'InternalError' },
  ] as const) {
    simulator.failNext('GetObject', { kind: 'refuse', ...fault }, 10)
    t.same(Buffer.from(await read()), Buffer.from('body'), fault.code)
  }
  nowMillis = sleepCount = 0
  simulator.failNext('GetObject', { kind: 'refuse', status: 503, code: 'SlowDown' }, Infinity)
  await failsWith(t, 'STORE_UNAVAILABLE', read(), 'for ever')
  t.ok(nowMillis >= 60_000 && nowMillis < 65_000, `given up after ${nowMillis} ms`)
  t.ok(sleepCount < 80, `${sleepCount} tries in a minute`)
  simulator.mend()
  simulator.failNext('ListObjectsV2', { kind: 'refuse', status: 503, code: 'SlowDown' }, Infinity)
  await failsWith(t, 'STORE_UNAVAILABLE', keysOf(store.list('', undefined, signal)), 'a listing')
  t.ok(simulator.requestCounts.ListObjectsV2 <= 5)
})

t.test('what waits to be tried again ends when the store is closed', async t => {
  const simulator = await S3Simulator.start()
  t.teardown(() => simulator.close())
  const store = await openStore(configOf(simulator.endpoint, { readPatienceMillis: 60_000 }), { credentials })
  simulator.failNext('GetObject', { kind: 'refuse', status: 503, code: 'SlowDown' }, Infinity)
  const reading = failsWith(t, 'CLOSING', store.readRange('k', { startBytes: 0, endBytes: 4 }, signal), 'a read')
  while ((store.loadFacts?.throttledCounts.read ?? 0) < 6 || store.loadFacts?.waitingCount === 0)
    await new Promise(resolve => setTimeout(resolve, 5))
  await store.close()
  const closedMillis = performance.now()
  await reading
  t.ok(performance.now() - closedMillis < 1_000, 'and not after its delay of seconds')
})

t.test('threads of one store count together what it puts off', async t => {
  const simulator = await S3Simulator.start()
  const config = configOf(simulator.endpoint, { sharedLoad: newSharedLoad() })
  const stores = await Promise.all([1, 2].map(() => openStore(config, { credentials, clock })))
  t.teardown(async () => {
    for (const store of stores) await store.close()
    await simulator.close()
  })
  const [one, two] = stores
  await one!.create('k', Buffer.from('body'), signal)
  simulator.failNext('GetObject', { kind: 'refuse', status: 503, code: 'SlowDown' }, 2)
  await one!.readRange('k', { startBytes: 0, endBytes: 4 }, signal)
  simulator.failNext('ListObjectsV2', { kind: 'refuse', status: 503, code: 'SlowDown' })
  await keysOf(two!.list('', undefined, signal))
  t.match(one!.loadFacts, { throttledCounts: { read: 2, list: 1 }, waitingCount: 0, underWayCount: 0 })
  t.match(two!.loadFacts, { throttledCounts: { read: 2, list: 1 } })
})

t.test('a store that throttles is worked through', async t => {
  const { store } = await start(t, {}, { requestsPerSecondMax: 40 })
  let refused = 0
  for (let index = 0; index < 60; index++) {
    for (;;) {
      const failure = await failureOf(store.create(`k/${index}`, Buffer.from('x'), signal))
      if (failure === undefined) break
      t.equal(failure.details['errorCode'], 'SlowDown')
      refused++
      await systemClock.sleep(50, signal)
    }
  }
  t.ok(refused > 0, 'it did throttle')
  t.match(store.loadFacts, { throttledCounts: { create: refused, read: 0 }, underWayCount: 0, waitingCount: 0 })
})

t.test('what a store puts off is counted by what was asked, and what waits to be asked again is seen', async t => {
  const simulator = await S3Simulator.start()
  t.teardown(() => simulator.close())
  const waits: (() => void)[] = []
  const sleep = (): Promise<void> => new Promise(resolve => waits.push(resolve))
  const store = await openStore(configOf(simulator.endpoint), { credentials, clock: { ...systemClock, sleep } })
  t.teardown(() => store.close())
  await store.create('k', Buffer.from('body'), signal)
  simulator.failNext('GetObject', { kind: 'refuse', status: 503, code: 'SlowDown' })
  simulator.failNext('ListObjectsV2', { kind: 'refuse', status: 500, code: 'InternalError' })
  const before = Date.now() * 1000
  const work = [store.readRange('k', { startBytes: 0, endBytes: 4 }, signal), keysOf(store.list('', undefined, signal))]
  while (waits.length < 2) await new Promise(resolve => setImmediate(resolve))
  t.match(store.loadFacts, { waitingCount: 2, underWayCount: 0, throttledCounts: { read: 1, list: 0, create: 0 } })
  t.ok((store.loadFacts?.throttledAtMicros ?? 0) >= before, 'an error of the server is no throttling')
  for (const wake of waits) wake()
  await Promise.all(work)
  t.match(store.loadFacts, { waitingCount: 0, underWayCount: 0 })
  t.ok((store.loadFacts?.backedOffMillis ?? 0) > 0)
})

t.test('empty pages do not end a listing, and pages of any size make one', async t => {
  const { store, simulator } = await start(t, {}, { pageKeysMax: 3 })
  const keys = Array.from({ length: 20 }, (_, index) => `k/${String(index).padStart(2, '0')}`)
  for (const key of keys) await store.create(key, Buffer.from('x'), signal)
  simulator.failNext('ListObjectsV2', { kind: 'empty-page' }, 3)
  t.strictSame(await keysOf(store.list('', undefined, signal)), keys)
  simulator.failNext('ListObjectsV2', { kind: 'empty-page' }, 2)
  t.strictSame(await keysOf(store.list('k/', 'k/11', signal)), keys.slice(12))
})

t.test('a bucket that does not list in byte order is refused', async t => {
  const { store, simulator } = await start(t)
  await store.create('a', Buffer.from('x'), signal)
  await store.create('b', Buffer.from('x'), signal)
  simulator.failNext('ListObjectsV2', { kind: 'shuffle-page' })
  await failsWith(t, 'CONFIG_INVALID', keysOf(store.list('', undefined, signal)), 'b before a')
})

t.test('what will not pass by itself is final, in words', async t => {
  const { store, simulator } = await start(t)
  const refuse = (status: number, code: string): Fault => ({ kind: 'refuse', status, code })
  for (const fault of [
    refuse(403, 'AccessDenied'),
    refuse(400, 'InvalidArgument'),
    refuse(400, 'AuthorizationHeaderMalformed'),
    refuse(501, 'NotImplemented'),
  ]) {
    simulator.failNext('PutObject', fault)
    simulator.failNext('GetObject', fault)
    const named = JSON.stringify(fault)
    await failsWith(t, 'CONFIG_INVALID', store.create('k', Buffer.from('x'), signal), named)
    await failsWith(t, 'CONFIG_INVALID', store.readRange('k', { startBytes: 0, endBytes: 1 }, signal), named)
  }
  t.equal(simulator.requestCounts.GetObject, 4, 'and is not tried again')
  const elsewhere = await openStore(configOf(simulator.endpoint, { bucket: 'no-such' }), { credentials, clock })
  await failsWith(t, 'CONFIG_INVALID', elsewhere.create('k', Buffer.from('x'), signal), 'no such bucket')
  await failsWith(t, 'CONFIG_INVALID', elsewhere.readRange('k', { startBytes: 0, endBytes: 1 }, signal), 'no bucket')
  await elsewhere.close()
  const stranger = { accessKeyId: 'stranger', secretAccessKey: 'secret' }
  const refused = await openStore(configOf(simulator.endpoint), { credentials: stranger, clock })
  await failsWith(t, 'CONFIG_INVALID', refused.create('k', Buffer.from('x'), signal), 'an unknown key')
  await refused.close()
})

t.test('an abort ends a request that hangs, and so does closing', async t => {
  const { store, simulator } = await start(t)
  await store.create('k', randomBytes(100_000), signal)
  const hang: Fault = { kind: 'hang' }
  const works: readonly [() => void, (signal: AbortSignal) => Promise<unknown>][] = [
    [() => simulator.failNext('PutObject', hang), signal => store.create('k2', Buffer.from('x'), signal)],
    [
      () => simulator.failNext('GetObject', hang),
      signal => store.readRange('k', { startBytes: 0, endBytes: 1 }, signal),
    ],
    [() => simulator.failNext('ListObjectsV2', hang), signal => keysOf(store.list('', undefined, signal))],
    [() => simulator.failNext('DeleteObject', hang), signal => store.remove('k', signal)],
    [
      () => simulator.failNext('GetObject', { kind: 'stall-body', sentBytes: 1000 }),
      signal => store.readRange('k', { startBytes: 0, endBytes: 100_000 }, signal),
    ],
  ]
  for (const [plan, work] of works) {
    const aborter = new AbortController()
    plan()
    const arrived = simulator.nextRequest()
    const working = work(aborter.signal)
    await arrived
    aborter.abort(new Error('stop'))
    await t.rejects(working, { message: 'stop' })
  }
  simulator.failNext('GetObject', hang)
  const arrived = simulator.nextRequest()
  const reading = store.readRange('k', { startBytes: 0, endBytes: 1 }, signal)
  await arrived
  await Promise.all([failsWith(t, 'CLOSING', reading, 'a read under way'), store.close()])
})

t.test('no socket is lost to answers that were not read to their end', async t => {
  const { store, simulator } = await start(t, { requestTimeoutMillis: 5_000 })
  await store.create('k', randomBytes(3_000_000), signal)
  for (let index = 0; index < 100; index++) {
    const read = store.readRange('k', { startBytes: 0, endBytes: 3_000_001 }, signal)
    await failsWith(t, 'OBJECT_CORRUPT', read, 'past the end')
  }
  t.ok((await simulator.connectionCount()) < 64, 'connections')
  t.equal((await store.readRange('k', { startBytes: 0, endBytes: 3_000_000 }, signal)).length, 3_000_000)
})
