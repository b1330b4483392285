import { KiB, MiB } from '../../../src/base/units.ts'
import type { SimulatedAgent } from './agent.ts'
import type { Network } from './network.ts'
import type { SimulatedPeers } from './peers.ts'
import type { SimulatedVra } from './vra.ts'
import type { Host, Life, World } from './world.ts'

const hourMillis = 3_600_000

export interface FaultyWorld {
  readonly world: World
  readonly network: Network
  readonly peers: SimulatedPeers
  readonly vra: SimulatedVra
  readonly agents: readonly SimulatedAgent[]
  /** Images are handed over. */
  readonly isPreseeded: boolean
  /** A mistake of the product that a fault has brought to light. */
  askForCheckpoint(): Promise<void>
}

/** The misfortunes of one history: the seed decides of which kinds, when, and how they go. */
export class Faults {
  readonly #of: FaultyWorld
  #isOver = false

  constructor(of: FaultyWorld) {
    this.#of = of
  }

  /** From now on, each a while after the one before. */
  begin(delayMillisMax: number): void {
    const { world } = this.#of
    const names = this.#namesOfSeed()
    const next = (): void =>
      void world.after(world.delay(50, delayMillisMax), () => {
        if (this.#isOver) return
        const name = world.pick(names)
        world.count(name)
        world.trace(`fault: ${name}`)
        this.#strike(name)
        next()
      })
    next()
  }

  /** None strikes any more, and everything that one has broken is whole. */
  end(): void {
    const { network, peers, vra, agents } = this.#of
    this.#isOver = true
    network.setUp(true)
    for (const agent of agents) network.setUp(true, agent.host)
    peers.setUp(true)
    this.#mendLink()
    vra.disk.isFull = vra.disk.failsNextSync = false
    vra.store.isDown = false
    vra.store.failureShare = 0
    vra.preseeds.files.onRead = () => undefined
    for (const agent of agents) {
      agent.setDiskFull(false)
      agent.mendVolumes()
    }
  }

  #namesOfSeed(): readonly FaultName[] {
    const names = this.#usualNames()
    return this.#of.isPreseeded ? [...names, ...preseedFaults] : names
  }

