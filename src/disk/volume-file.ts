import * as fs from 'node:fs'
import { Failure } from '../base/failure.ts'
import { sectorSizeBytes } from '../base/units.ts'
import { blockDeviceSizeBytes, blockDeviceWrites } from './block-device.ts'
import { claimFile } from './file-claim.ts'

// A guest's disk: a raw file or a block device that is read and written by many calls at once, in the thread pool. (The
// calls of disk.ts are synchronous: one at a time, in threads of their own.)

/** What makes it the same, unchanged disk when it is looked at again. Integers as text: inodes and nanoseconds pass 2^53. */
export interface VolumeFileIdentity {
  readonly device: string
  readonly inode: string
  readonly sizeBytes: number
  readonly modifiedNanos: string
  readonly changedNanos: string
  /**
   * Of a block device, in place of the times, which say nothing of its contents: the same text where nobody has written to it between. Empty where that
   * cannot be known.
   */
  readonly writes?: string
}

/** Offsets in bytes, not necessarily sectors. Every call may fail with the system's error (EIO, ENOSPC). */
export interface VolumeFile {
  readonly sizeBytes: number
  /** True when nothing was ever written to it, as a file system knows that is to be believed: every byte is zero. It may be false in any case. */
  readonly isOneHole: boolean
  /**
   * Keeps every other claim of the same disk away until it is closed, whatever names it has. BUSY where there is one. (A block device was claimed
   * when it was opened: what others have left in the kernel's memory for it is written out.)
   */
  claim(): Promise<void>
  /** Fills the whole target. */
  read(target: Uint8Array, offsetBytes: number): Promise<void>
  /** Writes every byte. A kill of the process does not lose it afterwards; a power cut may, before sync(). */
  write(data: Uint8Array, offsetBytes: number): Promise<void>
  /** fdatasync: everything written before the call is durable. A failure is final: what was lost stays lost. */
  sync(): Promise<void>
  /** It may have grown, or shrunk, since it was opened. */
  currentSizeBytes(): number
  /** As of now. Of a block device after claim(), and after a sync() that has not failed, everything written before is in it. */
  identity(): VolumeFileIdentity
  close(): Promise<void>
}

export type OpenVolumeFile = (path: string) => VolumeFile

class RealVolumeFile implements VolumeFile {
  readonly sizeBytes: number
  readonly isOneHole: boolean
  readonly #descriptor: number
  readonly #path: string
  readonly #isFile: boolean
  #isWrittenOut = true

  constructor(descriptor: number, path: string, stat: fs.Stats) {
    this.#descriptor = descriptor
    this.#path = path
    this.#isFile = stat.isFile()
    this.isOneHole = stat.isFile() && stat.blocks === 0 && tellsItsBlocks(path)
    this.sizeBytes = sizeBytesOf(stat)
  }

