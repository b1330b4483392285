import t from 'tap'
import { failedWith } from '../../src/base/failure.ts'
import type { AgingNotices } from '../../src/aging/service.ts'
import { AgingModel } from '../support/aging-model.ts'
import { randomFrom } from '../support/segment-records.ts'
import { vpgId } from '../../src/base/ids.ts'

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

t.test('an idle VPG makes no objects', async t => {
  const model = await running(t, 1)
  await model.age()
  const before = model.store.created.length
  for (let hour = 0; hour < 30; hour++) {
    model.clock.advance(3_600_000)
    await model.age()
  }
  t.equal(model.store.created.length, before, 'not one in thirty hours without records')
  model.checkpoint()
  model.clock.advance(600_000)
  await model.age()
  t.equal(model.store.created.length, before, 'nor one for a marker within the hour')
})

t.test(
  'a payload that does not decompress is a hole: later checkpoints are withdrawn, earlier ones are not',
  async t => {
    const model = await running(t, 2)
    model.write(1, 8)
    const good = model.checkpoint()
    model.writeBad(1)
    const bad = model.checkpoint()
    await model.age()
    const [found] = told(model, 'holeFound')
    t.match(found?.hole, { stream: 1, ranges: [{ volume: 1, offsetBytes: 4096, sizeBytes: 16_384 }] })
    t.equal(told(model, 'segmentCommitted').length, 0, 'the hole is committed before the segment')
    await model.worker.seal({ vpg: model.vpg })
    const plan = await model.open(good)
    t.equal(await model.difference(plan), undefined)
    await t.rejects(model.open(bad), { code: 'CHECKPOINT_MISSING' })
    await t.rejects(model.worker.tag({ vpg: model.vpg, ordinal: bad.checkpoint.ordinal, name: 'x' }), {
      code: 'CHECKPOINT_MISSING',
    })
    for (let index = 0; index < 200; index++) {
      model.write(1, 8)
      model.checkpoint()
    }
    await model.age()
    await model.restart()
    await model.age()
    const later = await model.open(good)
    t.equal(await model.difference(later), undefined, 'the history does not move on past the hole')
    t.equal(told(model, 'holeFound').length, 1, 'a restart does not find it anew')
  },
)

t.test('a record that rots in the log before it is sealed is named and left out as a hole', async t => {
  const model = await running(t, 3)
  model.write(1, 4)
  const good = model.checkpoint()
  model.write(2, 4)
  const last = model.log.records().at(-1)
  model.checkpoint()
  await model.worker.readTail()
  model.worker.durable(model.log.mark)
  await model.worker.readTail()
  model.log.rotten.add(`${last?.header.fileIdentity}/${last?.header.offsetBytes}`)
  await model.worker.seal({ vpg: model.vpg })
  t.match(told(model, 'damageFound')[0]?.sentence, /rotten/)
  t.equal(told(model, 'holeFound')[0]?.hole.stream, 2)
  t.equal(await model.difference(await model.open(good)), undefined, 'what was before it is whole')
})

t.test('a second appliance process fences the first, and no other VPG', async t => {
  const model = await running(t, 4)
  const first = model.worker
  model.write(1, 4)
  model.checkpoint()
  const other = vpgId('a'.repeat(32))
  await first.createVpg({ ...model.definition, id: other, name: 'other' })
  const thief = new AgingModel(randomFrom(9), t.testdir(), 60_000)
  for (const [key, body] of model.memory.objects) thief.memory.objects.set(key, body)
  await thief.worker.open(thief.config)
  await thief.worker.changeVpg({ vpg: model.vpg, historyMillis: 70_000 })
  for (const [key, body] of thief.memory.objects) model.memory.objects.set(key, body)
  model.clock.advance(11_000)
  await t.rejects(model.age(), { code: 'EPOCH_SUPERSEDED' }, 'an idle one finds it within ten seconds')
  t.equal(told(model, 'fenced').length, 1)
  await t.rejects(first.tag({ vpg: model.vpg, ordinal: 1 as never, name: 'x' }), { code: 'EPOCH_SUPERSEDED' })
  await first.changeVpg({ vpg: other, historyMillis: 80_000 })
  t.pass('the other VPG is written on')
})

