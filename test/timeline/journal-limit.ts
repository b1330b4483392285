import t from 'tap'
import type { Ordinal } from '../../src/base/ids.ts'
import { regionSizeBytes } from '../../src/base/limits.ts'
import { historySizeBytes, lacksRoomForSync, planEarlyAging } from '../../src/timeline/journal-limit.ts'
import { unread } from '../../src/timeline/reach.ts'
import { regionSizes } from '../../src/timeline/region-sizes.ts'
import type { DeltaSpan, PackRef, RegionVersion, VpgState } from '../../src/timeline/state.ts'
import { AgingModel } from '../support/aging-model.ts'
import { randomFrom } from '../support/segment-records.ts'

const { definition } = new AgingModel(randomFrom(1), t.testdir(), 10_000)
const countMax = 100

function pack(key: string, region: number, sizeBytes = 100): PackRef {
  return {
    object: { key, sizeBytes },
    volume: 1,
    startBytes: region * regionSizeBytes,
    endBytes: (region + 1) * regionSizeBytes,
    indexOffsetBytes: 0,
    extentCount: 1,
    rawSizeBytes: sizeBytes,
    regionRawSizeBytes: regionSizes([[region, sizeBytes]]),
  }
}

/** Deltas of one checkpoint each, from 1 on: each with 100 bytes in every region that is listed for it. */
function deltasOver(...regions: readonly (readonly number[])[]): DeltaSpan[] {
  return regions.map((touched, index) => ({
    kind: 'delta',
    fromOrdinal: index as Ordinal,
    toOrdinal: (index + 1) as Ordinal,
    packs: touched.map(region => pack(`delta${index + 1}.${region}`, region)),
    checkpoints: { key: `page${index + 1}`, sizeBytes: 0 },
    checkpointCount: 1,
    rawSizeBytes: 100 * touched.length,
  }))
}

function version(region: number, asOf: number, sizeBytes = 100): RegionVersion {
  return { volume: 1, region, asOfOrdinal: asOf as Ordinal, pack: pack(`base${region}.${asOf}`, region, sizeBytes) }
}

function stateOf(journalLimitSizeBytes: number, change: Partial<VpgState>): VpgState {
  return {
    definition: { ...definition, journalLimitSizeBytes },
    epoch: 1,
    commitNumber: 1,
    deltas: [],
    segments: [],
    regions: [],
    offloaded: [],
    historyEdge: 0 as Ordinal,
    tags: [],
    pins: [],
    recoveries: [],
    holes: [],
    garbage: [],
    ...change,
  }
}

function upTo(count: number): { ordinals: Ordinal[]; segmentsFrom: [] } {
  return { ordinals: Array.from({ length: count }, (_, index) => (index + 1) as Ordinal), segmentsFrom: [] }
}

t.test('the newest mirror does not count, all else does', async t => {
  const state = stateOf(0, { deltas: deltasOver([0], [0, 1]), regions: [version(0, 1, 1000), version(0, 2, 5000)] })
  t.equal(historySizeBytes(state), 300 + 1000)
})

t.test('without a limit, and up to it, nothing is done', async t => {
  const deltas = deltasOver([0], [0], [0], [0])
  t.equal(planEarlyAging(stateOf(0, { deltas }), upTo(4), countMax), undefined)
  t.equal(planEarlyAging(stateOf(400, { deltas }), upTo(4), countMax), undefined)
  t.ok(planEarlyAging(stateOf(399, { deltas }), upTo(4), countMax))
})

t.test('where versions lie between, the edge moves alone, and no further than it has to', async t => {
  const deltas = deltasOver([0], [0], [0], [0], [0], [0]).map(delta => ({
    ...delta,
    fromOrdinal: (2 * delta.fromOrdinal) as Ordinal,
    toOrdinal: (2 * delta.toOrdinal) as Ordinal,
  }))
  const regions = [version(0, 2, 10), version(0, 6, 10)]
  const plan = planEarlyAging(stateOf(500, { deltas, regions }), upTo(13), countMax)
  t.same(plan, { edge: 6, regions: [] })
})

t.test('the regions under the oldest deltas are rewritten as of one end, so that these can leave', async t => {
  const deltas = deltasOver([3], [1], [1, 2], [0], [0], [0], [0])
  const plan = planEarlyAging(stateOf(750, { deltas }), upTo(8), countMax)
  t.equal(plan?.edge, 3)
  t.same(
    plan?.regions.map(({ region, fromOrdinal, asOfOrdinal }) => [region, fromOrdinal, asOfOrdinal]),
    [3, 1, 2].map(region => [region, 0, 3]),
  )
  t.equal(planEarlyAging(stateOf(750, { deltas }), upTo(8), 2)?.regions.length, 2, 'a few at a time')
  const state = stateOf(750, { deltas })
  const preseed = { state: 'under-way' as const, file: '/image', modifiedNanos: '1', doneRegionCount: 1 }
  const volumes = state.definition.volumes.map(volume => (volume.number === 1 ? { ...volume, preseed } : volume))
  const preseeded = { ...state, definition: { ...state.definition, volumes } }
  t.same(planEarlyAging(preseeded, upTo(8), countMax)?.regions ?? [], [], 'none while an image may come below yet')
})

