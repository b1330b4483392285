import * as fs from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { Failure } from '../../src/base/failure.ts'
import { decodeCheckpoints } from '../../src/manifest/manifest.ts'
import { MirrorWorker } from '../../src/aging/mirror-worker.ts'
import type { AgingConfig, AgingNotices } from '../../src/aging/service.ts'
import { AgingModel } from '../support/aging-model.ts'
import { randomFrom } from '../support/segment-records.ts'

// What is remembered of VPGs beside the store. Invariants: a start without the store has the VPGs as their last commits left them; a store
// that has less than was seen of it is named and nothing is committed to it.

function damage(model: AgingModel): string {
  return told(model, 'damageFound')
    .map(({ sentence }) => sentence)
    .join('\n')
}

interface Remembering {
  readonly model: AgingModel
  readonly config: AgingConfig
}

async function remembering(t: { testdir(): string }, seed: number): Promise<Remembering> {
  const directory = t.testdir()
  const model = new AgingModel(randomFrom(seed), directory, 60_000)
  const config = { ...model.config, memoDirectory: path.join(directory, 'vpgs') }
  await model.restart(undefined, config)
  await model.worker.createVpg(model.definition)
  return { model, config }
}

async function commitSomething({ model }: Remembering): Promise<void> {
  model.write(1, 4)
  model.checkpoint()
  model.worker.durable(model.log.mark)
  await model.worker.readTail()
  await model.worker.seal({ vpg: model.vpg })
}

function told<K extends keyof AgingNotices>(model: AgingModel, name: K): AgingNotices[K][] {
  return model.notices.filter(notice => notice.name === name).map(({ notice }) => notice as AgingNotices[K])
}

/** A worker whose store fails so many times before it opens. */
function without(site: Remembering, failures: number, code: 'STORE_UNAVAILABLE' | 'CONFIG_INVALID'): MirrorWorker {
  const { model } = site
  model.store.isDead = true
  let left = failures
  return new MirrorWorker(model.clock, (name, notice) => void model.notices.push({ name, notice }), {
    openStore: async () => {
      if (left-- > 0) throw new Failure(code, 'as planned')
      return model.memory
    },
    openLog: () => model.log.reader(),
  })
}

t.test(
  'a start without the store has what was committed last, and takes over what the store says when it answers',
  async t => {
    const site = await remembering(t, 1)
    const { model, config } = site
    await commitSomething(site)
    await model.worker.tag({ vpg: model.vpg, ordinal: model.checkpoints[0]!.checkpoint.ordinal, name: 'kept' })
    for (const code of ['STORE_UNAVAILABLE', 'CONFIG_INVALID'] as const) {
      model.notices.length = 0
      const worker = without(site, 8, code)
      const { vpgs, isStoreAway } = await worker.open(config)
      t.ok(isStoreAway)
      const [found] = vpgs
      t.strictSame(found?.definition, model.definition)
      t.strictSame(found?.offloaded, told(model, 'segmentCommitted').at(-1)?.offloaded ?? found?.offloaded)
      t.strictSame(
        found?.tags.map(({ name }) => name),
        ['kept'],
      )
      const [newest] = decodeCheckpoints('', found?.checkpointPage ?? new Uint8Array(0))
      t.strictSame(newest, model.checkpoints.at(-1)?.checkpoint)
      await t.rejects(worker.status({ vpg: model.vpg }), { code: 'STORE_UNAVAILABLE', message: /as planned/ })
      await worker.start({ durable: model.log.mark })
      while (told(model, 'storeOpened').length === 0) await new Promise(resolve => setImmediate(resolve))
      t.strictSame(told(model, 'storeOpened')[0]?.vpgs[0]?.offloaded, found?.offloaded)
      t.equal(told(model, 'storeAway').length, 1, 'told once while it says the same')
      t.ok(await worker.status({ vpg: model.vpg }))
      await worker.close()
    }
  },
)

