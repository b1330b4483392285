import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import * as net from 'node:net'
import * as os from 'node:os'
import * as path from 'node:path'
import t, { type Test } from 'tap'
import { realDisk } from '../../src/disk/disk.ts'
import { lockDirectory, makeHeldDirectory } from '../../src/disk/directory-lock.ts'

// Invariants: at most one process holds a directory, whatever namespaces it is in; one that has ended, however, holds nothing.

const module = new URL('../../src/disk/directory-lock.js', import.meta.url).href
const script = `
  import { lockDirectory } from ${JSON.stringify(module)}
  const outcome = await lockDirectory(process.argv[1]).then(() => 'held', error => error.code)
  console.log(outcome)
  setInterval(() => {}, 1000)`

/** Another process that tries to lock the directory, and stays. The command, if there is one, goes before it. */
async function locker(
  t: Test,
  directory: string,
  command: readonly string[] = [],
): Promise<{ readonly child: ChildProcess; readonly outcome: string }> {
  const [program = '', ...rest] = [...command, process.execPath, '--input-type=module', '-e', script, directory]
  const child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  const [outcome] = (await once(child.stdout, 'data')) as [Buffer]
  return { child, outcome: outcome.toString().trim() }
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  child.kill(signal)
  await once(child, 'exit')
}

const locksIn = (directory: string): string[] => fs.readdirSync(directory)

t.test('a directory belongs to one living process at a time', async t => {
  const directory = t.testdir()
  const { child, outcome } = await locker(t, directory)
  t.equal(outcome, 'held')
  await t.rejects(lockDirectory(directory), { code: 'BUSY', message: new RegExp(`by process ${child.pid} `) })
  child.kill('SIGSTOP')
  await t.rejects(lockDirectory(directory), { code: 'BUSY' }, 'one that is stopped holds it all the same')
  await end(child, 'SIGKILL')
  const lock = await lockDirectory(directory)
  t.pass('a killed process holds nothing')
  t.equal(locksIn(directory).length, 1, 'what it left is gone')
  await t.rejects(lockDirectory(directory), { code: 'BUSY' }, 'not even the same process holds it twice')
  await lock.close()
  t.same(locksIn(directory), [])
})

const apart = ['unshare', '--pid', '--net', '--mount', '--mount-proc', '--fork', '--kill-child=SIGKILL']
const mayUnshare = spawnSync(apart[0] ?? '', [...apart.slice(1), 'true']).status === 0

t.test(
  'it holds between containers with PIDs and networks of their own',
  { skip: mayUnshare ? false : 'namespaces cannot be made here' },
  async t => {
    const directory = t.testdir()
    const lock = await lockDirectory(directory)
    t.equal((await locker(t, directory, apart)).outcome, 'BUSY')
    await lock.close()
    const inside = await locker(t, directory, apart)
    t.equal(inside.outcome, 'held')
    await t.rejects(lockDirectory(directory), { code: 'BUSY' })
    t.equal((await locker(t, directory, apart)).outcome, 'BUSY', 'nor do two of them hold it')
    await end(inside.child, 'SIGKILL')
    await (await lockDirectory(directory)).close()
    t.pass('it is free when that one has ended')
  },
)

t.test('of many that come at a time at most one gets it, and who comes after they have ended, too', async t => {
  const directory = t.testdir()
  const lockers = await Promise.all(Array.from({ length: 4 }, () => locker(t, directory)))
  const holders = lockers.filter(({ outcome }) => outcome === 'held')
  t.ok(holders.length <= 1, `${holders.length} hold it`)
  for (const { child } of lockers) await end(child, 'SIGKILL')
  const taken = await Promise.allSettled(Array.from({ length: 20 }, () => lockDirectory(directory)))
  t.ok(taken.filter(({ status }) => status === 'fulfilled').length <= 1, 'nor in one process')
  for (const each of taken) if (each.status === 'fulfilled') await each.value.close()
  await (await lockDirectory(directory)).close()
})

t.test('a directory with a long name is locked as well', async t => {
  const directory = path.join(t.testdir(), 'n'.repeat(200), 'm'.repeat(200))
  fs.mkdirSync(directory, { recursive: true })
  const lock = await lockDirectory(directory)
  t.equal((await locker(t, directory)).outcome, 'BUSY')
  await lock.close()
})

t.test('what is no directory, or cannot be made one, is refused in words', async t => {
  const file = path.join(t.testdir({ file: '' }), 'file')
  const refused = { code: 'CONFIG_INVALID', message: /cannot be used/ }
  t.throws(() => makeHeldDirectory(realDisk, file), refused)
  t.throws(() => makeHeldDirectory(realDisk, path.join(file, 'below')), refused)
  await t.rejects(lockDirectory(path.join(file, 'below')), refused)
})

t.test('a directory that takes no socket is refused in words', async t => {
  await t.rejects(lockDirectory('/proc/self'), { code: 'CONFIG_INVALID', message: /\/proc\/self cannot be locked/ })
})

t.test('what a process left that died while it claimed the directory is removed', async t => {
  // The name of a socket is short.
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'vra-'))
  t.teardown(() => fs.rmSync(directory, { recursive: true }))
  const claim = (name: string): string => path.join(directory, `.claim-${name}`)
  for (const name of ['1-dead', '2-new']) {
    const server = net.createServer().listen(claim(name))
    await once(server, 'listening')
    const saved = fs.statSync(claim(name))
    t.ok(saved.isSocket())
    // A process that is killed closes its socket and leaves the name.
    fs.renameSync(claim(name), `${claim(name)}.kept`)
    server.close()
    fs.renameSync(`${claim(name)}.kept`, claim(name))
  }
  fs.utimesSync(claim('1-dead'), 1, 1)
  const lock = await lockDirectory(directory)
  t.same(
    locksIn(directory).filter(name => name.startsWith('.claim-')),
    ['.claim-2-new'],
    'one that may be on its way is left',
  )
  await lock.close()
})
