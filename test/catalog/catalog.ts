import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import * as path from 'node:path'
import Database from 'better-sqlite3'
import t from 'tap'
import { newVpgId, type Ordinal } from '../../src/base/ids.ts'
import { giveBackPages, openCatalogFile, sizeBytesOf } from '../../src/catalog/catalog-file.ts'
import { CatalogTables } from '../../src/catalog/catalog-tables.ts'
import { Catalog } from '../../src/catalog/catalog.ts'
import { encodeCheckpoints } from '../../src/timeline/checkpoint-page.ts'
import {
  HeardEvents,
  checkpointNumber,
  checkpointNumbers,
  everyPage,
  openedCatalog,
  position,
  segmentSpan,
  tailRows,
} from '../support/catalog-rows.ts'

// Some of these wait for a disk that others use as well.
t.setTimeout(120_000)

/** Never garbage: see src/catalog/catalog-file.ts. */
const databases: Database.Database[] = []

function openDatabase(file: string): Database.Database {
  const database = new Database(file)
  databases.push(database)
  return database
}

const vpg = newVpgId()
const otherVpg = newVpgId()

t.test('a load makes segments and checkpoints exactly those given, and drops the tail that they cover', async t => {
  const { catalog } = await openedCatalog(t)
  catalog.addTail(tailRows(vpg, 100))
  catalog.addCheckpoints(vpg, checkpointNumbers(1, 20))
  await catalog.addSegment({ vpg, segment: segmentSpan(1, 1, 100), offloaded: [] })
  const segments = [segmentSpan(7, 1, 300), segmentSpan(8, 301, 500)]
  const checkpoints = checkpointNumbers(15, 30)
  await catalog.loadVpg({ vpg, segments, checkpoints, offloaded: [position(1, 1, 500)] })
  const page = await catalog.listCheckpoints({ vpg, order: 'oldest-first', limit: 100 })
  t.strictSame(page, { checkpoints, more: false })
  const { fileSizeBytes, ...counts } = await catalog.statistics({ vpg })
  t.ok(fileSizeBytes > 0)
  t.strictSame(counts, { checkpointCount: 16, segmentCount: 2, tailRowCount: 50 })
  t.strictSame(await catalog.locate({ vpg, at: position(1, 1, 300) }), segments[0])
  t.strictSame(await catalog.locate({ vpg, at: position(1, 1, 301) }), segments[1])
  t.strictSame(await catalog.locate({ vpg, at: position(1, 1, 501) }), tailRows(vpg, 51)[50], 'the rest is in the log')
  t.strictSame(await catalog.locate({ vpg, at: position(1, 1, 1001) }), undefined)
  t.strictSame(await catalog.locate({ vpg, at: position(2, 1, 5) }), undefined)
})

t.test('a history that comes as a page is taken in steps, and is there in one, or not at all', async t => {
  const { catalog, file } = await openedCatalog(t)
  const history = { vpg, segments: [], offloaded: [] }
  await catalog.loadVpg({ ...history, checkpoints: checkpointNumbers(1, 10) })
  const checkpoints = checkpointNumbers(1, 5_000)
  const page = encodeCheckpoints(checkpoints)
  const cut = page.subarray(0, page.length - 1)
  await t.rejects(catalog.loadVpg({ ...history, checkpoints: cut }), { code: 'OBJECT_CORRUPT' })
  t.equal((await everyPage(catalog, { vpg, order: 'oldest-first' })).length, 10, 'what was there stays')
  await catalog.loadVpg({ ...history, checkpoints: page })
  t.strictSame(
    await everyPage(catalog, { vpg, order: 'oldest-first' }),
    checkpoints.map(({ ordinal }) => ordinal),
  )
  t.strictSame(await catalog.checkpoint({ vpg, ordinal: checkpoints[4_321]!.ordinal }), checkpoints[4_321])
  await catalog.close()
  const database = openDatabase(file)
  const loading = new CatalogTables(database).load({ ...history, checkpoints: page })
  const rowsOfStep: number[] = []
  for (let before = countOfRows(database); loading.next().done !== true; before = countOfRows(database))
    rowsOfStep.push(countOfRows(database) - before)
  t.strictSame(rowsOfStep.slice(0, 3), [2_000, 2_000, 1_000])
})

