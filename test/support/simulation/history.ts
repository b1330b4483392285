import { GiB, KiB, MiB } from '../../../src/base/units.ts'
import { SimulatedAgent, type AgentMutations, type AgentSettings } from './agent.ts'
import { checkRecords, type CheckMutations } from './checker.ts'
import { Network } from './network.ts'
import { SimulatedVra, type VraMutations, type VraSettings } from './vra.ts'
import { World, type Host, type Life } from './world.ts'

// One history: a protected site, a link and a recovery site, whose settings and misfortunes a seed decides. It ends with everything
// healed. What must hold then, whatever happened:
//
// 1. A position that the VRA has called durable is found at every later start, and its records have no gap, no repetition, no disorder.
// 2. The image at every marker is what the disks held when it was numbered; every checkpoint that was told of is there.
// 3. The newest checkpoint is what the disks hold.
// 4. No guest's request fails, and none waits for more than its own disk; what was flushed is there after a power cut.
// 5. Within a bounded time after the last fault there is such a checkpoint, of all volumes.

export interface Mutations extends VraMutations, AgentMutations, CheckMutations {}

export interface HistoryOptions {
  readonly seed: number
  readonly keepsTrace?: boolean
  readonly mutations?: Mutations
}

export interface HistoryOutcome {
  readonly seed: number
  readonly hash: string
  readonly eventCount: number
  readonly simulatedMillis: number
  readonly recordCount: number
  readonly checkpointCount: number
  readonly answeredCount: number
  readonly syncCount: number
  readonly faults: readonly string[]
  readonly lines: readonly string[]
}

/** What a history has broken, with all that led there in its lines. */
export class BrokenHistory extends Error {
  override readonly name = 'BrokenHistory'
  readonly lines: readonly string[]

  constructor(seed: number, cause: unknown, lines: readonly string[]) {
    super(`seed ${seed}: ${cause instanceof Error ? (cause.stack ?? cause.message) : String(cause)}`, { cause })
    this.lines = lines
  }
}

export async function runHistory(options: HistoryOptions): Promise<HistoryOutcome> {
  const world = new World(options.seed, { keepsTrace: options.keepsTrace ?? false })
  try {
    return await new History(world, options).run()
  } catch (error) {
    throw new BrokenHistory(options.seed, error, world.lines ?? [])
  }
}

const hourMillis = 3_600_000
/** A refused session comes back after 30 s, a silent one is noticed after 15, a hello is waited for 10; some of each, one after the other. */
const healMillisMax = 180_000

class History {
  readonly #world: World
  readonly #options: HistoryOptions
  readonly #mutations: Mutations
  readonly #network: Network
  readonly #agent: SimulatedAgent
  readonly #vra: SimulatedVra
  readonly #faults: string[] = []
  /** Of hours, in which little is done. */
  readonly #isLong: boolean
  #faultsAreOver = false

  constructor(world: World, options: HistoryOptions) {
    this.#world = world
    this.#options = options
    this.#mutations = options.mutations ?? {}
    this.#isLong = world.random.chance(0.01)
    this.#network = new Network(world)
    this.#agent = new SimulatedAgent(world, this.#network, this.#agentSettings(), this.#mutations)
    const volumes = this.#agent.volumes.map(({ number, name, sizeBytes }) => ({ number, name, sizeBytes, stream: 1 }))
    const streams = [{ number: 1, agent: 'a' }]
    this.#vra = new SimulatedVra(world, this.#network, { volumes, streams }, this.#vraSettings(), this.#mutations)
    this.#network.onServerFrame = frame => this.#vra.noteSent(frame)
  }

