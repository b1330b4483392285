import { batchRawSizeBytesTarget, regionSizeBytes } from '../base/limits.ts'
import type { Checkpoint } from './checkpoint.ts'
import { segmentStartsWithin } from './positions.ts'
import { eachRegion } from './region-sizes.ts'
import type { VpgState } from './state.ts'

/** About how much of a volume is data as of a checkpoint: seldom less, and more where much was overwritten or became zeros since. */
export interface VolumeDataSize {
  readonly volume: number
  readonly sizeBytes: number
  readonly dataSizeBytes: number
}

/**
 * By the manifest alone, without reading an index: of each region the version that is read and the deltas over it, and what segments and log
 * hold, whichever volume it is of. `tailRecordSizes` are the stored sizes of the checkpoint's records that are in no segment.
 */
export function dataSizesAt(
  { regions, deltas, segments }: Pick<VpgState, 'regions' | 'deltas' | 'segments'>,
  checkpoint: Checkpoint,
  tailRecordSizes: readonly number[],
): VolumeDataSize[] {
  const segmentBytes = segments
    .filter(segment => segmentStartsWithin(segment, checkpoint.vector))
    .reduce((sum, segment) => sum + segment.rawSizeBytes, 0)
  const tailBytes = tailRecordSizes.reduce((sum, sizeBytes) => sum + Math.max(sizeBytes, batchRawSizeBytesTarget), 0)
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
