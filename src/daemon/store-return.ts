import type { Catalog } from '../catalog/catalog.ts'
import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import type { Ordinal, VpgId } from '../base/ids.ts'
import type { OpenedVpg } from '../aging/service.ts'
import type { Ingest } from '../ingest/ingest.ts'
import type { RecoveredLog } from '../journal/journal.ts'
import { addNoted } from './load-catalog.ts'
import type { Log } from './log.ts'
import { newestOfEachName, reconcile } from './reconcile.ts'
import { VpgEntry, type VpgTable } from './vpg-table.ts'

// A start without the store serves what is remembered of the VPGs, with what the log says. When the store answers, what it says
// takes its place, while agents are connected and checkpoints are being made.
//
//   storeOpened ──> takeStore: all of memory in one step │ then the index, VPG by VPG │ then aging starts
//                                                        └─ people's changes are refused ─┘
//
// Until aging starts nothing leaves a history and nothing is sealed, so what the store said is not old when the index has it.

export interface StoreReturnParts {
  readonly catalog: Pick<Catalog, 'loadVpg' | 'addCheckpoints' | 'addSegment'>
  readonly clock: Clock
  readonly ingest: Pick<Ingest, 'addVpg' | 'removeVpg' | 'updateVpg' | 'offloaded'>
  readonly log: Log
  readonly table: VpgTable
  /** What the log held at the start of VPGs that nothing was remembered of. */
  readonly unknownInLog: RecoveredLog
}

/** What stands in the log of VPGs other than these: all that is needed to serve them, should the store have them. */
export function recoveredOfOthers(recovered: RecoveredLog, known: readonly OpenedVpg[]): RecoveredLog {
  const ids = new Set(known.map(({ definition }) => definition.id))
  return {
    ...recovered,
    records: [],
    streams: recovered.streams.filter(({ vpg }) => !ids.has(vpg)),
    markers: recovered.markers.filter(({ header }) => !ids.has(header.vpg)),
  }
}

/**
 * Before it first waits, all that memory has of the VPGs is as the store says, but for those that another appliance has taken since; on return the index
 * says the same, and changes are allowed again. Fails PEER_LOST, so that the daemon is started again, where a VPG went on elsewhere and came
 * back meanwhile.
 */
export async function takeStore(parts: StoreReturnParts, vpgs: readonly OpenedVpg[]): Promise<void> {
  const { log, table } = parts
  const { served, replaced } = newestOfEachName(vpgs)
  for (const opened of served) refuseOtherEpoch(table.get(opened.definition.id), opened)
  for (const { definition } of replaced)
    log.error({ vpg: definition.name, id: definition.id }, 'vpgOfSameNameLeftAlone')
  table.storeAway = undefined
  table.isTakingStore = true
  const ids = new Set(served.map(({ definition }) => definition.id))
  for (const { definition, fenced } of table.all()) {
    if (fenced !== undefined || ids.has(definition.id) || table.waiting.has(definition.id)) continue
    // Deleted, or damaged: that has been told. What its agents sent is in the log.
    log.warn({ vpg: definition.name }, 'vpgNotInStore')
    letGo(parts, definition.id)
  }
  const loads = served.map(opened => {
    const entry = table.get(opened.definition.id)
    return entry === undefined ? addUnknown(parts, opened) : refresh(parts, entry, opened)
  })
  for (const load of loads) await load()
  table.isTakingStore = false
}

/**
 * A VPG that the store did not give at the start is taken as takeStore takes all; undefined: it has gone, or is another appliance's, which was told. False
 * where it is not served.
 */
export async function takeVpg(parts: StoreReturnParts, id: VpgId, opened: OpenedVpg | undefined): Promise<boolean> {
  const { log, table } = parts
  const entry = table.get(id)
  table.waiting.delete(id)
  if (opened === undefined) {
    if (entry === undefined || entry.fenced !== undefined) return false
    log.warn({ vpg: entry.definition.name }, 'vpgNotInStore')
    letGo(parts, id)
    return false
  }
  const { name } = opened.definition
  refuseOtherEpoch(entry, opened)
  const namesake = entry === undefined ? table.all().find(({ definition }) => definition.name === name) : undefined
  if (namesake !== undefined) {
    // As at a start the newer one is served: it is the one that agents know.
    const isNewer = namesake.definition.createdAtMicros < opened.definition.createdAtMicros
    const left = isNewer ? namesake.definition.id : id
    log.error({ vpg: name, id: left }, 'vpgOfSameNameLeftAlone')
    if (!isNewer) return false
    letGo(parts, left)
  }
  await (entry === undefined ? addUnknown(parts, opened) : refresh(parts, entry, opened))()
  return true
}

/** It is not served any more. */
function letGo({ ingest, table }: StoreReturnParts, id: VpgId): void {
  ingest.removeVpg(id)
  table.remove(id)
}

/** What is left to do of one VPG: its rows of the index. */
type Load = () => Promise<void>

function refuseOtherEpoch(entry: VpgEntry | undefined, { definition, epoch }: OpenedVpg): void {
  if (entry === undefined || entry.fenced !== undefined || entry.epoch === epoch) return
  throw new Failure('PEER_LOST', `VPG "${definition.name}" is at epoch ${epoch}, and was served at ${entry.epoch}`)
}

function addUnknown({ catalog, clock, ingest, table, unknownInLog }: StoreReturnParts, opened: OpenedVpg): Load {
  const vpgs = reconcile([opened], unknownInLog)
  const entry = new VpgEntry(opened, clock)
  table.add(entry)
  for (const vpg of vpgs) ingest.addVpg(vpg.ingest)
  return indexing(entry, async () => {
    await loadIndex(catalog, opened)
    for (const { logCheckpoints } of vpgs) catalog.addCheckpoints(opened.definition.id, logCheckpoints)
  })
}

/** The streams are where they were, or further on; what people decided is as the store says. */
function refresh({ catalog, ingest }: StoreReturnParts, entry: VpgEntry, opened: OpenedVpg): Load {
  const { definition, offloaded } = opened
  if (entry.fenced !== undefined) return async () => undefined // ingest has let go of it, for good
  if (opened.rememberedBecause !== undefined) return async () => void entry.refresh(opened)
  const isRedefined = JSON.stringify(definition) !== JSON.stringify(entry.definition)
  entry.refresh(opened)
  if (isRedefined) ingest.updateVpg(definition)
  ingest.offloaded(definition.id, offloaded)
  return indexing(entry, () => loadIndex(catalog, opened))
}

/** Until the load has settled no note of the VPG is kept: aging goes on with it meanwhile, and notes what the index does not have yet. */
function indexing(entry: VpgEntry, load: Load): Load {
  entry.isBeingIndexed = true
  return async () => {
    await load()
    entry.isBeingIndexed = false
  }
}

/** Beside the checkpoints that agents make meanwhile. */
async function loadIndex(catalog: StoreReturnParts['catalog'], opened: OpenedVpg): Promise<void> {
  const { definition, offloaded, segments, checkpoints, indexedThrough, isUnread, rememberedBecause } = opened
  if (isUnread === true || rememberedBecause !== undefined) return catalog.addCheckpoints(definition.id, checkpoints)
  if (indexedThrough !== undefined) return await addNoted(catalog, opened) // and nothing has left it since
  const keepAbove = checkpoints.at(-1)?.ordinal ?? (0 as Ordinal)
  await catalog.loadVpg({ vpg: definition.id, segments, checkpoints, offloaded, keepAbove })
}
