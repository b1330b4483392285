import { garbageCompanyShare } from '../base/limits.ts'
import { Permits } from '../base/permits.ts'
import { registryKey, takenKeys, type VpgContents } from '../manifest/manifest.ts'
import { historyEdge } from '../timeline/retention.ts'
import { objectKeys } from '../timeline/reach.ts'
import { isPinOfRecord } from '../timeline/standby.ts'
import type { GarbageObject } from '../timeline/state.ts'
import { GarbageAges } from './garbage-ages.ts'
import type { AgingTools } from './tools.ts'
import type { Exclusive, VpgWriter } from './vpg-writer.ts'

// What keeps a VPG's history and its objects in bounds, beside the merges.

/** The edge alone is committed only when it moves by this share of the history: a manifest every few seconds would cost more than it frees. */
export const edgeShare = 1 / 16
const removalsAtOnce = 8
const removalsPerCommitMax = 1000

/** Moves the history's edge, if it is far behind. */
export async function moveEdge(writer: VpgWriter): Promise<boolean> {
  if (!edgeIsFarBehind(writer)) return false
  return await writer.exclusively(async turn => {
    if (turn.contents.deletedAtMicros !== undefined) return false
    await turn.commitManifest(writer.trimmed(turn.contents))
    return true
  })
}

function edgeIsFarBehind(writer: VpgWriter): boolean {
  const { state } = writer.contents
  const points = writer.points(writer.contents)
  const due = historyEdge(points, state.definition.historyMillis, state.holes)
  if (due === undefined || due <= state.historyEdge) return false
  const dueMillis = points.find(point => point.ordinal === due)?.historyMillis ?? 0
  const oldest = points.find(point => point.ordinal >= state.historyEdge)
  return oldest === undefined || dueMillis - oldest.historyMillis >= state.definition.historyMillis * edgeShare
}

/** Keys that only the removal of other garbage made garbage: they wait for company, or a quiet VPG would commit for ever. */
const ownChurn = new WeakMap<VpgWriter, ReadonlySet<string>>()

const garbageAges = new WeakMap<VpgWriter, GarbageAges>()

/** How long ago things left, as far as this process knows. */
export function garbageAgesOf({ clock }: AgingTools, writer: VpgWriter): GarbageAges {
  const known = garbageAges.get(writer) ?? new GarbageAges(clock)
  garbageAges.set(writer, known)
  return known
}

/** Removes what left the manifest longer ago than the grace period and no open image reads. */
export async function collectGarbage(
  tools: AgingTools,
  writer: VpgWriter,
  isRead: (key: string) => boolean,
): Promise<boolean> {
  const { config, notify } = tools
  const graceMillis = config.garbageGraceMillis
  const churn = ownChurn.get(writer) ?? new Set<string>()
  const { state } = writer.contents
  const ages = garbageAgesOf(tools, writer)
  const isOld = ({ leftAtMicros }: GarbageObject): boolean => ages.ageMillis(leftAtMicros) >= graceMillis
  const left = state.garbage.filter(object => isOld(object) && !isRead(object.key))
  // Nothing that left comes back; were it otherwise, a lost object would be for ever, one too many is only in the way.
  const live = new Set(left.length === 0 ? [] : objectKeys(state))
  const due = left.filter(({ key }) => !live.has(key))
  if (due.every(({ key }) => churn.has(key))) return false
  const oldestMillis = due.reduce((oldest, { leftAtMicros }) => Math.max(oldest, ages.ageMillis(leftAtMicros)), 0)
  const isAlone = oldestMillis - graceMillis < graceMillis * garbageCompanyShare
  if (isAlone && due.length < removalsPerCommitMax) return false
  const keys = due.slice(0, removalsPerCommitMax).map(({ key }) => key)
  await removeAll(tools, writer, keys)
  const removed = new Set(keys)
  await writer.exclusively(async turn => {
    const { contents } = turn
    const garbage = contents.state.garbage.filter(({ key }) => !removed.has(key))
    await turn.commitManifest({ contents: { ...contents, state: { ...contents.state, garbage } } })
    const known = new Set(garbage.map(({ key }) => key))
    const own = turn.contents.state.garbage.map(({ key }) => key).filter(key => !known.has(key))
    ownChurn.set(writer, new Set([...own, ...[...churn].filter(key => known.has(key))]))
    ages.keep(new Set(turn.contents.state.garbage.map(({ leftAtMicros }) => leftAtMicros)))
  })
  notify('garbageRemoved', { vpg: writer.vpg, objectCount: keys.length })
  return true
}

