import { checksOf, damageIn, manifestCheck, type ObjectCheck } from '../manifest/manifest.ts'
import { verifySegment } from '../segment/segment.ts'
import type { ObjectStore } from '../store/object-store.ts'
import type { AgingTools } from './tools.ts'
import type { VpgWriter } from './vpg-writer.ts'

/** How each object that the VPG refers to is verified. Only of one that is awake. */
export function objectChecks({ contents, commits }: VpgWriter): ObjectCheck[] {
  return [...checksOf(contents.state, faultsOfSegment), ...commits.manifestObjects().map(manifestCheck)]
}

/** Reads what keeps the VPG from being merged, if it is time for that: where it is whole again, or needed no more, merging goes on. Only of one that is awake. */
export async function reviewDamage({ store, signal }: AgingTools, writer: VpgWriter): Promise<void> {
  const sentences = writer.damageMet
  for (const check of objectChecks(writer)) {
    const { key } = check.object
    if (!sentences.some(sentence => sentence.includes(key))) continue
    const findings = await writer.patience.brief.attempt(each => damageIn(check, store, each), signal)
    if (findings.length === 0) continue
    writer.stillDamaged()
    return
  }
  writer.mergingGoesOn()
}

async function faultsOfSegment(
  store: ObjectStore,
  { key, sizeBytes }: ObjectCheck['object'],
  signal: AbortSignal,
): Promise<{ readonly faults: readonly { readonly offsetBytes: number; readonly sentence: string }[] }> {
  const findings = await verifySegment(store, key, sizeBytes, signal)
  return { faults: findings.map(({ what, offsetBytes }) => ({ offsetBytes, sentence: what })) }
}
