import * as fs from 'node:fs'
import { bootId, openVolumeFile, realDisk, type Disk, type OpenVolumeFile } from '../disk/disk.ts'

/** What live disks need of the machine that they are on. */
export interface LiveMachine {
  readonly disk: Disk
  readonly openFile: OpenVolumeFile
  /** Throws the system's error (ENOENT, ENOTDIR, EACCES) where no files can be made in the directory. */
  requireDirectory(directory: string): void
  /** Nothing of it is left on return, and nothing happens where there is none; durable after a syncDirectory of the one above it. */
  removeTree(directory: string): Promise<void>
  /** 32 hexadecimal digits: of this boot, or of this process, so that only what was flushed counts after a kill. */
  bootId(): string
}

export const realMachine: LiveMachine = {
  disk: realDisk,
  openFile: openVolumeFile,
  requireDirectory: directory => {
    if (!fs.statSync(directory).isDirectory()) throw Object.assign(new Error('not a directory'), { code: 'ENOTDIR' })
    fs.accessSync(directory, fs.constants.W_OK)
  },
  removeTree: directory => fs.promises.rm(directory, { recursive: true, force: true }),
  bootId,
}
