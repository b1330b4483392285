import { randomBytes } from 'node:crypto'
import * as fs from 'node:fs'
import * as net from 'node:net'
import * as path from 'node:path'
import { systemClock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import type { Closable } from '../base/shutdown.ts'
import type { Disk } from './disk.ts'

// One process a directory, kept by the kernel: the holder listens on a socket whose name is in the directory.
//
//   .claim-<number>-<random>   bound, and not listening yet
//   lock-<number>-<random>     listening: whoever connects finds its process alive
//
// A connect succeeds exactly as long as the process lives, even stopped or busy, and is refused however it ended. Names in a
// file system do not belong to a PID or a network namespace, so this holds between containers that share the directory; it does
// not between hosts, which must not share one.
//
// Who wants the directory shows itself first and looks for others then. Of two that come at a time at least one sees the other, so
// both may give way, never both hold; who gave way looks again a few times. A name is never used twice, so that of a dead
// process can be removed at any time.

const claimPrefix = '.claim-'
const lockPrefix = 'lock-'
const attemptsMax = 6
const delayMillisFirst = 20
const claimMillisMax = 60_000

/**
 * Makes a directory that one process is to hold. One that cannot be made or entered, or is none, is CONFIG_INVALID in words, there and in the
 * lock: whoever started the process named it.
 */
export function makeHeldDirectory(disk: Pick<Disk, 'makeDirectory'>, directory: string): void {
  orRefused(directory, () => disk.makeDirectory(directory))
}

const refusedErrors = new Set<string | undefined>(['EACCES', 'EPERM', 'EROFS', 'EEXIST', 'ENOTDIR', 'ENOENT'])

function orRefused<T>(directory: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (!refusedErrors.has(code)) throw error
    const sentence = code === 'EEXIST' ? 'it is no directory' : message
    throw new Failure('CONFIG_INVALID', `the directory ${directory} cannot be used: ${sentence}`, {}, { cause: error })
  }
}

/** Closing gives the directory back. Fails BUSY while another holds it, CONFIG_INVALID where it cannot hold a socket. */
export async function lockDirectory(directory: string): Promise<Closable> {
  const descriptor = orRefused(directory, () => fs.openSync(directory, 'r'))
  // By this way its names are short, wherever it is: the name of a socket has 107 bytes at most.
  const way = `/proc/self/fd/${descriptor}`
  const never = new AbortController().signal
  try {
    for (let attempt = 1, delayMillis = delayMillisFirst; ; attempt++, delayMillis *= 2) {
      const own = await show(directory, way)
      const other = await livingOther(way, own.name)
      if (other === undefined)
        return {
          close: async () => {
            own.withdraw()
            fs.closeSync(descriptor)
          },
        }
      own.withdraw()
      if (attempt === attemptsMax) throw inUse(directory, other)
      await systemClock.sleep(Math.random() * delayMillis, never)
    }
  } catch (error) {
    fs.closeSync(descriptor)
    throw error
  }
}

interface Shown {
  readonly name: string
  withdraw(): void
}

/** On return every other process that looks finds this one. */
async function show(directory: string, way: string): Promise<Shown> {
  const id = `${process.pid}-${randomBytes(8).toString('hex')}`
  const [claim, name] = [`${claimPrefix}${id}`, `${lockPrefix}${id}`]
  const server = net.createServer(socket => socket.destroy())
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      // Writable by all, so that a daemon of another user that may see the directory can ask, too.
      server.listen({ path: path.join(way, claim), writableAll: true }, resolve)
    })
    fs.renameSync(path.join(way, claim), path.join(way, name))
  } catch (cause) {
    server.close()
    const why = cause instanceof Error ? cause.message : String(cause)
    throw new Failure('CONFIG_INVALID', `${directory} cannot be locked: ${why}`, { directory }, { cause })
  }
  server.on('error', () => undefined) // it could not accept; who has connected knows all the same
  server.unref()
  return {
    name,
    withdraw: () => {
      fs.rmSync(path.join(way, name), { force: true })
      server.close()
    },
  }
}

/** The name of a living process's lock, if there is another one than our own. Those of dead ones are removed. */
async function livingOther(way: string, own: string): Promise<string | undefined> {
  for (const name of fs.readdirSync(way)) {
    if (name.startsWith(claimPrefix)) await removeForgotten(path.join(way, name))
    if (!name.startsWith(lockPrefix) || name === own) continue
    if (await isAlive(path.join(way, name))) return name
    remove(path.join(way, name))
  }
  return undefined
}

/** The claim of a process that died before it had its lock. One that lives has renamed it long before. */
async function removeForgotten(claim: string): Promise<void> {
  const { mtimeMs } = fs.statSync(claim, { throwIfNoEntry: false }) ?? { mtimeMs: Infinity }
  if (systemClock.timestampMicros() / 1000 - mtimeMs >= claimMillisMax && !(await isAlive(claim))) remove(claim)
}

function remove(file: string): void {
  try {
    fs.rmSync(file, { force: true })
  } catch {
    // Another user's: it stays, and says that it is dead to whoever asks.
  }
}

/** Whatever is not surely dead is alive: a queue of connections that is full, one that we may not ask. */
function isAlive(file: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = net.connect(file)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', error => resolve(!isDead.has((error as NodeJS.ErrnoException).code)))
  })
}

const isDead: ReadonlySet<string | undefined> = new Set(['ECONNREFUSED', 'ENOENT'])

function inUse(directory: string, name: string): Failure {
  const holder = Number(name.split('-')[1])
  const sentence = `${directory} is in use by process ${holder} (of another container, if no such process is here): stop that one first`
  return new Failure('BUSY', sentence, { directory, holder })
}
