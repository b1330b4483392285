import t from 'tap'
import { newVpgId, type Ordinal } from '../../src/base/ids.ts'
import {
  checkpointNumber,
  checkpointNumbers,
  everyPage,
  labelOf,
  openedCatalog,
  ordinalOf,
} from '../support/catalog-rows.ts'

// Half a million rows go to a thread and come back: seconds, or many on a busy machine.
t.setTimeout(180_000)

const vpg = newVpgId()
const otherVpg = newVpgId()

t.test(
  'pages over 500,000 checkpoints give every one once, in both orders, and within a time',
  { timeout: 180_000 },
  async t => {
    const { catalog } = await openedCatalog(t)
    const count = 500_000
    await catalog.loadVpg({ vpg, segments: [], checkpoints: checkpointNumbers(1, count), offloaded: [] })
    await catalog.loadVpg({ vpg: otherVpg, segments: [], checkpoints: checkpointNumbers(1, 10), offloaded: [] })
    const all = Array.from({ length: count }, (_, index) => ordinalOf(index + 1))
    t.equal((await catalog.statistics({ vpg })).checkpointCount, count)
    const same = (found: readonly Ordinal[], expected: readonly Ordinal[]): boolean =>
      found.length === expected.length && found.every((each, index) => each === expected[index])
    t.ok(same(await everyPage(catalog, { vpg, order: 'oldest-first' }), all), 'oldest first')
    t.ok(same(await everyPage(catalog, { vpg, order: 'newest-first' }), all.toReversed()), 'newest first')
    const time = { fromTimestampMicros: labelOf(400_000), toTimestampMicros: labelOf(402_500) }
    const within = all.slice(399_999, 402_499)
    t.ok(
      same(await everyPage(catalog, { vpg, order: 'oldest-first', ...time }), within),
      'from inclusive, to exclusive',
    )
    t.ok(same(await everyPage(catalog, { vpg, order: 'newest-first', ...time }), within.toReversed()))
    const { toTimestampMicros } = time
    t.ok(same(await everyPage(catalog, { vpg: otherVpg, order: 'oldest-first', toTimestampMicros }), all.slice(0, 10)))
    const never = { fromTimestampMicros: labelOf(count + 1) }
    t.strictSame(await everyPage(catalog, { vpg, order: 'newest-first', ...never }), [])
    t.strictSame(
      await catalog.checkpoint({ vpg, ordinal: ordinalOf(77) }),
      checkpointNumber(77),
      'rows come back whole',
    )
    t.strictSame(await catalog.checkpoint({ vpg, ordinal: ordinalOf(count + 1) }), undefined)
    t.strictSame(await catalog.latestCheckpoint({ vpg }), checkpointNumber(count))
    t.strictSame(await catalog.latestCheckpoint({ vpg, before: ordinalOf(5) }), checkpointNumber(4))
    const timestampMicros = labelOf(1000) + 1
    t.strictSame(await catalog.checkpointAt({ vpg, timestampMicros }), checkpointNumber(1000))
    t.strictSame(await catalog.checkpointAt({ vpg, timestampMicros, before: ordinalOf(9) }), checkpointNumber(8))
    t.strictSame(await catalog.checkpointAt({ vpg, timestampMicros: labelOf(0) }), undefined)

    const densities = [{ everyMillis: 0, forMillis: 3_600_000 }]
    const recoverable = await catalog.recoverable({ vpg, densities, checkpointIntervalMillis: 5_000, holes: [] })
    t.match(recoverable, {
      checkpointCount: count,
      oldest: { ordinal: ordinalOf(1) },
      newest: { ordinal: ordinalOf(count) },
    })

    const kept = [ordinalOf(3), ordinalOf(1234), ordinalOf(499_999)]
    await catalog.dropCheckpoints({ vpg, edge: ordinalOf(3001), kept })
    const left = [ordinalOf(3), ordinalOf(1234), ...all.slice(3000)]
    t.ok(same(await everyPage(catalog, { vpg, order: 'oldest-first' }), left), 'below the edge only the kept ones stay')
    t.equal((await catalog.statistics({ vpg })).checkpointCount, left.length, 'and the counter agrees')
    await t.rejects(catalog.listCheckpoints({ vpg, order: 'newest-first', limit: 1001 }), { code: 'REQUEST_INVALID' })
  },
)
