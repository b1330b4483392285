import type { OpenedVpg } from '../aging/service.ts'
import type { Catalog, CheckpointsAbove } from '../catalog/catalog.ts'
import type { Ordinal, StreamPosition, VpgId } from '../base/ids.ts'
import type { RecoveredLog } from '../journal/journal.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { ReconciledVpg } from './reconcile.ts'

/**
 * Rows on their way to the index at a time: it drops those of the log's tail that it cannot take soon. They are a transaction, for
 * which whoever asks the index something just then waits.
 */
const rowsPerFlush = 1_000

type HistoryIndex = Pick<Catalog, 'loadVpg' | 'dropCheckpointsAbove' | 'addSegment' | 'addCheckpoints' | 'flush'>

/** Makes the index say what the store and the log say of segments and checkpoints: what agents and people ask for at once. */
export async function loadHistory(catalog: HistoryIndex, vpgs: readonly ReconciledVpg[]): Promise<void> {
  await catalog.dropCheckpointsAbove({ vpgs: vpgs.flatMap(({ opened }) => aboveWhatStays(opened) ?? []) })
  for (const { opened, logCheckpoints } of vpgs) {
    const { definition, segments, checkpoints, offloaded, indexedThrough } = opened
    const vpg = definition.id
    if (isKnownInPart(opened)) catalog.addCheckpoints(vpg, checkpoints)
    else if (indexedThrough !== undefined) await addNoted(catalog, opened)
    else await catalog.loadVpg({ vpg, segments, checkpoints, offloaded })
    catalog.addCheckpoints(vpg, logCheckpoints)
  }
  await catalog.flush()
}

/** Undefined where the index is filled anew. */
function aboveWhatStays(opened: OpenedVpg): CheckpointsAbove | undefined {
  const { definition, indexedThrough } = opened
  if (isKnownInPart(opened)) return aboveNewest(opened)
  if (indexedThrough === undefined) return undefined
  // What was only in the log when the index was left is as the log says.
  return { vpg: definition.id, above: indexedThrough, noteFalls: false }
}

function isKnownInPart({ isUnread, rememberedBecause }: OpenedVpg): boolean {
  return isUnread === true || rememberedBecause !== undefined
}

/** What was committed after the index was said to have all. */
export async function addNoted(
  catalog: Pick<Catalog, 'addSegment' | 'addCheckpoints'>,
  { definition, segments, checkpoints, offloaded, indexedThrough }: OpenedVpg,
): Promise<void> {
  const vpg = definition.id
  const since = checkpoints.filter(({ ordinal }) => ordinal !== indexedThrough)
  catalog.addCheckpoints(vpg, since)
  for (const segment of segments) await catalog.addSegment({ vpg, segment, offloaded })
}

/** The same while the store is away: the index goes on from what it said of the store, and says of the log what the log says. */
export async function loadRemembered(catalog: HistoryIndex, vpgs: readonly ReconciledVpg[]): Promise<void> {
  await catalog.dropCheckpointsAbove({ vpgs: vpgs.map(({ opened }) => aboveNewest(opened)) })
  for (const { opened, logCheckpoints } of vpgs)
    catalog.addCheckpoints(opened.definition.id, [...opened.checkpoints, ...logCheckpoints])
  await catalog.flush()
}

/** What the index has up to the newest checkpoint that is known stays, whatever that is. */
function aboveNewest({ definition, checkpoints }: OpenedVpg): CheckpointsAbove {
  // What is known may be behind the note, and the note be none any more by the next start.
  return { vpg: definition.id, above: newestOf(checkpoints), noteFalls: true }
}

function newestOf(checkpoints: readonly Checkpoint[]): Ordinal {
  return checkpoints.at(-1)?.ordinal ?? (0 as Ordinal)
}

/**
 * Makes the index say where the batches of the log's tail are. They may be many, so that is done beside serving: `offloadedOf`
 * says how far a VPG's segments reach by now (undefined: there is no such VPG), since rows of what they hold are not wanted.
 * Stops between two portions when the signal is aborted: the next start does it again.
 */
export async function loadTail(
  catalog: Catalog,
  records: RecoveredLog['records'],
  offloadedOf: (vpg: VpgId) => readonly StreamPosition[] | undefined,
  signal: AbortSignal,
): Promise<void> {
  for (let start = 0; start < records.length && !signal.aborted; start += rowsPerFlush) {
    const rows = records.slice(start, start + rowsPerFlush).filter(record => {
      const offloaded = offloadedOf(record.vpg)
      const position = offloaded?.find(candidate => candidate.stream === record.stream)
      const covered =
        position !== undefined && position.generation === record.generation && record.lastSequence <= position.sequence
      return record.kind === 'batch' && offloaded !== undefined && !covered
    })
    // In one step with the look at what is offloaded: a segment that is committed from now on drops these rows again.
    catalog.addTail(rows)
    await catalog.flush()
  }
}