  async run(): Promise<HistoryOutcome> {
    const world = this.#world
    this.#vra.start()
    this.#agent.start()
    this.#planFault()
    await world.run(this.#isLong ? world.delay(hourMillis, 3 * hourMillis) : world.delay(5_000, 60_000))
    await this.#heal()
    this.#check()
    // What it has called durable is durable.
    this.#vra.losePower()
    this.#vra.start()
    await world.run(world.nowMillis + 1)
    this.#check()
    return {
      seed: this.#options.seed,
      hash: world.hash,
      eventCount: world.eventCount,
      simulatedMillis: world.nowMillis,
      recordCount: this.#vra.records().length,
      checkpointCount: this.#vra.announced.length,
      answeredCount: this.#agent.guests.reduce((sum, guests) => sum + guests.answeredCount, 0),
      syncCount: this.#agent.syncCount,
      faults: this.#faults,
      lines: world.lines ?? [],
    }
  }

  #check(): void {
    checkRecords(this.#vra.records(), this.#agent, this.#vra.announced, this.#mutations)
  }

  // Settings.

  #agentSettings(): AgentSettings {
    const { random } = this.#world
    const world = this.#world
    return {
      volumeSizesBytes: Array.from(
        { length: random.integer(1, 3) },
        () => random.integer(8, random.chance(0.5) ? 256 : 6_000) * 512,
      ),
      volumeDelayMillisMax: world.pick([0.2, 2, 20]),
      // Less than can be configured, so that a few writes fill it.
      queueSizeBytesMax: random.chance(0.15) ? random.integer(256, 1_024) * KiB : 256 * MiB,
      batchDelayMillisMax: world.pick([0.5, 2, 20]),
      markRotationMillisMin: world.pick([100, 1_000, 10_000]),
      guests: {
        guestCount: random.integer(1, 2),
        thinkMillisMax: this.#isLong ? 120_000 : world.pick([500, 2_000, 8_000]),
        sectorsPerWriteMax: world.pick([4, 16, 64]),
        hotSectors: random.integer(1, 24),
      },
    }
  }

