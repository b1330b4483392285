import * as path from 'node:path'
import t from 'tap'
import { Failure } from '../../src/base/failure.ts'
import { vpgId } from '../../src/base/ids.ts'
import { MirrorWorker } from '../../src/aging/mirror-worker.ts'
import type { AgingNotices } from '../../src/aging/service.ts'
import { logFileSizeBytes } from '../../src/base/limits.ts'
import { decodeCheckpoints, loadVpg } from '../../src/manifest/manifest.ts'
import { AgingModel } from '../support/aging-model.ts'
import { randomFrom } from '../support/segment-records.ts'

// Orders of events in which an image could be wrong, or a VPG stop, without anybody being told.

const never = new AbortController().signal

async function running(t: { testdir(): string }, seed: number, historyMillis = 60_000): Promise<AgingModel> {
  const model = new AgingModel(randomFrom(seed), t.testdir(), historyMillis)
  await model.worker.open(model.config)
  await model.worker.follow({ durable: model.log.mark })
  await model.worker.createVpg(model.definition)
  return model
}

function told<K extends keyof AgingNotices>(model: AgingModel, name: K): AgingNotices[K][] {
  return model.notices.filter(notice => notice.name === name).map(({ notice }) => notice as AgingNotices[K])
}

async function readLog(model: AgingModel): Promise<void> {
  model.worker.durable(model.log.mark)
  await model.worker.readTail()
}

t.test('a record that rots before it is sealed withdraws every checkpoint that should hold it', async t => {
  const model = await running(t, 1)
  model.write(1, 4)
  const good = model.checkpoint()
  model.write(1, 4)
  const rotten = model.log.records().at(-1)
  const bad = [model.checkpoint()]
  model.write(1, 4)
  bad.push(model.checkpoint())
  await readLog(model)
  model.log.rotten.add(`${rotten?.header.fileIdentity}/${rotten?.header.offsetBytes}`)
  await model.worker.seal({ vpg: model.vpg })
  t.equal(await model.difference(await model.open(good)), undefined, 'the one before it is whole')
  for (const one of bad) {
    await t.rejects(model.open(one), { code: 'CHECKPOINT_MISSING' }, 'those after it were read before it rotted')
  }
})

t.test('a hole that was found a moment ago withdraws its checkpoints already', async t => {
  const model = await running(t, 2)
  model.write(1, 4)
  const good = model.checkpoint()
  model.writeBad(1)
  const bad = model.checkpoint()
  await t.rejects(model.open(bad), { code: 'CHECKPOINT_MISSING' })
  t.equal(await model.difference(await model.open(good)), undefined)
})

t.test('damage that a fold meets ends the merging of that VPG, not its way from the log to the store', async t => {
  const model = await running(t, 3)
  for (let index = 0; index < 12; index++) model.write(1, 4)
  const first = model.checkpoint()
  await readLog(model)
  await model.worker.seal({ vpg: model.vpg })
  const [segment] = told(model, 'segmentCommitted')
  const body = model.memory.objects.get(segment?.segment.object.key ?? '')
  t.ok(body)
  body?.fill(0xee, 300, 400)
  for (let index = 0; index < 60; index++) model.write(2, 6)
  model.checkpoint()
  await model.age().catch(() => undefined)
  t.match(told(model, 'damageFound')[0]?.sentence, /not (folded|merged)|aged/)
  const freedBefore = told(model, 'logFileFree').length
  for (let index = 0; index < 60; index++) model.write(2, 6)
  const last = model.checkpoint()
  await readLog(model)
  await model.worker.seal({ vpg: model.vpg })
  t.ok(told(model, 'logFileFree').length > freedBefore, 'one damaged object must not fill the log of all VPGs')
  await model.worker.tag({ vpg: model.vpg, ordinal: last.checkpoint.ordinal, name: 'still decided' })
  await t.rejects(async () => model.difference(await model.open(first)), { code: 'OBJECT_CORRUPT' }, 'never served')
  t.equal(told(model, 'damageFound').length, 1, 'told once')
})

t.test('a store that refuses for a while, as one whose permissions are mended, is waited for', async t => {
  const model = await running(t, 4)
  model.write(1, 4)
  model.checkpoint()
  await readLog(model)
  const create = model.memory.create.bind(model.memory)
  let refusals = 3
  model.memory.create = async (key, body) => {
    if (refusals-- > 0) throw new Failure('CONFIG_INVALID', 'the bucket refuses us')
    await create(key, body)
  }
  await model.worker.seal({ vpg: model.vpg })
  t.equal(told(model, 'segmentCommitted').length, 1)
  t.match(told(model, 'storeFailing')[0]?.sentence, /refuses us/)
  t.equal(told(model, 'storeRecovered').length, 1)
  await model.worker.changeVpg({ vpg: model.vpg, historyMillis: 90_000 })
})

