import type { SinceAsleep } from '../manifest/manifest.ts'
import type { MirrorSums } from './service.ts'

/** The sums with the segments that were committed since, and the checkpoints in them. */
export function withSegments(sums: MirrorSums, since: SinceAsleep, historyGrownMillis: number): MirrorSums {
  return {
    ...sums,
    segmentCount: sums.segmentCount + since.segmentCount,
    segmentSizeBytes: sums.segmentSizeBytes + since.sizeBytes,
    unfoldedRawSizeBytes: sums.unfoldedRawSizeBytes + since.rawSizeBytes,
    historySizeBytes: sums.historySizeBytes + since.sizeBytes,
    historyMillis: sums.historyMillis + historyGrownMillis,
    forms: sums.forms.map(each =>
      each.form === 'segments'
        ? {
            ...each,
            objectCount: each.objectCount + since.segmentCount,
            sizeBytes: each.sizeBytes + since.sizeBytes,
            indexSizeBytes: each.indexSizeBytes + since.indexSizeBytes,
          }
        : each,
    ),
  }
}
