import * as fs from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { ScratchOrphans } from '../../src/daemon/scratch-orphans.ts'
import { realDisk } from '../../src/disk/disk.ts'

t.test('a scratch whose mount is back is removed, by whichever process; what bears another name is not', async t => {
  const root = path.resolve(t.testdir({ mounted: {} }))
  const file = path.join(root, 'orphans.json')
  const told: [string, object][] = []
  const timers: (() => void)[] = []
  const clock = {
    ...systemClock,
    after: (_: number, call: () => void) => {
      timers.push(call)
      return () => void timers.splice(timers.indexOf(call), timers.includes(call) ? 1 : 0)
    },
  }
  const open = () =>
    new ScratchOrphans({ file, disk: realDisk, clock, told: (event, facts) => told.push([event, facts]) })
  const look = async (orphans: ScratchOrphans): Promise<void> => {
    for (const call of timers.splice(0)) call()
    await orphans.settled()
  }
  const [id, directory] = ['r-0123456789ab', path.join(root, 'mounted', 'r-0123456789ab')]
  const first = open()
  t.equal(timers.length, 0, 'nobody looks for nothing')
  first.note({ id, directory })
  first.note({ id: 'r-ffffffffffff', directory: path.join(root, 'mounted', 'somebody') })
  await look(first)
  t.strictSame(told, [], 'it is not there')
  await first.close()

  for (const name of [id, 'somebody']) {
    fs.mkdirSync(path.join(root, 'mounted', name))
    fs.writeFileSync(path.join(root, 'mounted', name, 'web-root.scratch'), 'what was written')
  }
  const second = open()
  await look(second)
  t.strictSame(told, [['scratchRemoved', { id, directory }]])
  t.strictSame(fs.readdirSync(path.join(root, 'mounted')), ['somebody'])
  await second.close()

  fs.writeFileSync(file, '{"orphans"')
  const third = open()
  await look(third)
  await third.close()
  t.equal(told.length, 1, 'a damaged file is no harm')
})
