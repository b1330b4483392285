import * as path from 'node:path'
import t, { type Test } from 'tap'
import type { AgingConfig, AgingNotices } from '../../src/aging/service.ts'
import { MirrorWorker, type WorkerSurroundings } from '../../src/aging/mirror-worker.ts'
import { Failure } from '../../src/base/failure.ts'
import { vpgId } from '../../src/base/ids.ts'
import { MiB } from '../../src/base/units.ts'
import { AgingModel } from '../support/aging-model.ts'
import { FatefulStore, type Fate } from '../support/aging-surroundings.ts'
import { randomFrom } from '../support/segment-records.ts'

// The store does not give the objects of one VPG. Invariants: every other VPG is opened; of this one what is remembered is told; when the store gives it, it has
// all of its records that the log holds by then, and none is lost or taken twice.

const other = vpgId('77'.repeat(16))

async function site(t: Pick<Test, 'testdir'>, seed: number) {
  const directory = t.testdir()
  const model = new AgingModel(randomFrom(seed), directory, 60_000)
  const config = { ...model.config, memoDirectory: path.join(directory, 'vpgs') }
  await model.restart(undefined, config)
  await model.worker.createVpg(model.definition)
  await model.worker.createVpg({ ...model.definition, id: other, name: 'other' })
  for (let count = 0; count < 4; count++) {
    model.write(1, 4)
    model.checkpoint()
  }
  await model.age()
  await model.worker.seal({ vpg: model.vpg })
  const store = { refuses: true }
  const start = (changed: Partial<AgingConfig> = {}, surroundings: WorkerSurroundings = {}) =>
    model.restart(
      (_, key) => (store.refuses && key.includes(model.vpg) ? 'fails-before' : 'works'),
      { ...config, ...changed },
      surroundings,
    )
  return { model, config, start, store }
}

function told<K extends keyof AgingNotices>(model: AgingModel, name: K): AgingNotices[K][] {
  return model.notices.filter(notice => notice.name === name).map(({ notice }) => notice as AgingNotices[K])
}

t.test('one VPG that the store does not give keeps no other from being opened', async t => {
  const { model, start, store } = await site(t, 1)
  const { vpg } = model
  const vpgs = await start()
  t.strictSame(
    vpgs.map(({ definition, rememberedBecause }) => [definition.name, rememberedBecause !== undefined]).sort(),
    [
      ['orders', true],
      ['other', false],
    ],
  )
  t.match(told(model, 'vpgWaits'), [{ vpg, sentence: String, isRefused: true }])
  t.strictSame(told(model, 'storeAway'), [])
  const { ordinal } = model.checkpoints[0]!.checkpoint
  t.match(
    await model.worker.tag({ vpg: other, ordinal, name: 'good' }),
    { name: 'good' },
    'the other one takes changes',
  )
  await t.rejects(model.worker.status({ vpg }), { code: 'STORE_UNAVAILABLE', message: /not given the VPG since/ })

  // Its agents go on: what they send is in the log.
  for (let count = 0; count < 3; count++) {
    model.write(1, 4)
    model.write(2, 4)
    model.checkpoint()
  }
  await model.age()
  t.equal(await model.worker.waitingStep(), false, 'and the store does not give it yet')
  t.equal(told(model, 'vpgWaits').length, 1, 'for the same reason')
  t.strictSame(told(model, 'damageFound'), [], 'its records in the log are no stranger’s')
  store.refuses = false
  model.write(1, 4)
  const last = model.checkpoint()
  t.equal(await model.worker.waitingStep(), true)
  t.match(told(model, 'vpgOpened'), [{ vpg, opened: { definition: { name: 'orders' } } }])
  t.notOk(told(model, 'vpgOpened')[0]?.opened?.rememberedBecause)
  await model.age()
  for (const made of model.checkpoints) t.equal(await model.difference(await model.open(made)), undefined)
  t.strictSame(await model.worker.seal({ vpg }), last.checkpoint.vector)
  t.strictSame(told(model, 'holeFound'), [])
  t.equal(await model.worker.waitingStep(), false, 'nothing waits any more')
})

