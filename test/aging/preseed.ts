import * as fs from 'node:fs'
import * as path from 'node:path'
import t, { type Test } from 'tap'
import { MiB } from '../../src/base/units.ts'
import { Failure, failedWith } from '../../src/base/failure.ts'
import { AgingModel, volumeSizeBytes } from '../support/aging-model.ts'
import { randomFrom } from '../support/segment-records.ts'

// An image that is handed over lies below everything: whatever is written, and whenever, every checkpoint's image shows the writes over it.

async function running(t: Test, seed: number, sizeBytes = volumeSizeBytes) {
  const directory = t.testdir()
  const model = new AgingModel(randomFrom(seed), directory, 60_000)
  await model.worker.open(model.config)
  await model.worker.follow({ durable: model.log.mark })
  const volumes = model.definition.volumes.map(volume => ({ ...volume, sizeBytes }))
  await model.worker.createVpg({ ...model.definition, volumes })
  return { model, file: path.join(directory, 'disk1.img') }
}

const regionCount = 3

async function preseedFrom(model: AgingModel, firstRegion: number): Promise<void> {
  const { vpg } = model
  for (let region = firstRegion; region < regionCount; region++)
    await model.worker.preseedRegion({ vpg, volume: 1, region })
  await model.worker.endPreseed({ vpg, volume: 1 })
}

t.test('an image lies below every write, through folds, rewrites and restarts', async t => {
  const { model, file } = await running(t, 71)
  model.writeImage(file, 1, 900)
  const begun = await model.worker.beginPreseed({ vpg: model.vpg, volume: 1, file })
  t.match(begun.volumes[0]?.preseed, { state: 'under-way', file, doneRegionCount: 0 })
  // The other volume of the group is written meanwhile, and may have checkpoints.
  model.write(2, 8)
  await preseedFrom(model, 0)
  const { plan, sectors } = await model.openNewest()
  t.equal(await model.difference(plan, sectors), undefined, 'as soon as it was read')
  await model.close(plan)
  const made = []
  for (let round = 0; round < 40; round++) {
    model.write(round % 3 === 0 ? 2 : 1, 12)
    made.push(model.checkpoint())
    if (round % 8 === 0) await model.age()
    if (round === 20) await model.restart()
  }
  await model.age()
  for (const checkpoint of made.slice(-10)) {
    const image = await model.open(checkpoint)
    t.equal(await model.difference(image), undefined, `checkpoint ${checkpoint.checkpoint.ordinal}`)
    await model.close(image)
  }
  t.ok((await model.worker.status({ vpg: model.vpg })).deltaCount > 0, 'it was folded')
})

t.test('a process that dies at any call of the store goes on with the image where it was', async t => {
  let operation = 0
  for (let hasDied = true; hasDied; operation++) {
    const { model, file } = await running(t, 72)
    model.writeImage(file, 1, 300)
    await model.worker.beginPreseed({ vpg: model.vpg, volume: 1, file })
    const from = model.store.operationCount
    hasDied = false
    await model.restart((at, _key) => {
      if (at !== from + operation) return 'works'
      hasDied = true
      return operation % 2 === 0 ? 'dies-before' : 'dies-after'
    })
    await preseedFrom(model, 0).catch((error: unknown) => {
      if (!failedWith(error, 'CLOSING')) throw error
    })
    await model.restart()
    const resumed = await model.worker.beginPreseed({ vpg: model.vpg, volume: 1, file })
    const done = resumed.volumes[0]?.preseed?.doneRegionCount ?? 0
    await preseedFrom(model, done)
    const { plan, sectors } = await model.openNewest()
    const difference = await model.difference(plan, sectors)
    if (difference !== undefined) t.fail(`died at operation ${operation}: ${difference}`)
    await model.age()
    model.clock.advance(120_000)
    await model.close(plan)
    await model.age()
    t.ok(
      [...model.memory.objects.keys()].filter(key => key.includes('/base/')).length <= regionCount,
      'nothing is left over',
    )
  }
  t.ok(operation > 6, `${operation} operations`)
})

t.test('the pack of a region is no orphan of a former process while it is being committed', async t => {
  const { model, file } = await running(t, 75)
  model.writeImage(file, 1, 300)
  await model.worker.beginPreseed({ vpg: model.vpg, volume: 1, file })
  await model.restart()
  const { worker, store } = model
  let created = (): void => undefined
  let goOn = (): void => undefined
  const isCreated = new Promise<void>(resolve => (created = resolve))
  const mayGoOn = new Promise<void>(resolve => (goOn = resolve))
  const create = store.create.bind(store)
  store.create = async (key, body) => {
    await create(key, body)
    if (!key.includes('/base/')) return
    created()
    await mayGoOn
  }
  const seeding = worker.preseedRegion({ vpg: model.vpg, volume: 1, region: 0 })
  await isCreated
  // The first step after a start looks for what its former process has left.
  let isOver = false
  const stepping = worker.step().then(() => (isOver = true))
  for (let turn = 0; turn < 1000 && !isOver; turn++) await new Promise(resolve => setImmediate(resolve))
  goOn()
  await Promise.all([seeding, stepping])
  const { plan } = await model.openNewest()
  const garbage = new Set(plan.state.garbage.map(({ key }) => key))
  const live = plan.state.regions.flatMap(({ pack }) => pack?.object.key ?? [])
  t.equal(live.length, 1)
  t.same(
    live.filter(key => garbage.has(key)),
    [],
  )
})

