import * as path from 'node:path'
import t, { type Test } from 'tap'
import type { AgingNotices } from '../../src/aging/service.ts'
import { AgingModel } from '../support/aging-model.ts'
import { randomFrom } from '../support/segment-records.ts'

/** A VPG with deltas and segments, that has nothing to do and sleeps; `read` tells the keys that were read since the last call. */
async function asleep(t: Pick<Test, 'testdir'>, seed: number) {
  const model = new AgingModel(randomFrom(seed), t.testdir(), 60_000)
  const keys: string[] = []
  const restart = () =>
    model.restart((_, key) => {
      keys.push(key)
      return 'works'
    })
  model.contentsSizeBytesMax = 0
  await restart()
  await model.worker.createVpg(model.definition)
  // A fold has just been, so the next is not due soon.
  while (told(model, 'folded').length < 3) {
    model.write(1, 8)
    model.checkpoint()
    model.clock.advance(11_000)
    await model.age()
  }
  const read = (): string[] => keys.splice(0)
  return { model, read, restart }
}

/** Sealed because it is old; too little for a fold. */
async function sealSomething(model: AgingModel): Promise<void> {
  model.write(1, 2)
  await model.age()
  model.clock.advance(11_000)
  await model.age()
}

function told(model: AgingModel, name: keyof AgingNotices): unknown[] {
  return model.notices.filter(notice => notice.name === name)
}

t.test('a VPG that sleeps is sealed without its manifest, and says of itself what it would say awake', async t => {
  const { model, read, restart } = await asleep(t, 1)
  read()
  const { vpg } = model
  const before = (await model.worker.status({ vpg })).segmentCount
  await sealSomething(model)
  const status = await model.worker.status({ vpg })
  t.equal(status.segmentCount, before + 1)
  t.notOk(
    read().some(key => key.includes('/page/')),
    'no page of the manifest was read',
  )
  model.contentsSizeBytesMax = Infinity
  await restart()
  t.ok(
    read().some(key => key.includes('/page/')),
    'there are some',
  )
  const awake = await model.worker.status({ vpg })
  t.strictSame({ ...awake, requests: 0 }, { ...status, requests: 0 })
})

t.test('it wakes for whoever asks, and when something may be due', async t => {
  const { model } = await asleep(t, 2)
  await sealSomething(model)
  const { checkpoint } = model.checkpoints.at(-1)!
  await model.worker.tag({ vpg: model.vpg, ordinal: checkpoint.ordinal, name: 'kept' })
  t.equal(await model.difference(await model.open(model.checkpoints.at(-1)!)), undefined)
  const folded = told(model, 'folded').length
  for (let index = 0; index < 60; index++) model.write(1, 8)
  model.checkpoint()
  await model.age()
  t.ok(told(model, 'folded').length > folded, 'a fold')
  const removed = told(model, 'garbageRemoved').length
  model.clock.advance(70_000)
  await model.age()
  t.ok(told(model, 'garbageRemoved').length > removed, 'garbage')
})

t.test('another appliance that took it over while it slept fences it, whatever it is asked', async t => {
  for (const ask of ['seal', 'tag'] as const) {
    const { model } = await asleep(t, 3)
    const thief = new AgingModel(randomFrom(9), path.join(t.testdirName, 'thief'), 60_000)
    for (const [key, body] of model.memory.objects) thief.memory.objects.set(key, body)
    await thief.restart(undefined, { ...thief.config, applianceId: 'appliance-two', adopt: true })
    for (const [key, body] of thief.memory.objects) model.memory.objects.set(key, body)
    const { ordinal } = model.checkpoints.at(-1)!.checkpoint
    const asked = async (): Promise<void> => {
      if (ask === 'seal') await sealSomething(model)
      else await model.worker.tag({ vpg: model.vpg, ordinal, name: 'late' })
    }
    await t.rejects(asked(), { code: 'EPOCH_SUPERSEDED' })
    t.equal(told(model, 'fenced').length, 1)
  }
})

t.test(
  'a manifest that is damaged while it sleeps is told and mended, and its segments are committed all the same',
  async t => {
    const { model } = await asleep(t, 4)
    const pages = [...model.memory.objects].filter(([key]) => key.includes('/page/'))
    const { vpg } = model
    const { ordinal } = model.checkpoints.at(-1)!.checkpoint
    for (const [key] of pages) model.memory.objects.delete(key)
    await t.rejects(model.worker.tag({ vpg, ordinal, name: 'kept' }), { code: 'BUSY', message: /page.* is missing/ })
    t.equal(told(model, 'damageFound').length, 1)
    const sealed = told(model, 'segmentCommitted').length
    await sealSomething(model)
    t.equal(told(model, 'segmentCommitted').length, sealed + 1)
    t.equal(told(model, 'damageFound').length, 1, 'told once')
    for (const [key, body] of pages) model.memory.objects.set(key, body)
    t.equal((await model.worker.tag({ vpg, ordinal, name: 'kept' })).name, 'kept')
  },
)

