import type { MessagePort } from 'node:worker_threads'
import type { FailureRecord } from '../base/failure.ts'
import type { LogFileCounts } from './commit-log.ts'
import type { JournalEvents } from './events.ts'
import type { LogMark } from './log-file.ts'
import type { RecoveredLog } from './recovered.ts'

// What the thread of ingest, the commit thread and the preparing thread say to each other: a message a group, never one
// a record.

export interface CommitWorkerOptions {
  readonly directory: string
  readonly fileSizeBytes: number
  readonly logSizeBytesMax: number
  readonly memory: SharedArrayBuffer
  /** Once the log is open, everything the commit thread says comes through it. */
  readonly port: MessagePort
  /** One Int32: not 0 when it says, or is about to say, that the group in flight is durable. */
  readonly durableSaid: SharedArrayBuffer
}

export type ToCommitWorker =
  /** Pairs (offset, size) of records in the shared memory, in order. Their headers are encoded, but for their place. */
  | { readonly type: 'group'; readonly records: Uint32Array }
  | { readonly type: 'free'; readonly fileIdentity: number }
  | { readonly type: 'close' }

export type JournalEventCall = {
  [K in keyof JournalEvents]: { readonly name: K; readonly value: Parameters<JournalEvents[K]>[0] }
}[keyof JournalEvents]

export type FromCommitWorker =
  | { readonly type: 'opened'; readonly recovered: RecoveredLog }
  | { readonly type: 'failed'; readonly failure: FailureRecord }
  | {
      readonly type: 'durable'
      readonly mark: LogMark
      readonly offsetsBytes: Float64Array
      readonly syncMillis: number
    }
  | { readonly type: 'stalled'; readonly sentence: string }
  | { readonly type: 'resumed'; readonly waitedMillis: number }
  | { readonly type: 'files'; readonly counts: LogFileCounts; readonly spareCount: number }
  | { readonly type: 'event'; readonly event: JournalEventCall }

export interface PreparerOptions {
  readonly directory: string
  readonly fileSizeBytes: number
  readonly logSizeBytesMax: number
}

export type ToPreparer =
  | { readonly type: 'prepare'; readonly fileIdentity: number }
  | { readonly type: 'free'; readonly fileIdentity: number }
  | { readonly type: 'close' }

export type FromPreparer =
  | { readonly type: 'ready'; readonly fileIdentity: number; readonly spareCount: number }
  | { readonly type: 'spares'; readonly spareCount: number }
