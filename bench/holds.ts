import { execFile } from 'node:child_process'
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs'
import * as path from 'node:path'
import { promisify } from 'node:util'
import { KiB, MiB } from '../src/base/units.ts'
import { FakeVra } from '../test/support/agent-fake-vra.ts'
import { NbdClient } from '../test/support/nbd-client.ts'
import { NetworkHosts } from '../test/support/network-hosts.ts'
import type { Bench, Cell } from './bench.ts'
import { Histogram } from './histogram.ts'
import { StayingProcess } from './processes.ts'

// How long guests' writes are held for a checkpoint over several hosts: agents in network namespaces of their own, twenty checkpoints
// a second.
//
// Expectation: a participant is held from the arrival of Hold to the arrival of Cut, one round trip, plus what the slowest of the others takes
// longer, plus turns of three event loops; the coordinator is not held at all. Idle on a bridge (round trip 0.1 to 0.2 ms) that is
// under 1 ms; under load the turns dominate: a few ms. Aim: p99 within two round trips and 5 ms.

const dist = path.resolve(import.meta.dirname, '..')
const volumeSizeBytes = 4 * MiB
const writersPerAgent = 4
const echoPort = 9007
const requestMillis = 50

export const holds: Bench = {
  name: 'holds',
  describes: 'how long writes are held for a checkpoint over several hosts, against the round trip',
  async run({ directory, quick, say }) {
    const rows: Cell[][] = []
    const aims: { what: string; aim: string; measured: string; met: boolean | undefined }[] = []
    const notes = [
      'Round trip: 40 bytes between two Node processes on the same hosts at the same time; the aim counts its median.',
      'All hosts share the processors of this machine.',
    ]
    for (const [agentCount, load] of [
      [2, 'idle'],
      [2, 'writes'],
      [4, 'writes'],
    ] as const) {
      const name = `${agentCount} hosts, ${load}`
      say(name)
      const own = path.join(directory, `${agentCount}-${load}`)
      mkdirSync(own)
      const row = await measure(own, { agentCount, load, millis: quick ? 8_000 : 30_000, say })
      if (row === undefined) return { tables: [], aims: [], curves: [] }
      const { hold, trips, refusedCount, writesPerSecond } = row
      const [tripMillis = 0, tripMostMillis = 0] = [0.5, 0.99].map(share => trips.quantileMillis(share) ?? 0)
      const [half, most] = [hold.quantileMillis(0.5), hold.quantileMillis(0.99)]
      rows.push([name, hold.total, tripMillis, tripMostMillis, half, most, refusedCount, writesPerSecond])
      const boundMillis = 2 * tripMillis + 5
      aims.push({
        what: `hold p99, ${name}`,
        aim: `<= ${boundMillis.toFixed(2)} ms`,
        measured: `${most?.toFixed(2)} ms`,
        met: most === undefined ? undefined : most <= boundMillis,
      })
    }
    return {
      tables: [
        {
          title: 'Holds of guests by checkpoints over several hosts',
          columns: [
            { name: '', digits: 0 },
            { name: 'holds', digits: 0 },
            { name: 'round trip p50 ms', digits: 2 },
            { name: 'p99 ms', digits: 2 },
            { name: 'hold p50 ms', digits: 2 },
            { name: 'hold p99 ms', digits: 2 },
            { name: 'failed', digits: 0 },
            { name: 'writes/s', digits: 0 },
          ],
          rows,
          notes,
        },
      ],
      aims,
      curves: [],
    }
  },
}

interface Measured {
  readonly hold: Histogram
  readonly trips: Histogram
  readonly refusedCount: number
  readonly writesPerSecond: number
}

interface Plan {
  readonly agentCount: number
  readonly load: 'idle' | 'writes'
  readonly millis: number
  readonly say: (line: string) => void
}

async function measure(directory: string, plan: Plan): Promise<Measured | undefined> {
  const ends: (() => unknown)[] = []
  try {
    const hosts = NetworkHosts.open({ comment: plan.say, teardown: end => ends.push(end) }, plan.agentCount)
    if (hosts === undefined) return undefined
    const vras = await startVras(hosts, plan.agentCount)
    for (const vra of vras) ends.push(() => vra.kill())
    const processes = vras.map((vra, index) => startAgent(directory, hosts, vra.address.port, index))
    for (const agent of processes) ends.push(() => agent.stop())
    for (const agent of processes) await agent.untilSaid(/"agentReady"/)
    const [coordinator] = vras
    await requestUntil(coordinator!, () => vras.every(vra => vra.checkpoints.length > 0))
    const guests = plan.load === 'idle' ? [] : await Promise.all(processes.map((_, index) => startGuest(hosts, index)))
    for (const guest of guests) ends.push(() => guest.stop())
    const echo = StayingProcess.ofNode(
      [path.join(dist, 'bench/echo.js'), 'serve', hosts.address(1), String(echoPort)],
      path.join(directory, 'echo.log'),
      hosts.command(1),
    )
    ends.push(() => echo.stop())
    await echo.untilSaid(/serving/)
    const warmMillis = performance.now() + plan.millis / 4
    await requestUntil(coordinator!, () => performance.now() >= warmMillis)
    const skipped = processes.map(agent => agent.output.length)
    const startMillis = performance.now()
    const writesBefore = guests.reduce((sum, guest) => sum + guest.writeCount, 0)
    const trips = roundTrips(hosts, Math.min(1_000, plan.millis / 8))
    trips.catch(() => undefined) // where it is not waited for any more
    await requestUntil(coordinator!, () => performance.now() - startMillis >= plan.millis)
    const seconds = (performance.now() - startMillis) / 1000
    const writes = guests.reduce((sum, guest) => sum + guest.writeCount, 0) - writesBefore
    const said = processes.flatMap((agent, index) => agent.output.slice(skipped[index]).split('\n').filter(Boolean))
    const events = said.flatMap(line => parseEvent(line))
    const hold = new Histogram()
    for (const { event, heldMillis } of events) if (event === 'holdEnded') hold.add(heldMillis ?? 0)
    return {
      hold,
      trips: histogramOf(await trips),
      refusedCount: events.filter(({ event }) => event === 'checkpointFailed').length,
      writesPerSecond: writes / seconds,
    }
  } finally {
    for (const end of ends.reverse()) await end()
  }
}

