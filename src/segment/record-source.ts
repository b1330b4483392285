import type { ByteRange } from '../store/object-store.ts'

// Consecutive records of one VPG that can be read: a segment in the object store, or the tail that is still in the log.

/**
 * A row per write, in record order, 9 bytes each, as the footer of a segment has them; all arrays have `count` entries. What batch a write is in, and where its data begins in
 * the batch's raw payload, is told by the writes before it.
 */
export interface WriteColumns {
  readonly count: number
  readonly volume: Uint16Array
  /** The offset in sectors of 512 bytes: its low 32 bits, */
  readonly offsetLow: Uint32Array
  /** ...and its high 8. */
  readonly offsetHigh: Uint8Array
  /** In sectors, less 1, in 15 bits; and zeroFlag where the range becomes zeros and has no payload. Its sequence number is that of its batch's first write and on. */
  readonly lengthAndFlag: Uint16Array
}

export const zeroFlag = 0x8000
const highSectors = 2 ** 32

/** Exact up to 2^40. */
export function offsetSectorsOf({ offsetLow, offsetHigh }: WriteColumns, write: number): number {
  return offsetLow[write]! + offsetHigh[write]! * highSectors
}

export function lengthSectorsOf({ lengthAndFlag }: WriteColumns, write: number): number {
  const length = lengthAndFlag[write]!
  return (length >= zeroFlag ? length - zeroFlag : length) + 1
}

/** True where the range becomes zeros. */
export function isZeroWrite({ lengthAndFlag }: WriteColumns, write: number): boolean {
  return lengthAndFlag[write]! >= zeroFlag
}

/** Of the write's data in the raw payload; 0 for zeros. */
export function dataSectorsOf({ lengthAndFlag }: WriteColumns, write: number): number {
  const length = lengthAndFlag[write]!
  return length >= zeroFlag ? 0 : length + 1
}

/** Columns with room for so many. */
export function newWriteColumns(count: number): WriteColumns {
  return {
    count,
    volume: new Uint16Array(count),
    offsetLow: new Uint32Array(count),
    offsetHigh: new Uint8Array(count),
    lengthAndFlag: new Uint16Array(count),
  }
}

/** One write, as a row of the columns has it. */
export interface WriteRow {
  readonly volume: number
  readonly offsetSectors: number
  readonly lengthSectors: number
  readonly isZero: boolean
}

/** The row must fit: offsets below 2^40 sectors, lengths from 1 to 2^15. */
export function setWrite(columns: WriteColumns, write: number, row: WriteRow): void {
  const { volume, offsetSectors, lengthSectors, isZero } = row
  columns.volume[write] = volume
  columns.offsetLow[write] = offsetSectors % highSectors
  columns.offsetHigh[write] = Math.floor(offsetSectors / highSectors)
  columns.lengthAndFlag[write] = lengthSectors - 1 + (isZero ? zeroFlag : 0)
}

/** A row per batch; all arrays have `count` entries. */
export interface BatchColumns {
  readonly count: number
  readonly stream: Uint32Array
  readonly generation: Float64Array
  readonly firstSequence: Float64Array
  /** The index of its first write in the WriteColumns. */
  readonly firstWrite: Uint32Array
  readonly writeCount: Uint32Array
  /** Size of the raw payload of the whole batch. */
  readonly rawSizeBytes: Uint32Array
  /** Where its record stands in the source, and how long it is with its header and padding. */
  readonly offsetBytes: Float64Array
  readonly sizeBytes: Uint32Array
}

/** A part of a batch's raw payload. */
export interface RawPart {
  /** Where it begins in the raw payload. */
  readonly rawOffsetBytes: number
  readonly raw: Uint8Array
}

export interface RecordSource {
  /** For messages: the object's key or the log file's name. */
  readonly name: string
  /** Fails OBJECT_CORRUPT or RECORD_CORRUPT, naming file and offset, when what it reads fails its checks. */
  columns(signal: AbortSignal): Promise<{ readonly writes: WriteColumns; readonly batches: BatchColumns }>
  /**
   * The raw payload of one batch: checked (record header, frame checksum), decompressed. The memory may be reused by the next
   * call on this source. Fails as columns() does, and when a block does not decompress.
   */
  readBatch(batch: number, signal: AbortSignal): Promise<Uint8Array>
  /**
   * The range of the batch's raw payload and what of the blocks that hold it lies around it. The first time the whole batch is read, and checked as by
   * readBatch(); later no more than the blocks, and they are held against sums that were taken then. The memory is the caller's, and calls may run side by side; what
   * is read may stand in `spare` meanwhile, where that is large enough. Fails as readBatch() does, of blocks outside the range never because one does not
   * decompress.
   */
  readPart(batch: number, range: ByteRange, signal: AbortSignal, spare?: Uint8Array): Promise<RawPart>
  /**
   * The raw payloads of all batches that are `wanted`, in the order of their batches, each checked as by readBatch(). Reads
   * large pieces ahead, in bounded memory; the payload is the sink's until the promise that it returns is settled.
   */
  scanBatches(
    wanted: (batch: number) => boolean,
    sink: (batch: number, payload: Uint8Array) => void | Promise<void>,
    signal: AbortSignal,
  ): Promise<void>
}
