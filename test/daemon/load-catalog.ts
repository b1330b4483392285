import * as path from 'node:path'
import t from 'tap'
import { ordinal, sequence, vpgId } from '../../src/base/ids.ts'
import { Catalog } from '../../src/catalog/catalog.ts'
import { loadHistory, loadTail } from '../../src/daemon/load-catalog.ts'
import { freshIngestVpg, type ReconciledVpg } from '../../src/daemon/reconcile.ts'
import { HeardEvents, tailRows } from '../support/catalog-rows.ts'

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
