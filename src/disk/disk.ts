import * as fs from 'node:fs'
import * as path from 'node:path'
import { RealFile, type DiskFile } from './real-file.ts'

export type { DiskFile } from './real-file.ts'

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
  removeStaged(disk, staged)
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

/**
 * What a process that ended here has left, durably: where it came back at a power cut, a rename that did not wait for it would give it the file's name.
 */
export function removeStaged(disk: Disk, staged: string): void {
  if (!disk.exists(staged)) return
  disk.remove(staged)
  disk.syncDirectory(path.dirname(staged))
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

export { bootId } from './boot-id.ts'
export { SyncAhead } from './sync-ahead.ts'
export { UnnamedFile } from './unnamed-file.ts'
export {
  openVolumeFile,
  openVolumeFileToRead,
  type OpenVolumeFile,
  type VolumeFile,
  type VolumeFileIdentity,
} from './volume-file.ts'
