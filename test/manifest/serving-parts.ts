import t from 'tap'
import { partsForServing } from '../../src/manifest/contents.ts'

t.test('of thousands of parts those that serve a VPG are found by going through them a few times', t => {
  const count = 2_000
  const names = ['definition', 'holes', 'tags', 'segments/9', 'segments/10', 'garbage/5', 'recent/3']
  for (let each = 0; each < count; each++) names.push(`deltas/${17_592_186_044_416 + each}`, `regions/1/${each}`)
  names.push(`deltas/${17_592_186_044_416 + count}/2`, `deltas/${17_592_186_044_416 + count}`)
  let readCount = 0
  const counted = new Proxy(names, {
    get: (target, key) => {
      readCount++
      return Reflect.get(target, key) as unknown
    },
  })
  const isWanted = partsForServing(counted)
  t.same(names.filter(isWanted), [
    ...['definition', 'holes', 'tags', 'segments/10', 'recent/3'],
    `deltas/${17_592_186_044_416 + count}`,
  ])
  t.ok(readCount < 10 * names.length, `${readCount} looks at ${names.length} names`)
  t.end()
})