function countOfRows(database: Database.Database): number {
  return (database.prepare('SELECT count(*) AS count FROM checkpoint').get() as { count: number }).count
}

t.test('what is shown of a VPG follows whatever comes and goes', async t => {
  const { catalog } = await openedCatalog(t)
  const shown = async (volumes: readonly number[] = [1]) => {
    const [overview] = await catalog.overviews({ vpgs: [{ vpg, volumes }] })
    const { newest, newestOfAll, oldest, checkpointCount } = overview!
    return [oldest?.ordinal, newestOfAll?.ordinal, newest?.ordinal, checkpointCount]
  }
  const numbers = checkpointNumbers(1, 12)
  const at = (index: number): number => numbers[index]!.ordinal
  t.strictSame(await shown(), [undefined, undefined, undefined, 0])
  catalog.addCheckpoints(vpg, numbers.slice(0, 10))
  t.strictSame(await shown(), [at(0), at(9), at(9), 10])
  catalog.addCheckpoints(vpg, [{ ...numbers[10]!, volumes: [] }])
  t.strictSame(await shown(), [at(0), at(9), at(10), 11])
  catalog.addCheckpoints(vpg, [numbers[10]!])
  t.strictSame(await shown(), [at(0), at(10), at(10), 11], 'in the place of another of the same ordinal')
  t.strictSame(await shown([1, 99]), [at(0), undefined, at(10), 11], 'of other volumes')
  t.strictSame(await shown(), [at(0), at(10), at(10), 11])
  await catalog.thinCheckpoints({ vpg, dropped: [numbers[10]!.ordinal] })
  t.strictSame(await shown(), [at(0), at(9), at(9), 10])
  await catalog.dropCheckpoints({ vpg, edge: numbers[2]!.ordinal, kept: [] })
  t.strictSame(await shown(), [at(2), at(9), at(9), 8])
  const other = newVpgId()
  const above = numbers[7]!.ordinal
  await catalog.dropCheckpointsAbove({
    vpgs: [other, vpg].map(each => ({ vpg: each, above, noteFalls: false })),
  })
  t.strictSame(await shown(), [at(2), at(7), at(7), 6])
  await catalog.loadVpg({ vpg, segments: [], checkpoints: numbers.slice(4, 6), offloaded: [] })
  t.strictSame(await shown(), [at(4), at(5), at(5), 2])
  await catalog.forgetVpg({ vpg })
  t.strictSame(await shown(), [undefined, undefined, undefined, 0])
})

t.test('what was added while the store was away stays when the store says what it has', async t => {
  const { catalog } = await openedCatalog(t)
  catalog.addCheckpoints(vpg, checkpointNumbers(1, 5_020))
  await catalog.dropCheckpointsAbove({
    vpgs: [{ vpg, above: checkpointNumbers(20, 20)[0]!.ordinal, noteFalls: false }],
  })
  t.equal((await catalog.statistics({ vpg })).checkpointCount, 20)
  catalog.addCheckpoints(vpg, checkpointNumbers(21, 5_030))
  const stored = checkpointNumbers(10, 25)
  const keepAbove = stored.at(-1)!.ordinal
  const loading = catalog.loadVpg({ vpg, segments: [], checkpoints: stored, offloaded: [], keepAbove })
  catalog.addCheckpoints(vpg, checkpointNumbers(5_031, 5_040))
  await loading
  const found: number[] = []
  for (let after: Ordinal | undefined; ;) {
    const bounds = after === undefined ? {} : { after }
    const page = await catalog.listCheckpoints({ vpg, order: 'oldest-first', limit: 1000, ...bounds })
    found.push(...page.checkpoints.map(({ ordinal }) => ordinal))
    after = page.checkpoints.at(-1)?.ordinal
    if (!page.more) break
  }
  t.strictSame(
    found,
    checkpointNumbers(10, 5_040).map(({ ordinal }) => ordinal),
  )
  t.equal((await catalog.statistics({ vpg })).checkpointCount, found.length)
})