t.test('a store that refuses a new appliance is told at the start', async t => {
  const directory = t.testdir()
  const model = new AgingModel(randomFrom(2), directory, 60_000)
  const config = { ...model.config, memoDirectory: path.join(directory, 'vpgs') }
  await t.rejects(without({ model, config }, 1, 'CONFIG_INVALID').open(config), { code: 'CONFIG_INVALID' })
})

t.test('an older copy of the store is named and not gone on from', async t => {
  const site = await remembering(t, 3)
  const { model, config } = site
  await commitSomething(site)
  const older = new Map([...model.memory.objects].map(([key, body]) => [key, Uint8Array.from(body)]))
  await commitSomething(site)
  model.memory.objects.clear()
  for (const [key, body] of older) model.memory.objects.set(key, body)
  await model.restart(undefined, config)
  t.match(damage(model), /shows commit 2 .* has seen commit 3: an older copy/)
  await t.rejects(model.worker.status({ vpg: model.vpg }), { code: 'UNKNOWN_VPG' })
  await model.age()
  t.strictSame([...model.memory.objects.keys()], [...older.keys()], 'nothing was written')
})

t.test('nor taken over again, where another appliance owned it then', async t => {
  const site = await remembering(t, 5)
  const { model, config } = site
  await commitSomething(site)
  const older = new Map([...model.memory.objects].map(([key, body]) => [key, Uint8Array.from(body)]))
  const successor = {
    ...config,
    applianceId: 'appliance-two',
    adopt: true,
    memoDirectory: path.join(t.testdirName, 'successor'),
  }
  await model.restart(undefined, successor)
  t.equal(told(model, 'adopted').length, 1)
  model.memory.objects.clear()
  for (const [key, body] of older) model.memory.objects.set(key, body)
  await model.restart(undefined, successor)
  t.match(damage(model), /an older copy/)
  t.equal(told(model, 'adopted').length, 1)
  t.strictSame([...model.memory.objects.keys()], [...older.keys()], 'nothing was written')
})

t.test('a VPG that the store does not show any more is named; one that was deleted is not', async t => {
  const site = await remembering(t, 4)
  const { model, config } = site
  await commitSomething(site)
  const all = new Map(model.memory.objects)
  model.memory.objects.clear()
  await model.restart(undefined, config)
  t.match(damage(model), /does not show VPG "orders".*commit 2: is it the right one/)
  for (const [key, body] of all) model.memory.objects.set(key, body)
  await model.restart(undefined, config)
  await model.worker.deleteVpg({ vpg: model.vpg, isForced: false })
  t.strictSame(fs.readdirSync(path.join(t.testdirName, 'vpgs')), [])
  model.notices.length = 0
  model.memory.objects.clear()
  await model.restart(undefined, config)
  t.notMatch(damage(model), /does not show/)
})

t.test('a VPG that another appliance has taken is not served again, with or without the store', async t => {
  const site = await remembering(t, 5)
  const { model, config } = site
  await commitSomething(site)
  const [taken] = [...model.memory.objects.keys()]
    .filter(key => key.includes('/commit/'))
    .sort()
    .slice(-1)
  model.memory.objects.set(taken!.replace(/2$/, '3'), Uint8Array.from([0]))
  await t.rejects(model.worker.tag({ vpg: model.vpg, ordinal: model.checkpoints[0]!.checkpoint.ordinal, name: 'x' }), {
    code: 'EPOCH_SUPERSEDED',
  })
  const { vpgs } = await without(site, 8, 'STORE_UNAVAILABLE').open(config)
  t.strictSame(vpgs, [])
})

t.test('a memory that is damaged is named, and as good as none', async t => {
  const site = await remembering(t, 6)
  const { model, config } = site
  await commitSomething(site)
  const file = path.join(t.testdirName, 'vpgs', `${model.vpg}.json`)
  const text = fs.readFileSync(file, 'utf8')
  fs.writeFileSync(file, text.replace('"orders"', '"0rders"'))
  await model.restart(undefined, config)
  t.match(damage(model), /cannot be read/)
  t.ok(await model.worker.status({ vpg: model.vpg }))
  await commitSomething(site)
  t.match(fs.readFileSync(file, 'utf8'), /"commitNumber":3/, 'it is written again')
})
