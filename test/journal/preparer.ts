import t from 'tap'
import { KiB } from '../../src/base/units.ts'
import type { FromPreparer } from '../../src/journal/commit-messages.ts'
import { LogFilePool } from '../../src/journal/file-pool.ts'
import { logFilePath } from '../../src/journal/log-file.ts'
import { Preparer } from '../../src/journal/preparer.ts'
import { FaultyDisk } from '../support/faulty-disk.ts'
import { ManualClock } from '../support/wire-manual-clock.ts'

const fileSizeBytes = 128 * KiB
const options = { directory: '/var/lib/vra', fileSizeBytes, logSizeBytesMax: 1024 * fileSizeBytes }

class RoomyDisk extends FaultyDisk {
  /** How often somebody has looked whether there is room to zero ahead. */
  lookCount = 0
  isGone = false

  override freeBytes(): number {
    this.lookCount++
    if (this.isGone) throw new Error('ENOENT: no such file or directory, statfs')
    return 2 ** 40
  }
}

function site() {
  const disk = new RoomyDisk()
  const clock = new ManualClock()
  const said: FromPreparer[] = []
  const preparer = new Preparer(options, { disk, clock, say: message => said.push(message) })
  const readyCount = (): number => said.filter(({ type }) => type === 'ready').length
  return { disk, clock, preparer, readyCount }
}

t.test('files that were freed, however many, leave no work behind that goes on for ever', async t => {
  const { disk, clock, preparer, readyCount } = site()
  const looksInAMinute = async (): Promise<number> => {
    const before = disk.lookCount
    await clock.advance(60_000)
    return disk.lookCount - before
  }
  await clock.advance(600_000) // all that is to be zeroed ahead is
  const idleCount = await looksInAMinute()
  for (let fileIdentity = 1; fileIdentity <= 100; fileIdentity++) {
    preparer.prepare(fileIdentity)
    await clock.advance(10)
    preparer.free(fileIdentity)
    await clock.advance(10)
  }
  t.equal(readyCount(), 100)
  await clock.advance(600_000)
  t.equal(await looksInAMinute(), idleCount)
  preparer.close()
})

t.test('what a burst has used up is zeroed again', async t => {
  const { disk, clock, preparer, readyCount } = site()
  await clock.advance(600_000)
  const zeroed = (): number => disk.list('/var/lib/vra/log').filter(name => name.endsWith('.zeroed')).length
  const full = zeroed()
  t.ok(full > 1)
  for (let fileIdentity = 1; fileIdentity <= full; fileIdentity++) preparer.prepare(fileIdentity)
  await clock.advance(500)
  t.equal(readyCount(), full)
  t.equal(zeroed(), 0)
  t.equal(disk.contents(logFilePath('/var/lib/vra', 1)).length, fileSizeBytes)
  await clock.advance(600_000)
  t.equal(zeroed(), full)
  preparer.close()
})

t.test('a directory that is gone for a while ends nothing', async t => {
  const { disk, clock, preparer } = site()
  disk.isGone = true
  await clock.advance(60_000)
  t.ok(disk.lookCount > 1)
  disk.isGone = false
  await clock.advance(600_000)
  t.ok(disk.list('/var/lib/vra/log').some(name => name.endsWith('.zeroed')))
  preparer.close()
})

t.test('a freed file whose directory cannot be synced is used again when that can be', t => {
  let isFailing = false
  class FailingDisk extends FaultyDisk {
    override syncDirectory(directory: string): void {
      if (isFailing) throw new Error('EIO')
      super.syncDirectory(directory)
    }
  }
  const disk = new FailingDisk()
  const pool = new LogFilePool(disk, { ...options, spareCountMax: 3, timestampMicros: () => 1 })
  for (const fileIdentity of [1, 2]) pool.prepare(fileIdentity)
  isFailing = true
  t.throws(() => pool.free(1), { message: 'EIO' })
  t.equal(pool.spareCount(), 0, 'its old name may come back')
  isFailing = false
  pool.free(2)
  t.equal(pool.spareCount(), 2)
  t.equal(pool.prepare(3), 'recycled')
  t.equal(pool.prepare(4), 'recycled')
  t.end()
})
