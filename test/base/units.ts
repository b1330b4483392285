import t from 'tap'
import { alignDown, alignUp, TiB } from '../../src/base/units.ts'

t.test('offsets past 2 GiB keep their high bits when they are aligned', async t => {
  t.equal(alignDown(3 * TiB + 777, 512), 3 * TiB + 512)
  t.equal(alignUp(3 * TiB + 777, 512), 3 * TiB + 1024)
  t.equal(alignUp(3 * TiB, 512), 3 * TiB)
})