function startAgent(directory: string, hosts: NetworkHosts, vraPort: number, index: number): StayingProcess {
  const disk = path.join(directory, `disk-${index}.img`)
  writeFileSync(disk, '')
  truncateSync(disk, volumeSizeBytes)
  const config = path.join(directory, `host-${index}.yaml`)
  const contents = {
    agentId: `host-${index}`,
    vpg: 'bench',
    vra: { host: hosts.ownAddress, port: vraPort, allowPlaintextBeyondLoopback: true },
    stateDirectory: path.join(directory, `state-${index}`),
    nbd: { host: hosts.address(index), allowBeyondLoopback: true },
    peers: { listen: { host: hosts.address(index), allowPlaintextBeyondLoopback: true } },
    volumes: [{ name: `disk-${index}`, path: disk }],
    log: { level: 'debug', format: 'json' },
  }
  writeFileSync(config, JSON.stringify(contents)) // JSON is YAML
  const argv = [path.join(dist, 'src/cli/vra.js'), 'protect', '--config', config]
  return StayingProcess.ofNode(argv, path.join(directory, `host-${index}.log`), hosts.command(index))
}

/** Where the agents stream to; what a hold takes has nothing to do with it. */
async function startVras(hosts: NetworkHosts, count: number): Promise<readonly FakeVra[]> {
  const numbers = Array.from({ length: count }, (_, index) => index)
  const volumes = numbers.map(index => ({ name: `disk-${index}`, sizeBytes: volumeSizeBytes }))
  const participants = numbers.map(index => ({
    stream: index + 1,
    agent: `host-${index}`,
    peerAddress: `${hosts.address(index)}:7423`,
    volumes: [index + 1],
  }))
  return Promise.all(
    numbers.map(index => {
      const vra = new FakeVra('host-0', volumes)
      Object.assign(vra, { stream: index + 1, participants, keepsImages: false })
      return vra.listen(hosts.ownAddress)
    }),
  )
}

/** Asks for checkpoints, some a second. */
async function requestUntil(vra: FakeVra, enough: () => boolean): Promise<void> {
  for (let requestId = 1; !enough(); requestId++) {
    vra.requestCheckpoint(requestId)
    await pause(requestMillis)
  }
}

interface Guest {
  readonly writeCount: number
  stop(): Promise<void>
}

/** Random writes of 4 KiB, a few at a time, with a pause after each: a host that is busy, not one that is overrun. */
async function startGuest(hosts: NetworkHosts, index: number): Promise<Guest> {
  const client = await NbdClient.open({ host: hosts.address(index), port: 10_809 }, `disk-${index}`)
  let [running, writeCount] = [true, 0]
  const write = async (): Promise<void> => {
    const data = Buffer.alloc(4 * KiB, index + 1)
    while (running) {
      await client.write(4 * KiB * Math.floor(Math.random() * (volumeSizeBytes / (4 * KiB))), data)
      writeCount++
      await pause(4)
    }
  }
  const writers = Promise.all(Array.from({ length: writersPerAgent }, write))
  return {
    get writeCount() {
      return writeCount
    },
    stop: async () => {
      running = false
      await writers
      await client.close()
    },
  }
}

async function roundTrips(hosts: NetworkHosts, count: number): Promise<readonly number[]> {
  const [command = '', ...before] = hosts.command(0)
  const argv = [...before, process.execPath, path.join(dist, 'bench/echo.js'), 'ask', hosts.address(1)]
  const { stdout } = await promisify(execFile)(command, [...argv, String(echoPort), String(Math.round(count))])
  return JSON.parse(stdout) as number[]
}

function pause(millis: number): Promise<void> {
  return new Promise(resolve => setTimeout(resolve, millis))
}

function histogramOf(values: readonly number[]): Histogram {
  const histogram = new Histogram()
  for (const value of values) histogram.add(value)
  return histogram
}

function parseEvent(line: string): { readonly event: string; readonly heldMillis?: number }[] {
  try {
    return [JSON.parse(line) as { event: string; heldMillis?: number }]
  } catch {
    return [] // a line that was not whole yet
  }
}