t.test('one that is not remembered is told of, and served when the store gives it', async t => {
  const { model, start, store } = await site(t, 2)
  const vpgs = await start({ memoDirectory: undefined })
  t.strictSame(
    vpgs.map(({ definition }) => definition.name),
    ['other'],
  )
  t.match(told(model, 'vpgWaits'), [{ vpg: model.vpg }])
  store.refuses = false
  await model.worker.waitingStep()
  t.match(told(model, 'vpgOpened'), [{ vpg: model.vpg, opened: { definition: { name: 'orders' } } }])
  for (const made of model.checkpoints) t.equal(await model.difference(await model.open(made)), undefined)
})

t.test('one that another appliance has taken meanwhile is fenced when the store gives it', async t => {
  const { model, config, start, store } = await site(t, 3)
  await start()
  const { worker } = model
  const notices = model.notices.length
  const own = new AgingModel(randomFrom(4), t.testdir(), 60_000)
  Object.assign(own, { memory: model.memory })
  await own.restart(undefined, { ...config, memoDirectory: undefined, applianceId: 'appliance-two', adopt: true })
  store.refuses = false
  await worker.waitingStep()
  t.match(model.notices.slice(notices), [
    { name: 'fenced', notice: { vpg: model.vpg } },
    { name: 'vpgOpened', notice: { vpg: model.vpg, opened: undefined } },
  ])
})

t.test('one that waits is taken over from whoever had it at the start, not from who took it since', async t => {
  for (const isTakenSince of [false, true]) {
    const { model, config, start, store } = await site(t, 8)
    const { vpg, memory } = model
    await start({ applianceId: 'appliance-three', adopt: true, memoDirectory: undefined })
    const { worker } = model
    const notices = model.notices.length
    const own = new AgingModel(randomFrom(4), t.testdir(), 60_000)
    Object.assign(own, { memory })
    const two = { ...config, memoDirectory: undefined, applianceId: 'appliance-two', adopt: true }
    if (isTakenSince) await own.restart(undefined, two)
    store.refuses = false
    await worker.waitingStep()
    const since = model.notices.slice(notices)
    const adopted = { name: 'adopted', notice: { vpg, from: 'appliance-one' } }
    const refused = { name: 'damageFound', notice: { vpg, sentence: /taken by the appliance appliance-two after/ } }
    const opened = { definition: { name: 'orders' } }
    t.match(since, [
      isTakenSince ? refused : adopted,
      { name: 'vpgOpened', notice: { vpg, opened: isTakenSince ? undefined : opened } },
    ])
  }
})

t.test('where the store was away for the start, who took one meanwhile keeps it', async t => {
  const outcomes = [
    { tookMillis: undefined, isAdopted: true, what: 'nobody did' },
    { tookMillis: 3_600_000, isAdopted: false, what: 'an hour after the start' },
  ]
  for (const { tookMillis, isAdopted, what } of outcomes) {
    const { model, config } = await site(t, 12)
    const { vpg, memory, clock } = model
    const startMillis = clock.monotonicMillis()
    const own = new AgingModel(randomFrom(4), t.testdir(), 60_000)
    Object.assign(own, { memory })
    let isAway = true
    const taken = async (): Promise<void> => {
      if (tookMillis === undefined) return
      own.clock.advance(startMillis + tookMillis - own.clock.monotonicMillis())
      await own.restart(undefined, { ...config, memoDirectory: undefined, applianceId: 'appliance-two', adopt: true })
    }
    const worker = new MirrorWorker(clock, (name, notice) => void model.notices.push({ name, notice }), {
      openStore: async () => new FatefulStore(memory, () => (isAway ? 'fails-before' : 'works')),
      openLog: () => model.log.reader(),
    })
    const memoDirectory = path.join(t.testdir(), 'vpgs')
    const three = { ...config, memoDirectory, applianceId: 'appliance-three', adopt: true }
    const opened = worker.open(three)
    while (!model.notices.some(({ name }) => name === 'storeAway')) await new Promise(resolve => setImmediate(resolve))
    await taken()
    clock.advance(2 * 3_600_000)
    isAway = false
    await opened
    while (!model.notices.some(({ name }) => name === 'storeOpened'))
      await new Promise(resolve => setImmediate(resolve))
    t.equal(
      told(model, 'adopted').some(notice => notice.vpg === vpg),
      isAdopted,
      what,
    )
    t.equal(
      told(model, 'damageFound').some(({ sentence }) => /taken by the appliance appliance-two after/.test(sentence)),
      !isAdopted,
      what,
    )
    await worker.close()
  }
})

