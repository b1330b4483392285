import * as fs from 'node:fs'
import * as os from 'node:os'
import * as path from 'node:path'
import type { Test } from 'tap'
import { MiB } from '../../src/base/units.ts'
import type { Json, RecoveryFacts, RecoveryRequest, RecoveryState } from '../../src/control/service.ts'
import { ownKeys } from '../../src/aws/tags.ts'
import type { AwsSim } from './aws-sim/aws-sim.ts'
import { NbdClient } from './nbd-client.ts'
import { nbdUri } from './nbd-tools.ts'
import { bootSectors } from './scenario-boot.ts'
import { DatabaseLoad, faultsOfImage } from './scenario-database.ts'
import { Guest } from './scenario-guest.ts'
import { cannotMount, mustRun, ServedDisk, unmount } from './scenario-mount.ts'
import { until } from './scenario-role.ts'
import type { AgentSite, Scenario } from './scenario-site.ts'
import { fillDisk, untilSynced } from './scenario-sync.ts'

// What tests of recoveries have in common: two machines under load, what their disks were at a checkpoint, and where a target has put them.

export const machines: Readonly<Record<string, string>> = {
  ...{ 'app-root': 'app', 'app-data': 'app' },
  ...{ 'db-root': 'db', 'db-data': 'db' },
}
export const volumeSizes: Readonly<Record<string, number>> = {
  ...{ 'app-root': 6 * MiB + 512, 'app-data': 4 * MiB },
  ...{ 'db-root': 4 * MiB, 'db-data': 24 * MiB },
}
const names = Object.keys(volumeSizes)
const seed = 20_261_126

/** By volume. */
export type Disks = ReadonlyMap<string, Buffer>

export function begin(scenario: Scenario, request: Partial<RecoveryRequest>): Promise<RecoveryFacts> {
  return scenario.control.startRecovery({
    ...{ vpg: 'web', kind: 'failover', checkpoint: 'latest', target: 'raw', settings: {} },
    commitPolicy: { kind: 'none', afterMillis: 60_000 },
    ...request,
  })
}

export function untilState(
  scenario: Scenario,
  { id }: Pick<RecoveryFacts, 'id'>,
  state: RecoveryState,
): Promise<RecoveryFacts> {
  return until(`recovery ${id} is ${state}`, async () => {
    const facts = await scenario.control.recovery(id).catch(() => undefined) // the daemon may just be starting
    if (facts?.failure !== undefined && state !== 'removed') throw new Error(facts.failure.sentence)
    return facts?.state === state && facts
  })
}

/** Where something of this kind is. */
export function placeOf({ things }: RecoveryFacts, volume: string, kind: string): string {
  const found = things.find(thing => thing.volume === volume && thing.kind === kind)
  if (found === undefined) throw new Error(`no ${kind} of ${volume}: ${JSON.stringify(things)}`)
  return found.place
}

/** One target, seen from outside. */
export interface Stage {
  readonly target: RecoveryRequest['target']
  /** For one more recovery. */
  settings(): Json
  /** Of a recovery that is ready, or committed: what a machine would find. */
  content(facts: RecoveryFacts, volume: string): Promise<Buffer>
  /** Something of it that is still there; it has been removed. */
  left(facts: RecoveryFacts): Promise<readonly string[]>
}

/** What it makes is below a directory of the host. */
abstract class HostStage implements Pick<Stage, 'settings' | 'left'> {
  protected readonly scenario: Scenario
  readonly #name: string

  constructor(scenario: Scenario, name: string) {
    this.scenario = scenario
    this.#name = name
  }

  settings(): Json {
    const directory = this.scenario.file(this.#name)
    fs.mkdirSync(directory)
    return { directory }
  }

  async left({ settings }: RecoveryFacts): Promise<readonly string[]> {
    return fs.readdirSync((settings as { directory: string }).directory)
  }
}

export class RawStage extends HostStage implements Stage {
  readonly target = 'raw'

  constructor(scenario: Scenario) {
    super(scenario, 'raw')
  }

  async content(facts: RecoveryFacts, volume: string): Promise<Buffer> {
    return fs.readFileSync(placeOf(facts, volume, 'file'))
  }
}

export class NbdStage extends HostStage implements Stage {
  readonly target = 'nbd'

  constructor(scenario: Scenario) {
    super(scenario, 'live')
  }

  async connect(facts: RecoveryFacts, volume: string): Promise<NbdClient> {
    const { hostname: host, port, pathname } = new URL(placeOf(facts, volume, 'nbd'))
    const name = decodeURIComponent(pathname.slice(1))
    return this.scenario.adopt(await NbdClient.open({ host, port: Number(port) }, name))
  }

  async content(facts: RecoveryFacts, volume: string): Promise<Buffer> {
    // After a start of the daemon it is served as soon as its image is open.
    const client = await until(`${volume} is served`, () => this.connect(facts, volume).catch(() => undefined))
    const bytes = await client.read(0, client.sizeBytes)
    await client.close()
    return bytes
  }
}

export class AwsStage implements Stage {
  readonly target = 'aws'
  readonly #sim: AwsSim

