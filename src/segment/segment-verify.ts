import { Failure } from '../base/failure.ts'
import { logRecordHeaderSizeBytes } from '../base/limits.ts'
import { MiB, sectorSizeBytes } from '../base/units.ts'
import { crc32c } from '../codec/crc32c.ts'
import { decodeRecordHeader, recordSizeBytes } from '../journal/record.ts'
import type { ObjectStore } from '../store/object-store.ts'
import type { StreamRange } from '../timeline/state.ts'
import { lengthSectorsOf, offsetSectorsOf } from './record-source.ts'
import { FooterGatherer } from './segment-builder.ts'
import { encodeFooter, type FooterContents } from './segment-footer.ts'
import {
  corrupt,
  parseCommitKey,
  segmentHeaderSizeBytes,
  segmentTrailerSizeBytes,
  type SegmentHeader,
  type SegmentTrailer,
} from './segment-format.ts'
import { readFooter, readSegmentHeader } from './segment-reader.ts'
import {
  checkRecord,
  checkRecordHeader,
  PayloadReader,
  type CheckedRecord,
  type RecordPlace,
} from './segment-record.ts'

/** Something that is wrong in a segment. */
export interface SegmentFinding {
  readonly object: string
  readonly offsetBytes: number
  readonly what: string
  /** The records that cannot be trusted because of it, as far as they are known. */
  readonly records: readonly StreamRange[]
  /** Where on the volumes they wrote, as far as the footer tells. */
  readonly places: readonly { readonly volume: number; readonly offsetBytes: number; readonly sizeBytes: number }[]
}

/**
 * Reads every byte of the segment: each record, each payload decompressed, and the footer held against what the records say.
 * An empty list means that all is whole. Fails only as the store does.
 */
export async function verifySegment(
  store: ObjectStore,
  key: string,
  sizeBytes: number,
  signal: AbortSignal,
): Promise<SegmentFinding[]> {
  const findings: SegmentFinding[] = []
  const ends = await readEnds(store, key, sizeBytes, findings, signal)
  const gatherer = new FooterGatherer()
  const payloads = new PayloadReader()
  let whole = true
  for await (const found of walkRecords(store, { key, endBytes: ends.recordsEndBytes }, signal)) {
    if (found.kind === 'damage') {
      findings.push(damagedRecords(key, found, ends.footer?.contents))
      whole = false
      continue
    }
    const { record, offsetBytes } = found
    gatherer.add(record.header, record.message, { offsetBytes, sizeBytes: record.sizeBytes })
    if (record.message.type === 'write-batch' && payloads.read(record.message) === undefined) {
      const what = 'a block of the payload does not decompress'
      const damage = { what, offsetBytes, endBytes: offsetBytes + record.sizeBytes }
      findings.push({ ...damagedRecords(key, damage, ends.footer?.contents), records: [rangeOf(record)] })
    }
  }
  if (whole && ends.footer !== undefined) checkFooterAgainst(key, gatherer, ends.footer, findings)
  const ranges = ends.footer?.contents.ranges ?? gatherer.ranges
  return findings.map(finding => (finding.records.length === 0 ? { ...finding, records: ranges } : finding))
}

/** The segment as text for people: header, a line a record, footer; damage where it is. */
export async function* dumpSegment(
  store: ObjectStore,
  key: string,
  sizeBytes: number,
  signal: AbortSignal,
): AsyncGenerator<string> {
  const findings: SegmentFinding[] = []
  const { header, footer, recordsEndBytes } = await readEnds(store, key, sizeBytes, findings, signal)
  yield `${key}: ${sizeBytes} bytes`
  for (const finding of findings) yield `${finding.offsetBytes}: DAMAGED: ${finding.what}`
  if (header !== undefined) {
    const nonce = Buffer.from(header.nonce).toString('hex')
    const { vpg, epoch, commitNumber } = header
    yield `0: header: VPG ${vpg}, epoch ${epoch}, commit ${commitNumber}, nonce ${nonce}`
  }
  for await (const found of walkRecords(store, { key, endBytes: recordsEndBytes }, signal)) {
    if (found.kind === 'damage') yield `${found.offsetBytes}: DAMAGED up to ${found.endBytes}: ${found.what}`
    else yield `${found.offsetBytes}: ${describeRecord(found.record)}`
  }
  if (footer === undefined) return
  const { contents, trailer } = footer
  yield (
    `${trailer.footerOffsetBytes}: footer: ${trailer.footerSizeBytes} bytes, ${contents.batches.count} batches, ` +
    `${trailer.writeCount} writes of ${trailer.rawSizeBytes} bytes, ${contents.markers.length} markers`
  )
  for (const { stream, generation, firstSequence, lastSequence } of contents.ranges)
    yield `  stream ${stream}, generation ${generation}: ${firstSequence} to ${lastSequence}`
}

