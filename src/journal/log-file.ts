import * as path from 'node:path'
import { assert } from '../base/assert.ts'
import { logGroupAlignmentBytes, logRecordHeaderSizeBytes } from '../base/limits.ts'
import { alignUp } from '../base/units.ts'
import { crc32c } from '../codec/crc32c.ts'
import type { Disk } from '../disk/disk.ts'
import { encodeRecordHeader, noVpg } from './record.ts'

// A log file is `<directory>/log/<identity, 16 digits>.log`. Little-endian:
//
//   offset  size  field
//        0     4  magic                'VRAL'
//        4     4  formatVersion        1
//        8     8  fileIdentity         equal to the one in the file's name, and in every record's header
//       16     8  logFileSizeBytes     what the file was made for
//       24     8  createdMicros        when it got this identity
//       32     4  headerCrc32c         over bytes 0..32
//       36  4060  0
//     4096  4096  the opening pad: which file was written before, and where its durable records end (see record.ts)
//     8192     …  groups of records; each starts on a 4 KiB boundary, a pad fills it up to the next
//
// Other names in the folder: `.free` is a file that nobody needs any more and that will be recycled under a new
// identity; `.zeroed` is one of zeros, made when nothing else was to do, to be used like it; `.staged` is one that is being made, worth nothing after a crash; `.aside` is one that is not what its name
// says, kept for a person to look at.

/** How far the commit log is durable: everything in files of a lower identity, and this file up to the offset. */
export interface LogMark {
  readonly fileIdentity: number
  readonly offsetBytes: number
}

/** Where a record stands in the commit log; `sizeBytes` is that of the whole record, header and padding included. */
export interface RecordPlace {
  readonly fileIdentity: number
  readonly offsetBytes: number
  readonly sizeBytes: number
}

export const fileHeaderSizeBytes = logGroupAlignmentBytes
/** The opening pad stands here; the first group right behind it. */
export const openingOffsetBytes = fileHeaderSizeBytes
export const firstGroupOffsetBytes = openingOffsetBytes + logGroupAlignmentBytes

const fileMagic = 0x4c_41_52_56 // 'VRAL'
const fileFormatVersion = 1
/** The header itself; the rest of its block is zero. */
export const fileHeaderFieldsSizeBytes = 36

export type LogFileState = 'log' | 'free' | 'zeroed' | 'staged' | 'aside'

export function logDirectory(directory: string): string {
  return path.join(directory, 'log')
}

export function logFilePath(directory: string, fileIdentity: number, state: LogFileState = 'log'): string {
  return path.join(logDirectory(directory), `${String(fileIdentity).padStart(16, '0')}.${state}`)
}

/** Identities of the files in that state, ascending. */
export function listLogFiles(disk: Disk, directory: string, state: LogFileState = 'log'): number[] {
  return disk
    .list(logDirectory(directory))
    .map(name => /^(\d{16})\.([a-z]+)$/.exec(name))
    .filter(match => match !== null && match[2] === state)
    .map(match => Number(match?.[1]))
    .sort((a, b) => a - b)
}

export interface LogFileHeader {
  readonly fileIdentity: number
  readonly logFileSizeBytes: number
  readonly createdMicros: number
}

/** The whole first block of a file. */
export function encodeFileHeader(header: LogFileHeader): Uint8Array {
  const block = new Uint8Array(fileHeaderSizeBytes)
  const view = new DataView(block.buffer)
  view.setUint32(0, fileMagic, true)
  view.setUint32(4, fileFormatVersion, true)
  view.setBigUint64(8, BigInt(header.fileIdentity), true)
  view.setBigUint64(16, BigInt(header.logFileSizeBytes), true)
  view.setBigUint64(24, BigInt(header.createdMicros), true)
  view.setUint32(32, crc32c(block.subarray(0, 32)), true)
  return block
}

/** Undefined when the bytes are no file header; 'other-version' when they are one that this program does not know. */
export function decodeFileHeader(block: Uint8Array): LogFileHeader | 'other-version' | undefined {
  if (block.length < fileHeaderFieldsSizeBytes) return undefined
  const view = new DataView(block.buffer, block.byteOffset, fileHeaderFieldsSizeBytes)
  if (view.getUint32(0, true) !== fileMagic) return undefined
  if (view.getUint32(32, true) !== crc32c(block.subarray(0, 32))) return undefined
  if (view.getUint32(4, true) !== fileFormatVersion) return 'other-version'
  return {
    fileIdentity: Number(view.getBigUint64(8, true)),
    logFileSizeBytes: Number(view.getBigUint64(16, true)),
    createdMicros: Number(view.getBigUint64(24, true)),
  }
}

/** What a pad says; `previous` only where it opens a file. */
export interface PadFields {
  readonly fileIdentity: number
  readonly offsetBytes: number
  readonly sizeBytes: number
  readonly durableOffsetBytes: number
  readonly previous: LogMark
}

const padSizeBytesMax = 2 * logGroupAlignmentBytes
const padFrame = new Uint8Array(padSizeBytesMax)

/** A pad record, all of its bytes: whole blocks are written, so that the kernel need not read the rest of one first. */
export function encodePad(fields: PadFields): Uint8Array {
  assert(
    fields.sizeBytes >= logRecordHeaderSizeBytes && fields.sizeBytes <= padSizeBytesMax,
    'a pad has room for itself',
  )
  const pad = new Uint8Array(fields.sizeBytes)
  const frameSizeBytes = fields.sizeBytes - logRecordHeaderSizeBytes
  encodeRecordHeader(pad, {
    kind: 'pad',
    fileIdentity: fields.fileIdentity,
    offsetBytes: fields.offsetBytes,
    vpg: noVpg,
    stream: 0,
    epoch: 0,
    generation: fields.previous.fileIdentity,
    firstSequence: 0,
    lastSequence: fields.previous.offsetBytes,
    durableOffsetBytes: fields.durableOffsetBytes,
    frameSizeBytes,
    frameCrc32c: crc32c(padFrame.subarray(0, frameSizeBytes)),
    timestampMicros: 0,
    historyMillis: 0,
  })
  return pad
}

/** How long the pad behind a group that ends here must be; 0 where none is needed. */
export function padSizeBytes(endBytes: number): number {
  const rest = alignUp(endBytes, logGroupAlignmentBytes) - endBytes
  return rest === 0 || rest >= logRecordHeaderSizeBytes ? rest : rest + logGroupAlignmentBytes
}