  async claim(): Promise<void> {
    if (this.#isFile) await claimFile(this.#descriptor, this.#path)
    else this.#isWrittenOut = await this.sync().then(yes, no) // where not, it is not known what was written
  }

  read(target: Uint8Array, offsetBytes: number): Promise<void> {
    return readWhole(this.#descriptor, target, offsetBytes)
  }

  write(data: Uint8Array, offsetBytes: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const writeFrom = (done: number): void =>
        fs.write(this.#descriptor, data, done, data.length - done, offsetBytes + done, (error, count) => {
          if (error !== null) reject(error)
          else if (done + count === data.length) resolve()
          else writeFrom(done + count)
        })
      writeFrom(0)
    })
  }

  sync(): Promise<void> {
    return new Promise((resolve, reject) =>
      fs.fdatasync(this.#descriptor, error => (error === null ? resolve() : reject(error))),
    )
  }

  currentSizeBytes(): number {
    return sizeBytesOf(fs.fstatSync(this.#descriptor))
  }

  identity(): VolumeFileIdentity {
    const stat = fs.fstatSync(this.#descriptor, { bigint: true })
    return {
      device: String(stat.isBlockDevice() ? stat.rdev : stat.dev),
      inode: String(stat.ino),
      sizeBytes: this.sizeBytes,
      modifiedNanos: String(stat.mtimeNs),
      changedNanos: String(stat.ctimeNs),
      ...(stat.isBlockDevice() ? { writes: this.#isWrittenOut ? blockDeviceWrites(Number(stat.rdev)) : '' } : {}),
    }
  }

  close(): Promise<void> {
    return new Promise((resolve, reject) =>
      fs.close(this.#descriptor, error => (error == null ? resolve() : reject(error))),
    )
  }
}

/** Fills the whole target, in the thread pool; DISK_FAILED where the file ends before that. */
export function readWhole(descriptor: number, target: Uint8Array, offsetBytes: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const readFrom = (done: number): void =>
      fs.read(descriptor, target, done, target.length - done, offsetBytes + done, (error, count) => {
        if (error !== null) reject(error)
        else if (done + count === target.length) resolve()
        else if (count === 0) reject(new Failure('DISK_FAILED', 'the disk ended early: was it truncated?'))
        else readFrom(done + count)
      })
    readFrom(0)
  })
}

/**
 * Whether the path's file system counts a block for everything that a file holds, also what is in memory only or in the inode. Others say 0 of files that hold
 * data (FUSE, NFS and whatever knows no better), or may: their files are read.
 */
function tellsItsBlocks(path: string): boolean {
  try {
    return countingFileSystems.has(fs.statfsSync(path).type)
  } catch {
    return false
  }
}

/** By the magic numbers of statfs(2): ext2 to ext4, XFS, tmpfs. */
const countingFileSystems: ReadonlySet<number> = new Set([0xef53, 0x58465342, 0x01021994])

const yes = (): boolean => true
const no = (): boolean => false

function sizeBytesOf(stat: fs.Stats): number {
  return stat.isBlockDevice() ? blockDeviceSizeBytes(stat.rdev) : stat.size
}

/**
 * Opens a raw file or a block device for reading and writing; CONFIG_INVALID, in words, where it is neither. A block device is claimed: where
 * it is mounted, part of another device, or served by another agent, that is CONFIG_INVALID, too. Two who write to it without
 * knowing of each other would ruin the guest's file system.
 */
export const openVolumeFile: OpenVolumeFile = path => {
  const claim = (): number => (fs.statSync(path).isBlockDevice() ? fs.constants.O_EXCL : 0) // of a file it means something else
  return openFor(path, () => fs.constants.O_RDWR | claim())
}

/** The same for reading alone, and without a claim: its write() fails. */
export const openVolumeFileToRead: OpenVolumeFile = path => openFor(path, () => fs.constants.O_RDONLY)

function openFor(path: string, flags: () => number): VolumeFile {
  let descriptor: number
  try {
    descriptor = fs.openSync(path, flags())
  } catch (cause) {
    throw new Failure(
      'CONFIG_INVALID',
      `the volume's disk ${path} cannot be opened: ${whyNotOpened(cause)}`,
      {},
      { cause },
    )
  }
  try {
    const stat = fs.fstatSync(descriptor)
    if (!stat.isFile() && !stat.isBlockDevice())
      throw new Failure('CONFIG_INVALID', `${path} is neither a file nor a block device`)
    const file = new RealVolumeFile(descriptor, path, stat)
    if (file.sizeBytes === 0 || file.sizeBytes % sectorSizeBytes !== 0)
      throw new Failure(
        'CONFIG_INVALID',
        `${path} has ${file.sizeBytes} bytes; a volume is a multiple of 512, and not empty`,
      )
    return file
  } catch (error) {
    fs.closeSync(descriptor)
    throw error
  }
}

function whyNotOpened(cause: unknown): string {
  const { code, message } = cause as NodeJS.ErrnoException
  if (code === 'EBUSY')
    return 'it is in use: mounted, part of another device (LVM, RAID, dm), or served by another agent'
  if (code === 'ENOENT') return 'there is no such file or device'
  return message
}
