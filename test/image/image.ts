import { createHash } from 'node:crypto'
import t from 'tap'
import { KiB } from '../../src/base/units.ts'
import { hashBlocks, type VolumeRange } from '../../src/image/image.ts'
import { History, seeded } from '../support/mirror-history.ts'
import { readVolume, scatterVolumeToArray, TestTimeline } from '../support/mirror-timeline.ts'

// Whether images are right is held by random histories, in test/mirror/histories.ts; here is what they cost and refuse.

const { signal } = new AbortController()
const volumes = [{ number: 1, sizeBytes: 500 * KiB, included: true }]
const limits = { packRawSizeBytesMax: 2 ** 20, memorySizeBytesMax: 2 ** 30, partitionSizeBytes: 2 ** 20 }

/** Base, deltas, segments and log all hold something. */
async function prepare(directory: string): Promise<TestTimeline> {
  const history = new History(seeded(31), volumes, 1)
  const timeline = new TestTimeline(history, directory)
  for (let round = 0; round < 5; round++) {
    for (let count = 0; count < 5; count++) history.write()
    timeline.checkpoint()
    if (round < 2) await timeline.fold(limits)
    else if (round < 4) history.seal('all')
  }
  return timeline
}

t.test('opening reads no object of the mirror; a region is read when it is touched, and then kept', async t => {
  const timeline = await prepare(t.testdir())
  const plan = timeline.plan(timeline.retained.at(-1)!)
  timeline.store.readCount = 0
  const image = await timeline.open(plan, 2 ** 24)
  t.equal(timeline.store.readCount, 0)
  await image.read(1, 0, new Uint8Array(4096), signal)
  const once = timeline.store.readCount
  t.ok(once > 0 && once < 16, `${once} reads for one region`)
  await image.read(1, 0, new Uint8Array(4096), signal)
  t.equal(timeline.store.readCount, once)
})

t.test('scattering a volume reads each batch that is not folded once', async t => {
  const timeline = await prepare(t.testdir())
  const checkpoint = timeline.retained.at(-1)!
  const sources = timeline.history.segments.map(segment => segment.source)
  const image = await timeline.open(timeline.plan(checkpoint))
  const before = sources.map(source => [...source.reads])
  await scatterVolumeToArray(image, 1, { startBytes: 0, endBytes: 500 * KiB })
  const most = Math.max(
    ...sources.flatMap((source, at) => source.reads.map((count, batch) => count - before[at]![batch]!)),
  )
  t.equal(most, 1)
})

t.test('scattering a range gives that range and nothing else', async t => {
  const timeline = await prepare(t.testdir())
  const checkpoint = timeline.retained.at(-1)!
  const image = await timeline.open(timeline.plan(checkpoint))
  const [startBytes, endBytes] = [100 * KiB + 512, 300 * KiB + 1024]
  const expected = new Uint8Array(500 * KiB)
  const held = timeline.history.contents.get(checkpoint.ordinal)!.get(1)!
  expected.set(held.subarray(startBytes, endBytes), startBytes)
  const { bytes, givenTwice } = await scatterVolumeToArray(image, 1, { startBytes, endBytes })
  t.equal(Buffer.compare(bytes, expected), 0)
  t.notOk(givenTwice)
})

t.test('extents are ascending, apart, and outside of them is nothing but zeros', async t => {
  const timeline = await prepare(t.testdir())
  const checkpoint = timeline.retained.at(-1)!
  const image = await timeline.open(timeline.plan(checkpoint))
  const rest = await readVolume(image, 1, seeded(1))
  const ranges: VolumeRange[] = []
  for await (const range of image.extents(1, signal)) ranges.push(range)
  t.ok(ranges.length > 1)
  ranges.forEach((range, index) => {
    t.ok(range.startBytes > (ranges[index - 1]?.endBytes ?? -1) && range.endBytes > range.startBytes)
    rest.fill(0, range.startBytes, range.endBytes)
  })
  t.notOk(rest.some(byte => byte !== 0))
})

t.test('reads past the end, and of a volume that is not in the checkpoint, are refused', async t => {
  const timeline = await prepare(t.testdir())
  const image = await timeline.open(timeline.plan(timeline.retained[0]!))
  await t.rejects(image.read(1, 500 * KiB - 1, new Uint8Array(2), signal), { code: 'OUT_OF_BOUNDS' })
  await t.rejects(image.read(2, 0, new Uint8Array(2), signal), { code: 'UNKNOWN_VOLUME' })
})

t.test('the next data is where an extent begins or goes on; hashes are those of the bytes that are read', async t => {
  const timeline = await prepare(t.testdir())
  const image = await timeline.open(timeline.plan(timeline.retained.at(-1)!))
  const ranges: VolumeRange[] = []
  for await (const range of image.extents(1, signal)) ranges.push(range)
  const sizeBytes = 500 * KiB
  for (let startBytes = 0; startBytes < sizeBytes; startBytes += 1536) {
    for (const endBytes of [startBytes + 512, startBytes + 40 * KiB, sizeBytes]) {
      if (endBytes > sizeBytes) continue
      const inside = ranges.find(range => range.endBytes > startBytes)
      const expected = Math.min(endBytes, Math.max(startBytes, inside?.startBytes ?? endBytes))
      const found = await image.nextData(1, { startBytes, endBytes }, signal)
      if (found !== expected) t.fail(`from ${startBytes} to ${endBytes}: ${found}, expected ${expected}`)
    }
  }
  const blockSizeBytes = 4 * KiB
  const run = { volume: 1, offsetBytes: 0, blockSizeBytes, blockCount: sizeBytes / blockSizeBytes }
  const hashes = Buffer.from(await hashBlocks(image, run, signal))
  const zeros = Buffer.alloc(16)
  let [zeroCount, dataCount] = [0, 0]
  for (let block = 0; block < run.blockCount; block++) {
    const bytes = new Uint8Array(blockSizeBytes)
    await image.read(1, block * blockSizeBytes, bytes, signal)
    const isZero = bytes.every(byte => byte === 0)
    const expected = isZero ? zeros : createHash('sha256').update(bytes).digest().subarray(0, 16)
    if (!hashes.subarray(16 * block, 16 * block + 16).equals(expected)) t.fail(`block ${block}`)
    if (isZero) zeroCount++
    else dataCount++
  }
  t.ok(zeroCount > 0 && dataCount > 0, 'there were both')
})
