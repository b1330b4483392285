import * as path from 'node:path'
import Database from 'better-sqlite3'
import { MiB } from '../base/units.ts'
import { realDisk } from '../disk/disk.ts'

// The index's file: opened, checked, set aside when it is not ours or not whole. It can always be rebuilt, so nothing is repaired.

const applicationId = 0x56_52_41_49 // 'VRAI'
const schemaVersion = 2
/** A larger file is not read through at open; what is damaged in it is found when it is read. */
const checkSizeBytesMax = 128 * MiB

// Ids are drawn from one counter. A VPG's tail rows stand under its id, checkpoints and segments under its historyId, which is
// another after every load: a load fills the new one and then changes over in one step. Rows of a `leftover` id are
// nobody's any more and are deleted in small steps.
const schema = `
  CREATE TABLE counter (next INTEGER NOT NULL) STRICT;
  INSERT INTO counter (next) VALUES (1);
  CREATE TABLE note (vpg TEXT PRIMARY KEY, text TEXT NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE leftover (id INTEGER PRIMARY KEY) STRICT;
  CREATE TABLE vpg (
    id INTEGER PRIMARY KEY,
    vpg TEXT NOT NULL UNIQUE,
    historyId INTEGER NOT NULL,
    checkpointCount INTEGER NOT NULL,
    segmentCount INTEGER NOT NULL,
    tailRowCount INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE tail (
    vpgId INTEGER NOT NULL,
    stream INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    firstSequence INTEGER NOT NULL,
    lastSequence INTEGER NOT NULL,
    timestampMicros INTEGER NOT NULL,
    fileIdentity INTEGER NOT NULL,
    offsetBytes INTEGER NOT NULL,
    sizeBytes INTEGER NOT NULL,
    PRIMARY KEY (vpgId, stream, generation, firstSequence)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE volumeList (id INTEGER PRIMARY KEY, volumes TEXT NOT NULL UNIQUE) STRICT;
  CREATE TABLE checkpoint (
    historyId INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    timestampMicros INTEGER NOT NULL,
    historyMillis INTEGER NOT NULL,
    vector TEXT NOT NULL,
    volumeListId INTEGER NOT NULL,
    PRIMARY KEY (historyId, ordinal)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX checkpointByTime ON checkpoint (historyId, timestampMicros);
  CREATE TABLE segment (
    historyId INTEGER NOT NULL,
    commitNumber INTEGER NOT NULL,
    span TEXT NOT NULL,
    PRIMARY KEY (historyId, commitNumber)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE segmentRange (
    historyId INTEGER NOT NULL,
    stream INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    firstSequence INTEGER NOT NULL,
    lastSequence INTEGER NOT NULL,
    commitNumber INTEGER NOT NULL,
    PRIMARY KEY (historyId, stream, generation, firstSequence)
  ) STRICT, WITHOUT ROWID;`

/**
 * What this thread has made of better-sqlite3, kept to its end: from 24.19 on Node ends the process where such an object is collected as
 * garbage while no JavaScript runs. It is some seventy statements for every time that the index is opened, which is once, or
 * once more where it had to be begun anew. So no statement may be made but by this function, and pragma() of a database not be used.
 */
const kept = new Map<Database.Database, Map<string, Database.Statement<unknown[]>>>()

export function statementOf(database: Database.Database, sql: string): Database.Statement<unknown[]> {
  const statements = kept.get(database) ?? new Map<string, Database.Statement<unknown[]>>()
  kept.set(database, statements)
  const statement = statements.get(sql) ?? database.prepare(sql)
  statements.set(sql, statement)
  return statement
}

/** Beyond it the WAL is moved into the file: 2 to 3 ms; a WAL that is left to grow costs hundreds at once. */
export const walSizeBytesMax = 4 * MiB

/** What the WAL keeps of its blocks once it was moved. */
const walSizeBytesKept = 1 * MiB

/** The first value that it answers. */
function pragma(database: Database.Database, text: string): unknown {
  return statementOf(database, `PRAGMA ${text}`).pluck().get()
}

/** Moves the WAL into the file; with TRUNCATE nothing is left of it. */
export function walCheckpoint(database: Database.Database, how: 'PASSIVE' | 'TRUNCATE'): void {
  pragma(database, `wal_checkpoint(${how})`)
}

