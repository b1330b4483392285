import * as path from 'node:path'
import { assert } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'
import { logGroupAlignmentBytes } from '../base/limits.ts'
import type { Disk, DiskFile } from '../disk/disk.ts'
import type { JournalEvents } from './events.ts'
import {
  encodeFileHeader,
  encodePad,
  fileHeaderSizeBytes,
  firstGroupOffsetBytes,
  listLogFiles,
  logDirectory,
  logFilePath,
  type LogMark,
  openingOffsetBytes,
  padSizeBytes,
} from './log-file.ts'
import { placeRecordHeader } from './record.ts'
import type { RecoveredLog } from './recovered.ts'
import { scanLog } from './recovery.ts'

// The writing half of the journal. One thread calls it; nothing here waits for anything but the disk.
//
//   appendGroup ──> room in the open file? ──no──> open the next prepared file (or create one that grows)
//                          │ yes
//                          └──> [opening pad] records [pad to 4 KiB]  in one write, then one sync ──> places
//
// Any error of a write or a sync ends the file at its last durable offset. The group, which is still in memory, goes
// into another file, whose opening pad says where the former one ends: so what the failed sync may have left behind is
// never taken for a record, and nothing is ever synced twice in the hope of a better answer.

export interface CommitLogOptions {
  /** The data directory. */
  readonly directory: string
  readonly fileSizeBytes: number
  readonly logSizeBytesMax: number
  readonly timestampMicros: () => number
  /** Files are asked for here, ahead of their use; the answer is addReady(). */
  readonly files: LogFileRequests
  readonly events: Pick<JournalEvents, 'fileRotated' | 'diskFailed'>
}

/** Carried out in order, when it suits; see LogFilePool. */
export interface LogFileRequests {
  prepare(fileIdentity: number): void
  free(fileIdentity: number): void
}

export interface LogFileCounts {
  readonly fileCount: number
  readonly readyCount: number
}

interface OpenFile {
  readonly fileIdentity: number
  readonly file: DiskFile
  /** Created in need: it grows, so every sync commits metadata, too. */
  readonly growing: boolean
  durableOffsetBytes: number
}

const readyCountWanted = 2
const attemptCountMax = 3

/** Recovers the log below the directory and makes it ready for appending. What it returns has been synced. */
export function openLog(disk: Disk, options: CommitLogOptions): { recovered: RecoveredLog; log: CommitLog } {
  const { directory } = options
  if (options.logSizeBytesMax < 4 * options.fileSizeBytes) {
    throw new Failure('CONFIG_INVALID', `the log needs room for four files of ${options.fileSizeBytes} bytes`, {
      logSizeBytesMax: options.logSizeBytesMax,
    })
  }
  disk.makeDirectory(logDirectory(directory))
  disk.syncDirectory(path.dirname(directory))
  disk.syncDirectory(directory)
  for (const fileIdentity of listLogFiles(disk, directory, 'staged')) {
    disk.remove(logFilePath(directory, fileIdentity, 'staged'))
  }
  const scan = scanLog(disk, directory)
  for (const stretch of scan.unsettled) settle(disk, directory, stretch)
  for (const fileIdentity of scan.misplacedFiles) {
    disk.rename(logFilePath(directory, fileIdentity), logFilePath(directory, fileIdentity, 'aside'))
  }
  disk.syncDirectory(logDirectory(directory))
  for (const fileIdentity of scan.unusedFiles) options.files.free(fileIdentity)
  const taken = (['log', 'free', 'aside'] as const).flatMap(state => listLogFiles(disk, directory, state))
  const log = new CommitLog(disk, options, {
    nextIdentity: Math.max(0, scan.recovered.durable.fileIdentity, ...taken, ...scan.unusedFiles) + 1,
    durable: scan.recovered.durable,
    files: scan.recovered.files.map(file => file.fileIdentity),
  })
  return { recovered: scan.recovered, log }
}

/**
 * What a scan can read may be in memory only: a process was killed between write and sync, or a sync failed, after which the
 * kernel holds the pages for clean though they never reached the disk. So the same bytes are written once more.
 */
function settle(
  disk: Disk,
  directory: string,
  stretch: { readonly fileIdentity: number; readonly startBytes: number; readonly endBytes: number },
): void {
  const file = disk.open(logFilePath(directory, stretch.fileIdentity), 'write')
  try {
    const bytes = new Uint8Array(stretch.endBytes - stretch.startBytes)
    file.read(bytes, stretch.startBytes)
    file.write([bytes], stretch.startBytes)
    file.sync()
  } finally {
    file.close()
  }
}

