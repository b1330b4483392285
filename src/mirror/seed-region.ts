import { extentSizeBytesMax } from '../base/limits.ts'
import { MiB, sectorSizeBytes } from '../base/units.ts'
import type { Ordinal, VpgId } from '../base/ids.ts'
import type { RegionVersion } from '../timeline/state.ts'
import { PackWriter } from './pack-writer.ts'
import { Pace } from './pace.ts'
import { addNonZeros } from './rewrite-region.ts'
import type { MirrorTools } from './types.ts'

/** Read at once. */
const pieceSizeBytes = 1 * MiB

/** Before the first checkpoint: whatever was written lies over it. */
const asOfOrdinal = 0 as Ordinal

export interface SeedRequest extends MirrorTools {
  readonly vpg: VpgId
  readonly epoch: number
  readonly volume: number
  readonly region: number
  readonly regionSizeBytes: number
  /** Fills the target with the image's bytes from the offset on. */
  readonly read: (target: Uint8Array, offsetBytes: number) => Promise<void>
  /** Of the image. */
  readonly sizeBytes: number
}

/**
 * A region of an image as a version as of before the first checkpoint. The pack is durable in the store on return and in no manifest yet; there is
 * none when the region is all zeros. Fails as `read` does.
 */
export async function seedRegion(request: SeedRequest): Promise<RegionVersion> {
  const { vpg, epoch, volume, region, regionSizeBytes, store, signal, workspace } = request
  const pace = new Pace(request.yieldNow, signal)
  const startBytes = region * regionSizeBytes
  const lengthBytes = Math.min(regionSizeBytes, request.sizeBytes - startBytes)
  const key = request.newKey()
  const writer = new PackWriter(workspace.pack)
  const identity = { kind: 'base', volume, vpg, key, epoch, fromOrdinal: 0, toOrdinal: asOfOrdinal } as const
  writer.begin({ ...identity, regionSizeBytes }, [asOfOrdinal], {
    rawSizeBytes: lengthBytes,
    extentCount: lengthBytes / extentSizeBytesMax,
  })
  const piece = workspace.partition.reserve(pieceSizeBytes)
  for (let at = 0; at < lengthBytes; at += pieceSizeBytes) {
    const bytes = piece.subarray(0, Math.min(pieceSizeBytes, lengthBytes - at))
    await request.read(bytes, startBytes + at)
    await addNonZeros(writer, (startBytes + at) / sectorSizeBytes, asOfOrdinal, bytes, pace)
    await pace.step()
  }
  if (writer.extentCount === 0) return { volume, region, asOfOrdinal, pack: undefined }
  const { bytes, ref } = writer.finish()
  await store.create(key, bytes, signal)
  return { volume, region, asOfOrdinal, pack: ref }
}
