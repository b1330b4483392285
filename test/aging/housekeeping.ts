import t from 'tap'
import { collectGarbage } from '../../src/aging/housekeeping.ts'
import { commitRegions, openWriter, regionAsOf } from '../support/aging-writer.ts'

t.test('what the state refers to is never removed, even where it is among the garbage', async t => {
  const { tools, writer, store, clock, config } = await openWriter(t.testdir())
  await store.create('live', Buffer.from('read by somebody'))
  await store.create('gone', Buffer.from('read by nobody'))
  await commitRegions(writer, [regionAsOf(0, 'live')], ['live', 'gone'])
  clock.advance(2 * config.garbageGraceMillis)
  t.equal(await collectGarbage(tools, writer, () => false), true)
  t.same(
    ['live', 'gone'].map(key => store.memory.objects.has(key)),
    [true, false],
  )
  t.equal(await collectGarbage(tools, writer, () => false), false, 'which is no work that is due again and again')
})
