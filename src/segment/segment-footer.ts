import { assert } from '../base/assert.ts'
import { type VpgId } from '../base/ids.ts'
import { alignUp, sectorSizeBytes } from '../base/units.ts'
import type { DurableMarker } from '../timeline/assembler.ts'
import type { StreamRange } from '../timeline/state.ts'
import { dataSectorsOf, type BatchColumns, type WriteColumns } from './record-source.ts'
import {
  checkVersion,
  corrupt,
  nonceSizeBytes,
  readUint64,
  segmentFormatVersion,
  segmentHeaderSizeBytes,
  viewOf,
  vpgIdAt,
  writeUint64,
} from './segment-format.ts'

// The footer of a segment: all that a reader needs beside the payloads, gathered so that one range read brings it. Little-endian;
// its checksum stands in the trailer.
//
//   offset  size  field
//        0     4  magic               'VRAX'
//        4     1  formatVersion       1
//        5     3  reserved            0
//        8    16  vpgId
//       24     4  epoch
//       28     4  rangeCount
//       32     8  commitNumber
//       40    16  nonce               as in the header: header and footer are of one object
//       56     4  writeCount
//       60     4  batchCount
//       64     4  markerCount
//       68     4  markersSizeBytes
//       72     8  reserved            0
//       80    32  ranges, one each    stream u32, reserved u32, generation u64, firstSequence u64, lastSequence u64
//             28  batches, one each   firstSequence u64, recordOffset/8 u32, recordSizeBytes u32, rawSizeBytes u32,
//                                     frameCrc32c u32, index of its range u16, writeCount u16
//              4  writes: offset in sectors, low 32 bits
//              2  writes: volume
//              2  writes: length in sectors - 1 (15 bits), and 32768 where the range becomes zeros
//              1  writes: offset in sectors, high 8 bits
//              ?  markers, one each   sequence u64, timestampMicros u64, historyMillis u64, recordOffset/8 u32, recordSizeBytes u32,
//                                     term u32, counter u32, index of its range u16, participantCount u16, volumeCount u16,
//                                     reserved u16; participants u32 each; volumes: number u16, included u16, sizeBytes u64
//                 zeros up to a multiple of 8
//
// The columns of writes stand one behind the other (9 bytes a write), so a reader can skip those that it does not need.

const footerMagic = 0x58_41_52_56 // 'VRAX'
const fixedSizeBytes = 80
const rangeSizeBytes = 32
const batchSizeBytes = 28
const writeSizeBytes = 9
const markerFixedSizeBytes = 48
const markerVolumeSizeBytes = 12

/** A marker and where its record is. */
export interface MarkerEntry {
  readonly marker: DurableMarker
  readonly range: number
  readonly offsetBytes: number
  readonly sizeBytes: number
}

export interface FooterContents {
  readonly vpg: VpgId
  readonly epoch: number
  readonly commitNumber: number
  readonly nonce: Uint8Array
  readonly ranges: readonly StreamRange[]
  readonly writes: WriteColumns
  readonly batches: BatchColumns
  /** Per batch: the index of its range, and its frame's checksum. */
  readonly batchRange: readonly number[] | Uint16Array
  readonly batchFrameCrc32c: readonly number[] | Uint32Array
  readonly markers: readonly MarkerEntry[]
}

/** How large the footer of so much is; `markersSizeBytes` is the sum of markerEntrySizeBytes(). */
export function footerSizeBytes(counts: {
  readonly ranges: number
  readonly batches: number
  readonly writes: number
  readonly markersSizeBytes: number
}): number {
  return alignUp(
    fixedSizeBytes +
      counts.ranges * rangeSizeBytes +
      counts.batches * batchSizeBytes +
      counts.writes * writeSizeBytes +
      counts.markersSizeBytes,
    8,
  )
}

export function markerEntrySizeBytes(marker: DurableMarker): number {
  return markerFixedSizeBytes + 4 * marker.participants.length + markerVolumeSizeBytes * marker.volumes.length
}

