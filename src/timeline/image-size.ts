import { batchRawSizeBytesMax, regionSizeBytes } from '../base/limits.ts'
import type { Checkpoint } from './checkpoint.ts'
import { segmentStartsWithin } from './positions.ts'
import { eachRegion } from './region-sizes.ts'
import type { SegmentSpan, VpgState } from './state.ts'

/** Guest bytes of each byte in the log, where the VPG has no segment yet to go by. */
const compressionUsual = 2

/** About how much of a volume is data as of a checkpoint: seldom less, and more where much was overwritten or became zeros since. */
export interface VolumeDataSize {
  readonly volume: number
  readonly sizeBytes: number
  readonly dataSizeBytes: number
}

/**
 * By the manifest alone, without reading an index: of each region the version that is read and the deltas over it, and what segments and log
 * hold, whichever volume it is of. `tailBatchSizes` are the frames' sizes of the checkpoint's batches that are in no segment: how much they are without
 * compression nobody knows who has not read them, so they count as what the VPG's segments have come to.
 */
export function dataSizesAt(
  { regions, deltas, segments }: Pick<VpgState, 'regions' | 'deltas' | 'segments'>,
  checkpoint: Checkpoint,
  tailBatchSizes: readonly number[],
): VolumeDataSize[] {
  const segmentBytes = segments
    .filter(segment => segmentStartsWithin(segment, checkpoint.vector))
    .reduce((sum, segment) => sum + segment.rawSizeBytes, 0)
  const compression = compressionOf(segments)
  const tailBytes = tailBatchSizes.reduce(
    (sum, sizeBytes) => sum + Math.min(batchRawSizeBytesMax, Math.round(sizeBytes * compression)),
    0,
  )
  return checkpoint.volumes
    .filter(({ included }) => included)
    .map(({ number: volume, sizeBytes }) => {
      const byRegion = new Map<number, { asOf: number; baseBytes: number; deltaBytes: number }>()
      const at = (region: number) => {
        const known = byRegion.get(region) ?? { asOf: -1, baseBytes: 0, deltaBytes: 0 }
        byRegion.set(region, known)
        return known
      }
      for (const version of regions) {
        if (version.volume !== volume || version.asOfOrdinal > checkpoint.ordinal) continue
        const region = at(version.region)
        if (version.asOfOrdinal < region.asOf) continue
        region.asOf = version.asOfOrdinal
        region.baseBytes = version.pack?.rawSizeBytes ?? 0
      }
      for (const delta of deltas) {
        if (delta.fromOrdinal >= checkpoint.ordinal) continue
        for (const pack of delta.packs) {
          if (pack.volume !== volume) continue
          for (const [number, rawSizeBytes] of eachRegion(pack.regionRawSizeBytes)) {
            const region = at(number)
            if (region.asOf < delta.toOrdinal) region.deltaBytes += rawSizeBytes
          }
        }
      }
      let dataSizeBytes = segmentBytes + tailBytes
      for (const { baseBytes, deltaBytes } of byRegion.values())
        dataSizeBytes += Math.min(regionSizeBytes, baseBytes + deltaBytes)
      return { volume, sizeBytes, dataSizeBytes: Math.min(sizeBytes, dataSizeBytes) }
    })
}

/** Never below 1: where much became zeros, what did not is as large as ever. */
function compressionOf(segments: readonly SegmentSpan[]): number {
  const rawBytes = segments.reduce((sum, { rawSizeBytes }) => sum + rawSizeBytes, 0)
  const storedBytes = segments.reduce((sum, { footerOffsetBytes }) => sum + footerOffsetBytes, 0)
  return rawBytes === 0 ? compressionUsual : Math.max(1, rawBytes / storedBytes)
}
