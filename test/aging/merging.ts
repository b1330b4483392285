import t from 'tap'
import { commitVersions } from '../../src/aging/merging.ts'
import { commitRegions, openWriter, regionAsOf } from '../support/aging-writer.ts'

t.test('a region that was rewritten over nothing does not hide one that was handed over meanwhile', async t => {
  const { writer } = await openWriter(t.testdir())
  const { state } = writer.contents
  const versions = [regionAsOf(7, 'rewritten')]
  await commitRegions(writer, [regionAsOf(0, 'handed over')])
  t.equal(await commitVersions(writer, { state, versions, earlyEdge: undefined }), false)
  t.same(
    writer.contents.state.regions.map(({ pack }) => pack?.object.key),
    ['handed over'],
  )
})

t.test('nor over one in whose place another was handed over', async t => {
  const { writer } = await openWriter(t.testdir())
  await commitRegions(writer, [regionAsOf(0, 'first')])
  const { state } = writer.contents
  await commitRegions(writer, [regionAsOf(0, 'second')])
  const versions = [regionAsOf(7, 'rewritten')]
  t.equal(await commitVersions(writer, { state, versions, earlyEdge: undefined }), false)
})

t.test('what came above it, and other regions, do not void it', async t => {
  const { writer } = await openWriter(t.testdir())
  await commitRegions(writer, [regionAsOf(0, 'first')])
  const { state } = writer.contents
  await commitRegions(writer, [...state.regions, regionAsOf(9, 'above'), { ...regionAsOf(0, 'other'), region: 1 }])
  const versions = [regionAsOf(7, 'rewritten')]
  t.equal(await commitVersions(writer, { state, versions, earlyEdge: undefined }), true)
})
