import { writeSync } from 'node:fs'
import { systemClock } from '../../src/base/clock.ts'
import { MiB } from '../../src/base/units.ts'
import { Journal } from '../../src/journal/journal.ts'
import { appendLoad, loadVpg, RecordedEvents } from './journal-load.ts'

// A process to be killed: appends to a journal on the real disk as fast as it can, and says what is acknowledged.

const directory = process.argv[2] ?? ''
const journal = await Journal.open({
  directory,
  logSizeBytesMax: 512 * MiB,
  clock: systemClock,
  events: new RecordedEvents(),
  fileSizeBytes: 8 * MiB,
})
writeSync(1, 'open\n')

async function write(stream: number): Promise<void> {
  const found = journal.recovered.streams.find(at => at.vpg === loadVpg && at.stream === stream)
  for (let sequence = (found?.lastSequence ?? 0) + 1; ; sequence++) {
    const acknowledged = sequence
    await appendLoad(journal, stream, acknowledged)
    writeSync(1, `${stream} ${acknowledged}\n`)
  }
}

await Promise.all([1, 2, 3].map(write))
