import { assert } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'
import { checkpointOrdinal, ordinal } from '../base/ids.ts'
import { logRecordHeaderSizeBytes } from '../base/limits.ts'
import { crc32c } from '../codec/crc32c.ts'
import { encodeRecordHeader, recordSizeBytes, type RecordHeader } from '../journal/record.ts'
import type { DurableMarker } from '../timeline/assembler.ts'
import type { SegmentSpan, StreamRange } from '../timeline/state.ts'
import { decodeSummedFrame, type BatchView, type Marker } from '../wire/wire.ts'
import { ColumnGatherer, fitsColumns } from './segment-columns.ts'
import {
  encodeFooter,
  footerSizeBytes,
  markerEntrySizeBytes,
  type FooterContents,
  type MarkerEntry,
} from './segment-footer.ts'
import {
  encodeSegmentHeader,
  encodeSegmentTrailer,
  segmentHeaderSizeBytes,
  segmentTrailerSizeBytes,
  type SegmentHeader,
} from './segment-format.ts'

export interface SegmentBuilderOptions extends SegmentHeader {
  /** Of the whole object; see fits(). */
  readonly capacityBytes: number
  /** At least that large, to be used again and again: one segment is built in it at a time. */
  readonly buffer?: Uint8Array
}

export interface FinishedSegment {
  /** The whole object; in the builder's buffer. */
  readonly body: Uint8Array
  readonly span: Omit<SegmentSpan, 'object'>
  readonly markers: readonly DurableMarker[]
}

/** Makes the object of one segment out of records, in the order in which they are added. */
export class SegmentBuilder {
  readonly #header: SegmentHeader
  readonly #body: Uint8Array
  readonly #contents: FooterGatherer
  #recordsEndBytes = segmentHeaderSizeBytes

  constructor(options: SegmentBuilderOptions) {
    const { capacityBytes } = options
    const buffer = options.buffer ?? new Uint8Array(capacityBytes)
    assert(buffer.length >= capacityBytes, 'a buffer as large as the segment may become')
    this.#header = options
    this.#body = buffer.subarray(0, capacityBytes)
    this.#contents = new FooterGatherer()
  }

  get recordCount(): number {
    return this.#contents.recordCount
  }

  /** What the object would be large if it were finished now. */
  get sizeBytes(): number {
    return this.#recordsEndBytes + this.#contents.sizeBytes() + segmentTrailerSizeBytes
  }

  /** Whether a record with this header, and its part of the footer, still fits. */
  fits(header: RecordHeader): boolean {
    const addedBytes = recordSizeBytes(header.frameSizeBytes) + footerShareBytesMax(header)
    return this.sizeBytes + addedBytes <= this.#body.length
  }

  /** Copies the record in, as addFrom() does. */
  add(header: RecordHeader, frame: Uint8Array): BatchView | Marker {
    if (frame.length !== header.frameSizeBytes)
      throw contradiction(header, 'its frame has another size than its header says')
    return this.addFrom(header, record => record.set(frame, logRecordHeaderSizeBytes))
  }

