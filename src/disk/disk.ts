import * as fs from 'node:fs'
import * as path from 'node:path'

export {
  claimName,
  createFileDurably,
  makeDirectoryDurably,
  publishDurably,
  realFileCalls,
  replaceFileDurably,
  syncDirectory,
  type FileCalls,
} from './durable-create.ts'

// The local disk, and the only place that syncs and renames files.
//
// The calls are synchronous: they are made in threads of their own, where one call at a time is what is wanted (the
// commit log), or where the caller is a command. A faulty disk in the tests implements the same seam, loses what was
// not synced, and fails at any call it is told to.

/** An open file. Offsets and sizes in bytes. Any call may throw an Error with a `code` (EIO, ENOSPC...). */
export interface DiskFile {
  /** Reads up to target.length bytes at the offset; returns how many there were. */
  read(target: Uint8Array, offsetBytes: number): number
  /** Writes every byte of every piece, one behind the other from the offset, or throws. Not durable before sync(). */
  write(pieces: readonly Uint8Array[], offsetBytes: number): void
  /** fdatasync: on return all that was written before is durable. A throw is final for this file: never retry it. */
  sync(): void
  sizeBytes(): number
  truncate(sizeBytes: number): void
  close(): void
}

/** Names and files below one data directory. Every path is absolute. */
export interface Disk {
  /** 'create' fails with EEXIST where the file exists; 'write' and 'read' with ENOENT where it does not. */
  open(file: string, mode: 'read' | 'write' | 'create'): DiskFile
  /** Names in a directory, in byte order; empty where there is no such directory. */
  list(directory: string): string[]
  /** Creates the directory and those above it; durable only after syncDirectory of the parent. */
  makeDirectory(directory: string): void
  /** Atomic replacement of `to`; durable only after syncDirectory. */
  rename(from: string, to: string): void
  /** Makes `to` a second name of `from`; fails with EEXIST where `to` exists; durable only after syncDirectory. */
  link(from: string, to: string): void
  remove(file: string): void
  exists(file: string): boolean
  /** On return the names in the directory are durable. */
  syncDirectory(directory: string): void
  /** Free bytes for this process on the file system that holds the path. */
  freeBytes(directory: string): number
}

class RealFile implements DiskFile {
  readonly #descriptor: number

  constructor(descriptor: number) {
    this.#descriptor = descriptor
  }

  read(target: Uint8Array, offsetBytes: number): number {
    let done = 0
    while (done < target.length) {
      const count = fs.readSync(this.#descriptor, target, done, target.length - done, offsetBytes + done)
      if (count === 0) break
      done += count
    }
    return done
  }

  write(pieces: readonly Uint8Array[], offsetBytes: number): void {
    const [only] = pieces
    if (pieces.length === 1 && only !== undefined) {
      // Two microseconds less than a vector of one: an export makes a call of each of a million pieces.
      for (let done = 0; done < only.length;)
        done += fs.writeSync(this.#descriptor, only, done, only.length - done, offsetBytes + done)
      return
    }
    let at = offsetBytes
    for (let first = 0; first < pieces.length; first += ioVectorMax) {
      const chunk = pieces.slice(first, first + ioVectorMax)
      const sizeBytes = chunk.reduce((sum, piece) => sum + piece.length, 0)
      const written = fs.writevSync(this.#descriptor, chunk, at)
      if (written < sizeBytes) this.#writeRest(chunk, written, at)
      at += sizeBytes
    }
  }

  /** A short write is legal; what is left goes piece by piece. */
  #writeRest(pieces: readonly Uint8Array[], written: number, offsetBytes: number): void {
    let pieceStart = 0
    for (const piece of pieces) {
      for (let from = Math.max(0, written - pieceStart); from < piece.length;) {
        from += fs.writeSync(this.#descriptor, piece, from, piece.length - from, offsetBytes + pieceStart + from)
      }
      pieceStart += piece.length
    }
  }

  sync(): void {
    fs.fdatasyncSync(this.#descriptor)
  }

  sizeBytes(): number {
    return fs.fstatSync(this.#descriptor).size
  }

  truncate(sizeBytes: number): void {
    fs.ftruncateSync(this.#descriptor, sizeBytes)
  }

  close(): void {
    fs.closeSync(this.#descriptor)
  }
}

/** IOV_MAX on Linux. */
const ioVectorMax = 1024

const openFlags = { read: 'r', write: 'r+', create: 'wx+' } as const

export const realDisk: Disk = {
  open: (file, mode) => new RealFile(fs.openSync(file, openFlags[mode], 0o640)),
  list: directory => {
    try {
      return fs.readdirSync(directory).sort()
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
      throw error
    }
  },
  makeDirectory: directory => void fs.mkdirSync(directory, { recursive: true, mode: 0o750 }),
  rename: (from, to) => fs.renameSync(from, to),
  link: (from, to) => fs.linkSync(from, to),
  remove: file => fs.rmSync(file, { force: true }),
  exists: file => fs.existsSync(file),
  syncDirectory: directory => {
    const descriptor = fs.openSync(directory, 'r')
    try {
      fs.fsyncSync(descriptor)
    } finally {
      fs.closeSync(descriptor)
    }
  },
  freeBytes: directory => {
    const { bavail, bsize } = fs.statfsSync(directory)
    return bavail * bsize
  },
}

/** The size of the file system that holds the path. */
export function fileSystemSizeBytes(directory: string): number {
  const { blocks, bsize } = fs.statfsSync(directory)
  return blocks * bsize
}

/** Readers find the old contents or the new, never a mixture, even across power loss. */
export function replaceFile(disk: Disk, file: string, contents: Uint8Array): void {
  const staged = `${file}.staged`
  disk.remove(staged)
  const open = disk.open(staged, 'create')
  try {
    open.write([contents], 0)
    open.sync() // the new bytes are on disk
  } finally {
    open.close()
  }
  disk.rename(staged, file) // ...and become the file in one step
  disk.syncDirectory(path.dirname(file)) // ...and the step itself is on disk
}

/** The whole file, or undefined where there is none. For small files only. */
export function readWholeFile(disk: Disk, file: string): Uint8Array | undefined {
  if (!disk.exists(file)) return undefined
  const open = disk.open(file, 'read')
  try {
    const contents = new Uint8Array(open.sizeBytes())
    return contents.subarray(0, open.read(contents, 0))
  } finally {
    open.close()
  }
}

export { SyncAhead } from './sync-ahead.ts'
export {
  openVolumeFile,
  openVolumeFileToRead,
  type OpenVolumeFile,
  type VolumeFile,
  type VolumeFileIdentity,
} from './volume-file.ts'
