import { fork, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import * as net from 'node:net'
import * as path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { MiB } from '../src/base/units.ts'
import { ControlClient } from '../src/control/client.ts'
import type { SenderJob, SenderResult } from './job.ts'

// The parties of a measurement, each a process of its own, and what they cost as the kernel counts it.

const dist = path.resolve(import.meta.dirname, '..')
const clockTicksPerSecond = 100
const readyMillisMax = 120_000

/** Everything that must not outlive the bench, whatever becomes of it. */
const children = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL')
})

export function own<T extends ChildProcess>(child: T): T {
  children.add(child)
  child.once('exit', () => children.delete(child))
  return child
}

export async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
}

/** CPU seconds of a process, all threads, so far. */
export function cpuSecondsOf(processId: number): number {
  const fields = readFileSync(`/proc/${processId}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) / clockTicksPerSecond
}

/** The most memory that a process has had resident. */
export function rssMaxBytesOf(processId: number): number {
  const match = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${processId}/status`, 'utf8'))
  return Number(match?.[1] ?? 0) * 1024
}

/** What a process has resident now. */
export function rssBytesOf(processId: number): number {
  const match = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${processId}/status`, 'utf8'))
  return Number(match?.[1] ?? 0) * 1024
}

/** From here on rssMaxBytesOf counts anew (Linux: proc(5), clear_refs). */
export function resetRssMax(processId: number): void {
  writeFileSync(`/proc/${processId}/clear_refs`, '5')
}

export async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as net.AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** Runs a sender to its end. */
export async function send(job: SenderJob): Promise<SenderResult> {
  const sender = own(fork(path.join(dist, 'bench/sender.js'), { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] }))
  sender.send(job)
  const [answer] = (await Promise.race([
    once(sender, 'message'),
    once(sender, 'exit').then(() => [{ error: 'the sender died' }]),
  ])) as [{ result?: SenderResult; error?: string }]
  await ended(sender)
  if (answer.result === undefined) throw new Error(answer.error ?? 'the sender said nothing')
  return answer.result
}

/** To a VRA of this bench, over plain TCP: as fast as it goes and with markers, unless the job says otherwise. */
export async function sendTo(
  vra: VraProcess,
  vpgs: SenderJob['vpgs'],
  job: Pick<SenderJob, 'volumeSizeBytes' | 'workload'> & Partial<SenderJob>,
): Promise<SenderResult> {
  return await send({
    target: 'vra',
    port: vra.port,
    tls: undefined,
    agent: agentName,
    vpgs,
    volumeName,
    windowBytes: 8 * MiB,
    rawBytesPerSecond: undefined,
    warmupMillis: 0,
    measureMillis: 600_000,
    writeCountMax: undefined,
    markerMillis: 1_000,
    ...job,
  })
}

export interface VraOptions {
  readonly directory: string
  /** As in the configuration file; the embedded defaults where not given. */
  readonly store?: Readonly<Record<string, unknown>>
  readonly aging?: Readonly<Record<string, unknown>>
  readonly journal?: Readonly<Record<string, unknown>>
  readonly tls?: Readonly<Record<string, string>>
  readonly environment?: Readonly<Record<string, string>>
  readonly aws?: Readonly<Record<string, unknown>>
  /** Whether it takes over what it finds in the store. */
  readonly adopt?: boolean
}

/** The real daemon, started as an operator starts it. */
export class VraProcess {
  readonly port: number
  readonly controlUrl: string
  readonly control: ControlClient
  /** From the start of the process until it said that it is ready. */
  readyMillis = 0
  readonly #configFile: string
  readonly #logFile: string
  readonly #environment: Readonly<Record<string, string>>
  readonly #flags: readonly string[]
  #child: ChildProcess | undefined

  private constructor(ports: { listen: number; control: number; live: number }, options: VraOptions) {
    this.port = ports.listen
    this.controlUrl = `http://127.0.0.1:${ports.control}`
    this.control = new ControlClient(this.controlUrl)
    this.#configFile = path.join(options.directory, 'vra.yaml')
    this.#logFile = path.join(options.directory, 'vra.log')
    this.#environment = options.environment ?? {}
    this.#flags = options.adopt === true ? ['--adopt'] : []
    const config = {
      dataDirectory: path.join(options.directory, 'data'),
      listen: { host: '127.0.0.1', port: ports.listen, ...(options.tls === undefined ? {} : { tls: options.tls }) },
      control: { host: '127.0.0.1', port: ports.control },
      live: { port: ports.live },
      ...(options.store === undefined ? {} : { store: options.store }),
      ...(options.aging === undefined ? {} : { aging: options.aging }),
      ...(options.journal === undefined ? {} : { journal: options.journal }),
      ...(options.aws === undefined ? {} : { aws: options.aws }),
      log: { level: 'warn', format: 'json' },
    }
    mkdirSync(options.directory, { recursive: true })
    writeFileSync(this.#configFile, JSON.stringify(config, undefined, 2)) // JSON is YAML
  }

  static async start(options: VraOptions): Promise<VraProcess> {
    const vra = new VraProcess({ listen: await freePort(), control: await freePort(), live: await freePort() }, options)
    await vra.start()
    return vra
  }

  async start(): Promise<void> {
    const log = openSync(this.#logFile, 'a')
    const startMillis = performance.now()
    this.#child = own(
      spawn(
        process.execPath,
        [path.join(dist, 'src/cli/vra.js'), 'serve', '--config', this.#configFile, ...this.#flags],
        {
          stdio: ['ignore', log, log],
          env: { ...process.env, ...this.#environment },
        },
      ),
    )
    await this.#untilReady(startMillis)
    this.readyMillis = performance.now() - startMillis
  }

  async #untilReady(startMillis: number): Promise<void> {
    for (;;) {
      const status = await this.control.status().catch(() => undefined)
      if (status?.ready === true) return
      const { exitCode } = this.#child ?? {}
      if (exitCode !== null || performance.now() - startMillis > readyMillisMax) {
        throw new Error(
          `the daemon is not ready (exit code ${exitCode}): ${readFileSync(this.#logFile, 'utf8').slice(-3000)}`,
        )
      }
      await delay(10)
    }
  }

  get processId(): number {
    const processId = this.#child?.pid
    if (processId === undefined) throw new Error('the daemon does not run')
    return processId
  }

  async createVpgs(
    count: number,
    volumeSizeBytes: number,
  ): Promise<{ name: string; durable: { generation: number; sequence: number } }[]> {
    const names = Array.from({ length: count }, (_, index) => `bench-${index}`)
    for (const name of names) {
      await this.control.createVpg({
        name,
        volumes: [{ name: volumeName, sizeBytes: volumeSizeBytes }],
        agents: [agentName],
        historyMillis: 3_600_000,
        checkpointIntervalMillis: 5_000,
      })
    }
    return names.map(name => ({ name, durable: { generation: 0, sequence: 0 } }))
  }

  async stop(): Promise<void> {
    this.#child?.kill('SIGTERM')
    if (this.#child !== undefined) await ended(this.#child)
  }

  async kill(): Promise<void> {
    this.#child?.kill('SIGKILL')
    if (this.#child !== undefined) await ended(this.#child)
  }
}

export const volumeName = 'disk'
export const agentName = 'bench'

/** A program that stays until it is stopped. Its output goes to a file. */
export class StayingProcess {
  readonly #child: ChildProcess
  readonly #logFile: string

  constructor([command = '', ...rest]: readonly string[], logFile: string) {
    const log = openSync(logFile, 'a')
    this.#child = own(spawn(command, rest, { stdio: ['ignore', log, log] }))
    this.#logFile = logFile
  }

  /** A command of Node's; `before` stands before it. */
  static ofNode(argv: readonly string[], logFile: string, before: readonly string[] = []): StayingProcess {
    return new StayingProcess([...before, process.execPath, ...argv], logFile)
  }

  get processId(): number {
    return this.#child.pid ?? 0
  }

  get output(): string {
    return readFileSync(this.#logFile, 'utf8')
  }

  async untilSaid(words: RegExp): Promise<void> {
    const endMillis = performance.now() + readyMillisMax
    while (!words.test(this.output)) {
      if (this.#child.exitCode !== null || performance.now() > endMillis)
        throw new Error(`never said ${words}: ${this.output.slice(-3000)}`)
      await delay(10)
    }
  }

  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    this.#child.kill(signal)
    await ended(this.#child)
  }
}

/** The reference, sink.c. */
export class SinkProcess {
  readonly port: number
  readonly #child: ChildProcess
  readonly #lines: AsyncIterator<string>

  private constructor(child: ChildProcess, lines: AsyncIterator<string>, port: number) {
    this.#child = child
    this.#lines = lines
    this.port = port
  }

  static async start(
    program: string,
    options: { file: string; fileMiB: number; groupMiB: number },
  ): Promise<SinkProcess> {
    const child = own(
      spawn(program, [options.file, String(options.fileMiB), String(options.groupMiB)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      }),
    )
    const lines = linesOf(child)
    return new SinkProcess(child, lines, Number((await lines.next()).value))
  }

  get processId(): number {
    return this.#child.pid ?? 0
  }

  async stop(): Promise<{ groupCount: number; sizeBytes: number; cpuSeconds: number }> {
    this.#child.kill('SIGTERM')
    const [groupCount = 0, sizeBytes = 0, cpuSeconds = 0] = String((await this.#lines.next()).value)
      .split(' ')
      .map(Number)
    await ended(this.#child)
    return { groupCount, sizeBytes, cpuSeconds }
  }
}

/** Compiles the reference; undefined, with the reason, where that is not possible. */
export async function compileSink(directory: string): Promise<{ program: string } | { missing: string }> {
  const source = path.resolve(dist, '../bench/sink.c')
  const program = path.join(directory, 'sink')
  const compiler = spawn('cc', ['-O2', '-pthread', '-o', program, source], { stdio: ['ignore', 'inherit', 'inherit'] })
  const failed = await new Promise<string | undefined>(resolve => {
    compiler.once('error', error => resolve(error.message))
    compiler.once('exit', code => resolve(code === 0 ? undefined : `cc ended with ${code}`))
  })
  return failed === undefined ? { program } : { missing: `no reference: ${failed}` }
}

/** The S3 simulator of the tests, as a process. */
export async function startSimulator(directory: string): Promise<{ endpoint: string; stop: () => Promise<void> }> {
  const program = path.join(dist, 'test/support/s3-sim-main.js')
  const child = own(
    spawn(process.execPath, [program, '--directory', directory, '--unchecked', '--until-stdin-ends'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    }),
  )
  const port = Number((await linesOf(child).next()).value)
  return {
    endpoint: `http://127.0.0.1:${port}`,
    stop: async () => {
      child.kill('SIGTERM')
      await ended(child)
    },
  }
}

async function* linesOf(child: ChildProcess): AsyncGenerator<string> {
  let text = ''
  for await (const chunk of child.stdout ?? []) {
    const lines = (text + String(chunk)).split('\n')
    text = lines.pop() ?? ''
    yield* lines
  }
}
