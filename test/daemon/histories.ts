import * as path from 'node:path'
import t, { type Test } from 'tap'
import { unpacked } from '../../src/aging/aging.ts'
import { MirrorWorker } from '../../src/aging/mirror-worker.ts'
import type { AgingNotices } from '../../src/aging/service.ts'
import { vpgId, type VpgId } from '../../src/base/ids.ts'
import { Catalog } from '../../src/catalog/catalog.ts'
import { Checkpoints } from '../../src/daemon/checkpoints.ts'
import { Histories } from '../../src/daemon/histories.ts'
import { loadHistory } from '../../src/daemon/load-catalog.ts'
import { reconcile } from '../../src/daemon/reconcile.ts'
import { VpgEntry } from '../../src/daemon/vpg-table.ts'
import { VpgTable } from '../../src/daemon/vpg-table.ts'
import type { RecoveredLog } from '../../src/journal/journal.ts'
import { AgingModel } from '../support/aging-model.ts'
import { FatefulStore } from '../support/aging-surroundings.ts'
import { HeardEvents } from '../support/catalog-rows.ts'
import { MemoryStore } from '../support/segment-store.ts'
import { randomFrom } from '../support/segment-records.ts'

// An appliance on an empty disk takes over VPGs of which it reads the roots alone. Invariants: all are served, with their newest checkpoints, before the index
// has their histories; who asks for one VPG's is answered with all of it; a process that ends in the middle costs the next one nothing but to begin again.

const ids = ['1a', '2b', '3c', '4d', '5e'].map(digits => vpgId(digits.repeat(16)))
const nothing = { streams: [], records: [], markers: [], untoldCount: 0 } as unknown as RecoveredLog
const nowMicros = 10_000_000_000_000

/** Five VPGs of a lost appliance, each with deltas, in one store. */
async function lostSite(t: Pick<Test, 'testdir'>): Promise<{ memory: MemoryStore; models: Map<VpgId, AgingModel> }> {
  const memory = new MemoryStore()
  const models = new Map<VpgId, AgingModel>()
  for (const [index, id] of ids.entries()) {
    const model = new AgingModel(randomFrom(index + 1), path.join(t.testdir(), id), 36_000_000, id)
    Object.assign(model, { memory, images: memory })
    Object.assign(model.definition, { name: `vpg-${index}` })
    await model.restart()
    await model.worker.createVpg(model.definition)
    while (model.notices.filter(({ name }) => name === 'folded').length < 2) {
      model.write(1, 8)
      model.checkpoint()
      model.clock.advance(11_000)
      await model.age()
    }
    await model.worker.seal({ vpg: id })
    models.set(id, model)
  }
  return { memory, models }
}

/** The parts of a daemon between the aging thread and who asks for checkpoints. */
async function successor(memory: MemoryStore, directory: string) {
  const own = new AgingModel(randomFrom(9), directory, 60_000)
  const table = new VpgTable()
  const read: VpgId[] = []
  let histories: Histories | undefined
  const loads: Promise<void>[] = []
  const notify = (name: keyof AgingNotices, notice: AgingNotices[keyof AgingNotices]): void => {
    if (name !== 'historyRead') return
    const told = notice as AgingNotices['historyRead']
    read.push(told.vpg)
    if (histories !== undefined) loads.push(histories.read(told))
  }
  const aging = new MirrorWorker(own.clock, notify, {
    openStore: async () => new FatefulStore(memory),
    openLog: () => own.log.reader(),
    wholeSizeBytesMax: 0,
  })
  const catalog = await Catalog.open({ file: path.join(directory, 'index.sqlite'), events: new HeardEvents() })
  const { vpgs } = await aging.open({ ...own.config, applianceId: 'appliance-two', adopt: true })
  const reconciled = reconcile(vpgs.map(unpacked), nothing)
  for (const { opened } of reconciled) table.add(new VpgEntry(opened, own.clock))
  await loadHistory(catalog, reconciled)
  await aging.follow({ durable: own.log.mark })
  histories = new Histories({ aging, catalog, table })
  const checkpoints = new Checkpoints(catalog, histories)
  const listed = async (id: VpgId): Promise<readonly string[]> => {
    const query = { vpg: '', limit: 1000, order: 'oldest-first' as const }
    return (await checkpoints.list(table.get(id)!, query)).checkpoints.map(({ checkpoint }) => checkpoint)
  }
  return { aging, catalog, checkpoints, listed, loads, read, reconciled, table }
}

t.test('VPGs are served before their histories are read, and asked for their checkpoints they have all', async t => {
  const { memory, models } = await lostSite(t)
  const directory = t.testdir()
  const first = await successor(memory, directory)
  t.equal(first.reconciled.length, ids.length)
  t.ok(first.reconciled.every(({ opened, ingest }) => opened.epoch === 2 && ingest.lastCheckpoint !== undefined))
  for (const [id, model] of models) {
    const newest = model.checkpoints.at(-1)!.checkpoint
    t.match(await first.checkpoints.find(first.table.get(id)!, 'latest', nowMicros), { ordinal: newest.ordinal })
    t.equal(await first.checkpoints.oldest(first.table.get(id)!), undefined, 'nobody knows')
  }
  t.strictSame(first.read, [], 'nothing was read for that')

  const asked = ids[3]!
  const model = models.get(asked)!
  const all = await first.listed(asked)
  t.equal(all.length, model.checkpoints.length)
  t.strictSame(first.read, [asked], 'it alone is read')
  for (const made of [model.checkpoints[0]!, model.checkpoints.at(-1)!]) {
    const plan = await first.aging.openImage({ vpg: asked, checkpoint: made.checkpoint, owner: 'test' })
    t.equal(await model.difference(plan), undefined)
  }
  const unread = ids[0]!
  const oldest = models.get(unread)!.checkpoints[0]!
  const plan = await first.aging.openImage({ vpg: unread, checkpoint: oldest.checkpoint, owner: 'test' })
  t.equal(await models.get(unread)!.difference(plan), undefined, 'an image of one that the index does not have')
  await Promise.all(first.loads)

  // It is killed: what the index has of the rest is as little as before.
  await first.catalog.close()
  const second = await successor(memory, directory)
  t.ok(
    second.reconciled.every(({ opened }) => opened.epoch === 2),
    'nothing is taken over twice',
  )
  while (await second.aging.step());
  await Promise.all(second.loads)
  t.strictSame(second.read.toSorted(), ids.toSorted())
  for (const [id, { checkpoints }] of models) {
    t.equal((await second.listed(id)).length, checkpoints.length)
    t.ok(await second.checkpoints.oldest(second.table.get(id)!))
  }
  await second.catalog.close()
})
