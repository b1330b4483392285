import t, { type Test } from 'tap'
import { loadVpg } from '../../src/manifest/manifest.ts'
import { pinsOfStandby, type StandbyRecord } from '../../src/timeline/standby.ts'
import { AgingModel, streams, type ModelCheckpoint } from '../support/aging-model.ts'
import { strays } from '../support/aging-strays.ts'
import { randomFrom } from '../support/segment-records.ts'

// The record of standby copies: every checkpoint that it names opens, and shows what it did, however far the history has gone on, whatever dies, and
// whoever owns the VPG; those that it names no more are kept by nothing.

const never = new AbortController().signal

function recordOf(checkpoints: readonly ModelCheckpoint[], next = checkpoints.at(-1)): StandbyRecord {
  return {
    formatVersion: 1,
    id: 's-1',
    checkpoints: checkpoints.map(({ checkpoint }) => checkpoint),
    next: next?.checkpoint.ordinal,
    state: 'kept',
    memory: { link: 'snap-1' },
  }
}

async function stored(model: AgingModel, applianceId = 'appliance-one') {
  return (await loadVpg(model.memory, model.vpg, applianceId, never)).contents.state
}

async function put(model: AgingModel, standby: StandbyRecord | undefined): Promise<void> {
  model.worker.durable(model.log.mark)
  await model.worker.putStandby({ vpg: model.vpg, standby })
}

async function goOn(model: AgingModel, rounds: number): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    for (const stream of streams) model.write(stream, 6)
    model.checkpoint()
    if (round % 3 === 2) await model.age()
  }
  await model.age()
}

async function requireSame(t: Test, model: AgingModel, at: ModelCheckpoint): Promise<void> {
  const before = model.memory.objects.size
  const plan = await model.open(at)
  t.equal(await model.difference(plan), undefined)
  await model.close(plan)
  t.equal(model.memory.objects.size, before, 'reading what is pinned commits nothing')
}

/** The group is there, and has some checkpoints. */
async function begin(model: AgingModel): Promise<void> {
  await model.worker.open(model.config)
  await model.worker.follow({ durable: model.log.mark })
  await model.worker.createVpg(model.definition)
  await goOn(model, 3)
}

t.test('a group whose copies are left where they are is deleted when that is asked for in so many words', async t => {
  const model = new AgingModel(randomFrom(8), t.testdir(), 3_000)
  await begin(model)
  await put(model, recordOf([model.checkpoint()]))
  await t.rejects(model.worker.deleteVpg({ vpg: model.vpg, isForced: false }), { code: 'BUSY', message: /--force/ })
  await model.worker.deleteVpg({ vpg: model.vpg, isForced: true })
})

t.test('what standby copies hold is kept until the record names it no more, over restarts and a takeover', async t => {
  const model = new AgingModel(randomFrom(7), t.testdir(), 3_000)
  await begin(model)
  const first = model.checkpoint()
  await put(model, recordOf([first]))
  await goOn(model, 20)
  await model.restart()
  await goOn(model, 10)
  await requireSame(t, model, first)
  const second = model.checkpoint()
  await put(model, recordOf([first, second]))
  await goOn(model, 3)
  await model.restart(undefined, { ...model.config, applianceId: 'appliance-two', adopt: true })
  await goOn(model, 20)
  const taken = await stored(model, 'appliance-two')
  t.strictSame(taken.standby, JSON.parse(JSON.stringify(recordOf([first, second]))))
  t.strictSame(taken.pins, pinsOfStandby(recordOf([first, second])))
  await requireSame(t, model, first)
  await requireSame(t, model, second)
  await put(model, recordOf([second]))
  await t.rejects(model.open(first), { code: 'CHECKPOINT_MISSING' })
  await t.rejects(put(model, recordOf([first, second])), { code: 'CHECKPOINT_MISSING' })
  await t.rejects(model.worker.deleteVpg({ vpg: model.vpg, isForced: false }), {
    code: 'BUSY',
    message: /--standby none/,
  })
  await put(model, undefined)
  await goOn(model, 6)
  model.clock.advance(2 * model.config.garbageGraceMillis)
  await goOn(model, 3)
  const state = await stored(model, 'appliance-two')
  t.strictSame([state.standby, state.pins], [undefined, []])
  t.strictSame(await strays(model), [])
  await model.worker.deleteVpg({ vpg: model.vpg, isForced: false })
})
