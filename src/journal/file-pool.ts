import { MiB } from '../base/units.ts'
import type { Disk, DiskFile } from '../disk/disk.ts'
import {
  encodeFileHeader,
  fileHeaderSizeBytes,
  firstGroupOffsetBytes,
  listLogFiles,
  logDirectory,
  logFilePath,
} from './log-file.ts'

const zeroSizeBytes = 4 * MiB
/** Never written to, so that it takes no memory. */
const zeros = new Uint8Array(zeroSizeBytes)

/**
 * Makes log files ready ahead of their use: blocks that exist on disk already, so that a sync has no metadata to commit. A
 * file gets its final name only when all of it, the header for that name included, is durable.
 */
export class LogFilePool {
  readonly #disk: Disk
  readonly #directory: string
  readonly #fileSizeBytes: number
  readonly #spareCountMax: number
  readonly #timestampMicros: () => number
  readonly #spares: number[]
  /** Freed, and their old names may come back with a power cut. */
  readonly #unsynced: number[] = []
  /** Names of files of zeros; the last may be in the making. They are numbers of their own, no identities. */
  readonly #zeroed: number[]

  constructor(
    disk: Disk,
    options: {
      readonly directory: string
      readonly fileSizeBytes: number
      readonly spareCountMax: number
      readonly timestampMicros: () => number
    },
  ) {
    this.#disk = disk
    this.#directory = options.directory
    this.#fileSizeBytes = options.fileSizeBytes
    this.#spareCountMax = options.spareCountMax
    this.#timestampMicros = options.timestampMicros
    this.#spares = listLogFiles(disk, options.directory, 'free')
    this.#zeroed = listLogFiles(disk, options.directory, 'zeroed')
  }

  spareCount(): number {
    return this.#spares.length
  }

  /** On return the file of this identity is durable, wholly written, and holds no record of that identity. */
  prepare(fileIdentity: number): 'recycled' | 'new' {
    const reused = this.#takeReusable()
    const staged = reused ?? this.#path(fileIdentity, 'staged')
    if (reused === undefined) this.#disk.remove(staged)
    const file = this.#disk.open(staged, reused === undefined ? 'create' : 'write')
    try {
      this.#fill(file)
      const createdMicros = this.#timestampMicros()
      file.write([encodeFileHeader({ fileIdentity, logFileSizeBytes: this.#fileSizeBytes, createdMicros })], 0)
      file.write([new Uint8Array(firstGroupOffsetBytes - fileHeaderSizeBytes)], fileHeaderSizeBytes)
      file.sync()
    } catch (error) {
      this.#disk.remove(staged) // it would only hold space that somebody else waits for
      throw error
    } finally {
      file.close()
    }
    this.#disk.rename(staged, this.#path(fileIdentity, 'log'))
    this.#disk.syncDirectory(logDirectory(this.#directory))
    return reused === undefined ? 'new' : 'recycled'
  }

  /** The file freed last, whose pages are the likeliest to be in memory; else one of zeros, the wholly written first. */
  #takeReusable(): string | undefined {
    const spare = this.#spares.pop()
    if (spare !== undefined) return this.#path(spare, 'free')
    const zeroed = this.#zeroed.shift()
    return zeroed === undefined ? undefined : this.#path(zeroed, 'zeroed')
  }

  /**
   * Writes one more piece of zeros into files that a burst of writes will need, until so many files can be used without
   * writing all of them twice. False when there are.
   */
  zeroAhead(fileCount: number): boolean {
    const last = this.#zeroed.at(-1)
    const file = last === undefined ? undefined : this.#openZeroed(last, 'write')
    const sizeBytes = file?.sizeBytes() ?? this.#fileSizeBytes
    if (file === undefined || sizeBytes >= this.#fileSizeBytes) {
      file?.close()
      if (this.#spares.length + this.#zeroed.length >= fileCount) return false
      const name = (last ?? 0) + 1
      this.#openZeroed(name, 'create').close()
      this.#zeroed.push(name)
      return true
    }
    try {
      file.write([zeros.subarray(0, this.#fileSizeBytes - sizeBytes)], sizeBytes)
      file.sync()
    } finally {
      file.close()
    }
    return true
  }

  #openZeroed(name: number, mode: 'write' | 'create'): DiskFile {
    return this.#disk.open(this.#path(name, 'zeroed'), mode)
  }

  /** Writes zeros up to the full size, a piece at a time: one large sync would delay those of the commit log. */
  #fill(file: DiskFile): void {
    for (let at = file.sizeBytes(); at < this.#fileSizeBytes; at += zeros.length) {
      file.write([zeros.subarray(0, this.#fileSizeBytes - at)], at)
      file.sync()
    }
  }

  /**
   * Nobody needs the file any more. Its name goes first and durably, so that no reader finds it under the old identity
   * once its blocks are used again.
   */
  free(fileIdentity: number): void {
    if (!this.#disk.exists(this.#path(fileIdentity, 'log'))) return
    this.#disk.rename(this.#path(fileIdentity, 'log'), this.#path(fileIdentity, 'free'))
    this.#unsynced.push(fileIdentity)
    this.#disk.syncDirectory(logDirectory(this.#directory))
    this.#spares.push(...this.#unsynced.splice(0))
    while (this.#spares.length > this.#spareCountMax) {
      const surplus = this.#spares.shift()
      if (surplus !== undefined) this.#disk.remove(this.#path(surplus, 'free'))
    }
  }

  #path(fileIdentity: number, state: 'log' | 'free' | 'zeroed' | 'staged'): string {
    return logFilePath(this.#directory, fileIdentity, state)
  }
}
