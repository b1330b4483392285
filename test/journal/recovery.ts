import t from 'tap'
import { failedWith } from '../../src/base/failure.ts'
import { vpgId } from '../../src/base/ids.ts'
import { KiB, MiB } from '../../src/base/units.ts'
import { crc32c } from '../../src/codec/crc32c.ts'
import type { Disk } from '../../src/disk/disk.ts'
import { openLog } from '../../src/journal/commit-log.ts'
import { encodeFileHeader, listLogFiles, logFilePath } from '../../src/journal/log-file.ts'
import { LogReader } from '../../src/journal/log-reader.ts'
import type { LogRecordPlace, RecoveredLog } from '../../src/journal/recovered.ts'
import { scanLog } from '../../src/journal/recovery.ts'
import { verifyLog } from '../../src/journal/verify.ts'
import { FaultyDisk } from '../support/faulty-disk.ts'
import { Random } from '../support/journal-random.ts'
import { directory, encodeRecord, fileSizeBytes, Scenario } from '../support/journal-scenario.ts'

/** A log of several files, recycled ones among them, after a clean stop. */
function logOf(seed: number): { disk: FaultyDisk; recovered: RecoveredLog } {
  const disk = new FaultyDisk()
  const scenario = new Scenario(seed)
  scenario.open(disk)
  scenario.live(12)
  scenario.log?.close()
  return { disk, recovered: scanLog(disk, directory).recovered }
}

const identity = (place: LogRecordPlace): string =>
  `${place.vpg}/${place.stream} ${place.generation}.${place.firstSequence}-${place.lastSequence}`

t.test('a flipped byte, wherever it is, is never served, and takes nothing away in silence', async t => {
  const { disk, recovered } = logOf(31)
  const random = new Random(31)
  const known = new Map(recovered.records.map(place => [identity(place), place]))
  const intact = new Map<string, Uint8Array>()
  const reader = new LogReader({ disk, directory })
  for (const [name, place] of known) intact.set(name, reader.readRecord(place).slice())
  reader.close()
  const files = recovered.files.map(file => file.fileIdentity)
  let reportedCount = 0
  for (let round = 0; round < 600; round++) {
    const fileIdentity = files[random.integer(0, files.length - 1)] ?? 0
    const file = logFilePath(directory, fileIdentity)
    // Headers are few among the bytes: half of the flips go into one.
    const inFile = recovered.records.filter(place => place.fileIdentity === fileIdentity)
    const near = random.chance(0.5) ? inFile[random.integer(0, inFile.length - 1)] : undefined
    const offsetBytes =
      near === undefined ? random.integer(0, fileSizeBytes - 1) : near.offsetBytes + random.integer(0, 127)
    if (offsetBytes >= disk.contents(file).length) continue
    const mask = 1 << random.integer(0, 7)
    disk.flip(file, offsetBytes, mask)
    const where = `seed 31, file ${fileIdentity}, offset ${offsetBytes}, mask ${mask}`
    let now: RecoveredLog
    try {
      now = scanLog(disk, directory).recovered
    } catch (error) {
      t.fail(`${where}: ${String(error)}`)
      break
    }
    const names = new Set(now.records.map(identity))
    const lost = [...known.keys()].filter(name => !names.has(name))
    if (lost.length > 0 && now.damage.length === 0) t.fail(`${where}: ${lost.join(', ')} lost in silence`)
    if (lost.length > 1) t.fail(`${where}: one byte took ${lost.length} records`)
    for (const place of now.records) {
      if (!known.has(identity(place))) t.fail(`${where}: ${identity(place)} was invented`)
    }
    const again = new LogReader({ disk, directory })
    let refusedCount = 0
    for (const place of now.records) {
      try {
        const frame = again.readRecord(place)
        const good = Buffer.compare(frame, intact.get(identity(place)) ?? Buffer.alloc(0)) === 0
        if (!good) t.fail(`${where}: wrong bytes were served`)
      } catch (error) {
        if (!failedWith(error, 'RECORD_CORRUPT')) throw error
        refusedCount++
      }
    }
    again.close()
    // Whatever was hit below the end: verify says so, unless nothing depends on the byte (padding behind a frame).
    const totals = verifyLog(disk, directory, () => undefined)
    if (now.damage.length + refusedCount > 0) {
      reportedCount++
      if (totals.faultCount === 0) t.fail(`${where}: verify found nothing`)
    }
    disk.flip(file, offsetBytes, mask)
  }
  t.ok(reportedCount > 200, `${reportedCount} flips were reported`)
  t.strictSame(scanLog(disk, directory).recovered, recovered, 'and all of them were undone')
})

