import * as path from 'node:path'
import type { FileHandle } from 'node:fs/promises'
import { assert } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'
import { MiB } from '../base/units.ts'
import { createFileDurably, makeDirectoryDurably, realFileCalls, syncDirectory, type FileCalls } from '../disk/disk.ts'
import { checkKey, checkPrefix } from './keys.ts'
import type { ByteRange, ListedObject, WholeStore } from './object-store.ts'
import { removeLeftovers, stagedFileName } from './staging.ts'

const pieceSizeBytes = 8 * MiB
const statsAtOnce = 64
/** Directories of which we remember that their names are durable; a few per VPG. */
const rememberedMax = 4096

/**
 * Objects as files below a directory, which several threads and processes may have open. A key is a path, so an object
 * `a` and another `a/b` cannot both be: the second fails REQUEST_INVALID.
 */
export class DirectoryStore implements WholeStore {
  readonly #calls: FileCalls
  readonly #root: string
  readonly #objects: string
  readonly #staging: string
  readonly #durableDirectories = new Set<string>()
  /** Directories whose names, as they were at some time since this store was opened, are durable. */
  readonly #listedDirectories = new Set<string>()
  #closed = false

  private constructor(directory: string, calls: FileCalls) {
    this.#calls = calls
    this.#root = path.parse(directory).root
    this.#objects = path.join(directory, 'objects')
    this.#staging = path.join(directory, 'staging')
  }