t.test('a VPG whose only manifest lost its first bytes is named, and not taken for one that never was', async t => {
  const model = await running(t, 5)
  const other = vpgId('d'.repeat(32))
  await model.worker.createVpg({ ...model.definition, id: other, name: 'other' })
  model.write(1, 4)
  model.checkpoint()
  await readLog(model)
  await model.worker.seal({ vpg: model.vpg })
  const key = [...model.memory.objects.keys()].filter(each => each.startsWith(`${model.vpg}/commit/`)).sort()[0] ?? ''
  const body = model.memory.objects.get(key)
  if (body !== undefined) body[0] = (body[0] ?? 0) ^ 1
  await model.restart()
  t.match(told(model, 'damageFound')[0]?.sentence, /manifest/)
  t.ok(model.memory.objects.has(`vpg/${model.vpg}`), 'it can still be found')
  t.ok(await model.worker.status({ vpg: other }))
})

t.test('another appliance’s VPG that is being created is left alone', async t => {
  const model = await running(t, 6)
  const theirs = new AgingModel(randomFrom(7), t.testdir(), 60_000, vpgId('e'.repeat(32)))
  theirs.store.isDead = true
  const config = { ...theirs.config, applianceId: 'appliance-two' }
  const registry = `vpg/${theirs.vpg}`
  const isBegun = (): boolean => theirs.memory.objects.has(registry)
  await theirs.restart(() => (isBegun() ? 'dies-before' : 'works'), config)
  await theirs.worker.createVpg(theirs.definition).catch(() => undefined)
  const body = theirs.memory.objects.get(registry)
  t.ok(body)
  if (body !== undefined) model.memory.objects.set(registry, body)
  await model.restart()
  t.ok(model.memory.objects.has(registry))
})

t.test('wherever the process dies while it removes a deleted VPG, the next one ends it', async t => {
  let died = true
  for (let dying = 0; died; dying += dying < 12 ? 2 : 7) {
    const model = await running(t, 8)
    for (let index = 0; index < 60; index++) {
      model.write(1, 1)
      await readLog(model)
      await model.worker.seal({ vpg: model.vpg })
    }
    await model.worker.deleteVpg({ vpg: model.vpg, isForced: false })
    const pages = [...model.memory.objects.keys()].filter(key => key.includes('/page/'))
    if (dying === 0) t.ok(pages.length > 0, 'its last manifest has pages')
    for (const file of [...model.log.files.keys()]) model.log.free(file)
    model.clock.advance(100_000)
    died = false
    const fateOf = (operation: number): 'dies-after' | 'works' => {
      died ||= operation === dying
      return operation === dying ? 'dies-after' : 'works'
    }
    await model.restart(fateOf).catch(() => undefined)
    await model.age().catch(() => undefined)
    await model.restart()
    await model.age()
    t.strictSame(told(model, 'damageFound'), [], `died at ${dying}: nothing is taken for damage`)
    t.strictSame([...model.memory.objects.keys()], [], `died at ${dying}: nothing is left`)
  }
})

t.test('an image that was opened after its caller gave up is closed again', async t => {
  const model = await running(t, 9)
  let failing = false
  const expire = impatient(model)
  await model.restart((_, key) => (failing && key.includes('/commit/') ? 'fails-before' : 'works'))
  for (let index = 0; index < 40; index++) model.write(1, 6)
  const wanted = model.checkpoint()
  await readLog(model)
  failing = true
  const opening = model.open(wanted)
  const refused = t.rejects(opening, { code: 'STORE_UNAVAILABLE' })
  while (told(model, 'storeFailing').length === 0) await new Promise(resolve => setImmediate(resolve))
  expire()
  await refused
  failing = false
  await model.worker.seal({ vpg: model.vpg })
  for (let turn = 0; turn < 50; turn++) await new Promise(resolve => setImmediate(resolve))
  const { contents } = await loadVpg(model.memory, model.vpg, 'appliance-one', never)
  t.strictSame(contents.state.pins, [], 'its pin is dropped')
  t.ok(told(model, 'logFileFree').length > 0, 'and the log’s files are free')
})

t.test('a change of the definition that takes effect after its caller gave up is told of', async t => {
  const model = await running(t, 11)
  let failing = false
  const expire = impatient(model)
  await model.restart((_, key) => (failing && key.includes('/commit/') ? 'fails-before' : 'works'))
  failing = true
  const changing = model.worker.changeVpg({ vpg: model.vpg, paused: true })
  const refused = t.rejects(changing, { code: 'STORE_UNAVAILABLE' })
  while (told(model, 'storeFailing').length === 0) await new Promise(resolve => setImmediate(resolve))
  expire()
  await refused
  t.same(told(model, 'redefined'), [], 'it has not taken effect yet')
  failing = false
  while (told(model, 'redefined').length === 0) await new Promise(resolve => setImmediate(resolve))
  t.match(told(model, 'redefined'), [{ vpg: model.vpg, definition: { paused: true } }])
  await model.worker.changeVpg({ vpg: model.vpg, paused: false })
  t.equal(told(model, 'redefined').length, 1, 'who hears it by the answer is not told')
})

