import t from 'tap'
import { MirrorWorker } from '../../src/aging/mirror-worker.ts'
import type { AgingNotices } from '../../src/aging/service.ts'
import { AgingModel } from '../support/aging-model.ts'
import { FatefulStore } from '../support/aging-surroundings.ts'
import { randomFrom } from '../support/segment-records.ts'

// One appliance goes on with what another one has offloaded. Invariants: every checkpoint up to there is right; nothing that only the former
// owner acknowledged is ever replayed, on whatever disk it is found; the former owner stops within one commit.

function told<K extends keyof AgingNotices>(model: AgingModel, name: K): AgingNotices[K][] {
  return model.notices.filter(notice => notice.name === name).map(({ notice }) => notice as AgingNotices[K])
}

async function offloaded(t: { testdir(): string }, seed: number) {
  const model = new AgingModel(randomFrom(seed), t.testdir(), 60_000)
  await model.restart()
  await model.worker.createVpg(model.definition)
  for (let index = 0; index < 20; index++) model.write(1, 4)
  const good = model.checkpoint()
  model.worker.durable(model.log.mark)
  await model.worker.readTail()
  await model.worker.seal({ vpg: model.vpg })
  return { model, good }
}

t.test('an empty disk and the store: every checkpoint that was offloaded, and the former owner is fenced', async t => {
  const { model, good } = await offloaded(t, 1)
  model.write(1, 4)
  const lost = model.checkpoint()
  const notices: { name: string; notice: unknown }[] = []
  const empty = new AgingModel(randomFrom(2), t.testdir(), 60_000)
  const successor = new MirrorWorker(empty.clock, (name, notice) => void notices.push({ name, notice }), {
    openStore: async () => new FatefulStore(model.memory),
    openLog: () => empty.log.reader(),
  })
  const { vpgs } = await successor.open({ ...empty.config, applianceId: 'appliance-two', adopt: true })
  await successor.follow({ durable: empty.log.mark })
  t.equal(vpgs[0]?.epoch, 2)
  t.match(notices[0], { name: 'adopted', notice: { name: 'orders', epoch: 2, from: 'appliance-one' } })
  const plan = await successor.openImage({ vpg: model.vpg, checkpoint: good.checkpoint, owner: 'test' })
  t.equal(await model.difference(plan), undefined)
  await t.rejects(successor.openImage({ vpg: model.vpg, checkpoint: lost.checkpoint, owner: 'test' }), {
    code: 'CHECKPOINT_MISSING',
  })

  model.worker.durable(model.log.mark)
  await model.worker.readTail()
  const before = model.memory.objects.size
  const committed = told(model, 'segmentCommitted').length
  await t.rejects(model.worker.seal({ vpg: model.vpg }), { code: 'EPOCH_SUPERSEDED' })
  t.equal(told(model, 'fenced').length, 1)
  t.equal(told(model, 'segmentCommitted').length, committed, 'nothing of it counts as offloaded')
  t.equal(model.memory.objects.size, before)
})

t.test('the former owner’s disk, adopted again, replays nothing past the end of its epoch', async t => {
  const { model, good } = await offloaded(t, 3)
  const firstLost = model.log.records().length
  model.write(1, 4)
  const lost = model.checkpoint()
  const lostRecords = model.log.records().slice(firstLost)
  await model.restart(undefined, { ...model.config, applianceId: 'appliance-two', adopt: true })
  t.strictSame(told(model, 'adopted').length, 1)
  t.match(told(model, 'recordsQuarantined'), [{ vpg: model.vpg, epoch: 1 }])
  t.equal(await model.difference(await model.open(good)), undefined)
  await t.rejects(model.open(lost), { code: 'CHECKPOINT_MISSING' })

  // The agents send what they hold to be missing in generations of their own.
  model.epoch = 2
  for (const stream of [1, 2] as const) model.openGeneration(stream)
  model.write(1, 2)
  model.write(2, 2)
  await t.rejects(
    model.open(lost),
    { code: 'CHECKPOINT_MISSING', message: /lost with the appliance/ },
    'that the streams are past it now says nothing of it',
  )
  const next = model.checkpoint()
  await model.age()
  await model.worker.seal({ vpg: model.vpg })
  const { offloaded: positions } = await model.worker.status({ vpg: model.vpg })
  t.strictSame(positions, next.checkpoint.vector)
  const sealed = told(model, 'segmentCommitted').flatMap(({ segment }) => segment.ranges)
  t.ok(lostRecords.length > 0)
  for (const { header } of lostRecords)
    t.notOk(
      sealed.some(
        range =>
          range.stream === header.stream &&
          range.generation === header.generation &&
          range.lastSequence >= header.firstSequence,
      ),
      'no segment holds a record of the former epoch past its end',
    )
})
