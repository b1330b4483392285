import type { RecordSource } from '../segment/record-source.ts'
import type { ObjectStore } from '../store/object-store.ts'
import type { Checkpoint, CheckpointVolume } from '../timeline/checkpoint.ts'
import type { SegmentSpan } from '../timeline/state.ts'
import type { TailRecord } from '../segment/segment.ts'

/** Where an image finds its bytes. */
export interface ImageTools {
  readonly store: ObjectStore
  /** A committed segment as a source of records. */
  readonly openSegment: (segment: SegmentSpan) => RecordSource
  /** Records that are still in the commit log, in the order given, as a source of records. */
  readonly openTail: (records: readonly TailRecord[]) => RecordSource
  /** For what was read and may be wanted again: resolved regions and decompressed blocks. */
  readonly cacheSizeBytes: number
  readonly regionSizeBytes: number
}

/** A range of a volume, half-open, in bytes. */
export interface VolumeRange {
  readonly startBytes: number
  readonly endBytes: number
}

export interface VolumeRun {
  readonly isData: boolean
  readonly endBytes: number
}

/** Takes the pieces of a volume. */
export interface PieceSink {
  /** The bytes are valid until it returns. */
  piece(offsetBytes: number, bytes: Uint8Array): void
  /** How much of the work is done, in bytes that are read; the total may fall when more is known, never rise. */
  progress(doneBytes: number, totalBytes: number): void
}

/** The volumes of a VPG as of one checkpoint. UNKNOWN_VOLUME for a volume that the checkpoint does not include. */
export interface Image {
  readonly checkpoint: Checkpoint
  readonly volumes: readonly CheckpointVolume[]
  /** Fills the target with the volume's bytes at the offset. OUT_OF_BOUNDS past the volume's end. */
  read(volume: number, offsetBytes: number, target: Uint8Array, signal: AbortSignal): Promise<void>
  /**
   * Gives every piece of the range that holds data to the sink, each byte exactly once, in the order in which the sources lie
   * (not by offset); what is never given is zeros.
   */
  scatter(volume: number, range: VolumeRange, sink: PieceSink, signal: AbortSignal): Promise<void>
  /** Where, in the range, the volume first holds data; the range's end where it holds none. */
  nextData(volume: number, range: VolumeRange, signal: AbortSignal): Promise<number>
  /** Whether the volume holds data at the range's start, and how far that goes, at most up to the range's end. Data may go on behind its end. */
  runAt(volume: number, range: VolumeRange, signal: AbortSignal): Promise<VolumeRun>
  /**
   * Brings what reads of the range will need, in few large requests, into the caches; where it is more than these hold only a part of it. Fails as
   * read() would.
   */
  prefetch(volume: number, range: VolumeRange, signal: AbortSignal): Promise<void>
  /** Where the volume holds data, ascending, adjacent ranges joined; the rest is zeros. */
  extents(volume: number, signal: AbortSignal): AsyncIterable<VolumeRange>
}

/** The bytes of a spool, wherever they are. */
export interface SpoolFile {
  /** Fills the whole target, or rejects: with the system's error, or where it cannot be what was written. */
  read(target: Uint8Array, offsetBytes: number): Promise<void>
}

export interface SpoolPlaces {
  readonly sizeBytes: number
  /** By bucket of the image's index: where its bytes begin; -1 of volumes that are not in the spool. Images of one plan have the same buckets. */
  readonly startBytes: Float64Array
}

/** An image that reads unfolded writes from a spool. */
export interface Spool {
  readonly places: SpoolPlaces
  readonly file: SpoolFile
  /** It could not be read: the image is read without it from here on. Told once. */
  readonly failed: (cause: unknown) => void
}

/** Where a region's unfolded writes begin in a spool. */
export interface SpooledRegion {
  readonly file: SpoolFile
  readonly startBytes: number
  /** After a read of it has failed: the image uses the spool no more. */
  drop(cause: unknown): void
}

/** One of which a spool can be made. */
export interface SpoolableImage extends Image {
  /** Of the writes that no delta holds, dead ones among them. */
  readonly unfoldedSizeBytes: number
  /** Of such writes, what reads have decompressed so far less what they wanted of it. */
  readonly wastedSizeBytes: number
  /**
   * Gives what is live of such writes of these volumes to the sink, with its places in the spool (see spool.ts), which are told first. Each batch is read once.
   */
  fillSpool(volumes: ReadonlySet<number>, begin: (places: SpoolPlaces) => PieceSink, signal: AbortSignal): Promise<void>
  /**
   * From here on such writes are read from the spool, which an image of the same plan has filled; undefined, or after a read of it has failed: from their sources, as
   * before.
   */
  useSpool(spool: Spool | undefined): void
}
