// Segments: the immutable objects, one VPG each, that the commit log's records are moved into.
//
// Building: aging gives a SegmentBuilder the VPG's records in the order of the log, then puts the body into the store under the
// next number of the VPG's commit sequence; that PUT is the segment's commit. The records are those of the log, frame for
// frame as the agent sent them; only place and file identity in their headers are new.
//
// Reading: one range read of the footer brings where every write went, another the batch that is wanted. Every byte is
// under some checksum, and headers say what they are of and where they belong, so that a wrong byte is named, never
// served. README.md has the format as tables; segment-format.ts, segment-footer.ts and journal/record.ts draw it.

export { SegmentBuilder, type FinishedSegment, type SegmentBuilderOptions } from './segment-builder.ts'
export { commitKey, parseCommitKey, peekCommitObject, type SegmentHeader } from './segment-format.ts'
export { openSegment, readSegmentFooter, readSegmentHeader, type Segment } from './segment-reader.ts'
export { dumpSegment, verifySegment, type SegmentFinding } from './segment-verify.ts'
export { packTail, unpackTail, type PackedTail } from './packed-tail.ts'
export { tailSource, type TailReader, type TailRecord } from './tail-source.ts'
export type { BatchColumns, RecordSource, WriteColumns } from './record-source.ts'
