import * as path from 'node:path'
import t from 'tap'
import { newVpgId, ordinal, sequence, vpgId } from '../../src/base/ids.ts'
import { Catalog } from '../../src/catalog/catalog.ts'
import { loadHistory, loadRemembered, loadTail } from '../../src/daemon/load-catalog.ts'
import { freshIngestVpg, type ReconciledVpg } from '../../src/daemon/reconcile.ts'
import { checkpointNumbers, HeardEvents, tailRows } from '../support/catalog-rows.ts'
import { openedVpg } from '../support/opened-vpg.ts'

t.test('an index that is rebuilt from a long log has every batch of it', async t => {
  const events = new HeardEvents()
  const catalog = await Catalog.open({ file: path.join(t.testdir(), 'index.sqlite'), events })
  t.teardown(() => catalog.close())
  const id = vpgId('5a'.repeat(16))
  const definition = {
    id,
    name: 'orders',
    incarnation: 1,
    volumes: [{ number: 1, name: 'root', sizeBytes: 4096, stream: 1 }],
    streams: [{ number: 1, agent: 'a' }],
    historyMillis: 10_000,
    checkpointIntervalMillis: 1_000,
    syncRateBytesPerSecond: 0,
    paused: false,
    removedVolumes: [],
    journalWarnSizeBytes: 0,
    journalLimitSizeBytes: 0,
    createdAtMicros: 1,
  }
  const offloaded = [{ stream: 1, generation: 1, sequence: sequence(50_000) }]
  const none = {
    tags: [],
    recoveries: [],
    holes: [],
    checkpoints: [],
    segments: [],
    pendingMarkers: [],
    foldedThrough: [],
  }
  const opened = { definition, epoch: 1, offloaded, historyEdge: ordinal(0), ...none }
  const vpg: ReconciledVpg = { opened, ingest: freshIngestVpg(opened), logCheckpoints: [] }
  const records = tailRows(id, 130_000).map(row => ({ ...row, kind: 'batch' as const, epoch: 1 }))
  await loadHistory(catalog, [vpg])
  await loadTail(catalog, records, asked => (asked === id ? offloaded : undefined), new AbortController().signal)
  t.equal(events.droppedCount, 0)
  t.equal((await catalog.statistics({ vpg: id })).tailRowCount, 125_000, 'but for those that are in segments')
})

t.test('what the index has since the last stop stays in it; what it has of the log is as the log says', async t => {
  const catalog = await Catalog.open({ file: path.join(t.testdir(), 'index.sqlite'), events: new HeardEvents() })
  t.teardown(() => catalog.close())
  const checkpoints = checkpointNumbers(1, 9)
  const before = openedVpg({ checkpoints })
  const vpg = before.definition.id
  const ingest = freshIngestVpg(before)
  await loadHistory(catalog, [{ opened: before, ingest, logCheckpoints: [] }])
  const opened = { ...before, checkpoints: checkpoints.slice(6, 7), indexedThrough: checkpoints[6]!.ordinal }
  await loadHistory(catalog, [{ opened, ingest, logCheckpoints: checkpoints.slice(7, 8) }])
  const page = await catalog.listCheckpoints({ vpg, limit: 20, order: 'oldest-first' })
  t.strictSame(page.checkpoints, checkpoints.slice(0, 8))
})

t.test('a note falls where a start without the store takes from the index what the note may stand for', async t => {
  const file = path.join(t.testdir(), 'index.sqlite')
  const checkpoints = checkpointNumbers(1, 9)
  const whole = openedVpg({ checkpoints })
  const vpg = whole.definition.id
  const notes = [{ vpg, text: 'as of the ninth' }]
  const started = async (load: (catalog: Catalog) => Promise<void>): Promise<readonly unknown[]> => {
    const catalog = await Catalog.open({ file, events: new HeardEvents() })
    const found = catalog.takeNotes()
    await load(catalog)
    await catalog.close()
    return found
  }
  const vpgOf = (opened: typeof whole): ReconciledVpg[] => [
    { opened, ingest: freshIngestVpg(opened), logCheckpoints: [] },
  ]
  await started(async catalog => {
    await loadHistory(catalog, vpgOf(whole))
    await catalog.keepNotes(notes)
  })
  const logged = { ...whole, checkpoints: [], indexedThrough: checkpoints[7]!.ordinal }
  await started(catalog => loadHistory(catalog, vpgOf(logged)))
  const upToDate = { ...whole, checkpoints: checkpoints.slice(0, 8) }
  t.strictSame(await started(catalog => loadRemembered(catalog, vpgOf(upToDate))), notes, 'what is only in the log')
  const behind = { ...whole, checkpoints: checkpoints.slice(0, 5) }
  t.strictSame(await started(catalog => loadRemembered(catalog, vpgOf(behind))), notes, 'nothing was taken')
  t.strictSame(await started(async () => undefined), [])
})

t.test('however many VPGs go on from their notes, the index is asked once, and nothing is written to it', async t => {
  const checkpoints = checkpointNumbers(1, 9)
  const vpgs = Array.from({ length: 300 }, (): ReconciledVpg => {
    const before = openedVpg({ checkpoints: checkpoints.slice(8) })
    const definition = { ...before.definition, id: newVpgId() }
    const opened = { ...before, definition, indexedThrough: checkpoints[8]!.ordinal }
    return { opened, ingest: freshIngestVpg(opened), logCheckpoints: [] }
  })
  const asked: string[] = []
  await loadHistory(
    {
      loadVpg: async () => void t.fail('nothing is loaded'),
      dropCheckpointsAbove: async argument => void asked.push(`drops above of ${argument.vpgs.length}`),
      addSegment: async () => void t.fail('there is no segment'),
      addCheckpoints: (_, added) => t.strictSame(added, []),
      flush: async () => void asked.push('flush'),
    },
    vpgs,
  )
  t.strictSame(asked, ['drops above of 300', 'flush'])
})
