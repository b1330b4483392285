import { closeSync, fdatasyncSync, ftruncateSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs'
import * as net from 'node:net'
import * as path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { AgentStatusReport } from '../src/agent/agent.ts'
import { MiB } from '../src/base/units.ts'
import { DataGenerator, type DataKind } from './data.ts'
import { agentName, freePort, StayingProcess, volumeName } from './processes.ts'

// What serves a disk over NBD here: this program's agent, and those that it is compared with.

const program = path.resolve(import.meta.dirname, '../src/cli/vra.js')
const waitMillisMax = 600_000
/** Of what it takes, what holds may be noticed so late: to answer a hundred times a second would cost the agent more than some of what is measured. */
const lateShare = 0.03

/** A raw disk; data in pieces of 64 MiB at these places, holes between them. Synced. */
export function makeDisk(file: string, sizeBytes: number, kind: DataKind, places: readonly number[]): void {
  const pattern = Buffer.alloc(64 * MiB)
  new DataGenerator(kind, 1).fill(pattern)
  const disk = openSync(file, 'w')
  ftruncateSync(disk, sizeBytes)
  for (const at of places) writeSync(disk, pattern, 0, Math.min(pattern.length, sizeBytes - at), at)
  fdatasyncSync(disk)
  closeSync(disk)
}

/** Where the pieces of a disk are that holds nothing but data. */
export function everywhere(sizeBytes: number): number[] {
  return Array.from({ length: Math.ceil(sizeBytes / (64 * MiB)) }, (_, index) => index * 64 * MiB)
}

/** `nbdkit file`. */
export class NbdkitServer {
  readonly uri: string
  readonly #process: StayingProcess

  private constructor(uri: string, process: StayingProcess) {
    this.uri = uri
    this.#process = process
  }

  static async start(directory: string, disk: string): Promise<NbdkitServer> {
    const port = await freePort()
    const argv = ['nbdkit', '-f', '-i', '127.0.0.1', '-p', String(port), 'file', disk]
    const server = new NbdkitServer(
      `nbd://127.0.0.1:${port}`,
      new StayingProcess(argv, path.join(directory, 'nbdkit.log')),
    )
    await untilListening(port)
    return server
  }

  /** It waits for its clients where it is asked politely. */
  async stop(): Promise<void> {
    await this.#process.stop('SIGKILL')
  }
}

/** A disk that QEMU serves, and mirrors in the background from one `nbdkit file` to another. */
export class QemuMirror {
  readonly uri: string
  readonly #parts: readonly { stop(): Promise<void> }[]

  private constructor(uri: string, parts: readonly { stop(): Promise<void> }[]) {
    this.uri = uri
    this.#parts = parts
  }

  static async start(directory: string, disk: string, copy: string): Promise<QemuMirror> {
    const [source, target] = [await NbdkitServer.start(directory, disk), await NbdkitServer.start(directory, copy)]
    const port = await freePort()
    const monitor = path.join(directory, 'qmp')
    const node = (name: string, { uri }: NbdkitServer): string => {
      const address = `server.type=inet,server.host=127.0.0.1,server.port=${new URL(uri).port}`
      return `driver=nbd,node-name=${name},${address}`
    }
    const argv = [
      ...['qemu-storage-daemon', '--blockdev', node('source', source), '--blockdev', node('target', target)],
      ...['--nbd-server', `addr.type=inet,addr.host=127.0.0.1,addr.port=${port}`],
      ...['--export', `type=nbd,id=export,node-name=source,name=${volumeName},writable=on`],
      ...['--chardev', `socket,path=${monitor},server=on,wait=off,id=monitor`, '--monitor', 'chardev=monitor'],
    ]
    const daemon = new StayingProcess(argv, path.join(directory, 'qemu.log'))
    await untilListening(port)
    const job = { 'job-id': 'mirror', device: 'source', target: 'target', sync: 'none', 'copy-mode': 'background' }
    await askQemu(monitor, [{ execute: 'qmp_capabilities' }, { execute: 'blockdev-mirror', arguments: job }])
    const parts = [{ stop: () => daemon.stop('SIGKILL') }, source, target]
    return new QemuMirror(`nbd://127.0.0.1:${port}/${volumeName}`, parts)
  }

  async stop(): Promise<void> {
    for (const part of this.#parts) await part.stop()
  }
}

/** This program's agent as it is deployed. */
export class AgentProcess {
  readonly uri: string
  readonly process: StayingProcess
  readonly #statusUrl: string

  private constructor(process: StayingProcess, nbdPort: number, controlPort: number) {
    this.process = process
    this.uri = `nbd://127.0.0.1:${nbdPort}/${volumeName}`
    this.#statusUrl = `http://127.0.0.1:${controlPort}/v1/status`
  }

  /** Returns when guests may connect. */
  static async start(directory: string, disk: string, vraPort: number): Promise<AgentProcess> {
    mkdirSync(directory, { recursive: true })
    const [nbdPort, controlPort] = [await freePort(), await freePort()]
    const config = path.join(directory, 'agent.yaml')
    const contents = {
      agentId: agentName,
      vpg: 'bench-0',
      vra: { port: vraPort },
      stateDirectory: path.join(directory, 'agent-state'),
      nbd: { port: nbdPort },
      control: { port: controlPort },
      volumes: [{ name: volumeName, path: disk }],
      log: { level: 'info', format: 'json' },
    }
    writeFileSync(config, JSON.stringify(contents)) // JSON is YAML
    const process = StayingProcess.ofNode([program, 'protect', '--config', config], path.join(directory, 'agent.log'))
    await process.untilSaid(/"agentReady"/)
    return new AgentProcess(process, nbdPort, controlPort)
  }

  async status(): Promise<AgentStatusReport> {
    return (await (await fetch(this.#statusUrl)).json()) as AgentStatusReport
  }

  /** Until nothing is to be synchronised and everything that was sent is durable. */
  async untilSynced(): Promise<void> {
    await this.until(({ stream, queuedBytes, volumes: [volume] }) => {
      return stream === 'exact' && queuedBytes === 0 && volume?.sync === 'none'
    })
  }

  async until(holds: (status: AgentStatusReport) => boolean): Promise<void> {
    const startMillis = performance.now()
    while (!holds(await this.status())) {
      const waitedMillis = performance.now() - startMillis
      if (waitedMillis > waitMillisMax) throw new Error(`the agent: ${JSON.stringify(await this.status())}`)
      await delay(Math.max(10, lateShare * waitedMillis))
    }
  }

  async stop(): Promise<void> {
    await this.process.stop('SIGKILL')
  }
}

async function untilListening(port: number): Promise<void> {
  for (let tries = 0; tries < 1_000; tries++) {
    const listens = await new Promise<boolean>(resolve => {
      const probe = net.connect(port, '127.0.0.1', () => probe.end(() => resolve(true)))
      probe.on('error', () => resolve(false))
    })
    if (listens) return
    await delay(10)
  }
  throw new Error(`nobody listens at port ${port}`)
}

/** Throws what QEMU says against one of the commands. */
function askQemu(monitor: string, commands: readonly object[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(monitor)
    let answerCount = 0
    let text = ''
    socket.on('error', reject)
    socket.on('connect', () => {
      for (const command of commands) socket.write(JSON.stringify(command))
    })
    socket.on('data', chunk => {
      const lines = (text + String(chunk)).split('\n')
      text = lines.pop() ?? ''
      for (const line of lines) {
        const said = JSON.parse(line) as { error?: { desc: string }; return?: object }
        if (said.error !== undefined) reject(new Error(`QEMU: ${said.error.desc}`))
        if (said.return !== undefined) answerCount++
      }
      if (answerCount === commands.length) socket.end(() => resolve())
    })
  })
}
