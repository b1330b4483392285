import { Agent, silentAgentEvents, type AgentStatusReport } from '../../../src/agent/agent.ts'
import { Failure } from '../../../src/base/failure.ts'
import { checkpointOrdinal, type Ordinal } from '../../../src/base/ids.ts'
import type { VolumeFile } from '../../../src/disk/disk.ts'
import { SimulatedDisk } from './disk.ts'
import { Guests, type GuestSettings } from './guests.ts'
import type { Network } from './network.ts'
import type { SimulatedPeers } from './peers.ts'
import { SimulatedSealer, type SealerSettings } from './sealer.ts'
import { sectorBytes, SimulatedVolume, type SectorChange } from './volume.ts'
import { Host, type Life, type World } from './world.ts'
import { decodePage, encodePage, pageBitmapSizeBytes } from '../../../src/agent/dirty-map-format.ts'
import { sectorSizeBytes } from '../../../src/base/units.ts'

export interface AgentSettings {
  readonly id: string
  /** Of the first volume, at the VRA. */
  readonly firstVolume: number
  readonly stream: number
  readonly peers: { readonly network: SimulatedPeers; readonly host: string } | undefined
  readonly guests: GuestSettings
  readonly volumeSizesBytes: readonly number[]
  readonly volumeDelayMillisMax: number
  readonly queueSizeBytesMax: number
  readonly batchDelayMillisMax: number
  readonly sealer: SealerSettings
  readonly markRotationMillisMin: number
  /** Sectors of each volume that hold something before it is protected. */
  readonly foundSectorCountMax: number
}

const peerPort = 7_430

/** Ways to break the agent's site, for showing that it is noticed. */
export interface AgentMutations {
  /** What is written to the dirty maps gets there without its marks. */
  readonly losesMarks?: boolean
}

/** The disks at the moment when a marker was numbered: all changes before an index, but for what was being written then. */
export interface MarkedMoment {
  readonly changeCount: number
  readonly uncertain: ReadonlyMap<number, ReadonlyMap<number, readonly Uint8Array[]>>
  readonly atMillis: number
  /** In the order of what guests ask and are answered. */
  readonly step: number
}

/** The protected site: the real agent on a host that can fail, its disks, and their guests. */
export class SimulatedAgent {
  readonly host: Host
  readonly stateDisk: SimulatedDisk
  /** That the agent is to serve. */
  volumes: readonly SimulatedVolume[] = []
  /** All that it ever was to serve, and their guests. */
  readonly everyVolume: SimulatedVolume[] = []
  readonly guests: Guests[] = []
  /** Every change of every disk, in order. */
  readonly changes: SectorChange[] = []
  readonly moments = new Map<Ordinal, MarkedMoment[]>()
  /** Synchronisations that have ended. */
  syncCount = 0
  readonly #world: World
  readonly #network: Network
  readonly #settings: AgentSettings
  readonly #mutations: AgentMutations
  #life: Life | undefined
  #agent: Agent | undefined
  #closing = false
  /** The disks are as the agent has written down that they are. */
  #isStoppedInOrder = false
  #refusedUntilMillis = 0

  constructor(world: World, network: Network, settings: AgentSettings, mutations: AgentMutations) {
    this.#mutations = mutations
    this.#world = world
    this.#network = network
    this.#settings = settings
    this.host = new Host(world, settings.id)
    this.stateDisk = new SimulatedDisk(world)
    for (const [index, sizeBytes] of settings.volumeSizesBytes.entries())
      this.addVolume(settings.firstVolume + index, sizeBytes)
  }

