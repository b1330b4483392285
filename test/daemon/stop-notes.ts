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

function unwanted(error: unknown): void {
  throw error
}

function site() {
  const table = new VpgTable()
  for (const id of ids.filter(each => each !== unknown)) {
    const opened = openedVpg({ definition: { ...openedVpg().definition, id, name: id } })
    table.add(new VpgEntry(opened, systemClock))
  }
  const kept: (readonly StopNote[])[] = []
  const aging = { stop: async () => ids.map(vpg => ({ vpg, text: vpg })) }
  const catalog = { keepNotes: async (notes: readonly StopNote[]) => void kept.push(notes) }
  const stop = new StopNotes({ aging, table, catalog })
  return { stop, table, kept, catalog }
}

t.test('of a VPG of which the index may lack something no note is kept', async t => {
  const { stop, table, kept } = site()
  const heard: VpgId[] = []
  const handlers = stop.watching({ segmentCommitted: ({ vpg }) => void heard.push(vpg) }, unwanted)
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

t.test(
  'while it runs notes are kept in their order, the newest of each VPG, and at the end those of the stop',
  async t => {
    const { stop, kept, catalog } = site()
    const taken: (() => void)[] = []
    catalog.keepNotes = async notes => {
      kept.push(notes)
      await new Promise<void>(resolve => taken.push(resolve))
    }
    const { noted } = stop.watching({}, unwanted)
    noted?.({ vpg: plain, text: 'too early' })
    stop.indexIsWhole()
    noted?.({ vpg: plain, text: 'first' })
    noted?.({ vpg: plain, text: 'second' })
    noted?.({ vpg: plain, text: 'third' })
    noted?.({ vpg: unknown, text: 'of nobody' })
    t.same(kept, [[{ vpg: plain, text: 'first' }]], 'one after the other')
    taken.shift()?.()
    await new Promise(resolve => setImmediate(resolve))
    t.same(kept.at(-1), [{ vpg: plain, text: 'third' }])
    noted?.({ vpg: plain, text: 'older than the stop' })
    const closed = stop.close()
    await new Promise(resolve => setImmediate(resolve))
    t.equal(kept.length, 2, 'what is under way is first')
    taken.shift()?.()
    await new Promise(resolve => setImmediate(resolve))
    taken.shift()?.()
    await closed
    t.equal(kept.length, 3)
    t.match(kept.at(-1)?.[0], { vpg: plain, text: plain })
  },
)

t.test('an index that does not take a note is told of, and given the next', async t => {
  const { stop, kept, catalog } = site()
  const { keepNotes } = catalog
  const failed: unknown[] = []
  const { noted } = stop.watching({}, error => void failed.push(error))
  stop.indexIsWhole()
  catalog.keepNotes = () => Promise.reject(new Error('no room'))
  noted?.({ vpg: plain, text: 'first' })
  await new Promise(resolve => setImmediate(resolve))
  t.match(failed, [{ message: 'no room' }])
  catalog.keepNotes = keepNotes
  noted?.({ vpg: plain, text: 'second' })
  await new Promise(resolve => setImmediate(resolve))
  t.same(kept, [[{ vpg: plain, text: 'second' }]])
})

t.test('nor any note where the index was never made whole', async t => {
  const { stop, kept } = site()
  await stop.close()
  t.same(kept, [])
})