  /** Makes the directory where there is none, and clears away what creates that were killed have left. */
  static async open(directory: string, calls: FileCalls = realFileCalls): Promise<DirectoryStore> {
    const store = new DirectoryStore(path.resolve(directory), calls)
    try {
      await makeDirectoryDurably(calls, store.#staging, store.#root)
      await makeDirectoryDurably(calls, store.#objects, path.resolve(directory))
      await removeLeftovers(calls, store.#staging)
    } catch (error) {
      throw failureOf(error, directory)
    }
    return store
  }

  async create(key: string, body: Uint8Array, signal: AbortSignal): Promise<void> {
    checkKey(key)
    this.#checkOpen(signal)
    const file = path.join(this.#objects, key)
    try {
      await this.#createFile(file, body, signal)
    } catch (error) {
      this.#listedDirectories.delete(path.dirname(file)) // it may have its name, and that not be on disk: who lists it sees to that
      throw await this.#createFailure(error, key, file)
    }
  }

  async #createFailure(error: unknown, key: string, file: string): Promise<unknown> {
    if (hasCode(error, 'ENOENT')) {
      return new Failure(
        'STORE_UNAVAILABLE',
        `the store's directory went away under "${key}"`,
        { key },
        { cause: error },
      )
    }
    if (!hasCode(error, 'EEXIST')) return failureOf(error, key)
    const found = await this.#calls.stat(file).catch(() => undefined)
    if ((error as NodeJS.ErrnoException).syscall === 'link' && found?.isDirectory() !== true) {
      return new Failure('ALREADY_EXISTS', `the object "${key}" exists`, { key })
    }
    return new Failure(
      'REQUEST_INVALID',
      `"${key}" cannot be beside an object that is its directory, or lies below it`,
      {
        key,
      },
    )
  }

  async #createFile(file: string, body: Uint8Array, signal: AbortSignal): Promise<void> {
    const attempt = async (): Promise<void> => {
      await this.#makeDirectory(path.dirname(file))
      const stagedFile = path.join(this.#staging, stagedFileName())
      await createFileDurably(this.#calls, { stagedFile, file, contents: body }, signal)
    }
    try {
      await attempt()
    } catch (error) {
      // Somebody removed a directory that we remember: forget it and make it again, once.
      if (!hasCode(error, 'ENOENT')) throw error
      this.#durableDirectories.clear()
      await makeDirectoryDurably(this.#calls, this.#staging, this.#root)
      await attempt()
    }
  }

  async #makeDirectory(directory: string): Promise<void> {
    if (this.#durableDirectories.has(directory)) return
    await makeDirectoryDurably(this.#calls, directory, this.#objects)
    if (this.#durableDirectories.size >= rememberedMax) this.#durableDirectories.clear()
    this.#durableDirectories.add(directory)
  }

  async readRange(key: string, range: ByteRange, signal: AbortSignal, spare?: Uint8Array): Promise<Uint8Array> {
    return await this.#read(key, range, signal, open => readExactly(open, key, range, signal, spare))
  }

  async readUpTo(key: string, range: ByteRange, signal: AbortSignal): Promise<Uint8Array> {
    return await this.#read(key, range, signal, async open => {
      const { size } = await open.stat()
      const endBytes = Math.min(range.endBytes, Math.max(size, range.startBytes + 1))
      return await readExactly(open, key, { startBytes: range.startBytes, endBytes }, signal, undefined)
    })
  }

  async #read(
    key: string,
    range: ByteRange,
    signal: AbortSignal,
    read: (open: FileHandle) => Promise<Uint8Array>,
  ): Promise<Uint8Array> {
    checkKey(key)
    assert(range.startBytes >= 0 && range.startBytes <= range.endBytes, 'a range does not end before it starts')
    this.#checkOpen(signal)
    try {
      const open = await this.#calls.open(path.join(this.#objects, key), 'r')
      try {
        return await read(open)
      } finally {
        await open.close()
      }
    } catch (error) {
      if (hasCode(error, 'EISDIR'))
        throw new Failure('NOT_FOUND', `there is no object "${key}"`, { key }, { cause: error })
      // What its disk cannot read is damage of this object: the others can be read, and nobody is to wait until it can.
      if (hasCode(error, 'EIO'))
        throw new Failure('OBJECT_CORRUPT', `the disk cannot read the object "${key}" (EIO)`, { key }, { cause: error })
      throw failureOf(error, key)
    }
  }

  async *list(prefix: string, after: string | undefined, signal: AbortSignal): AsyncGenerator<ListedObject> {
    checkPrefix(prefix)
    this.#checkOpen(signal)
    const directory = prefix.slice(0, prefix.lastIndexOf('/') + 1)
    yield* this.#listDirectory(directory, { prefix, after: after ?? '' }, signal)
  }

  /** The keys that begin with `directory`, a path that is empty or ends in a slash. Holds one directory's names at a time per level. */
  async *#listDirectory(
    directory: string,
    wanted: { prefix: string; after: string },
    signal: AbortSignal,
  ): AsyncGenerator<ListedObject> {
    const keys = (await this.#namesIn(directory)).filter(key =>
      key.endsWith('/')
        ? (key.startsWith(wanted.prefix) || wanted.prefix.startsWith(key)) &&
          (key > wanted.after || wanted.after.startsWith(key))
        : key.startsWith(wanted.prefix) && key > wanted.after,
    )
    if (keys.length > 0) await this.#makeNamesDurable(path.resolve(this.#objects, directory))
    for (let first = 0; first < keys.length; first += statsAtOnce) {
      this.#checkOpen(signal)
      const some = keys.slice(first, first + statsAtOnce)
      const sizes = await Promise.all(some.map(key => this.#sizeOf(key)))
      for (const [index, key] of some.entries()) {
        const sizeBytes = sizes[index]
        if (key.endsWith('/')) yield* this.#listDirectory(key, wanted, signal)
        else if (sizeBytes !== undefined) yield { key, sizeBytes }
      }
    }
  }

  /** In byte order of the keys: a directory's name counts with its slash, as it stands in them. */
  async #namesIn(directory: string): Promise<string[]> {
    const listed = path.resolve(this.#objects, directory)
    try {
      const entries = await this.#calls.readdir(listed, { withFileTypes: true })
      return entries.map(entry => `${directory}${entry.name}${entry.isDirectory() ? '/' : ''}`).sort()
    } catch (error) {
      if (hasCode(error, 'ENOENT') || hasCode(error, 'ENOTDIR')) return []
      throw failureOf(error, directory)
    }
  }

  /**
   * A process that was killed may have given an object its name and not have synced the directory. Who reads the name acts on
   * it, and frees the log that holds the same data; so from the first listing on it survives a power cut, too. What this and
   * other processes that live create later they sync themselves.
   */
  async #makeNamesDurable(directory: string): Promise<void> {
    if (this.#listedDirectories.has(directory)) return
    try {
      await syncDirectory(this.#calls, directory)
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return // it went away with its names
      throw failureOf(error, directory)
    }
    if (this.#listedDirectories.size >= rememberedMax) this.#listedDirectories.clear()
    this.#listedDirectories.add(directory)
  }

  /** Undefined for a directory, and for an object that was removed since its name was read. */
  async #sizeOf(key: string): Promise<number | undefined> {
    if (key.endsWith('/')) return undefined
    try {
      return (await this.#calls.stat(path.join(this.#objects, key))).size
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return undefined
      throw failureOf(error, key)
    }
  }

  async remove(key: string, signal: AbortSignal): Promise<void> {
    checkKey(key)
    this.#checkOpen(signal)
    try {
      await this.#calls.unlink(path.join(this.#objects, key))
    } catch (error) {
      if (hasCode(error, 'ENOENT') || hasCode(error, 'ENOTDIR') || hasCode(error, 'EISDIR')) return
      throw failureOf(error, key)
    }
  }

  async close(): Promise<void> {
    this.#closed = true
  }

  #checkOpen(signal: AbortSignal): void {
    signal.throwIfAborted()
    if (this.#closed) throw new Failure('CLOSING', 'the object store is closed')
  }
}

async function readExactly(
  open: FileHandle,
  key: string,
  range: ByteRange,
  signal: AbortSignal,
  spare: Uint8Array | undefined,
): Promise<Uint8Array> {
  const sizeBytes = range.endBytes - range.startBytes
  // A small range is read at once: whether the object holds it is asked only where too little comes.
  if (sizeBytes === 0 || sizeBytes > pieceSizeBytes) await checkHolds(open, key, range)
  // Else a buffer of its own, never a slice of the pool, so that it can be handed to another thread.
  const target =
    spare !== undefined && spare.length >= sizeBytes ? spare.subarray(0, sizeBytes) : Buffer.allocUnsafeSlow(sizeBytes)
  for (let at = 0; at < target.length;) {
    signal.throwIfAborted()
    const piece = Math.min(pieceSizeBytes, target.length - at)
    const { bytesRead } = await open.read(target, at, piece, range.startBytes + at)
    if (bytesRead === 0) {
      await checkHolds(open, key, range)
      throw new Failure('OBJECT_CORRUPT', `the object "${key}" was cut while it was read`, { key })
    }
    at += bytesRead
  }
  return target
}

async function checkHolds(open: FileHandle, key: string, range: ByteRange): Promise<void> {
  const stats = await open.stat()
  if (!stats.isFile()) throw new Failure('NOT_FOUND', `there is no object "${key}"`, { key })
  if (range.endBytes > stats.size) {
    throw new Failure('OBJECT_CORRUPT', `the object "${key}" is shorter than it should be`, {
      key,
      sizeBytes: stats.size,
      ...range,
    })
  }
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && (error as NodeJS.ErrnoException).code === code
}

/** What the file system's error means to the caller. Errors without a code (an abort, a bug, a Failure) go through. */
function failureOf(error: unknown, name: string): unknown {
  if (error instanceof Failure || !(error instanceof Error)) return error
  const { code, syscall } = error as NodeJS.ErrnoException
  if (typeof code !== 'string' || syscall === undefined) return error
  const details = { key: name, errorCode: code, systemCall: syscall }
  switch (code) {
    case 'ENOENT':
      return new Failure('NOT_FOUND', `there is no object "${name}"`, details, { cause: error })
    case 'ENOTDIR':
      return syscall === 'open'
        ? new Failure('NOT_FOUND', `there is no object "${name}"`, details, { cause: error })
        : new Failure('REQUEST_INVALID', `a directory of "${name}" is an object itself`, details, { cause: error })
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new Failure(
        'CONFIG_INVALID',
        `the store's directory may not be used (${code} at "${name}"): check its owner and permissions`,
        details,
        { cause: error },
      )
    default:
      return new Failure('STORE_UNAVAILABLE', `the store's file system failed: ${error.message}`, details, {
        cause: error,
      })
  }
}
