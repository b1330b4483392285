import { statSync } from 'node:fs'
import { setImmediate as yieldToOthers } from 'node:timers/promises'
import { parentPort } from 'node:worker_threads'
import type Database from 'better-sqlite3'
import { assert } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'
import { pageSizeMax } from '../base/limits.ts'
import { serveRpc, type RpcMethods } from '../base/rpc.ts'
import {
  beginAnew,
  giveBackPages,
  isDamage,
  openCatalogFile,
  sqliteCode,
  walCheckpoint,
  walSizeBytesMax,
  type OpenedFile,
} from './catalog-file.ts'
import { recoverableOf, type RecoverablePoint } from '../timeline/recoverable.ts'
import { CatalogTables } from './catalog-tables.ts'
import type { CatalogService } from './service.ts'

// The index's thread. Calls that read, and add(), are answered at once; the long ones wait for each other and run in steps,
// between which the others are answered.

/** Pages that one step gives back: some milliseconds. */
const vacuumPagesMax = 256

class CatalogThread implements RpcMethods<CatalogService> {
  #file = ''
  #database: Database.Database | undefined
  #tables: CatalogTables | undefined
  #lastLong: Promise<void> = Promise.resolve()
  /** False when a change was not made, or the file begun anew in use: a note would speak of what is not here. */
  #isWhole = true
  readonly #notify: (reason: string) => void

  constructor(notify: (reason: string) => void) {
    this.#notify = notify
  }

  open: CatalogService['open'] = async ({ file }) => {
    this.#file = file
    const { begunAnew, reason } = this.#use(guarded(() => openCatalogFile(file)))
    const notes = this.#with(tables => tables.notes())
    this.#long(tables => tables.clearLeftovers()).catch(leaveLeftovers)
    return { begunAnew, reason, notes }
  }

  loadVpg: CatalogService['loadVpg'] = argument => this.#long(tables => tables.load(argument))
  dropCheckpointsAbove: CatalogService['dropCheckpointsAbove'] = ({ vpgs }) =>
    this.#long(tables => tables.dropCheckpointsAbove(vpgs))
  keepNotes: CatalogService['keepNotes'] = ({ notes }) =>
    this.#long(tables => (this.#isWhole ? tables.keepNotes(notes) : nothing()))
  forgetVpg: CatalogService['forgetVpg'] = ({ vpg }) => this.#long(tables => tables.forget(vpg))
  addSegment: CatalogService['addSegment'] = ({ vpg, segment, offloaded }) =>
    this.#long(tables => tables.addSegment(vpg, segment, offloaded))
  dropSegments: CatalogService['dropSegments'] = ({ vpg, throughCommitNumber }) =>
    this.#long(tables => tables.dropSegments(vpg, throughCommitNumber))
  dropCheckpoints: CatalogService['dropCheckpoints'] = ({ vpg, edge, kept }) =>
    this.#long(tables => tables.dropCheckpoints(vpg, edge, kept))
  thinCheckpoints: CatalogService['thinCheckpoints'] = ({ vpg, dropped }) =>
    this.#long(tables => tables.thinCheckpoints(vpg, dropped))

  add: CatalogService['add'] = async ({ rows, checkpoints }) => {
    this.#with(tables => tables.add(rows, checkpoints))
    this.#boundWal()
  }
  listCheckpoints: CatalogService['listCheckpoints'] = async query => {
    const { limit } = query
    if (!Number.isInteger(limit) || limit < 1 || limit > pageSizeMax)
      throw new Failure('REQUEST_INVALID', `a page has 1 to ${pageSizeMax} checkpoints, not ${limit}`, { limit })
    return this.#with(tables => tables.list(query))
  }
  checkpoint: CatalogService['checkpoint'] = async ({ vpg, ordinal }) =>
    this.#with(tables => tables.checkpoint(vpg, ordinal))
  latestCheckpoint: CatalogService['latestCheckpoint'] = async ({ vpg, before, including }) =>
    this.#with(tables => tables.latest(vpg, { before, including }))
  checkpointAt: CatalogService['checkpointAt'] = async ({ vpg, timestampMicros, before, including }) =>
    this.#with(tables => tables.at(vpg, timestampMicros, { before, including }))
  recoverable: CatalogService['recoverable'] = async ({ vpg, ...request }) => {
    const points: RecoverablePoint[] = []
    for (let page = this.#with(tables => tables.points(vpg, -1)); page.length > 0;) {
      for (const point of page) points.push(point)
      await yieldToOthers()
      const after = points.at(-1)?.ordinal ?? Infinity
      page = this.#with(tables => tables.points(vpg, after))
    }
    return recoverableOf(points, request)
  }
  statistics: CatalogService['statistics'] = async ({ vpg }) => this.#with(tables => tables.statistics(vpg))
  overviews: CatalogService['overviews'] = async ({ vpgs }) =>
    this.#with(tables => vpgs.map(each => tables.overview(each)))
  locate: CatalogService['locate'] = async ({ vpg, at }) => this.#with(tables => tables.locate(vpg, at))

