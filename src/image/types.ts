import type { LogRecordRef } from '../aging/service.ts'
import type { RecordSource } from '../segment/record-source.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { SegmentSpan } from '../timeline/state.ts'
import type { ObjectStore } from '../store/object-store.ts'

/** Where an image finds its bytes. */
export interface ImageTools {
  readonly store: ObjectStore
  /** A committed segment as a source of records. */
  readonly openSegment: (segment: SegmentSpan) => RecordSource
  /** Records that are still in the commit log, in the order given, as a source of records. */
  readonly openTail: (records: readonly LogRecordRef[]) => RecordSource
  /** For what was read and may be wanted again: resolved regions and decompressed blocks. */
  readonly cacheSizeBytes: number
  readonly regionSizeBytes: number
}

/** A range of a volume, half-open, in bytes. */
export interface VolumeRange {
  readonly startBytes: number
  readonly endBytes: number
}

/** Takes a piece of a volume. The bytes are valid until it returns. */
export type PieceSink = (offsetBytes: number, bytes: Uint8Array) => void

/** The volumes of a VPG as of one checkpoint. */
export interface Image {
  readonly checkpoint: Checkpoint
  readonly volumes: Checkpoint['volumes']
  /** Fills the target with the volume's bytes at the offset. OUT_OF_BOUNDS past the volume's end. */
  read(volume: number, offsetBytes: number, target: Uint8Array, signal: AbortSignal): Promise<void>
  /**
   * Gives every piece of the range that holds data to the sink, each byte exactly once, in the order in which the sources lie
   * (not by offset); what is never given is zeros.
   */
  scatter(volume: number, range: VolumeRange, sink: PieceSink, signal: AbortSignal): Promise<void>
  /** Where the volume holds data, ascending, adjacent ranges joined; the rest is zeros. */
  extents(volume: number, signal: AbortSignal): AsyncIterable<VolumeRange>
}
