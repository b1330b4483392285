import t from 'tap'
import { failedWith } from '../../src/base/failure.ts'
import { KiB } from '../../src/base/units.ts'
import { verifyPack } from '../../src/mirror/mirror.ts'
import { History, seeded } from '../support/mirror-history.ts'
import { readVolume, TestTimeline } from '../support/mirror-timeline.ts'

const { signal } = new AbortController()
const volumes = [{ number: 1, sizeBytes: 130 * KiB, included: true }]

async function foldedTimeline(scratchDirectory: string): Promise<TestTimeline> {
  const history = new History(seeded(5), volumes, 1)
  const timeline = new TestTimeline(history, scratchDirectory)
  for (let count = 0; count < 6; count++) history.write()
  timeline.checkpoint()
  await timeline.fold({ packRawSizeBytesMax: 2 ** 20, memorySizeBytesMax: 2 ** 30, partitionSizeBytes: 2 ** 20 })
  return timeline
}

t.test('whatever byte of a pack is wrong: verify names the object, and no image serves other bytes', async t => {
  const timeline = await foldedTimeline(t.testdir())
  const checkpoint = timeline.retained[0]!
  const expected = timeline.history.contents.get(checkpoint.ordinal)!.get(1)!
  const [key, whole] = [...timeline.store.objects][0]!
  const object = { key, sizeBytes: whole.length }
  t.strictSame((await verifyPack(timeline.store, object, signal)).faults, [])
  let unnoticed = 0
  let served = 0
  let refused = 0
  const tail = whole.length - 1500
  for (let at = 0; at < whole.length; at += at < 90 || at >= tail ? 1 : 97) {
    const damaged = Uint8Array.from(whole)
    damaged[at]! ^= 1 << (at % 8)
    timeline.store.objects.set(key, damaged)
    const { faults } = await verifyPack(timeline.store, object, signal)
    if (!faults.some(({ offsetBytes = -1 }) => offsetBytes >= 0 && offsetBytes <= at)) unnoticed++
    try {
      const image = await timeline.open(timeline.plan(checkpoint))
      if (Buffer.compare(await readVolume(image, 1, seeded(1)), expected) !== 0) served++
    } catch (error) {
      const told = failedWith(error, 'OBJECT_CORRUPT') || failedWith(error, 'VERSION_UNSUPPORTED')
      if (told && error.message.includes(key)) refused++
      else throw error
    }
  }
  t.equal(unnoticed, 0, 'every flip is found, at or before its byte')
  t.equal(served, 0, 'nothing wrong is served')
  t.ok(refused > 100, `${refused} reads were refused by name`)
})

t.test('an object under the name of another, cut short, or gone is damage, by name', async t => {
  const timeline = await foldedTimeline(t.testdir())
  const [key, whole] = [...timeline.store.objects][0]!
  timeline.store.objects.set('other', whole)
  const other = await verifyPack(timeline.store, { key: 'other', sizeBytes: whole.length }, signal)
  t.match(other.faults, [{ sentence: /another name/ }])
  timeline.store.objects.set(key, whole.subarray(0, whole.length - 1))
  t.match((await verifyPack(timeline.store, { key, sizeBytes: whole.length }, signal)).faults, [
    { sentence: /shorter/ },
  ])
  timeline.store.objects.delete(key)
  t.match((await verifyPack(timeline.store, { key, sizeBytes: whole.length }, signal)).faults, [
    { sentence: /missing/ },
  ])
})
