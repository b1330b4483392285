import * as fs from 'node:fs'
import * as path from 'node:path'
import type { Test } from 'tap'
import { Failure } from '../../src/base/failure.ts'
import { MiB } from '../../src/base/units.ts'
import { ControlClient } from '../../src/control/control.ts'
import type { CheckpointFacts, ExportJob, VpgStatus } from '../../src/control/service.ts'
import { firstDifference } from '../../src/demo/compare.ts'
import { NbdClient } from './nbd-client.ts'
import { freePort, RoleProcess, runVra, until, type CommandResult } from './scenario-role.ts'

export interface AgentPlan {
  readonly agentId: string
  readonly vpg: string
  /** By name, in bytes. */
  readonly volumes: Readonly<Record<string, number>>
  /** More lines of its configuration. */
  readonly more?: readonly string[]
  /** Another disk and state than the agent of this name had. */
  readonly fresh?: string
  /** Instead of the plain connection to this site's VRA. */
  readonly vra?: string
}

export interface SitePlan {
  /** YAML of the sections other than listen and control; small sizes where there is none. */
  readonly aging?: string
  readonly store?: string
  readonly journal?: string
  /** YAML inside `listen: { port: N, ... }`. */
  readonly listen?: string
  readonly dataDirectory?: string
  /** More lines of the VRA's configuration. */
  readonly more?: readonly string[]
  readonly environment?: NodeJS.ProcessEnv
}

/** Both sites on one machine: real processes over loopback, all their files in one directory, all gone at the test's end. */
export class Scenario {
  readonly directory: string
  readonly dataDirectory: string
  readonly control: ControlClient
  readonly agentsPort: number
  readonly controlPort: number
  readonly #plan: SitePlan
  readonly #roles = new Set<RoleProcess>()
  readonly #clients = new Set<NbdClient>()
  vra: RoleProcess | undefined
  #fileCount = 0

  private constructor(directory: string, plan: SitePlan, ports: readonly [number, number]) {
    this.directory = directory
    this.dataDirectory = plan.dataDirectory ?? path.join(directory, 'data')
    this.#plan = plan
    this.agentsPort = ports[0]
    this.controlPort = ports[1]
    this.control = new ControlClient(`http://127.0.0.1:${this.controlPort}`)
  }

  static async make(t: Test, plan: SitePlan = {}): Promise<Scenario> {
    t.setTimeout(480_000)
    const made: { scenario?: Scenario } = {}
    // Before testdir(): what is registered first ends before the directory is removed.
    t.teardown(() => made.scenario?.close())
    const scenario = new Scenario(t.testdir(), plan, [await freePort(), await freePort()])
    made.scenario = scenario
    scenario.writeVraConfig(plan)
    return scenario
  }

  get storeDirectory(): string {
    return path.join(this.dataDirectory, 'store')
  }

  writeVraConfig(plan: SitePlan): void {
    const lines = [
      `dataDirectory: ${this.dataDirectory}`,
      `listen: { port: ${this.agentsPort}${plan.listen === undefined ? '' : `, ${plan.listen}`} }`,
      `control: { port: ${this.controlPort} }`,
      `aging: ${plan.aging ?? '{ segmentSizeBytesTarget: 1 MiB, segmentAgeMillisMax: 500, foldSizeBytesMin: 512 KiB, garbageGraceMillis: 1000 }'}`,
      ...(plan.store === undefined ? [] : [`store: ${plan.store}`]),
      ...(plan.journal === undefined ? [] : [`journal: ${plan.journal}`]),
      ...(plan.more ?? []),
      'log: { level: debug, format: json }',
    ]
    fs.writeFileSync(path.join(this.directory, 'vra.yaml'), lines.join('\n'))
  }

  /** Starts the VRA; returns when it serves. */
  async startVra(): Promise<RoleProcess> {
    const vra = this.spawnVra()
    await vra.untilSaid(/"vraReady"/)
    return vra
  }

  /** Starts the VRA and does not wait. */
  spawnVra(): RoleProcess {
    const vra = this.#role(['serve', '--config', path.join(this.directory, 'vra.yaml')], 'vra.log')
    this.vra = vra
    return vra
  }

  async createVpg(agent: AgentPlan, change: { historyMillis?: number; checkpointIntervalMillis?: number } = {}) {
    return this.control.createVpg({
      name: agent.vpg,
      volumes: Object.entries(agent.volumes).map(([name, sizeBytes]) => ({ name, sizeBytes })),
      agents: [agent.agentId],
      historyMillis: 3_600_000,
      checkpointIntervalMillis: 1_000,
      ...change,
    })
  }

  /** Everything of an agent but its process: disks of zeros and a configuration. */
  async placeAgent(plan: AgentPlan): Promise<AgentSite> {
    const agent = new AgentSite(this, plan, await freePort(), await freePort())
    agent.place()
    return agent
  }

  get controlUrl(): string {
    return `http://127.0.0.1:${this.controlPort}`
  }

  spawnRole(argv: readonly string[], logName: string, before: readonly string[] = []): RoleProcess {
    return this.#role(argv, logName, before)
  }

  #role(argv: readonly string[], logName: string, before: readonly string[] = []): RoleProcess {
    const role = RoleProcess.spawn(argv, path.join(this.directory, logName), this.#plan.environment, before)
    this.#roles.add(role)
    return role
  }

  adopt(client: NbdClient): NbdClient {
    this.#clients.add(client)
    return client
  }

  /** A command against this VRA. */
  cli(...argv: readonly string[]): Promise<CommandResult> {
    return runVra(argv, { VRA_CONTROL_URL: `http://127.0.0.1:${this.controlPort}` })
  }