/** Writes the footer at the start of `target`; returns its size. */
export function encodeFooter(target: Uint8Array, contents: FooterContents): number {
  const { ranges, writes, batches, markers } = contents
  const markersSizeBytes = markers.reduce((sum, entry) => sum + markerEntrySizeBytes(entry.marker), 0)
  const counts = { ranges: ranges.length, batches: batches.count, writes: writes.count, markersSizeBytes }
  const sizeBytes = footerSizeBytes(counts)
  assert(target.length >= sizeBytes, 'room for the footer')
  assert(ranges.length < 2 ** 16, 'the index of a range fits in 16 bits')
  const view = viewOf(target)
  target.fill(0, 0, sizeBytes)
  view.setUint32(0, footerMagic, true)
  view.setUint8(4, segmentFormatVersion)
  target.set(Buffer.from(contents.vpg, 'hex'), 8)
  view.setUint32(24, contents.epoch, true)
  view.setUint32(28, ranges.length, true)
  writeUint64(view, 32, contents.commitNumber)
  target.set(contents.nonce, 40)
  view.setUint32(56, writes.count, true)
  view.setUint32(60, batches.count, true)
  view.setUint32(64, markers.length, true)
  view.setUint32(68, markersSizeBytes, true)
  let at = fixedSizeBytes
  for (const range of ranges) at = encodeRange(view, at, range)
  for (let batch = 0; batch < batches.count; batch++) at = encodeBatch(view, at, contents, batch)
  at = encodeWrites(view, at, writes)
  for (const entry of markers) at = encodeMarker(view, at, entry)
  return sizeBytes
}

/**
 * What the footer says; `source` is exactly the footer, whose checksum the caller has checked, from `offsetBytes` of the object.
 * Fails OBJECT_CORRUPT when it contradicts itself, VERSION_UNSUPPORTED.
 */
export function decodeFooter(object: string, source: Uint8Array, offsetBytes: number): FooterContents {
  const view = viewOf(source)
  const refuse = (what: string): never => {
    throw corrupt(object, offsetBytes, `the footer ${what}`)
  }
  if (source.length < fixedSizeBytes || view.getUint32(0, true) !== footerMagic) refuse('does not begin as one')
  checkVersion(object, view.getUint8(4))
  const counts = {
    ranges: view.getUint32(28, true),
    writes: view.getUint32(56, true),
    batches: view.getUint32(60, true),
    markersSizeBytes: view.getUint32(68, true),
  }
  const markerCount = view.getUint32(64, true)
  if (footerSizeBytes(counts) !== source.length) refuse('has another size than its counts say')
  if (markerCount * markerFixedSizeBytes > counts.markersSizeBytes) refuse('has more markers than room for them')
  const rangesStart = fixedSizeBytes
  const batchesStart = rangesStart + counts.ranges * rangeSizeBytes
  const writesStart = batchesStart + counts.batches * batchSizeBytes
  const markersStart = writesStart + counts.writes * writeSizeBytes
  const ranges = Array.from({ length: counts.ranges }, (_, index) =>
    decodeRange(view, rangesStart + index * rangeSizeBytes),
  )
  const { batches, batchRange, batchFrameCrc32c } = decodeBatches(view, batchesStart, counts.batches, ranges, refuse)
  checkBatches(batches, { writeCount: counts.writes, recordsEndBytes: offsetBytes }, refuse)
  return {
    vpg: vpgIdAt(source, 8),
    epoch: view.getUint32(24, true),
    commitNumber: readUint64(view, 32),
    nonce: Uint8Array.from(source.subarray(40, 40 + nonceSizeBytes)),
    ranges,
    batches,
    batchRange,
    batchFrameCrc32c,
    writes: decodeWrites(view, writesStart, counts.writes, batches, refuse),
    markers: decodeMarkers(view, markersStart, { markerCount, sizeBytes: counts.markersSizeBytes }, ranges, refuse),
  }
}

type Refuse = (what: string) => never

function encodeRange(view: DataView, at: number, range: StreamRange): number {
  view.setUint32(at, range.stream, true)
  writeUint64(view, at + 8, range.generation)
  writeUint64(view, at + 16, range.firstSequence)
  writeUint64(view, at + 24, range.lastSequence)
  return at + rangeSizeBytes
}

function decodeRange(view: DataView, at: number): StreamRange {
  return {
    stream: view.getUint32(at, true),
    generation: readUint64(view, at + 8),
    firstSequence: readUint64(view, at + 16),
    lastSequence: readUint64(view, at + 24),
  }
}

function encodeBatch(view: DataView, at: number, contents: FooterContents, batch: number): number {
  const { batches, batchRange, batchFrameCrc32c } = contents
  writeUint64(view, at, batches.firstSequence[batch] ?? 0)
  view.setUint32(at + 8, (batches.offsetBytes[batch] ?? 0) / 8, true)
  view.setUint32(at + 12, batches.sizeBytes[batch] ?? 0, true)
  view.setUint32(at + 16, batches.rawSizeBytes[batch] ?? 0, true)
  view.setUint32(at + 20, batchFrameCrc32c[batch] ?? 0, true)
  view.setUint16(at + 24, batchRange[batch] ?? 0, true)
  view.setUint16(at + 26, batches.writeCount[batch] ?? 0, true)
  return at + batchSizeBytes
}