export class CommitLog {
  readonly #disk: Disk
  readonly #options: CommitLogOptions
  /** Files with records that somebody may need, the open one included. */
  readonly #used: Set<number>
  readonly #ready: number[] = []
  #requestedCount = 0
  #nextIdentity: number
  /** Also of files that were given up: theirs may hold what looks like a group, so what counts must come after. */
  #openedIdentityMax = 0
  #open: OpenFile | undefined
  #durable: LogMark

  constructor(
    disk: Disk,
    options: CommitLogOptions,
    start: { readonly nextIdentity: number; readonly durable: LogMark; readonly files: readonly number[] },
  ) {
    this.#disk = disk
    this.#options = options
    this.#nextIdentity = start.nextIdentity
    this.#durable = start.durable
    this.#used = new Set(start.files)
    this.#request()
  }

  durable(): LogMark {
    return this.#durable
  }

  counts(): LogFileCounts {
    return { fileCount: this.#used.size, readyCount: this.#ready.length }
  }

  /** The file of this identity is prepared. One that comes too late to be next in order is given back. */
  addReady(fileIdentity: number): void {
    this.#requestedCount--
    if (fileIdentity > this.#openedIdentityMax) this.#ready.push(fileIdentity)
    else this.#options.files.free(fileIdentity)
    this.#request()
  }

  /** Nobody needs the file's records any more. Never the open one. */
  freeFile(fileIdentity: number): void {
    if (fileIdentity === this.#open?.fileIdentity || !this.#used.delete(fileIdentity)) return
    this.#options.files.free(fileIdentity)
    this.#request()
  }

  /**
   * Makes the records durable, in one piece of the log. Each begins with its encoded header, whose place is filled in here;
   * its length is a multiple of 8. Returns where they stand. Fails JOURNAL_FULL or DISK_FAILED: nothing counts then, and
   * the same call may be made again.
   */
  appendGroup(records: readonly Uint8Array[]): { readonly mark: LogMark; readonly offsetsBytes: number[] } {
    const sizeBytes = records.reduce((sum, record) => sum + record.length, 0)
    assert(
      firstGroupOffsetBytes + sizeBytes + 2 * logGroupAlignmentBytes <= this.#options.fileSizeBytes,
      'a group fits in a log file',
    )
    let lastError: unknown
    for (let attempt = 0; attempt < attemptCountMax; attempt++) {
      const open = this.#openWithRoom(sizeBytes)
      try {
        return this.#write(open, records)
      } catch (error) {
        this.#abandon(open, error)
        if (isOutOfSpace(error)) throw diskFull(error)
        lastError = error
      }
    }
    throw new Failure(
      'DISK_FAILED',
      `the disk of ${this.#options.directory} refuses writes, nothing is acknowledged: ${messageOf(lastError)}`,
      {},
      { cause: lastError },
    )
  }

  #write(open: OpenFile, records: readonly Uint8Array[]): { mark: LogMark; offsetsBytes: number[] } {
    const { fileIdentity, durableOffsetBytes } = open
    const pieces: Uint8Array[] = []
    let at = durableOffsetBytes
    if (at === openingOffsetBytes) {
      const opening = { fileIdentity, offsetBytes: at, sizeBytes: logGroupAlignmentBytes, durableOffsetBytes: at }
      pieces.push(encodePad({ ...opening, previous: this.#durable }))
      at += logGroupAlignmentBytes
    }
    const offsetsBytes: number[] = []
    for (const record of records) {
      placeRecordHeader(record, { fileIdentity, offsetBytes: at, durableOffsetBytes })
      pieces.push(record)
      offsetsBytes.push(at)
      at += record.length
    }
    const padding = padSizeBytes(at)
    if (padding > 0) {
      const previous = { fileIdentity: 0, offsetBytes: 0 }
      pieces.push(encodePad({ fileIdentity, offsetBytes: at, sizeBytes: padding, durableOffsetBytes, previous }))
      at += padding
    }
    open.file.write(pieces, durableOffsetBytes)
    open.file.sync()
    open.durableOffsetBytes = at
    this.#durable = { fileIdentity, offsetBytes: at }
    return { mark: this.#durable, offsetsBytes }
  }

  /** The open file where the group fits; else the next one. A file that grows is left as soon as there is a better one. */
  #openWithRoom(sizeBytes: number): OpenFile {
    const open = this.#open
    if (open !== undefined) {
      const sizeBytesMax = logGroupAlignmentBytes + sizeBytes + 2 * logGroupAlignmentBytes
      const fits = open.durableOffsetBytes + sizeBytesMax <= this.#options.fileSizeBytes
      if (fits && !(open.growing && this.#ready.length > 0)) return open
      this.#open = undefined
      open.file.close()
    }
    const next = this.#openPrepared() ?? this.#createGrowing()
    this.#open = next
    this.#openedIdentityMax = next.fileIdentity
    this.#used.add(next.fileIdentity)
    this.#options.events.fileRotated({ fileIdentity: next.fileIdentity, prepared: !next.growing })
    this.#request()
    return next
  }

  #openPrepared(): OpenFile | undefined {
    for (let fileIdentity = this.#ready.shift(); fileIdentity !== undefined; fileIdentity = this.#ready.shift()) {
      try {
        const file = this.#disk.open(logFilePath(this.#options.directory, fileIdentity), 'write')
        return { fileIdentity, file, growing: false, durableOffsetBytes: openingOffsetBytes }
      } catch (error) {
        this.#options.events.diskFailed({ fileIdentity, offsetBytes: 0, sentence: messageOf(error) })
      }
    }
    return undefined
  }

  /** Nothing is ready: better a slow file than a stall. */
  #createGrowing(): OpenFile {
    const { directory, fileSizeBytes, logSizeBytesMax, timestampMicros } = this.#options
    const fileCount = this.#used.size + this.#ready.length + this.#requestedCount + 1
    if (fileCount * fileSizeBytes > logSizeBytesMax) {
      throw new Failure(
        'JOURNAL_FULL',
        `the log has reached its limit of ${logSizeBytesMax} bytes: records wait until log files are aged into the ` +
          'object store; see whether that is reachable, or raise the limit',
        { logSizeBytesMax, fileCount },
      )
    }
    const fileIdentity = this.#nextIdentity++
    this.#openedIdentityMax = fileIdentity
    let file: DiskFile | undefined
    try {
      file = this.#disk.open(logFilePath(directory, fileIdentity), 'create')
      const header = { fileIdentity, logFileSizeBytes: fileSizeBytes, createdMicros: timestampMicros() }
      file.write([encodeFileHeader(header)], 0)
      file.sync()
      this.#disk.syncDirectory(logDirectory(directory))
      return { fileIdentity, file, growing: true, durableOffsetBytes: fileHeaderSizeBytes }
    } catch (error) {
      if (file !== undefined) this.#abandon({ fileIdentity, file, growing: true, durableOffsetBytes: 0 }, error)
      if (isOutOfSpace(error)) throw diskFull(error)
      throw new Failure('DISK_FAILED', `no log file can be created: ${messageOf(error)}`, {}, { cause: error })
    }
  }

  /** The file is finished at its durable offset. Where that is nothing, it goes back for another use. */
  #abandon(open: OpenFile, error: unknown): void {
    const { fileIdentity, durableOffsetBytes } = open
    this.#options.events.diskFailed({ fileIdentity, offsetBytes: durableOffsetBytes, sentence: messageOf(error) })
    this.#open = undefined
    try {
      open.file.close()
    } catch {
      // It is given up already, and was told of.
    }
    if (durableOffsetBytes > openingOffsetBytes) return
    this.#used.delete(fileIdentity)
    this.#options.files.free(fileIdentity)
  }

  /** Keeps files coming, within the limit. */
  #request(): void {
    const { fileSizeBytes, logSizeBytesMax } = this.#options
    while (this.#ready.length + this.#requestedCount < readyCountWanted) {
      const fileCount = this.#used.size + this.#ready.length + this.#requestedCount + 1
      if (fileCount * fileSizeBytes > logSizeBytesMax) return
      this.#requestedCount++
      this.#options.files.prepare(this.#nextIdentity++)
    }
  }

  /** A last pad says that all before it is durable, so that a bad byte there can never be taken for a torn tail. */
  close(): void {
    const open = this.#open
    this.#open = undefined
    if (open === undefined) return
    const { fileIdentity, durableOffsetBytes } = open
    const sizeBytes = logGroupAlignmentBytes
    try {
      if (durableOffsetBytes > openingOffsetBytes && durableOffsetBytes + sizeBytes <= this.#options.fileSizeBytes) {
        const previous = { fileIdentity: 0, offsetBytes: 0 }
        const pad = { fileIdentity, offsetBytes: durableOffsetBytes, sizeBytes, durableOffsetBytes, previous }
        open.file.write([encodePad(pad)], durableOffsetBytes)
        open.file.sync()
      }
    } finally {
      open.file.close()
    }
  }
}

function isOutOfSpace(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException | undefined)?.code
  return code === 'ENOSPC' || code === 'EDQUOT'
}

function diskFull(cause: unknown): Failure {
  return new Failure(
    'JOURNAL_FULL',
    'the disk of the log is full: records wait; free space there, or lower the limits of what else is kept on it',
    {},
    { cause },
  )
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
