import * as fs from 'node:fs'
import * as path from 'node:path'
import t, { type Test } from 'tap'
import { KiB, MiB } from '../../src/base/units.ts'
import type { CheckpointFacts } from '../../src/control/service.ts'
import { nbd, NbdClient } from '../support/nbd-client.ts'
import { NetworkHosts } from '../support/network-hosts.ts'
import { runVra, type RoleProcess } from '../support/scenario-role.ts'
import { Scenario } from '../support/scenario-site.ts'

// One VPG over two hosts, each in a network namespace of its own, over TLS. Writers put their next number on the volume of the first
// host and flush it, then on that of the second, for ever: in both images of every checkpoint the second is never ahead of the first.

const sizeBytes = 1 * MiB
const placeSizeBytes = 4 * KiB
const writerCount = 4
const volumes = ['left', 'right'] as const

interface Site {
  readonly scenario: Scenario
  readonly agents: readonly [RoleProcess, RoleProcess]
  readonly clients: readonly [NbdClient, NbdClient]
}

async function openSite(t: Test, hosts: NetworkHosts): Promise<Site> {
  const scenario = await Scenario.make(t)
  const certs = path.join(scenario.directory, 'certs')
  for (const argv of [
    ['init'],
    ['issue', 'server', 'vra', '--host', hosts.ownAddress],
    ['issue', 'client', 'host-left'],
    ['issue', 'client', 'host-right'],
  ])
    t.equal((await runVra(['certs', ...argv, '--directory', certs])).status, 0, `vra certs ${argv.join(' ')}`)
  const tls = (name: string): string =>
    `tls: { certificateFile: ${certs}/${name}.crt, privateKeyFile: ${certs}/${name}.key, authorityFile: ${certs}/authority.crt }`
  scenario.writeVraConfig({ listen: `host: ${hosts.ownAddress}, ${tls('vra')}` })
  await scenario.startVra()
  await scenario.control.createVpg({
    name: 'shop',
    agents: volumes.map(agentOf),
    volumes: volumes.map(name => ({ name, sizeBytes, agent: agentOf(name) })),
    historyMillis: 3_600_000,
    checkpointIntervalMillis: 1_000,
  })
  const start = async (index: 0 | 1): Promise<RoleProcess> => {
    const name = volumes[index]
    const agent = agentOf(name)
    const disk = path.join(scenario.directory, `${name}.img`)
    fs.writeFileSync(disk, '')
    fs.truncateSync(disk, sizeBytes)
    const config = path.join(scenario.directory, `${agent}.yaml`)
    const lines = [
      `agentId: ${agent}`,
      'vpg: shop',
      `vra: { host: ${hosts.ownAddress}, port: ${scenario.agentsPort}, ${tls(agent)} }`,
      `stateDirectory: ${scenario.directory}/${agent}-state`,
      `nbd: { host: ${hosts.address(index)}, allowBeyondLoopback: true }`,
      `peers: { listen: { host: ${hosts.address(index)} }, holdTimeoutMillis: 2000 }`,
      `volumes: [{ name: ${name}, path: ${disk} }]`,
      'log: { level: debug, format: json }',
    ]
    fs.writeFileSync(config, lines.join('\n'))
    const role = scenario.spawnRole(['protect', '--config', config], `${agent}.log`, hosts.command(index))
    await role.untilSaid(/"agentReady"/)
    return role
  }
  const agents = [await start(0), await start(1)] as const
  const client = async (index: 0 | 1): Promise<NbdClient> =>
    scenario.adopt(await NbdClient.open({ host: hosts.address(index), port: 10_809 }, volumes[index]))
  return { scenario, agents, clients: [await client(0), await client(1)] }
}

function agentOf(volume: string): string {
  return `host-${volume}`
}

/** Writes until told to stop; the numbers that every writer has reached. */
class DependentWriters {
  readonly numbers = Array.from({ length: writerCount }, () => 0)
  readonly failures: string[] = []
  #running = true
  readonly #done: Promise<unknown>

