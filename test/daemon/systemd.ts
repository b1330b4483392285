import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import * as path from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { SystemdNotifier } from '../../src/daemon/systemd-notify.ts'

const has = (command: string): boolean => spawnSync(command, ['--version']).status === 0
const missing = ['python3', 'systemd-notify'].filter(command => !has(command))
const skip = missing.length === 0 ? false : `${missing.join(' and ')} not installed`

// What systemd does with its socket: prints the lines of every datagram. A barrier's file descriptor is closed, as the protocol asks.
const receiver = `
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(sys.argv[1]); print("bound", flush=True)
while True:
    data, descriptors, _, _ = socket.recv_fds(s, 4096, 8)
    for descriptor in descriptors: os.close(descriptor)
    for line in data.decode().splitlines(): print(line, flush=True)
`

class Receiver {
  readonly socket: string
  readonly lines: string[] = []
  #changed: () => void = () => undefined

  private constructor(socket: string) {
    this.socket = socket
  }

  static async open(t: Test): Promise<Receiver> {
    const received = new Receiver(path.join(mkdtempSync(path.join(tmpdir(), 'vra-notify-')), 'notify')) // a socket's path is at most 107 bytes
    const child = spawn('python3', ['-c', receiver, received.socket], { stdio: ['ignore', 'pipe', 'inherit'] })
    t.teardown(async () => {
      child.kill()
      await once(child, 'exit')
      rmSync(path.dirname(received.socket), { recursive: true })
    })
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      received.lines.push(...text.split('\n').filter(line => line !== ''))
      received.#changed()
    })
    await received.until(lines => lines.includes('bound'))
    received.lines.length = 0
    return received
  }

  async until(reached: (lines: readonly string[]) => boolean): Promise<void> {
    const bound = AbortSignal.timeout(60_000)
    while (!reached(this.lines)) {
      bound.throwIfAborted()
      await new Promise<void>((resolve, reject) => {
        this.#changed = resolve
        bound.addEventListener('abort', () => reject(new Error(`only ${this.lines.join(', ')} arrived`)), {
          once: true,
        })
      })
    }
  }
}

const withPath = (more: Record<string, string>): Record<string, string> => ({
  PATH: process.env['PATH'] ?? '',
  ...more,
})

t.test('systemd is told of readiness, then that the loop lives, then of stopping, in this order', { skip }, async t => {
  const received = await Receiver.open(t)
  const failures: Error[] = []
  const notifier = new SystemdNotifier(withPath({ NOTIFY_SOCKET: received.socket, WATCHDOG_USEC: '200000' }), error =>
    failures.push(error),
  )
  notifier.ready('serving\nagents')
  const alive = setInterval(() => undefined, 1000) // the watchdog's own timer keeps no process running
  await received.until(lines => lines.filter(line => line === 'WATCHDOG=1').length >= 2)
  clearInterval(alive)
  await notifier.close()
  await received.until(lines => lines.includes('STOPPING=1'))
  t.strictSame(received.lines.slice(0, 2), ['READY=1', 'STATUS=serving agents'])
  t.strictSame(failures, [])
})

t.test('a daemon that says it is not alive feeds no watchdog', { skip }, async t => {
  const received = await Receiver.open(t)
  const notifier = new SystemdNotifier(withPath({ NOTIFY_SOCKET: received.socket, WATCHDOG_USEC: '200000' }), error =>
    t.fail(error.message),
  )
  let asked = 0
  const askedTwice = new Promise<void>(resolve => {
    notifier.ready('limping', () => {
      if (++asked === 2) resolve()
      return false
    })
  })
  const alive = setInterval(() => undefined, 1000)
  await askedTwice
  clearInterval(alive)
  await notifier.close()
  await received.until(lines => lines.includes('STOPPING=1'))
  t.notOk(received.lines.includes('WATCHDOG=1'))
})

t.test('without systemd nothing is started; a failure to tell is told', async t => {
  const silent = new SystemdNotifier({ PATH: '/nowhere' }, error => t.fail(error.message))
  silent.ready('x')
  await silent.close()
  const failures: Error[] = []
  const failing = new SystemdNotifier({ PATH: '/nowhere', NOTIFY_SOCKET: '/nowhere/socket' }, error =>
    failures.push(error),
  )
  failing.ready('x')
  await failing.close()
  t.equal(failures.length, 2)
})

const units = ['vra.service', 'vra-agent.service'].map(unit =>
  fileURLToPath(new URL(`../../../systemd/${unit}`, import.meta.url)),
)

t.test(
  'systemd finds nothing wrong with the units',
  { skip: has('systemd-analyze') ? false : 'systemd-analyze is not installed' },
  async t => {
    const verified = spawnSync('systemd-analyze', ['verify', ...units], { encoding: 'utf8' })
    t.equal(verified.status, 0, verified.stderr)
    t.equal(verified.stderr, '')
  },
)