t.test('an image of records that are only in the log keeps their files', async t => {
  const model = await running(t, 5)
  for (let index = 0; index < 40; index++) model.write(1, 6)
  const wanted = model.checkpoint()
  const plan = await model.open(wanted)
  t.ok(plan.tail.count > 0)
  for (let index = 0; index < 20; index++) model.write(2, 6)
  await model.worker.seal({ vpg: model.vpg })
  t.strictSame(told(model, 'logFileFree'), [], 'all is in segments, and nothing is freed')
  t.equal(await model.difference(plan), undefined)
  await model.close(plan)
  t.ok(told(model, 'logFileFree').length > 0, 'freed when the image is closed')
})

t.test('a reading of what is newest is no checkpoint, commits nothing, and holds what it reads', async t => {
  const model = await running(t, 12)
  for (let index = 0; index < 30; index++) model.write(1, 6)
  model.checkpoint()
  await model.age()
  model.write(1, 5)
  model.openGeneration(2)
  for (let index = 0; index < 30; index++) model.write(2, 4)
  const commits = (await model.worker.status({ vpg: model.vpg })).commitNumber
  const { plan, sectors } = await model.openNewest()
  t.ok(plan.tail.count > 0)
  t.equal((await model.worker.status({ vpg: model.vpg })).commitNumber, commits, 'nothing was committed')
  for (let index = 0; index < 20; index++) model.write(2, 6)
  await model.worker.seal({ vpg: model.vpg })
  t.equal(await model.difference(plan, sectors), undefined)
  const freed = told(model, 'logFileFree').length
  await model.close(plan)
  t.ok(told(model, 'logFileFree').length > freed, 'freed when it is closed')
  const ahead = [{ stream: 1, generation: 1, sequence: 99_999 as never }]
  await t.rejects(model.worker.openReading({ vpg: model.vpg, positions: ahead }), { code: 'CHECKPOINT_MISSING' })
})

t.test('a store that fails is told once, waited for, and told again when it answers', async t => {
  const model = await running(t, 6)
  let failing = true
  let calls = 0
  await model.restart(() => {
    if (calls < 0) calls++
    return calls === 0 || !failing || ++calls > 8 ? 'works' : 'fails-before'
  })
  calls = 1
  model.write(1, 8)
  model.checkpoint()
  await model.worker.readTail()
  model.worker.durable(model.log.mark)
  await model.worker.seal({ vpg: model.vpg })
  failing = false
  t.equal(told(model, 'storeFailing').length, 1)
  t.equal(told(model, 'storeRecovered').length, 1)
  t.equal((await model.worker.status({ vpg: model.vpg })).storeFailure, undefined)
})

t.test('while the store puts everything off, what waits for it has a bound, however much is written', async t => {
  const model = new AgingModel(randomFrom(8), t.testdir(), 60_000)
  let puts = true
  await model.restart(() => (puts ? 'works' : 'fails-before'), undefined, { unsealedCountMax: 50 })
  await model.worker.createVpg(model.definition)
  const write = async (count: number): Promise<number> => {
    for (let index = 0; index < count; index++) model.write(1, 8)
    model.worker.durable(model.log.mark)
    await model.worker.readTail()
    return (await model.worker.queues()).unsealedRecordCount
  }
  puts = false
  const waiting = await write(200)
  t.ok(waiting >= 50 && waiting < 200, 'it stops reading the log at the end of what it had begun to read')
  const sealing = model.worker.seal({ vpg: model.vpg })
  while ((await model.worker.status({ vpg: model.vpg })).storeFailure === undefined)
    await new Promise(resolve => setImmediate(resolve))
  for (let round = 0; round < 2; round++) t.equal(await write(100), waiting, 'not one more')
  puts = true
  await sealing
  const newest = model.checkpoint()
  await model.age()
  t.equal(await model.difference(await model.open(newest)), undefined, 'the log had the rest')
})

