import { promises } from 'node:fs'
import * as path from 'node:path'
import { MiB } from '../base/units.ts'

// Durable creation without holding up the event loop: the calls go to the thread pool, a few MiB at a time.

/** The calls that are made of the file system. The tests hand in others, that fail or are recorded. */
export type FileCalls = Pick<
  typeof promises,
  'open' | 'link' | 'rename' | 'unlink' | 'mkdir' | 'readdir' | 'stat' | 'readFile'
>

export const realFileCalls: FileCalls = promises

/**
 * A piece takes a thread of the pool for a few milliseconds, and an abort is noticed between two of them. Each is synced before the
 * next is written: the disk is never given a whole object at once, behind which the commit log's next fdatasync would wait.
 */
const pieceSizeBytes = 4 * MiB

export interface NewFile {
  /** Where it is made: a name of its own on the same file system as `file`; gone on return. */
  readonly stagedFile: string
  readonly file: string
  readonly contents: Uint8Array
}

/**
 * On return `file` holds the contents and is durable, name and bytes. Fails with EEXIST where it exists, with ENOENT
 * where its directory does not. Nobody ever sees a part of it: the name is a link to a file that is complete on disk.
 */
export async function createFileDurably(calls: FileCalls, created: NewFile, signal: AbortSignal): Promise<void> {
  const directory = path.dirname(created.file)
  try {
    await writeSynced(calls, created.stagedFile, created.contents, signal) // the bytes are on disk
    await calls.link(created.stagedFile, created.file) // ...they have their name, if nobody took it
    await syncDirectory(calls, directory) // ...and the name is on disk
  } catch (error) {
    // Who finds the name taken may act on what he finds there, so that must be durable too.
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') await syncDirectory(calls, directory)
    throw error
  } finally {
    await calls.unlink(created.stagedFile).catch(() => undefined)
  }
}

/** As replaceFile, beside the event loop; one call at a time for a file. */
export async function replaceFileDurably(calls: FileCalls, file: string, contents: Uint8Array): Promise<void> {
  const staged = `${file}.staged`
  // Of a process that ended here; see removeStaged.
  const isLeft = await calls.unlink(staged).then(
    () => true,
    () => false,
  )
  if (isLeft) await syncDirectory(calls, path.dirname(file))
  await writeSynced(calls, staged, contents, new AbortController().signal)
  await calls.rename(staged, file)
  await syncDirectory(calls, path.dirname(file))
}

async function writeSynced(calls: FileCalls, file: string, contents: Uint8Array, signal: AbortSignal): Promise<void> {
  const open = await calls.open(file, 'wx', 0o640)
  try {
    for (let at = 0; at < contents.length;) {
      signal.throwIfAborted()
      const piece = Math.min(pieceSizeBytes, contents.length - at)
      at += (await open.write(contents, at, piece, at)).bytesWritten // a short write is legal
      signal.throwIfAborted()
      await open.datasync()
    }
    if (contents.length === 0) await open.datasync()
  } finally {
    await open.close()
  }
}

/**
 * On return the file at `from`, whose bytes are durable, has the name `to` and no longer its own, durably. Fails with EEXIST where `to` exists, durably: it may
 * be the same file, from an attempt that got no farther; on a file system without hard links somebody who takes the name in the same instant loses his file.
 */
export async function publishDurably(calls: FileCalls, from: string, to: string): Promise<void> {
  try {
    await calls.link(from, to)
    await syncDirectory(calls, path.dirname(to)) // the new name first: a power cut leaves one of them, or both
    await calls.unlink(from)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') await syncDirectory(calls, path.dirname(to))
    if (!linkless.has((error as NodeJS.ErrnoException).code)) throw error
    const isTaken = await calls.stat(to).then(
      () => true,
      () => false,
    )
    if (isTaken) throw Object.assign(new Error(`EEXIST: ${to}`), { code: 'EEXIST' })
    await calls.rename(from, to)
  }
  await syncDirectory(calls, path.dirname(to))
}

/**
 * Makes `to` a second name of `from`, which is how one of several who want a name gets it. False where `to` exists and is another file; true, too, on a file system without
 * hard links, where nobody can say.
 */
export async function claimName(calls: FileCalls, from: string, to: string): Promise<boolean> {
  try {
    await calls.link(from, to)
    return true
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (linkless.has(code)) return true
    if (code !== 'EEXIST') throw error
    const [own, other] = [await calls.stat(from, { bigint: true }), await calls.stat(to, { bigint: true })]
    return own.ino === other.ino && own.dev === other.dev
  }
}

/** What file systems say that have no hard links. */
const linkless = new Set<string | undefined>(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'])

/** On return the names in the directory are durable. */
export async function syncDirectory(calls: FileCalls, directory: string): Promise<void> {
  const open = await calls.open(directory, 'r')
  try {
    await open.sync()
  } finally {
    await open.close()
  }
}

/**
 * On return the directory exists and its name, and each above it up to `root`, is durable. Those that exist already are
 * synced all the same: who made them may not have got so far.
 */
export async function makeDirectoryDurably(calls: FileCalls, directory: string, root: string): Promise<void> {
  await calls.mkdir(directory, { recursive: true, mode: 0o750 })
  for (let at = directory; at !== root && at !== path.dirname(at); at = path.dirname(at)) {
    await syncDirectory(calls, path.dirname(at))
  }
}
