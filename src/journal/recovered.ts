import type { VpgId } from '../base/ids.ts'
import type { LogMark, RecordPlace } from './log-file.ts'
import { type RecordHeader, recordSizeBytes } from './record.ts'

/** A record as the index knows it: whose it is, which sequence numbers, and where. */
export interface LogRecordPlace extends RecordPlace {
  readonly kind: 'batch' | 'marker'
  readonly vpg: VpgId
  readonly stream: number
  readonly epoch: number
  readonly generation: number
  readonly firstSequence: number
  readonly lastSequence: number
  readonly timestampMicros: number
}

/** The last record of a stream that the log holds. */
export interface RecoveredStream {
  readonly vpg: VpgId
  readonly stream: number
  readonly epoch: number
  readonly generation: number
  readonly lastSequence: number
}

/** Records of one stream that were durable once and are not in the log any more. Sequences inclusive. */
export interface MissingRecords {
  readonly vpg: VpgId
  readonly stream: number
  readonly generation: number
  readonly firstSequence: number
  readonly lastSequence: number
}

/** Durable bytes that failed their checks; `missing` is empty where no neighbour tells whose they were. */
export interface LogDamage {
  readonly fileIdentity: number
  readonly offsetBytes: number
  /** 0 where records are missing without a bad byte in sight. */
  readonly sizeBytes: number
  readonly missing: readonly MissingRecords[]
  readonly sentence: string
}

/** What a scan of the log found. */
export interface RecoveredLog {
  readonly streams: readonly RecoveredStream[]
  /** The newest records that are kept, in log order: all of them but in a log of very many. */
  readonly records: readonly LogRecordPlace[]
  /** How many older ones there are. */
  readonly untoldCount: number
  /** Of every kept marker the header and its checked frame, in log order. */
  readonly markers: readonly { readonly header: RecordHeader; readonly frame: Uint8Array }[]
  readonly damage: readonly LogDamage[]
  /** Where an incomplete group that was never acknowledged was cut off. */
  readonly tornTail: LogMark | undefined
  readonly durable: LogMark
  /** Files with records, ascending. */
  readonly files: readonly { readonly fileIdentity: number; readonly recordCount: number }[]
}

export function placeOf(header: RecordHeader): LogRecordPlace {
  return {
    kind: header.kind === 'marker' ? 'marker' : 'batch',
    vpg: header.vpg,
    stream: header.stream,
    epoch: header.epoch,
    generation: header.generation,
    firstSequence: header.firstSequence,
    lastSequence: header.lastSequence,
    timestampMicros: header.timestampMicros,
    fileIdentity: header.fileIdentity,
    offsetBytes: header.offsetBytes,
    sizeBytes: recordSizeBytes(header.frameSizeBytes),
  }
}
