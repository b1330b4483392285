import { frameSizeBytesMax, logGroupAlignmentBytes, logRecordHeaderSizeBytes } from '../base/limits.ts'
import { alignUp, KiB, MiB } from '../base/units.ts'
import { crc32c } from '../codec/crc32c.ts'
import { isSystemError } from '../base/failure.ts'
import type { DiskFile } from '../disk/disk.ts'
import { openingOffsetBytes, type LogMark } from './log-file.ts'
import { decodeRecordHeader, recordMagic, recordSizeBytes, type RecordHeader } from './record.ts'

/**
 * What is read at once: a header and the block behind it, since the next group's first header stands so close behind a group's last
 * pad. Where one header after the other comes closer than `nearBytes`, twice as much each time, so many small records take few
 * calls, and of large ones little more than the headers is read from the disk.
 */
const headerWindowSizeBytes = logGroupAlignmentBytes + logRecordHeaderSizeBytes
const windowSizeBytesMax = 64 * KiB
const nearBytes = 16 * KiB
const searchSizeBytes = 1 * MiB
const magicBytes = Buffer.alloc(4)
/** What a disk that gives an error is asked for at once, to lose no more than what it cannot give. */
const salvageSizeBytes = 4 * KiB
magicBytes.writeUInt32LE(recordMagic)

/** Bytes of a record on disk, its header and padding included. */
export function sizeOf(header: RecordHeader): number {
  return recordSizeBytes(header.frameSizeBytes)
}

/**
 * The records of one log file. A header counts only when it says this file and this offset beside having its checksum:
 * whatever a former use of the blocks left behind is not a record.
 */
export class LogFileRecords {
  readonly fileIdentity: number
  readonly #file: DiskFile
  readonly #window = Buffer.alloc(windowSizeBytesMax)
  #windowSizeBytes = headerWindowSizeBytes
  #windowStart = 0
  #windowEnd = 0
  #unreadable: Unreadable | undefined

  constructor(file: DiskFile, fileIdentity: number) {
    this.#file = file
    this.fileIdentity = fileIdentity
  }

  /** The place farthest behind that the disk was asked for and did not give. */
  get unreadable(): Unreadable | undefined {
    return this.#unreadable
  }

