import type { VpgId } from '../base/ids.ts'
import type { Disk } from '../disk/disk.ts'
import {
  decodeFileHeader,
  fileHeaderFieldsSizeBytes,
  fileHeaderSizeBytes,
  logFilePath,
  openingOffsetBytes,
  type LogMark,
} from './log-file.ts'
import { type LogRecordPlace, placeOf } from './recovered.ts'
import { type LogScan, scanLog } from './recovery.ts'
import { LogFileRecords, sizeOf } from './scan.ts'

// Reading the whole log without the daemon, or beside it: nothing is changed, and files that are recycled meanwhile are
// passed over.

export interface LogFault {
  readonly type: 'fault'
  readonly fileIdentity: number
  readonly offsetBytes: number
  /** Whose records are lost by it, where anything tells. */
  readonly vpgs: readonly VpgId[]
  readonly sentence: string
}

export interface LogTotals {
  readonly fileCount: number
  readonly recordCount: number
  readonly sizeBytes: number
  readonly faultCount: number
}

/** One line of a dump. */
export type LogFact =
  | { readonly type: 'file'; readonly fileIdentity: number; readonly sizeBytes: number; readonly createdMicros: number }
  | ({ readonly type: 'record'; readonly frameIsGood: boolean } & LogRecordPlace)
  | { readonly type: 'pad'; readonly fileIdentity: number; readonly offsetBytes: number; readonly sizeBytes: number }
  | LogFault

const scanCountMax = 10

/** Every file and record of the log in order, each frame checked, and what is wrong where it is met. */
export function* dumpLog(disk: Disk, directory: string): Generator<LogFact> {
  const { damage, endsBytes } = settledScan(disk, directory)
  const told = new Set<string>()
  for (const { fileIdentity, offsetBytes, missing, sentence } of damage) {
    told.add(placeInWords({ fileIdentity, offsetBytes }))
    const vpgs = [...new Set(missing.map(records => records.vpg))]
    yield { type: 'fault', fileIdentity, offsetBytes, vpgs, sentence }
  }
  for (const [fileIdentity, endBytes] of endsBytes) {
    try {
      for (const fact of dumpFile(disk, directory, { fileIdentity, endBytes })) {
        if (fact.type !== 'fault' || !told.has(placeInWords({ fileIdentity, offsetBytes: fact.offsetBytes })))
          yield fact
      }
    } catch (error) {
      if (!isMissing(error)) throw error
    }
  }
}

/**
 * Beside a writer a file may be recycled while it is read, and a record be written between two looks at it: only what a second scan
 * finds at the same place is damage.
 */
function settledScan(
  disk: Disk,
  directory: string,
): Pick<LogScan, 'endsBytes'> & { readonly damage: LogScan['recovered']['damage'] } {
  const { recovered, endsBytes } = scanBesideWriter(disk, directory)
  if (recovered.damage.length === 0) return { damage: [], endsBytes }
  const again = scanBesideWriter(disk, directory)
  const first = new Set(recovered.damage.map(placeInWords))
  return { damage: again.recovered.damage.filter(each => first.has(placeInWords(each))), endsBytes: again.endsBytes }
}

function placeInWords({ fileIdentity, offsetBytes }: LogMark): string {
  return `${fileIdentity}/${offsetBytes}`
}

/** A file that was there when the folder was listed may be recycled before it is opened: then everything is looked at again. */
function scanBesideWriter(disk: Disk, directory: string): LogScan {
  for (let scanCount = 1; ; scanCount++) {
    try {
      return scanLog(disk, directory)
    } catch (error) {
      if (!isMissing(error) || scanCount === scanCountMax) throw error
    }
  }
}

function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException | undefined)?.code === 'ENOENT'
}

function* dumpFile(
  disk: Disk,
  directory: string,
  { fileIdentity, endBytes }: { fileIdentity: number; endBytes: number },
): Generator<LogFact> {
  const path = logFilePath(directory, fileIdentity)
  const file = disk.open(path, 'read')
  const fault = (offsetBytes: number, vpgs: readonly VpgId[], what: string): LogFault => {
    const sentence = `log file ${fileIdentity}, offset ${offsetBytes}: ${what}`
    return { type: 'fault', fileIdentity, offsetBytes, vpgs, sentence }
  }
  try {
    const records = new LogFileRecords(file, fileIdentity)
    const block = new Uint8Array(fileHeaderSizeBytes)
    const header = decodeFileHeader(block.subarray(0, records.readBytes(0, block)))
    const createdMicros = header === undefined || header === 'other-version' ? 0 : header.createdMicros
    yield { type: 'file', fileIdentity, sizeBytes: file.sizeBytes(), createdMicros }
    const stray = block.findIndex((byte, index) => index >= fileHeaderFieldsSizeBytes && byte !== 0)
    if (stray >= 0 && disk.exists(path)) yield fault(stray, [], 'the rest of the header block is not zero')
    for (const piece of records.walk(openingOffsetBytes, endBytes)) {
      if (piece.kind === 'bad') continue // told among the damage
      const { offsetBytes } = piece
      const frameIsGood = records.frame(piece) !== undefined || records.frame(piece) !== undefined // it may be being written
      if (piece.kind === 'pad') yield { type: 'pad', fileIdentity, offsetBytes, sizeBytes: sizeOf(piece) }
      else yield { type: 'record', frameIsGood, ...placeOf(piece) }
      if (frameIsGood || !disk.exists(path)) continue
      const { kind, stream, generation, firstSequence, lastSequence, vpg } = piece
      const what = `the ${kind} there fails its checksum`
      const lost = `VPG ${vpg} stream ${stream} generation ${generation} sequences ${firstSequence} to ${lastSequence}`
      yield kind === 'pad' ? fault(offsetBytes, [], what) : fault(offsetBytes, [vpg], `${what}; lost: ${lost}`)
    }
  } finally {
    file.close()
  }
}

/** Checks every byte of every record; each fault goes to `report`. */
export function verifyLog(disk: Disk, directory: string, report: (fault: LogFault) => void): LogTotals {
  const totals = { fileCount: 0, recordCount: 0, sizeBytes: 0, faultCount: 0 }
  for (const fact of dumpLog(disk, directory)) {
    if (fact.type === 'file') totals.fileCount++
    else if (fact.type === 'fault') {
      totals.faultCount++
      report(fact)
    } else {
      if (fact.type === 'record') totals.recordCount++
      totals.sizeBytes += fact.sizeBytes
    }
  }
  return totals
}
