import { randomBytes, randomInt } from 'node:crypto'
import * as fs from 'node:fs'
import * as path from 'node:path'
import { Agent, silentAgentEvents, type AgentConfig, type AgentDeps, type AgentEvents } from '../../src/agent/agent.ts'
import { NbdClient } from './nbd-client.ts'
import { FakeVra } from './agent-fake-vra.ts'
import { eventually } from './nbd-tools.ts'

/** A protected site in a directory: disks, an agent's configuration, and a VRA in memory that it streams to. */
export class Site {
  readonly directory: string
  readonly vra: FakeVra
  readonly names: readonly string[]
  readonly sizeBytes: number
  readonly told: string[] = []

  private constructor(directory: string, vra: FakeVra, names: readonly string[], sizeBytes: number) {
    this.directory = directory
    this.vra = vra
    this.names = names
    this.sizeBytes = sizeBytes
  }

  static async create(directory: string, names: readonly string[], sizeBytes: number): Promise<Site> {
    for (const name of names) {
      fs.writeFileSync(path.join(directory, `${name}.raw`), '')
      fs.truncateSync(path.join(directory, `${name}.raw`), sizeBytes)
    }
    const vra = new FakeVra(
      'agent-1',
      names.map(name => ({ name, sizeBytes })),
    )
    return new Site(directory, await vra.listen(), names, sizeBytes)
  }

  config(change: Partial<AgentConfig> = {}): AgentConfig {
    return {
      agentId: 'agent-1',
      vpg: 'shop',
      vra: this.vra.address,
      stateDirectory: path.join(this.directory, 'state'),
      volumes: this.names.map(name => ({ name, path: this.pathOf(name) })),
      nbd: { listen: { host: '127.0.0.1', port: 0 } },
      drainTimeoutMillis: 5_000,
      ...change,
    }
  }

  events(): AgentEvents {
    return {
      ...silentAgentEvents,
      syncOpened: (volume, { kind, reason }) => this.told.push(`${volume}: ${kind}: ${reason}`),
      detached: reason => this.told.push(`detached: ${reason}`),
      linkDown: ({ code }) => this.told.push(`link: ${code}`),
    }
  }

  start(change: Partial<AgentConfig> = {}, deps: Partial<AgentDeps> = {}): Promise<Agent> {
    return Agent.open(this.config(change), { events: this.events(), ...deps })
  }

  /** Every volume is in step with the VRA. */
  untilExact(agent: Agent): Promise<void> {
    return eventually('no synchronisation is open', () => {
      const { link, stream, volumes, queuedRecords } = agent.status()
      const isExact = link === 'connected' && stream === 'exact' && queuedRecords === 0
      return isExact && volumes.every(volume => volume.sync === 'none')
    })
  }

  untilGeneration(agent: Agent, generation: number): Promise<void> {
    return eventually(`generation ${generation}`, () => {
      const status = agent.status()
      return status.stream === 'exact' && status.generation >= generation
    })
  }

  client(agent: Agent, name: string): Promise<NbdClient> {
    return NbdClient.open(agent.status().nbd, name)
  }

  /** So many small writes to places of the volume, at random. */
  async writeSome(agent: Agent, name: string, count: number): Promise<void> {
    const client = await this.client(agent, name)
    const random = seededRandom()
    for (let index = 0; index < count; index++)
      await client.write(random.below(this.sizeBytes / 512 - 16) * 512, randomBytes(512 * (1 + random.below(16))))
    await client.close()
  }

  pathOf(name: string): string {
    return path.join(this.directory, `${name}.raw`)
  }

  disk(name: string): Buffer {
    return fs.readFileSync(this.pathOf(name))
  }

  /** Which volumes of the VRA's model are not what the disk is; empty when all are alike. */
  differences(images: ReadonlyMap<string, Buffer> = this.vra.models): string[] {
    return this.names.filter(name => !images.get(name)!.equals(this.disk(name)))
  }
}

export interface Random {
  /** 0 <= result < bound. */
  below(bound: number): number
  readonly seed: number
}

/** Repeatable: the seed is in every test's message, and SEED in the environment sets it. */
export function seededRandom(): Random {
  const seed = Number(process.env['SEED'] ?? randomInt(2 ** 31))
  let state = seed
  return {
    seed,
    below: bound => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0
      return Math.floor((state / 2 ** 32) * bound)
    },
  }
}
