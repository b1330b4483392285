import t, { type Test } from 'tap'
import { Failure } from '../../src/base/failure.ts'
import { ordinal } from '../../src/base/ids.ts'
import { repairMillisBetween } from '../../src/base/limits.ts'
import { Repairs, type RepairsParts } from '../../src/daemon/repairs.ts'
import { VpgEntry, VpgTable } from '../../src/daemon/vpg-table.ts'
import type { Hole } from '../../src/timeline/state.ts'
import { openedVpg } from '../support/opened-vpg.ts'
import { ManualClock } from '../support/wire-manual-clock.ts'

const opened = openedVpg()
const hole: Hole = {
  ...{ stream: 1, generation: 1, firstSequence: 4, lastSequence: 9, fromOrdinal: ordinal(5) },
  ...{ reason: 'a bad payload', ranges: [{ volume: 1, offsetBytes: 0, sizeBytes: 4096 }] },
}

function running(t: Test) {
  const clock = new ManualClock()
  const table = new VpgTable()
  const entry = new VpgEntry(opened, clock)
  table.add(entry)
  const asked: unknown[] = []
  const peer = { isHere: true, leaves: false }
  const ingest = {
    status: () => ({ streams: [{ stream: 1, agent: 'orders-host', session: peer.isHere ? {} : undefined }] }),
    requestSync: (...request: unknown[]) => {
      if (peer.leaves) throw new Failure('PEER_LOST', 'it has just left')
      asked.push(request)
    },
  } as unknown as RepairsParts['ingest']
  const repairs = new Repairs({ clock, table, ingest, asked: () => undefined })
  t.teardown(() => repairs.close())
  return { clock, table, entry, asked, peer, repairs }
}

t.test('a hole is repaired when its agent is there, once, and again ever more seldom', async t => {
  const { clock, entry, asked, peer, repairs } = running(t)
  repairs.review()
  t.same(asked, [], 'nothing is missing')
  entry.holes = [hole]
  peer.isHere = false
  repairs.review()
  peer.isHere = true
  peer.leaves = true
  repairs.review()
  t.same(asked, [], 'nobody is there')
  peer.leaves = false
  await clock.advance(6_000)
  t.same(asked, [[opened.definition.id, 'delta', [1]]], 'looked for by itself')
  await clock.advance(repairMillisBetween - 2_000)
  t.equal(asked.length, 1)
  await clock.advance(7_000)
  t.equal(asked.length, 2, 'it has sent another bad record')
  await clock.advance(repairMillisBetween)
  t.equal(asked.length, 2)
  await clock.advance(repairMillisBetween + 6_000)
  t.equal(asked.length, 3)
})

t.test('what is repaired, under repair or not taken is left alone', t => {
  const { table, entry, asked, repairs } = running(t)
  entry.holes = [
    { ...hole, repair: { stream: 1, generation: 2, volumes: [1] } },
    { ...hole, fromOrdinal: ordinal(3), repairedFromOrdinal: ordinal(4) },
  ]
  repairs.review()
  entry.holes = [hole]
  table.sealingStopped.set(opened.definition.id, 'damaged')
  repairs.review()
  table.sealingStopped.clear()
  entry.definition = { ...entry.definition, paused: true }
  repairs.review()
  t.same(asked, [])
  entry.definition = opened.definition
  entry.holes = [{ ...hole, ranges: [] }]
  repairs.review()
  t.same(asked, [[opened.definition.id, 'delta', opened.definition.volumes.map(({ number }) => number)]])
  t.end()
})
