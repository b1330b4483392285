import { assert } from '../base/assert.ts'
import { MiB } from '../base/units.ts'
import { packRawSizeBytesMax, regionSizeBytes } from '../base/limits.ts'
import type { Disk } from '../disk/disk.ts'
import type { FoldLimits, FoldRequest, FoldResult } from './types.ts'

export const defaultFoldLimits: FoldLimits = {
  packRawSizeBytesMax,
  memorySizeBytesMax: 64 * MiB,
  regionSizeBytes,
}

/** Removes what a fold that was killed left in the directory. At start, before the first fold. */
export function removeScratch(_disk: Disk, _scratchDirectory: string): void {
  assert(false, 'the fold is being written')
}

/**
 * Makes one delta of everything between two cuts: per place the last write of each retained checkpoint. On return its packs are
 * durable in the store; they are in no manifest yet. Fails as the sources and the store do, and DISK_FAILED for the scratch file;
 * packs that were created before a failure have keys that newKey gave.
 */
export async function fold(_request: FoldRequest): Promise<FoldResult> {
  assert(false, 'the fold is being written')
}
