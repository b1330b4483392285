import t from 'tap'
import { decodeCheckpoints, decodePortions, encodeCheckpoints } from '../../src/timeline/checkpoint-page.ts'
import { checkpointNumbers } from '../support/catalog-rows.ts'

t.test('a page is decoded in portions, each when it is asked for', t => {
  const checkpoints = checkpointNumbers(1, 5_000)
  const page = encodeCheckpoints(checkpoints)
  const portions = [...decodePortions('page', page, 2_000)]
  t.strictSame(
    portions.map(({ length }) => length),
    [2_000, 2_000, 1_000],
  )
  t.strictSame(portions.flat(), checkpoints)
  t.strictSame([...decodePortions('page', page, 2_500)].flat(), checkpoints, 'the last of them full')
  t.strictSame(decodeCheckpoints('page', page), checkpoints)
  t.strictSame([...decodePortions('page', encodeCheckpoints([]), 2_000)], [])
  t.end()
})

t.test('damage is told by the portion that meets it', t => {
  const page = encodeCheckpoints(checkpointNumbers(1, 5_000))
  const cut = decodePortions('page', page.subarray(0, page.length - 1), 2_000)
  t.equal(cut.next().value?.length, 2_000)
  t.equal(cut.next().value?.length, 2_000)
  t.throws(() => cut.next(), { code: 'OBJECT_CORRUPT' })
  const long = decodePortions('page', Buffer.concat([page, Buffer.from([0])]), 5_000)
  t.throws(() => long.next(), { code: 'OBJECT_CORRUPT', message: /goes on behind/ })
  t.end()
})