t.test('a deleted VPG is gone from the store after the grace period, its registry object last', async t => {
  const model = await running(t, 7)
  const removed: string[] = []
  const remove = model.memory.remove.bind(model.memory)
  model.memory.remove = async key => {
    removed.push(key)
    await remove(key)
  }
  await model.worker.changeVpg({ vpg: model.vpg, historyMillis: 90_000 })
  await model.worker.deleteVpg({ vpg: model.vpg, isForced: false })
  await t.rejects(model.worker.status({ vpg: model.vpg }), { code: 'UNKNOWN_VPG' }, 'nobody is served any more')
  model.clock.advance(30_000)
  await model.age()
  t.strictSame(removed, [], 'nothing goes before')
  await model.restart()
  model.clock.advance(31_000)
  await model.age()
  t.strictSame([...model.memory.objects.keys()], [], 'then everything goes')
  t.equal(removed.at(-1), `vpg/${model.vpg}`, 'and by the last the VPG is found')
})

t.test('a deleted VPG is remembered while the log has records of it', async t => {
  const model = await running(t, 8)
  model.write(1, 4)
  await model.worker.seal({ vpg: model.vpg })
  model.write(1, 4)
  await model.age()
  await model.worker.deleteVpg({ vpg: model.vpg, isForced: false })
  model.clock.advance(100_000)
  await model.age()
  await model.restart()
  await model.age()
  t.ok(model.memory.objects.has(`vpg/${model.vpg}`))
  t.strictSame(told(model, 'damageFound'), [], 'so its records are no stranger to a restart')
})

t.test('a seal that waits behind a deletion finds nothing to seal', async t => {
  const model = await running(t, 9)
  model.write(1, 4)
  await model.age()
  const deletion = model.worker.deleteVpg({ vpg: model.vpg, isForced: false })
  const seal = model.worker.seal({ vpg: model.vpg })
  await deletion
  await t.rejects(
    seal.then(() => Promise.reject(new Error('sealed'))),
    { message: /sealed|no VPG|UNKNOWN/ },
  )
  const commits = [...model.memory.objects.keys()].filter(key => key.startsWith(`${model.vpg}/commit/`)).sort()
  const last = Buffer.from(model.memory.objects.get(commits.at(-1) ?? '') ?? []).subarray(0, 4)
  t.equal(last.toString(), 'VRAM', 'the last commit is the manifest that says deleted')
})

t.test('a damaged manifest stops its VPG at the start, in words, and no other', async t => {
  const model = await running(t, 8)
  const other = vpgId('c'.repeat(32))
  await model.worker.createVpg({ ...model.definition, id: other, name: 'other' })
  const key = [...model.memory.objects.keys()].find(each => each.startsWith(`${model.vpg}/commit/`)) ?? ''
  const body = model.memory.objects.get(key)
  if (body !== undefined) body[200] = (body[200] ?? 0) ^ 1
  await model.restart()
  t.match(told(model, 'damageFound')[0]?.sentence, /damaged body/)
  const refused: unknown = await model.worker.status({ vpg: model.vpg }).catch((error: unknown) => error)
  t.ok(failedWith(refused, 'UNKNOWN_VPG'))
  t.ok(await model.worker.status({ vpg: other }))
})

/** A start on a store that has lost the VPG, whose records are in the log still; and one that it knows. */
async function lostVpg(t: { testdir(): string }, seed: number): Promise<{ model: AgingModel; lose: () => void }> {
  const model = await running(t, seed)
  for (let index = 0; index < 30; index++) model.write(1, 6)
  model.log.nextFile()
  const ours = vpgId('d'.repeat(32))
  await model.worker.createVpg({ ...model.definition, id: ours, name: 'other' })
  const lose = (): void => {
    for (const key of [...model.memory.objects.keys()]) if (key.includes(model.vpg)) model.memory.objects.delete(key)
  }
  return { model, lose }
}

async function ageFor(model: AgingModel, graces: number): Promise<void> {
  for (let look = 0; look < graces; look++) {
    model.clock.advance(model.config.garbageGraceMillis)
    await model.age()
  }
}

