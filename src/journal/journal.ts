import { AssertionFailed } from '../base/assert.ts'
import type { Clock } from '../base/clock.ts'
import type { JournalEvents } from './events.ts'
import type { LogMark } from './log-file.ts'
import type { LogRecordPlace, RecoveredLog } from './recovery.ts'
import type { AppendFields, JournalWriter, Slot } from './writer.ts'

export type { LogMark, RecordPlace } from './log-file.ts'
export type { LogDamage, LogRecordPlace, MissingRecords, RecoveredLog, RecoveredStream } from './recovery.ts'

export interface JournalOptions {
  /** The data directory; the log is in `log` below it. */
  readonly directory: string
  /** The log never grows past it: then records wait, until files are freed. At least four log files. */
  readonly logSizeBytesMax: number
  readonly clock: Clock
  readonly events: JournalEvents
}

/** A group of records that one sync has made durable. */
export interface DurableGroup {
  readonly mark: LogMark
  readonly records: readonly LogRecordPlace[]
}

export interface JournalStatus {
  readonly durable: LogMark
  /** Files that hold records which somebody may need. */
  readonly fileCount: number
  readonly liveSizeBytes: number
  /** Prepared files that the next rotation can open. */
  readonly readyCount: number
  /** Freed files kept for preparing. */
  readonly spareCount: number
  readonly logSizeBytesMax: number
  /** Records appended and not durable yet. */
  readonly waitingRecordCount: number
  readonly waitingSizeBytes: number
  /** Why nothing becomes durable now, or undefined. */
  readonly stalledBecause: string | undefined
}

/** The commit log of a data directory, seen from the thread of ingest. */
export class Journal implements JournalWriter {
  readonly recovered: RecoveredLog

  static open(_options: JournalOptions): Promise<Journal> {
    return Promise.reject(new AssertionFailed('the journal is being built'))
  }

  private constructor(recovered: RecoveredLog) {
    this.recovered = recovered
  }

  reserve(_frameSizeBytes: number): Slot | undefined {
    throw new AssertionFailed('the journal is being built')
  }

  whenRoom(_frameSizeBytes: number, _callback: () => void): void {
    throw new AssertionFailed('the journal is being built')
  }

  release(_slot: Slot): void {
    throw new AssertionFailed('the journal is being built')
  }

  append(_slot: Slot, _fields: AppendFields, _onDurable: () => void): void {
    throw new AssertionFailed('the journal is being built')
  }

  durable(): LogMark {
    throw new AssertionFailed('the journal is being built')
  }

  /** Calls the listener after each group's sync, after the callbacks of its records. Returns what ends that. */
  onDurable(_listener: (group: DurableGroup) => void): () => void {
    throw new AssertionFailed('the journal is being built')
  }

  /** Nobody needs the records of this file any more: it is recycled. A file that is being written is never freed: ignored. */
  freeFile(_fileIdentity: number): void {
    throw new AssertionFailed('the journal is being built')
  }

  status(): JournalStatus {
    throw new AssertionFailed('the journal is being built')
  }

  /** Makes durable what was appended, unless the journal is full or its disk fails; then ends the threads. */
  close(): Promise<void> {
    throw new AssertionFailed('the journal is being built')
  }
}
