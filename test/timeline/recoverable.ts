import t from 'tap'
import { ordinal, type Ordinal } from '../../src/base/ids.ts'
import { densitiesDefault } from '../../src/timeline/densities.ts'
import { recoverableOf, type RecoverablePoint, type RecoverableRequest } from '../../src/timeline/recoverable.ts'
import type { Hole } from '../../src/timeline/state.ts'
import { droppedBy } from '../../src/timeline/thinning.ts'

const hourMillis = 3_600_000
const request: RecoverableRequest = { densities: densitiesDefault, checkpointIntervalMillis: 60_000, holes: [] }

/** A checkpoint a minute on the history clock; `wallMillis` may stand apart from it. */
function pointsOf(count: number, wallOf: (historyMillis: number) => number = millis => millis): RecoverablePoint[] {
  return Array.from({ length: count }, (_, index) => {
    const historyMillis = index * 60_000
    return { ordinal: ordinal(index + 1), historyMillis, timestampMicros: 1e15 + wallOf(historyMillis) * 1000 }
  })
}

const emptyState = { historyEdge: 0 as Ordinal, tags: [], pins: [], holes: [] }

t.test('what the retention has thinned for a month is as dense as it says, everywhere, and has no gap', async t => {
  let points = pointsOf(30 * 24 * 60 + 1).map(point => ({ ...point, includedCount: 1 }))
  const dropped = new Set<number>(droppedBy(densitiesDefault, points, emptyState))
  points = points.filter(point => !dropped.has(point.ordinal))
  const { periods, gaps, checkpointCount, oldest, newest } = recoverableOf(points, request)
  t.equal(checkpointCount, points.length)
  t.equal(oldest?.ordinal, 1)
  t.equal(newest?.ordinal, 30 * 24 * 60 + 1)
  t.same(gaps, [])
  t.same(
    periods.map(period => [period.everyMillis, period.toAgeMillis / hourMillis]),
    [
      [0, 4],
      [60_000, 48],
      [hourMillis, 14 * 24],
      [24 * hourMillis, 30 * 24],
    ],
  )
  for (const { coverage } of periods) t.ok(Math.min(...coverage) > 0.99, 'all of it is covered')
  t.equal(periods[3]?.coverage.length, 16, 'a part for each day, where there is one a day')
  const counted = periods.reduce((sum, period) => sum + period.checkpointCount, 0)
  t.equal(counted, points.length, 'each is counted once')
})

t.test('a gap is named by its neighbours, and its part of the period is not covered', async t => {
  const points = pointsOf(241).filter(
    ({ historyMillis }) => historyMillis <= hourMillis || historyMillis >= 2 * hourMillis,
  )
  const { periods, gaps } = recoverableOf(points, request)
  t.equal(gaps.length, 1)
  t.match(gaps[0], { wallMillis: hourMillis, historyMillis: hourMillis, withdrawnCount: 0, reason: undefined })
  t.match([gaps[0]?.after.ordinal, gaps[0]?.before.ordinal], [61, 121])
  const { coverage = [] } = periods[0] ?? {}
  t.same(
    coverage.map(share => share > 0.5),
    coverage.map((_, cell) => cell < 20 || cell >= 30), // ages from 2 h to 3 h of 4 h
  )
})

t.test('two days without one where one a day is kept are a gap', async t => {
  const points = pointsOf(30 * 24 * 60).filter(({ historyMillis }) => historyMillis % (24 * hourMillis) === 0)
  const { gaps } = recoverableOf(
    points.filter((_, day) => day < 5 || day > 6),
    request,
  )
  t.match(gaps.at(-1), { historyMillis: 3 * 24 * hourMillis })
})

t.test('an outage is a gap in the time that people know, though the history clock stood', async t => {
  const points = pointsOf(120, millis => (millis < hourMillis ? millis : millis + 72 * hourMillis))
  const { gaps, periods } = recoverableOf(points, request)
  t.match(gaps, [{ historyMillis: 60_000, wallMillis: 72 * hourMillis + 60_000 }])
  t.ok(
    periods[0]?.coverage.slice(0, 19).every(share => share > 0.99),
    'no age is without checkpoints',
  )
})

t.test('withdrawn checkpoints are counted apart, and say why they are', async t => {
  const hole = { fromOrdinal: 30, repairedFromOrdinal: 40, reason: 'a payload failed its checksum' }
  const { checkpointCount, withdrawnCount, gaps } = recoverableOf(pointsOf(60), {
    ...request,
    holes: [hole as unknown as Hole],
  })
  t.same([checkpointCount, withdrawnCount], [50, 10])
  t.match(gaps, [{ withdrawnCount: 10, reason: 'a payload failed its checksum' }])
})

t.test('what a tag keeps beyond the history is a period of its own, and no gap', async t => {
  const points = pointsOf(60 * 24 * 45).filter(
    ({ historyMillis }) => historyMillis === 0 || historyMillis > 16 * 24 * hourMillis,
  )
  const { periods, gaps } = recoverableOf(points, request)
  t.equal(periods.length, densitiesDefault.length + 1)
  t.equal(periods.at(-1)?.checkpointCount, 1)
  t.same(gaps, [])
})

t.test('no checkpoint is nothing to recover', async t => {
  const { checkpointCount, newest, gaps, periods } = recoverableOf([], request)
  t.same([checkpointCount, newest, gaps], [0, undefined, []])
  t.ok(periods.every(({ coverage }) => coverage.every(share => share === 0)))
})
