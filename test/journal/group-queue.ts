import t from 'tap'
import { KiB, MiB } from '../../src/base/units.ts'
import { GroupQueue } from '../../src/journal/group-queue.ts'

const items = (streamKey: string, count: number, sizeBytes: number) =>
  Array.from({ length: count }, (_, number) => ({ streamKey, sizeBytes, number }))

t.test('a stream with a long backlog delays another by turns, not by its backlog', async t => {
  const queue = new GroupQueue<ReturnType<typeof items>[number]>(2 * MiB)
  for (const item of items('loud', 100, 128 * KiB)) queue.add(item)
  for (const item of items('quiet', 3, 4 * KiB)) queue.add(item)
  const group = queue.takeGroup()
  t.equal(group.filter(item => item.streamKey === 'quiet').length, 3, 'all of the quiet one is in the first group')
  t.ok(group.findIndex(item => item.streamKey === 'quiet') <= 2, 'after one turn of the loud one')
})

t.test('groups keep the order inside a stream, respect the cap, and leave nothing behind', async t => {
  const queue = new GroupQueue<ReturnType<typeof items>[number]>(2 * MiB)
  for (const [name, sizeBytes] of [
    ['a', 1 * MiB],
    ['b', 100 * KiB],
    ['c', 4 * KiB],
  ] as const) {
    for (const item of items(name, 20, sizeBytes)) queue.add(item)
  }
  const taken: ReturnType<typeof items> = []
  for (let group = queue.takeGroup(); group.length > 0; group = queue.takeGroup()) {
    t.ok(group.reduce((sum, item) => sum + item.sizeBytes, 0) <= 2 * MiB)
    taken.push(...group)
  }
  t.equal(queue.count, 0)
  t.equal(queue.sizeBytes, 0)
  for (const name of ['a', 'b', 'c']) {
    const numbers = taken.filter(item => item.streamKey === name).map(item => item.number)
    t.strictSame(
      numbers,
      items(name, 20, 1).map(item => item.number),
    )
  }
})
