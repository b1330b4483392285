import * as fs from 'node:fs'
import Database from 'better-sqlite3'
import { rowText } from './database-rows.ts'

// A database's user in a process of its own, for a process that waits for a disk which it serves itself waits for ever: one transaction
// after the other, each told on descriptor 3 when its commit has returned, until standard input ends.

const database = new Database(process.argv[2]!)
database.pragma('journal_mode = WAL')
database.pragma('synchronous = FULL') // a commit returns when it is on the disk
database.pragma('wal_autocheckpoint = 200')
database.exec('CREATE TABLE entries (number INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT')
database.exec('CREATE TABLE total (entryCount INTEGER NOT NULL, numberSum INTEGER NOT NULL) STRICT')
database.exec('INSERT INTO total VALUES (0, 0)')
const insert = database.prepare('INSERT INTO entries VALUES (?, ?)')
const add = database.prepare('UPDATE total SET entryCount = entryCount + 1, numberSum = numberSum + ?')
const commit = database.transaction((number: number) => {
  insert.run(number, rowText(number))
  add.run(number)
})

const pauseMillis = Number(process.argv[3])
let running = true
process.stdin.on('end', () => (running = false)).resume()
for (let number = 1; running; number++) {
  commit(number)
  fs.writeSync(3, `${number}\n`)
  await new Promise(resolve => setTimeout(resolve, pauseMillis))
}
database.close()
