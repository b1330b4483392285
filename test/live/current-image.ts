import t from 'tap'
import type { ImagePlan } from '../../src/aging/service.ts'
import { Failure } from '../../src/base/failure.ts'
import { GiB, MiB } from '../../src/base/units.ts'
import type { SpoolableImage, Spooled } from '../../src/image/image.ts'
import { CurrentImage } from '../../src/live/current-image.ts'

const { signal } = new AbortController()
const [plan, otherPlan] = ['one', 'other'].map(pinId => ({ pinId }) as ImagePlan) as [ImagePlan, ImagePlan]

/** An image of 1 GiB that is not folded, of which every read wastes so much. */
function imageThatWastes(sizeBytes: number): SpoolableImage {
  const image = {
    unfoldedSizeBytes: GiB,
    wastedSizeBytes: 0,
    read: () => Promise.resolve(void (image.wastedSizeBytes += sizeBytes)),
  }
  return image as unknown as SpoolableImage
}

/** What is asked to make spools, and what became of them. */
function spoolers() {
  const asked: { plan: ImagePlan; signal: AbortSignal }[] = []
  let closedCount = 0
  const spooled: Spooled = { close: () => Promise.resolve(void closedCount++) }
  const make = (_: SpoolableImage, ofPlan: ImagePlan, ofSignal: AbortSignal): Promise<Spooled> => {
    asked.push({ plan: ofPlan, signal: ofSignal })
    return Promise.resolve(spooled)
  }
  return { asked, make, closedCount: () => closedCount }
}

async function read(image: CurrentImage, count: number): Promise<void> {
  for (let each = 0; each < count; each++) await image.read(1, 0, new Uint8Array(512), signal)
}

t.test('a spool is made, once, when reads have wasted a share of what is not folded', async t => {
  const spools = spoolers()
  const image = new CurrentImage(imageThatWastes(4 * MiB), plan, spools.make)
  await read(image, 15)
  t.equal(spools.asked.length, 0)
  await read(image, 10)
  t.strictSame(
    spools.asked.map(each => each.plan),
    [plan],
  )
  await image.drop()
  t.equal(spools.closedCount(), 1)
})

t.test('who replaces the image ends its spool, and the next one is begun anew', async t => {
  const spools = spoolers()
  const image = new CurrentImage(imageThatWastes(64 * MiB), plan, spools.make)
  await read(image, 1)
  await image.replace(imageThatWastes(64 * MiB), otherPlan)
  t.equal(spools.closedCount(), 1)
  t.ok(spools.asked[0]?.signal.aborted)
  await read(image, 1)
  t.strictSame(
    spools.asked.map(each => each.plan),
    [plan, otherPlan],
  )
  t.notOk(spools.asked[1]?.signal.aborted)
  await image.drop()
  t.equal(spools.closedCount(), 2)
})

t.test('where no spool can be made the image is read on', async t => {
  let askedCount = 0
  const image = new CurrentImage(imageThatWastes(64 * MiB), plan, () => {
    askedCount++
    return Promise.reject(new Failure('OBJECT_CORRUPT', 'a segment is damaged'))
  })
  await read(image, 5)
  t.equal(askedCount, 1)
  await image.drop()
  await t.rejects(read(image, 1), { code: 'CLOSING' })
})

t.test('where others are being made a spool is tried again, more and more seldom', async t => {
  const spools = spoolers()
  const wastedMiB: number[] = []
  const wasting = imageThatWastes(64 * MiB)
  const image = new CurrentImage(wasting, plan, async (...asked) => {
    wastedMiB.push(wasting.wastedSizeBytes / MiB)
    return wastedMiB.length < 4 ? undefined : await spools.make(...asked)
  })
  for (let count = 0; count < 20; count++) {
    await read(image, 1)
    await new Promise(resolve => setImmediate(resolve))
  }
  t.strictSame(wastedMiB, [64, 128, 256, 512])
  await image.drop()
  t.equal(spools.closedCount(), 1)
})
