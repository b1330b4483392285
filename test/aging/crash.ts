import t, { type Test } from 'tap'
import { AgingModel, streams } from '../support/aging-model.ts'
import { strays } from '../support/aging-strays.ts'
import type { Fate } from '../support/aging-surroundings.ts'
import { randomFrom } from '../support/segment-records.ts'

// The process dies at many calls of the store, before or after the call's effect, and another one opens what is there.
// Invariants: it opens; it goes on from what is offloaded without a gap and without storing twice; every checkpoint that
// was retained is what the model says; no two commits have one number; nothing uncommitted is left for ever.

async function scenario(t: Test, seed: number): Promise<AgingModel> {
  const model = new AgingModel(randomFrom(seed), t.testdir(), 3000)
  await model.worker.open(model.config)
  await model.worker.follow({ durable: model.log.mark })
  await model.worker.createVpg(model.definition)
  for (let round = 0; round < 3; round++) {
    for (let index = 0; index < 12; index++) {
      model.write(streams[index % 2] ?? 1, 6)
      if (index % 3 === 2) model.checkpoint()
    }
    await model.age()
    model.clock.advance(61_000)
  }
  return model
}

/** What is still due after the scenario: segments, a fold, region rewrites, the edge, garbage, a tag and an image. */
async function goOn(model: AgingModel): Promise<void> {
  const newest = model.checkpoints.at(-1)
  if (newest === undefined) return
  await model.worker.tag({ vpg: model.vpg, ordinal: newest.checkpoint.ordinal, name: 'keep' })
  await model.close(await model.open(newest))
  await model.age()
  await model.worker.seal({ vpg: model.vpg })
  await model.age()
}

function addWrites(model: AgingModel): void {
  for (let index = 0; index < 16; index++) model.write(streams[index % 2] ?? 1, 8)
  model.checkpoint()
}

async function compareAll(model: AgingModel): Promise<string | undefined> {
  const { historyEdge } = await model.worker.status({ vpg: model.vpg })
  for (const wanted of model.checkpoints.filter(one => one.checkpoint.ordinal >= historyEdge)) {
    const plan = await model.open(wanted)
    const difference = await model.difference(plan)
    await model.close(plan)
    if (difference !== undefined) return `checkpoint ${wanted.checkpoint.ordinal}: ${difference}`
  }
  return undefined
}

t.test('wherever the process dies, the next one goes on and nothing retained is lost', async t => {
  const rehearsal = await scenario(t, 11)
  addWrites(rehearsal)
  const before = rehearsal.store.operationCount
  await goOn(rehearsal)
  const operations = rehearsal.store.operationCount - before
  t.ok(operations > 30, `${operations} calls to die at`)
  for (let operation = 0; operation < operations; operation += 7) {
    const fate: Fate = operation % 2 === 0 ? 'dies-after' : 'dies-before'
    const model = await scenario(t, 11)
    let opened = Infinity
    await model.restart(at => (at === opened + operation ? fate : 'works'))
    opened = model.store.operationCount
    addWrites(model)
    await goOn(model).catch(() => undefined)
    await model.restart()
    await goOn(model)
    const where = `${fate} at call ${operation}`
    const difference = await compareAll(model)
    if (difference !== undefined) t.fail(`${where}: ${difference}`)
    const bad = model.notices.find(({ name }) => ['damageFound', 'fenced', 'holeFound'].includes(name))
    if (bad !== undefined) t.fail(`${where}: ${bad.name} ${JSON.stringify(bad.notice)}`)
    for (let round = 0; round < 3; round++) {
      model.clock.advance(61_000)
      await model.age()
    }
    const left = await strays(model)
    if (left.length > 0) t.fail(`${where}: nobody knows of ${left.join(', ')}`)
  }
})
