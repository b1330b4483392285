import t, { type Test } from 'tap'
import type { AgingNotices } from '../../src/aging/service.ts'
import { Failure } from '../../src/base/failure.ts'
import { AgingModel } from '../support/aging-model.ts'
import { BucketStore } from '../support/bucket-store.ts'
import { SimulatedBucket } from '../support/s3-sim-bucket.ts'
import { randomFrom } from '../support/segment-records.ts'

// A VPG in a bucket with Object Lock. Invariants:
//   whatever the newest manifest needs is locked for the history's length from any moment on, however long it is needed;
//   what left is removed as without locks, and its bytes stay until its lock is over, no longer;
//   nobody who ages knows the difference: no failure, no damage, nothing that is tried for ever.

const dayMillis = 24 * 3_600_000
const historyMillis = 2 * dayMillis

interface Site {
  readonly model: AgingModel
  readonly bucket: SimulatedBucket
  readonly store: BucketStore
  readonly restart: (changes?: Partial<AgingModel['config']>) => Promise<void>
}

async function lockedSite(t: Test): Promise<Site> {
  const model = new AgingModel(randomFrom(11), t.testdir(), historyMillis)
  const nowMillis = (): number => model.clock.timestampMicros() / 1000
  const bucket = new SimulatedBucket('memory', { isVersioned: true })
  const store = new BucketStore(bucket, nowMillis)
  model.images = store
  t.teardown(() => model.worker.close())
  const restart: Site['restart'] = async changes => {
    await model.worker.close()
    await model.restart(undefined, { ...model.config, ...changes }, { openStore: async () => store })
  }
  await restart()
  await model.worker.createVpg(model.definition)
  return { model, bucket, store, restart }
}

async function write(model: AgingModel): Promise<void> {
  for (let index = 0; index < 40; index++) {
    model.write(1, 8)
    if (index % 10 === 0) model.checkpoint()
  }
  await model.age()
}

async function renew({ worker }: AgingModel): Promise<number> {
  let steps = 0
  while (await worker.lockStep()) steps++
  return steps
}

/** Of all that can be seen and is no garbage: how long it is locked from now on. */
async function shortestLockMillis({ model, bucket }: Site): Promise<number> {
  const plan = await model.open(model.checkpoints.at(-1)!)
  const { state } = plan
  const garbage = new Set(state.garbage.map(({ key }) => key))
  const keys = bucket.keysAfter('', '', Infinity).filter(key => !garbage.has(key))
  const ends = keys.map(key => bucket.versions(key).at(-1)?.retention?.untilMillis ?? 0)
  await model.close(plan)
  return Math.min(...ends) - model.clock.timestampMicros() / 1000
}

t.test('what is needed stays locked for the history, day after day, and what is not runs out', async t => {
  const site = await lockedSite(t)
  const { model, bucket, store } = site
  await write(model)
  t.ok((await renew(model)) > 0, 'a new VPG is locked by the first renewal')
  t.equal(await renew(model), 0, 'and then nothing is due')
  for (let day = 0; day < 8; day++) {
    model.clock.advance(dayMillis)
    await renew(model)
    if (day === 4) await write(model)
    t.ok((await shortestLockMillis(site)) >= historyMillis, `on day ${day}`)
    const { locks } = await model.worker.status({ vpg: model.vpg })
    t.ok((locks?.lockedUntilMicros ?? 0) >= model.clock.timestampMicros() + historyMillis * 1000, 'and it is told')
    bucket.expireVersions(model.clock.timestampMicros() / 1000)
  }
  const requests = store.extendedCount
  model.clock.advance(dayMillis / 2)
  await renew(model)
  t.equal(store.extendedCount, requests, 'at most once a day')
  const plan = await model.open(model.checkpoints.at(-1)!)
  t.equal(await model.difference(plan), undefined, 'and all of it can be read')
})

t.test('garbage is removed as without locks, and its bytes stay until their lock is over', async t => {
  const { model, bucket } = await lockedSite(t)
  for (let round = 0; round < 4; round++) await write(model)
  model.clock.advance(2 * model.config.garbageGraceMillis)
  await model.age()
  const removed = model.notices.filter(({ name }) => name === 'garbageRemoved')
  t.ok(removed.length > 0, 'garbage was removed')
  const hidden = bucket.versionCount - bucket.objectCount
  t.ok(hidden > 0, 'and is still there')
  bucket.expireVersions(model.clock.timestampMicros() / 1000)
  t.equal(bucket.versionCount - bucket.objectCount, hidden, 'whatever the bucket’s rules say')
  const versions = bucket.versionCount
  for (let round = 0; round < 5; round++) await model.age()
  t.equal(bucket.versionCount, versions, 'nobody goes on about it')
  model.clock.advance(2 * historyMillis + 3 * dayMillis)
  bucket.expireVersions(model.clock.timestampMicros() / 1000)
  t.equal(bucket.versionCount, bucket.objectCount, 'then it is gone')
  t.notOk(model.notices.some(({ name }) => name === 'storeFailing' || name === 'damageFound'))
})

t.test('a restart asks the store how far locks reach; who takes over renews them all', async t => {
  const { model, store, restart } = await lockedSite(t)
  await write(model)
  await renew(model)
  const requests = store.extendedCount
  await restart()
  t.equal(await renew(model), 1, 'the question alone')
  t.equal(store.extendedCount, requests)
  const { locks } = await model.worker.status({ vpg: model.vpg })
  t.ok((locks?.lockedUntilMicros ?? 0) > model.clock.timestampMicros())
  await restart({ applianceId: 'appliance-two', adopt: true })
  await renew(model)
  t.ok(store.extendedCount > requests)
})

t.test('a longer history locks for longer at once', async t => {
  const site = await lockedSite(t)
  const { model } = site
  await write(model)
  await renew(model)
  const definition = await model.worker.changeVpg({ vpg: model.vpg, historyMillis: 30 * dayMillis })
  t.equal(definition.historyMillis, 30 * dayMillis)
  await renew(model)
  t.ok((await shortestLockMillis(site)) >= 30 * dayMillis)
})

t.test('a role that may not lock any more is told of, and an object that is missing, too', async t => {
  const { model, bucket, store } = await lockedSite(t)
  await write(model)
  store.extendFailures.push(new Failure('CONFIG_INVALID', 'the bucket refuses us (AccessDenied)'))
  await renew(model)
  const { locks } = await model.worker.status({ vpg: model.vpg })
  t.match(locks?.failure, /AccessDenied/)
  t.equal(await renew(model), 0, 'it is not tried again at once')
  model.clock.advance(300_000)
  store.extendFailures.push(new Failure('OBJECT_CORRUPT', 'a page of the manifest is damaged'))
  await renew(model)
  t.match(
    (await model.worker.status({ vpg: model.vpg })).locks?.failure,
    /page/,
    'nor is damage of one VPG the others’ end',
  )
  model.clock.advance(300_000)
  const base = bucket.keysAfter(`${model.vpg}/commit/`, '', Infinity).at(-1) ?? ''
  await bucket.remove(base)
  await renew(model)
  t.equal((await model.worker.status({ vpg: model.vpg })).locks?.failure, undefined)
  const told = model.notices.filter(({ name }) => name === 'damageFound')
  t.match((told[0]?.notice as AgingNotices['damageFound'] | undefined)?.sentence, `${base}: it is missing`)
})
