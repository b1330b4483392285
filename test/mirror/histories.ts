import * as path from 'node:path'
import t from 'tap'
import { KiB } from '../../src/base/units.ts'
import { spoolImage, SpoolRoom } from '../../src/image/image.ts'
import { newSpoolRoom } from '../../src/image/service.ts'
import { verifyPack } from '../../src/mirror/mirror.ts'
import type { DeltaSpan } from '../../src/timeline/state.ts'
import { History, seeded } from '../support/mirror-history.ts'
import { readVolume, scatterVolumeToArray, TestTimeline } from '../support/mirror-timeline.ts'

// Random histories of two streams and three volumes, against plain arrays. Invariants:
//   every retained checkpoint of every volume, by read() and by scatter(), is what the volume held then,
//   whatever was folded, rewritten, thinned, merged or dropped, and with a spool of what is not folded as without; scatter() gives no byte twice;
//   the packs of a delta do not overlap, hold no more than they may, and verify.

const historyCount = 150
const volumes = [
  { number: 1, sizeBytes: 200 * KiB, included: true },
  { number: 2, sizeBytes: 96 * KiB + 512, included: true },
  { number: 4, sizeBytes: 64 * KiB, included: true },
]
const { signal } = new AbortController()

function packFaults(delta: DeltaSpan, packSizeBytesMax: number): string[] {
  return delta.packs.flatMap((pack, index) => {
    const before = delta.packs[index - 1]
    const after = before === undefined || before.volume < pack.volume || before.endBytes <= pack.startBytes
    return [
      ...(after ? [] : [`pack ${index} overlaps the one before`]),
      ...(pack.rawSizeBytes <= packSizeBytesMax ? [] : [`pack ${index} is too large`]),
    ]
  })
}

/** What went wrong with the history of this seed; nothing when all is as it should be. */
async function faultsOf(seed: number, scratchDirectory: string): Promise<string[]> {
  const random = seeded(seed)
  const history = new History(random, volumes, 2)
  const timeline = new TestTimeline(history, scratchDirectory)
  const faults: string[] = []
  const stepCount = 10 + random(40)
  const packRawSizeBytesMax = (8 + random(200)) * KiB
  timeline.checkpoint()
  for (let step = 0; step < stepCount; step++) {
    const what = random(23)
    if (what < 10) history.write()
    else if (what < 14) timeline.checkpoint()
    else if (what < 15) history.seal('some')
    else if (what < 16) timeline.thin()
    else if (what < 17) {
      const memorySizeBytesMax = random(2) * 2 ** 30
      const delta = await timeline.fold({ packRawSizeBytesMax, memorySizeBytesMax, partitionSizeBytes: 40 * KiB })
      if (delta !== undefined) faults.push(...packFaults(delta, packRawSizeBytesMax))
    } else if (what < 19) await timeline.rewrite()
    else if (what < 22) {
      const extentCountMax = 1 + random(200)
      const delta = await timeline.merge({ packRawSizeBytesMax, extentCountMax, lotSizeBytes: (1 + random(64)) * KiB })
      if (delta !== undefined) faults.push(...packFaults(delta, packRawSizeBytesMax))
    } else timeline.drop()
  }
  for (const checkpoint of timeline.retained) {
    const image = await timeline.open(timeline.plan(checkpoint))
    const compare = async (how: string): Promise<void> => {
      for (const { number, sizeBytes } of volumes) {
        const expected = history.contents.get(checkpoint.ordinal)!.get(number)!
        const where = `checkpoint ${checkpoint.ordinal}, volume ${number}, ${how}`
        const read = await readVolume(image, number, random)
        if (Buffer.compare(read, expected) !== 0) faults.push(`${where}: read() differs`)
        const [startBytes, endBytes] = random(2) === 0 ? [0, sizeBytes] : [random(sizeBytes), sizeBytes - random(99)]
        const { bytes, givenTwice } = await scatterVolumeToArray(image, number, { startBytes, endBytes })
        const [part, wanted] = [bytes.subarray(startBytes, endBytes), expected.subarray(startBytes, endBytes)]
        if (Buffer.compare(part, wanted) !== 0) faults.push(`${where}: scatter() differs`)
        if (givenTwice) faults.push(`${where}: scatter() gave a byte twice`)
      }
    }
    await compare('by its sources')
    const spool = {
      fileName: path.join(scratchDirectory, 'spool'),
      failed: () => faults.push('the spool failed'),
      room: SpoolRoom.open(newSpoolRoom(), 'aws'),
    }
    const spooled = await spoolImage(image, new Set([1, 4]), spool, signal)
    if (spooled === undefined) faults.push('there was no room for a spool')
    await compare('by a spool of two volumes')
    await spooled?.close()
    await compare('after its spool')
  }
  for (const [key, bytes] of timeline.store.objects) {
    const report = await verifyPack(timeline.store, { key, sizeBytes: bytes.length }, signal)
    faults.push(...report.faults.map(fault => `${fault.offsetBytes}: ${fault.sentence}`))
  }
  return faults
}

