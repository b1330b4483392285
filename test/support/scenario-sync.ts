import * as fs from 'node:fs'
import type { Test } from 'tap'
import type { AgentStatusReport, AgentVolumeStatus } from '../../src/agent/agent.ts'
import { MiB } from '../../src/base/units.ts'
import { until } from './scenario-role.ts'
import type { AgentSite, Scenario } from './scenario-site.ts'
import { guestBytes, seededRandom } from './wire-samples.ts'

// What the tests of synchronisations ask of an agent, and what they hold against the disk.

export async function agentStatus(agent: AgentSite): Promise<AgentStatusReport> {
  const answer = await fetch(`${agent.controlUrl}/v1/status`)
  return (await answer.json()) as AgentStatusReport
}

export function untilAgent(
  agent: AgentSite,
  what: string,
  holds: (status: AgentStatusReport) => boolean,
): Promise<AgentStatusReport> {
  return until(`the agent: ${what}`, async () => {
    const status = await agentStatus(agent)
    return holds(status) && status
  })
}

/** Waits until the stream is exact, and no volume has anything to synchronise. */
export function untilSynced(agent: AgentSite): Promise<AgentStatusReport> {
  return untilAgent(agent, 'all is synchronised', ({ link, stream, volumes }) => {
    return link === 'connected' && stream === 'exact' && volumes.every(volume => volume.sync === 'none')
  })
}

export interface SyncEnd {
  readonly volume: string
  readonly kind: AgentVolumeStatus['sync']
  readonly sentBytes: number
  readonly doneBytes: number
}

/** The synchronisations that the agent's present process has ended, in order. */
export function syncEnds(agent: AgentSite): SyncEnd[] {
  return events(agent, 'syncEnded') as SyncEnd[]
}

/** Lines of the log of the agent's present process. */
export function events(agent: AgentSite, event: string): unknown[] {
  const lines = agent.process?.output.split('\n') ?? []
  return lines.filter(line => line.includes(`"event":"${event}"`)).map(line => JSON.parse(line) as unknown)
}

/** A disk in use: random data, but for its last quarter. Returns how much of it is data. */
export function fillDisk(file: string, seed: number): number {
  const sizeBytes = fs.statSync(file).size
  const dataBytes = (sizeBytes / 4) * 3
  const random = seededRandom(seed)
  const disk = fs.openSync(file, 'r+')
  for (let at = 0; at < dataBytes; at += MiB) fs.writeSync(disk, guestBytes(random, MiB), 0, MiB, at)
  fs.closeSync(disk)
  return dataBytes
}

/** Checkpoints, and what the disk held at each of them. */
export class Checked {
  readonly #scenario: Scenario
  readonly #agent: AgentSite
  readonly #references = new Map<string, string>()

  constructor(scenario: Scenario, agent: AgentSite) {
    this.#scenario = scenario
    this.#agent = agent
  }

  /** A checkpoint now; the guest must stand still. */
  async tag(tag: string): Promise<void> {
    await this.#scenario.tag(this.#agent.plan.vpg, tag)
    this.#references.set(tag, this.#agent.reference('root'))
  }

  /** Every checkpoint of before, exported, is what the disk was. */
  async compareAll(t: Test, when: string): Promise<void> {
    for (const [tag, reference] of this.#references) {
      const difference = await this.#scenario.differenceAt(this.#agent.plan.vpg, 'root', tag, reference)
      t.equal(difference, undefined, `"${tag}" is right ${when}`)
    }
  }
}