  /** A file name of its own in the scenario's directory. */
  file(name: string): string {
    return path.join(this.directory, `${name}-${++this.#fileCount}`)
  }

  async exportTo(vpg: string, volume: string, checkpoint: string, file: string): Promise<ExportJob> {
    const begun = await this.control.startExport({ vpg, volume, checkpoint, file, overwrite: false })
    return until(`the end of the export of ${vpg} at ${checkpoint}`, async () => {
      const job = await this.control.export(begun.id)
      return job.state !== 'running' && job
    })
  }

  /** The volume as of the checkpoint, in a new file. */
  async exported(vpg: string, volume: string, checkpoint: string): Promise<string> {
    const file = this.file(`${vpg}-${checkpoint}.raw`)
    const job = await this.exportTo(vpg, volume, checkpoint, file)
    if (job.state !== 'done') throw new Error(`the export is ${job.state}: ${job.failure?.sentence}`)
    return file
  }

  /** Exports, and says where the file differs from the reference; undefined: nowhere. */
  async differenceAt(vpg: string, volume: string, checkpoint: string, reference: string): Promise<number | undefined> {
    const file = await this.exported(vpg, volume, checkpoint)
    const difference = await firstDifference(file, reference)
    if (difference === undefined) fs.rmSync(file)
    return difference
  }

  vpg(name: string): Promise<VpgStatus> {
    return this.control.showVpg(name)
  }

  /** Waits until the VPG's status is as asked. */
  untilVpg(name: string, what: string, holds: (vpg: VpgStatus) => boolean): Promise<VpgStatus> {
    return until(`${name}: ${what}`, async () => {
      const vpg = await this.vpg(name)
      return holds(vpg) && vpg
    })
  }

  /** Loaded hosts lose a connection now and then, and find it again. */
  untilProtected(vpg: string): Promise<VpgStatus> {
    return this.untilVpg(vpg, 'it is protected', ({ state }) => state === 'protected')
  }

  untilConnected(vpg: string): Promise<VpgStatus> {
    return this.untilVpg(vpg, 'its agents are connected', ({ agents }) => agents.every(a => a.state === 'connected'))
  }

  /** A checkpoint made now. The agent may just be reconnecting, or have connected and not heard yet how its volumes go on: then it is asked for again. */
  async tag(vpg: string, tag: string): Promise<CheckpointFacts> {
    await this.untilConnected(vpg)
    return until(`${vpg}: a checkpoint "${tag}"`, () =>
      this.control.tagCheckpoint({ vpg, tag }).catch((error: unknown) => {
        if (error instanceof Failure && error.code === 'SYNC_REQUIRED') return undefined
        throw error
      }),
    )
  }

  async close(): Promise<void> {
    for (const client of this.#clients) client.socket.destroy()
    await Promise.all([...this.#roles].map(role => role.kill()))
  }
}

/** One agent's side: disks, configuration, and its process. */
export class AgentSite {
  readonly plan: AgentPlan
  readonly nbdPort: number
  readonly controlUrl: string
  readonly #scenario: Scenario
  readonly #controlPort: number
  process: RoleProcess | undefined

  constructor(scenario: Scenario, plan: AgentPlan, nbdPort: number, controlPort: number) {
    this.#scenario = scenario
    this.plan = plan
    this.nbdPort = nbdPort
    this.#controlPort = controlPort
    this.controlUrl = `http://127.0.0.1:${controlPort}`
  }

  get #stem(): string {
    const { vpg, agentId, fresh } = this.plan
    return path.join(this.#scenario.directory, [vpg, agentId, ...(fresh === undefined ? [] : [fresh])].join('-'))
  }

  get configFile(): string {
    return `${this.#stem}.yaml`
  }

  disk(volume: string): string {
    return `${this.#stem}-${volume}.img`
  }

  place(): void {
    const { agentId, vpg, volumes, more = [], vra } = this.plan
    for (const [name, sizeBytes] of Object.entries(volumes)) {
      if (fs.existsSync(this.disk(name))) continue // the same host with another configuration
      fs.writeFileSync(this.disk(name), '')
      fs.truncateSync(this.disk(name), sizeBytes)
    }
    const list = Object.keys(volumes).map(name => `{ name: ${name}, path: ${this.disk(name)} }`)
    const lines = [
      `agentId: ${agentId}`,
      `vpg: ${vpg}`,
      `vra: ${vra ?? `{ port: ${this.#scenario.agentsPort} }`}`,
      `stateDirectory: ${this.#stem}-state`,
      `nbd: { port: ${this.nbdPort} }`,
      `control: { port: ${this.#controlPort} }`,
      `volumes: [${list.join(', ')}]`,
      'log: { level: debug, format: json }',
      ...more,
    ]
    fs.writeFileSync(this.configFile, lines.join('\n'))
  }

  spawn(): RoleProcess {
    const { vpg, agentId } = this.plan
    this.process = this.#scenario.spawnRole(['protect', '--config', this.configFile], `${vpg}-${agentId}.log`)
    return this.process
  }

  async start(): Promise<RoleProcess> {
    const role = this.spawn()
    await role.untilSaid(/"agentReady"/)
    return role
  }

  async client(volume: string): Promise<NbdClient> {
    return this.#scenario.adopt(await NbdClient.open({ host: '127.0.0.1', port: this.nbdPort }, volume))
  }

  /** What the disk holds now; the guest must stand still. */
  reference(volume: string): string {
    const file = this.#scenario.file(`${this.plan.vpg}-${volume}.reference`)
    fs.copyFileSync(this.disk(volume), file)
    return file
  }
}

export const diskSizeBytes = 32 * MiB
