import t from 'tap'
import { checkpointsBeforeFoldMax, foldSizeBytesMax, foldWriteCountMax } from '../../src/base/limits.ts'
import type { Ordinal, Sequence } from '../../src/base/ids.ts'
import { GiB, MiB } from '../../src/base/units.ts'
import { planFold } from '../../src/timeline/fold-plan.ts'
import type { SegmentSpan, VpgState } from '../../src/timeline/state.ts'

const perSegment = 1000

function segment(number: number, size: { rawSizeBytes: number; writeCount: number }): SegmentSpan {
  return {
    kind: 'segment',
    commitNumber: number,
    object: { key: `s${number}`, sizeBytes: 1 },
    footerOffsetBytes: 0,
    footerSizeBytes: 1,
    ranges: [
      { stream: 1, generation: 1, firstSequence: number * perSegment + 1, lastSequence: (number + 1) * perSegment },
    ],
    ...size,
    firstOrdinal: number as Ordinal,
    lastOrdinal: number as Ordinal,
  }
}

/** A checkpoint at the end of every `every`th segment. */
function backlog(count: number, every: number, size: { rawSizeBytes: number; writeCount: number }) {
  const segments = Array.from({ length: count }, (_, number) => segment(number, size))
  const checkpoints = segments
    .filter(({ commitNumber }) => commitNumber % every === every - 1)
    .map(({ commitNumber }) => ({
      ordinal: (commitNumber + 1) as Ordinal,
      timestampMicros: commitNumber,
      historyMillis: commitNumber,
      vector: [{ stream: 1, generation: 1, sequence: ((commitNumber + 1) * perSegment) as Sequence }],
      volumes: [],
    }))
  const state: VpgState = {
    definition: { journalLimitSizeBytes: 0 } as VpgState['definition'],
    epoch: 1,
    commitNumber: count,
    deltas: [],
    segments,
    regions: [],
    offloaded: [{ stream: 1, generation: 1, sequence: (count * perSegment) as Sequence }],
    historyEdge: 0 as Ordinal,
    tags: [],
    pins: [],
    recoveries: [],
    holes: [],
    garbage: [],
  }
  return { state, checkpoints }
}

const limits = { foldSizeBytesMin: 256 * MiB }

t.test('a fold of a backlog takes no more than fits in memory and scratch, and the next one goes on there', async t => {
  for (const size of [
    { rawSizeBytes: GiB, writeCount: 16_384 },
    { rawSizeBytes: MiB, writeCount: foldWriteCountMax / 4 },
  ]) {
    const { state, checkpoints } = backlog(100, 1, size)
    const plan = planFold(state, { fromVector: [], checkpoints }, limits)
    t.ok(plan)
    const rawSizeBytes = plan?.segments.reduce((sum, one) => sum + one.rawSizeBytes, 0) ?? Infinity
    const writeCount = plan?.segments.reduce((sum, one) => sum + one.writeCount, 0) ?? Infinity
    t.ok(rawSizeBytes <= foldSizeBytesMax, `${rawSizeBytes} raw bytes`)
    t.ok(writeCount <= foldWriteCountMax, `${writeCount} writes`)
    t.equal(plan?.checkpoints.at(-1)?.ordinal, plan?.toOrdinal)
    t.equal(plan?.segments.length, plan?.checkpoints.length, 'whole segments, with all their checkpoints')
    const rest = planFold(state, { fromVector: plan?.toVector ?? [], checkpoints }, limits)
    t.ok(rest, 'what is left is due at once')
  }
})

t.test('what lies before the next checkpoint is folded in open deltas while it is more than one takes', async t => {
  const { state, checkpoints } = backlog(100, 50, { rawSizeBytes: GiB, writeCount: 1000 })
  let at: VpgState = state
  let fromVector: VpgState['offloaded'] = []
  for (let open = 1; open <= 6; open++) {
    const plan = planFold(at, { fromVector, checkpoints }, limits)
    t.match(plan, { open, fromOrdinal: 0, toOrdinal: 1, checkpoints: [] })
    t.equal(plan?.segments.length, 8)
    if (plan === undefined) return
    const { fromOrdinal, toOrdinal } = plan
    const page = { key: `page${open}`, sizeBytes: 1 }
    const delta = { kind: 'delta', fromOrdinal, toOrdinal, open, packs: [], checkpoints: page } as const
    at = {
      ...at,
      segments: at.segments.slice(8),
      deltas: [...at.deltas, { ...delta, checkpointCount: 0, rawSizeBytes: 1 }],
    }
    fromVector = plan.toVector as VpgState['offloaded']
  }
  const closed = planFold(at, { fromVector, checkpoints }, limits)
  t.match(closed, { open: undefined, fromOrdinal: 0, toOrdinal: 50 })
  t.equal(closed?.segments.length, 2)
})

t.test(
  'an open delta goes past checkpoints that a hole has withdrawn, never into a hole that nothing has repaired',
  async t => {
    const { state, checkpoints } = backlog(100, 1, { rawSizeBytes: GiB, writeCount: 1000 })
    const hole = {
      stream: 1,
      generation: 1,
      firstSequence: 2001,
      lastSequence: 2001,
      fromOrdinal: 3 as Ordinal,
      reason: '',
      ranges: [],
    }
    const waiting = { fromVector: [], checkpoints: checkpoints.slice(2) }
    const holed = planFold({ ...state, holes: [hole] }, waiting, limits)
    t.match(holed, { open: 1 })
    t.equal(holed?.segments.length, 2)
    const repaired = planFold({ ...state, holes: [{ ...hole, repairedFromOrdinal: 90 as Ordinal }] }, waiting, limits)
    t.match(repaired, { open: 1 })
    t.equal(repaired?.segments.length, 8, 'as much as a fold takes')
  },
)

t.test('a segment that holds the next checkpoint is folded up to it, however large it is', async t => {
  const { state, checkpoints } = backlog(100, 1, { rawSizeBytes: 9 * GiB, writeCount: 1000 })
  t.equal(planFold(state, { fromVector: [], checkpoints }, limits)?.toOrdinal, 1)
})

t.test('a quiet VPG is folded for its checkpoints, which wait in memory', async t => {
  const quiet = backlog(checkpointsBeforeFoldMax + 1, 1, { rawSizeBytes: 0, writeCount: 0 })
  const state = { ...quiet.state, segments: [{ ...segment(0, { rawSizeBytes: 0, writeCount: 0 }), ranges: [] }] }
  t.equal(planFold(state, { fromVector: [], checkpoints: quiet.checkpoints.slice(1) }, limits), undefined)
  t.equal(
    planFold(state, { fromVector: [], checkpoints: quiet.checkpoints }, limits)?.checkpoints.length,
    checkpointsBeforeFoldMax + 1,
  )
})
