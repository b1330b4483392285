import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import * as path from 'node:path'
import t, { type Test } from 'tap'
import { claimFile } from '../../src/disk/file-claim.ts'
import { openVolumeFile } from '../../src/disk/disk.ts'

// Invariants: at most one process holds a file, whatever name of it it was given; one that has ended, however, holds nothing.

const module = new URL('../../src/disk/disk.js', import.meta.url).href
const script = `
  import { openVolumeFile } from ${JSON.stringify(module)}
  const file = openVolumeFile(process.argv[1])
  let outcome = 'held'
  try { await file.claim() } catch (error) { outcome = error.code }
  console.log(outcome)
  setInterval(() => {}, 1000)`

/** Another process that tries to claim the file, and stays. */
async function claimer(t: Test, file: string): Promise<{ readonly child: ChildProcess; readonly outcome: string }> {
  const child = spawn(process.execPath, ['--input-type=module', '-e', script, file], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  const [outcome] = (await once(child.stdout, 'data')) as [Buffer]
  return { child, outcome: outcome.toString().trim() }
}

t.test('a file belongs to one living process at a time, whatever name it goes by', async t => {
  const directory = t.testdir({ disk: 'x'.repeat(512), other: 'x'.repeat(512), elsewhere: {} })
  const at = (...names: string[]): string => path.join(directory, ...names)
  fs.symlinkSync(at('disk'), at('elsewhere', 'symbolic'))
  fs.linkSync(at('disk'), at('elsewhere', 'hard'))
  const holder = await claimer(t, at('disk'))
  t.equal(holder.outcome, 'held')
  const refused = { code: 'BUSY', message: /is in use: another agent serves the same file/ }
  for (const name of [['disk'], ['elsewhere', 'symbolic'], ['elsewhere', 'hard']]) {
    const file = openVolumeFile(at(...name))
    await t.rejects(file.claim(), refused, name.join('/'))
    await file.close()
  }
  const other = openVolumeFile(at('other'))
  await other.claim()
  t.pass('another file is free')
  await other.close()
  t.equal((await claimer(t, at('elsewhere', 'hard'))).outcome, 'BUSY')
  holder.child.kill('SIGKILL')
  await once(holder.child, 'exit')
  const file = openVolumeFile(at('elsewhere', 'hard'))
  await file.claim()
  t.pass('a killed process holds nothing')
  t.equal((await claimer(t, at('disk'))).outcome, 'BUSY', 'and the claim is held here now')
  const again = openVolumeFile(at('disk'))
  await t.rejects(again.claim(), refused, 'not even the same process claims it twice')
  await again.close()
  t.equal((await claimer(t, at('disk'))).outcome, 'BUSY', 'closing what was refused lets go of nothing')
  await file.close()
  t.equal((await claimer(t, at('disk'))).outcome, 'held', 'closing what was claimed does')
})

t.test('a file that cannot be claimed is refused in words', async t => {
  const file = path.join(t.testdir({ disk: 'x'.repeat(512) }), 'disk')
  const descriptor = fs.openSync(file, 'r+')
  const refused = (program: string, message: RegExp): Promise<unknown> =>
    t.rejects(claimFile(descriptor, file, program), { code: 'CONFIG_INVALID', message })
  await refused('no-such-program', /cannot be claimed.*flock \(of util-linux, or BusyBox\) is not in the PATH/)
  await refused('sort', /cannot be claimed/)
  fs.closeSync(descriptor)
})

t.test('whoever waits for a claim keeps nobody else waiting', async t => {
  const file = path.join(t.testdir({ disk: 'x'.repeat(512) }), 'disk')
  const descriptor = fs.openSync(file, 'r+')
  let isDone = false
  const claimed = claimFile(descriptor, file).then(() => (isDone = true))
  await new Promise(resolve => setImmediate(resolve))
  t.notOk(isDone, 'the event loop goes on')
  await claimed
  fs.closeSync(descriptor)
})
