import { assert } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'
import type { ByteRange } from '../store/object-store.ts'
import { decodeFrame, type BatchView } from '../wire/wire.ts'
import { CheckedBlocks } from './checked-blocks.ts'
import type { RawPart, RecordSource } from './record-source.ts'
import { ColumnGatherer, fitsColumns, type Columns } from './segment-columns.ts'
import { PayloadReader } from './segment-record.ts'

/** A record that is still in the commit log: batch or marker. */
export interface TailRecord {
  readonly fileIdentity: number
  readonly offsetBytes: number
  readonly sizeBytes: number
  readonly stream: number
  readonly generation: number
  readonly firstSequence: number
  readonly lastSequence: number
}

/** Reads the log's files; what it gives is in memory that its next call may use again. LogReader is one. */
export interface TailReader<R extends TailRecord> {
  /** The record's frame. Fails RECORD_CORRUPT when the file has another record at that place. */
  readRecord(record: R): Uint8Array
  /** That part of the record's frame, as it stands there: nothing is checked. Fails where the file is gone. */
  readUncheckedPart(record: R, range: ByteRange): Uint8Array
}

/** The batches among records of one VPG in the commit log; markers are passed over. */
export function tailSource<R extends TailRecord>(
  name: string,
  records: readonly R[],
  reader: TailReader<NoInfer<R>>,
): RecordSource {
  return new TailSource(name, records, reader)
}

class TailSource<R extends TailRecord> implements RecordSource {
  readonly name: string
  readonly #records: readonly R[]
  readonly #reader: TailReader<R>
  readonly #payloads = new PayloadReader()
  readonly #checked = new CheckedBlocks()
  #gathered: { readonly columns: Columns; readonly recordOfBatch: readonly R[] } | undefined

  constructor(name: string, records: readonly R[], reader: TailReader<R>) {
    this.name = name
    this.#records = records
    this.#reader = reader
  }

  async columns(signal: AbortSignal): Promise<Columns> {
    return (await this.#gather(signal)).columns
  }

  async readBatch(batch: number, signal: AbortSignal): Promise<Uint8Array> {
    return this.#readWhole(await this.#recordOf(batch, signal))
  }

  async readPart(batch: number, range: ByteRange, signal: AbortSignal): Promise<RawPart> {
    const record = await this.#recordOf(batch, signal)
    signal.throwIfAborted()
    const run = this.#checked.find(batch, range)
    if (run !== undefined) {
      const raw = this.#checked.restore(run, this.#reader.readUncheckedPart(record, run.stored))
      if (raw !== undefined) return { rawOffsetBytes: run.raw.startBytes, raw }
    }
    // The first time; or the file has changed since, and the whole record says how.
    const { frame, view } = this.#readChecked(record)
    const part = this.#checked.firstPart(batch, range, view, frame)
    return part ?? { rawOffsetBytes: 0, raw: new Uint8Array(this.#payload(record, view)) }
  }

  async #recordOf(batch: number, signal: AbortSignal): Promise<R> {
    const record = (await this.#gather(signal)).recordOfBatch[batch]
    assert(record !== undefined, `the tail has no batch ${batch}`)
    return record
  }

  #readWhole(record: R): Uint8Array {
    return this.#payload(record, this.#readChecked(record).view)
  }

  #readChecked(record: R): { readonly frame: Uint8Array; readonly view: BatchView } {
    const frame = this.#reader.readRecord(record)
    const view = viewOf(record, frame)
    if (view === undefined) throw corruptTail(record, 'the frame is a marker, not a batch')
    return { frame, view }
  }

  #payload(record: R, view: BatchView): Uint8Array {
    const payload = this.#payloads.read(view)
    if (payload === undefined) throw corruptTail(record, 'a block of the payload does not decompress')
    return payload
  }

  async scanBatches(
    wanted: (batch: number) => boolean,
    sink: (batch: number, payload: Uint8Array) => void | Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    const { recordOfBatch } = await this.#gather(signal)
    for (let batch = 0; batch < recordOfBatch.length; batch++) {
      if (!wanted(batch)) continue
      signal.throwIfAborted()
      await sink(batch, this.#readWhole(await this.#recordOf(batch, signal)))
    }
  }

  /** The log has no footers, so every frame is read once, one after the other. */
  async #gather(signal: AbortSignal): Promise<{ readonly columns: Columns; readonly recordOfBatch: readonly R[] }> {
    if (this.#gathered !== undefined) return this.#gathered
    const gatherer = new ColumnGatherer(writeCountOf(this.#records))
    const recordOfBatch: R[] = []
    for (const record of this.#records) {
      signal.throwIfAborted()
      const batch = viewOf(record, this.#reader.readRecord(record))
      if (batch === undefined) continue
      gatherer.add(batch, record)
      recordOfBatch.push(record)
    }
    this.#gathered = { columns: gatherer.columns(), recordOfBatch }
    return this.#gathered
  }
}

/** A marker has one sequence number, too, and is counted as a write. */
function writeCountOf(records: readonly TailRecord[]): number {
  return records.reduce((sum, { firstSequence, lastSequence }) => sum + lastSequence - firstSequence + 1, 0)
}

/** The batch in the record, or undefined for a marker. */
function viewOf(record: TailRecord, frame: Uint8Array): BatchView | undefined {
  const message = decode(record, frame)
  if (
    message.type === 'marker' &&
    message.generation === record.generation &&
    message.sequence === record.firstSequence
  )
    return undefined
  const expected =
    message.type === 'write-batch' &&
    message.generation === record.generation &&
    message.firstSequence === record.firstSequence &&
    message.firstSequence + message.writeCount - 1 === record.lastSequence
  if (!expected) throw corruptTail(record, 'the frame is not the one of this record')
  if (!fitsColumns(message)) throw corruptTail(record, 'a write lies past the largest volume that there can be')
  return message
}

function decode(record: TailRecord, frame: Uint8Array): ReturnType<typeof decodeFrame> {
  try {
    return decodeFrame(frame)
  } catch (error) {
    if (error instanceof Failure) throw corruptTail(record, error.message, error)
    throw error
  }
}

function corruptTail(record: TailRecord, what: string, cause?: unknown): Failure {
  const { fileIdentity, offsetBytes, stream, generation, firstSequence } = record
  const sentence = `log file ${fileIdentity}, byte ${offsetBytes}: ${what}`
  return new Failure(
    'RECORD_CORRUPT',
    sentence,
    { fileIdentity, offsetBytes, stream, generation, firstSequence },
    { cause },
  )
}
