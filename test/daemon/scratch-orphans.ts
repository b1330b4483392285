import * as fs from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { ScratchOrphans } from '../../src/daemon/scratch-orphans.ts'
import { eventually } from '../support/nbd-tools.ts'
import { realDisk, realFileCalls, type FileCalls } from '../../src/disk/disk.ts'

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
    new ScratchOrphans({
      file,
      disk: realDisk,
      calls: realFileCalls,
      clock,
      told: (event, facts) => told.push([event, facts]),
    })
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

t.test('of recoveries that have ended elsewhere what is there is removed, and nothing else is remembered', async t => {
  const [left, never] = ['r-0123456789ab', 'r-ffffffffffff']
  const root = path.resolve(t.testdir({ [left]: { 'web-root.scratch': 'what was written' } }))
  const file = path.join(root, 'orphans.json')
  const told: [string, object][] = []
  const orphans = new ScratchOrphans({
    ...{ file, disk: realDisk, calls: realFileCalls, clock: systemClock },
    told: (event, facts) => told.push([event, facts]),
  })
  for (const id of [left, never]) orphans.noteWhereLeft({ id, directory: path.join(root, id) })
  await eventually('it is removed', () => told.length > 0)
  await orphans.settled()
  t.strictSame(told, [['scratchRemoved', { id: left, directory: path.join(root, left) }]])
  t.notOk(fs.existsSync(path.join(root, left)))
  t.match(JSON.parse(fs.readFileSync(file, 'utf8')), { orphans: [] })
  await orphans.close()
})

t.test('a mount that hangs does not keep the daemon from stopping', async t => {
  const id = 'r-0123456789ab'
  const root = path.resolve(t.testdir({ [id]: {} }))
  const told: string[] = []
  let hanging = 0
  const calls: FileCalls = {
    ...realFileCalls,
    open: () => {
      hanging++
      return new Promise(() => undefined)
    },
  }
  const clock = { ...systemClock, after: (_: number, call: () => void) => systemClock.after(0, call) }
  const file = path.join(root, 'orphans.json')
  const orphans = new ScratchOrphans({ file, disk: realDisk, calls, clock, told: event => told.push(event) })
  orphans.note({ id, directory: path.join(root, id) })
  await eventually('it hangs', () => hanging > 0)
  await orphans.close()
  t.strictSame(told, [])
  t.match(fs.readFileSync(file, 'utf8'), id, 'the next process looks again')
})

t.test('a scratch that is gone, and whose directory could not be synced, is forgotten when that can be', async t => {
  const id = 'r-0123456789ab'
  const root = path.resolve(t.testdir({ [id]: {} }))
  const told: string[] = []
  let isFailing = true
  const calls: FileCalls = {
    ...realFileCalls,
    open: (...given) => (isFailing ? Promise.reject(new Error('EIO: the disk failed')) : realFileCalls.open(...given)),
  }
  const clock = { ...systemClock, after: (_: number, call: () => void) => systemClock.after(0, call) }
  const file = path.join(root, 'orphans.json')
  const orphans = new ScratchOrphans({ file, disk: realDisk, calls, clock, told: event => told.push(event) })
  orphans.note({ id, directory: path.join(root, id) })
  await eventually('it is told', () => told.includes('scratchNotRemoved'))
  isFailing = false
  await eventually('it is removed', () => told.includes('scratchRemoved'))
  await orphans.close()
  t.notMatch(fs.readFileSync(file, 'utf8'), id)
})
