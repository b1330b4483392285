import { Failure } from '../base/failure.ts'
import { frameSizeBytesMax, logRecordHeaderSizeBytes } from '../base/limits.ts'
import { crc32c } from '../codec/crc32c.ts'
import type { Disk, DiskFile } from '../disk/disk.ts'
import {
  decodeFileHeader,
  fileHeaderSizeBytes,
  listLogFiles,
  logFilePath,
  type LogMark,
  openingOffsetBytes,
  type RecordPlace,
} from './log-file.ts'
import { recordSizeBytes, type RecordHeader } from './record.ts'
import { LogFileRecords, sizeOf } from './scan.ts'

export type { LogMark, RecordPlace }

/** Records in log order, without their frames. */
export interface LogBatch {
  readonly records: readonly { readonly header: RecordHeader; readonly place: RecordPlace }[]
  /** Durable bytes between them that failed their checks, by place. */
  readonly damage: readonly { readonly place: RecordPlace; readonly sentence: string }[]
}

interface OpenLogFile {
  readonly file: DiskFile
  readonly records: LogFileRecords
}

const openFileCountMax = 8

/**
 * Reads the commit log from any thread, beside the thread that writes it, and only what is durable. Synchronous; not for
 * the event loop of ingest. A file that is recycled while it is read is noticed: every record is held against the
 * identity and the offset that were asked for.
 */
export class LogReader {
  readonly #disk: Disk
  readonly #directory: string
  /** The least recently used first. */
  readonly #files = new Map<number, OpenLogFile>()
  /** As large as the largest record that was read. */
  #record = new Uint8Array(0)
  #position: LogMark
  /** Where the file of the position ends, once a later file has said it. */
  #endBytes: number | undefined

  /** Tails from the oldest file, or from a mark. `directory` is the data directory, as for the journal. */
  constructor(options: { readonly disk: Disk; readonly directory: string; readonly from?: LogMark }) {
    this.#disk = options.disk
    this.#directory = options.directory
    this.#position = options.from ?? { fileIdentity: 0, offsetBytes: openingOffsetBytes }
  }