t.test('records of a VPG that is gone keep their log files for a grace period and no longer', async t => {
  const { model, lose } = await lostVpg(t, 10)
  lose()
  await model.restart()
  await model.age()
  t.match(told(model, 'damageFound'), [{ vpg: model.vpg, sentence: /which the store does not know/ }])
  t.strictSame(told(model, 'logFileFree'), [], 'kept at first')
  await ageFor(model, 2)
  t.strictSame(told(model, 'recordsForgotten'), [{ vpg: model.vpg }])
  t.ok(told(model, 'logFileFree').length > 0)
  model.write(1, 6)
  await model.age()
  t.equal(told(model, 'damageFound').length, 1, 'what comes of it later is no news')
})

t.test(
  'records are kept while the store does not answer, shows nothing, or has anything left of their VPG',
  async t => {
    const { model, lose } = await lostVpg(t, 11)
    const objects = new Map(model.memory.objects)
    let isAway = false
    lose()
    await model.restart((_, key) => (isAway && key === 'vpg/' ? 'fails-before' : 'works'))
    isAway = true
    await ageFor(model, 4)
    isAway = false
    for (const key of [...model.memory.objects.keys()]) model.memory.objects.delete(key)
    await ageFor(model, 4).catch(() => undefined) // another bucket: our own VPG stops at it
    t.strictSame(told(model, 'logFileFree'), [], 'a store without any VPG of ours may be another one')
    for (const [key, body] of objects) if (key !== `vpg/${model.vpg}`) model.memory.objects.set(key, body)
    await ageFor(model, 4).catch(() => undefined)
    t.strictSame(told(model, 'recordsForgotten'), [], 'nor when its objects are there without its registry')
  },
)

t.test('a hole closes once, with one segment, while records go on coming', async t => {
  const { model, repaired } = await repairing(t, 21)
  const create = model.memory.create.bind(model.memory)
  let more = 5
  model.memory.create = async (...creation) => {
    await create(...creation)
    if (!creation[0].includes('/commit/') || more-- <= 0) return
    model.write(1, 1)
    model.worker.durable(model.log.mark)
    await model.worker.readTail()
  }
  await model.age()
  t.equal(told(model, 'segmentCommitted').length, 1)
  t.equal(await model.difference(await model.open(repaired)), undefined)
})

t.test('a hole closes whatever step of that the process died at', async t => {
  const { model, repaired } = await repairing(t, 22)
  const histories: Map<string, Uint8Array>[] = []
  const create = model.memory.create.bind(model.memory)
  model.memory.create = async (...creation) => {
    await create(...creation)
    histories.push(new Map(model.memory.objects))
  }
  await model.age()
  t.ok(histories.length > 1, 'the segment and the manifest are two commits')
  for (const [at, objects] of [...histories].entries()) {
    model.memory.objects.clear()
    for (const [key, body] of objects) model.memory.objects.set(key, body)
    await model.restart()
    await model.age()
    t.equal(await model.difference(await model.open(repaired)), undefined, `after step ${at}`)
  }
})

t.test('a hole that is in the log, and was not seen yet when its repair began, is repaired as well', async t => {
  const model = await running(t, 97)
  model.write(1, 2)
  model.checkpoint()
  model.writeBad(1)
  const generation = model.openGeneration(1)
  model.worker.durable(model.log.mark)
  await model.worker.generationOpened({ vpg: model.vpg, stream: 1, generation, wholeVolumes: [1] })
  model.writeOver(1, 4096, 16 * 1024)
  const repaired = model.checkpoint()
  model.clock.advance(20_000)
  await model.age()
  const plan = await model.open(repaired)
  t.equal(await model.difference(plan), undefined)
})

/** A VPG whose hole a synchronisation has just repaired; the checkpoint that closes it is in the log. */
async function repairing(t: { testdir(): string }, seed: number) {
  const model = await running(t, seed)
  model.write(1, 2)
  model.checkpoint()
  model.writeBad(1)
  model.checkpoint()
  model.worker.durable(model.log.mark)
  await model.worker.readTail()
  const generation = model.openGeneration(1)
  await model.worker.generationOpened({ vpg: model.vpg, stream: 1, generation, wholeVolumes: [1] })
  model.writeOver(1, 4096, 16 * 1024)
  return { model, repaired: model.checkpoint() }
}