t.test('a preseed that begins after its caller gave up is told of, for somebody has to read the image', async t => {
  const model = await running(t, 13)
  let failing = false
  const expire = impatient(model)
  await model.restart((_, key) => (failing && key.includes('/commit/') ? 'fails-before' : 'works'))
  const file = path.join(t.testdir(), 'disk1.img')
  model.writeImage(file, 1, 1)
  failing = true
  const beginning = model.worker.beginPreseed({ vpg: model.vpg, volume: 1, file })
  const refused = t.rejects(beginning, { code: 'STORE_UNAVAILABLE' })
  while (told(model, 'storeFailing').length === 0) await new Promise(resolve => setImmediate(resolve))
  expire()
  await refused
  failing = false
  while (told(model, 'redefined').length === 0) await new Promise(resolve => setImmediate(resolve))
  t.match(told(model, 'redefined'), [{ definition: { volumes: [{ preseed: { state: 'under-way', file } }, {}] } }])
})

t.test('a fold says up to which commit no segment is left', async t => {
  const model = await running(t, 10)
  for (let round = 0; round < 6; round++) {
    for (let index = 0; index < 30; index++) model.write(1 + (index % 2) === 1 ? 1 : 2, 6)
    model.checkpoint()
    await model.age()
  }
  const folds = told(model, 'folded')
  t.ok(folds.length > 1)
  const { contents } = await loadVpg(model.memory, model.vpg, 'appliance-one', never)
  const left = contents.state.segments.map(segment => segment.commitNumber)
  const through = folds.at(-1)?.segmentsThroughCommit ?? 0
  t.ok(through > 0)
  t.ok(
    left.every(number => number > through),
    'none of those that wait is dropped from the index',
  )
  const committed = told(model, 'segmentCommitted').map(({ segment }) => segment.commitNumber)
  const gone = committed.filter(number => number < Math.min(Infinity, ...left) && number <= Math.max(...committed) - 1)
  t.ok(gone.filter(number => number <= through).length > 0, 'and folded ones are')
})

t.test('when too many records wait to be sealed, the oldest are sealed early, and the log is read on', async t => {
  const model = new AgingModel(randomFrom(11), t.testdir(), 60_000)
  await model.restart(undefined, undefined, { unsealedCountMax: 10 })
  await model.worker.createVpg(model.definition)
  for (let index = 0; index < 35; index++) model.write(1, 1)
  const wanted = model.checkpoint()
  await model.age()
  t.equal(await model.difference(await model.open(wanted)), undefined)
})

t.test('a file that only an image holds does not keep others from being sealed early', async t => {
  const model = new AgingModel(randomFrom(12), t.testdir(), 60_000)
  await model.restart(undefined, { ...model.config, logSizeBytesPressure: 2 * logFileSizeBytes })
  await model.worker.createVpg(model.definition)
  model.write(1, 4)
  const plan = await model.open(model.checkpoint())
  await model.worker.seal({ vpg: model.vpg })
  const before = told(model, 'segmentCommitted').length
  for (let file = 0; file < 4; file++) (model.log.nextFile(), model.write(1, 1))
  await model.age()
  t.ok(told(model, 'segmentCommitted').length > before, 'the log is under pressure')
  await model.close(plan)
})

t.test('what a start says of a month of checkpoints is small, and all of them', async t => {
  const model = await running(t, 13, 100_000_000)
  for (let index = 0; index < 1500; index++) model.checkpoint()
  await readLog(model)
  await model.worker.seal({ vpg: model.vpg })
  model.store.isDead = true
  await model.restart()
  const { vpgs } = await new MirrorWorker(model.clock, () => undefined, {
    openStore: async () => model.store,
    openLog: () => model.log.reader(),
  }).open(model.config)
  const page = vpgs[0]?.checkpointPage ?? new Uint8Array(0)
  t.ok(page.length < 40 * 1500, `${page.length} bytes`)
  t.strictSame(
    decodeCheckpoints('', page),
    model.checkpoints.map(({ checkpoint }) => checkpoint),
  )
  const { contents } = await loadVpg(model.memory, model.vpg, 'appliance-one', never)
  t.equal(new Set(contents.recent.map(({ volumes }) => volumes)).size, 1, 'they share their list of volumes')
})

t.test('garbage is removed in company: commits of their own would double what a VPG commits', async t => {
  const model = await running(t, 14)
  for (let minute = 0; minute < 100; minute++) {
    model.clock.advance(1000)
    await model.worker.changeVpg({ vpg: model.vpg, historyMillis: 60_000 + minute })
    await model.age()
  }
  const removals = told(model, 'garbageRemoved')
  t.ok(removals.length > 0)
  t.ok(removals.length < 20, `${removals.length} removals for 100 commits`)
  model.clock.advance(70_000)
  await model.age()
  const { garbageCount } = await model.worker.status({ vpg: model.vpg })
  t.ok(garbageCount < 5, `${garbageCount} are left at rest`)
})

/** The caller's patience ends when what is returned is called, and no sooner. */
function impatient(model: AgingModel): () => void {
  let expire = (): void => undefined
  const sleep = model.clock.sleep.bind(model.clock)
  model.clock.sleep = async (delayMillis, signal) => {
    if (delayMillis <= 15_000) return await sleep(delayMillis, signal)
    await new Promise<void>((resolve, reject) => {
      expire = resolve
      signal.addEventListener('abort', () => reject(new Error('woken')))
    })
  }
  return () => expire()
}
