import t, { type Test } from 'tap'
import type { AgingNotices } from '../../src/aging/service.ts'
import { KiB } from '../../src/base/units.ts'
import { AgingModel, streams, type ModelCheckpoint } from '../support/aging-model.ts'
import { randomFrom } from '../support/segment-records.ts'

// A journal limit far below what the history would take. Invariants, held after every few steps:
//
//   - what the history takes is at most the limit, whenever only the newest checkpoints are to be kept
//   - every checkpoint from the edge on, and every tagged one, opens and shows exactly the writes before it; so does an open image
//   - the newest checkpoint is there
//   - the edge moves only when the limit is passed, and that the history is short is told once

const journalLimitSizeBytes = 1500 * KiB
const historyMillis = 3_600_000

async function limited(t: Test, seed: number): Promise<AgingModel> {
  const model = new AgingModel(randomFrom(seed), t.testdir(), historyMillis)
  await model.worker.open(model.config)
  await model.worker.follow({ durable: model.log.mark })
  await model.worker.createVpg({ ...model.definition, journalLimitSizeBytes })
  return model
}

function writeSome(model: AgingModel): ModelCheckpoint {
  for (let batch = 0; batch < 3; batch++) model.write(streams[model.below(2)] ?? 1, 1 + model.below(8))
  return model.checkpoint()
}

async function compare(t: Test, model: AgingModel, tagged: readonly ModelCheckpoint[], when: string): Promise<void> {
  const { historyEdge } = await model.worker.status({ vpg: model.vpg })
  const inHistory = model.checkpoints.filter(({ checkpoint }) => checkpoint.ordinal >= historyEdge)
  const newest = model.checkpoints.at(-1)
  t.ok(newest !== undefined && inHistory.includes(newest), `${when}: the newest checkpoint is there`)
  for (const wanted of new Set([...inHistory.slice(0, 6), ...inHistory.slice(-6), ...tagged])) {
    const plan = await model.open(wanted)
    const difference = await model.difference(plan)
    await model.close(plan)
    if (difference !== undefined) t.fail(`${when}: checkpoint ${wanted.checkpoint.ordinal}: ${difference}`)
  }
}

function cutShort(model: AgingModel): AgingNotices['historyCutShort'][] {
  return model.notices
    .filter(({ name }) => name === 'historyCutShort')
    .map(({ notice }) => notice as AgingNotices['historyCutShort'])
}

for (const seed of [1, 2]) {
  t.test(`over the limit the oldest checkpoints go, and the others are what the model says, seed ${seed}`, async t => {
    const model = await limited(t, seed)
    const first = writeSome(model).checkpoint.ordinal
    let [edge, largest, before] = [0, 0, 0]
    for (let step = 0; step < 200; step++) {
      writeSome(model)
      if (step % 2 === 0) await model.age()
      if (step % 40 === 39) await model.restart()
      if (step % 10 !== 9) continue
      await model.age()
      const status = await model.worker.status({ vpg: model.vpg })
      if (status.historyEdge > Math.max(first, edge)) before = largest
      t.ok(status.historySizeBytes <= journalLimitSizeBytes, `step ${step}: ${status.historySizeBytes} bytes`)
      t.equal(
        status.agedEarlySinceMicros !== undefined,
        status.historyEdge > first,
        `step ${step}: it is told that it is short`,
      )
      ;[edge, largest] = [status.historyEdge, Math.max(largest, status.historySizeBytes)]
      if (step % 50 === 49) await compare(t, model, [], `seed ${seed}, step ${step}`)
    }
    t.ok(edge > first && before > journalLimitSizeBytes / 2, 'the history was cut short, and not before it was large')
    const status = await model.worker.status({ vpg: model.vpg })
    t.ok(status.historySizeBytes > journalLimitSizeBytes / 4, 'no more left than had to')
    t.ok(status.historyMillis > 0 && status.historyMillis < 200_000, `a history of ${status.historyMillis} ms is left`)
    t.equal(cutShort(model).length, 1, 'told once')
    t.match(cutShort(model)[0], { isShort: true, journalLimitSizeBytes })
    const since = status.agedEarlySinceMicros
    await model.restart()
    t.equal((await model.worker.status({ vpg: model.vpg })).agedEarlySinceMicros, since, 'a restart knows since when')
  })
}

t.test('tags and open images outlive the limit, even where it cannot be kept for them', async t => {
  const model = await limited(t, 4)
  for (let step = 0; step < 10; step++) writeSome(model)
  await model.age()
  const tagged: ModelCheckpoint[] = []
  const image = await model.open(writeSome(model))
  for (let step = 0; step < 110; step++) {
    const made = writeSome(model)
    await model.age()
    if (step % 25 !== 10) continue
    await model.worker.tag({ vpg: model.vpg, ordinal: made.checkpoint.ordinal, name: `tag${step}` })
    tagged.push(made)
  }
  t.equal(await model.difference(image), undefined, 'the image that was open for long')
  await compare(t, model, tagged, 'with tags')
  const { historyEdge } = await model.worker.status({ vpg: model.vpg })
  t.ok(historyEdge > (tagged[0]?.checkpoint.ordinal ?? 0), 'the history begins after a tag')
  await model.close(image)
  for (const step of [10, 35, 60, 85]) await model.worker.untag({ vpg: model.vpg, name: `tag${step}` })
  await model.age()
  const status = await model.worker.status({ vpg: model.vpg })
  t.ok(status.historySizeBytes <= journalLimitSizeBytes, 'without them it is kept')
})

