import t from 'tap'
import { listLogFiles, logFilePath } from '../../src/journal/log-file.ts'
import { scanLog } from '../../src/journal/recovery.ts'
import { FaultyDisk } from '../support/faulty-disk.ts'
import { Random } from '../support/journal-random.ts'
import { directory, Scenario } from '../support/journal-scenario.ts'

t.test('a failed sync ends the file where it was durable, and its group stands in the next one only', async t => {
  const disk = new FaultyDisk()
  const scenario = new Scenario(41)
  scenario.open(disk)
  scenario.work()
  scenario.append()
  const before = scenario.log?.durable()
  disk.failAt(disk.operationCount + 2, 'EIO') // the next append: a write, then the sync
  t.ok(scenario.append())
  t.strictSame(scenario.events, ['rotated', 'disk failed', 'rotated'])
  const after = scenario.log?.durable()
  t.ok((after?.fileIdentity ?? 0) > (before?.fileIdentity ?? 0))
  const { recovered, endsBytes } = scanLog(disk, directory)
  t.equal(endsBytes.get(before?.fileIdentity ?? 0), before?.offsetBytes)
  t.strictSame(recovered.damage, [])
  t.equal(recovered.tornTail, undefined, 'the failed group is readable in the first file, and does not count')
})

t.test('a full disk keeps the group, and the same group is durable once there is space', async t => {
  const disk = new FaultyDisk()
  const scenario = new Scenario(42)
  scenario.open(disk)
  // Nothing is prepared, so the first group needs a new file: its header cannot be written.
  for (let operation = 1; operation <= 4; operation++) disk.failAt(disk.operationCount + operation, 'ENOSPC')
  t.ok(scenario.append())
  t.ok(scenario.events.includes('JOURNAL_FULL'))
  t.equal(scenario.events.at(-1)?.startsWith('rotated'), true)
  scenario.open(disk.crash(new Random(42)))
})

t.test('a file that was created in need is left as soon as a prepared one is there', async t => {
  const disk = new FaultyDisk()
  const scenario = new Scenario(43)
  scenario.open(disk)
  scenario.append()
  t.strictSame(scenario.events, ['rotated to a growing file'])
  const growing = scenario.log?.durable().fileIdentity ?? 0
  scenario.append()
  t.equal(scenario.log?.durable().fileIdentity, growing)
  scenario.work() // what was prepared has a lower identity than the growing file, and is prepared again
  scenario.work()
  scenario.append()
  t.strictSame(scenario.events, ['rotated to a growing file', 'rotated'])
  scenario.open(disk.crash(new Random(43)))
})

t.test('freed files come back as new ones, and no more than the pool may keep are kept', async t => {
  const disk = new FaultyDisk()
  const scenario = new Scenario(44)
  scenario.open(disk)
  for (let round = 0; round < 60; round++) {
    scenario.work()
    scenario.append()
    if (round > 20) scenario.freeOne()
  }
  scenario.work()
  const live = listLogFiles(disk, directory)
  const spare = listLogFiles(disk, directory, 'free')
  t.ok(Math.max(...live) > 15, 'identities rise')
  t.ok(
    live.length + spare.length < 12,
    `${live.length} files and ${spare.length} spares: the same blocks were used again`,
  )
  t.equal(scenario.events.includes('rotated to a growing file'), false, 'a file was always ready')
  t.equal(disk.openCount() <= 1, true, 'only the open file is open')
})

t.test('a byte that rots in the last group before a clean stop is damage, not a torn tail', async t => {
  const disk = new FaultyDisk()
  const scenario = new Scenario(45)
  scenario.open(disk)
  scenario.append()
  scenario.append()
  scenario.log?.close()
  const last = scanLog(disk, directory).recovered.records.at(-1)
  t.ok(last)
  if (last === undefined) return
  disk.flip(logFilePath(directory, last.fileIdentity), last.offsetBytes)
  const { damage, tornTail } = scanLog(disk, directory).recovered
  t.equal(damage.length, 1)
  t.equal(damage[0]?.offsetBytes, last.offsetBytes)
  t.equal(tornTail, undefined)
})
