import type { Ordinal } from '../base/ids.ts'
import { deltasThinnedPerCommitMax } from '../base/limits.ts'
import { readCheckpointPage } from '../manifest/manifest.ts'
import { densitiesOf } from '../timeline/densities.ts'
import { lastDeltaEnd } from '../timeline/deltas.ts'
import { holeOver, keptOrdinals, retention } from '../timeline/retention.ts'
import type { DeltaSpan, VpgState } from '../timeline/state.ts'
import { droppedBy, expiredTags, isWorthACommit } from '../timeline/thinning.ts'
import { patientStore } from './patient-store.ts'
import { isRefusal } from './store-patience.ts'
import type { AgingTools } from './tools.ts'
import type { VpgWriter } from './vpg-writer.ts'

// Drops the checkpoints that the VPG's densities let go. src/timeline/README.md has the order of the steps and what holds after each.

/** Drops what is due, if that is worth a commit of its own; false when it is not. */
export async function thin(tools: AgingTools, writer: VpgWriter): Promise<boolean> {
  const due = dueOf(writer)
  return (
    due.length > 0 &&
    isWorthACommit(due.length, writer.points(writer.contents).length) &&
    (await dropCheckpoints(tools, writer, due))
  )
}

/** Drops what is due, however little that is: before something that then has less to do. False when nothing is. */
export async function thinAll(tools: AgingTools, writer: VpgWriter): Promise<boolean> {
  const due = dueOf(writer)
  return due.length > 0 && (await dropCheckpoints(tools, writer, due))
}

function dueOf(writer: VpgWriter): Ordinal[] {
  const { state } = writer.contents
  const densities = densitiesOf(state.definition)
  return densities.length === 1 ? [] : droppedBy(densities, writer.points(writer.contents), state)
}

/**
 * Commits that these checkpoints are gone, or the first of them where they lie in very many deltas. False, and nothing has changed, when a tag or a
 * pin has come to one of them meanwhile, or a page of theirs is damaged.
 */
async function dropCheckpoints(tools: AgingTools, writer: VpgWriter, due: readonly Ordinal[]): Promise<boolean> {
  const { state } = writer.contents
  const thinned = deltasOf(state, due).slice(0, deltasThinnedPerCommitMax)
  const end = lastDeltaEnd(state)
  const dropped = due.filter(
    ordinal => ordinal > end || thinned.some(delta => delta.fromOrdinal < ordinal && ordinal <= delta.toOrdinal),
  )
  const pages = new Map<string, ThinnedDelta>()
  const madeKeys = (): string[] => [...pages.values()].map(({ checkpoints }) => checkpoints.key)
  const removeMade = async (): Promise<void> => {
    await writer.removeObjects(madeKeys())
    pages.clear()
  }
  const make = (): Promise<true> => makePages(tools, writer, thinned, new Set<number>(dropped), pages)
  const isMade = await writer.merging(make, removeMade).catch(async (error: unknown) => {
    if (isRefusal(error)) await writer.dropObjects(madeKeys())
    throw error
  })
  if (isMade === undefined) return false
  const committed = await writer.exclusively(async turn => {
    const { contents } = turn
    const kept = new Set<number>(keptOrdinals(contents.state))
    if (contents.deletedAtMicros !== undefined || dropped.some(ordinal => kept.has(ordinal))) return false
    // The others stay the very same objects: their parts of the manifest are not written again.
    const deltas = contents.state.deltas.map(delta => {
      const page = pages.get(delta.checkpoints.key)
      return page === undefined ? delta : { ...delta, ...page }
    })
    const change = writer.trimmed({ ...contents, state: { ...contents.state, deltas } }, { dropped })
    await turn.commitManifest({ ...change, leftKeys: [...change.leftKeys, ...pages.keys()] })
    return true
  })
  if (!committed) await removeMade()
  return committed
}

type ThinnedDelta = Pick<DeltaSpan, 'checkpoints' | 'checkpointCount' | 'versionCount'>

/** Puts each into `pages` by the key of the page that it replaces: on return durable in the store, and in no manifest yet. True. */
async function makePages(
  { store, signal }: AgingTools,
  writer: VpgWriter,
  deltas: readonly DeltaSpan[],
  dropped: ReadonlySet<number>,
  pages: Map<string, ThinnedDelta>,
): Promise<true> {
  const isRetained = retention(writer.contents.state)
  for (const { checkpoints: before, checkpointCount, versionCount } of deltas) {
    const page = await readCheckpointPage(patientStore(store, writer.patience.brief), writer.vpg, before, signal)
    const left = page.filter(({ ordinal }) => isRetained(ordinal) && !dropped.has(ordinal))
    const { key, bytes } = writer.commits.checkpointPage(left)
    pages.set(before.key, {
      checkpoints: { key, sizeBytes: bytes.length },
      checkpointCount: left.length,
      versionCount: versionCount ?? checkpointCount,
    })
    await writer.createObject({ key, bytes })
  }
  return true
}

/** The deltas in whose pages these checkpoints are. Open ones have none. */
function deltasOf({ deltas }: VpgState, ordinals: readonly Ordinal[]): DeltaSpan[] {
  let next = 0
  return deltas.filter(({ open, fromOrdinal, toOrdinal }) => {
    if (open !== undefined) return false
    while (next < ordinals.length && (ordinals[next] ?? 0) <= fromOrdinal) next++
    return (ordinals[next] ?? Infinity) <= toOrdinal
  })
}

/** Takes away the tags that have been kept for as long as they were to be; false where there are none. */
export async function expireTags({ notify }: AgingTools, writer: VpgWriter): Promise<boolean> {
  if (expired(writer).length === 0) return false
  const names = await writer.exclusively(async turn => {
    const { contents } = turn
    const gone = expired(writer)
    if (contents.deletedAtMicros !== undefined || gone.length === 0) return []
    const tags = contents.state.tags.filter(tag => !gone.includes(tag))
    await turn.commitManifest(writer.trimmed({ ...contents, state: { ...contents.state, tags } }))
    return gone.map(tag => tag.name)
  })
  if (names.length > 0) notify('tagsExpired', { vpg: writer.vpg, names })
  return names.length > 0
}

function expired(writer: VpgWriter): VpgState['tags'] {
  const { tags } = writer.contents.state
  return tags.some(({ keep }) => keep !== undefined) ? expiredTags(tags, newestHistoryMillis(writer)) : []
}

/** Of the newest checkpoint that is in the store and offered; 0 where there is none. */
export function newestHistoryMillis(writer: VpgWriter): number {
  const { recent, state } = writer.contents
  const isOffered = ({ ordinal }: { readonly ordinal: Ordinal }): boolean =>
    holeOver(state.holes, ordinal) === undefined
  return (recent.findLast(isOffered) ?? writer.history.findLast(isOffered))?.historyMillis ?? 0
}
