import * as path from 'node:path'
import t, { type Test } from 'tap'
import { unpacked } from '../../src/aging/aging.ts'
import { MirrorWorker } from '../../src/aging/mirror-worker.ts'
import type { AgingNotices } from '../../src/aging/service.ts'
import { Failure } from '../../src/base/failure.ts'
import { ordinal, vpgId, type VpgId } from '../../src/base/ids.ts'
import { Catalog } from '../../src/catalog/catalog.ts'
import { Checkpoints } from '../../src/daemon/checkpoints.ts'
import { Histories } from '../../src/daemon/histories.ts'
import { loadHistory } from '../../src/daemon/load-catalog.ts'
import { reconcile } from '../../src/daemon/reconcile.ts'
import { VpgEntry } from '../../src/daemon/vpg-table.ts'
import { VpgTable } from '../../src/daemon/vpg-table.ts'
import { encodeCheckpoints } from '../../src/manifest/manifest.ts'
import type { RecoveredLog } from '../../src/journal/journal.ts'
import { AgingModel } from '../support/aging-model.ts'
import { FatefulStore } from '../support/aging-surroundings.ts'
import { checkpointNumbers, HeardEvents } from '../support/catalog-rows.ts'
import { MemoryStore } from '../support/segment-store.ts'
import { randomFrom } from '../support/segment-records.ts'
import { ManualClock } from '../support/wire-manual-clock.ts'
import { openedVpg } from '../support/opened-vpg.ts'

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
  const notTaken: Failure[] = []
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
  histories = new Histories({ aging, catalog, clock: own.clock, table, notTaken: error => void notTaken.push(error) })
  const checkpoints = new Checkpoints(catalog, histories)
  const listed = async (id: VpgId): Promise<readonly string[]> => {
    const query = { vpg: '', limit: 1000, order: 'oldest-first' as const }
    return (await checkpoints.list(table.get(id)!, query)).checkpoints.map(({ checkpoint }) => checkpoint)
  }
  return { aging, catalog, checkpoints, listed, loads, notTaken, read, reconciled, table }
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
    t.equal((await first.checkpoints.overviews([first.table.get(id)!]))[0]?.oldest, undefined, 'nobody knows')
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
  t.strictSame([...first.notTaken, ...second.notTaken], [])
  t.strictSame(second.read.toSorted(), ids.toSorted())
  for (const [id, { checkpoints }] of models) {
    t.equal((await second.listed(id)).length, checkpoints.length)
    t.ok((await second.checkpoints.overviews([second.table.get(id)!]))[0]?.oldest)
  }
  await second.catalog.close()
})

t.test('an index that could not take a history is asked again, and has then what changed meanwhile, too', async t => {
  const catalog = await Catalog.open({ file: path.join(t.testdir(), 'index.sqlite'), events: new HeardEvents() })
  t.teardown(() => catalog.close())
  const clock = new ManualClock()
  const checkpoints = checkpointNumbers(1, 9)
  const opened = openedVpg({ checkpoints: checkpoints.slice(8), isUnread: true })
  const vpg = opened.definition.id
  const entry = new VpgEntry(opened, clock)
  const table = new VpgTable()
  table.add(entry)
  let hasRoom = false
  const full = new Failure('DISK_FAILED', 'the disk is full')
  const notTaken: Failure[] = []
  const loadVpg: Catalog['loadVpg'] = async argument => {
    t.type(argument.checkpoints, Uint8Array, 'decoded by the thread of the index')
    if (!hasRoom) throw full
    await catalog.loadVpg(argument)
  }
  const aging = { readHistory: async () => void t.fail('aging has told it') }
  const histories = new Histories({ aging, catalog: { loadVpg }, clock, table, notTaken: e => void notTaken.push(e) })
  const checkpointPage = encodeCheckpoints(checkpoints)
  const read = histories.read({ vpg, segments: [], checkpointPage, offloaded: [] })
  await t.rejects(histories.untilIndexed(entry), full)
  t.equal(entry.unreadThrough, checkpoints[8]!.ordinal, 'nobody takes it for all')
  const edge = ordinal(checkpoints[3]!.ordinal)
  await histories.change(vpg, () => catalog.dropCheckpoints({ vpg, edge, kept: [] }))
  await histories.change(vpg, () => catalog.thinCheckpoints({ vpg, dropped: [checkpoints[5]!.ordinal] }))
  await t.rejects(histories.untilIndexed(entry), full, 'whoever asks has it tried again')
  const refusedCount = notTaken.length
  await clock.advance(1_000)
  await new Promise(resolve => setImmediate(resolve))
  t.ok(notTaken.length > refusedCount, 'and it is tried without anybody')
  hasRoom = true
  await histories.untilIndexed(entry)
  const page = await catalog.listCheckpoints({ vpg, limit: 20, order: 'oldest-first' })
  t.strictSame(page.checkpoints, [...checkpoints.slice(3, 5), ...checkpoints.slice(6)])
  t.equal(entry.unreadThrough, undefined)
  await clock.advance(120_000)
  await read
  await histories.change(vpg, () => catalog.thinCheckpoints({ vpg, dropped: [checkpoints[6]!.ordinal] }))
  await histories.untilIndexed(entry)
  t.strictSame((await catalog.statistics({ vpg })).checkpointCount, 4)
})

t.test(
  'the history of a VPG that was removed meanwhile is not given to the index, nor any after the close',
  async t => {
    for (const end of ['removed', 'closed'] as const) {
      const clock = new ManualClock()
      const opened = openedVpg({ isUnread: true })
      const vpg = opened.definition.id
      const table = new VpgTable()
      table.add(new VpgEntry(opened, clock))
      let askedCount = 0
      const loadVpg = async (): Promise<void> => {
        askedCount++
        throw new Failure('DISK_FAILED', 'the disk is full')
      }
      const aging = { readHistory: async () => undefined }
      const histories = new Histories({ aging, catalog: { loadVpg }, clock, table, notTaken: () => undefined })
      const read = histories.read({ vpg, segments: [], checkpointPage: encodeCheckpoints([]), offloaded: [] })
      await new Promise(resolve => setImmediate(resolve))
      if (end === 'closed') await histories.close()
      else table.remove(vpg)
      await clock.advance(1_000)
      await read
      t.equal(askedCount, 1, end)
    }
  },
)
