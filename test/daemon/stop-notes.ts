import t from 'tap'
import type { AgingNotices, StopNote } from '../../src/aging/service.ts'
import { systemClock } from '../../src/base/clock.ts'
import { vpgId, type VpgId } from '../../src/base/ids.ts'
import { StopNotes } from '../../src/daemon/stop-notes.ts'
import { VpgEntry, VpgTable } from '../../src/daemon/vpg-table.ts'
import { openedVpg } from '../support/opened-vpg.ts'

const ids = ['1a', '2b', '3c', '4d', '5e'].map(digits => vpgId(digits.repeat(16))) as VpgId[]
const [plain, sealedLate, fenced, sealedBefore, unknown] = ids as [VpgId, VpgId, VpgId, VpgId, VpgId]

function committed(vpg: VpgId): AgingNotices['segmentCommitted'] {
  return { vpg } as unknown as AgingNotices['segmentCommitted']
}

function site() {
  const table = new VpgTable()
  for (const id of ids.filter(each => each !== unknown)) {
    const opened = openedVpg({ definition: { ...openedVpg().definition, id, name: id } })
    table.add(new VpgEntry(opened, systemClock))
  }
  const kept: (readonly StopNote[])[] = []
  const aging = { stop: async () => ids.map(vpg => ({ vpg, text: vpg })) }
  const stop = new StopNotes({ aging, table, catalog: { keepNotes: async notes => void kept.push(notes) } })
  return { stop, table, kept }
}

t.test('of a VPG of which the index may lack something no note is kept', async t => {
  const { stop, table, kept } = site()
  const heard: VpgId[] = []
  const handlers = stop.watching({ segmentCommitted: ({ vpg }) => void heard.push(vpg) })
  stop.indexIsWhole()
  handlers.segmentCommitted?.(committed(sealedBefore))
  table.get(fenced)!.fenced = 'another appliance owns it'
  stop.ingestIsClosing()
  handlers.segmentCommitted?.(committed(sealedLate))
  await stop.close()
  t.same(heard, [sealedBefore, sealedLate])
  t.same(
    kept.flat().map(({ vpg }) => vpg),
    [plain, sealedBefore],
  )
})

t.test('nor any where the index was never made whole', async t => {
  const { stop, kept } = site()
  await stop.close()
  t.same(kept, [])
})