/**
 * Once after a start: pins of a process that is gone are dropped, but not those of records, and what it created without committing it becomes
 * garbage. While nothing of this process is made that is not committed yet: no merge, no preseed that goes on.
 */
export async function dropFormerProcess(
  tools: AgingTools,
  writer: VpgWriter,
  isOpen: (pinId: string) => boolean,
): Promise<void> {
  const dropping = async (candidates: readonly string[], { contents, commitManifest }: Exclusive): Promise<void> => {
    // What was committed since they were listed is known by now, or has become garbage.
    const known = knownKeys(writer, contents)
    const orphans = candidates.filter(key => !known.has(key))
    const pins = contents.state.pins.filter(pin => isOpen(pin.id) || isPinOfRecord(contents.state, pin))
    if (orphans.length === 0 && pins.length === contents.state.pins.length) return
    await commitManifest({ contents: { ...contents, state: { ...contents.state, pins } }, leftKeys: orphans })
  }
  await writer.making.with(async () => {
    const listing = (signal: AbortSignal): Promise<string[]> => unknownKeys(tools, writer, signal)
    const candidates = await tools.mergePermit.with(() => writer.patience.brief.attempt(listing, tools.signal))
    await writer.exclusively(turn => dropping(candidates, turn))
  })
}

/** What the newest manifest names. */
export function knownKeys(writer: VpgWriter, { state }: VpgContents): ReadonlySet<string> {
  return new Set([...objectKeys(state), ...state.garbage.map(({ key }) => key), ...writer.commits.manifestKeys()])
}

/** What the store has of the VPG that nothing refers to now. */
async function unknownKeys(tools: AgingTools, writer: VpgWriter, signal: AbortSignal): Promise<string[]> {
  const known = knownKeys(writer, writer.contents)
  const unknown: string[] = []
  for await (const { key } of tools.store.list(`${writer.vpg}/`, undefined, signal)) {
    await tools.turns.yieldNow()
    if (!known.has(key)) unknown.push(key)
  }
  return unknown
}

const deletedAges = new WeakMap<VpgWriter, GarbageAges>()

/** Deleted VPGs of which only the manifest is left that says so. */
const emptied = new WeakSet<VpgWriter>()

/**
 * True when nothing of a deleted VPG is left. Its objects go when its grace period is over; the manifest that says "deleted" stays
 * until the log, too, has forgotten the VPG, or a start would find records of a VPG that nobody knows.
 */
export async function removeDeleted(tools: AgingTools, writer: VpgWriter): Promise<boolean> {
  const { clock, config, logFiles, notify, signal } = tools
  const deletedAtMicros = writer.contents.deletedAtMicros
  if (deletedAtMicros === undefined || (emptied.has(writer) && logFiles.has(writer.vpg))) return false
  const ages = deletedAges.get(writer) ?? new GarbageAges(clock)
  deletedAges.set(writer, ages)
  if (ages.ageMillis(deletedAtMicros) < config.garbageGraceMillis) return false
  await writer.checkOwnership()
  const all = await writer.patience.brief.attempt(async each => {
    const keys: string[] = []
    for await (const { key } of tools.store.list(`${writer.vpg}/`, undefined, each)) keys.push(key)
    return keys
  }, signal)
  // The manifest that says "deleted" can be read, root and pages, until all else is gone: a process that dies on the way is
  // followed by one that goes on. The registry object, by which the VPG is found, is the last.
  const manifestKeys = writer.commits.manifestKeys()
  const last = new Set(manifestKeys)
  const others = all.filter(key => !last.has(key))
  await removeAll(tools, writer, others)
  emptied.add(writer)
  if (others.length > 0) notify('garbageRemoved', { vpg: writer.vpg, objectCount: others.length })
  if (logFiles.has(writer.vpg)) return false
  await removeAll(tools, writer, takenKeys(writer.vpg, writer.contents.takeovers)) // nothing is left to be taken
  for (const key of [...manifestKeys, registryKey(writer.vpg)]) await removeAll(tools, writer, [key])
  notify('garbageRemoved', { vpg: writer.vpg, objectCount: manifestKeys.length + 1 })
  return true
}

async function removeAll(tools: AgingTools, writer: VpgWriter, keys: readonly string[]): Promise<void> {
  const permits = new Permits(removalsAtOnce)
  const remove = (key: string): Promise<void> =>
    permits.with(() => writer.patience.brief.attempt(signal => tools.store.remove(key, signal), tools.signal))
  for (let first = 0; first < keys.length; first += removalsPerCommitMax) {
    await Promise.all(keys.slice(first, first + removalsPerCommitMax).map(remove))
  }
}