t.test('what is rewritten as of the edge needs no further history', async t => {
  const deltas = deltasOver([0], [1], [2], [3])
  const state = stateOf(300, { deltas, historyEdge: 3 as Ordinal })
  const plan = planEarlyAging(state, { ...upTo(4), ordinals: [3, 4] as Ordinal[] }, countMax)
  t.equal(plan?.edge, 3)
  t.same(
    plan?.regions.map(({ region, asOfOrdinal }) => [region, asOfOrdinal]),
    [0, 1, 2].map(region => [region, 3]),
  )
})

t.test('what a tag reads stays, and no history is given for what that leaves out of reach', async t => {
  const light = deltasOver([0], [1], [2], [3])
  const heavy = { fromOrdinal: 4 as Ordinal, toOrdinal: 6 as Ordinal, packs: [pack('heavy', 4, 100_000)] }
  const deltas = light.flatMap((delta, index) => (index === 3 ? [delta, { ...delta, ...heavy }] : [delta]))
  const tags = [{ ordinal: 5 as Ordinal, name: 'keep', taggedAtMicros: 1 }]
  t.equal(planEarlyAging(stateOf(10_000, { deltas, tags }), upTo(8), countMax), undefined)
  t.ok(planEarlyAging(stateOf(10_000, { deltas }), upTo(8), countMax), 'without it they go')
})

t.test('the edge stops at the newest checkpoint that can be recovered', async t => {
  const hole = {
    stream: 1,
    generation: 1,
    firstSequence: 1,
    lastSequence: 1,
    fromOrdinal: 3 as Ordinal,
    reason: '',
    ranges: [],
  }
  const state = stateOf(10, { deltas: deltasOver([0], [0], [0], [0]), holes: [hole] })
  const plan = planEarlyAging(state, upTo(4), countMax)
  t.equal(plan?.edge, 2)
  t.same(
    plan?.regions.map(({ asOfOrdinal }) => asOfOrdinal),
    [2],
  )
})

t.test(
  'followed step by step, plans end, lower the size to the limit where that can be, and lose no more history than they say',
  async t => {
    for (let seed = 1; seed <= 80; seed++) {
      const random = randomFrom(seed)
      const below = (end: number): number => Math.floor(random() * end)
      const limit = 300 + below(1500)
      let state = stateOf(limit, {})
      let ordinals: Ordinal[] = []
      for (let step = 0; step < 20; step++) {
        const from = (state.deltas.at(-1)?.toOrdinal ?? 0) as Ordinal
        const to = (from + 1 + below(4)) as Ordinal
        const regions = [0, 1, 2, 3, 4].filter(() => random() < 0.5)
        const packs = regions.map(region => pack(`d${step}.${region}`, region, 20 + below(80)))
        const checkpoints = { key: `page${step}`, sizeBytes: 0 }
        const delta = {
          kind: 'delta',
          fromOrdinal: from,
          toOrdinal: to,
          packs,
          checkpoints,
          checkpointCount: 1,
          rawSizeBytes: 1,
        } as const
        state = { ...state, deltas: [...state.deltas, delta] }
        for (let ordinal = from + 1; ordinal <= to; ordinal++) ordinals.push(ordinal as Ordinal)
        let plans = 0
        for (;;) {
          const plan = planEarlyAging(state, { ordinals, segmentsFrom: [] }, 2)
          if (plan === undefined) break
          if (++plans > 100) return t.fail(`seed ${seed}: plans never end`)
          const made = plan.regions.map(({ region, asOfOrdinal }) => version(region, asOfOrdinal, 50 + below(100)))
          t.ok(plan.edge >= state.historyEdge && plan.edge <= to, 'the edge goes on, to what there is')
          const moved = { ...state, regions: [...state.regions, ...made], historyEdge: plan.edge }
          state = { ...moved, ...unread(moved, ordinals, []) }
          ordinals = ordinals.filter(ordinal => ordinal >= plan.edge)
        }
        if (historySizeBytes(state) > limit)
          return t.fail(`seed ${seed}, step ${step}: ${historySizeBytes(state)} over ${limit}`)
        if (!ordinals.includes(to)) return t.fail(`seed ${seed}: the newest is gone`)
      }
    }
    t.pass()
  },
)

t.test('there is no room for a synchronisation when only the last checkpoint is left to give', async t => {
  const deltas = deltasOver([0], [0], [0], [0])
  const now = { isHeld: false }
  const last = { deltas, historyEdge: 4 as Ordinal }
  t.equal(lacksRoomForSync(stateOf(0, last), upTo(4), now), false, 'no limit')
  t.equal(lacksRoomForSync(stateOf(400, last), upTo(4), now), false, 'within the limit')
  t.equal(lacksRoomForSync(stateOf(399, last), upTo(4), now), true)
  t.equal(lacksRoomForSync(stateOf(399, { deltas }), upTo(4), now), false, 'older ones can go first')
  t.equal(lacksRoomForSync(stateOf(399, { deltas }), upTo(0), now), false, 'nothing to lose before the first')
  t.equal(lacksRoomForSync(stateOf(410, last), upTo(4), { isHeld: true }), true, 'room is made first')
  t.equal(lacksRoomForSync(stateOf(440, last), upTo(4), { isHeld: true }), false)
  const passing = stateOf(300, last)
  const definition = { ...passing.definition, syncMayPassLimit: true }
  t.equal(lacksRoomForSync({ ...passing, definition }, upTo(4), now), false)
})