  #vraSettings(): VraSettings {
    const { random } = this.#world
    return {
      // Every start opens another log file, and without a store none is freed.
      logSizeBytesMax: 16 * GiB,
      poolSizeBytes: 2 * MiB,
      syncDelayMillisMax: this.#world.pick([0.5, 5, 50]),
      checkpointIntervalMillis: random.integer(1, 5) * 1_000,
      offloads: random.chance(0.6),
    }
  }

  // Misfortunes.

  #planFault(): void {
    const world = this.#world
    const which = this.#faultsOfSeed()
    const next = (): void => {
      world.after(world.delay(50, this.#isLong ? hourMillis : 20_000), () => {
        if (this.#faultsAreOver) return
        const name = world.pick(which)
        this.#faults.push(name)
        world.trace(`fault: ${name}`)
        this.#strike(name)
        next()
      })
    }
    if (which.length > 0) next()
  }

  #faultsOfSeed(): readonly FaultName[] {
    const { random } = this.#world
    const kind = random.integer(0, 9)
    if (kind < 2) return linkFaults
    if (kind < 4) return [...linkFaults, ...vraFaults]
    if (kind < 5) return [...linkFaults, ...vraFaults, 'the agent stops']
    return [...linkFaults, ...vraFaults, ...agentFaults]
  }

  #strike(name: FaultName): void {
    const world = this.#world
    const { random } = world
    const [agent, vra, network] = [this.#agent, this.#vra, this.#network]
    const later = (minMillis: number, maxMillis: number, call: () => void): void =>
      void world.after(world.delay(minMillis, maxMillis), () => {
        if (!this.#faultsAreOver) call()
      })
    switch (name) {
      case 'connections break':
        network.breakConnections()
        return
      case 'the link is out':
        network.setUp(false)
        later(100, random.chance(0.02) ? 2 * hourMillis : 60_000, () => network.setUp(true))
        return
      case 'the link is slow':
        network.bytesPerMilli = world.pick([1, 10, 100])
        network.latencyMillis = { min: 1, max: world.pick([50, 500, 3_000]) }
        later(500, 20_000, () => this.#mendLink())
        return
      case 'the VRA stalls':
        this.#stall(vra.life)
        return
      case 'the agent stalls':
        this.#stall(agent.life)
        return
      case 'a clock jumps':
        this.#jump(world.pick([agent.host, vra.host]))
        return
      case 'the guests hurry':
        this.#hurry()
        return
      case 'the VRA is killed':
        if (random.chance(0.5)) this.#atOperation(vra.disk, () => vra.kill())
        else vra.kill()
        later(0, 8_000, () => vra.start())
        return
      case 'the VRA loses its power':
        if (random.chance(0.5)) this.#atOperation(vra.disk, () => vra.losePower())
        else vra.losePower()
        later(0, 20_000, () => vra.start())
        return
      case 'the VRA stops':
        vra.stop()
        later(2_000, 10_000, () => vra.start())
        return
      case "the VRA's disk is full":
        vra.disk.isFull = true
        later(100, 20_000, () => (vra.disk.isFull = false))
        return
      case "the VRA's disk fails once":
        vra.disk.failsNextSync = true
        return
      case 'the agent stops':
        agent.stop()
        later(15_000, 40_000, () => agent.start())
        return
      case 'the agent is killed':
        if (random.chance(0.5)) this.#atOperation(agent.stateDisk, () => agent.kill())
        else agent.kill()
        later(0, 8_000, () => agent.start())
        return
      case "the agent's host loses its power":
        if (random.chance(0.5)) this.#atOperation(agent.stateDisk, () => agent.losePower())
        else agent.losePower()
        later(0, 20_000, () => agent.start())
        return
      case 'everything loses its power':
        vra.losePower()
        agent.losePower()
        later(0, 20_000, () => vra.start())
        later(0, 20_000, () => agent.start())
        return
      case "the agent's state disk is full":
        agent.setDiskFull(true)
        later(100, 20_000, () => {
          agent.setDiskFull(false)
          agent.start()
        })
    }
  }

  /** In the middle of one of its next calls of the disk, should there be any. */
  #atOperation(disk: { operationCount: number; onOperation: () => void }, strike: () => void): void {
    const at = disk.operationCount + this.#world.random.integer(1, 12)
    disk.onOperation = () => {
      if (disk.operationCount < at) return
      disk.onOperation = () => undefined
      if (!this.#faultsAreOver) strike()
    }
  }

  #stall(life: Life | undefined): void {
    life?.stall(this.#world.delay(10, 40_000))
  }

  #jump(host: Host): void {
    host.skewMicros += this.#world.random.integer(-4, 4) * this.#world.random.integer(1, hourMillis) * 1_000
  }

  #hurry(): void {
    for (const guests of this.#agent.guests) guests.isHurried = true
    this.#world.after(this.#world.delay(50, 500), () => {
      for (const guests of this.#agent.guests) guests.isHurried = false
    })
  }

  #mendLink(): void {
    this.#network.bytesPerMilli = 100_000
    this.#network.latencyMillis = { min: 0.2, max: 5 }
  }

  // The end.

  /** All faults end, the guests go on for a while and stop; then there is a checkpoint of what the disks hold. */
  async #heal(): Promise<void> {
    const world = this.#world
    world.trace('everything is healed')
    this.#faultsAreOver = true
    this.#network.setUp(true)
    this.#mendLink()
    this.#vra.disk.isFull = this.#vra.disk.failsNextSync = false
    this.#agent.setDiskFull(false)
    const deadlineMillis = world.nowMillis + healMillisMax
    const keepStarting = (): void => {
      this.#vra.start()
      this.#agent.start()
      world.after(1_000, keepStarting)
    }
    keepStarting()
    await world.run(world.nowMillis + world.delay(500, 8_000))
    for (const guests of this.#agent.guests) guests.isStopped = true
    const stoppedMillis = world.nowMillis
    await world.run(deadlineMillis, () => this.#isHealed(stoppedMillis))
    if (!this.#isHealed(stoppedMillis))
      throw new Error(
        `no checkpoint of what the disks hold within ${healMillisMax / 1000} s: ${JSON.stringify(this.#agent.status())}; ` +
          `the VRA says: ${this.#vra.whyNoCheckpoints()}`,
      )
  }

  #isHealed(stoppedMillis: number): boolean {
    const [agent, vra] = [this.#agent, this.#vra]
    if (!agent.isServing || !vra.isRunning || !agent.isIdle) return false
    const newest = vra.lastComplete
    if (newest === undefined || !newest.volumes.every(volume => volume.included)) return false
    return (agent.moments.get(newest.ordinal) ?? []).some(
      moment => moment.atMillis > stoppedMillis && moment.changeCount === agent.changes.length && isCertain(moment),
    )
  }
}

function isCertain(moment: { readonly uncertain: ReadonlyMap<number, ReadonlyMap<number, unknown>> }): boolean {
  return [...moment.uncertain.values()].every(sectors => sectors.size === 0)
}

const linkFaults = [
  'connections break',
  'connections break',
  'the link is out',
  'the link is slow',
  'the VRA stalls',
  'the agent stalls',
  'a clock jumps',
  'the guests hurry',
] as const
const vraFaults = [
  'the VRA is killed',
  'the VRA is killed',
  'the VRA loses its power',
  'the VRA loses its power',
  'the VRA stops',
  "the VRA's disk is full",
  "the VRA's disk fails once",
] as const
const agentFaults = [
  'the agent stops',
  'the agent is killed',
  "the agent's host loses its power",
  'everything loses its power',
  "the agent's state disk is full",
] as const
type FaultName = (typeof linkFaults)[number] | (typeof vraFaults)[number] | (typeof agentFaults)[number]
