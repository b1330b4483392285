import * as path from 'node:path'
import t from 'tap'
import { Catalog } from '../../src/catalog/catalog.ts'
import { systemClock } from '../../src/base/clock.ts'
import { checkpointOrdinal, ordinal, sequence } from '../../src/base/ids.ts'
import { Checkpoints } from '../../src/daemon/checkpoints.ts'
import { VpgEntry } from '../../src/daemon/vpg-table.ts'
import type { Checkpoint } from '../../src/timeline/checkpoint.ts'
import { openedVpg } from '../support/opened-vpg.ts'

const quiet = { catalogBegunAnew: () => undefined, tailRowsDropped: () => undefined, catalogFailing: () => undefined }

const root = { number: 1, name: 'root', sizeBytes: 4096, stream: 1 }
const data = { number: 2, name: 'data', sizeBytes: 8192, stream: 1 }

/** The data volume is included from checkpoint 4 to 6: it came then, and is being synchronised anew since. */
function checkpoint(counter: number): Checkpoint {
  const included = counter >= 4 && counter <= 6
  return {
    ordinal: checkpointOrdinal(1, counter),
    timestampMicros: counter * 1_000_000,
    historyMillis: counter * 1000,
    vector: [{ stream: 1, generation: 1, sequence: sequence(counter) }],
    volumes: [
      { number: 1, sizeBytes: 4096, included: true },
      { number: 2, sizeBytes: 8192, included },
    ],
  }
}

t.test('what can be recovered is told by volume', async t => {
  const catalog = await Catalog.open({ file: path.join(t.testdir(), 'index.sqlite'), events: quiet })
  t.teardown(() => catalog.close())
  const opened = openedVpg()
  const definition = { ...opened.definition, volumes: [root, data] }
  const entry = new VpgEntry({ ...opened, definition, historyEdge: ordinal(0) }, systemClock)
  const vpg = definition.id
  await catalog.loadVpg({ vpg, segments: [], checkpoints: [1, 2, 3, 4, 5, 6, 7, 8].map(checkpoint), offloaded: [] })
  const checkpoints = new Checkpoints(catalog, { untilIndexed: async () => undefined })
  const found = async (volume: typeof root, reference: string): Promise<number> =>
    (await checkpoints.findFor(entry, volume, reference, 9_000_000)).ordinal - checkpointOrdinal(1, 0)
  t.equal(await found(root, 'latest'), 8)
  t.equal(await found(data, 'latest'), 6, 'the latest that includes it')
  t.equal(await found(data, '1970-01-01T00:00:07.5Z'), 6, 'a time means the newest before it that does')
  t.equal(await found(data, '1.5'), 5)
  const missing = (reference: string, message: RegExp) =>
    t.rejects(found(data, reference), { code: 'CHECKPOINT_MISSING', message }, reference)
  await missing('1.8', /does not include the volume "data": the nearest that does is 1\.6/)
  await missing('1.2', /the nearest that does is 1\.6/)
  await t.rejects(found({ ...data, number: 3 }, '1.8'), { code: 'CHECKPOINT_MISSING', message: /none does yet/ })
  t.equal(
    (await checkpoints.overviews([entry]))[0]?.latestOfAll?.ordinal,
    checkpointOrdinal(1, 6),
    'the RPO counts those of all volumes',
  )
  t.equal((await checkpoints.latest(entry))?.ordinal, checkpointOrdinal(1, 8))
})

t.test('a checkpoint that is not kept any more is missing, and its neighbours are named', async t => {
  const catalog = await Catalog.open({ file: path.join(t.testdir(), 'index.sqlite'), events: quiet })
  t.teardown(() => catalog.close())
  const opened = openedVpg()
  const entry = new VpgEntry({ ...opened, historyEdge: ordinal(0) }, systemClock)
  const vpg = opened.definition.id
  await catalog.loadVpg({ vpg, segments: [], checkpoints: [1, 2, 3, 4, 5, 6].map(checkpoint), offloaded: [] })
  await catalog.thinCheckpoints({ vpg, dropped: [2, 3, 4].map(counter => checkpointOrdinal(1, counter)) })
  t.equal((await catalog.statistics({ vpg })).checkpointCount, 3)
  const checkpoints = new Checkpoints(catalog, { untilIndexed: async () => undefined })
  const missing = { code: 'CHECKPOINT_MISSING', message: /nearest that are kept are 1\.1 of .* and 1\.5 of / }
  await t.rejects(checkpoints.find(entry, '1.3', 9_000_000), missing)
  await t.rejects(checkpoints.find(entry, '1.9', 9_000_000), { message: /nearest that are kept are 1\.6 of / })
  t.equal((await checkpoints.find(entry, '1970-01-01T00:00:04Z', 9_000_000)).ordinal, checkpointOrdinal(1, 1))
  await t.rejects(checkpoints.find(entry, 'befor', 9_000_000), { message: /tagged so; it has no tags/ })
  entry.tags = [{ name: 'before', ordinal: checkpointOrdinal(1, 5), taggedAtMicros: 1 }]
  await t.rejects(checkpoints.find(entry, 'befor', 9_000_000), {
    code: 'CHECKPOINT_MISSING',
    message: /nothing of it is tagged so; its tags are "before"/,
  })
})
