import type { BatchBuilder } from '../../wire/batch-builder.ts'
import type { Pieces } from './pieces.ts'

// How batches become frames beside the event loop, which guests wait for: LZ4, the columns and the CRC32C of a batch are made by a thread.
//
//   pending ── taken ──> a place in the queue ───────────────────────────────────────────> a frame in that place, and those behind it may leave
//                 │  the data, where it lies, and a piece for the frame        the piece  ↑
//                 └────────────────────────> thread ──────────────────────────────────────┘
//
// Who has what: data of records and frames lie in pieces of memory that both threads see (pieces.ts), and nothing is copied from one to the other. From
// seal() until the thread has answered nobody writes to the data, and nobody but the thread reads or writes the frame's piece; then the data is given
// back to whose it is (a guest's write was copied into it, the synchronisation lent it), and the frame is the queue's. Data that is not
// in pieces, because all are in use, is sealed in line.
//
// Order: a batch has its place in the queue before it is sealed, so markers, frames sealed in line and batches sealed elsewhere leave in the
// order of their numbers. A marker is numbered and encoded in line, and leaves when everything before it has been sealed.
//
// Bounds: sealingJobCountMax batches are out; more wait among the pending records, which count in the queue. Where those become many the loop seals, too: a
// thread that is slower than the guests must not let the queue pass its bound. Small batches are sealed in line, which costs less than to ask.
//
// Compression is for a link that is slower than the processor. Where much waits to be sealed and little is on its way, it is the other way round: batches are
// hurried, their data stored as it is, until as much is on its way again. (Text costs LZ4 3.7 CPU seconds a GiB, which is less than what a link of 10 Gbit/s
// takes.) What the VRA folds into its mirror is compressed there.
//
// A thread that dies takes nothing with it: the batches that it had are still in memory, and are sealed in line like all that follow, until
// another thread is started. When the queue is dropped, its answers are awaited for their memory only. When the agent stops, nobody waits
// for it: what it has is sealed in line once more.

/** One write of a batch; `data`, or that the range reads as zeros. */
export interface BatchWrite {
  readonly volume: number
  readonly offsetBytes: number
  readonly lengthBytes: number
  readonly data: Uint8Array | undefined
}

/** What a frame of the type WriteBatch is made of; as many writes as fit in one. */
export interface RecordBatch {
  readonly generation: number
  readonly firstSequence: number
  readonly timestampMicros: number
  /** Its data is stored as it is: the link waits for frames. */
  readonly isHurried: boolean
  readonly writes: readonly BatchWrite[]
}

/** Makes frames of batches while its caller does something else. */
export interface Sealer {
  /** Where the data of batches lies, and their frames. */
  readonly pieces: Pieces
  /**
   * Where the next batch is best sealed: of so many bytes at least, while so many wait in memory. 'elsewhere': seal() may be called now. 'later': ask
   * again when a batch is done that was given to seal().
   */
  placeFor(batch: { readonly sizeBytes: number; readonly waitingBytes: number }): 'elsewhere' | 'in line' | 'later'
  /**
   * Makes the frame in `piece`, which is large enough, of a batch whose data is in pieces. `done` is told once, in a later turn: how large the frame is, or undefined
   * where it has to be sealed in line. The pieces are the sealer's until then. After close() nothing is told any more.
   */
  seal(batch: RecordBatch, piece: Buffer, done: (sizeBytes: number | undefined) => void): void
  close(): Promise<void>
}

/** The whole frame of the batch, in memory of the given kind. */
export function frameOf(
  builder: BatchBuilder,
  batch: RecordBatch,
  allocate: (sizeBytes: number) => Buffer = Buffer.allocUnsafeSlow,
): Buffer {
  if (batch.isHurried) builder.storeAsIs()
  for (const { volume, offsetBytes, lengthBytes, data } of batch.writes)
    if (data === undefined) builder.addZero({ volume, offsetBytes, lengthBytes })
    else builder.add({ volume, offsetBytes, data })
  return builder.finish(batch, allocate)
}
