import { readFileSync, writeFileSync } from 'node:fs'
import * as path from 'node:path'
import t, { type Test } from 'tap'
import type { AgingConfig, AgingNotices, ScrubFacts } from '../../src/aging/service.ts'
import { Failure } from '../../src/base/failure.ts'
import { vpgId } from '../../src/base/ids.ts'
import { KiB } from '../../src/base/units.ts'
import { AgingModel } from '../support/aging-model.ts'
import { randomFrom } from '../support/segment-records.ts'

// The verification in the background: what it reads, how fast, what it finds, and that it goes on where it was.

const intervalMillis = 7 * 24 * 3_600_000

interface Scrubbed {
  readonly model: AgingModel
  readonly config: AgingConfig
  readonly file: string
}

/** A VPG with segments, deltas and base in the store. */
async function scrubbed(t: { testdir(): string }, bytesPerSecond = 1e9): Promise<Scrubbed> {
  const directory = t.testdir()
  const file = path.join(directory, 'scrub.json')
  const model = new AgingModel(randomFrom(7), directory, 3_600_000)
  const config = { ...model.config, scrub: { bytesPerSecond, intervalMillis, file } }
  await model.worker.open(config)
  await model.worker.follow({ durable: model.log.mark })
  await model.worker.createVpg(model.definition)
  for (let index = 0; index < 200; index++) {
    model.write(1, 8)
    if (index % 10 === 0) model.checkpoint()
    if (index % 40 === 0) await model.age()
  }
  await model.worker.seal({ vpg: model.vpg })
  return { model, config, file }
}

async function scrubAll({ worker }: AgingModel): Promise<number> {
  let count = 0
  while (await worker.scrubStep()) count++
  return count
}

function damageTold(model: AgingModel): string[] {
  const told = model.notices.filter(({ name }) => name === 'damageFound')
  return told.map(({ notice }) => (notice as AgingNotices['damageFound']).sentence)
}

t.test('every object is read once a pass, and not again before it is time', async t => {
  const { model } = await scrubbed(t)
  const { forms } = await model.worker.status({ vpg: model.vpg })
  const objectCount = forms.reduce((sum, form) => sum + form.objectCount, 0)
  for (const { form, objectCount: count } of forms) if (form !== 'superseded') t.ok(count > 0, `there are ${form}`)
  t.equal(await scrubAll(model), objectCount + 1, 'each, and the end')
  const { scrub } = await model.worker.status({ vpg: model.vpg })
  t.match(scrub, { verifiedAtMicros: Number, damagedCount: 0, passSinceMicros: undefined })
  t.equal(
    scrub?.checkedSizeBytes,
    forms.reduce((sum, form) => sum + form.sizeBytes, 0),
  )
  t.equal(await model.worker.scrubStep(), false)
  model.clock.advance(intervalMillis + 1)
  t.equal(await scrubAll(model), objectCount + 1)
  t.same(damageTold(model), [])
})

t.test('a flipped byte in any kind of object is told by name, with what it affects', async t => {
  const { model } = await scrubbed(t)
  const kinds: Readonly<Record<string, RegExp>> = {
    segment: /\/commit\//,
    delta: /\/delta\//,
    base: /\/base\//,
    page: /\/page\//,
  }
  const live = new Set<string>()
  const { segments, deltas, regions } = (await model.open(model.checkpoints.at(-1)!)).state
  for (const { object } of segments) live.add(object.key)
  for (const { packs, checkpoints } of deltas)
    for (const { key } of [checkpoints, ...packs.map(p => p.object)]) live.add(key)
  for (const { pack } of regions) if (pack !== undefined) live.add(pack.object.key)
  let failedCount = 0
  for (const [kind, pattern] of Object.entries(kinds)) {
    const key = [...live].find(each => pattern.test(each)) ?? ''
    const object = model.memory.objects.get(key)
    t.ok(object, `there is a ${kind}`)
    if (object === undefined) continue
    const at = Math.floor(object.length / 2)
    object[at] = object[at]! ^ 1
    model.clock.advance(intervalMillis + 1)
    await scrubAll(model)
    const told = damageTold(model).filter(sentence => sentence.startsWith(key))
    t.ok(told.length > 0, `a ${kind} is named`)
    t.match(told[0], /; affects .*checkpoints/)
    const { scrub } = await model.worker.status({ vpg: model.vpg })
    t.match(scrub, { damagedCount: 1, damaged: [{ key }] })
    if (kind !== 'page') failedCount += await failingOf(t, model, scrub!)
    object[at] = object[at]! ^ 1
  }
  model.clock.advance(intervalMillis + 1)
  await scrubAll(model)
  t.ok(failedCount > 0, 'some of those that are said to cannot be read')
  const mended = { damagedCount: 0, damaged: [], damagedCheckpointCount: 0 }
  t.match((await model.worker.status({ vpg: model.vpg })).scrub, mended, 'mended, it is whole again')
})

