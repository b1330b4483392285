import * as fs from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { agentConfigFrom } from '../../src/config/config.ts'
import { openVolumeFile, type OpenVolumeFile } from '../../src/disk/disk.ts'
import { openAgent } from '../../src/daemon/agent.ts'
import type { Log } from '../../src/daemon/log.ts'

const log = Object.fromEntries(
  ['debug', 'info', 'warn', 'error'].map(level => [level, () => undefined]),
) as unknown as Log

t.test('an agent whose disk hangs at its stop says what it waits for, and ends within its bound', async t => {
  const directory = t.testdir({ disk: Buffer.alloc(1024 * 1024) })
  const config = agentConfigFrom({
    ...{ agentId: 'host1', vpg: 'web', vra: { host: '127.0.0.1', port: 1 } },
    stateDirectory: path.join(directory, 'state'),
    ...{ nbd: { port: 0 }, control: { port: 0 } },
    volumes: [{ name: 'disk', path: path.join(directory, 'disk') }],
  })
  const told: unknown[] = []
  const fatal = (facts: object, event: string): void => void told.push({ event, ...facts })
  const stop = new AbortController()
  let answer = (): void => undefined
  const answered = new Promise<void>(resolve => (answer = resolve))
  // A disk that hangs once, until it is told not to: in a process of its own it would do so for ever.
  const openHanging: OpenVolumeFile = file => {
    const opened = openVolumeFile(file)
    const sync = opened.sync.bind(opened)
    opened.sync = () => answered.then(sync)
    return opened
  }
  const runAtDeath = () => {
    const state = JSON.parse(fs.readFileSync(path.join(directory, 'state', 'state.json'), 'utf8')) as { run?: object }
    return state.run
  }
  const ended = openAgent(config, { ...log, fatal } as unknown as Log, () => stop.abort(), {
    ...{ signal: stop.signal, readConfig: undefined, stopMillisMax: 200, openVolumeFile: openHanging },
    die: () => {
      told.push('died', runAtDeath())
      answer()
    },
  })
  await ended
  t.match(told, [{ event: 'agentStopHangs', waitsFor: 'the disk of disk, to be synced' }, 'died', { exact: undefined }])
})

t.test('a SIGHUP that comes while the agent starts has the volumes read again when it is there', async t => {
  const directory = t.testdir({ disk: Buffer.alloc(1024 * 1024) })
  const config = agentConfigFrom({
    agentId: 'host1',
    vpg: 'web',
    vra: { host: '127.0.0.1', port: 1 },
    stateDirectory: path.join(directory, 'state'),
    nbd: { port: 0 },
    control: { port: 0 },
    volumes: [{ name: 'disk', path: path.join(directory, 'disk') }],
  })
  const stop = new AbortController()
  let readCount = 0
  const readConfig = () => {
    readCount++
    return config
  }
  const ended = openAgent(config, log, () => stop.abort(), { signal: stop.signal, readConfig })
  t.equal(process.listenerCount('SIGHUP') > 0, true, 'it ends nothing')
  process.emit('SIGHUP')
  t.equal(readCount, 0)
  await ended
  t.equal(readCount, 1)
  t.ok(fs.existsSync(path.join(directory, 'state')))
})
