import * as path from 'node:path'
import t from 'tap'
import { Aging } from '../../src/aging/aging.ts'
import type { AgingNotices } from '../../src/aging/service.ts'
import { systemClock } from '../../src/base/clock.ts'
import { Journal } from '../../src/journal/journal.ts'
import type { JournalEvents } from '../../src/journal/events.ts'
import { AgingModel } from '../support/aging-model.ts'
import { randomFrom } from '../support/segment-records.ts'

const quiet: JournalEvents = {
  groupDurable: () => undefined,
  fileRotated: () => undefined,
  journalFull: () => undefined,
  journalResumed: () => undefined,
  diskFailed: () => undefined,
  tornTailCut: () => undefined,
  damageFound: () => undefined,
}

t.test('the thread seals what the journal made durable, and a restart finds it', async t => {
  const directory = t.testdir()
  const model = new AgingModel(randomFrom(5), directory, 60_000)
  const journal = await Journal.open({ directory, logSizeBytesMax: 2 ** 30, clock: systemClock, events: quiet })
  const config = {
    ...model.config,
    store: { kind: 'directory' as const, directory: path.join(directory, 'store') },
    logDirectory: directory,
    memoDirectory: path.join(directory, 'vpgs'),
    scratchDirectory: path.join(directory, 'scratch'),
  }
  const committed: AgingNotices['segmentCommitted'][] = []
  const aging = await Aging.open(config, { segmentCommitted: notice => committed.push(notice) })
  t.strictSame(aging.vpgs, [], 'an empty store holds nothing')
  await aging.start({ durable: journal.durable() })
  await aging.createVpg(model.definition)
  for (let index = 0; index < 20; index++) model.write(index % 2 === 0 ? 1 : 2, 4)
  const { checkpoint } = model.checkpoint()
  const durable: Promise<void>[] = []
  for (const { header, frame } of model.log.records()) {
    if (header.kind === 'pad') continue
    const fields = { ...header, kind: header.kind }
    const slot = journal.reserve(frame.length)
    if (slot === undefined) throw new Error('the pool has room for a test')
    slot.frame.set(frame)
    durable.push(new Promise(resolve => journal.append(slot, fields, resolve)))
  }
  await Promise.all(durable)
  aging.durable(journal.durable())
  const plan = await aging.openImage({ vpg: model.vpg, checkpoint, owner: 'test' })
  t.ok(plan.tail.count > 0, 'an image of a checkpoint that is only in the log reads the log')
  await aging.closeImage({ vpg: model.vpg, pinId: plan.pinId })
  const offloaded = await aging.seal({ vpg: model.vpg })
  t.same(offloaded, checkpoint.vector, 'all of it is offloaded')
  t.ok(committed.length > 0 && committed.at(-1)?.offloaded.length === 2, 'and told')
  await aging.tag({ vpg: model.vpg, ordinal: checkpoint.ordinal, name: 'before' })
  await t.rejects(
    aging.status({ vpg: '0'.repeat(32) as typeof model.vpg }),
    { code: 'UNKNOWN_VPG' },
    'a failure keeps its code',
  )
  const notes = await aging.stop()
  t.equal(await aging.ended, undefined, 'it ends because it was asked to')
  t.same(await aging.stop(), [], 'once')

  const resumed = await Aging.open(config, {}, Promise.resolve(notes))
  t.match(resumed.vpgs, [
    { indexedThrough: checkpoint.ordinal, tags: [{ name: 'before' }], segments: [], checkpoints: [checkpoint] },
  ])
  await resumed.close()
  await t.rejects(Aging.open(config, {}, Promise.reject(new Error('no index'))), { message: 'no index' })
  const again = await Aging.open(config)
  const [opened] = again.vpgs
  t.same(opened?.offloaded, checkpoint.vector, 'the next process knows what is offloaded')
  t.same(opened?.checkpoints.at(-1), checkpoint, 'and its checkpoint')
  t.equal(opened?.tags[0]?.name, 'before', 'and its tag')
  await again.start({ durable: journal.durable() })
  const { unsealedSizeBytes } = await again.status({ vpg: model.vpg })
  t.equal(unsealedSizeBytes, 0, 'what is offloaded is not sealed twice')
  await again.close()
  await journal.close()
})
