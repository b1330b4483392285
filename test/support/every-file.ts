import { readdirSync } from 'node:fs'
import * as path from 'node:path'
import t from 'tap'

// All test files, each a process of its own. `tap run` would do it, but has every process and thread below it load a module that watches
// what is imported, for a coverage that nobody asks for: a daemon's start then takes twice the processor time.

const filesAtOnce = 2
const fileMillisMax = 600_000
const others = ['support', 'contract']
/** Its files take minutes: what is begun last should not. */
const longest = 'scenario'

const root = path.resolve(import.meta.dirname, '..')

function filesOf(folder: string): string[] {
  return readdirSync(path.join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter(name => name.endsWith('.js'))
    .sort()
    .map(name => path.join(folder, name))
}

const folders = readdirSync(root).filter(folder => !others.includes(folder) && folder !== longest)
const files = [longest, ...folders.sort()].flatMap(filesOf)

const nodeOptions = (process.env['NODE_OPTIONS'] ?? '')
  .split(' ')
  .filter(option => !option.includes('@tapjs/processinfo'))
// tap gives its module to every program that it starts; env(1) takes it back, and becomes the test.
const start = [`NODE_OPTIONS=${nodeOptions.join(' ')}`, process.execPath, '--enable-source-maps']

t.setTimeout(0)
t.jobs = filesAtOnce
for (const name of files) {
  const argv = [...start, path.join(root, name)]
  const options = { name: `dist/test/${name}`, buffered: true, timeout: fileMillisMax, at: null, stack: '' }
  void t.spawn('env', argv, options)
}
