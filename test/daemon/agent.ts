import * as fs from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { agentConfigFrom } from '../../src/config/config.ts'
import { openAgent } from '../../src/daemon/agent.ts'
import type { Log } from '../../src/daemon/log.ts'

const log = Object.fromEntries(
  ['debug', 'info', 'warn', 'error'].map(level => [level, () => undefined]),
) as unknown as Log

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
