import type { Ordinal, StreamPosition, VpgId } from '../base/ids.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { Recoverable, RecoverableRequest } from '../timeline/recoverable.ts'
import type { SegmentSpan } from '../timeline/state.ts'

// The journal index (SQLite) behind a thread of its own, which is its only user. It holds only what a scan of log, segment footers and
// manifests yields; deleting its file costs a rebuild at the next start, nothing else.

export interface CatalogService {
  /** Opens or creates the index; a damaged or foreign file is set aside (renamed) and a new one begun, and said. The first call. */
  open(argument: { readonly file: string }): Promise<{
    readonly begunAnew: boolean
    readonly reason: string
    /** As keepNotes was given them. */
    readonly notes: readonly CatalogNote[]
  }>
  /**
   * Makes the VPG's segments and checkpoints exactly these, in one step for whoever reads meanwhile; tail rows of covered records are
   * dropped, others stay. At start; checkpoints that only the log has are added afterwards, or were before: those above `keepAbove` stay.
   * Checkpoints beside serving come as encodeCheckpoints makes them: to send and to receive a long history in objects holds up both threads.
   */
  loadVpg(argument: {
    readonly vpg: VpgId
    readonly segments: readonly SegmentSpan[]
    readonly checkpoints: readonly Checkpoint[] | Uint8Array
    readonly offloaded: readonly StreamPosition[]
    readonly keepAbove?: Ordinal
  }): Promise<void>
  /**
   * Drops the checkpoints above, of many VPGs in one call: at a start, before those are added that the log has. `noteFalls` where that may be some that
   * the VPG's note stands for: with the first of them it is gone.
   */
  dropCheckpointsAbove(argument: { readonly vpgs: readonly CheckpointsAbove[] }): Promise<void>
  /**
   * For the next open, in the place of those before of the same VPG. On return every change that was made before is here, too; where one was not made, or the
   * file begun anew in use, nothing is kept.
   */
  keepNotes(argument: { readonly notes: readonly CatalogNote[] }): Promise<void>
  forgetVpg(argument: { readonly vpg: VpgId }): Promise<void>
  /**
   * A row per batch of the log's tail, and checkpoints, in one transaction; returns when it is committed. Replaces rows with the same
   * position or ordinal.
   */
  add(argument: {
    readonly rows: readonly TailRow[]
    readonly checkpoints: readonly { readonly vpg: VpgId; readonly checkpoint: Checkpoint }[]
  }): Promise<void>
  /** Adds the segment's row and drops the tail rows that its footer takes over. */
  addSegment(argument: {
    readonly vpg: VpgId
    readonly segment: SegmentSpan
    readonly offloaded: readonly StreamPosition[]
  }): Promise<void>
  /** Drops the rows of segments up to this commit number: a fold has taken them over. */
  dropSegments(argument: { readonly vpg: VpgId; readonly throughCommitNumber: number }): Promise<void>
  /** Drops checkpoints below the edge that are not kept, in bounded transactions. */
  dropCheckpoints(argument: {
    readonly vpg: VpgId
    readonly edge: Ordinal
    readonly kept: readonly Ordinal[]
  }): Promise<void>
  /** Drops these checkpoints, in bounded transactions. */
  thinCheckpoints(argument: { readonly vpg: VpgId; readonly dropped: readonly Ordinal[] }): Promise<void>
  /** Newest first by default; at most `limit` (1 to 1000). Pages by the ordinal of the last row that the caller has. */
  listCheckpoints(query: CheckpointQuery): Promise<CheckpointPage>
  checkpoint(argument: { readonly vpg: VpgId; readonly ordinal: Ordinal }): Promise<Checkpoint | undefined>
  /** The newest below `before` where given, that includes all of these volumes. */
  latestCheckpoint(argument: {
    readonly vpg: VpgId
    readonly before?: Ordinal
    readonly including?: readonly number[]
  }): Promise<Checkpoint | undefined>
  /** The newest whose label is at or before the time, below `before` where given, that includes all of these volumes. */
  checkpointAt(argument: {
    readonly vpg: VpgId
    readonly timestampMicros: number
    readonly before?: Ordinal
    readonly including?: readonly number[]
  }): Promise<Checkpoint | undefined>
  /** Reads all checkpoints of the VPG, in steps between which other calls are answered. */
  recoverable(argument: { readonly vpg: VpgId } & RecoverableRequest): Promise<Recoverable>
  statistics(argument: { readonly vpg: VpgId }): Promise<CatalogStatistics>
  /** Of each in its order: what is shown of a VPG, in one call for many. */
  overviews(argument: { readonly vpgs: readonly OverviewQuery[] }): Promise<readonly Overview[]>
  /** Where the record with this sequence is. */
  locate(argument: { readonly vpg: VpgId; readonly at: StreamPosition }): Promise<TailRow | SegmentSpan | undefined>
  /** Gives back pages without rows, moves the WAL into the file and empties it: called when nothing has been written for a while. */
  settle(argument: undefined): Promise<void>
  close(argument: undefined): Promise<void>
}

/** What whoever fills the index says of a VPG when it stops: no business of the index. */
export interface CatalogNote {
  readonly vpg: VpgId
  readonly text: string
}

/** A batch in the commit log. */
export interface TailRow {
  readonly vpg: VpgId
  readonly stream: number
  readonly generation: number
  readonly firstSequence: number
  readonly lastSequence: number
  readonly timestampMicros: number
  readonly fileIdentity: number
  readonly offsetBytes: number
  readonly sizeBytes: number
}

export interface CheckpointsAbove {
  readonly vpg: VpgId
  readonly above: Ordinal
  readonly noteFalls: boolean
}

export interface CheckpointQuery {
  readonly vpg: VpgId
  readonly limit: number
  readonly order: 'newest-first' | 'oldest-first'
  /** Strictly beyond this ordinal in the order asked for. */
  readonly after?: Ordinal
  readonly fromTimestampMicros?: number
  /** Exclusive. */
  readonly toTimestampMicros?: number
}

export interface CheckpointPage {
  readonly checkpoints: readonly Checkpoint[]
  readonly more: boolean
}

export interface OverviewQuery {
  readonly vpg: VpgId
  /** The numbers of its volumes. */
  readonly volumes: readonly number[]
}

export interface Overview {
  /** The newest and the oldest checkpoint that the index has, whatever holes say. */
  readonly newest: Checkpoint | undefined
  readonly oldest: Checkpoint | undefined
  /** The newest that includes all of the volumes. */
  readonly newestOfAll: Checkpoint | undefined
  readonly checkpointCount: number
}

/** Kept as counters, never counted by scanning. */
export interface CatalogStatistics {
  readonly checkpointCount: number
  readonly segmentCount: number
  readonly tailRowCount: number
  readonly fileSizeBytes: number
}

/** Notices from the thread, by name. */
export interface CatalogNotices {
  /** The index was found damaged while in use, was set aside, and is empty now. */
  begunAnew: { readonly reason: string }
}