t.test('very many that wait are taken over with few looks at what is announced', async t => {
  const { model, start, store } = await site(t, 13)
  let looks = 0
  const many = Array.from({ length: 20 }, (_, index) => vpgId((index + 16).toString(16).repeat(16)))
  for (const id of many) await model.worker.createVpg({ ...model.definition, id, name: id.slice(0, 2) })
  const fateOf = (_: number, key: string): Fate => {
    if (key === 'taken/') looks++
    return store.refuses && many.some(id => key.includes(id)) && !key.startsWith('taken/') ? 'fails-before' : 'works'
  }
  await start()
  await model.restart(fateOf, { ...model.config, applianceId: 'appliance-three', adopt: true })
  looks = 0
  store.refuses = false
  await model.worker.waitingStep()
  t.equal(told(model, 'adopted').filter(({ vpg }) => many.includes(vpg)).length, many.length)
  t.ok(looks > 0 && looks < many.length / 2, `${looks} looks`)
})

t.test('one of this appliance that another one took since the start stays that one’s', async t => {
  const { model, config, start, store } = await site(t, 9)
  await start({ adopt: true })
  const { worker } = model
  const notices = model.notices.length
  const own = new AgingModel(randomFrom(4), t.testdir(), 60_000)
  Object.assign(own, { memory: model.memory })
  await own.restart(undefined, { ...config, memoDirectory: undefined, applianceId: 'appliance-two', adopt: true })
  store.refuses = false
  await worker.waitingStep()
  t.match(model.notices.slice(notices), [
    { name: 'fenced', notice: { vpg: model.vpg } },
    { name: 'vpgOpened', notice: { vpg: model.vpg, opened: undefined } },
  ])
})

t.test(
  'what waits in the log is read in slices, by a reader of its own, and no more of it than memory has room for',
  async t => {
    const { model, start, store } = await site(t, 10)
    const { vpg } = model
    let openCount = 0
    const openLog = () => {
      const reader = model.log.reader()
      openCount++
      const close = reader.close.bind(reader)
      return Object.assign(reader, {
        close: () => {
          openCount--
          close()
        },
      })
    }
    await start({}, { unsealedCountMax: 60, openLog })
    const before = openCount
    for (let count = 0; count < 40; count++) {
      for (let each = 0; each < 4; each++) model.write(1, 4)
      model.checkpoint()
    }
    const recordCount = model.log.records().length
    await model.age()
    store.refuses = false
    const { worker } = model
    await worker.waitingStep()
    t.ok((await worker.status({ vpg })).commitNumber > 0, 'it is served before that')
    const order: string[] = []
    const read = (async () => {
      while (await worker.catchUpStep());
      order.push('all that there is room for')
    })()
    await worker.readTail()
    order.push('the tail of the others')
    await read
    t.strictSame(order, ['the tail of the others', 'all that there is room for'])
    const { unsealedRecordCount } = await worker.queues()
    t.ok(unsealedRecordCount > 0 && unsealedRecordCount < recordCount / 2)
    t.equal(openCount, before + 1)
    await t.rejects(model.open(model.checkpoints.at(-1)!), { code: 'STORE_UNAVAILABLE', message: /still being read/ })

    await model.age()
    t.equal(openCount, before, 'the reader is closed')
    for (const made of model.checkpoints) t.equal(await model.difference(await model.open(made)), undefined)
    t.strictSame(await worker.seal({ vpg }), model.checkpoints.at(-1)!.checkpoint.vector)
    t.strictSame([told(model, 'holeFound'), told(model, 'damageFound')], [[], []])
  },
)