t.test(
  'a hole that a damaged manifest cannot take stops the sealing, which is told once and goes on when it is mended',
  async t => {
    const { model } = await asleep(t, 5)
    const pages = [...model.memory.objects].filter(([key]) => key.includes('/page/'))
    for (const [key] of pages) model.memory.objects.delete(key)
    const intact = model.checkpoints.at(-1)!
    model.writeBad(1)
    model.write(1, 1)
    const sealed = told(model, 'segmentCommitted').length
    await t.rejects(model.age(), { code: 'BUSY' }, 'a segment without its hole would show what is not there')
    t.match(told(model, 'sealingStopped'), [{ notice: { sentence: /page.* is missing/ } }])
    t.equal(await model.worker.step(), false, 'nobody looks again at once')
    model.clock.advance(600)
    await t.rejects(model.age(), { code: 'BUSY' })
    model.clock.advance(600)
    t.equal(await model.worker.step(), false, 'and ever more seldom')
    t.equal(told(model, 'sealingStopped').length, 1)
    t.equal(told(model, 'segmentCommitted').length, sealed)
    for (const [key, body] of pages) model.memory.objects.set(key, body)
    model.clock.advance(11_000)
    await model.age()
    t.strictSame(told(model, 'sealingStopped')[1], {
      name: 'sealingStopped',
      notice: { vpg: model.vpg, sentence: undefined },
    })
    t.equal(told(model, 'holeFound').length, 1)
    t.ok(told(model, 'segmentCommitted').length > sealed)
    const plan = await model.open(intact)
    t.equal(await model.difference(plan), undefined)
    await model.close(plan)
  },
)

/** Some writes, and what aging makes of them by the time they are due. */
async function fill(model: AgingModel): Promise<void> {
  model.write(1, 8)
  model.checkpoint()
  model.clock.advance(11_000)
  await model.age()
}

t.test('an object that the store refuses keeps its VPG from merging, and nobody else', async t => {
  let refused = (_key: string): boolean => false
  const model = new AgingModel(randomFrom(7), t.testdir(), 60_000)
  await model.restart((_, key) => (refused(key) ? 'refused' : 'works'))
  await model.worker.createVpg(model.definition)
  while (told(model, 'folded').length < 1) await fill(model)

  const sealed = new Set([...model.memory.objects.keys()].filter(key => key.includes('/commit/')))
  refused = key => key.includes('/commit/') && model.memory.objects.has(key) && !sealed.has(key)
  const before = told(model, 'folded').length
  for (let turns = 0; turns < 12; turns++) await fill(model) // every one comes to its end: what others wait for is given back
  t.equal(told(model, 'folded').length, before)
  t.equal(told(model, 'storeFailing').length > 0, true, 'and it is said')
  refused = () => false
  model.clock.advance(600_000)
  await model.age()
  t.ok(told(model, 'folded').length > before, 'what was refused is done when it is given')
})

t.test('a fold that the store refuses leaves nothing, however often it is made again', async t => {
  let isRefusing = false
  const model = new AgingModel(randomFrom(7), t.testdir(), 60_000)
  const { objects } = model.memory
  await model.restart((_, key) => (isRefusing && key.includes('/page/') && !objects.has(key) ? 'refused' : 'works'))
  await model.worker.createVpg(model.definition)
  while (told(model, 'folded').length < 1) await fill(model)
  const packs = (): string[] => [...objects.keys()].filter(key => key.includes('/delta/'))
  const before = packs()
  const { store } = model
  isRefusing = true
  for (let turn = 0; turn < 4; turn++) {
    await fill(model)
    model.clock.advance(600_000)
    await model.age()
  }
  t.ok(store.created.filter(key => key.includes('/delta/')).length > before.length, 'packs are made')
  t.strictSame(packs(), before)
  isRefusing = false
  model.clock.advance(600_000)
  await model.age()
  t.ok(told(model, 'folded').length > 1, 'and it is made when the store takes it')
})

t.test('a manifest that the store refuses keeps a VPG asleep, and nobody else', async t => {
  const { model } = await asleep(t, 8)
  let isRefusing = true
  model.contentsSizeBytesMax = 0
  const restartRefusing = (): Promise<unknown> =>
    model.restart((_, key) => (isRefusing && key.includes('/page/') && isOpen ? 'refused' : 'works'))
  let isOpen = false
  await restartRefusing()
  await model.age()
  isOpen = true
  for (let turns = 0; turns < 12; turns++) {
    model.write(1, 8)
    model.checkpoint()
    model.clock.advance(11_000)
    await model.age()
  }
  t.ok(told(model, 'storeFailing').length > 0)
  const before = told(model, 'folded').length
  isRefusing = false
  model.clock.advance(600_000)
  await model.age()
  t.ok(told(model, 'folded').length > before)
})