t.test('damage names the stream and the sequences that are gone', async t => {
  const { disk, recovered } = logOf(32)
  const lost = recovered.records.find(
    (place, index) =>
      place.kind === 'batch' &&
      index > 0 &&
      recovered.records.slice(0, index).some(before => before.stream === place.stream) &&
      recovered.records.slice(index + 1).some(after => after.stream === place.stream),
  )
  t.ok(lost)
  if (lost === undefined) return
  disk.flip(logFilePath(directory, lost.fileIdentity), lost.offsetBytes + 60)
  const { damage } = scanLog(disk, directory).recovered
  t.strictSame(
    damage.map(({ fileIdentity, offsetBytes, sizeBytes, missing }) => ({
      fileIdentity,
      offsetBytes,
      sizeBytes,
      missing,
    })),
    [
      {
        fileIdentity: lost.fileIdentity,
        offsetBytes: lost.offsetBytes,
        sizeBytes: lost.sizeBytes,
        missing: [
          {
            vpg: lost.vpg,
            stream: lost.stream,
            generation: 1,
            firstSequence: lost.firstSequence,
            lastSequence: lost.lastSequence,
          },
        ],
      },
    ],
  )
  t.match(damage[0]?.sentence, new RegExp(`sequences ${lost.firstSequence} to ${lost.lastSequence}`))
  const reader = new LogReader({ disk, directory })
  const batch = reader.next(recovered.durable, Infinity)
  t.equal(batch.damage.length, 1, 'a reader meets it, too')
  t.equal(batch.records.length, recovered.records.length - 1, 'and goes on behind it')
})

t.test('a log of another version is refused, not recycled', async t => {
  const { disk, recovered } = logOf(33)
  const file = disk.open(logFilePath(directory, recovered.files[0]?.fileIdentity ?? 0), 'write')
  const block = encodeFileHeader({ fileIdentity: 1, logFileSizeBytes: fileSizeBytes, createdMicros: 1 })
  block[4] = 2
  new DataView(block.buffer).setUint32(32, crc32c(block.subarray(0, 32)), true)
  file.write([block], 0)
  file.close()
  t.throws(() => scanLog(disk, directory), { code: 'VERSION_UNSUPPORTED' })
})

t.test('a file under a wrong name is set aside whole, and said', async t => {
  const { disk, recovered } = logOf(36)
  const newest = recovered.durable.fileIdentity
  const first = recovered.files[0]?.fileIdentity ?? 0
  const misplaced = Math.max(...listLogFiles(disk, directory)) + 7
  disk.rename(logFilePath(directory, first), logFilePath(directory, misplaced))
  const before = disk.contents(logFilePath(directory, misplaced)).slice()
  const { recovered: found } = openLog(disk, {
    directory,
    fileSizeBytes,
    logSizeBytesMax: 40 * fileSizeBytes,
    timestampMicros: () => 1,
    files: { prepare: () => undefined, free: () => undefined },
    events: { fileRotated: () => undefined, diskFailed: () => undefined },
  })
  t.equal(found.durable.fileIdentity, newest)
  t.ok(found.damage.some(({ fileIdentity }) => fileIdentity === misplaced))
  t.strictSame(disk.contents(logFilePath(directory, misplaced, 'aside')), before)
})

t.test('what is left of a former use of recycled blocks is neither a record nor damage', async t => {
  const { disk, recovered } = logOf(36)
  t.ok(recovered.files.length > 2)
  t.ok(Math.max(...recovered.files.map(file => file.fileIdentity)) > recovered.files.length, 'files were recycled')
  t.strictSame(recovered.damage, [])
  t.equal(recovered.tornTail, undefined)
  t.equal(verifyLog(disk, directory, fault => t.fail(fault.sentence)).faultCount, 0)
})