function decodeBatches(view: DataView, start: number, count: number, ranges: readonly StreamRange[], refuse: Refuse) {
  const batches = {
    count,
    stream: new Uint32Array(count),
    generation: new Float64Array(count),
    firstSequence: new Float64Array(count),
    firstWrite: new Uint32Array(count),
    writeCount: new Uint32Array(count),
    rawSizeBytes: new Uint32Array(count),
    offsetBytes: new Float64Array(count),
    sizeBytes: new Uint32Array(count),
  }
  const batchRange = new Uint16Array(count)
  const batchFrameCrc32c = new Uint32Array(count)
  let firstWrite = 0
  for (let batch = 0, at = start; batch < count; batch++, at += batchSizeBytes) {
    const rangeIndex = view.getUint16(at + 24, true)
    const range = ranges[rangeIndex] ?? refuse(`puts batch ${batch} in a range that it does not have`)
    const writeCount = view.getUint16(at + 26, true)
    batches.stream[batch] = range.stream
    batches.generation[batch] = range.generation
    batches.firstSequence[batch] = readUint64(view, at)
    batches.firstWrite[batch] = firstWrite
    batches.writeCount[batch] = writeCount
    batches.rawSizeBytes[batch] = view.getUint32(at + 16, true)
    batches.offsetBytes[batch] = view.getUint32(at + 8, true) * 8
    batches.sizeBytes[batch] = view.getUint32(at + 12, true)
    batchRange[batch] = rangeIndex
    batchFrameCrc32c[batch] = view.getUint32(at + 20, true)
    firstWrite += writeCount
  }
  return { batches, batchRange, batchFrameCrc32c }
}

/** The batches are in the order of their places, inside the records, and have as many writes as there are. */
function checkBatches(
  batches: BatchColumns,
  bounds: { readonly writeCount: number; readonly recordsEndBytes: number },
  refuse: Refuse,
): void {
  let endBytes = segmentHeaderSizeBytes
  let writeCount = 0
  for (let batch = 0; batch < batches.count; batch++) {
    const offsetBytes = batches.offsetBytes[batch] ?? 0
    if (offsetBytes < endBytes) refuse(`has batch ${batch} where another record is`)
    endBytes = offsetBytes + (batches.sizeBytes[batch] ?? 0)
    writeCount += batches.writeCount[batch] ?? 0
  }
  if (endBytes > bounds.recordsEndBytes) refuse('has a batch behind the last record')
  if (writeCount !== bounds.writeCount) refuse('has another number of writes than its batches')
}

function encodeWrites(view: DataView, start: number, writes: WriteColumns): number {
  const { count } = writes
  const volumeStart = start + 4 * count
  const lengthStart = volumeStart + 2 * count
  const highStart = lengthStart + 2 * count
  for (let write = 0; write < count; write++) {
    view.setUint32(start + 4 * write, writes.offsetLow[write]!, true)
    view.setUint16(volumeStart + 2 * write, writes.volume[write]!, true)
    view.setUint16(lengthStart + 2 * write, writes.lengthAndFlag[write]!, true)
    view.setUint8(highStart + write, writes.offsetHigh[write]!)
  }
  return highStart + count
}

/** Of memory that stays as it is: the columns are views of it where they can be. */
function decodeWrites(
  view: DataView,
  start: number,
  count: number,
  batches: BatchColumns,
  refuse: Refuse,
): WriteColumns {
  const volumeStart = start + 4 * count
  const lengthStart = volumeStart + 2 * count
  const highStart = lengthStart + 2 * count
  const columns = {
    count,
    volume: uint16Column(view, volumeStart, count),
    offsetLow: uint32Column(view, start, count),
    offsetHigh: new Uint8Array(view.buffer, view.byteOffset + highStart, count),
    lengthAndFlag: uint16Column(view, lengthStart, count),
  }
  for (let batch = 0; batch < batches.count; batch++) {
    const firstWrite = batches.firstWrite[batch]!
    const end = firstWrite + batches.writeCount[batch]!
    let sectors = 0
    for (let write = firstWrite; write < end; write++) sectors += dataSectorsOf(columns, write)
    if (sectors * sectorSizeBytes !== batches.rawSizeBytes[batch])
      refuse(`has another raw size of batch ${batch} than its writes`)
  }
  return columns
}

