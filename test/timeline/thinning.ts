import t from 'tap'
import type { Ordinal } from '../../src/base/ids.ts'
import {
  densitiesDefault,
  densitiesOf,
  faultOf,
  requireKnownRetention,
  retentionOf,
} from '../../src/timeline/densities.ts'
import { droppedBy, expiredTags, type ThinningPoint } from '../../src/timeline/thinning.ts'
import type { Hole } from '../../src/timeline/state.ts'
import { AgingModel } from '../support/aging-model.ts'
import { randomFrom } from '../support/segment-records.ts'

const { definition } = new AgingModel(randomFrom(1), t.testdir(), 10_000)
const second = 1000
const minute = 60 * second
const hour = 60 * minute

function point(ordinal: number, historyMillis: number, includedCount = 1): ThinningPoint {
  return { ordinal: ordinal as Ordinal, historyMillis, includedCount }
}

const all = { historyEdge: 0 as Ordinal, tags: [], pins: [], holes: [] }
const policy = [
  { everyMillis: 0, forMillis: minute },
  { everyMillis: minute, forMillis: hour },
]

t.test('of an interval the oldest stays, of those that include the most volumes', async t => {
  const points = [
    point(1, 0),
    point(2, 10 * second),
    point(3, minute),
    point(4, minute + 20 * second, 2),
    point(5, minute + 40 * second, 2),
    point(6, 10 * minute),
  ]
  t.strictSame(droppedBy(policy, points, all), [2, 3, 5])
  t.strictSame(
    droppedBy(
      policy,
      points.filter(({ ordinal }) => ![2, 3, 5].includes(ordinal)),
      all,
    ),
    [],
    'asked again',
  )
  t.strictSame(droppedBy([{ everyMillis: 0, forMillis: hour }], points, all), [], 'every checkpoint')
})

t.test(
  'the oldest, the newest, tags, pins, what is withdrawn and what lies below the edge are not dropped',
  async t => {
    const points = [5, 15, 25, 35, 45].map((seconds, index) => point(index + 1, seconds * second))
    const late = [...points, point(6, 10 * minute), point(7, 10 * minute + 1)]
    t.strictSame(droppedBy(policy, late, all), [2, 3, 4, 5])
    const tag = { ordinal: 3 as Ordinal, name: 'a', taggedAtMicros: 1 }
    const pin = { id: 'p', ordinal: 4 as Ordinal, owner: 'o', kind: 'image' } as const
    t.strictSame(droppedBy(policy, late, { ...all, tags: [tag], pins: [pin] }), [2, 5])
    const hole: Hole = {
      ...{ stream: 1, generation: 1, firstSequence: 1, lastSequence: 1, reason: '', ranges: [] },
      fromOrdinal: 1 as Ordinal,
      repairedFromOrdinal: 4 as Ordinal,
    }
    t.strictSame(droppedBy(policy, late, { ...all, holes: [hole] }), [5], 'the oldest that is whole stays')
    t.strictSame(
      droppedBy(policy, late, { ...all, historyEdge: 3 as Ordinal, tags: [{ ...tag, ordinal: 1 as Ordinal }] }),
      [4, 5],
      'a tag below the edge does not stand for the history',
    )
  },
)

t.test('thinning in whatever steps ends at the same checkpoints, one in every interval that had any', async t => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = randomFrom(seed)
    let [historyMillis, ordinal] = [0, 0]
    const made: ThinningPoint[] = []
    let left: ThinningPoint[] = []
    while (historyMillis < 40 * 24 * hour) {
      historyMillis += random() < 0.8 ? 5 * second + random() * 10 * minute : random() * 12 * hour
      const next = point(++ordinal, Math.round(historyMillis))
      made.push(next)
      left.push(next)
      if (random() > 0.05) continue
      const dropped = new Set<number>(droppedBy(densitiesDefault, left, all))
      left = left.filter(each => !dropped.has(each.ordinal))
    }
    const dropped = new Set<number>(droppedBy(densitiesDefault, left, all))
    left = left.filter(each => !dropped.has(each.ordinal))
    const atOnce = new Set<number>(droppedBy(densitiesDefault, made, all))
    t.strictSame(
      left,
      made.filter(each => !atOnce.has(each.ordinal)),
      `seed ${seed}`,
    )
  }
})

t.test('a policy that cannot be meant is refused, in words', async t => {
  t.equal(faultOf(densitiesDefault), undefined)
  const every = { everyMillis: 0, forMillis: hour }
  for (const [densities, fault] of [
    [[], /empty/],
    [[{ everyMillis: minute, forMillis: hour }], /begin with a time for which every checkpoint/],
    [[{ everyMillis: 0, forMillis: second }], /at least/],
    [[every, { everyMillis: minute, forMillis: 31 * 24 * hour }], /reaches beyond/],
    [[every, { everyMillis: minute, forMillis: hour }], /longer and less dense/],
    [[every, { everyMillis: minute, forMillis: 2 * hour }, { everyMillis: minute, forMillis: 3 * hour }], /less dense/],
    [
      [every, { everyMillis: minute, forMillis: 2 * hour }, { everyMillis: 90 * second, forMillis: 3 * hour }],
      /no multiple of the entry before/,
    ],
    [[every, { everyMillis: 3 * hour, forMillis: 2 * hour }], /one checkpoint in/],
  ] as const)
    t.match(faultOf(densities), fault)
  t.throws(() => retentionOf([]), { code: 'REQUEST_INVALID' })
})

t.test('a definition says its policy with a version, and one of another version is not guessed at', async t => {
  t.strictSame(
    densitiesOf(definition),
    [{ everyMillis: 0, forMillis: definition.historyMillis }],
    'as before there were any',
  )
  const thinned = { ...definition, ...retentionOf(policy) }
  t.equal(thinned.historyMillis, hour)
  t.strictSame(densitiesOf(thinned), policy)
  requireKnownRetention(thinned)
  const newer = { ...thinned, retention: { formatVersion: 2, densities: [] } } as unknown as typeof thinned
  t.throws(() => requireKnownRetention(newer), { code: 'VERSION_UNSUPPORTED', message: /format 2/ })
})

t.test('a tag ends when the history clock has gone on for as long as it is kept', async t => {
  const tag = { ordinal: 1 as Ordinal, name: 'a', taggedAtMicros: 1, keep: { millis: hour, fromHistoryMillis: minute } }
  t.strictSame(expiredTags([tag, { ...tag, keep: undefined }], hour), [])
  t.strictSame(expiredTags([tag, { ...tag, keep: undefined }], hour + minute), [tag])
})
