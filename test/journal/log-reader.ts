import t from 'tap'
import { logRecordHeaderSizeBytes } from '../../src/base/limits.ts'
import type { Disk } from '../../src/disk/disk.ts'
import { logFilePath } from '../../src/journal/log-file.ts'
import { LogReader, type RecordPlace } from '../../src/journal/log-reader.ts'
import { scanLog } from '../../src/journal/recovery.ts'
import { dumpLog } from '../../src/journal/verify.ts'
import { FaultyDisk } from '../support/faulty-disk.ts'
import { directory, type ModelRecord, Scenario } from '../support/journal-scenario.ts'

for (const seed of [71, 72, 73]) {
  t.test(
    `a reader that tails the log gets every record once, over rotations, errors and recycling (seed ${seed})`,
    async t => {
      const disk = new FaultyDisk()
      const scenario = new Scenario(seed)
      scenario.open(disk)
      const reader = new LogReader({ disk, directory })
      const read = new Map<string, number[]>()
      for (let step = 0; step < 80; step++) {
        if (scenario.random.chance(0.15)) disk.failAt(disk.operationCount + scenario.random.integer(1, 2), 'EIO')
        scenario.append()
        if (scenario.random.chance(0.6)) scenario.work()
        if (scenario.random.chance(0.5)) continue
        const limit = scenario.log?.durable() ?? { fileIdentity: 0, offsetBytes: 0 }
        const sizeBytesMax = scenario.random.integer(1, 40_000)
        for (
          let batch = reader.next(limit, sizeBytesMax);
          batch.records.length > 0;
          batch = reader.next(limit, sizeBytesMax)
        ) {
          t.strictSame(batch.damage, [])
          for (const { header, place } of batch.records) {
            const key = `${header.vpg}/${header.stream}`
            const record: ModelRecord | undefined = scenario.streams.get(key)?.records.get(header.firstSequence)
            if (record === undefined || Buffer.compare(reader.readRecord(place), record.frame) !== 0) {
              t.fail(`step ${step}: ${key} sequence ${header.firstSequence}`)
            }
            read.set(key, [...(read.get(key) ?? []), header.firstSequence])
          }
        }
        t.equal(reader.position().fileIdentity, limit.fileIdentity, 'it has reached the mark')
        if (step > 20 && scenario.random.chance(0.4)) scenario.freeOne()
        for (const [key, stream] of scenario.streams) {
          const expected = [...stream.records.keys()].filter(first => first <= stream.lastAcknowledged)
          t.strictSame(read.get(key) ?? [], expected, `step ${step}: ${key}`)
        }
      }
      reader.close()
      t.ok(disk.openCount() <= 1, 'no file stays open')
    },
  )
}

/** Where the page cache has what follows the record's header. */
function badPageOf({ offsetBytes }: Pick<RecordPlace, 'offsetBytes'>): number {
  return Math.floor((offsetBytes + logRecordHeaderSizeBytes + 8) / pageSizeBytes) * pageSizeBytes
}

const pageSizeBytes = 4096

/** The disk, but for the pages of these sectors, for which it has only an error. */
function withBadSector(inner: FaultyDisk, place: RecordPlace, ...others: readonly number[]): Disk {
  const { fileIdentity } = place
  const badPages = [badPageOf(place), ...others]
  const open: Disk['open'] = (file, mode) => {
    const opened = inner.open(file, mode)
    if (file !== logFilePath(directory, fileIdentity)) return opened
    return {
      read: (target, at) => {
        if (badPages.some(bad => at < bad + pageSizeBytes && at + target.length > bad))
          throw Object.assign(new Error('EIO: i/o error'), { code: 'EIO' })
        return opened.read(target, at)
      },
      write: (pieces, at) => opened.write(pieces, at),
      sync: () => opened.sync(),
      sizeBytes: () => opened.sizeBytes(),
      truncate: sizeBytes => opened.truncate(sizeBytes),
      close: () => opened.close(),
    }
  }
  return new Proxy<Disk>(inner, {
    get: (_, name: keyof Disk) => (name === 'open' ? open : inner[name].bind(inner)),
  })
}

/** A log of some files, what a reader finds in it, and of that a record in the middle. */
function writtenLog() {
  const disk = new FaultyDisk()
  const scenario = new Scenario(5)
  scenario.open(disk)
  for (let step = 0; step < 60; step++) {
    scenario.append()
    scenario.work()
  }
  const limit = scenario.log!.durable()
  const places = readAll(new LogReader({ disk, directory }), limit)
  const middle = places[Math.floor(places.length / 2)]!
  return { disk, limit, places, middle }
}

t.test('a sector that cannot be read costs the record that it is in; the end of the log is not cut for it', async t => {
  const { disk, limit, places, middle } = writtenLog()
  const badBytes = badPageOf(middle)
  const isHit = ({ fileIdentity, offsetBytes, sizeBytes }: RecordPlace): boolean =>
    fileIdentity === middle.fileIdentity && offsetBytes < badBytes + pageSizeBytes && offsetBytes + sizeBytes > badBytes
  const reader = new LogReader({ disk: withBadSector(disk, middle), directory })
  const found = readAll(reader, limit)
  const expected = places.filter(
    place => !isHit(place) || found.some(({ offsetBytes }) => offsetBytes === place.offsetBytes),
  )
  t.strictSame(found, expected, 'no record beside that page is missed')
  t.ok(places.length - found.length < 12)
  for (const place of places) {
    if (isHit(place)) t.throws(() => reader.readRecord(place), { code: 'RECORD_CORRUPT' })
    else reader.readRecord(place)
  }
  reader.close()
  t.doesNotThrow(() => scanLog(withBadSector(disk, middle), directory), 'a start goes on')
  t.throws(
    () => scanLog(withBadSector(disk, places.at(-1)!), directory),
    { code: 'EIO' },
    'what may be acknowledged is not cut off',
  )
})

t.test('so does one that the header of its file is in: that alone stops neither a start nor who reads on', async t => {
  const { disk, limit, places, middle } = writtenLog()
  const headerPage = 0
  const scan = scanLog(withBadSector(disk, middle, headerPage), directory)
  t.ok(scan.recovered.damage.some(({ offsetBytes }) => offsetBytes === headerPage))
  t.strictSame(scan.misplacedFiles, [])
  const reader = new LogReader({ disk: withBadSector(disk, middle, headerPage), directory })
  const found = readAll(reader, limit)
  t.ok(found.length > 0 && places.length - found.length < 12)
  t.throws(() => reader.readRecord(middle), { code: 'RECORD_CORRUPT' })
  reader.close()
  const facts = [...dumpLog(withBadSector(disk, middle, headerPage), directory)]
  t.ok(facts.some(fact => fact.type === 'fault' && fact.fileIdentity === middle.fileIdentity))
})

function readAll(reader: LogReader, limit: { fileIdentity: number; offsetBytes: number }): RecordPlace[] {
  const places: RecordPlace[] = []
  for (let batch = reader.next(limit, 1e9); batch.records.length > 0; batch = reader.next(limit, 1e9)) {
    places.push(...batch.records.map(({ place }) => place))
  }
  return places
}
