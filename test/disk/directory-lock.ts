import { spawn } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { failedWith } from '../../src/base/failure.ts'
import { lockDirectory } from '../../src/disk/directory-lock.ts'

const module = new URL('../../src/disk/directory-lock.js', import.meta.url).href

t.test('a directory belongs to one living process at a time', async t => {
  const directory = t.testdir()
  const script = `import { lockDirectory } from ${JSON.stringify(module)}; lockDirectory(process.argv[1]); console.log('held'); setInterval(() => {}, 1000)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script, directory], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  await once(child.stdout, 'data')
  try {
    lockDirectory(directory)
    t.fail('the second process must be refused')
  } catch (error) {
    t.ok(failedWith(error, 'BUSY'))
    t.match((error as Error).message, String(child.pid), 'it says who holds it')
  }
  child.kill('SIGKILL')
  await once(child, 'exit')
  const unlock = lockDirectory(directory)
  t.pass('a killed process holds nothing')
  unlock()
  t.notOk(fs.existsSync(path.join(directory, 'lock')))
})

t.test('a lock from before a reboot, or torn, is taken over', async t => {
  for (const left of [`${process.ppid} 1 another-boot`, '', 'garbage']) {
    const directory = t.testdir()
    fs.writeFileSync(path.join(directory, 'lock'), left)
    lockDirectory(directory)()
    t.pass(`taken over: "${left}"`)
  }
})
