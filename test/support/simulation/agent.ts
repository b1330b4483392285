import { Agent, silentAgentEvents, type AgentStatusReport } from '../../../src/agent/agent.ts'
import { checkpointOrdinal, type Ordinal } from '../../../src/base/ids.ts'
import type { VolumeFile } from '../../../src/disk/disk.ts'
import { SimulatedDisk } from './disk.ts'
import { Guests, type GuestSettings } from './guests.ts'
import type { Network } from './network.ts'
import { SimulatedVolume, type SectorChange } from './volume.ts'
import { Host, type Life, type World } from './world.ts'

export interface AgentSettings {
  readonly guests: GuestSettings
  readonly volumeSizesBytes: readonly number[]
  readonly volumeDelayMillisMax: number
  readonly queueSizeBytesMax: number
  readonly batchDelayMillisMax: number
  readonly markRotationMillisMin: number
}

/** Ways to break the agent's site, for showing that it is noticed. */
export interface AgentMutations {
  /** What is written to the dirty maps never gets there. */
  readonly losesMarks?: boolean
}

/** The disks at the moment when a marker was numbered: all changes before an index, but for what was being written then. */
export interface MarkedMoment {
  readonly changeCount: number
  readonly uncertain: ReadonlyMap<number, ReadonlyMap<number, readonly Uint8Array[]>>
  readonly atMillis: number
}

/** The protected site: the real agent on a host that can fail, its disks, and their guests. */
export class SimulatedAgent {
  readonly host: Host
  readonly stateDisk: SimulatedDisk
  readonly volumes: readonly SimulatedVolume[]
  readonly guests: readonly Guests[]
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
  #refusedUntilMillis = 0

  constructor(world: World, network: Network, settings: AgentSettings, mutations: AgentMutations) {
    this.#mutations = mutations
    this.#world = world
    this.#network = network
    this.#settings = settings
    this.host = new Host(world, 'agent')
    this.stateDisk = new SimulatedDisk(world)
    this.volumes = settings.volumeSizesBytes.map(
      (sizeBytes, index) =>
        new SimulatedVolume(world, { number: index + 1, name: `disk${index + 1}`, sizeBytes }, change =>
          this.changes.push(change),
        ),
    )
    for (const volume of this.volumes) volume.delayMillisMax = settings.volumeDelayMillisMax
    this.guests = this.volumes.map(volume => {
      const guests = new Guests(world, volume, settings.guests)
      guests.mayFail = () => this.stateDisk.isFull || this.#refusedUntilMillis > world.nowMillis
      return guests
    })
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

  start(): void {
    if (this.#life !== undefined) return
    const life = (this.#life = this.host.boot())
    this.#network.booted(this.host)
    this.#world.trace(`agent ${life.name} starts`)
    let guestsGo: () => void = () => undefined
    const opening = Agent.open(
      {
        agentId: 'a',
        vpg: 'orders',
        vra: { host: '10.0.0.2', port: 7420 },
        stateDirectory: '/var/lib/agent',
        volumes: this.volumes.map(({ name }) => ({ name, path: `/dev/${name}` })),
        nbd: { listen: { host: '127.0.0.1', port: 10_809 } },
        queueSizeBytesMax: this.#settings.queueSizeBytesMax,
        batchDelayMillisMax: this.#settings.batchDelayMillisMax,
        markRotationMillisMin: this.#settings.markRotationMillisMin,
      },
      {
        clock: life.clock,
        random: () => this.#world.random.fraction(),
        connect: this.#network.connectOf(life),
        disk: this.stateDisk.of(life),
        openVolumeFile: path =>
          this.volumes.find(({ name }) => path === `/dev/${name}`)?.of(life) ?? this.#openMap(life, path),
        lockDirectory: () => Promise.resolve({ close: () => Promise.resolve() }),
        openGuestServer: options => {
          guestsGo = () => {
            for (const [index, guests] of this.guests.entries()) guests.use(options.exports[index]!, life)
          }
          return Promise.resolve({
            address: () => options.listen,
            connectionCount: () => 1,
            close: () => this.#endGuests(life),
          })
        },
        events: {
          ...silentAgentEvents,
          linkUp: () => this.#tell(life, 'link up'),
          linkDown: ({ code, sentence }) => this.#tell(life, `link down, ${code}: ${sentence}`),
          detached: reason => this.#tell(life, `detached: ${reason}`),
          generationOpened: ({ generation }) => this.#tell(life, `opens generation ${generation}`),
          syncOpened: (volume, { kind, reason }) => this.#tell(life, `${volume}, ${kind} sync: ${reason}`),
          syncEnded: (volume, { kind, sentBytes }) => {
            this.#tell(life, `${volume}, ${kind} sync has sent ${sentBytes}`)
            if (life.isAlive) this.syncCount++
          },
          stateNotSaved: error => this.#tell(life, `state not saved: ${String(error)}`),
          marksNotCleared: (volume, error) => this.#tell(life, `marks of ${volume} not cleared: ${String(error)}`),
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
    return this.#mutations.losesMarks === true ? { ...file, write: () => Promise.resolve() } : file
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
    this.#settle(cause)
  }

  #settle(cause: 'kill' | 'power'): void {
    for (const volume of this.volumes) {
      if (cause === 'power') volume.losePower()
      else volume.settle()
    }
    for (const guests of this.guests) guests.settle(cause)
  }

  /** No more requests, and those that run are answered, as the NBD server's close() does. */
  #endGuests(life: Life): Promise<void> {
    for (const guests of this.guests) guests.isPaused = true
    return new Promise(resolve => {
      const look = (): void => {
        if (this.isIdle) resolve()
        else life.after(5, look)
      }
      look()
    })
  }

  #noteMarker(life: Life, ordinal: Ordinal): void {
    if (!life.isAlive) return
    this.#tell(life, `marker ${ordinal}`)
    const uncertain = new Map(this.guests.map(guests => [guests.volume.number, guests.uncertain()]))
    const moment = { changeCount: this.changes.length, uncertain, atMillis: this.#world.nowMillis }
    this.moments.set(ordinal, [...(this.moments.get(ordinal) ?? []), moment])
  }

  #tell(life: Life, what: string): void {
    if (life.isAlive) this.#world.trace(`agent: ${what}`)
  }
}