  /**
   * Reads as DiskFile.read() does; what the disk answers with an error is zeros, for which no checksum holds: a sector that cannot
   * be read costs what one that holds other bytes does.
   */
  #read(target: Uint8Array, offsetBytes: number): number {
    try {
      return this.#file.read(target, offsetBytes)
    } catch (error) {
      if (!isSystemError(error) || error.code !== 'EIO') throw error
      return this.#salvage(target, offsetBytes, error)
    }
  }

  #salvage(target: Uint8Array, offsetBytes: number, cause: Error): number {
    const sizeBytes = Math.min(target.length, Math.max(0, this.#file.sizeBytes() - offsetBytes))
    for (let at = 0, next = 0; at < sizeBytes; at = next) {
      next = Math.min(sizeBytes, alignUp(offsetBytes + at + 1, salvageSizeBytes) - offsetBytes)
      const piece = target.subarray(at, next)
      try {
        this.#file.read(piece, offsetBytes + at)
      } catch (error) {
        if (!isSystemError(error) || error.code !== 'EIO') throw error
        piece.fill(0)
        if (offsetBytes + at >= (this.#unreadable?.offsetBytes ?? 0))
          this.#unreadable = { offsetBytes: offsetBytes + at, cause }
      }
    }
    return sizeBytes
  }

  /** The record at this place, or undefined. */
  headerAt(offsetBytes: number): RecordHeader | undefined {
    const within = offsetBytes >= this.#windowStart && offsetBytes + logRecordHeaderSizeBytes <= this.#windowEnd
    if (!within) {
      const near = offsetBytes >= this.#windowStart && offsetBytes - this.#windowEnd < nearBytes && this.#windowEnd > 0
      this.#windowSizeBytes = near ? Math.min(2 * this.#windowSizeBytes, windowSizeBytesMax) : headerWindowSizeBytes
      const wanted = this.#window.subarray(0, this.#windowSizeBytes)
      this.#windowStart = offsetBytes
      this.#windowEnd = offsetBytes + this.#read(wanted, offsetBytes)
    }
    return this.#decode(
      this.#window.subarray(offsetBytes - this.#windowStart, this.#windowEnd - this.#windowStart),
      offsetBytes,
    )
  }

  /** Drops what was read ahead: the file may have been written since. */
  forget(): void {
    this.#windowStart = 0
    this.#windowEnd = 0
    this.#windowSizeBytes = headerWindowSizeBytes
  }

  #decode(bytes: Uint8Array, offsetBytes: number): RecordHeader | undefined {
    const header = decodeRecordHeader(bytes)
    if (header === undefined || header === 'other-version') return undefined
    if (header.fileIdentity !== this.fileIdentity || header.offsetBytes !== offsetBytes) return undefined
    const frameMax = header.kind === 'pad' ? 2 * logGroupAlignmentBytes : frameSizeBytesMax
    return header.frameSizeBytes <= frameMax ? header : undefined
  }

  /** The first record that starts in [startBytes, endBytes), wherever the one before it ends. */
  findRecord(startBytes: number, endBytes: number): RecordHeader | undefined {
    const chunk = Buffer.alloc(searchSizeBytes + logRecordHeaderSizeBytes)
    for (let at = startBytes; at < endBytes; at += searchSizeBytes) {
      const bytes = chunk.subarray(0, this.#read(chunk, at))
      for (let hit = bytes.indexOf(magicBytes); hit >= 0; hit = bytes.indexOf(magicBytes, hit + 1)) {
        if (hit >= searchSizeBytes || at + hit >= endBytes) break
        if ((at + hit) % 8 !== 0) continue
        const header = this.#decode(bytes.subarray(hit), at + hit)
        if (header !== undefined) return header
      }
      if (bytes.length < chunk.length) return undefined
    }
    return undefined
  }

  /** The frame's bytes, or undefined when they fail their check. Reads into `target` where it is large enough. */
  frame(header: RecordHeader, target: Uint8Array = new Uint8Array(header.frameSizeBytes)): Uint8Array | undefined {
    const frame = target.subarray(0, header.frameSizeBytes)
    const count = this.#read(frame, header.offsetBytes + logRecordHeaderSizeBytes)
    return count === header.frameSizeBytes && crc32c(frame) === header.frameCrc32c ? frame : undefined
  }

  /** Reads header and frame at once; the header, or undefined where no record of exactly this size stands. The frame is not checked. */
  read(offsetBytes: number, target: Uint8Array): RecordHeader | undefined {
    const count = this.#read(target, offsetBytes)
    const header = this.#decode(target.subarray(0, count), offsetBytes)
    const whole = header !== undefined && sizeOf(header) === target.length
    return whole && count >= logRecordHeaderSizeBytes + header.frameSizeBytes ? header : undefined
  }

  /** Bytes as they stand there, and how many; what the disk does not give is zeros. */
  readBytes(offsetBytes: number, target: Uint8Array): number {
    return this.#read(target, offsetBytes)
  }

  /** Where the file written before this one ends, as this one's opening pad says; undefined when it cannot be read. */
  previous(): LogMark | undefined {
    const opening = this.headerAt(openingOffsetBytes)
    if (opening === undefined || opening.kind !== 'pad') return undefined
    return { fileIdentity: opening.generation, offsetBytes: opening.lastSequence }
  }

  /**
   * Everything in [startBytes, endBytes) in order: records (pads, too), and the stretches between them that are none. The
   * last stretch reaches to the end when no record follows it.
   */
  *walk(startBytes: number, endBytes: number): Generator<RecordHeader | BadStretch> {
    let at = startBytes
    while (at < endBytes) {
      let header = this.headerAt(at)
      if (header === undefined) {
        header = this.findRecord(alignUp(at + 1, 8), endBytes)
        const until = header?.offsetBytes ?? endBytes
        yield { kind: 'bad', offsetBytes: at, sizeBytes: until - at, last: header === undefined }
        if (header === undefined) return
      }
      yield header
      at = header.offsetBytes + sizeOf(header)
    }
  }
}

export interface Unreadable {
  readonly offsetBytes: number
  /** What the disk said. */
  readonly cause: Error
}

/** Bytes that hold no record; `last` when none follows in the range that was looked at. */
export interface BadStretch {
  readonly kind: 'bad'
  readonly offsetBytes: number
  readonly sizeBytes: number
  readonly last: boolean
}

/** What one file holds, and where it ends. */
export interface FileScan {
  /** Batches and markers that are kept. */
  readonly records: readonly RecordHeader[]
  readonly damage: readonly BadStretch[]
  readonly endBytes: number
  /** What is before it was certainly synced once; what is behind it is merely readable. */
  readonly durableBytes: number
  /** Records stood behind the end: an incomplete group. */
  readonly torn: boolean
}

/**
 * Applies the rule of README.md, "Recovery". `knownEndBytes` is where the file's durable records end, where a later file
 * says it: everything before is durable, everything behind was never acknowledged or stands in a later file. Without it,
 * the last durable offset that any record of the file names takes its place, and what follows counts as far as it is
 * whole. Fails as the disk does where it does not give what stands behind that: it may have been acknowledged, and would be cut off.
 */
export function scanLogFile(file: LogFileRecords, sizeBytes: number, knownEndBytes: number | undefined): FileScan {
  const records: RecordHeader[] = []
  const stretches: BadStretch[] = []
  let durableBytes = knownEndBytes ?? openingOffsetBytes
  for (const piece of file.walk(openingOffsetBytes, knownEndBytes ?? sizeBytes)) {
    if (piece.kind === 'bad') stretches.push(piece)
    else {
      records.push(piece)
      if (knownEndBytes === undefined) durableBytes = Math.max(durableBytes, piece.durableOffsetBytes)
    }
  }
  const damage = stretches.filter(stretch => stretch.offsetBytes < durableBytes)
  const settledCount = records.filter(record => record.offsetBytes < durableBytes).length
  let endBytes = durableBytes
  let keptCount = settledCount
  for (const record of records.slice(settledCount)) {
    if (record.offsetBytes !== endBytes || file.frame(record) === undefined) break
    endBytes += sizeOf(record)
    keptCount++
  }
  const { unreadable } = file
  if (knownEndBytes === undefined && unreadable !== undefined && unreadable.offsetBytes >= durableBytes)
    throw unreadable.cause
  return {
    records: records.slice(0, keptCount).filter(record => record.kind !== 'pad'),
    damage,
    endBytes,
    durableBytes,
    torn: keptCount < records.length,
  }
}