/** Of what a synchronisation sends, each from another place: of one that goes over the same places again, open deltas keep the last. */
const pieceBytes = 48 * 1024

t.test('a synchronisation far larger than the limit leaves the newest checkpoint', async t => {
  const model = await limited(t, 5)
  for (let step = 0; step < 30; step++) writeSome(model)
  await model.age()
  const newest = model.checkpoints.at(-1)
  model.openGeneration(1)
  for (let batch = 0; batch < 240; batch++) {
    model.writeOver(1, batch * pieceBytes, pieceBytes)
    if (batch % 10 === 9) await model.age()
  }
  t.ok((await model.worker.status({ vpg: model.vpg })).historySizeBytes > journalLimitSizeBytes, 'over the limit')
  if (newest !== undefined) t.equal(await model.difference(await model.open(newest)), undefined)
  await compare(t, model, [], 'inside the synchronisation')
  for (let step = 0; step < 12; step++) writeSome(model)
  await model.restart()
  await model.age()
  await compare(t, model, [], 'after it')
})

t.test('a synchronisation that would leave no room beside the last checkpoint waits, until there is room', async t => {
  const held = (model: AgingModel): boolean[] =>
    model.notices
      .filter(({ name }) => name === 'roomForSync')
      .map(({ notice }) => (notice as AgingNotices['roomForSync']).isHeld)
  const syncing = async (seed: number): Promise<AgingModel> => {
    const model = await limited(t, seed)
    for (let step = 0; step < 30; step++) writeSome(model)
    await model.age()
    t.same(held(model), [], 'checkpoints come: the oldest go, and nothing waits')
    model.openGeneration(1)
    return model
  }
  const model = await syncing(9)
  for (let batch = 0; batch < 400 && held(model).length === 0; batch++) {
    model.writeOver(1, batch * pieceBytes, pieceBytes)
    if (batch % 5 === 4) await model.age()
  }
  t.same(held(model), [true])
  const { historySizeBytes } = await model.worker.status({ vpg: model.vpg })
  t.ok(historySizeBytes < journalLimitSizeBytes * 1.5, `${historySizeBytes} bytes: not long after the limit`)
  await compare(t, model, [], 'while it waits')
  await model.restart()
  await model.age()
  t.same(held(model), [true, true], 'a restart finds the same')
  await model.worker.changeVpg({ vpg: model.vpg, journalLimitSizeBytes: 2 * journalLimitSizeBytes })
  await model.age()
  t.same(held(model).at(-1), false, 'there is room')
  const free = await syncing(10)
  await free.worker.changeVpg({ vpg: free.vpg, syncMayPassLimit: true })
  for (let batch = 0; batch < 240; batch++) {
    free.writeOver(1, batch * pieceBytes, pieceBytes)
    if (batch % 10 === 9) await free.age()
  }
  t.same(held(free), [], 'where it may pass the limit it does')
})

t.test('a limit that is taken away cuts nothing more, and the history grows whole again', async t => {
  const model = await limited(t, 6)
  for (let step = 0; step < 120; step++) {
    writeSome(model)
    if (step % 4 === 0) await model.age()
  }
  await model.age()
  const short = await model.worker.status({ vpg: model.vpg })
  t.ok(short.agedEarlySinceMicros !== undefined)
  await model.worker.changeVpg({ vpg: model.vpg, journalLimitSizeBytes: 0, historyMillis: 30_000 })
  for (let step = 0; step < 60; step++) {
    writeSome(model)
    if (step % 4 === 0) await model.age()
  }
  model.clock.advance(20_000)
  await model.age()
  const whole = await model.worker.status({ vpg: model.vpg })
  t.equal(whole.agedEarlySinceMicros, undefined)
  t.ok(whole.historyMillis >= 30_000)
  t.same(
    cutShort(model).map(({ isShort }) => isShort),
    [true, false],
  )
})

t.test('a rewrite that is due comes between two folds that are due', async t => {
  const model = await limited(t, 7)
  await model.worker.changeVpg({ vpg: model.vpg, journalLimitSizeBytes: 0 })
  // Far more at once than a fold takes, over and over in the same places: folds are due for long, and rewrites soon, too.
  for (let step = 0; step < 400; step++) {
    model.write(streams[model.below(2)] ?? 1, 8)
    if (step % 4 === 3) model.checkpoint()
  }
  model.worker.durable(model.log.mark)
  await model.worker.readTail()
  while (await model.worker.step());
  const merges = model.notices.map(({ name }) => name).filter(name => name === 'folded' || name === 'regionRewritten')
  const firstRewrite = merges.indexOf('regionRewritten')
  t.ok(firstRewrite >= 0 && firstRewrite < merges.lastIndexOf('folded'), merges.join(' '))
  await compare(t, model, [], 'at the end')
})