t.test('a segment takes over the rows of the tail that it covers, and a fold those of the segment', async t => {
  const { catalog } = await openedCatalog(t)
  catalog.addTail(tailRows(vpg, 2000))
  catalog.addTail(tailRows(vpg, 30, 1, 2))
  catalog.addTail(tailRows(vpg, 30, 2))
  catalog.addTail(tailRows(otherVpg, 30))
  catalog.addTail(tailRows(vpg, 30, 2)) // again: replaced, not doubled
  t.equal((await catalog.statistics({ vpg })).tailRowCount, 2060)
  await catalog.addSegment({ vpg, segment: segmentSpan(1, 1, 15_004), offloaded: [position(1, 1, 15_004)] })
  t.equal((await catalog.statistics({ vpg })).tailRowCount, 560, 'a row that is covered in part stays')
  t.match(await catalog.locate({ vpg, at: position(1, 1, 15_001) }), { firstSequence: 15_001 })
  t.match(await catalog.locate({ vpg, at: position(1, 1, 15_000) }), { kind: 'segment' })
  await catalog.addSegment({ vpg, segment: segmentSpan(2, 15_005, 20_000), offloaded: [position(1, 2, 20)] })
  t.equal((await catalog.statistics({ vpg })).tailRowCount, 58, 'all of the older generation is covered')
  t.equal((await catalog.statistics({ vpg: otherVpg })).tailRowCount, 30, 'another VPG keeps its own')
  await catalog.dropSegments({ vpg, throughCommitNumber: 1 })
  t.equal((await catalog.statistics({ vpg })).segmentCount, 1)
  t.equal(await catalog.locate({ vpg, at: position(1, 1, 15_000) }), undefined)
  await catalog.forgetVpg({ vpg })
  t.match(await catalog.statistics({ vpg }), { checkpointCount: 0, segmentCount: 0, tailRowCount: 0 })
  t.equal((await catalog.statistics({ vpg: otherVpg })).tailRowCount, 30)
})

t.test('pages whose rows a segment has taken over are given back to the file system', async t => {
  const { database } = openCatalogFile(path.join(t.testdir(), 'index.sqlite'))
  t.teardown(() => database.close())
  const emptyBytes = sizeBytesOf(database)
  const tables = new CatalogTables(database)
  tables.add(tailRows(vpg, 20_000), [])
  const fullBytes = sizeBytesOf(database)
  t.ok(fullBytes > emptyBytes + 500_000, `${fullBytes} bytes with 20,000 rows`)
  for (const _ of tables.load({ vpg, segments: [], checkpoints: [], offloaded: [position(1, 1, 200_000)] })) continue
  t.equal(tables.statistics(vpg).tailRowCount, 0)
  t.equal(sizeBytesOf(database), fullBytes, 'deleting alone gives nothing back')
  let steps = 0
  while (giveBackPages(database, 64) > 0) steps++
  t.ok(steps > 1, 'in bounded steps')
  t.ok(sizeBytesOf(database) < emptyBytes + 16_384, `${sizeBytesOf(database)} bytes, ${emptyBytes} when it was begun`)
})

t.test('what was added is there after closing and opening again', async t => {
  const { catalog, file } = await openedCatalog(t)
  t.equal(catalog.begunAnew, true, 'the first time there was none')
  catalog.addTail(tailRows(vpg, 10))
  catalog.addCheckpoints(vpg, [checkpointNumber(1)])
  await catalog.close()
  t.notOk(existsSync(`${file}-wal`), 'the WAL was moved into the file')
  const again = (await openedCatalog(t, file)).catalog
  t.equal(again.begunAnew, false)
  t.match(await again.statistics({ vpg }), { checkpointCount: 1, tailRowCount: 10 })
})

t.test(
  'notes are there, the newest of each VPG, but for those after a change that failed, and of VPGs that are gone',
  async t => {
    const file = path.join(t.testdir(), 'index.sqlite')
    const notes = [{ vpg, text: 'as it was' }]
    const kept = async (notesKept: typeof notes): Promise<readonly unknown[]> => {
      const { catalog } = await openedCatalog(t, file)
      const found = catalog.takeNotes()
      await catalog.keepNotes(notesKept)
      await catalog.close()
      return found
    }
    t.strictSame(await kept([{ vpg, text: 'as it was before' }]), [])
    await kept(notes)
    t.strictSame(await kept([]), notes)
    const { catalog } = await openedCatalog(t, file)
    const unnumbered = { ...checkpointNumber(1), ordinal: 0.5 } as unknown as ReturnType<typeof checkpointNumber>
    await t.rejects(catalog.loadVpg({ vpg, segments: [], checkpoints: [unnumbered], offloaded: [] }))
    await catalog.keepNotes([{ vpg, text: 'as it never was' }])
    await catalog.close()
    t.strictSame(await kept([]), notes, 'a change was not made')
    const last = (await openedCatalog(t, file)).catalog
    await last.loadVpg({ vpg, segments: [], checkpoints: [], offloaded: [] })
    await last.forgetVpg({ vpg })
    await last.close()
    t.strictSame(await kept([]), [], 'forgotten')
  },
)

