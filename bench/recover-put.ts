import { execFile, fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import * as path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { putsAtOnceMaxDefault } from '../src/base/limits.ts'
import { KiB, MiB } from '../src/base/units.ts'
import type { RecoveryRequest } from '../src/control/service.ts'
import { atLeast, type BenchContext, type BenchResult, type Cell } from './bench.ts'
import { cpuSecondsOf, own, VraProcess } from './processes.ts'
import type { BarePuts } from './put-client.ts'
import type { PutMode, PutsCounted, PutServerAsk } from './put-server.ts'
import { filled } from './recover-filled.ts'

// Blocks put to EBS: by a failover test into the simulator, by the same into a server that looks at nothing, and by a client of node's HTTP alone into that
// server. Daemon, server and client are processes of their own, and what each of them takes of the processor is told: on few cores they take it from each other.
//
// Expectation, of a core: a put is a SHA-256 of 512 KiB (0.35 ms where the processor has instructions for it), HTTP and a copy into the socket (0.4), signature and
// the SDK's request handler (0.25); to read the block comes to that. The server that looks at nothing takes 0.5 ms, the simulator three hashes more. So two cores
// that do all of it put some 900 a second, and without hash and signature some 2,000.

const diskSizeBytes = 768 * MiB
const barePutCount = 3_000
const credentials = { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'secret' }
const options = { region: 'eu-central-1', siteId: 'bench', putsPerSecondMax: 10_000 } as const

export async function putPart(context: BenchContext): Promise<BenchResult> {
  const directory = path.join(context.directory, 'vra-put')
  const server = await PutServer.start()
  const endpoints = { ebs: server.endpoint, ec2: server.endpoint }
  const vra = await VraProcess.start({ directory, environment: credentials, aws: { ...options, endpoints } })
  try {
    // The simulator keeps all of it in memory.
    await filled(context, vra, { writeCount: 100_000, writeSizeBytes: 4 * KiB }, diskSizeBytes)
    const checked = await put(vra, server, 'checked')
    const taken = await put(vra, server, 'taken')
    const bare = await putBare(server)
    const rows: [string, Puts][] = [
      ['recovery, simulator', checked],
      ['recovery, null server', taken],
      ['bare client, null server', bare],
    ]
    for (const [name, { perSecond }] of rows) context.say(`${name}: ${perSecond.toFixed(0)} blocks/s`)
    const sizes: Cell[][] = [
      ['MB put', (checked.count * 512 * KiB) / 1e6],
      ['MB put for each MB of data', (checked.count * 512 * KiB) / checked.dataSizeBytes],
    ]
    return {
      tables: [
        {
          title: 'A failover test to EBS: blocks of 512 KiB put, all processes on the same cores',
          columns: [
            { name: '', digits: 0 },
            { name: 'blocks/s', digits: 0 },
            { name: 'of the bare client', digits: 2 },
            { name: 'CPU s of the client for 1,000', digits: 2 },
            { name: 'CPU s of the server for 1,000', digits: 2 },
          ],
          rows: rows.map(([name, each]) => [
            ...[name, each.perSecond, each.perSecond / bare.perSecond],
            ...[each.clientCpuSeconds, each.serverCpuSeconds],
          ]),
          notes: [
            `From the first answer to the last; ${putsAtOnceMaxDefault} under way at most. The quota of an account is 1,000 blocks/s unless AWS raises it.`,
            'The client of a recovery is the whole daemon, from the request on: plan, reading, spool, hashes, puts. The bare client neither reads, nor hashes, nor signs.',
          ],
        },
        {
          title: 'What was put',
          columns: [
            { name: '', digits: 0 },
            { name: 'measured', digits: 2 },
          ],
          rows: sizes,
          notes: [],
        },
      ],
      aims: [atLeast('blocks put a second, null server', 1000, taken.perSecond, '')],
      curves: [],
    }
  } finally {
    await vra.kill()
    server.kill()
    rmSync(directory, { recursive: true, force: true })
  }
}

interface Puts {
  readonly count: number
  readonly perSecond: number
  /** For 1,000 blocks. */
  readonly clientCpuSeconds: number
  readonly serverCpuSeconds: number
}

function putsOf({ count, seconds, cpuSeconds }: PutsCounted, clientCpuSeconds: number): Puts {
  const ofThousand = 1000 / count
  return {
    count,
    perSecond: count / seconds,
    clientCpuSeconds: clientCpuSeconds * ofThousand,
    serverCpuSeconds: cpuSeconds * ofThousand,
  }
}

/** A test to AWS that is stopped when it is ready, or undone, for the simulator misses what was only taken. */
async function put(
  vra: VraProcess,
  server: PutServer,
  mode: PutMode,
): Promise<Puts & { readonly dataSizeBytes: number }> {
  await server.ask({ begin: mode })
  const cpuSecondsBefore = cpuSecondsOf(vra.processId)
  const request: RecoveryRequest = {
    ...{ vpg: 'bench-0', kind: 'test', checkpoint: 'measured', target: 'aws' },
    settings: { availabilityZone: 'eu-central-1a', machine: { start: 'nothing' } },
    commitPolicy: { kind: 'none', afterMillis: 60_000 },
  }
  const plan = await vra.control.planRecovery(request)
  const { id } = await vra.control.startRecovery(request)
  let counted: PutsCounted
  do {
    await delay(50)
    counted = await server.ask('counted')
  } while (!counted.isCompleted)
  const cpuSeconds = cpuSecondsOf(vra.processId) - cpuSecondsBefore
  if (mode === 'checked') await stopped(vra, id)
  const dataSizeBytes = plan.vms.flatMap(vm => vm.volumes).reduce((sum, volume) => sum + volume.dataSizeBytes, 0)
  return { ...putsOf(counted, cpuSeconds), dataSizeBytes }
}

async function stopped(vra: VraProcess, id: string): Promise<void> {
  for (;;) {
    const { state } = await vra.control.recovery(id)
    if (state === 'ready') await vra.control.decideRecovery(id, 'stop')
    if (state === 'removed') return
    await delay(50)
  }
}

async function putBare(server: PutServer): Promise<Puts> {
  const program = path.join(import.meta.dirname, 'put-client.js')
  const argv = [program, server.endpoint, String(barePutCount), String(putsAtOnceMaxDefault)]
  await server.ask({ begin: 'taken' })
  const { stdout } = await promisify(execFile)(process.execPath, argv)
  const { cpuSeconds, seconds } = JSON.parse(stdout) as BarePuts
  const { count, cpuSeconds: serverCpuSeconds } = await server.ask('counted')
  const client = putsOf({ count: barePutCount, seconds, cpuSeconds: 0, isCompleted: true }, cpuSeconds)
  return { ...client, serverCpuSeconds: (serverCpuSeconds * 1000) / count } // it has taken those before the client's measure, too
}

class PutServer {
  readonly endpoint: string
  readonly #child: ChildProcess

  private constructor(endpoint: string, child: ChildProcess) {
    this.endpoint = endpoint
    this.#child = child
  }

  static async start(): Promise<PutServer> {
    const child = own(fork(path.join(import.meta.dirname, 'put-server.js')))
    const [endpoint] = (await once(child, 'message')) as [string]
    return new PutServer(endpoint, child)
  }

  /** One after the other. */
  async ask(ask: PutServerAsk): Promise<PutsCounted> {
    const answer = once(this.#child, 'message')
    this.#child.send(ask)
    const [counted] = (await answer) as [PutsCounted]
    return counted
  }

  kill(): void {
    this.#child.kill('SIGKILL')
  }
}