  #usualNames(): readonly FaultName[] {
    const { world, agents } = this.#of
    const kind = world.random.integer(0, 9)
    const link = agents.length === 1 ? linkFaults : [...linkFaults, ...peerFaults]
    if (kind < 1) return link
    if (kind < 3) return [...link, ...vraFaults]
    if (kind < 4) return [...link, ...vraFaults, 'the agent stops']
    if (kind < 5) return [...link, ...agentFaults]
    return [...link, ...vraFaults, ...agentFaults]
  }

  #strike(name: FaultName): void {
    const { world, network, peers, vra, agents } = this.#of
    const { random } = world
    const agent = world.pick(agents)
    const later = (minMillis: number, maxMillis: number, call: () => void): void =>
      this.#later(world.delay(minMillis, maxMillis), call)
    switch (name) {
      case 'connections break':
        network.breakConnections()
        return
      case 'the link is out':
        network.setUp(false)
        later(100, random.chance(0.02) ? 2 * hourMillis : 60_000, () => network.setUp(true))
        return
      case "an agent's link is out":
        network.setUp(false, agent.host)
        later(100, 60_000, () => network.setUp(true, agent.host))
        return
      case 'the agents do not reach each other':
        peers.setUp(false)
        later(10, 20_000, () => peers.setUp(true))
        return
      case 'connections between agents break':
        peers.breakConnections()
        return
      case 'the agents reach each other slowly':
        peers.latencyMillis = { min: 0.1, max: world.pick([50, 400, 2_000]) }
        later(500, 20_000, () => (peers.latencyMillis = { min: 0.1, max: 2 }))
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
      case 'the VPG is paused':
        world.background(vra.change({ paused: true }))
        later(100, 20_000, () => world.background(vra.change({ paused: false })))
        return
      case 'the rate of synchronisations is changed': {
        const syncRateBytesPerSecond = random.chance(0.3) ? 0 : random.integer(128 * KiB, 4 * MiB)
        world.background(vra.change({ syncRateBytesPerSecond }))
        return
      }
      case 'a synchronisation is asked for': {
        const volumes = vra.volumes.map(({ number }) => number).filter(() => random.chance(0.6))
        const kind = world.pick(['full', 'delta'] as const)
        if (volumes.length > 0 && vra.requestSync(kind, volumes)) world.count(`a ${kind} synchronisation is asked for`)
        return
      }
      case 'a checkpoint is asked for':
        world.background(this.#of.askForCheckpoint())
        return
      case 'a checkpoint is tagged': {
        const retained = vra.retained()
        if (retained.length > 0) world.background(vra.tag(world.pick(retained)))
        return
      }
      case 'a tag is taken away': {
        const tagged = [...vra.tagged]
        if (tagged.length > 0) world.background(vra.untag(world.pick(tagged)))
        return
      }
      case 'the thread of live disks dies':
        vra.recoveries.killThread()
        return
      case 'the store is down':
        vra.store.isDown = true
        later(100, 30_000, () => (vra.store.isDown = false))
        return
      case 'the store is down for longer than anybody waits':
        vra.store.isDown = true
        later(30_000, 90_000, () => (vra.store.isDown = false))
        return
      case 'the store fails now and then':
        vra.store.failureShare = world.pick([0.05, 0.3])
        later(1_000, 30_000, () => (vra.store.failureShare = 0))
        return
      case 'the VRA is killed':
        if (random.chance(0.5)) this.#atOperation(vra.disk, () => vra.kill())
        else vra.kill()
        later(0, 8_000, () => vra.start())
        return
      case 'the VRA starts while the store is away':
        vra.store.isDown = true
        if (random.chance(0.7)) vra.kill()
        else vra.losePower()
        later(0, 2_000, () => vra.start())
        later(4_000, random.chance(0.2) ? 120_000 : 30_000, () => (vra.store.isDown = false))
        return
      case "the VRA's index is lost":
        vra.loseIndex()
        later(0, 4_000, () => vra.start())
        return
      case 'a record of the log rots':
        vra.rot()
        later(0, 8_000, () => vra.start())
        return
      case 'the VRA is killed while it reads an image file':
        vra.preseeds.files.onRead = () => {
          vra.preseeds.files.onRead = () => undefined
          world.count('a kill in the middle of a preseed')
          vra.kill()
          later(0, 8_000, () => vra.start())
        }
        return
      case 'something becomes of an image file':
        vra.preseeds.harmOne()
        return
      case 'the VRA loses its power':
        if (random.chance(0.5)) this.#atOperation(vra.disk, () => vra.losePower())
        else vra.losePower()
        later(0, 20_000, () => vra.start())
        return
      case 'another appliance takes over': {
        const disk = world.pick(['empty', 'empty', 'used'] as const)
        vra.takeOver({ disk, former: world.pick(['is killed', 'loses its power', 'goes on']) })
        later(0, 8_000, () => vra.start())
        if (random.chance(0.5)) later(2_000, 15_000, () => vra.wakeFormer())
        return
      }
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
      case 'a disk grows': {
        const volume = world.pick(agent.volumes)
        volume.grow(volume.sizeBytes + random.integer(1, 64) * 512)
        later(0, 5_000, () => world.background(agent.reload()))
        later(0, 5_000, () => world.background(vra.keepVolumes(agents)))
        return
      }
      case 'a volume is added':
        if (!vra.hasVolumes(agents) || agent.volumes.length >= 4) return
        agent.addVolume(vra.nextVolume, random.integer(8, 256) * 512)
        later(0, 5_000, () => world.background(agent.reload()))
        later(0, 5_000, () => world.background(vra.keepVolumes(agents)))
        return
      case 'a volume is removed':
        if (!vra.hasVolumes(agents) || agent.volumes.length < 2) return
        agent.removeVolume(world.pick(agent.volumes))
        later(0, 5_000, () => world.background(agent.reload()))
        later(0, 5_000, () => world.background(vra.keepVolumes(agents)))
        return
      case 'the agent stops':
        agent.stop()
        later(500, 30_000, () => {
          if (random.chance(0.5)) agent.changeBehind()
          if (random.chance(0.1)) agent.damageState()
          agent.start()
        })
        return
      case 'the agent is killed':
        if (random.chance(0.5)) this.#atOperation(agent.stateDisk, () => agent.kill())
        else agent.kill()
        later(0, 8_000, () => {
          if (random.chance(0.2)) agent.damageState()
          agent.start()
        })
        return
      case "the agent's host loses its power":
        if (random.chance(0.5)) this.#atOperation(agent.stateDisk, () => agent.losePower())
        else agent.losePower()
        later(0, 20_000, () => agent.start())
        return
      case 'everything loses its power':
        vra.losePower()
        later(0, 20_000, () => vra.start())
        for (const each of agents) {
          each.losePower()
          later(0, 20_000, () => each.start())
        }
        return
      case 'a volume fails':
        agent.failVolume(world.delay(50, 10_000))
        return
      case "the agent's state disk is full":
        agent.setDiskFull(true)
        later(100, 20_000, () => {
          agent.setDiskFull(false)
          agent.start()
        })
    }
  }

  #later(delayMillis: number, call: () => void): void {
    this.#of.world.after(delayMillis, () => {
      if (!this.#isOver) call()
    })
  }

  /** In the middle of one of its next calls of the disk, should there be any. */
  #atOperation(disk: { operationCount: number; onOperation: () => void }, strike: () => void): void {
    const at = disk.operationCount + this.#of.world.random.integer(1, 12)
    disk.onOperation = () => {
      if (disk.operationCount < at) return
      disk.onOperation = () => undefined
      if (this.#isOver) return
      this.#of.world.count('a kill in the middle of a call of the disk')
      strike()
    }
  }

  #stall(life: Life | undefined): void {
    life?.stall(this.#of.world.delay(10, 40_000))
  }

  #jump(host: Host): void {
    const { random } = this.#of.world
    host.skewMicros += random.integer(-4, 4) * random.integer(1, hourMillis) * 1_000
  }

  #hurry(): void {
    const { world, agents } = this.#of
    const guests = agents.flatMap(agent => agent.guests)
    for (const each of guests) each.isHurried = true
    world.after(world.delay(50, 500), () => {
      for (const each of guests) each.isHurried = false
    })
  }

  #mendLink(): void {
    const { network, peers } = this.#of
    network.bytesPerMilli = 100_000
    network.latencyMillis = { min: 0.2, max: 5 }
    peers.latencyMillis = { min: 0.1, max: 2 }
  }
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
  'the guests hurry',
  'a checkpoint is asked for',
  'a checkpoint is tagged',
  'a tag is taken away',
  'a synchronisation is asked for',
  'the VPG is paused',
  'the rate of synchronisations is changed',
] as const
/** Where there are several agents. */
const peerFaults = [
  "an agent's link is out",
  "an agent's link is out",
  'the agents do not reach each other',
  'connections between agents break',
  'the agents reach each other slowly',
  'the guests hurry',
] as const
const vraFaults = [
  'the VRA is killed',
  'the VRA is killed',
  'the VRA loses its power',
  'the VRA loses its power',
  'the VRA stops',
  'the thread of live disks dies',
  'the VRA starts while the store is away',
  "the VRA's index is lost",
  'another appliance takes over',
  'a record of the log rots',
  "the VRA's disk is full",
  "the VRA's disk fails once",
  'the store is down',
  'the store fails now and then',
] as const
const agentFaults = [
  'a disk grows',
  'a volume is added',
  'a volume is removed',
  'the agent stops',
  'the agent stops',
  'the agent is killed',
  'the agent is killed',
  "the agent's host loses its power",
  'everything loses its power',
  "the agent's state disk is full",
  'a volume fails',
  'a volume fails',
] as const
const preseedFaults = [
  'the VRA is killed while it reads an image file',
  'the VRA is killed while it reads an image file',
  'another appliance takes over',
  'the store fails now and then',
  'the store is down for longer than anybody waits',
  'something becomes of an image file',
  'something becomes of an image file',
  'a volume is added',
] as const
type FaultName =
  | (typeof preseedFaults)[number]
  | (typeof linkFaults)[number]
  | (typeof peerFaults)[number]
  | (typeof vraFaults)[number]
  | (typeof agentFaults)[number]