t.test('what a commit may name that was not seen to count stays in the store', async t => {
  const { model, file } = await running(t, 77)
  const { vpg } = model
  model.writeImage(file, 1, 300)
  await model.worker.beginPreseed({ vpg, volume: 1, file })
  const { store, worker } = model
  let isRegionCommitted = false
  const create = store.create.bind(store)
  const list = store.list.bind(store)
  store.create = async (key, body) => {
    await create(key, body)
    isRegionCommitted = key.includes('/commit/')
  }
  // Taken; what would show that it counts is answered by something that is no store.
  store.list = (prefix, after) => {
    if (isRegionCommitted) throw new Failure('NOT_FOUND', 'there is no such page')
    return list(prefix, after)
  }
  await t.rejects(worker.preseedRegion({ vpg, volume: 1, region: 0 }), { code: 'NOT_FOUND' })
  t.ok(isRegionCommitted)
  await model.restart()
  const resumed = await model.worker.beginPreseed({ vpg, volume: 1, file })
  t.equal(resumed.volumes[0]?.preseed?.doneRegionCount, 1, 'it did count')
  await preseedFrom(model, 1)
  const { plan, sectors } = await model.openNewest()
  t.equal(await model.difference(plan, sectors), undefined)
})

t.test('another image takes the place of one that was begun, region by region', async t => {
  const { model, file } = await running(t, 73)
  fs.writeFileSync(file, Buffer.alloc(8 * MiB, 1))
  fs.truncateSync(file, volumeSizeBytes)
  await model.worker.beginPreseed({ vpg: model.vpg, volume: 1, file })
  await model.worker.preseedRegion({ vpg: model.vpg, volume: 1, region: 0 })
  const right = `${file}.right`
  model.writeImage(right, 1, 200)
  const begun = await model.worker.beginPreseed({ vpg: model.vpg, volume: 1, file: right })
  t.equal(begun.volumes[0]?.preseed?.doneRegionCount, 0)
  await preseedFrom(model, 0)
  const { plan, sectors } = await model.openNewest()
  t.equal(await model.difference(plan, sectors), undefined)
})

t.test('what cannot be meant is refused by name, and leaves nothing', async t => {
  const { model, file } = await running(t, 74)
  const { vpg, worker } = model
  await t.rejects(worker.beginPreseed({ vpg, volume: 1, file }), { code: 'CONFIG_INVALID', message: /disk1.img/ })
  fs.writeFileSync(file, '')
  fs.truncateSync(file, 5 * MiB)
  await t.rejects(worker.beginPreseed({ vpg, volume: 1, file }), {
    code: 'REQUEST_INVALID',
    message: /disk1.img has 5242880 bytes \(5 MiB\), the volume "disk1" has 335544320 bytes \(320 MiB\)/,
  })
  fs.truncateSync(file, volumeSizeBytes)
  await t.rejects(worker.beginPreseed({ vpg, volume: 9, file }), { code: 'UNKNOWN_VOLUME' })
  await worker.beginPreseed({ vpg, volume: 1, file })
  await t.rejects(worker.noteCompared({ vpg, volume: 1 }), { code: 'BUSY' }, 'nothing is compared meanwhile')
  fs.writeFileSync(file, Buffer.alloc(512, 1), { flag: 'r+' })
  fs.utimesSync(file, 1, 1)
  await t.rejects(worker.preseedRegion({ vpg, volume: 1, region: 0 }), { message: /changed while it was read/ })
  await worker.endPreseed({ vpg, volume: 1 })
  await t.rejects(worker.preseedRegion({ vpg, volume: 1, region: 0 }), { code: 'CLOSING' })
  t.equal(await worker.noteCompared({ vpg, volume: 1 }), true)
  t.equal(await worker.noteCompared({ vpg, volume: 1 }), false, 'known already')
  await t.rejects(worker.beginPreseed({ vpg, volume: 1, file }), { code: 'REQUEST_INVALID', message: /compared/ })
  await model.restart()
  const again = model.worker.beginPreseed({ vpg, volume: 1, file })
  await t.rejects(again, { message: /compared/ }, 'a restart knows it as well')
})

t.test('the end of an image that is not whole pages is taken as well', async t => {
  const [endBytes, sectorBytes] = [volumeSizeBytes + 5 * 512, 512]
  const { model, file } = await running(t, 76, endBytes)
  fs.writeFileSync(file, '')
  fs.truncateSync(file, endBytes)
  const image = fs.openSync(file, 'r+')
  const data = Buffer.alloc(3 * 4096 + 5 * sectorBytes, 7)
  fs.writeSync(image, data, 0, data.length, endBytes - data.length)
  fs.closeSync(image)
  await model.worker.beginPreseed({ vpg: model.vpg, volume: 1, file })
  const last = await model.worker.preseedRegion({ vpg: model.vpg, volume: 1, region: regionCount - 1 })
  t.equal(last.dataBytes, data.length)
})
