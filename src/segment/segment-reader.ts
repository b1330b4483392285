import type { ByteRange, ObjectStore } from '../store/object-store.ts'
import { assert } from '../base/assert.ts'
import { KiB, MiB } from '../base/units.ts'
import { crc32c } from '../codec/crc32c.ts'
import type { BatchView } from '../wire/wire.ts'
import type { DurableMarker } from '../timeline/assembler.ts'
import type { SegmentSpan } from '../timeline/state.ts'
import { CheckedBlocks } from './checked-blocks.ts'
import type { BatchColumns, RawPart, RecordSource } from './record-source.ts'
import { spanOf } from './segment-builder.ts'
import type { Columns } from './segment-columns.ts'
import { decodeFooter, type FooterContents } from './segment-footer.ts'
import {
  corrupt,
  decodeSegmentHeader,
  decodeSegmentTrailer,
  parseCommitKey,
  segmentHeaderSizeBytes,
  segmentTrailerSizeBytes,
  type SegmentHeader,
  type SegmentTrailer,
} from './segment-format.ts'
import { checkRecord, PayloadReader } from './segment-record.ts'

/** A segment in the store. Its footer is read at the first need and kept. */
export interface Segment extends RecordSource {
  readonly span: SegmentSpan
  markers(signal: AbortSignal): Promise<readonly DurableMarker[]>
}

/** Reads nothing yet. */
export function openSegment(store: ObjectStore, span: SegmentSpan): Segment {
  return new StoredSegment(store, span)
}

/** The segment's header, for its nonce. Fails NOT_FOUND; OBJECT_CORRUPT also when it does not belong under this key. */
export async function readSegmentHeader(
  store: ObjectStore,
  key: string,
  sizeBytes: number,
  signal: AbortSignal,
): Promise<SegmentHeader> {
  const endBytes = Math.min(sizeBytes, segmentHeaderSizeBytes)
  const header = decodeSegmentHeader(key, await store.readRange(key, { startBytes: 0, endBytes }, signal))
  checkIdentity(key, header, 0)
  return header
}

/** All that a start needs of a segment that no manifest speaks of yet: two or three range reads, every check but the records' own. */
export async function readSegmentFooter(
  store: ObjectStore,
  key: string,
  sizeBytes: number,
  signal: AbortSignal,
): Promise<{ readonly span: SegmentSpan; readonly markers: readonly DurableMarker[]; readonly header: SegmentHeader }> {
  const header = await readSegmentHeader(store, key, sizeBytes, signal)
  const { contents, trailer } = await readFooter(store, key, sizeBytes, signal)
  if (!Buffer.from(header.nonce).equals(contents.nonce) || header.epoch !== contents.epoch)
    throw corrupt(key, trailer.footerOffsetBytes, 'the footer is not the one of the header: another nonce or epoch')
  const footer = { offsetBytes: trailer.footerOffsetBytes, endBytes: sizeBytes, rawSizeBytes: trailer.rawSizeBytes }
  const span = { ...spanOf(contents, footer), object: { key, sizeBytes } }
  return { span, markers: contents.markers.map(entry => entry.marker), header }
}

/** Reads the last bytes first, as no one has said where the footer starts. */
export async function readFooter(
  store: ObjectStore,
  key: string,
  sizeBytes: number,
  signal: AbortSignal,
): Promise<{ readonly contents: FooterContents; readonly trailer: SegmentTrailer; readonly bytes: Uint8Array }> {
  const startBytes = Math.max(0, sizeBytes - footerGuessBytes)
  let tail = await store.readRange(key, { startBytes, endBytes: sizeBytes }, signal)
  const trailer = decodeSegmentTrailer(key, tail, sizeBytes)
  const { footerOffsetBytes } = trailer
  if (footerOffsetBytes < startBytes)
    tail = await store.readRange(key, { startBytes: footerOffsetBytes, endBytes: sizeBytes }, signal)
  else tail = tail.subarray(footerOffsetBytes - startBytes)
  return { ...checkFooter(key, tail, sizeBytes), bytes: tail }
}

/** Most footers are smaller: one range read brings trailer and footer. */
const footerGuessBytes = 256 * KiB
/** What scanBatches() reads at once; one such piece is read ahead. */
const scanSizeBytesMax = 4 * MiB
/** Unwanted bytes between two wanted batches that cost less than another request. */
const scanGapBytesMax = 256 * KiB