  constructor(sim: AwsSim) {
    this.#sim = sim
  }

  settings(): Json {
    return { machine: { instanceType: 'm7i.large', subnet: 'subnet-1', securityGroups: ['sg-1'] } }
  }

  async content(facts: RecoveryFacts, volume: string): Promise<Buffer> {
    const { account } = this.#sim
    const found = account.volumes.get(placeOf(facts, volume, 'ebs-volume'))
    if (found?.attachment === undefined) throw new Error(`${volume} is no volume of an instance`)
    if (account.instances.get(found.attachment.instance)?.heading !== 'running') throw new Error('it does not run')
    return account.contentOf(found.blocks, volumeSizes[volume] ?? 0)
  }

  async left({ id }: RecoveryFacts): Promise<readonly string[]> {
    return this.#sim.account.tagged(ownKeys.recovery, id).map(String)
  }
}

/** A reason to do without a database on one of the disks. */
function cannotHaveDatabase(): string | false {
  const cannot = cannotMount('nbdfuse', 'e2fsck', 'fsfreeze')
  return cannot === false && !fs.existsSync('/dev/fuse') ? 'no /dev/fuse' : cannot
}

/** Where SQLite on an ext4 can be had: the database of one of the machines. */
class DatabaseDisk {
  readonly #directory: string
  readonly mountPoint: string
  readonly load: DatabaseLoad
  readonly #served: ServedDisk

  private constructor(directory: string, served: ServedDisk) {
    this.#directory = directory
    this.mountPoint = path.join(directory, 'mnt')
    this.#served = served
    this.load = DatabaseLoad.start(this.mountPoint, 40)
  }

