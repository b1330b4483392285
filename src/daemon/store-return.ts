import type { Catalog } from '../catalog/catalog.ts'
import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import type { Ordinal } from '../base/ids.ts'
import type { OpenedVpg } from '../aging/service.ts'
import type { Ingest } from '../ingest/ingest.ts'
import type { RecoveredLog } from '../journal/journal.ts'
import { loadHistory } from './load-catalog.ts'
import type { Log } from './log.ts'
import { newestOfEachName, reconcile } from './reconcile.ts'
import { VpgEntry, type VpgTable } from './vpg-table.ts'

// A start without the store serves what is remembered of the VPGs, with what the log says. When the store answers, what it says
// takes its place, while agents are connected and checkpoints are being made.

export interface StoreReturnParts {
  readonly catalog: Catalog
  readonly clock: Clock
  readonly ingest: Ingest
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

/** Fails PEER_LOST, so that the daemon is started again, where a VPG went on elsewhere and came back meanwhile. */
export async function takeStore(parts: StoreReturnParts, vpgs: readonly OpenedVpg[]): Promise<void> {
  const { log, table, ingest } = parts
  const { served, replaced } = newestOfEachName(vpgs)
  for (const { definition } of replaced)
    log.error({ vpg: definition.name, id: definition.id }, 'vpgOfSameNameLeftAlone')
  table.storeAway = undefined
  const ids = new Set(served.map(({ definition }) => definition.id))
  for (const { definition, fenced } of table.all()) {
    if (fenced !== undefined || ids.has(definition.id)) continue
    // Deleted, or damaged: that has been told. What its agents sent is in the log.
    log.warn({ vpg: definition.name }, 'vpgNotInStore')
    ingest.removeVpg(definition.id)
    table.remove(definition.id)
  }
  for (const opened of served) {
    const entry = table.get(opened.definition.id)
    if (entry === undefined) await addUnknown(parts, opened)
    else await refresh(parts, entry, opened)
  }
  log.info({ vpgs: served.length }, 'storeOpened')
}

async function addUnknown({ catalog, clock, ingest, table, unknownInLog }: StoreReturnParts, opened: OpenedVpg) {
  const vpgs = reconcile([opened], unknownInLog)
  await loadHistory(catalog, vpgs)
  for (const vpg of vpgs) {
    table.add(new VpgEntry(vpg.opened, clock))
    ingest.addVpg(vpg.ingest)
  }
}

/** The streams are where they were, or further on; what people decided is as the store says. */
async function refresh({ catalog, ingest }: StoreReturnParts, entry: VpgEntry, opened: OpenedVpg): Promise<void> {
  const { definition, epoch, offloaded, segments, checkpoints } = opened
  if (epoch !== entry.epoch)
    throw new Failure('PEER_LOST', `VPG "${definition.name}" is at epoch ${epoch}, and was served at ${entry.epoch}`)
  const isRedefined = JSON.stringify(definition) !== JSON.stringify(entry.definition)
  entry.refresh(opened)
  if (isRedefined) ingest.updateVpg(definition)
  ingest.offloaded(definition.id, offloaded)
  const keepAbove = checkpoints.at(-1)?.ordinal ?? (0 as Ordinal)
  await catalog.loadVpg({ vpg: definition.id, segments, checkpoints, offloaded, keepAbove })
}
