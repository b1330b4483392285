import type { ByteRange } from '../store/object-store.ts'

// Consecutive records of one VPG that can be read: a segment in the object store, or the tail that is still in the log.

/** A row per write, in record order; all arrays have `count` entries. */
export interface WriteColumns {
  readonly count: number
  readonly volume: Uint16Array
  /** In sectors of 512 bytes; exact up to 2^53. */
  readonly offsetSectors: Float64Array
  readonly lengthSectors: Uint16Array
  /** 1 where the range becomes zeros and has no payload. */
  readonly zero: Uint8Array
  /** Which batch of the source it is in. */
  readonly batch: Uint32Array
  /** Where its data starts in the batch's raw (uncompressed) payload; 0 for zeros. */
  readonly rawOffsetBytes: Uint32Array
  /** Its sequence number is batchFirstSequence[batch] + (its index - batchFirstWrite[batch]). */
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