  /** A disk, with something on it maybe, that the agent is to serve from its next start, or reload, on. */
  addVolume(number: number, sizeBytes: number): SimulatedVolume {
    const [world, settings] = [this.#world, this.#settings]
    const volume = new SimulatedVolume(world, { number, name: `disk${number}`, sizeBytes }, change =>
      this.changes.push(change),
    )
    volume.delayMillisMax = settings.volumeDelayMillisMax
    for (let count = world.random.integer(0, settings.foundSectorCountMax); count > 0; count--) {
      const sector = world.random.integer(0, volume.sizeBytes / sectorBytes - 1)
      volume.changeBehind(sector, Buffer.alloc(sectorBytes, world.random.integer(1, 255)))
    }
    const guests = new Guests(world, volume, settings.guests)
    guests.mayFail = () =>
      this.stateDisk.isFull || volume.failureShare > 0 || this.#refusedUntilMillis > world.nowMillis
    this.guests.push(guests)
    this.everyVolume.push(volume)
    this.volumes = [...this.volumes, volume]
    return volume
  }

  /** It is to be served no more, from the next start, or reload, on. */
  removeVolume(volume: SimulatedVolume): void {
    this.volumes = this.volumes.filter(each => each !== volume)
  }

  get id(): string {
    return this.#settings.id
  }

  /** It serves the volumes that it is to serve, all of each. */
  get isAsConfigured(): boolean {
    const served = this.#agent?.status().volumes ?? []
    return (
      served.length === this.volumes.length &&
      this.volumes.every(({ name, sizeBytes }) =>
        served.some(volume => volume.name === name && volume.sizeBytes === sizeBytes),
      )
    )
  }

  /** As by SIGHUP: the agent reads the list of its volumes again, and how large they are. */
  async reload(): Promise<void> {
    const [agent, life] = [this.#agent, this.#life]
    if (agent === undefined || life === undefined || this.#closing) return
    this.#tell(life, 'reloads')
    this.#refusedUntilMillis = this.#world.nowMillis + 1_000
    try {
      await agent.changeVolumes(this.#configured())
    } catch (error) {
      if (!life.isAlive) return
      this.#tell(life, `has not done all of it: ${String(error)}`)
      if (!(error instanceof Failure)) throw error
    }
  }

  #configured(): { readonly name: string; readonly path: string }[] {
    return this.volumes.map(({ name }) => ({ name, path: `/dev/${name}` }))
  }

  #guestsOf(name: string): Guests {
    return this.guests.find(({ volume }) => volume.name === name)!
  }

  get stream(): number {
    return this.#settings.stream
  }

  get life(): Life | undefined {
    return this.#life
  }

  get isServing(): boolean {
    return this.#agent !== undefined && !this.#closing
  }

  get isIdle(): boolean {
    return this.guests.every(guests => guests.isIdle)
  }

  status(): AgentStatusReport | undefined {
    return this.#agent?.status()
  }

  setDiskFull(isFull: boolean): void {
    this.stateDisk.isFull = isFull
    this.#refusedUntilMillis = this.#world.nowMillis + 1_000
  }

  /** Of one of the volumes, for so long. */
  failVolume(forMillis: number): void {
    const volume = this.#world.pick(this.volumes)
    volume.failureShare = this.#world.pick([0.1, 0.5, 1])
    this.#world.after(forMillis, () => this.mendVolumes([volume]))
  }

  mendVolumes(volumes: readonly SimulatedVolume[] = this.everyVolume): void {
    this.#refusedUntilMillis = this.#world.nowMillis + 1_000
    for (const volume of volumes) volume.failureShare = 0
  }

  /** While the agent does not run: damages, or loses, what it needs to know. */
  damageState(): void {
    if (this.#life !== undefined) return
    const world = this.#world
    const maps = this.stateDisk.files().filter(file => file.endsWith('.map'))
    if (world.random.chance(0.2)) {
      for (const file of this.stateDisk.files()) this.stateDisk.lose(file)
      world.count("the agent's state is lost")
      world.trace("the agent's state is lost")
    } else if (maps.length > 0) {
      const file = world.pick(maps)
      const isLost = world.random.chance(0.4)
      if (isLost) this.stateDisk.lose(file)
      else this.stateDisk.damage(file)
      world.count(isLost ? 'a dirty map is lost' : 'a dirty map is damaged')
      world.trace(`${file} is ${isLost ? 'lost' : 'damaged'}`)
    }
  }

  /** While the agent does not run, and has stopped in order: a guest boots without it, or the disk is another one. */
  changeBehind(): void {
    if (!this.#isStoppedInOrder) return
    const world = this.#world
    const guests = this.#guestsOf(world.pick(this.volumes).name)
    const isCopied = world.random.chance(0.3)
    if (isCopied) guests.volume.replace()
    if (!isCopied || world.random.chance(0.5)) guests.changeBehind()
    world.count('a disk is changed behind the agent')
    world.trace(`${guests.volume.name} is changed behind the agent`)
  }

  start(): void {
    if (this.#life !== undefined) return
    this.#isStoppedInOrder = false
    const life = (this.#life = this.host.boot())
    this.#network.booted(this.host)
    this.#world.trace(`${life.name} starts`)
    let guestsGo: () => void = () => undefined
    const { peers } = this.#settings
    const opening = Agent.open(
      {
        agentId: this.#settings.id,
        vpg: 'orders',
        vra: { host: '10.0.0.2', port: 7420 },
        stateDirectory: '/var/lib/agent',
        volumes: this.#configured(),
        nbd: { listen: { host: '127.0.0.1', port: 10_809 } },
        ...(peers === undefined ? {} : { peers: { listen: { host: peers.host, port: peerPort } } }),
        queueSizeBytesMax: this.#settings.queueSizeBytesMax,
        batchDelayMillisMax: this.#settings.batchDelayMillisMax,
        markRotationMillisMin: this.#settings.markRotationMillisMin,
      },
      {
        clock: life.clock,
        random: () => this.#world.random.fraction(),
        connect: this.#network.connectOf(life),
        sealer: new SimulatedSealer(life, this.#settings.sealer),
        ...(peers === undefined ? {} : { peerNetwork: peers.network.of(life) }),
        disk: this.stateDisk.of(life),
        openVolumeFile: path =>
          this.everyVolume.find(({ name }) => path === `/dev/${name}`)?.of(life) ?? this.#openMap(life, path),
        lockDirectory: () => Promise.resolve({ close: () => Promise.resolve() }),
        openGuestServer: options => {
          guestsGo = () => {
            for (const exported of options.exports) this.#guestsOf(exported.name).use(exported, life)
          }
          return Promise.resolve({
            address: () => options.listen,
            connectionCount: () => 1,
            addExport: exported => this.#guestsOf(exported.name).use(exported, life),
            removeExport: name => this.#endGuests(life, [this.#guestsOf(name)]),
            close: () => this.#endGuests(life, this.guests),
          })
        },
        events: {
          ...silentAgentEvents,
          linkUp: () => this.#tell(life, 'link up'),
          linkDown: ({ code, sentence }) => this.#tell(life, `link down, ${code}: ${sentence}`),
          detached: reason => this.#tell(life, `detached: ${reason}`),
          generationOpened: ({ generation }) => this.#tell(life, `opens generation ${generation}`),
          syncOpened: (volume, { kind, reason }) => {
            this.#tell(life, `${volume}, ${kind} sync: ${reason}`)
            if (life.isAlive) this.#world.count(`${kind} sync`)
          },
          syncEnded: (volume, { kind, sentBytes }) => {
            this.#tell(life, `${volume}, ${kind} sync has sent ${sentBytes}`)
            if (life.isAlive) this.syncCount++
          },
          stateNotSaved: error => this.#tell(life, `state not saved: ${String(error)}`),
          marksNotCleared: (volume, error) => this.#tell(life, `marks of ${volume} not cleared: ${String(error)}`),
          holdEnded: ({ end }) => {
            if (life.isAlive) this.#world.count(`a hold ends: ${end}`)
          },
          holdRefused: ({ reason }) => {
            if (life.isAlive) this.#world.count(`a hold is refused: ${reason}`)
          },
          checkpointFailed: ({ reason, sentence }) => {
            this.#tell(life, `no checkpoint, ${reason}: ${sentence}`)
            if (life.isAlive && peers !== undefined) this.#world.count(`a checkpoint fails: ${reason}`)
          },
          markerNumbered: ({ term, counter }) => this.#noteMarker(life, checkpointOrdinal(term, counter)),
        },
      },
    )
    const opened = opening.then(
      agent => {
        if (!life.isAlive) return
        this.#agent = agent
        guestsGo()
      },
      (error: unknown) => {
        if (!life.isAlive) return
        this.#tell(life, `cannot start: ${String(error)}`)
        if (!this.stateDisk.isFull) throw error
        this.#end('kill')
      },
    )
    this.#world.background(opened)
  }

  #openMap(life: Life, path: string): VolumeFile {
    const file = this.stateDisk.openAsVolume(life, path)
    if (this.#mutations.losesMarks !== true) return file
    return { ...file, write: (bytes, offsetBytes) => file.write(withoutMarks(bytes), offsetBytes) }
  }

  /** Memory is lost, the disks are as they were written. */
  kill(): void {
    this.#end('kill')
  }

  losePower(): void {
    this.host.isUp = false
    this.#end('power')
    this.stateDisk.losePower()
  }

  /** As by SIGTERM. */
  stop(): void {
    const [agent, life] = [this.#agent, this.#life]
    if (agent === undefined || life === undefined || this.#closing) return
    this.#closing = true
    const startMillis = this.#world.nowMillis - life.stalledMillis
    this.#tell(life, 'stops')
    const stopped = agent.close().then(
      () => {
        if (!life.isAlive) return
        const tookMillis = this.#world.nowMillis - life.stalledMillis - startMillis
        if (tookMillis > 20_000) throw new Error(`the agent took ${tookMillis} ms to stop`)
        this.#tell(life, 'has stopped')
        this.#end('kill')
        this.#isStoppedInOrder = true
      },
      (error: unknown) => {
        if (!life.isAlive) return
        if (!this.stateDisk.isFull) throw error
        this.#end('kill')
      },
    )
    this.#world.background(stopped)
  }

  #end(cause: 'kill' | 'power'): void {
    const life = this.#life
    if (life === undefined) {
      if (cause === 'power') this.#settle(cause)
      return
    }
    this.#life = this.#agent = undefined
    this.#closing = false
    life.kill()
    this.#network.killed(life)
    this.#settings.peers?.network.killed(life)
    this.#settle(cause)
  }

  #settle(cause: 'kill' | 'power'): void {
    for (const volume of this.everyVolume) {
      if (cause === 'power') volume.losePower()
      else volume.settle()
    }
    for (const guests of this.guests) guests.settle(cause)
  }

  /** No more requests, and those that run are answered, as the NBD server's close() does. */
  #endGuests(life: Life, ended: readonly Guests[]): Promise<void> {
    for (const guests of ended) guests.isPaused = true
    return new Promise(resolve => {
      const look = (): void => {
        if (ended.every(guests => guests.isIdle)) resolve()
        else life.after(5, look)
      }
      look()
    })
  }

  #noteMarker(life: Life, ordinal: Ordinal): void {
    if (!life.isAlive) return
    this.#tell(life, `marker ${ordinal}`)
    const uncertain = new Map(this.guests.map(guests => [guests.volume.number, guests.uncertain()]))
    const moment = {
      changeCount: this.changes.length,
      uncertain,
      atMillis: this.#world.nowMillis,
      step: this.#world.nextStep(),
    }
    this.moments.set(ordinal, [...(this.moments.get(ordinal) ?? []), moment])
  }

  #tell(life: Life, what: string): void {
    if (life.isAlive) this.#world.trace(`${this.#settings.id}: ${what}`)
  }
}

/** Sectors of a dirty map in which no region is marked. */
function withoutMarks(bytes: Uint8Array): Buffer {
  const sectors = Buffer.from(bytes)
  const nothing = new Uint8Array(pageBitmapSizeBytes)
  for (let at = 0; at < sectors.length; at += sectorSizeBytes) {
    const sector = sectors.subarray(at, at + sectorSizeBytes)
    const [page, identity] = [sector.readUInt32LE(8), sector.readUInt32LE(12)]
    if (decodePage(sector, identity, page) === undefined) continue // the header
    encodePage(identity, page, { marked: nothing, pending: nothing }).copy(sectors, at)
  }
  return sectors
}
