import t from 'tap'
import type { OpenedVpg, StopNote } from '../../src/aging/service.ts'
import { systemClock } from '../../src/base/clock.ts'
import { Failure } from '../../src/base/failure.ts'
import { ordinal, vpgId, type VpgId } from '../../src/base/ids.ts'
import type { Log } from '../../src/daemon/log.ts'
import { StopNotes } from '../../src/daemon/stop-notes.ts'
import { takeStore, takeVpg, type StoreReturnParts } from '../../src/daemon/store-return.ts'
import { VpgEntry, VpgTable } from '../../src/daemon/vpg-table.ts'
import type { VpgDefinition } from '../../src/timeline/definition.ts'
import { checkpointNumbers } from '../support/catalog-rows.ts'
import { openedVpg } from '../support/opened-vpg.ts'

const [first, second, third] = ['1a', '2b', '3c'].map(digits => vpgId(digits.repeat(16))) as [VpgId, VpgId, VpgId]
const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined } as unknown as Log

function vpg(id: VpgId, change: Partial<VpgDefinition> = {}): OpenedVpg {
  return openedVpg({ definition: { ...openedVpg().definition, id, name: `vpg-${id.slice(0, 2)}`, ...change } })
}

/** A table and an ingest that serve these, and an index whose loads wait to be let go on. */
function site(remembered: readonly OpenedVpg[]) {
  const table = new VpgTable()
  const served = new Map<VpgId, VpgDefinition>()
  for (const opened of remembered) {
    table.add(new VpgEntry(opened, systemClock))
    served.set(opened.definition.id, opened.definition)
  }
  const loaded: VpgId[] = []
  const added: string[] = []
  const waiting: (() => void)[] = []
  const parts: StoreReturnParts & { readonly catalog: { loadVpg: StoreReturnParts['catalog']['loadVpg'] } } = {
    catalog: {
      loadVpg: async ({ vpg: id }) => {
        await new Promise<void>(resolve => waiting.push(resolve))
        loaded.push(id)
      },
      addCheckpoints: (id, checkpoints) => void added.push(...checkpoints.map(({ ordinal }) => `${id}/${ordinal}`)),
      addSegment: async ({ vpg: id, segment }) => void added.push(`${id}/commit/${segment.commitNumber}`),
    },
    clock: systemClock,
    ingest: {
      addVpg: ({ definition }) => void served.set(definition.id, definition),
      removeVpg: id => void served.delete(id),
      updateVpg: definition => {
        if (!served.has(definition.id)) throw new Failure('UNKNOWN_VPG', `ingest serves no VPG ${definition.id}`)
        served.set(definition.id, definition)
      },
      offloaded: () => undefined,
    },
    log: quiet,
    table,
    unknownInLog: {
      streams: [],
      records: [],
      markers: [],
      untoldCount: 0,
    } as unknown as StoreReturnParts['unknownInLog'],
  }
  const letOneLoad = async (): Promise<void> => {
    waiting.shift()?.()
    await new Promise(resolve => setImmediate(resolve))
  }
  return { parts, table, served, loaded, added, letOneLoad }
}

t.test(
  'all of memory is as the store says before the index is waited for, and nothing is changed until that is',
  async t => {
    const { parts, table, served, loaded, letOneLoad } = site([vpg(first), vpg(second)])
    table.storeAway = { sinceMicros: 1, sentence: 'away' }
    const taking = takeStore(parts, [vpg(first, { paused: true }), vpg(third)])
    t.same([...served.keys()], [first, third], 'one that the store does not have is served no more')
    t.same([...table.all().map(({ definition }) => definition.id)], [first, third])
    t.equal(served.get(first)?.paused, true)
    t.equal(table.storeAway, undefined)
    t.throws(() => table.requireChangeable(), { code: 'BUSY', message: /has just answered.*try again/ })
    await letOneLoad()
    await letOneLoad()
    await taking
    t.same(loaded, [first, third])
    table.requireChangeable()
  },
)

t.test('what happens while the index is loaded is not undone', async t => {
  const { parts, table, served, letOneLoad } = site([vpg(first), vpg(second)])
  const taking = takeStore(parts, [vpg(first), vpg(second), vpg(third)])
  // Another appliance takes the second over, the third is deleted, an edge moves.
  const fenced = table.get(second)!
  fenced.fenced = 'it is owned by another appliance'
  served.delete(second)
  table.remove(third)
  served.delete(third)
  table.get(first)!.historyEdge = ordinal(7)
  for (let load = 0; load < 3; load++) await letOneLoad()
  await taking
  t.same([...served.keys()], [first])
  t.equal(table.get(third), undefined)
  t.equal(table.get(first)?.historyEdge, 7)
})

