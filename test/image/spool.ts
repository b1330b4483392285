import * as fs from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { KiB } from '../../src/base/units.ts'
import { spoolImage } from '../../src/image/image.ts'
import { History, seeded } from '../support/mirror-history.ts'
import { readVolume, TestTimeline } from '../support/mirror-timeline.ts'

// Whether an image with a spool is right is held by random histories, in test/mirror/histories.ts; here is what a spool costs and leaves.

const { signal } = new AbortController()
const volumes = [{ number: 1, sizeBytes: 500 * KiB, included: true }]

/** Nothing is folded: three segments, and a tail. */
async function prepare(directory: string) {
  const history = new History(seeded(31), volumes, 1)
  const timeline = new TestTimeline(history, directory)
  for (let round = 0; round < 4; round++) {
    for (let count = 0; count < 20; count++) history.write()
    timeline.checkpoint()
    if (round < 3) history.seal('all')
  }
  const image = await timeline.open(timeline.plan(timeline.retained.at(-1)!))
  const sources = timeline.history.segments.map(segment => segment.source)
  const reads = (): number[] => sources.flatMap(source => [...source.reads])
  return { image, reads }
}

t.test('a spool is made by one pass over what is not folded, and reads then touch no batch of it', async t => {
  const { image, reads } = await prepare(t.testdir())
  const before = reads()
  const spooled = await spoolImage(image, new Set([1]), path.join(t.testdirName, 'spool'), signal)
  t.not(spooled, undefined)
  const filled = reads()
  t.equal(Math.max(...filled.map((count, batch) => count - before[batch]!)), 1)
  await readVolume(image, 1, seeded(1))
  t.strictSame(reads(), filled)
  await spooled?.close()
  await readVolume(image, 1, seeded(1))
  t.ok(reads().some((count, batch) => count > filled[batch]!))
})

t.test('a spool has no name, so that nobody need remove what a killed process had', async t => {
  const { image } = await prepare(t.testdir())
  const name = path.join(t.testdirName, 'spool')
  fs.writeFileSync(name, 'of a process that was killed before its file had no name')
  const spooled = await spoolImage(image, new Set([1]), name, signal)
  t.not(spooled, undefined)
  t.notOk(fs.existsSync(name))
  await spooled?.close()
})

t.test('where the disk takes no spool, the image is read as before', async t => {
  const { image } = await prepare(t.testdir({ file: '' }))
  const name = path.join(t.testdirName, 'file', 'spool')
  const before = await readVolume(image, 1, seeded(1))
  t.equal(await spoolImage(image, new Set([1]), name, signal), undefined)
  t.equal(Buffer.compare(await readVolume(image, 1, seeded(1)), before), 0)
})

t.test('what reads decompress for nothing is counted, and what a spool would hold', async t => {
  const { image } = await prepare(t.testdir())
  t.ok(image.unfoldedSizeBytes > 100 * KiB)
  t.equal(image.wastedSizeBytes, 0)
  await image.read(1, 0, new Uint8Array(512), signal)
  t.ok(image.wastedSizeBytes > 0)
})
