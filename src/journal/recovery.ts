import { Failure } from '../base/failure.ts'
import type { Disk, DiskFile } from '../disk/disk.ts'
import { decodeFileHeader, fileHeaderSizeBytes, listLogFiles, logFilePath, type LogMark } from './log-file.ts'
import type { RecordHeader } from './record.ts'
import type { RecoveredLog } from './recovered.ts'
import { type FileScan, LogFileRecords, scanLogFile } from './scan.ts'
import { StreamContinuity } from './continuity.ts'

/** Beside what everybody may know: which files hold nothing that counts, and which are not what their name says. */
export interface LogScan {
  readonly recovered: RecoveredLog
  readonly unusedFiles: readonly number[]
  readonly misplacedFiles: readonly number[]
  /** Stretches that count, since they are whole, but that may never have been synced. */
  readonly unsettled: readonly {
    readonly fileIdentity: number
    readonly startBytes: number
    readonly endBytes: number
  }[]
  /** Where each file with records ends. */
  readonly endsBytes: ReadonlyMap<number, number>
}

interface ScannedFile extends Omit<FileScan, 'records'> {
  readonly fileIdentity: number
  readonly recordCount: number
  /** Undefined where there were too many to keep: then they are read again. */
  readonly records: readonly RecordHeader[] | undefined
  readonly knownEndBytes: number | undefined
  /** False where a file between this one and the used one before it is gone: freed, as far as anybody can tell. */
  readonly followsPrevious: boolean
}

/** What a scan keeps in memory: a log of the smallest records is millions of them, and must be started with. */
export interface ScanLimits {
  /** Headers that are kept from the first pass over the files to the second. */
  readonly headersKeptMax: number
  /** Records that are told, the newest. */
  readonly recordsToldMax: number
}

const defaultLimits: ScanLimits = { headersKeptMax: 100_000, recordsToldMax: 200_000 }

/** Reads the whole log, headers only but for markers and for what may be torn. Changes nothing. */
export function scanLog(disk: Disk, directory: string, limits: ScanLimits = defaultLimits): LogScan {
  const used: ScannedFile[] = []
  let headersKeptCount = 0
  const unusedFiles: number[] = []
  const misplacedFiles: number[] = []
  const continuity = new StreamContinuity(limits.recordsToldMax)
  const existing = listLogFiles(disk, directory)
  // From the newest down, since each file's opening pad tells where the one before it ends.
  let previous: LogMark | undefined
  let tornTail: LogMark | undefined
  for (const fileIdentity of existing.toReversed()) {
    const file = disk.open(logFilePath(directory, fileIdentity), 'read')
    try {
      const records = new LogFileRecords(file, fileIdentity)
      const state = fileHeaderState(records)
      if (state === 'misplaced') {
        misplacedFiles.push(fileIdentity)
        continuity.damage({ fileIdentity, offsetBytes: 0, sizeBytes: file.sizeBytes() }, 'its header is another file’s')
        continue
      }
      if (previous !== undefined && fileIdentity > previous.fileIdentity) {
        unusedFiles.push(fileIdentity) // written between, but nothing in it was ever acknowledged
        continue
      }
      const knownEndBytes = previous?.fileIdentity === fileIdentity ? previous.offsetBytes : undefined
      const scan = scanLogFile(records, file.sizeBytes(), knownEndBytes)
      const opening = records.previous()
      if (scan.records.length === 0 && scan.damage.length === 0 && knownEndBytes === undefined) {
        unusedFiles.push(fileIdentity)
        previous = opening ?? previous // its group never came to anything, but what it says of the file before holds
        if (scan.torn) tornTail ??= { fileIdentity, offsetBytes: scan.endBytes }
        continue
      }
      if (state === 'damaged') {
        continuity.damage(
          { fileIdentity, offsetBytes: 0, sizeBytes: fileHeaderSizeBytes },
          'the file header is damaged',
        )
      }
      for (const stretch of scan.damage) {
        continuity.damage({ fileIdentity, ...stretch }, 'no record can be read there')
      }
      if (scan.torn && used.length === 0) tornTail ??= { fileIdentity, offsetBytes: scan.endBytes }
      else if (scan.torn) {
        continuity.damage(
          { fileIdentity, offsetBytes: scan.endBytes, sizeBytes: 0 },
          'the file ends before its records do',
        )
      }
      const before = existing.filter(identity => identity < fileIdentity)
      const { records: headers, ...facts } = scan
      const keeps = headersKeptCount + headers.length <= limits.headersKeptMax
      if (keeps) headersKeptCount += headers.length
      used.push({
        ...facts,
        fileIdentity,
        recordCount: headers.length,
        records: keeps ? headers : undefined,
        knownEndBytes,
        followsPrevious: opening !== undefined && before.includes(opening.fileIdentity),
      })
      previous = opening
    } finally {
      file.close()
    }
  }
  used.reverse()
  const markers = readRecords(disk, directory, used, continuity)
  const newest = used.at(-1)
  const recovered: RecoveredLog = {
    streams: continuity.streams(),
    records: continuity.records(),
    untoldCount: continuity.untoldCount,
    markers,
    damage: continuity.damages(),
    tornTail,
    durable: { fileIdentity: newest?.fileIdentity ?? 0, offsetBytes: newest?.endBytes ?? 0 },
    files: used.map(file => ({ fileIdentity: file.fileIdentity, recordCount: file.recordCount })),
  }
  return {
    recovered,
    unusedFiles,
    misplacedFiles,
    endsBytes: new Map(used.map(file => [file.fileIdentity, file.endBytes])),
    unsettled: used
      .filter(file => file.durableBytes < file.endBytes)
      .map(({ fileIdentity, durableBytes, endBytes }) => ({ fileIdentity, startBytes: durableBytes, endBytes })),
  }
}