  static async open(agent: AgentSite, volume: string): Promise<DatabaseDisk | undefined> {
    if (cannotHaveDatabase() !== false) return undefined
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'vra-recovery-'))
    const served = await ServedDisk.open(
      path.join(directory, 'fuse'),
      nbdUri({ host: '127.0.0.1', port: agent.nbdPort }, volume),
    )
    const mountPoint = path.join(directory, 'mnt')
    fs.mkdirSync(mountPoint)
    try {
      const loop = await served.attach()
      if (loop === undefined) throw new Error('no loop device')
      await mustRun('mkfs.ext4', '-q', '-F', loop)
      await mustRun('mount', loop, mountPoint)
      return new DatabaseDisk(directory, served)
    } catch (error) {
      await unmount(mountPoint)
      await served.close()
      fs.rmSync(directory, { recursive: true })
      if (String(error).includes('no loop device')) return undefined
      throw error
    }
  }

  /** Nothing of it changes while `work` is done; every transaction that was acknowledged is on the disk. */
  async frozen<T>(work: () => Promise<T>): Promise<T> {
    await mustRun('fsfreeze', '-f', this.mountPoint)
    try {
      return await work()
    } finally {
      await mustRun('fsfreeze', '-u', this.mountPoint)
    }
  }

  /** It is on the disk, and unmounted. The directory stays, to check images in. */
  async end(): Promise<number | null> {
    const status = await this.load.stop()
    await unmount(this.mountPoint)
    await this.#served.close()
    return status
  }

  async faultsOf(content: Buffer, acknowledged: number): Promise<string[]> {
    const image = path.join(this.#directory, 'image')
    const mountPoint = path.join(this.#directory, 'checked')
    fs.writeFileSync(image, content)
    fs.mkdirSync(mountPoint, { recursive: true })
    return await faultsOfImage(image, mountPoint, acknowledged)
  }

  async remove(): Promise<void> {
    this.load.kill()
    await unmount(this.mountPoint)
    await this.#served.close()
    fs.rmSync(this.#directory, { recursive: true, force: true })
  }
}

/** What the machines' disks were at a checkpoint. */
export interface Mark {
  readonly tag: string
  readonly disks: Disks
  /** The last transaction of the database that had been acknowledged; 0: there is none. */
  readonly acknowledged: number
}

/** Two machines with two disks each on one host, protected as one group, under load. */
export class Machines {
  readonly scenario: Scenario
  agent: AgentSite
  guests: Guest[] = []
  readonly #database: DatabaseDisk | undefined
  #isDatabaseMounted: boolean
  /** Marks of which the database was looked at. */
  readonly #checked = new Set<string>()
  #generation = 0

  private constructor(scenario: Scenario, agent: AgentSite, database: DatabaseDisk | undefined) {
    this.scenario = scenario
    this.agent = agent
    this.#database = database
    this.#isDatabaseMounted = database !== undefined
  }

  /** Synchronised, and at work; the VRA is started, too. */
  static async start(scenario: Scenario): Promise<Machines> {
    const agent = await scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: volumeSizes })
    for (const name of names) fillDisk(agent.disk(name), seed)
    await scenario.startVra()
    await scenario.control.createVpg({
      name: 'web',
      volumes: Object.entries(volumeSizes).map(([name, sizeBytes]) => ({
        ...{ name, sizeBytes, vm: machines[name] ?? '' },
      })),
      agents: ['host'],
      historyMillis: 3_600_000,
      checkpointIntervalMillis: 1_000,
    })
    await agent.start() // not before there is what it connects to: it would come back later and later
    await untilSynced(agent)
    const made = new Machines(scenario, agent, await DatabaseDisk.open(agent, 'db-data'))
    await made.boot()
    return made
  }

  /** Why there is no database; false: there is one. */
  get withoutDatabase(): string | false {
    return this.#database !== undefined ? false : cannotHaveDatabase() || 'no loop device'
  }

  /** Their guests begin to write. */
  async boot(): Promise<void> {
    this.guests = []
    for (const name of names.filter(name => name !== 'db-data' || !this.#isDatabaseMounted)) {
      const options = { seed: seed + ++this.#generation, spanBytes: 2 * MiB, pauseMillis: 60 }
      this.guests.push(new Guest(await this.agent.client(name), options))
    }
    for (const guest of this.guests) guest.start()
  }

  async rest(): Promise<void> {
    for (const guest of this.guests) await guest.rest()
  }

  get failures(): string[] {
    return this.guests.flatMap(guest => guest.failures)
  }

  /** After some more load, the disks as they are at a checkpoint of this name; the load goes on. */
  async mark(tag: string): Promise<Mark> {
    await this.rest()
    await Promise.all(this.guests.map(guest => guest.runFor(40)))
    for (const name of ['app-root', 'db-root']) await this.#makeBootable(name)
    const marked = async (): Promise<Mark> => {
      await this.scenario.tag('web', tag)
      return { tag, disks: this.disks(), acknowledged: this.#database?.load.acknowledged ?? 0 }
    }
    const isRunning = this.#database !== undefined && this.#isDatabaseMounted
    if (isRunning) await this.#database?.load.more(20)
    const mark = await (isRunning && this.#database !== undefined ? this.#database.frozen(marked) : marked())
    for (const guest of this.guests) guest.start()
    return mark
  }

  /** As they are now. */
  disks(): Disks {
    return new Map(names.map(name => [name, fs.readFileSync(this.agent.disk(name))]))
  }

  /** The database has ended, and its disk is another guest's from the next boot on. */
  async endDatabase(): Promise<void> {
    if (!this.#isDatabaseMounted) return
    const status = await this.#database?.end()
    if (status !== 0) throw new Error(`the database's user ended with ${status}`)
    this.#isDatabaseMounted = false
  }

  /** Every disk is what it was, and the database that is on one of them is whole. */
  async compare(t: Test, stage: Stage, facts: RecoveryFacts, { tag, disks, acknowledged }: Mark): Promise<void> {
    t.strictSame(
      facts.vms.flatMap(({ name, volumes }) => volumes.map(volume => `${name}/${volume.name}`)).sort(),
      names.map(name => `${machines[name]}/${name}`).sort(),
    )
    const contents = await contentsOf(stage, facts)
    for (const [name, content] of contents) {
      const expected = disks.get(name) ?? Buffer.alloc(0)
      t.equal(differenceIn(content, expected), undefined, `${facts.kind} of ${name} at "${tag}" is what it was`)
      // The same bytes are checked once.
      if (name === 'db-data' && acknowledged > 0 && !this.#checked.has(tag)) {
        this.#checked.add(tag)
        t.same(await this.#database?.faultsOf(content, acknowledged), [], `all ${acknowledged} transactions are there`)
      }
    }
  }

  /** They run where they were recovered to: an agent of the same name, which knows nothing yet, serves what is there. */
  async runOn(stage: Stage, facts: RecoveryFacts, fresh: string): Promise<void> {
    const contents = await contentsOf(stage, facts)
    await this.agent.process?.kill() // it is refused by now
    this.agent = await this.scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: volumeSizes, fresh })
    for (const [name, content] of contents) fs.writeFileSync(this.agent.disk(name), content)
    await this.agent.start()
    await untilSynced(this.agent)
  }

  async close(): Promise<void> {
    await this.#database?.remove()
  }

  async #makeBootable(name: string): Promise<void> {
    const client = await this.agent.client(name)
    await client.write(0, bootSectors())
    await client.close()
  }
}

async function contentsOf(stage: Stage, facts: RecoveryFacts): Promise<ReadonlyMap<string, Buffer>> {
  return new Map(await Promise.all(names.map(async name => [name, await stage.content(facts, name)] as const)))
}

function differenceIn(content: Buffer, expected: Buffer): string | undefined {
  if (content.equals(expected)) return undefined
  if (content.length !== expected.length) return `it has ${content.length} bytes, not ${expected.length}`
  return `it differs at ${content.findIndex((byte, index) => byte !== expected[index])}`
}