/** How many checkpoints cannot be read; every one that is not said to read the damaged object can, and is as it was written. */
async function failingOf(t: Test, model: AgingModel, { damaged }: ScrubFacts): Promise<number> {
  const { firstOrdinal = Infinity, lastOrdinal = 0, laterOnes = false } = damaged[0] ?? {}
  let failedCount = 0
  for (const each of model.checkpoints) {
    const { ordinal } = each.checkpoint
    const plan = await model.open(each)
    const outcome = await model.difference(plan).catch((error: unknown) => error)
    if (outcome !== undefined) failedCount++
    if (ordinal < firstOrdinal || (ordinal > lastOrdinal && !laterOnes))
      t.equal(outcome, undefined, `${ordinal} does not read it`)
    await model.close(plan)
  }
  return failedCount
}

t.test('what could not be read is verified next, before the pass goes on, and its damage is found', async t => {
  let deniedKey: string | undefined
  const { model } = await scrubbed(t)
  const { forms } = await model.worker.status({ vpg: model.vpg })
  const objectCount = forms.reduce((sum, form) => sum + form.objectCount, 0)
  const [damagedKey = ''] = [...model.memory.objects.keys()].filter(key => /\/base\//.test(key))
  const object = model.memory.objects.get(damagedKey)!
  object[object.length >> 1]! ^= 1
  const read = model.memory.readRange.bind(model.memory)
  model.memory.readRange = (key, range, signal) => {
    if (key === deniedKey) return Promise.reject(new Failure('STORE_UNAVAILABLE', 'the store is away'))
    return read(key, range, signal)
  }
  deniedKey = damagedKey
  // As many steps as the pass takes, and more: it comes no further than to what it could not read.
  for (let count = 0; count < objectCount + 3; count++) t.ok(await model.worker.scrubStep())
  const away = (await model.worker.status({ vpg: model.vpg })).scrub
  t.match(away, { verifiedAtMicros: undefined, damagedCount: 0 }, 'what could not be read is neither whole nor damaged')
  deniedKey = undefined
  await scrubAll(model)
  const { scrub } = await model.worker.status({ vpg: model.vpg })
  t.match(scrub, { damagedCount: 1, damaged: [{ key: damagedKey }] })
  t.equal(
    scrub?.checkedSizeBytes,
    forms.reduce((sum, form) => sum + form.sizeBytes, 0),
    'each object once',
  )
})

t.test('it reads no more in a second than it is told to', async t => {
  const bytesPerSecond = 16 * KiB
  const { model } = await scrubbed(t, bytesPerSecond)
  const startMillis = model.clock.monotonicMillis()
  await scrubAll(model)
  const { scrub } = await model.worker.status({ vpg: model.vpg })
  const elapsedSeconds = (model.clock.monotonicMillis() - startMillis) / 1000
  t.ok(
    elapsedSeconds > (scrub?.checkedSizeBytes ?? 0) / bytesPerSecond - 5,
    `${elapsedSeconds} s for ${scrub?.checkedSizeBytes} bytes`,
  )
})

t.test('a restart goes on where it was, and a file that is not ours costs a pass', async t => {
  const { model, config, file } = await scrubbed(t)
  for (let index = 0; index < 3; index++) await model.worker.scrubStep()
  model.clock.advance(3_600_000)
  await model.worker.scrubStep()
  const noted = JSON.parse(readFileSync(file, 'utf8')) as { vpgs: Record<string, { pass: { checkedCount: number } }> }
  t.equal(noted.vpgs[model.vpg]?.pass.checkedCount, 4)
  await model.restart(undefined, config)
  const total = (await model.worker.status({ vpg: model.vpg })).forms.reduce((sum, form) => sum + form.objectCount, 0)
  t.ok((await scrubAll(model)) <= total - 4 + 2, 'four are not read again')
  writeFileSync(file, '{"formatVersion":1,"vpgs"')
  await model.restart(undefined, config)
  t.ok((await scrubAll(model)) > 4)
})

t.test('a VPG whose manifest the store refuses has its turn behind the others', async t => {
  const directory = t.testdir()
  const model = new AgingModel(randomFrom(7), directory, 3_600_000)
  const scrub = { bytesPerSecond: 1e9, intervalMillis, file: path.join(directory, 'scrub.json') }
  model.contentsSizeBytesMax = 0
  const store = { isRefusing: false }
  const { objects } = model.memory
  await model.restart(
    (_, key) => (store.isRefusing && key.startsWith(model.vpg) && objects.has(key) ? 'refused' : 'works'),
    { ...model.config, scrub },
  )
  const other = new AgingModel(randomFrom(8), directory, 3_600_000, vpgId('77'.repeat(16)), model)
  for (const each of [model, other]) {
    await each.worker.createVpg({ ...each.definition, name: each.vpg.slice(0, 4) })
    for (let index = 0; index < 100; index++) each.write(1, 8)
    each.checkpoint()
    await each.age()
    await each.worker.seal({ vpg: each.vpg })
  }
  const verified = async ({ vpg }: AgingModel): Promise<boolean> =>
    (await model.worker.status({ vpg })).scrub?.verifiedAtMicros !== undefined
  store.isRefusing = true
  await scrubAll(model)
  t.strictSame([await verified(model), await verified(other)], [false, true])
  store.isRefusing = false
  model.clock.advance(300_000)
  await scrubAll(model)
  t.ok(await verified(model), 'and it has it')
})