t.test('nothing is taken for one that waits while the log is filling', async t => {
  const { model, start, store } = await site(t, 11)
  const { vpg } = model
  await start({ logSizeBytesPressure: 10 * 64 * MiB })
  await model.age()
  t.strictSame(told(model, 'sealingStopped'), [])
  for (let count = 0; count < 80; count++) model.write(1, 4)
  const last = model.checkpoint()
  await model.age()
  await model.age()
  t.match(told(model, 'sealingStopped'), [{ vpg, sentence: /the store has not given the VPG/ }])
  t.equal(told(model, 'sealingStopped').length, 1)
  store.refuses = false
  await model.worker.waitingStep()
  t.match(told(model, 'sealingStopped').slice(1), [{ vpg, sentence: undefined }])
  await model.age()
  t.strictSame(await model.worker.seal({ vpg }), last.checkpoint.vector)
  t.equal(await model.difference(await model.open(last)), undefined)
})

t.test('until others hear of it a VPG waits, though it was read: nobody takes it for one that was deleted', async t => {
  const { model, config, store } = await site(t, 7)
  const { vpg, memory } = model
  const slow = vpgId('88'.repeat(16))
  await model.worker.createVpg({ ...model.definition, id: slow, name: 'slow' })
  await model.restart(
    (_, key) => (store.refuses && (key.includes(vpg) || key.includes(slow)) ? 'fails-before' : 'works'),
    config,
  )
  store.refuses = false
  let isRead = false
  let goOn: () => void = () => undefined
  const gate = new Promise<void>(resolve => (goOn = resolve))
  const readRange = memory.readRange.bind(memory)
  memory.readRange = async (...at: Parameters<typeof readRange>) => {
    if (at[0].includes(slow)) await gate
    isRead ||= at[0].includes(vpg)
    return await readRange(...at)
  }
  const step = model.worker.waitingStep()
  for (let turn = 0; turn < 200; turn++) await new Promise(resolve => setImmediate(resolve))
  t.ok(isRead)
  await t.rejects(model.worker.deleteVpg({ vpg, isForced: false }), { code: 'STORE_UNAVAILABLE' })
  goOn()
  await step
  t.strictSame(
    told(model, 'vpgOpened')
      .map(({ opened }) => opened?.definition.name)
      .sort(),
    ['orders', 'slow'],
  )
  await model.worker.deleteVpg({ vpg, isForced: false })
  await t.rejects(model.worker.status({ vpg }), { code: 'UNKNOWN_VPG' })
})

t.test('a start over very many serves the first of them, and the others as they have their turn', async t => {
  const { model, start, store } = await site(t, 6)
  store.refuses = false
  const ids = Array.from({ length: 40 }, (_, index) => vpgId(index.toString(16).padStart(32, 'a')))
  for (const id of ids) await model.worker.createVpg({ ...model.definition, id, name: id })
  const { memory, clock } = model
  const readRange = memory.readRange.bind(memory)
  memory.readRange = async (...at: Parameters<typeof readRange>) => {
    clock.advance(1_000)
    return await readRange(...at)
  }
  const vpgs = await start({ memoDirectory: undefined })
  memory.readRange = readRange
  const late = new Set(told(model, 'vpgWaits').map(({ vpg }) => vpg))
  t.ok(
    told(model, 'vpgWaits').every(({ isRefused }) => !isRefused),
    "which is nobody's fault",
  )
  t.ok(late.size > 0 && vpgs.length > 0)
  t.equal(late.size + vpgs.length, ids.length + 2)
  const [refused] = late
  memory.readRange = async (...at: Parameters<typeof readRange>) => {
    if (at[0].includes(refused!)) throw new Failure('STORE_UNAVAILABLE', 'slow down')
    return await readRange(...at)
  }
  await model.worker.waitingStep()
  memory.readRange = readRange
  const reasons = told(model, 'vpgWaits').filter(({ vpg }) => vpg === refused)
  t.match(
    reasons.map(({ sentence }) => sentence),
    [/after the others/, /slow down/],
    'why it waits now is told',
  )
  t.equal(await model.worker.waitingStep(), true)
  t.strictSame(new Set(told(model, 'vpgOpened').map(({ vpg }) => vpg)), late)
  for (const id of [...ids, model.vpg, other]) t.equal((await model.worker.status({ vpg: id })).isUnread, false)
  for (const made of model.checkpoints) t.equal(await model.difference(await model.open(made)), undefined)
})
