// The mirror: the volumes of a VPG as objects in the store.
//
// History stands in three forms. Segments hold every write in order; a delta holds, per place, the last write of each checkpoint that
// was retained when it was made; the base holds regions of 128 MiB, each whole as of one checkpoint. Data is written twice
// after its segment: fold() makes one delta of many segments, rewriteRegion() makes one region of many deltas; where checkpoints were dropped and much
// is dead for it, mergeDeltas() makes one delta of several. None touches a manifest: they leave immutable objects and say what they are, and whoever commits decides whether they count.
//
// All are one merge (merge.ts): pieces, oldest first, of which the last wins, by sectors, however they overlap. An image (src/image)
// is the same merge once more, with what is not folded yet as its newest layer. So there is one place where "which byte counts"
// is decided, and one property test over random histories holds it.
//
// The rule of layers (layers.ts): a region as of checkpoint C is its newest version as of a checkpoint at or before C, under the
// entries of deltas that lie after that version and at or before C. It makes regions independent of each other: one can be
// rewritten at a recent checkpoint while older versions still serve older checkpoints.
//
// A delta and a region have one format, the pack (pack-format.ts draws it, README.md explains it). Its index is cut by region,
// so that reading one region costs one request for where things are, and requests for what is wanted of them.

export { defaultFoldLimits, fold, removeScratch } from './fold.ts'
export { mergeDeltas, surveyDeltas, type MergedRun, type MergeLimits, type RegionAt } from './merge-deltas.ts'
export { rewriteRegion } from './rewrite-region.ts'
export { seedRegion } from './seed-region.ts'
export { dumpPack, verifyPack } from './verify.ts'
export { GrowingBuffer, Workspace } from './workspace.ts'
export type { FoldLimits, FoldRequest, FoldResult, MirrorTools, PackReport, RewriteRequest } from './types.ts'

// For images.
export { Uint32Column, Float64Column } from './columns.ts'
export { Layers, loadLayers, readFragments, RegionPieces, type LoadedLayer } from './layers.ts'
export { Merger, type Fragments } from './merge.ts'
export { PackReader } from './pack-reader.ts'
export { Pace } from './pace.ts'
export { radixOrder } from './radix.ts'
export { settleAll } from './settle.ts'
export { gatherRegionWrites, type BatchPlaces, type RegionWrites } from './region-writes.ts'
export { noData, type Bucket } from './write-index.ts'
