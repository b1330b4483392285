import t from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { failedWith } from '../../src/base/failure.ts'
import { MiB } from '../../src/base/units.ts'
import { realDisk } from '../../src/disk/disk.ts'
import { type DurableGroup, Journal, verifyLog } from '../../src/journal/journal.ts'
import { LogReader } from '../../src/journal/log-reader.ts'
import { appendLoad, loadFrame, RecordedEvents } from '../support/journal-load.ts'

async function openJournal(directory: string, options: { logSizeBytesMax?: number; events?: RecordedEvents } = {}) {
  return Journal.open({
    directory,
    logSizeBytesMax: options.logSizeBytesMax ?? 256 * MiB,
    clock: systemClock,
    events: options.events ?? new RecordedEvents(),
    fileSizeBytes: 8 * MiB,
  })
}

async function until(condition: () => boolean): Promise<void> {
  const deadlineMillis = systemClock.monotonicMillis() + 10_000
  while (!condition() && systemClock.monotonicMillis() < deadlineMillis) {
    await systemClock.sleep(5, new AbortController().signal)
  }
}

t.test(
  'what is durable is told with its place, can be read at once by another reader, and is there after a restart',
  async t => {
    const directory = t.testdir()
    const journal = await openJournal(directory)
    const groups: DurableGroup[] = []
    journal.onDurable(group => groups.push(group))
    const count = 150
    await Promise.all(
      [1, 2, 3].flatMap(stream => Array.from({ length: count }, (_, index) => appendLoad(journal, stream, index + 1))),
    )
    const records = groups.flatMap(group => group.records)
    t.equal(records.length, 3 * count)
    t.ok(groups.length < records.length, 'groups hold more than one record')
    const reader = new LogReader({ disk: realDisk, directory })
    const read = reader.next(journal.durable(), Infinity)
    t.strictSame(
      read.records.map(({ place }) => [place.fileIdentity, place.offsetBytes, place.sizeBytes]),
      records.map(place => [place.fileIdentity, place.offsetBytes, place.sizeBytes]),
      'the reader tails what was told',
    )
    t.strictSame(reader.next(journal.durable(), Infinity).records, [], 'and then waits for more')
    for (const place of records) {
      const same = Buffer.compare(reader.readRecord(place), loadFrame(place.stream, place.firstSequence)) === 0
      if (!same) t.fail(`stream ${place.stream} sequence ${place.firstSequence}`)
    }
    await journal.close()
    const again = await openJournal(directory)
    t.strictSame(again.recovered.records, records)
    t.strictSame(again.recovered.damage, [])
    t.equal(again.recovered.tornTail, undefined)
    await again.close()
    t.equal(verifyLog(realDisk, directory, fault => t.fail(fault.sentence)).recordCount, 3 * count)
  },
)

t.test('groups follow one another while the event loop is kept from taking messages', async t => {
  const journal = await openJournal(t.testdir())
  const appends: Promise<void>[] = []
  let durableCount = 0
  const deadlineMillis = systemClock.monotonicMillis() + 10_000
  // Only microtasks run between two appends, as between two reads of many sockets.
  for (let sequence = 1; durableCount < 5 && systemClock.monotonicMillis() < deadlineMillis; sequence++) {
    appends.push(appendLoad(journal, 1, sequence).then(() => void durableCount++))
    const nextMillis = systemClock.monotonicMillis() + 1
    while (systemClock.monotonicMillis() < nextMillis) await undefined
  }
  t.ok(durableCount >= 5, `${durableCount} became durable`)
  await Promise.all(appends)
  await journal.close()
})

t.test('at its limit the journal acknowledges nothing, says so, and goes on when a file is freed', async t => {
  const directory = t.testdir()
  const events = new RecordedEvents()
  const journal = await openJournal(directory, { logSizeBytesMax: 32 * MiB, events })
  const appends: Promise<void>[] = []
  let acknowledgedCount = 0
  for (let sequence = 1; sequence <= 600; sequence++) {
    appends.push(appendLoad(journal, 1, sequence).then(() => void acknowledgedCount++))
  }
  await until(() => events.named('journalFull').length > 0)
  t.equal(events.named('journalFull').length, 1)
  t.ok(acknowledgedCount > 0 && acknowledgedCount < 600, `${acknowledgedCount} were acknowledged`)
  t.match(journal.status().stalledBecause, /limit/)
  const first = journal.recovered.durable.fileIdentity + 1
  const reader = new LogReader({ disk: realDisk, directory })
  const [record] = reader.next(journal.durable(), 1).records
  const before = record === undefined ? undefined : Buffer.from(reader.readRecord(record.place))
  t.ok(before)
  let next = first
  let done = false
  const all = Promise.all(appends).then(() => (done = true))
  while (!done && next < first + 100) {
    if (journal.durable().fileIdentity > next) journal.freeFile(next++)
    await systemClock.sleep(5, new AbortController().signal)
  }
  await all
  t.equal(acknowledgedCount, 600)
  t.ok(events.named('journalResumed').length > 0)
  t.equal(journal.status().stalledBecause, undefined)
  if (record !== undefined) {
    try {
      // A freed file that nobody has written to yet may still be read; then its bytes are what they were.
      t.ok(before?.equals(reader.readRecord(record.place)), 'no other record is served in its place')
    } catch (error) {
      t.ok(failedWith(error, 'NOT_FOUND'), 'the record of a recycled file is gone, not corrupt')
    }
  }
  await journal.close()
  const again = await openJournal(directory)
  t.strictSame(again.recovered.damage, [])
  t.equal(again.recovered.streams[0]?.lastSequence, 600)
  await again.close()
})

t.test('a slot that is released goes to who waits for room', async t => {
  const journal = await openJournal(t.testdir())
  const slots = []
  for (let slot = journal.reserve(MiB); slot !== undefined; slot = journal.reserve(MiB)) slots.push(slot)
  t.ok(slots.length >= 60, `${slots.length} frames of 1 MiB fit in the pool`)
  let served = false
  journal.whenRoom(MiB, () => (served = journal.reserve(MiB) !== undefined))
  t.equal(served, false)
  const [first] = slots
  if (first !== undefined) journal.release(first)
  t.equal(served, true)
  await journal.close()
})

t.test('a limit below four files is refused in words', async t => {
  await t.rejects(openJournal(t.testdir(), { logSizeBytesMax: 24 * MiB }), { code: 'CONFIG_INVALID' })
})
