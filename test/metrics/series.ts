import t from 'tap'
import { extraLabel, inTurns, labelOf, piecesOf, seriesOf, type Series } from '../../src/metrics/series.ts'
import { joined } from '../support/joined.ts'

t.test('a metric is written as Prometheus reads it', async t => {
  const [gauge] = seriesOf<number | undefined>('gauge', [['vra_things', 'Things.', value => value]])
  const things = [1, 0.25, NaN, Infinity, -Infinity, undefined, 2 ** 53].map((of, index) => ({
    labels: labelOf('vpg', String(index)),
    of,
  }))
  t.equal(
    [...piecesOf(gauge!, things)].join(''),
    '# HELP vra_things Things.\n# TYPE vra_things gauge\nvra_things{vpg="0"} 1\nvra_things{vpg="1"} 0.25\nvra_things{vpg="2"} NaN\n' +
      'vra_things{vpg="3"} +Inf\nvra_things{vpg="4"} -Inf\nvra_things{vpg="6"} 9007199254740992\n',
  )
})

t.test('names may be anything', async t => {
  t.equal(labelOf('vpg', 'a "b" \\ c\nd'), 'vpg="a \\"b\\" \\\\ c\\nd"')
  t.equal(extraLabel('volume', 'root'), ',volume="root"')
})

t.test('however many VPGs there are, all of their samples stand below the one head of their metric', async t => {
  const twice: Series<number> = {
    ...{ type: 'counter', name: 'vra_puts_total', help: 'Puts.' },
    samples: of => ['base', 'deltas'].map(form => [extraLabel('form', form), of]),
  }
  const things = Array.from({ length: 1000 }, (_, of) => ({ labels: labelOf('vpg', `vpg-${of}`), of }))
  const lines = (await joined(inTurns(piecesOf(twice, things)))).split('\n')
  t.equal(lines.filter(line => line.startsWith('#')).length, 2)
  t.strictSame(lines.slice(-3), [
    'vra_puts_total{vpg="vpg-999",form="base"} 999',
    'vra_puts_total{vpg="vpg-999",form="deltas"} 999',
    '',
  ])
  t.equal(lines.length, 2 + 2000 + 1)
})

t.test('others have their turns between pieces that take long', async t => {
  let turns = 0
  let isOver = false
  const others = (): void => {
    turns++
    if (!isOver) setImmediate(others)
  }
  setImmediate(others)
  function* slowly(): Generator<string> {
    for (let piece = 0; piece < 10; piece++) {
      const endMillis = performance.now() + 5
      while (performance.now() < endMillis);
      yield `${piece}`
    }
  }
  t.equal(await joined(inTurns(slowly())), '0123456789')
  isOver = true
  t.ok(turns >= 9, `${turns} turns`)
})
