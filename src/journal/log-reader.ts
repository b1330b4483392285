import { AssertionFailed } from '../base/assert.ts'
import type { Disk } from '../disk/disk.ts'
import type { LogMark, RecordPlace } from './log-file.ts'
import type { RecordHeader } from './record.ts'

export type { LogMark, RecordPlace }

/** Records in log order, without their frames. */
export interface LogBatch {
  readonly records: readonly { readonly header: RecordHeader; readonly place: RecordPlace }[]
  /** Durable bytes between them that failed their checks, by place. */
  readonly damage: readonly { readonly place: RecordPlace; readonly sentence: string }[]
}

/** Reads the commit log from any thread, beside the thread that writes it. Synchronous; not for the event loop of ingest. */
export class LogReader {
  /** Tails from the oldest file, or from a mark. `directory` is the data directory, as for the journal. */
  constructor(_options: { readonly disk: Disk; readonly directory: string; readonly from?: LogMark }) {
    throw new AssertionFailed('the log reader is being built')
  }

  /**
   * Records after those of the former call, up to the mark, at least one where there is one, and no more once their sizes
   * reach `sizeBytesMax`. Both lists empty: the mark is reached.
   */
  next(_limit: LogMark, _sizeBytesMax: number): LogBatch {
    throw new AssertionFailed('the log reader is being built')
  }

  /** Everything before it has been handed out by next(). */
  position(): LogMark {
    throw new AssertionFailed('the log reader is being built')
  }

  /** Identities of the log's files now, ascending, up to the one of the mark. */
  files(_limit: LogMark): number[] {
    throw new AssertionFailed('the log reader is being built')
  }

  /**
   * The record's frame, checked; valid until the next call. Fails RECORD_CORRUPT where the bytes fail their checks, NOT_FOUND
   * where the file has been recycled or removed.
   */
  readRecord(_place: RecordPlace): Uint8Array {
    throw new AssertionFailed('the log reader is being built')
  }

  close(): void {
    throw new AssertionFailed('the log reader is being built')
  }
}