const isLittleEndian = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1

/** A view, where the numbers stand in the order and the places that the processor has them in: of millions a copy takes longer than all else. */
function uint32Column({ buffer, byteOffset }: DataView, start: number, count: number): Uint32Array {
  const at = byteOffset + start
  if (isLittleEndian && at % 4 === 0) return new Uint32Array(buffer, at, count)
  const view = new DataView(buffer, at, 4 * count)
  return Uint32Array.from({ length: count }, (_, index) => view.getUint32(4 * index, true))
}

function uint16Column({ buffer, byteOffset }: DataView, start: number, count: number): Uint16Array {
  const at = byteOffset + start
  if (isLittleEndian && at % 2 === 0) return new Uint16Array(buffer, at, count)
  const view = new DataView(buffer, at, 2 * count)
  return Uint16Array.from({ length: count }, (_, index) => view.getUint16(2 * index, true))
}

function encodeMarker(view: DataView, start: number, entry: MarkerEntry): number {
  const { marker } = entry
  writeUint64(view, start, marker.sequence)
  writeUint64(view, start + 8, marker.timestampMicros)
  writeUint64(view, start + 16, marker.historyMillis)
  view.setUint32(start + 24, entry.offsetBytes / 8, true)
  view.setUint32(start + 28, entry.sizeBytes, true)
  view.setUint32(start + 32, marker.term, true)
  view.setUint32(start + 36, marker.counter, true)
  view.setUint16(start + 40, entry.range, true)
  view.setUint16(start + 42, marker.participants.length, true)
  view.setUint16(start + 44, marker.volumes.length, true)
  let at = start + markerFixedSizeBytes
  for (const stream of marker.participants) {
    view.setUint32(at, stream, true)
    at += 4
  }
  for (const volume of marker.volumes) {
    view.setUint16(at, volume.number, true)
    view.setUint16(at + 2, volume.included ? 1 : 0, true)
    writeUint64(view, at + 4, volume.sizeBytes)
    at += markerVolumeSizeBytes
  }
  return at
}

function decodeMarkers(
  view: DataView,
  start: number,
  section: { readonly markerCount: number; readonly sizeBytes: number },
  ranges: readonly StreamRange[],
  refuse: Refuse,
): MarkerEntry[] {
  const end = start + section.sizeBytes
  const entries: MarkerEntry[] = []
  let at = start
  for (let index = 0; index < section.markerCount; index++) {
    if (at + markerFixedSizeBytes > end) refuse('ends inside a marker')
    const entry = decodeMarker(view, at, end, ranges) ?? refuse(`has a marker ${index} that cannot be`)
    entries.push(entry)
    at += markerEntrySizeBytes(entry.marker)
  }
  if (at !== end) refuse('has bytes behind its last marker')
  return entries
}

function decodeMarker(
  view: DataView,
  at: number,
  end: number,
  ranges: readonly StreamRange[],
): MarkerEntry | undefined {
  const rangeIndex = view.getUint16(at + 40, true)
  const range = ranges[rangeIndex]
  const participantCount = view.getUint16(at + 42, true)
  const volumeCount = view.getUint16(at + 44, true)
  const participantsStart = at + markerFixedSizeBytes
  const volumesStart = participantsStart + 4 * participantCount
  if (range === undefined || volumesStart + markerVolumeSizeBytes * volumeCount > end) return undefined
  const marker = {
    stream: range.stream,
    generation: range.generation,
    sequence: readUint64(view, at),
    term: view.getUint32(at + 32, true),
    counter: view.getUint32(at + 36, true),
    timestampMicros: readUint64(view, at + 8),
    historyMillis: readUint64(view, at + 16),
    participants: Array.from({ length: participantCount }, (_, index) =>
      view.getUint32(participantsStart + 4 * index, true),
    ),
    volumes: Array.from({ length: volumeCount }, (_, index) => {
      const volume = volumesStart + markerVolumeSizeBytes * index
      return {
        number: view.getUint16(volume, true),
        sizeBytes: readUint64(view, volume + 4),
        included: view.getUint16(volume + 2, true) === 1,
      }
    }),
  }
  return {
    marker,
    range: rangeIndex,
    offsetBytes: view.getUint32(at + 24, true) * 8,
    sizeBytes: view.getUint32(at + 28, true),
  }
}
