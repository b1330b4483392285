import { assert } from '../base/assert.ts'
import type { RegionVersion } from '../timeline/state.ts'
import type { RewriteRequest } from './types.ts'

/**
 * The region as of the end of a delta, whole, as a new version: from its newest version and the deltas after that. The pack is durable in the
 * store on return and in no manifest yet. Fails OBJECT_CORRUPT where an object that it reads is damaged.
 */
export async function rewriteRegion(_request: RewriteRequest): Promise<RegionVersion> {
  assert(false, 'the rewriting is being written')
}