/** What is read at once; a record is at most a little over 1 MiB. */
const windowSizeBytes = 4 * MiB

interface Ends {
  readonly header: SegmentHeader | undefined
  readonly footer: { contents: FooterContents; trailer: SegmentTrailer; bytes: Uint8Array } | undefined
  readonly recordsEndBytes: number
}

type Walked =
  | { readonly kind: 'record'; readonly offsetBytes: number; readonly record: CheckedRecord }
  | { readonly kind: 'damage'; readonly offsetBytes: number; readonly endBytes: number; readonly what: string }

/** Header and footer, as far as they are whole; what is not becomes a finding. */
async function readEnds(
  store: ObjectStore,
  key: string,
  sizeBytes: number,
  findings: SegmentFinding[],
  signal: AbortSignal,
): Promise<Ends> {
  const header = await orFinding(readSegmentHeader(store, key, sizeBytes, signal), key, findings)
  const footer = await orFinding(readFooter(store, key, sizeBytes, signal), key, findings)
  if (header !== undefined && footer !== undefined) {
    const same = Buffer.from(header.nonce).equals(footer.contents.nonce) && header.epoch === footer.contents.epoch
    const what = 'the footer is not the one of the header: another nonce or epoch'
    if (!same)
      findings.push({ object: key, offsetBytes: footer.trailer.footerOffsetBytes, what, records: [], places: [] })
  }
  return { header, footer, recordsEndBytes: footer?.trailer.footerOffsetBytes ?? sizeBytes }
}

async function orFinding<T>(reading: Promise<T>, object: string, findings: SegmentFinding[]): Promise<T | undefined> {
  try {
    return await reading
  } catch (error) {
    if (!isDamage(error)) throw error
    findings.push({ object, offsetBytes: offsetIn(error), what: error.message, records: [], places: [] })
    return undefined
  }
}

/**
 * The records one behind the other. Behind a damaged one it looks for the next header that names its own place. Without a footer
 * the records end where no further header is found.
 */
async function* walkRecords(
  store: ObjectStore,
  object: { readonly key: string; readonly endBytes: number },
  signal: AbortSignal,
): AsyncGenerator<Walked> {
  const { key, endBytes } = object
  const vpg = parseCommitKey(key)?.vpg
  if (vpg === undefined) throw corrupt(key, 0, 'the key is not one of a commit sequence')
  const window = new Window(store, key, endBytes, signal)
  let at = Math.min(segmentHeaderSizeBytes, endBytes)
  while (at < endBytes) {
    const place = { object: key, vpg, offsetBytes: at }
    try {
      const record = await readRecord(window, place, endBytes)
      yield { kind: 'record', offsetBytes: at, record }
      at += record.sizeBytes
    } catch (error) {
      if (!isDamage(error)) throw error
      const next = await nextRecord(window, { ...place, offsetBytes: at + 8 }, endBytes)
      yield { kind: 'damage', offsetBytes: at, endBytes: next, what: error.message }
      at = next
    }
  }
}

async function readRecord(window: Window, place: RecordPlace, endBytes: number): Promise<CheckedRecord> {
  const { object, offsetBytes } = place
  const head = await window.read(offsetBytes, Math.min(logRecordHeaderSizeBytes, endBytes - offsetBytes))
  const header = checkRecordHeader(place, head)
  const sizeBytes = recordSizeBytes(header.frameSizeBytes)
  if (offsetBytes + sizeBytes > endBytes)
    throw corrupt(object, offsetBytes, 'the record runs past the end of the records')
  return checkRecord(place, await window.read(offsetBytes, sizeBytes))
}

/** Where the next whole header stands that belongs there; the end where there is none. */
async function nextRecord(window: Window, from: RecordPlace, endBytes: number): Promise<number> {
  for (let at = from.offsetBytes; at + logRecordHeaderSizeBytes <= endBytes; at += 8) {
    const header = decodeRecordHeader(await window.read(at, logRecordHeaderSizeBytes))
    if (typeof header === 'object' && header.offsetBytes === at && header.vpg === from.vpg) return at
  }
  return endBytes
}

