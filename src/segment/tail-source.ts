import { assert } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'
import { decodeFrame, type BatchView } from '../wire/wire.ts'
import type { RecordSource } from './record-source.ts'
import { ColumnGatherer, type Columns } from './segment-columns.ts'
import { PayloadReader } from './segment-record.ts'

/** A record that is still in the commit log: batch or marker. */
export interface TailRecord {
  readonly file: string
  readonly offsetBytes: number
  readonly sizeBytes: number
  readonly stream: number
  readonly generation: number
  readonly firstSequence: number
  readonly lastSequence: number
}

/**
 * The batches among records of one VPG in the commit log; markers are passed over. `readFrame` gives a record's frame, in memory
 * that may be used again by its next call, and fails RECORD_CORRUPT when the file has another record at that place.
 */
export function tailSource<R extends TailRecord>(
  name: string,
  records: readonly R[],
  readFrame: (record: R, signal: AbortSignal) => Promise<Uint8Array>,
): RecordSource {
  return new TailSource(name, records, readFrame)
}

class TailSource<R extends TailRecord> implements RecordSource {
  readonly name: string
  readonly #records: readonly R[]
  readonly #readFrame: (record: R, signal: AbortSignal) => Promise<Uint8Array>
  readonly #payloads = new PayloadReader()
  #gathered: { readonly columns: Columns; readonly recordOfBatch: readonly R[] } | undefined

  constructor(name: string, records: readonly R[], readFrame: (record: R, signal: AbortSignal) => Promise<Uint8Array>) {
    this.name = name
    this.#records = records
    this.#readFrame = readFrame
  }

  async columns(signal: AbortSignal): Promise<Columns> {
    return (await this.#gather(signal)).columns
  }

  async readBatch(batch: number, signal: AbortSignal): Promise<Uint8Array> {
    const record = (await this.#gather(signal)).recordOfBatch[batch]
    assert(record !== undefined, `the tail has no batch ${batch}`)
    const message = await this.#read(record, signal)
    const payload = message === undefined ? undefined : this.#payloads.read(message)
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
      await sink(batch, await this.readBatch(batch, signal))
    }
  }

  /** The log has no footers, so every frame is read once, one after the other. */
  async #gather(signal: AbortSignal): Promise<{ readonly columns: Columns; readonly recordOfBatch: readonly R[] }> {
    if (this.#gathered !== undefined) return this.#gathered
    const gatherer = new ColumnGatherer()
    const recordOfBatch: R[] = []
    for (const record of this.#records) {
      signal.throwIfAborted()
      const batch = await this.#read(record, signal)
      if (batch === undefined) continue
      gatherer.add(batch, record)
      recordOfBatch.push(record)
    }
    this.#gathered = { columns: gatherer.columns(), recordOfBatch }
    return this.#gathered
  }

  /** The batch in the record, or undefined for a marker. */
  async #read(record: R, signal: AbortSignal): Promise<BatchView | undefined> {
    const message = decode(record, await this.#readFrame(record, signal))
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
    return message
  }
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
  const { file, offsetBytes, stream, generation, firstSequence } = record
  const sentence = `${file}, byte ${offsetBytes}: ${what}`
  return new Failure('RECORD_CORRUPT', sentence, { file, offsetBytes, stream, generation, firstSequence }, { cause })
}