  /**
   * Records after those of the former call, up to the mark, at least one where there is one, and no more once their sizes
   * reach `sizeBytesMax`. Both lists empty: the mark is reached.
   */
  next(limit: LogMark, sizeBytesMax: number): LogBatch {
    const batch: { records: { header: RecordHeader; place: RecordPlace }[]; damage: LogBatch['damage'][number][] } = {
      records: [],
      damage: [],
    }
    let sizeBytes = 0
    while (sizeBytes < sizeBytesMax && this.#enterFile(limit)) {
      const { fileIdentity } = this.#position
      const endBytes = fileIdentity === limit.fileIdentity ? limit.offsetBytes : this.#endBytes
      const open = this.#tryOpen(fileIdentity)
      if (open === undefined) {
        this.#leaveFile() // freed meanwhile: nobody needs what is in it
        continue
      }
      const { records } = open
      records.forget()
      let complete = true
      for (const piece of records.walk(this.#position.offsetBytes, endBytes ?? open.file.sizeBytes())) {
        const pieceSizeBytes = piece.kind === 'bad' ? piece.sizeBytes : sizeOf(piece)
        const place = { fileIdentity, offsetBytes: piece.offsetBytes, sizeBytes: pieceSizeBytes }
        if (piece.kind === 'bad') {
          // Where nobody says the end, what follows the last record of a file is only what a former use left there.
          if (!(piece.last && endBytes === undefined) && !this.#wasRecycled(fileIdentity)) {
            batch.damage.push({
              place,
              sentence: `log file ${fileIdentity}: no record can be read at ${place.offsetBytes}`,
            })
          }
        } else if (piece.kind !== 'pad') batch.records.push({ header: piece, place })
        this.#position = { fileIdentity, offsetBytes: piece.offsetBytes + pieceSizeBytes }
        if (piece.kind !== 'pad') sizeBytes += pieceSizeBytes
        if (sizeBytes >= sizeBytesMax) {
          complete = false
          break
        }
      }
      if (complete && fileIdentity < limit.fileIdentity) this.#leaveFile()
    }
    return batch
  }

  /** Everything before it has been handed out by next(). */
  position(): LogMark {
    return this.#position
  }

  /** Identities of the log's files now, ascending, up to the one of the mark. */
  files(limit: LogMark): number[] {
    return listLogFiles(this.#disk, this.#directory).filter(identity => identity <= limit.fileIdentity)
  }

  /**
   * The record's frame, checked; valid until the next call. Fails RECORD_CORRUPT where the bytes fail their checks, NOT_FOUND
   * where the file has been recycled or removed.
   */
  readRecord(place: RecordPlace): Uint8Array {
    const sizeBytes = Math.min(place.sizeBytes, recordSizeBytes(frameSizeBytesMax))
    if (this.#record.length < sizeBytes) this.#record = new Uint8Array(sizeBytes)
    const header = this.#read(place, this.#record)
    if (header !== undefined) {
      const frame = this.#record.subarray(logRecordHeaderSizeBytes, logRecordHeaderSizeBytes + header.frameSizeBytes)
      if (crc32c(frame) === header.frameCrc32c) return frame
    }
    throw this.#unreadable(place)
  }

  /**
   * Reads the whole record to `target`, which is as large as it: one read, no copy. Its header is that of a record of this place;
   * whether the frame has its checksum is left to the caller. Fails as readRecord() does.
   */
  readUnchecked(place: RecordPlace, target: Uint8Array): void {
    if (this.#read(place, target) === undefined) throw this.#unreadable(place)
  }

  /** A part of the record's frame, as it stands there, unchecked; valid until the next call. Fails as readRecord() does where it is not there. */
  readUncheckedPart(place: RecordPlace, range: { readonly startBytes: number; readonly endBytes: number }): Uint8Array {
    const sizeBytes = range.endBytes - range.startBytes
    if (this.#record.length < sizeBytes) this.#record = new Uint8Array(sizeBytes)
    const part = this.#record.subarray(0, sizeBytes)
    const offsetBytes = place.offsetBytes + logRecordHeaderSizeBytes + range.startBytes
    if (this.#tryOpen(place.fileIdentity)?.records.readBytes(offsetBytes, part) === sizeBytes) return part
    throw this.#unreadable(place)
  }

  /** The header of the record that was read, or undefined where no record of this size stands. */
  #read({ fileIdentity, offsetBytes, sizeBytes }: RecordPlace, target: Uint8Array): RecordHeader | undefined {
    if (sizeBytes > target.length) return undefined
    const header = this.#tryOpen(fileIdentity)?.records.read(offsetBytes, target.subarray(0, sizeBytes))
    return header?.kind === 'pad' ? undefined : header
  }

  #unreadable(place: RecordPlace): Failure {
    const details = { fileIdentity: place.fileIdentity, offsetBytes: place.offsetBytes, sizeBytes: place.sizeBytes }
    if (this.#wasRecycled(place.fileIdentity)) {
      return new Failure(
        'NOT_FOUND',
        `log file ${place.fileIdentity} has been recycled: look the record up again`,
        details,
      )
    }
    const where = `log file ${place.fileIdentity}, offset ${place.offsetBytes}`
    return new Failure('RECORD_CORRUPT', `${where}: the record there fails its checks`, details)
  }

  close(): void {
    for (const { file } of this.#files.values()) file.close()
    this.#files.clear()
  }

  /** True when the position is in a file, before the limit; goes on to the next file that counts where it must. */
  #enterFile(limit: LogMark): boolean {
    const { fileIdentity, offsetBytes } = this.#position
    if (fileIdentity > limit.fileIdentity) return false
    if (fileIdentity === limit.fileIdentity) return offsetBytes < limit.offsetBytes
    if (this.#endBytes !== undefined && offsetBytes < this.#endBytes) return true
    const later = this.files(limit).filter(identity => identity > fileIdentity)
    // The newest file that counts names the one before it, and so on down: what none of them names was given up.
    const chain: number[] = []
    let named: LogMark | undefined
    let endBytes: number | undefined
    for (const identity of later.toReversed()) {
      if (named !== undefined && identity > named.fileIdentity) continue
      chain.unshift(identity)
      named = this.#tryOpen(identity)?.records.previous()
      if (named?.fileIdentity === fileIdentity) endBytes = named.offsetBytes
    }
    const isGiven = named !== undefined && fileIdentity > named.fileIdentity
    if (fileIdentity > 0 && !isGiven && this.#endBytes === undefined && this.#disk.exists(this.#path(fileIdentity))) {
      this.#endBytes = endBytes
      if (endBytes === undefined || offsetBytes < endBytes) return true
    }
    const next = chain[0]
    if (next === undefined) return false
    this.#position = { fileIdentity: next, offsetBytes: openingOffsetBytes }
    this.#endBytes = undefined
    return this.#enterFile(limit)
  }

  #leaveFile(): void {
    this.#endBytes = 0
  }

  #path(fileIdentity: number): string {
    return logFilePath(this.#directory, fileIdentity)
  }

  #tryOpen(fileIdentity: number): OpenLogFile | undefined {
    const known = this.#files.get(fileIdentity)
    if (known !== undefined) {
      this.#files.delete(fileIdentity)
      this.#files.set(fileIdentity, known)
      return known
    }
    let file: DiskFile
    try {
      file = this.#disk.open(this.#path(fileIdentity), 'read')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      throw error
    }
    const open = { file, records: new LogFileRecords(file, fileIdentity) }
    this.#files.set(fileIdentity, open)
    const oldest = this.#files.entries().next().value
    if (this.#files.size > openFileCountMax && oldest !== undefined) {
      oldest[1].file.close()
      this.#files.delete(oldest[0])
    }
    return open
  }

  /** The name goes before the blocks are used again (see LogFilePool), so the name decides. */
  #wasRecycled(fileIdentity: number): boolean {
    if (!this.#disk.exists(this.#path(fileIdentity))) {
      this.#files.get(fileIdentity)?.file.close()
      this.#files.delete(fileIdentity)
      return true
    }
    const records = this.#tryOpen(fileIdentity)?.records
    const block = new Uint8Array(fileHeaderSizeBytes)
    const header = records === undefined ? undefined : decodeFileHeader(block.subarray(0, records.readBytes(0, block)))
    return header !== undefined && header !== 'other-version' && header.fileIdentity !== fileIdentity
  }
}