  constructor(clients: readonly NbdClient[]) {
    this.#done = Promise.all(this.numbers.map((_, writer) => this.#write(writer, clients)))
  }

  async stop(): Promise<void> {
    this.#running = false
    await this.#done
  }

  async #write(writer: number, clients: readonly NbdClient[]): Promise<void> {
    while (this.#running) {
      const number = this.numbers[writer]! + 1
      const data = Buffer.alloc(placeSizeBytes)
      data.writeUInt32LE(number)
      for (const client of clients) {
        await client.write(writer * placeSizeBytes, data)
        const flushed = await client.request(nbd.flush, {})
        if (flushed.error !== 0) this.failures.push(`writer ${writer}: ${flushed.error}`)
      }
      this.numbers[writer] = number
    }
  }
}

/** What every writer had reached on the volume as of the checkpoint. */
async function numbersAt(scenario: Scenario, volume: string, checkpoint: string): Promise<readonly number[]> {
  const file = await scenario.exported('shop', volume, checkpoint)
  const image = fs.readFileSync(file)
  fs.rmSync(file)
  return Array.from({ length: writerCount }, (_, writer) => image.readUInt32LE(writer * placeSizeBytes))
}

function tornWriters(left: readonly number[], right: readonly number[]): readonly number[] {
  return left.flatMap((number, writer) => (right[writer]! > number ? [writer] : []))
}

async function allCheckpoints(scenario: Scenario): Promise<readonly CheckpointFacts[]> {
  const { checkpoints } = await scenario.control.listCheckpoints({ vpg: 'shop', limit: 1000, order: 'oldest-first' })
  return checkpoints.filter(each => each.recoverable && each.volumes.every(volume => volume.included))
}

t.test(
  'two hosts: no image pair of any checkpoint has the later of two dependent writes without the earlier',
  async t => {
    const hosts = NetworkHosts.open(t, 2)
    if (hosts === undefined) return
    const { scenario, agents, clients } = await openSite(t, hosts)
    await scenario.untilVpg('shop', 'a checkpoint of both volumes', vpg => {
      return vpg.rpoMillis !== undefined && vpg.noCheckpointsBecause === undefined
    })

    const writers = new DependentWriters(clients)
    for (let at = 0; at < 15; at++) await scenario.tag('shop', `busy-${at}`)

    // A host that stands still costs checkpoints, and is named; the other goes on.
    agents[1].signal('SIGSTOP')
    const reason = await scenario.untilVpg('shop', 'it is said that there are none', ({ noCheckpointsBecause }) =>
      /host-right/.test(noCheckpointsBecause ?? ''),
    )
    t.match(reason.noCheckpointsBecause, /host-right/)
    await clients[0].write(sizeBytes - placeSizeBytes, Buffer.alloc(placeSizeBytes, 7))
    agents[1].signal('SIGCONT')
    await scenario.untilVpg('shop', 'checkpoints again', vpg => vpg.noCheckpointsBecause === undefined)
    for (let at = 0; at < 10; at++) await scenario.tag('shop', `after-${at}`)
    await writers.stop()
    t.same(writers.failures, [])

    const checkpoints = await allCheckpoints(scenario)
    t.ok(checkpoints.length >= 25, `${checkpoints.length} checkpoints`)
    const lefts: (readonly number[])[] = []
    const rights: (readonly number[])[] = []
    for (const { checkpoint } of checkpoints) {
      lefts.push(await numbersAt(scenario, 'left', checkpoint))
      rights.push(await numbersAt(scenario, 'right', checkpoint))
      t.same(tornWriters(lefts.at(-1)!, rights.at(-1)!), [], `checkpoint ${checkpoint}`)
    }
    const separate = lefts.slice(1).map((_, index) => tornWriters(lefts[index]!, rights[index + 1]!).length)
    t.ok(
      separate.some(count => count > 0),
      'images at points of their own do have it: the checker can tell',
    )
  },
)
