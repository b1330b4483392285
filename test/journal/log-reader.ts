import t from 'tap'
import { LogReader } from '../../src/journal/log-reader.ts'
import { FaultyDisk } from '../support/faulty-disk.ts'
import { directory, type ModelRecord, Scenario } from '../support/journal-scenario.ts'

for (const seed of [71, 72, 73]) {
  t.test(
    `a reader that tails the log gets every record once, over rotations, errors and recycling (seed ${seed})`,
    async t => {
      const disk = new FaultyDisk()
      const scenario = new Scenario(seed)
      scenario.open(disk)
      const reader = new LogReader({ disk, directory })
      const read = new Map<string, number[]>()
      for (let step = 0; step < 80; step++) {
        if (scenario.random.chance(0.15)) disk.failAt(disk.operationCount + scenario.random.integer(1, 2), 'EIO')
        scenario.append()
        if (scenario.random.chance(0.6)) scenario.work()
        if (scenario.random.chance(0.5)) continue
        const limit = scenario.log?.durable() ?? { fileIdentity: 0, offsetBytes: 0 }
        const sizeBytesMax = scenario.random.integer(1, 40_000)
        for (
          let batch = reader.next(limit, sizeBytesMax);
          batch.records.length > 0;
          batch = reader.next(limit, sizeBytesMax)
        ) {
          t.strictSame(batch.damage, [])
          for (const { header, place } of batch.records) {
            const key = `${header.vpg}/${header.stream}`
            const record: ModelRecord | undefined = scenario.streams.get(key)?.records.get(header.firstSequence)
            if (record === undefined || Buffer.compare(reader.readRecord(place), record.frame) !== 0) {
              t.fail(`step ${step}: ${key} sequence ${header.firstSequence}`)
            }
            read.set(key, [...(read.get(key) ?? []), header.firstSequence])
          }
        }
        t.equal(reader.position().fileIdentity, limit.fileIdentity, 'it has reached the mark')
        if (step > 20 && scenario.random.chance(0.4)) scenario.freeOne()
        for (const [key, stream] of scenario.streams) {
          const expected = [...stream.records.keys()].filter(first => first <= stream.lastAcknowledged)
          t.strictSame(read.get(key) ?? [], expected, `step ${step}: ${key}`)
        }
      }
      reader.close()
      t.ok(disk.openCount() <= 1, 'no file stays open')
    },
  )
}
