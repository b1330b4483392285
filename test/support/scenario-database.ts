import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import * as path from 'node:path'
import { fileURLToPath } from 'node:url'
import Database from 'better-sqlite3'
import { rowText } from './database-rows.ts'
import { mustRun, run, unmount } from './scenario-mount.ts'
import { until } from './scenario-role.ts'

const databaseName = 'entries.sqlite'
const writer = fileURLToPath(new URL('./database-writer.js', import.meta.url))

/** A database under load, whose commits are noted outside of the disk on which it is. */
export class DatabaseLoad {
  /** The last transaction whose commit had returned when it was told. */
  acknowledged = 0
  readonly #child: ChildProcess
  #errors = ''

  private constructor(child: ChildProcess) {
    this.#child = child
    child.stderr?.on('data', chunk => (this.#errors += String(chunk)))
    let rest = ''
    child.stdio[3]?.on('data', chunk => {
      const lines = (rest + String(chunk)).split('\n')
      rest = lines.pop() ?? ''
      this.acknowledged = Number(lines.at(-1) ?? this.acknowledged)
    })
  }

  /** `pauseMillis` after each transaction. */
  static start(mountPoint: string, pauseMillis = 3): DatabaseLoad {
    const argv = [writer, path.join(mountPoint, databaseName), String(pauseMillis)]
    return new DatabaseLoad(spawn(process.execPath, argv, { stdio: ['pipe', 'ignore', 'pipe', 'pipe'] }))
  }

  /** Returns when so many more transactions have been acknowledged. */
  async more(count: number): Promise<void> {
    const end = this.acknowledged + count
    await until(`transaction ${end}`, () => {
      if (this.#child.exitCode !== null) throw new Error(`the database's user ended: ${this.#errors}`)
      return this.acknowledged >= end
    })
  }

  /** The exit status, when the transaction under way is over. */
  async stop(): Promise<number | null> {
    if (this.#child.exitCode === null) {
      const ended = once(this.#child, 'exit')
      this.#child.stdin?.end()
      await ended
    }
    return this.#child.exitCode
  }

  kill(): void {
    this.#child.kill('SIGKILL')
  }
}

/**
 * What is wrong with the image, in sentences; none: its file system and its database recover by themselves, nothing is left to mend, and
 * every transaction up to `acknowledged` is there, whole. Mounting changes the image, so a copy is taken.
 */
export async function faultsOfImage(image: string, mountPoint: string, acknowledged: number): Promise<string[]> {
  const copy = `${image}.checked`
  await mustRun('cp', '--sparse=always', image, copy)
  try {
    const mounted = await run('mount', '-o', 'loop', copy, mountPoint) // replays its journal, as after a power cut
    if (mounted.status !== 0) return [`it is not mounted: ${mounted.output}`]
    let faults: string[]
    try {
      faults = faultsOfDatabase(path.join(mountPoint, databaseName), acknowledged)
    } finally {
      await unmount(mountPoint)
    }
    const checked = await run('e2fsck', '-fn', copy)
    return checked.status === 0 ? faults : [...faults, `e2fsck -fn: ${checked.output}`]
  } finally {
    fs.rmSync(copy)
  }
}

function faultsOfDatabase(file: string, acknowledged: number): string[] {
  try {
    const database = new Database(file, { fileMustExist: true })
    try {
      return [...integrityFaults(database), ...rowFaults(database, acknowledged)]
    } finally {
      database.close()
    }
  } catch (error) {
    return [`the database: ${String(error)}`]
  }
}

function integrityFaults(database: Database.Database): string[] {
  const found = database.pragma('integrity_check', { simple: true })
  return found === 'ok' ? [] : [`integrity_check: ${String(found)}`]
}

function rowFaults(database: Database.Database, acknowledged: number): string[] {
  const rows = database.prepare('SELECT number, text FROM entries ORDER BY number').all() as {
    number: number
    text: string
  }[]
  const faults: string[] = []
  const misplaced = rows.find(({ number }, index) => number !== index + 1)
  if (misplaced !== undefined) faults.push(`a transaction before ${misplaced.number} is missing`)
  const changed = rows.find(({ number, text }) => text !== rowText(number))
  if (changed !== undefined) faults.push(`transaction ${changed.number} has another text`)
  if (rows.length < acknowledged)
    faults.push(`${acknowledged} transactions were acknowledged, ${rows.length} are there`)
  const total = database.prepare('SELECT entryCount, numberSum FROM total').get() as {
    entryCount: number
    numberSum: number
  }
  const sum = (rows.length * (rows.length + 1)) / 2
  if (total.entryCount !== rows.length || total.numberSum !== sum)
    faults.push(`${rows.length} rows, but the total says ${total.entryCount} and ${total.numberSum}`)
  return faults
}