/** Pieces of an object, read in large ranges. */
class Window {
  readonly #store: ObjectStore
  readonly #key: string
  readonly #endBytes: number
  readonly #signal: AbortSignal
  #startBytes = 0
  #bytes: Uint8Array = new Uint8Array(0)

  constructor(store: ObjectStore, key: string, endBytes: number, signal: AbortSignal) {
    this.#store = store
    this.#key = key
    this.#endBytes = endBytes
    this.#signal = signal
  }

  async read(offsetBytes: number, sizeBytes: number): Promise<Uint8Array> {
    const held = offsetBytes >= this.#startBytes && offsetBytes + sizeBytes <= this.#startBytes + this.#bytes.length
    if (!held) {
      const endBytes = Math.min(this.#endBytes, offsetBytes + Math.max(sizeBytes, windowSizeBytes))
      this.#bytes = await this.#store.readRange(this.#key, { startBytes: offsetBytes, endBytes }, this.#signal)
      this.#startBytes = offsetBytes
    }
    const start = offsetBytes - this.#startBytes
    return this.#bytes.subarray(start, start + sizeBytes)
  }
}

/** The footer that the records make must be the one that is there, byte for byte. */
function checkFooterAgainst(
  object: string,
  gatherer: FooterGatherer,
  footer: { contents: FooterContents; trailer: SegmentTrailer; bytes: Uint8Array },
  findings: SegmentFinding[],
): void {
  const expected = new Uint8Array(gatherer.sizeBytes())
  encodeFooter(expected, gatherer.contents(footer.contents))
  const found = footer.bytes.subarray(0, footer.bytes.length - segmentTrailerSizeBytes)
  if (expected.length === found.length && crc32c(expected) === crc32c(found)) return
  const what = 'the footer says something else than the records'
  findings.push({ object, offsetBytes: footer.trailer.footerOffsetBytes, what, records: [], places: [] })
}

function damagedRecords(
  object: string,
  damage: { readonly offsetBytes: number; readonly endBytes: number; readonly what: string },
  contents: FooterContents | undefined,
): SegmentFinding {
  const { offsetBytes, endBytes, what } = damage
  const records: StreamRange[] = []
  const places: { volume: number; offsetBytes: number; sizeBytes: number }[] = []
  if (contents === undefined) return { object, offsetBytes, what, records, places }
  const { batches, writes } = contents
  const inside = (at: number): boolean => at >= offsetBytes && at < endBytes
  for (let batch = 0; batch < batches.count; batch++) {
    if (!inside(batches.offsetBytes[batch] ?? 0)) continue
    const [firstSequence = 0, writeCount = 0] = [batches.firstSequence[batch], batches.writeCount[batch]]
    const [stream = 0, generation = 0] = [batches.stream[batch], batches.generation[batch]]
    records.push({ stream, generation, firstSequence, lastSequence: firstSequence + writeCount - 1 })
    const firstWrite = batches.firstWrite[batch] ?? 0
    for (let write = firstWrite; write < firstWrite + writeCount; write++)
      places.push({
        volume: writes.volume[write]!,
        offsetBytes: offsetSectorsOf(writes, write) * sectorSizeBytes,
        sizeBytes: lengthSectorsOf(writes, write) * sectorSizeBytes,
      })
  }
  for (const { marker, offsetBytes: at } of contents.markers) {
    const { stream, generation, sequence } = marker
    if (inside(at)) records.push({ stream, generation, firstSequence: sequence, lastSequence: sequence })
  }
  return { object, offsetBytes, what, records, places }
}

function rangeOf({ header }: CheckedRecord): StreamRange {
  const { stream, generation, firstSequence, lastSequence } = header
  return { stream, generation, firstSequence, lastSequence }
}

function describeRecord({ header, message, sizeBytes }: CheckedRecord): string {
  const { stream, generation, firstSequence, lastSequence } = header
  const where = `stream ${stream}, generation ${generation}, ${firstSequence} to ${lastSequence}, ${sizeBytes} bytes`
  return message.type === 'marker'
    ? `marker ${message.term}.${message.counter}: ${where}`
    : `batch: ${where}, ${message.writeCount} writes of ${message.rawSizeBytes} bytes`
}

function isDamage(error: unknown): error is Failure {
  return error instanceof Failure && (error.code === 'OBJECT_CORRUPT' || error.code === 'VERSION_UNSUPPORTED')
}

function offsetIn(failure: Failure): number {
  const { offsetBytes } = failure.details
  return typeof offsetBytes === 'number' ? offsetBytes : 0
}
