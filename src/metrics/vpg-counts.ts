/** Counted per VPG. */
export interface VpgCounts {
  writes: number
  rawBytes: number
  frameBytes: number
  batches: number
  duplicates: number
  checkpoints: number
  generations: number
  coordinators: number
  segments: number
  segmentBytes: number
  folds: number
  foldRawBytes: number
  regions: number
  regionRawBytes: number
  thinned: number
  merges: number
  mergeRawBytes: number
  mergeFreedRawBytes: number
  garbage: number
  damage: number
  storeFailures: number
  fenced: number
}

export const noCounts = (): VpgCounts => ({
  ...{ writes: 0, rawBytes: 0, frameBytes: 0, batches: 0, duplicates: 0, checkpoints: 0 },
  ...{ generations: 0, coordinators: 0 },
  ...{ segments: 0, segmentBytes: 0, folds: 0, foldRawBytes: 0, regions: 0, regionRawBytes: 0, thinned: 0 },
  ...{ merges: 0, mergeRawBytes: 0, mergeFreedRawBytes: 0 },
  ...{ garbage: 0, damage: 0, storeFailures: 0, fenced: 0 },
})