t.test('an index that is missing, foreign, damaged or of another version is set aside and begun anew', async t => {
  const cases: Record<string, (file: string) => void> = {
    'a foreign file': file => writeFileSync(file, 'not a database at all, but of some length'.repeat(100)),
    'a foreign database': file => {
      const database = openDatabase(file)
      database.exec('CREATE TABLE precious (value TEXT)')
      database.close()
    },
    'a newer version': file => {
      const database = openDatabase(file)
      database.exec('PRAGMA user_version = 99')
      database.close()
    },
    'a damaged page': file => {
      const contents = readFileSync(file)
      for (let at = 4096; at < contents.length; at += 4096) contents.fill(0xa5, at, at + 100)
      writeFileSync(file, contents)
    },
    'a cut file': file => writeFileSync(file, readFileSync(file).subarray(0, 6000)),
  }
  for (const [name, spoil] of Object.entries(cases)) {
    const file = path.join(t.testdir(), 'index.sqlite')
    const before = (await openedCatalog(t, file)).catalog
    await before.loadVpg({ vpg, segments: [], checkpoints: checkpointNumbers(1, 3000), offloaded: [] })
    await before.close()
    if (name.startsWith('a foreign')) writeFileSync(file, '')
    spoil(file)
    const spoilt = readFileSync(file)
    const { catalog } = await openedCatalog(t, file)
    t.equal(catalog.begunAnew, true, `${name}: begun anew`)
    t.ok(catalog.reason.length > 10, `${name}: ${catalog.reason}`)
    t.ok(readFileSync(`${file}.aside`).equals(spoilt), `${name}: what was there is kept aside`)
    t.equal((await catalog.statistics({ vpg })).checkpointCount, 0)
    catalog.addCheckpoints(vpg, [checkpointNumber(1)])
    t.equal((await catalog.statistics({ vpg })).checkpointCount, 1, `${name}: and it works`)
    await catalog.close()
  }
})

t.test('damage that is found in use costs the index, not the program, and the caller is told', async t => {
  const { catalog, file, events } = await openedCatalog(t)
  await catalog.loadVpg({ vpg, segments: [], checkpoints: checkpointNumbers(1, 60_000), offloaded: [] })
  await catalog.close()
  const again = new HeardEvents()
  const second = await Catalog.open({ file, events: again })
  t.teardown(() => second.close())
  const contents = readFileSync(file)
  for (let at = 10 * 4096; at < contents.length; at += 4096) contents.fill(0xff, at, at + 64)
  writeFileSync(file, contents)
  const other = openDatabase(file) // whose write makes the thread forget the pages that it holds
  other.exec('UPDATE counter SET next = next + 1')
  other.close()
  await t.rejects(everyPage(second, { vpg, order: 'oldest-first' }), { code: 'RECORD_CORRUPT' })
  t.equal(again.begunAnew.length, 1)
  t.strictSame(events.begunAnew, [])
  t.equal((await second.statistics({ vpg })).checkpointCount, 0, 'it is empty now')
  await second.loadVpg({ vpg, segments: [], checkpoints: checkpointNumbers(1, 5), offloaded: [] })
  t.equal((await second.statistics({ vpg })).checkpointCount, 5, 'and can be loaded again')
  await second.keepNotes([{ vpg, text: 'complete' }])
  await second.close()
  const third = await Catalog.open({ file, events: again })
  t.teardown(() => third.close())
  t.strictSame(third.takeNotes(), [], 'what was noted of the former file is not believed of this one')
})

t.test('rows are flushed by themselves, and more than the bound are dropped and counted', async t => {
  const { catalog, events } = await openedCatalog(t)
  catalog.addTail(tailRows(vpg, 100_500))
  t.equal(events.droppedCount, 500)
  await catalog.flush()
  t.equal((await catalog.statistics({ vpg })).tailRowCount, 100_000)
  t.strictSame(events.failures, [])
})