function openDatabase(file: string): Database.Database {
  const database = new Database(file)
  kept.set(database, new Map())
  return database
}

export interface OpenedFile {
  readonly database: Database.Database
  readonly begunAnew: boolean
  /** Why, for people; empty when it was not begun anew. */
  readonly reason: string
}

/** Opens the index, or begins it anew after setting aside what is there and cannot be used. */
export function openCatalogFile(file: string): OpenedFile {
  realDisk.makeDirectory(path.dirname(file))
  if (!realDisk.exists(file)) return begin(file, 'there was no index')
  try {
    return { database: openWhole(file), begunAnew: false, reason: '' }
  } catch (error) {
    if (!(error instanceof Unusable) && !isDamage(error)) throw error
    return beginAnew(file, (error as Error).message)
  }
}

/** Sets the file aside and begins a new one. Nobody may have it open. */
export function beginAnew(file: string, reason: string): OpenedFile {
  setAside(file)
  return begin(file, reason)
}

/** Whether SQLite says that the file is damaged, or is none of its files. */
export function isDamage(error: unknown): boolean {
  const code = sqliteCode(error)
  return code.startsWith('SQLITE_CORRUPT') || code.startsWith('SQLITE_NOTADB')
}

/** SQLite's name of the error, or an empty text when it is not SQLite's. */
export function sqliteCode(error: unknown): string {
  return error instanceof Database.SqliteError ? error.code : ''
}

/** The file is whole, or no file of this program and this version. */
class Unusable extends Error {}

function openWhole(file: string): Database.Database {
  const database = openDatabase(file)
  try {
    const identity = Number(pragma(database, 'application_id'))
    const version = Number(pragma(database, 'user_version'))
    if (identity !== applicationId) throw new Unusable('the file is not an index of this program')
    if (version !== schemaVersion)
      throw new Unusable(`the index has version ${version}, this program reads version ${schemaVersion}`)
    configure(database)
    if (sizeBytesOf(database) <= checkSizeBytesMax) {
      const found = String(pragma(database, 'quick_check(1)'))
      if (found !== 'ok') throw new Unusable(`the index is damaged: ${found}`)
    }
    return database
  } catch (error) {
    database.close()
    throw error
  }
}

function begin(file: string, reason: string): OpenedFile {
  const database = openDatabase(file)
  database.exec('PRAGMA auto_vacuum = INCREMENTAL') // before all else: it is a property of the file's pages
  configure(database)
  const create = database.transaction(() => {
    database.exec(schema)
    database.exec(`PRAGMA application_id = ${applicationId}`)
    database.exec(`PRAGMA user_version = ${schemaVersion}`)
  })
  create()
  return { database, begunAnew: true, reason }
}

/** NORMAL: a power cut may lose the last rows, never the file's order; the log has them still. */
function configure(database: Database.Database): void {
  database.exec('PRAGMA journal_mode = WAL')
  database.exec('PRAGMA synchronous = NORMAL')
  database.exec('PRAGMA wal_autocheckpoint = 0')
  // The first transaction after a WAL checkpoint cuts the WAL to this, so that its size says what there is to move.
  database.exec(`PRAGMA journal_size_limit = ${walSizeBytesKept}`)
}

export function sizeBytesOf(database: Database.Database): number {
  const pageCount = Number(pragma(database, 'page_count'))
  return pageCount * Number(pragma(database, 'page_size'))
}

/** Gives pages without rows back to the file system, at most so many; returns how many. None where the file was begun without that. */
export function giveBackPages(database: Database.Database, pageCountMax: number): number {
  const free = (): number => Number(pragma(database, 'freelist_count'))
  const before = free()
  if (before > 0) database.exec(`PRAGMA incremental_vacuum(${pageCountMax})`)
  return before - free()
}

/** One file is kept for whoever wants to look; an older one goes. */
function setAside(file: string): void {
  for (const suffix of ['', '-wal']) {
    realDisk.remove(`${file}.aside${suffix}`)
    if (realDisk.exists(file + suffix)) realDisk.rename(file + suffix, `${file}.aside${suffix}`)
  }
  realDisk.remove(`${file}-shm`)
  realDisk.syncDirectory(path.dirname(file))
}
