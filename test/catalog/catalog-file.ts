import { statSync } from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { newVpgId } from '../../src/base/ids.ts'
import { openCatalogFile, walCheckpoint, walSizeBytesMax } from '../../src/catalog/catalog-file.ts'
import { CatalogTables } from '../../src/catalog/catalog-tables.ts'
import { checkpointNumber, position, segmentSpan, tailRows } from '../support/catalog-rows.ts'

t.test('a statement is made once and kept: Node may not survive one that is collected as garbage', t => {
  const { database } = openCatalogFile(path.join(t.testdir(), 'index.sqlite'))
  const prepare = database.prepare.bind(database)
  let madeCount = 0
  const counting = (sql: string): unknown => {
    madeCount++
    return prepare(sql)
  }
  const refused = (): never => t.fail('pragma() makes a statement and lets it go') as never
  Object.assign(database, { prepare: counting, pragma: refused })
  const vpg = newVpgId()
  const use = (round: number): void => {
    const tables = new CatalogTables(database)
    tables.add(tailRows(vpg, 10), [{ vpg, checkpoint: checkpointNumber(round + 1) }])
    for (const step of tables.addSegment(vpg, segmentSpan(round + 1, 1, 20), [position(1, 1, 20)])) void step
    tables.list({ vpg, order: 'oldest-first', limit: 10 })
    tables.statistics(vpg)
    walCheckpoint(database, 'PASSIVE')
  }
  for (let round = 0; round < 3; round++) use(round)
  const madeAtFirst = madeCount
  t.ok(madeAtFirst > 0)
  for (let round = 3; round < 8; round++) use(round)
  t.equal(madeCount, madeAtFirst)
  database.close()
  t.end()
})

t.test('a WAL that was moved into the file is cut, so that its size says how much there is to move', t => {
  const file = path.join(t.testdir(), 'index.sqlite')
  const { database } = openCatalogFile(file)
  const walSizeBytes = (): number => statSync(`${file}-wal`).size
  const vpg = newVpgId()
  const tables = new CatalogTables(database)
  for (let stream = 1; walSizeBytes() <= walSizeBytesMax; stream++) tables.add(tailRows(vpg, 1_000, stream), [])
  walCheckpoint(database, 'PASSIVE')
  tables.add([], [{ vpg, checkpoint: checkpointNumber(1) }])
  t.ok(walSizeBytes() < walSizeBytesMax / 2, `${walSizeBytes()} bytes after the next transaction`)
  database.close()
  t.end()
})
