import * as fs from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { GiB, MiB } from '../../src/base/units.ts'
import { spoolImage, SpoolRoom, type PieceSink, type SpoolableImage } from '../../src/image/image.ts'
import { newSpoolRoom } from '../../src/image/service.ts'
import { SpoolShare, type RoomOfDisk } from '../../src/image/spool-room.ts'
import type { SpoolPlaces } from '../../src/image/types.ts'

// Whatever is asked for, by whichever thread, and whatever others write meanwhile: all spools together leave the commit log its room.

const { signal } = new AbortController()

/** A disk with room as the test says. */
function diskOf(freeGiB: number, sizeGiB = 100): RoomOfDisk & { freeGiB: number } {
  const disk = { freeGiB, freeBytes: () => disk.freeGiB * GiB, sizeBytes: () => sizeGiB * GiB }
  return disk
}

t.test('all spools together have a quarter of what would be free without them, over threads', async t => {
  const memory = newSpoolRoom()
  const disk = diskOf(80)
  const live = SpoolRoom.open(memory, 'live', disk)
  const aws = SpoolRoom.open(memory, 'aws', disk)
  const first = live.begin()!
  t.equal(first.reserve(15 * GiB, '/'), true)
  first.wrote(15 * GiB)
  disk.freeGiB -= 15
  first.made()
  const second = aws.begin()!
  t.equal(second.reserve(6 * GiB, '/'), false)
  t.equal(second.reserve(5 * GiB, '/'), true)
  const third = aws.begin()!
  t.equal(third.reserve(1 * GiB, '/'), false)
  first.release()
  disk.freeGiB += 15
  t.equal(third.reserve(15 * GiB, '/'), true)
  t.equal(third.reserve(16 * GiB, '/'), false)
})

t.test('a twentieth of the file system, or 1 GiB, stays free when all are written', async t => {
  const begin = (disk: RoomOfDisk): SpoolShare => SpoolRoom.open(newSpoolRoom(), 'aws', disk).begin()!
  t.equal(begin(diskOf(6)).reserve(1 * GiB, '/'), true)
  t.equal(begin(diskOf(6)).reserve(1 * GiB + 1, '/'), false)
  t.equal(begin(diskOf(1.25, 2)).reserve(GiB / 4, '/'), true)
  t.equal(begin(diskOf(1.25, 2)).reserve(GiB / 4 + 1, '/'), false)
  t.equal(begin(diskOf(1000, 1000)).reserve(64 * GiB, '/'), true)
  t.equal(begin(diskOf(1000, 1000)).reserve(65 * GiB, '/'), false)
})

t.test('two are made at once in a process', async t => {
  const memory = newSpoolRoom()
  const live = SpoolRoom.open(memory, 'live')
  const aws = SpoolRoom.open(memory, 'aws')
  const [first, second] = [live.begin()!, aws.begin()!]
  t.equal(live.begin(), undefined)
  t.equal(aws.begin(), undefined)
  first.made()
  const third = aws.begin()
  t.not(third, undefined)
  t.equal(live.begin(), undefined)
  second.release()
  t.not(live.begin(), undefined)
})

t.test('what a thread had that has ended is free when the next one of its kind begins', async t => {
  const memory = newSpoolRoom()
  const disk = diskOf(80)
  SpoolRoom.open(memory, 'live', disk)
    .begin()!
    .reserve(10 * GiB, '/')
  const aws = SpoolRoom.open(memory, 'aws', disk)
  t.equal(aws.begin()!.reserve(10 * GiB, '/'), true)
  t.equal(aws.begin(), undefined)
  const again = SpoolRoom.open(memory, 'live', disk).begin()!
  t.equal(again.reserve(11 * GiB, '/'), false)
  t.equal(again.reserve(10 * GiB, '/'), true)
})

/** One whose spool has so many bytes; each MiB of it is a turn of the loop. */
function imageOf(sizeBytes: number, onMiB: () => void): { readonly image: SpoolableImage; isUsed: boolean } {
  const made = { isUsed: false }
  const image = {
    fillSpool: async (_: ReadonlySet<number>, begin: (places: SpoolPlaces) => PieceSink) => {
      const sink = begin({ sizeBytes, startBytes: new Float64Array(1) })
      const bytes = new Uint8Array(MiB).fill(7)
      for (let at = 0; at < sizeBytes; at += MiB) {
        sink.piece(at, bytes)
        onMiB()
        await new Promise(resolve => setImmediate(resolve))
      }
    },
    useSpool: (spool: object | undefined) => void (made.isUsed = spool !== undefined),
  }
  return Object.assign(made, { image: image as unknown as SpoolableImage })
}

t.test('of many at once no more are made than may be, and what they had is free after them', async t => {
  const room = SpoolRoom.open(newSpoolRoom(), 'aws')
  const options = { fileName: path.join(t.testdir(), 'spool'), failed: () => undefined, room }
  const images = Array.from({ length: 4 }, () => imageOf(3 * MiB, () => undefined))
  const spooled = await Promise.all(images.map(({ image }) => spoolImage(image, new Set([1]), options, signal)))
  t.strictSame(
    images.map(({ isUsed }) => isUsed),
    [true, true, false, false],
  )
  const further = imageOf(3 * MiB, () => undefined)
  const again = await spoolImage(further.image, new Set([1]), options, signal)
  t.equal(further.isUsed, true)
  for (const each of [...spooled, again]) await each?.close()
  t.equal(further.isUsed, false)
})

t.test(
  'where others take the room meanwhile, the spool that is being made is given up, and its own is free',
  async t => {
    const disk = diskOf(50)
    const memory = newSpoolRoom()
    const room = SpoolRoom.open(memory, 'aws', disk)
    const directory = t.testdir()
    const options = { fileName: path.join(directory, 'spool'), failed: () => undefined, room }
    let writtenMiB = 0
    const { image } = imageOf(200 * MiB, () => {
      writtenMiB++
      if (writtenMiB === 10) disk.freeGiB = 5
    })
    t.equal(await spoolImage(image, new Set([1]), options, signal), undefined)
    t.ok(writtenMiB < 100)
    t.ok(new Int32Array(memory).every(word => word === 0))
    t.strictSame(fs.readdirSync(directory), [])
  },
)
