import type { Catalog } from '../catalog/catalog.ts'
import type { RecoveredLog } from '../journal/journal.ts'
import type { ReconciledVpg } from './reconcile.ts'

/** Rows on their way to the index at a time: it drops those of the log's tail that it cannot take soon. */
const rowsPerFlush = 20_000

/** Makes the index say what the store and the log say. */
export async function loadCatalog(
  catalog: Catalog,
  vpgs: readonly ReconciledVpg[],
  records: RecoveredLog['records'],
): Promise<void> {
  for (const { opened, logCheckpoints } of vpgs) {
    const { definition, segments, checkpoints, offloaded } = opened
    await catalog.loadVpg({ vpg: definition.id, segments, checkpoints, offloaded })
    catalog.addCheckpoints(definition.id, logCheckpoints)
  }
  const known = new Map(vpgs.map(({ opened }) => [opened.definition.id, opened.offloaded]))
  const rows = records.filter(record => {
    const position = known.get(record.vpg)?.find(candidate => candidate.stream === record.stream)
    const covered =
      position !== undefined && position.generation === record.generation && record.lastSequence <= position.sequence
    return record.kind === 'batch' && known.has(record.vpg) && !covered
  })
  for (let start = 0; start < rows.length; start += rowsPerFlush) {
    catalog.addTail(rows.slice(start, start + rowsPerFlush))
    await catalog.flush()
  }
  await catalog.flush()
}