/** Footer and trailer, as they stand at the end of the object. */
function checkFooter(
  object: string,
  source: Uint8Array,
  objectSizeBytes: number,
): { readonly contents: FooterContents; readonly trailer: SegmentTrailer } {
  const trailer = decodeSegmentTrailer(object, source, objectSizeBytes)
  const { footerOffsetBytes } = trailer
  const footer = source.subarray(0, source.length - segmentTrailerSizeBytes)
  if (footer.length !== trailer.footerSizeBytes)
    throw corrupt(object, footerOffsetBytes, 'the footer is not where the manifest says')
  if (crc32c(footer) !== trailer.footerCrc32c)
    throw corrupt(object, footerOffsetBytes, 'the footer has a wrong checksum')
  const contents = decodeFooter(object, footer, footerOffsetBytes)
  checkIdentity(object, contents, footerOffsetBytes)
  const rawSizeBytes = contents.batches.rawSizeBytes.reduce((sum, each) => sum + each, 0)
  if (contents.writes.count !== trailer.writeCount || rawSizeBytes !== trailer.rawSizeBytes)
    throw corrupt(object, footerOffsetBytes, 'footer and trailer count differently')
  return { contents, trailer }
}

function checkIdentity(object: string, said: Pick<SegmentHeader, 'vpg' | 'commitNumber'>, offsetBytes: number): void {
  const key = parseCommitKey(object)
  assert(key !== undefined, `a segment lies under a key of a commit sequence: ${object}`)
  if (said.vpg !== key.vpg) throw corrupt(object, offsetBytes, `the object is a segment of another VPG, ${said.vpg}`)
  if (said.commitNumber !== key.commitNumber)
    throw corrupt(object, offsetBytes, `the object is commit ${said.commitNumber}, not that of its key`)
}

class StoredSegment implements Segment {
  readonly name: string
  readonly span: SegmentSpan
  readonly #store: ObjectStore
  readonly #payloads = new PayloadReader()
  readonly #checked = new CheckedBlocks()
  #contents: FooterContents | undefined

  constructor(store: ObjectStore, span: SegmentSpan) {
    this.#store = store
    this.span = span
    this.name = span.object.key
  }

  async columns(signal: AbortSignal): Promise<Columns> {
    const { writes, batches } = await this.#footer(signal)
    return { writes, batches }
  }