t.test('a log of more records than are kept in memory is recovered alike, but for the list of the oldest', t => {
  for (const seed of [31, 36, 37]) {
    const { disk, recovered } = logOf(seed)
    const few = scanLog(disk, directory, { headersKeptMax: 7, recordsToldMax: 5 }).recovered
    t.strictSame(few.records, recovered.records.slice(-5), `seed ${seed}: the newest`)
    t.equal(few.untoldCount, recovered.records.length - 5)
    t.strictSame({ ...few, records: [], untoldCount: 0 }, { ...recovered, records: [], untoldCount: 0 })
  }
  t.end()
})

t.test('what seems damaged beside a writer, and is not when it is looked at again, is no damage', t => {
  const { disk, recovered } = logOf(31)
  const places = recovered.records.filter(place => place.fileIdentity === recovered.files[0]?.fileIdentity)
  const { fileIdentity, offsetBytes } = places[Math.floor(places.length / 2)]!
  let looks = 0
  const spoilt = (looksMax: number): Disk =>
    opening(disk, (file, mode) => {
      const open = disk.open(file, mode)
      if (file !== logFilePath(directory, fileIdentity) || ++looks > looksMax) return open
      const read = (target: Uint8Array, startBytes: number): number => {
        const count = open.read(target, startBytes)
        const at = offsetBytes - startBytes
        // The record's magic, as before it was written.
        if (at + 8 > 0 && at < count) target.fill(0, Math.max(0, at), Math.min(count, at + 8))
        return count
      }
      return { ...open, read }
    })
  const faults = (of: Disk): number => {
    looks = 0
    return verifyLog(of, directory, () => undefined).faultCount
  }
  t.equal(faults(spoilt(0)), 0)
  t.equal(faults(spoilt(1)), 0, 'whole at the second look')
  t.ok(faults(spoilt(Infinity)) > 0, 'damaged at every look')
  t.end()
})

t.test('of large records little more than the headers is read, and of small ones many at once', t => {
  for (const { frameSizeBytes, recordCount, bytesMax, readsMax } of [
    { frameSizeBytes: 200_000, recordCount: 20, bytesMax: 20 * 10 * KiB, readsMax: 2 * 20 },
    { frameSizeBytes: 900, recordCount: 400, bytesMax: 400 * 5 * KiB, readsMax: 400 / 10 },
  ]) {
    const disk = new FaultyDisk()
    const { log } = openLog(disk, {
      directory,
      fileSizeBytes: 8 * MiB,
      logSizeBytesMax: 32 * MiB,
      timestampMicros: () => 1,
      files: { prepare: () => undefined, free: () => undefined },
      events: { fileRotated: () => undefined, diskFailed: () => undefined },
    })
    const frame = new Uint8Array(frameSizeBytes).fill(7)
    for (let number = 1; number <= recordCount; number++) {
      const record = { streamKey: '', firstSequence: number, lastSequence: number, kind: 'batch', frame } as const
      log.appendGroup([encodeRecord(record, { vpg: vpgId('a'.repeat(32)), stream: 1 })])
    }
    log.close()
    let bytes = 0
    let reads = 0
    const counting = opening(disk, (file, mode) => {
      const open = disk.open(file, mode)
      const read = (target: Uint8Array, offsetBytes: number): number => {
        const count = open.read(target, offsetBytes)
        bytes += count
        reads++
        return count
      }
      return { ...open, read }
    })
    t.equal(scanLog(counting, directory).recovered.records.length, recordCount)
    t.ok(bytes < bytesMax, `${bytes} bytes of ${recordCount} records of ${frameSizeBytes}`)
    t.ok(reads < readsMax, `${reads} reads of ${recordCount} records of ${frameSizeBytes}`)
  }
  t.end()
})

/** The same disk, but for how files are opened. */
function opening(disk: FaultyDisk, open: Disk['open']): Disk {
  return {
    open,
    list: of => disk.list(of),
    makeDirectory: () => disk.makeDirectory(),
    rename: (from, to) => disk.rename(from, to),
    link: (from, to) => disk.link(from, to),
    remove: file => disk.remove(file),
    exists: file => disk.exists(file),
    syncDirectory: of => disk.syncDirectory(of),
    freeBytes: () => disk.freeBytes(),
  }
}
