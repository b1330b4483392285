import { spawn } from 'node:child_process'
import { once } from 'node:events'
import * as path from 'node:path'
import { createInterface } from 'node:readline'
import t from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { MiB } from '../../src/base/units.ts'
import { realDisk } from '../../src/disk/disk.ts'
import { Journal, verifyLog } from '../../src/journal/journal.ts'
import { LogReader } from '../../src/journal/log-reader.ts'
import { loadFrame, RecordedEvents } from '../support/journal-load.ts'
import { Random } from '../support/journal-random.ts'

const roundCount = 5

/** Kills the process with no warning once it has acknowledged so many records; returns the last of each stream. */
async function killUnderLoad(directory: string, acknowledgedCount: number): Promise<Map<number, number>> {
  const program = path.join(import.meta.dirname, '../support/journal-child.js')
  const child = spawn(process.execPath, [program, directory], { stdio: ['ignore', 'pipe', 'inherit'] })
  const acknowledged = new Map<number, number>()
  let count = 0
  for await (const line of createInterface(child.stdout)) {
    const [stream, sequence] = line.split(' ').map(Number)
    if (stream === undefined || sequence === undefined) continue
    acknowledged.set(stream, sequence)
    if (++count === acknowledgedCount) child.kill('SIGKILL')
  }
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  return acknowledged
}

t.test('a process that is killed under load keeps every record that it acknowledged, round after round', async t => {
  const directory = t.testdir()
  const random = new Random(21)
  for (let round = 1; round <= roundCount; round++) {
    const acknowledged = await killUnderLoad(directory, random.integer(1, 250))
    t.ok(acknowledged.size > 0, `round ${round}: it was writing`)
    const events = new RecordedEvents()
    const journal = await Journal.open({
      directory,
      logSizeBytesMax: 512 * MiB,
      clock: systemClock,
      events,
      fileSizeBytes: 8 * MiB,
    })
    const { records, streams, damage } = journal.recovered
    t.strictSame(damage, [], `round ${round}: no damage`)
    for (const [stream, sequence] of acknowledged) {
      const at = streams.find(found => found.stream === stream)
      t.ok(at !== undefined && at.lastSequence >= sequence, `round ${round}: stream ${stream} reaches ${sequence}`)
      const sequences = records.filter(record => record.stream === stream).map(record => record.firstSequence)
      t.strictSame(
        sequences,
        Array.from(sequences, (_, index) => index + 1),
        'in order, once, without a gap',
      )
    }
    const reader = new LogReader({ disk: realDisk, directory })
    const wrong = records.filter(
      record => Buffer.compare(reader.readRecord(record), loadFrame(record.stream, record.firstSequence)) !== 0,
    )
    t.strictSame(wrong, [], `round ${round}: all ${records.length} records are as they were written`)
    reader.close()
    await journal.close()
  }
  const totals = verifyLog(realDisk, directory, fault => t.fail(fault.sentence))
  t.ok(totals.recordCount > 0 && totals.faultCount === 0, `${totals.recordCount} records verified`)
})