/** A header that the disk does not give is damaged: each record says itself which file it is of. */
function fileHeaderState(records: LogFileRecords): 'good' | 'damaged' | 'misplaced' {
  const { fileIdentity } = records
  const block = new Uint8Array(fileHeaderSizeBytes)
  const header = decodeFileHeader(block.subarray(0, records.readBytes(0, block)))
  if (header === 'other-version') {
    throw new Failure(
      'VERSION_UNSUPPORTED',
      `log file ${fileIdentity} was written by another version of this program: start that version, or move the file away`,
      { fileIdentity },
    )
  }
  if (header === undefined) return 'damaged'
  return header.fileIdentity === fileIdentity ? 'good' : 'misplaced'
}

/** Brings every kept record into the order of its stream, and reads the frames of markers. */
function readRecords(
  disk: Disk,
  directory: string,
  files: readonly ScannedFile[],
  continuity: StreamContinuity,
): { header: RecordHeader; frame: Uint8Array }[] {
  const markers: { header: RecordHeader; frame: Uint8Array }[] = []
  for (const scanned of files) {
    const { fileIdentity } = scanned
    continuity.beginFile(scanned.followsPrevious)
    const file = disk.open(logFilePath(directory, fileIdentity), 'read')
    try {
      const reader = new LogFileRecords(file, fileIdentity)
      for (const header of scanned.records ?? recordsAgain(file, reader, scanned)) {
        const frame = header.kind === 'marker' ? reader.frame(header) : undefined
        if (header.kind === 'marker' && frame === undefined) {
          continuity.lose(header, 'the marker there fails its checksum')
          continue
        }
        continuity.add(header)
        if (frame !== undefined) markers.push({ header, frame })
      }
    } finally {
      file.close()
    }
  }
  return markers.filter(({ header }) => continuity.keeps(header))
}

/** What the first pass found. Beside a writer the file may have grown since: that is not looked at. */
function recordsAgain(file: DiskFile, reader: LogFileRecords, scanned: ScannedFile): RecordHeader[] {
  const { records } = scanLogFile(reader, file.sizeBytes(), scanned.knownEndBytes)
  return records.filter(record => record.offsetBytes < scanned.endBytes)
}