t.test('a VPG that was fenced before the store told of it stays so', async t => {
  const { parts, table, served } = site([vpg(first)])
  table.get(first)!.fenced = 'it is owned by another appliance'
  served.delete(first)
  await takeStore(parts, [vpg(first, { paused: true })])
  t.equal(served.size, 0)
})

t.test('a VPG that went on elsewhere and came back ends the daemon, before anything else is taken', async t => {
  const { parts, table, served } = site([vpg(first), vpg(second)])
  const taking = takeStore(parts, [vpg(first, { paused: true }), { ...vpg(second), epoch: 3 }])
  await t.rejects(taking, { code: 'PEER_LOST', message: /at epoch 3, and was served at 1/ })
  t.equal(served.get(first)?.paused, false)
  t.equal(table.isTakingStore, false)
})

t.test('the index that has a VPG from before is not loaded again, and is told what was committed since', async t => {
  const { parts, loaded, added } = site([vpg(first)])
  const segments = [{ commitNumber: 7 }] as unknown as OpenedVpg['segments']
  const checkpoints = checkpointNumbers(1, 1)
  await takeStore(parts, [{ ...vpg(first), segments, checkpoints, indexedThrough: ordinal(0) }])
  t.same(loaded, [])
  t.same(added, [`${first}/${checkpoints[0]!.ordinal}`, `${first}/commit/7`])
})

t.test('of a VPG that comes late, known or not, no note is kept before the index has all of it', async t => {
  for (const isKnown of [true, false]) {
    const late: OpenedVpg = { ...vpg(first), checkpoints: checkpointNumbers(1, 3) }
    const { parts, table, added, letOneLoad } = site(isKnown ? [{ ...vpg(first), rememberedBecause: 'refused' }] : [])
    table.waiting.set(first, 'refused')
    const kept: (readonly StopNote[])[] = []
    const keepNotes = async (notes: readonly StopNote[]): Promise<void> => void kept.push(notes)
    const stop = new StopNotes({ aging: { stop: async () => [] }, catalog: { keepNotes }, table })
    stop.indexIsWhole()
    const { noted } = stop.watching({}, error => t.fail(String(error)))
    const taking = takeVpg(parts, first, late)
    // Aging goes on with it at once.
    noted?.({ vpg: first, text: 'as of a commit that is on its way into the index' })
    noted?.({ vpg: first, text: 'as of the next' })
    await new Promise(resolve => setImmediate(resolve))
    t.strictSame(kept, [])
    await letOneLoad()
    t.ok(await taking)
    stop.indexed(first)
    t.strictSame(kept, [[{ vpg: first, text: 'as of the next' }]])
    t.strictSame(added, [])
  }
})

t.test('of two VPGs of one name the newer is served, whichever comes late', async t => {
  const older = vpg(first, { name: 'orders', createdAtMicros: 1 })
  const newer = vpg(second, { name: 'orders', createdAtMicros: 2 })
  for (const [before, late] of [
    [older, newer],
    [newer, older],
  ] as const) {
    const { parts, table, served, letOneLoad } = site([before])
    const taking = takeVpg(parts, late.definition.id, late)
    await letOneLoad()
    t.equal(await taking, late === newer)
    t.strictSame([...served.keys()], [second])
    t.strictSame(
      table.all().map(({ definition }) => definition.id),
      [second],
    )
  }
})

t.test('nor is one kept where the index did not take it', async t => {
  const { parts, table } = site([])
  const kept: (readonly StopNote[])[] = []
  const keepNotes = async (notes: readonly StopNote[]): Promise<void> => void kept.push(notes)
  const aging = { stop: async () => [{ vpg: first, text: 'at the stop' }] }
  const stop = new StopNotes({ aging, catalog: { keepNotes }, table })
  stop.indexIsWhole()
  parts.catalog.loadVpg = () => Promise.reject(new Failure('DISK_FAILED', 'no room'))
  await t.rejects(takeVpg(parts, first, vpg(first)), { code: 'DISK_FAILED' })
  await stop.close()
  t.strictSame(kept, [])
})
