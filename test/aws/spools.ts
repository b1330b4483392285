import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { Attempts } from '../../src/aws/attempts.ts'
import { Pace } from '../../src/aws/pace.ts'
import { Windows } from '../../src/aws/windows.ts'
import { writeBlocks } from '../../src/aws/write-blocks.ts'
import { systemClock } from '../../src/base/clock.ts'
import { snapshotsWrittenAtOnceMax, spoolSizeBytesMin, spoolsMadeAtOnceMax } from '../../src/base/limits.ts'
import { Permits } from '../../src/base/permits.ts'
import type { SpoolableImage } from '../../src/image/image.ts'
import { newSpoolRoom, SpoolRoom } from '../../src/image/spool-room.ts'

t.test(
  'of snapshots that are written at once each has its spool, one made after the other, and after those of live disks',
  async t => {
    const [memory, disk] = [newSpoolRoom(), { freeBytes: () => 2 ** 40, sizeBytes: () => 2 ** 40 }]
    const live = SpoolRoom.open(memory, 'live', disk)
    const served = Array.from({ length: spoolsMadeAtOnceMax }, () => live.begin())
    let [makingCount, makingCountMax, usedCount] = [0, 0, 0]
    const image: Pick<SpoolableImage, 'unfoldedSizeBytes' | 'fillSpool' | 'useSpool'> = {
      unfoldedSizeBytes: spoolSizeBytesMin,
      fillSpool: async (_volumes, begin) => {
        makingCountMax = Math.max(makingCountMax, ++makingCount)
        begin({ sizeBytes: 0, startBytes: new Float64Array() })
        await delay(5)
        makingCount--
      },
      useSpool: spool => {
        if (spool !== undefined) usedCount++
      },
    }
    const newPace = (): Pace => new Pace(1_000, systemClock)
    const tools = {
      clock: systemClock,
      attempts: new Attempts(1_000, systemClock),
      putters: { put: () => Promise.reject(new Error('there is nothing to put')), abandon: async () => undefined },
      windows: new Windows(),
      spool: {
        fileName: path.join(t.testdir(), 'scratch', 'spool'),
        failed: () => t.fail('no spool is read'),
        room: SpoolRoom.open(memory, 'aws', disk),
      },
      spoolPermit: new Permits(1),
      accountPace: newPace(),
      newPace,
    }
    const write = (volume: number): Promise<unknown> => {
      const snapshot = `snap-${volume}`
      const of = { snapshot, image: image as SpoolableImage, volume, sizeBytes: 2 ** 30, parentBlocks: undefined }
      const ranges = (async function* () {})()
      return writeBlocks({ ...of, ranges, onProgress: () => undefined }, tools as never, new AbortController().signal)
    }
    const writing = Promise.all(Array.from({ length: snapshotsWrittenAtOnceMax }, (_, index) => write(index + 1)))
    await delay(20)
    t.equal(usedCount, 0, 'live disks make theirs')
    for (const share of served) share?.made()
    await writing
    t.equal(usedCount, snapshotsWrittenAtOnceMax)
    t.equal(makingCountMax, 1)
  },
)
