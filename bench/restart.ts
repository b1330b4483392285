import { writeFileSync } from 'node:fs'
import { GiB, MiB } from '../src/base/units.ts'
import { atMost, type Bench } from './bench.ts'
import { rssMaxBytesOf, sendTo, VraProcess } from './processes.ts'

// From the start of a daemon that was killed, with a full journal, to "ready".
//
// Expectation: Node and its modules 0.4 s; of 64 log files only headers of the records are needed, and if every byte is read
// all the same, 4 GiB at 2 to 3 GB/s out of the page cache is 1.5 to 2 s; off a disk of 1 GB/s, 4 s. Under 2 s wants most of the log
// not to be read.

export const restart: Bench = {
  name: 'restart',
  describes: 'time to ready after kill -9 with a journal of 4 GiB',
  async run({ directory, quick, say }) {
    const journalBytes = quick ? 512 * MiB : 4 * GiB
    const streams = 16
    // Nothing is sealed: the whole journal is in the log when the daemon is killed.
    const aging = { segmentSizeBytesTarget: 512 * MiB, segmentAgeMillisMax: 3_600_000, logSizeBytesPressure: 30 * GiB }
    const vra = await VraProcess.start({ directory, aging, journal: { logSizeBytesMax: 40 * GiB } })
    const emptyMillis = vra.readyMillis
    const vpgs = await vra.createVpgs(streams, 16 * GiB)
    say(`filling ${journalBytes / MiB} MiB of journal`)
    await sendTo(vra, vpgs, {
      volumeSizeBytes: 16 * GiB,
      workload: { pattern: 'random', writeSizeBytes: 4096, writesPerBatch: 64, data: 'random' },
      windowBytes: 1 * MiB,
      writeCountMax: journalBytes / 4096,
    })
    await vra.kill()
    await vra.start()
    const warmMillis = vra.readyMillis
    await vra.kill()
    const cold = dropPageCache()
    await vra.start()
    const coldMillis = vra.readyMillis
    const rssMiB = rssMaxBytesOf(vra.processId) / MiB
    await vra.stop()
    const row = [
      journalBytes / MiB,
      emptyMillis / 1000,
      warmMillis / 1000,
      cold ? coldMillis / 1000 : undefined,
      rssMiB,
    ]
    return {
      tables: [
        {
          title: 'Restart after kill -9: from the start of the process until it is ready',
          columns: [
            { name: 'journal MiB', digits: 0 },
            { name: 'empty s', digits: 2 },
            { name: 'page cache warm s', digits: 2 },
            { name: 'page cache cold s', digits: 2 },
            { name: 'RSS max MiB', digits: 0 },
          ],
          rows: [row],
          notes: cold ? [] : ['The page cache could not be dropped: that takes root.'],
        },
      ],
      // A killed process leaves the page cache; a machine that lost power begins with a cold one, and boots first.
      aims: [atMost(`restart after a kill, journal of ${journalBytes / MiB} MiB`, 2, warmMillis / 1000, 's')],
      curves: [],
    }
  },
}

function dropPageCache(): boolean {
  try {
    writeFileSync('/proc/sys/vm/drop_caches', '1')
    return true
  } catch {
    return false
  }
}
