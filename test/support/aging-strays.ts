import { dumpVpg } from '../../src/manifest/manifest.ts'
import type { AgingModel } from './aging-model.ts'

/** Objects that the store holds and that are neither referred to nor garbage. */
export async function strays(model: AgingModel): Promise<string[]> {
  const never = new AbortController().signal
  const known = new Set<string>()
  for await (const line of dumpVpg(model.images, model.vpg, never)) {
    for (const [key] of line.matchAll(/[0-9a-f]{32}\/[a-z]+\/[0-9a-f-]+/g)) known.add(key)
  }
  const found: string[] = []
  for await (const { key } of model.images.list(`${model.vpg}/`, undefined, never)) if (!known.has(key)) found.push(key)
  return found
}