  settle: CatalogService['settle'] = () =>
    this.#inTurn(async () => {
      while (this.#with(() => this.#database !== undefined && giveBackPages(this.#database, vacuumPagesMax) > 0)) {
        this.#boundWal()
        await yieldToOthers()
      }
      this.#checkpointWal('TRUNCATE')
    })

  close: CatalogService['close'] = () =>
    this.#inTurn(async () => {
      this.#checkpointWal('TRUNCATE')
      this.#database?.close()
      this.#database = undefined
      this.#tables = undefined
    })

  #use(opened: OpenedFile): OpenedFile {
    this.#database = opened.database
    this.#tables = new CatalogTables(opened.database)
    return opened
  }

  /** The steps of one long call, after those of the ones before it. */
  #long(steps: (tables: CatalogTables) => Generator<void, void>): Promise<void> {
    return this.#inTurn(async () => {
      const begunOn = this.#tables
      assert(begunOn !== undefined, 'the index is open')
      const running = steps(begunOn)
      const next = (): boolean =>
        this.#with(tables => {
          if (tables !== begunOn) throw new Failure('RECORD_CORRUPT', 'the journal index was begun anew meanwhile')
          return running.next().done === true
        })
      try {
        while (!next()) {
          this.#boundWal()
          await yieldToOthers()
        }
      } catch (error) {
        this.#isWhole = false
        throw error
      }
      this.#boundWal()
    })
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#lastLong.then(work)
    this.#lastLong = done.catch(() => undefined)
    return done
  }

  /** Every use of the database. Damage that is found here costs the index, not the program. */
  #with<T>(use: (tables: CatalogTables) => T): T {
    const tables = this.#tables
    assert(tables !== undefined, 'the index is open')
    try {
      return guarded(() => use(tables))
    } catch (error) {
      if (error instanceof Failure && isDamage(error.cause)) this.#setAside(error.message)
      throw error
    }
  }

  #setAside(reason: string): void {
    this.#isWhole = false
    this.#database?.close()
    this.#use(guarded(() => beginAnew(this.#file, reason)))
    this.#notify(reason)
  }

  #boundWal(): void {
    const wal = statSync(`${this.#file}-wal`, { throwIfNoEntry: false })
    if (wal !== undefined && wal.size > walSizeBytesMax) this.#checkpointWal('PASSIVE')
  }

  #checkpointWal(how: 'PASSIVE' | 'TRUNCATE'): void {
    const database = this.#database
    assert(database !== undefined, 'the index is open')
    this.#with(() => walCheckpoint(database, how))
  }
}

function* nothing(): Generator<void, void> {}

/** They stay for the next open. */
function leaveLeftovers(error: unknown): void {
  if (!(error instanceof Failure)) throw error
}

/** SQLite's errors as Failures; what is neither damage nor the disk's is a bug. */
function guarded<T>(work: () => T): T {
  try {
    return work()
  } catch (error) {
    const code = sqliteCode(error)
    const sentence = `the journal index: ${error instanceof Error ? error.message : String(error)}`
    if (isDamage(error)) throw new Failure('RECORD_CORRUPT', sentence, { code }, { cause: error })
    if (/^SQLITE_(FULL|IOERR|READONLY|CANTOPEN)/.test(code))
      throw new Failure('DISK_FAILED', sentence, { code }, { cause: error })
    throw error
  }
}

assert(parentPort !== null, 'catalog-worker.js is started as a thread')
const notice = serveRpc<CatalogService>(parentPort, new CatalogThread(reason => notice('begunAnew', { reason })))