t.test('every retained checkpoint of a random history is what the volumes held then', async t => {
  const scratchDirectory = t.testdir()
  const firstSeed = Number(process.env.VRA_TEST_SEED ?? 1)
  for (let seed = firstSeed; seed < firstSeed + historyCount; seed++) {
    const faults = await faultsOf(seed, scratchDirectory)
    if (faults.length > 0) t.strictSame(faults, [], `seed ${seed}`)
  }
  t.pass(`seeds ${firstSeed} to ${firstSeed + historyCount - 1}`)
})

t.test('the comparison notices an image that ends at another cut', async t => {
  const history = new History(seeded(3), volumes, 2)
  const timeline = new TestTimeline(history, t.testdir())
  for (let round = 0; round < 6; round++) {
    for (let count = 0; count < 8; count++) history.write()
    timeline.checkpoint()
  }
  await timeline.fold({ packRawSizeBytesMax: 2 ** 20, memorySizeBytesMax: 0, partitionSizeBytes: 2 ** 20 })
  const [first, second] = timeline.retained
  const wrong = { ...first!, ordinal: second!.ordinal, vector: second!.vector }
  const expected = history.contents.get(first!.ordinal)!.get(1)!
  const right = await readVolume(await timeline.open(timeline.plan(first!)), 1, seeded(1))
  t.equal(Buffer.compare(right, expected), 0)
  const other = await readVolume(await timeline.open(timeline.plan(wrong)), 1, seeded(1))
  t.not(Buffer.compare(other, expected), 0)
})

t.test(
  'where checkpoints were dropped inside of a delta, a merge keeps the last write before the next kept one',
  async t => {
    for (let seed = 1; seed <= 12; seed++) {
      const random = seeded(seed)
      const history = new History(random, [{ number: 1, sizeBytes: 64 * KiB, included: true }], 1)
      const timeline = new TestTimeline(history, t.testdir())
      for (let round = 0; round < 12; round++) {
        for (let count = 0; count < 8; count++) history.write()
        timeline.checkpoint()
      }
      const limits = { packRawSizeBytesMax: 2 ** 20, memorySizeBytesMax: 2 ** 30, partitionSizeBytes: 2 ** 20 }
      while ((await timeline.fold(limits)) !== undefined);
      timeline.retained = timeline.retained.filter((_, index) => index % 4 === 3)
      for (let merge = 0; merge < 8; merge++)
        await timeline.merge({ packRawSizeBytesMax: 2 ** 20, extentCountMax: 1000, lotSizeBytes: 16 * KiB })
      for (const checkpoint of timeline.retained) {
        const bytes = await readVolume(await timeline.open(timeline.plan(checkpoint)), 1, random)
        const expected = history.contents.get(checkpoint.ordinal)!.get(1)!
        t.equal(Buffer.compare(bytes, expected), 0, `seed ${seed}, checkpoint ${checkpoint.ordinal}`)
      }
    }
  },
)