  /**
   * Has `read` put the whole record where it belongs, of which only the frame counts, unchecked; returns the decoded frame where
   * it stands. The records of a stream must rise; a gap begins a new range. Fails RECORD_CORRUPT, and adds nothing, when
   * header and frame contradict each other or themselves, and as `read` fails.
   */
  addFrom(header: RecordHeader, read: (record: Uint8Array) => void): BatchView | Marker {
    assert(header.vpg === this.#header.vpg, 'a record of this VPG')
    assert(this.fits(header), 'room for the record: ask fits() first')
    assert(this.#contents.follows(header), `the records of stream ${header.stream} rise: ${header.firstSequence}`)
    const offsetBytes = this.#recordsEndBytes
    const sizeBytes = recordSizeBytes(header.frameSizeBytes)
    const endBytes = logRecordHeaderSizeBytes + header.frameSizeBytes
    const record = this.#body.subarray(offsetBytes, offsetBytes + sizeBytes)
    read(record)
    const message = decodeRecordFrame(header, record.subarray(logRecordHeaderSizeBytes, endBytes))
    encodeRecordHeader(record, { ...header, fileIdentity: 0, offsetBytes, durableOffsetBytes: 0 })
    record.fill(0, endBytes)
    this.#contents.add(header, message, { offsetBytes, sizeBytes })
    this.#recordsEndBytes += sizeBytes
    return message
  }

  /** The object, whole. The builder is used up. */
  finish(): FinishedSegment {
    const contents = this.#contents.contents(this.#header)
    const footerOffsetBytes = this.#recordsEndBytes
    encodeSegmentHeader(this.#body, this.#header)
    const footerSize = encodeFooter(this.#body.subarray(footerOffsetBytes), contents)
    const trailerOffsetBytes = footerOffsetBytes + footerSize
    const { writeCount, rawSizeBytes } = this.#contents
    encodeSegmentTrailer(this.#body.subarray(trailerOffsetBytes), {
      footerOffsetBytes,
      footerSizeBytes: footerSize,
      footerCrc32c: crc32c(this.#body.subarray(footerOffsetBytes, trailerOffsetBytes)),
      writeCount,
      rawSizeBytes,
    })
    const endBytes = trailerOffsetBytes + segmentTrailerSizeBytes
    return {
      body: this.#body.subarray(0, endBytes),
      span: spanOf(contents, { offsetBytes: footerOffsetBytes, endBytes, rawSizeBytes }),
      markers: contents.markers.map(entry => entry.marker),
    }
  }
}

/** What manifests say of a segment with this footer; its footer part includes the trailer. */
export function spanOf(
  contents: FooterContents,
  footer: { readonly offsetBytes: number; readonly endBytes: number; readonly rawSizeBytes: number },
): Omit<SegmentSpan, 'object'> {
  const ordinals = contents.markers.map(({ marker }) => checkpointOrdinal(marker.term, marker.counter))
  return {
    kind: 'segment',
    commitNumber: contents.commitNumber,
    footerOffsetBytes: footer.offsetBytes,
    footerSizeBytes: footer.endBytes - footer.offsetBytes,
    ranges: contents.ranges,
    writeCount: contents.writes.count,
    rawSizeBytes: footer.rawSizeBytes,
    firstOrdinal: ordinals.reduce((least, each) => (each < least ? each : least), ordinals[0] ?? ordinal(0)),
    lastOrdinal: ordinals.reduce((most, each) => (each > most ? each : most), ordinal(0)),
  }
}

/** Gathers what the footer says from records in order: for building a segment, and for checking one. */
export class FooterGatherer {
  readonly #columns = new ColumnGatherer()
  readonly #ranges: StreamRange[] = []
  readonly #rangeOfStream = new Map<number, number>()
  readonly #batchRange: number[] = []
  readonly #batchFrameCrc32c: number[] = []
  readonly #markers: MarkerEntry[] = []
  #markersSizeBytes = 0

  get recordCount(): number {
    return this.#columns.batchCount + this.#markers.length
  }

  get writeCount(): number {
    return this.#columns.writeCount
  }

  get rawSizeBytes(): number {
    return this.#columns.rawSizeBytes
  }

  get ranges(): readonly StreamRange[] {
    return this.#ranges
  }

  add(
    header: RecordHeader,
    message: BatchView | Marker,
    place: { readonly offsetBytes: number; readonly sizeBytes: number },
  ): void {
    const range = this.#rangeFor(header)
    if (message.type === 'write-batch') {
      this.#columns.add(message, { stream: header.stream, ...place })
      this.#batchRange.push(range)
      this.#batchFrameCrc32c.push(header.frameCrc32c)
    } else {
      const marker = durableMarkerOf(header, message)
      this.#markers.push({ marker, range, ...place })
      this.#markersSizeBytes += markerEntrySizeBytes(marker)
    }
  }

  /** Whether the record lies behind all of its stream that were added. */
  follows({ stream, generation, firstSequence }: RecordHeader): boolean {
    const range = this.#ranges[this.#rangeOfStream.get(stream) ?? -1]
    if (range === undefined || generation > range.generation) return true
    return generation === range.generation && firstSequence > range.lastSequence
  }

  sizeBytes(): number {
    return footerSizeBytes({
      ranges: this.#ranges.length,
      batches: this.#columns.batchCount,
      writes: this.#columns.writeCount,
      markersSizeBytes: this.#markersSizeBytes,
    })
  }

  contents(identity: Pick<SegmentHeader, 'vpg' | 'epoch' | 'commitNumber' | 'nonce'>): FooterContents {
    return {
      vpg: identity.vpg,
      epoch: identity.epoch,
      commitNumber: identity.commitNumber,
      nonce: identity.nonce,
      ranges: this.#ranges,
      ...this.#columns.columns(),
      batchRange: this.#batchRange,
      batchFrameCrc32c: this.#batchFrameCrc32c,
      markers: this.#markers,
    }
  }

  /** The index of the range that the record lengthens, or of a new one. */
  #rangeFor(header: RecordHeader): number {
    const { stream, generation, firstSequence, lastSequence } = header
    const index = this.#rangeOfStream.get(stream)
    const range = index === undefined ? undefined : this.#ranges[index]
    const continues = range?.generation === generation && firstSequence === range.lastSequence + 1
    if (index !== undefined && range !== undefined && continues) {
      this.#ranges[index] = { ...range, lastSequence }
      return index
    }
    this.#ranges.push({ stream, generation, firstSequence, lastSequence })
    this.#rangeOfStream.set(stream, this.#ranges.length - 1)
    return this.#ranges.length - 1
  }
}

/** The batch or marker in a record's frame. Fails RECORD_CORRUPT when it is not what the header says. */
export function decodeRecordFrame(header: RecordHeader, frame: Uint8Array): BatchView | Marker {
  const refuse = (what: string, cause?: unknown): never => {
    throw contradiction(header, what, cause)
  }
  if (frame.length !== header.frameSizeBytes) refuse('its frame has another size than its header says')
  if (crc32c(frame) !== header.frameCrc32c) refuse('its frame has another checksum than its header says')
  const message = decodeOr(frame, header.frameCrc32c, cause => refuse('its frame cannot be decoded', cause))
  switch (message.type) {
    case 'write-batch': {
      const lastSequence = message.firstSequence + message.writeCount - 1
      if (!agrees(header, 'batch', message.generation, message.firstSequence, lastSequence))
        refuse('its frame is not the batch that its header names')
      if (!fitsColumns(message)) refuse('a write lies past the largest volume that there can be')
      return message
    }
    case 'marker':
      if (!agrees(header, 'marker', message.generation, message.sequence, message.sequence))
        refuse('its frame is not the marker that its header names')
      if (message.volumes.some(volume => volume.number >= 2 ** 16)) refuse('its marker names an impossible volume')
      return message
    default:
      return refuse(`its frame is a ${message.type}`)
  }
}

export function durableMarkerOf(header: RecordHeader, marker: Marker): DurableMarker {
  return {
    stream: header.stream,
    generation: header.generation,
    sequence: header.firstSequence,
    term: marker.term,
    counter: marker.counter,
    timestampMicros: header.timestampMicros,
    historyMillis: header.historyMillis,
    participants: marker.participants,
    volumes: marker.volumes,
  }
}

/** A participant is at least a byte of a marker's frame and 4 bytes here, a volume at least 2 and 12. */
function footerShareBytesMax(header: RecordHeader): number {
  const range = footerSizeBytes({ ranges: 1, batches: 1, writes: 0, markersSizeBytes: 0 })
  return header.kind === 'marker'
    ? range + 6 * header.frameSizeBytes
    : range + 9 * (header.lastSequence - header.firstSequence + 1)
}

function contradiction(header: RecordHeader, what: string, cause?: unknown): Failure {
  const { stream, generation, firstSequence } = header
  const sentence = `record ${generation}:${firstSequence} of stream ${stream} of VPG ${header.vpg}: ${what}`
  return new Failure('RECORD_CORRUPT', sentence, { stream, generation, firstSequence }, { cause })
}

function decodeOr(
  frame: Uint8Array,
  crc32cOfAll: number,
  refuse: (cause: unknown) => never,
): ReturnType<typeof decodeSummedFrame> {
  try {
    return decodeSummedFrame(frame, crc32cOfAll)
  } catch (error) {
    if (error instanceof Failure) return refuse(error)
    throw error
  }
}

function agrees(header: RecordHeader, kind: 'batch' | 'marker', generation: number, first: number, last: number) {
  return (
    header.kind === kind &&
    header.generation === generation &&
    header.firstSequence === first &&
    header.lastSequence === last
  )
}
