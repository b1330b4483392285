import { randomFillSync } from 'node:crypto'
import * as fs from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { GiB, KiB, MiB } from '../../src/base/units.ts'
import { pause, until } from '../support/scenario-role.ts'
import { Scrape } from '../support/scenario-metrics.ts'
import { Sender } from '../support/scenario-sender.ts'
import { Scenario } from '../support/scenario-site.ts'
import { below, seededRandom } from '../support/wire-samples.ts'

// Ingest goes on while everything ages: the log stays within its bound, its files are used again, deltas and base regions come to be,
// and every retained checkpoint is the model.

const seed = 20_261_202
const random = seededRandom(seed)
const volume = { vpg: 'raw', agent: 'sender', volume: 'disk', sizeBytes: 8 * MiB }
const logSizeBytesMax = 256 * MiB
const batchCount = 560
const batchesPerCheckpoint = 40
const unackedCountMax = 16

/** 768 KiB that do not compress. */
function writeBatch(sender: Sender): void {
  sender.writeExactly(
    [0, 1, 2].map(() => {
      const data = Buffer.allocUnsafe(256 * KiB)
      randomFillSync(data)
      return {
        volume: 1,
        offsetBytes: 512 * below(random, (volume.sizeBytes - data.length) / 512),
        lengthBytes: data.length,
        data,
      }
    }),
  )
}

t.test(`some hundred MiB through a log of ${logSizeBytesMax / MiB} MiB (seed ${seed})`, async t => {
  const scenario = await Scenario.make(t, {
    journal: '{ logSizeBytesMax: 256 MiB }',
    aging:
      '{ segmentSizeBytesTarget: 4 MiB, segmentAgeMillisMax: 500, foldSizeBytesMin: 4 MiB, garbageGraceMillis: 500, deltaShareMax: 0.3, logSizeBytesPressure: 128 MiB }',
  })
  await scenario.startVra()
  await scenario.createVpg({ agentId: 'sender', vpg: 'raw', volumes: { disk: volume.sizeBytes } })
  const sender = new Sender(scenario.agentsPort, volume, random)
  t.teardown(() => sender.close())
  await sender.connect()

  let logSizeBytesSeenMax = 0
  let memorySizeBytesSeenMax = 0
  const logDirectory = path.join(scenario.dataDirectory, 'log')
  const look = async (): Promise<void> => {
    const scrape = await Scrape.of(scenario.controlUrl)
    logSizeBytesSeenMax = Math.max(logSizeBytesSeenMax, scrape.value('vra_journal_log_bytes') ?? Infinity)
    memorySizeBytesSeenMax = Math.max(memorySizeBytesSeenMax, scrape.value('process_resident_memory_bytes') ?? Infinity)
  }
  for (let count = 1; count <= batchCount; count++) {
    await until('room in the queue', () => sender.unackedCount < unackedCountMax)
    writeBatch(sender)
    if (count % batchesPerCheckpoint === 0) {
      sender.mark()
      await look()
    }
    await pause(1)
  }
  await sender.untilAcked()
  await scenario.untilVpg('raw', 'all is aged', ({ mirror: { unsealedSizeBytes, deltaCount, baseSizeBytes } }) => {
    return unsealedSizeBytes === 0 && deltaCount > 0 && baseSizeBytes > 0
  })
  await look()
  await until('garbage has left', async () => {
    return ((await Scrape.of(scenario.controlUrl)).value('vra_garbage_objects_removed_total', 'raw') ?? 0) > 0
  })
  t.same([...sender.faults, ...sender.errors], [])

  const scrape = await Scrape.of(scenario.controlUrl)
  const value = (name: string, vpg?: string): number => scrape.value(name, vpg) ?? NaN
  t.ok(logSizeBytesSeenMax <= logSizeBytesMax, `the log took ${logSizeBytesSeenMax / MiB} MiB at most`)
  const rotations = value('vra_journal_file_rotations_total')
  const identities = fs.readdirSync(logDirectory).map(name => Number.parseInt(name, 10))
  t.ok(rotations >= 6, `${rotations} log files were written`)
  t.ok(identities.length < rotations + 2, `in ${identities.length} files: they are used again`)
  t.ok(value('vra_journal_group_bytes_total') > 1.5 * logSizeBytesMax, 'far more was written than the log may hold')
  t.ok(value('vra_segments_committed_total', 'raw') > 20)
  t.ok(value('vra_folds_total', 'raw') > 0)
  t.ok(value('vra_regions_rewritten_total', 'raw') > 0)
  t.ok(value('vra_aging_lag_bytes', 'raw') < 1 * MiB)
  t.ok(value('vra_deltas', 'raw') > 0 && value('vra_base_regions', 'raw') > 0)
  t.equal(value('vra_damage_found_total', 'raw'), 0)
  t.ok(memorySizeBytesSeenMax < 1.5 * GiB, `the daemon took ${Math.round(memorySizeBytesSeenMax / MiB)} MiB at most`)

  const { checkpoints } = await scenario.control.listCheckpoints({ vpg: 'raw', limit: 100, order: 'oldest-first' })
  t.equal(checkpoints.length, batchCount / batchesPerCheckpoint)
  for (const { checkpoint } of checkpoints) {
    const file = await scenario.exported('raw', 'disk', checkpoint)
    const reference = sender.references.get(Number(checkpoint.split('.')[1])) ?? Buffer.alloc(0)
    t.ok(fs.readFileSync(file).equals(reference), `checkpoint ${checkpoint} is the model`)
    fs.rmSync(file)
  }
  const verified = await scenario.cli('mirror', 'verify')
  t.equal(verified.status, 0, verified.stdout)
})