  async markers(signal: AbortSignal): Promise<readonly DurableMarker[]> {
    return (await this.#footer(signal)).markers.map(entry => entry.marker)
  }

  async readBatch(batch: number, signal: AbortSignal): Promise<Uint8Array> {
    const contents = await this.#footer(signal)
    const place = placeOf(contents.batches, batch)
    return this.#payload(contents, batch, this.#view(contents, batch, await this.#read(place, signal)))
  }

  async readPart(batch: number, range: ByteRange, signal: AbortSignal, spare?: Uint8Array): Promise<RawPart> {
    const contents = await this.#footer(signal)
    const place = placeOf(contents.batches, batch)
    const run = this.#checked.find(batch, range)
    if (run !== undefined) {
      const startBytes = place.startBytes + run.stored.startBytes
      const stored = { startBytes, endBytes: place.startBytes + run.stored.endBytes }
      const raw = this.#checked.restore(run, await this.#read(stored, signal, spare))
      if (raw !== undefined) return { rawOffsetBytes: run.raw.startBytes, raw }
    }
    // The first time; or the object has changed since, and its record says how.
    const record = await this.#read(place, signal, spare)
    const view = this.#view(contents, batch, record)
    const part = this.#checked.firstPart(batch, range, view, record)
    return part ?? { rawOffsetBytes: 0, raw: new Uint8Array(this.#payload(contents, batch, view)) }
  }

  async scanBatches(
    wanted: (batch: number) => boolean,
    sink: (batch: number, payload: Uint8Array) => void | Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    const contents = await this.#footer(signal)
    const pieces = scanPieces(contents.batches, wanted)
    const spares = [new Uint8Array(0), new Uint8Array(0)]
    let piece = pieces.next()
    let reading = piece.done === true ? undefined : this.#readAhead(piece.value, spares, signal)
    while (piece.done !== true && reading !== undefined) {
      const bytes = await reading
      const { startBytes, batches } = piece.value
      piece = pieces.next()
      reading = piece.done === true ? undefined : this.#readAhead(piece.value, spares, signal)
      for (const batch of batches) {
        signal.throwIfAborted()
        const place = placeOf(contents.batches, batch)
        const record = bytes.subarray(place.startBytes - startBytes, place.endBytes - startBytes)
        await sink(batch, this.#payload(contents, batch, this.#view(contents, batch, record)))
      }
    }
  }

  #read(range: ByteRange, signal: AbortSignal, spare?: Uint8Array): Promise<Uint8Array> {
    return this.#store.readRange(this.name, range, signal, spare)
  }

  /** A read that may fail while nobody waits for it yet; whoever waits then is told. The spares take turns. */
  #readAhead(range: ByteRange, spares: Uint8Array[], signal: AbortSignal): Promise<Uint8Array> {
    const sizeBytes = range.endBytes - range.startBytes
    let spare = spares.shift()
    if (spare === undefined || spare.length < sizeBytes) spare = new Uint8Array(sizeBytes)
    spares.push(spare)
    const reading = this.#store.readRange(this.name, range, signal, spare)
    reading.catch(() => undefined)
    return reading
  }

  async #footer(signal: AbortSignal): Promise<FooterContents> {
    if (this.#contents !== undefined) return this.#contents
    const { footerOffsetBytes, footerSizeBytes, object, writeCount } = this.span
    const range = { startBytes: footerOffsetBytes, endBytes: footerOffsetBytes + footerSizeBytes }
    const { contents } = checkFooter(this.name, await this.#read(range, signal), object.sizeBytes)
    if (contents.writes.count !== writeCount)
      throw corrupt(this.name, footerOffsetBytes, 'footer and manifest count its writes differently')
    this.#contents = contents
    return contents
  }

  /** The record in `bytes`, which must be this batch. */
  #view(contents: FooterContents, batch: number, bytes: Uint8Array): BatchView {
    const offsetBytes = contents.batches.offsetBytes[batch] ?? 0
    const { header, message } = checkRecord({ object: this.name, vpg: contents.vpg, offsetBytes }, bytes)
    if (!isBatch(contents, batch, header) || message.type !== 'write-batch')
      throw corrupt(this.name, offsetBytes, 'the record is not the one that the footer has there')
    return message
  }

  #payload(contents: FooterContents, batch: number, view: BatchView): Uint8Array {
    const payload = this.#payloads.read(view)
    if (payload !== undefined) return payload
    throw corrupt(this.name, contents.batches.offsetBytes[batch] ?? 0, 'a block of the payload does not decompress')
  }
}

function isBatch(
  contents: FooterContents,
  batch: number,
  header: { stream: number; generation: number; firstSequence: number; lastSequence: number; frameCrc32c: number },
): boolean {
  const { batches } = contents
  return (
    header.stream === batches.stream[batch] &&
    header.generation === batches.generation[batch] &&
    header.firstSequence === batches.firstSequence[batch] &&
    header.lastSequence - header.firstSequence + 1 === batches.writeCount[batch] &&
    header.frameCrc32c === contents.batchFrameCrc32c[batch]
  )
}

function placeOf(batches: BatchColumns, batch: number): ByteRange {
  const [startBytes, sizeBytes] = [batches.offsetBytes[batch], batches.sizeBytes[batch]]
  assert(startBytes !== undefined && sizeBytes !== undefined, `the segment has no batch ${batch}`)
  return { startBytes, endBytes: startBytes + sizeBytes }
}

interface ScanPiece extends ByteRange {
  readonly batches: readonly number[]
}

/** The ranges to read for the wanted batches, in order; small gaps are read over. */
function* scanPieces(batches: BatchColumns, wanted: (batch: number) => boolean): Generator<ScanPiece, undefined> {
  let piece: (ByteRange & { batches: number[] }) | undefined
  for (let batch = 0; batch < batches.count; batch++) {
    if (!wanted(batch)) continue
    const { startBytes, endBytes } = placeOf(batches, batch)
    const joins =
      piece !== undefined &&
      startBytes - piece.endBytes <= scanGapBytesMax &&
      endBytes - piece.startBytes <= scanSizeBytesMax
    if (piece !== undefined && joins) {
      piece = { startBytes: piece.startBytes, endBytes, batches: piece.batches }
      piece.batches.push(batch)
    } else {
      if (piece !== undefined) yield piece
      piece = { startBytes, endBytes, batches: [batch] }
    }
  }
  if (piece !== undefined) yield piece
  return undefined
}
