import { assert } from '../base/assert.ts'
import type { ImagePlan } from '../aging/service.ts'
import type { Image, ImageTools } from './types.ts'

export type { Image, ImageTools, PieceSink, VolumeRange } from './types.ts'

/** Opens the volumes as of the plan's checkpoint. The plan's pin keeps its objects readable until the pin is dropped. */
export async function openImage(_plan: ImagePlan, _tools: ImageTools, _signal: AbortSignal): Promise<Image> {
  assert(false, 'the image is being written')
}
