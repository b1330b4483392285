import { dumpVpg } from '../../src/manifest/manifest.ts'
import type { AgingModel } from './aging-model.ts'

/** Objects that the store holds and that are neither referred to nor garbage. */
export async function strays(model: AgingModel): Promise<string[]> {
  const known = new Set<string>()
  for await (const line of dumpVpg(model.memory, model.vpg, new AbortController().signal)) {
    for (const [key] of line.matchAll(/[0-9a-f]{32}\/[a-z]+\/[0-9a-f-]+/g)) known.add(key)
  }
  return [...model.memory.objects.keys()].filter(key => !key.startsWith('vpg/') && !known.has(key))
}
