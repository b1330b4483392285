import { failedWith, isSystemError } from '../../../src/base/failure.ts'
import type { Ordinal, VpgId } from '../../../src/base/ids.ts'
import { MiB } from '../../../src/base/units.ts'
import { Recoveries, vmsOf, type RecoveriesParts, type RecoveryOrder } from '../../../src/recovery/recovery.ts'
import type { Checkpoint } from '../../../src/timeline/checkpoint.ts'
import type { VolumeDefinition, VpgDefinition } from '../../../src/timeline/definition.ts'
import { hasEnded, type RecoveryKind, type RecoveryRecord } from '../../../src/timeline/recovery.ts'
import type { SimulatedDisk } from './disk.ts'
import { keptDirectory, liveDirectory, SimulatedLive, type LiveSite } from './live-thread.ts'
import { RecoveredDisk } from './recovered-disk.ts'
import type { Sectors } from './volume.ts'
import type { World } from './world.ts'

// Recoveries of checkpoints to live disks, and the people and machines that use them: the real engine and the real target in every process of
// the VRA. A person begins one now and then, has its machine read and write for a while, and ends it as its kind allows.

/** Ways to break the holds, for showing that it is noticed. */
export interface RecoveryMutations {
  /** Nothing is pinned for a recovery, and what it reads may be removed meanwhile. */
  readonly losesHolds?: boolean
}

export interface RecoveriesWorld {
  readonly world: World
  readonly vpg: VpgId
  readonly mutations: RecoveryMutations
  /** A byte of the log has rotted: what is damaged may not be had. */
  readonly hasRotted: () => boolean
  /** The first thing that is read of a recovered checkpoint. Throws where that is not what the disks were. */
  readonly checkImage: (volumes: ReadonlyMap<number, Sectors>, ordinal: Ordinal) => void
}

export interface RecoveriesSite extends LiveSite {
  readonly aging: RecoveriesParts['aging']
}

/** What one process of the VRA has of it. */
export interface RunningRecoveries {
  readonly engine: Recoveries
  readonly live: SimulatedLive
  readonly site: RecoveriesSite
  isServing: boolean
}

/** A recovery as those see it who began it. */
interface Attempt {
  readonly id: string
  readonly ordinal: Ordinal
  readonly kind: RecoveryKind
  /** Those that were read before, whoever recovers. */
  readonly disks: RecoveredDisk[]
  /** Of the appliance that made it ready: what was written lies there. */
  disk: SimulatedDisk | undefined
  /** The checkpoint may go. */
  isReleased: boolean
  isKept: boolean
  isChecked: boolean
  isOver: boolean
  tickCount: number
}

const attemptsMax = 2
/** A person has enough of it. */
const tickCountMax = 100

export class SimulatedRecoveries {
  readonly #of: RecoveriesWorld
  readonly #attempts = new Map<string, Attempt>()
  #running: RunningRecoveries | undefined
  #isOver = false

  constructor(of: RecoveriesWorld) {
    this.#of = of
  }

  /** In a process that is starting; served when serve() is called. */
  open(site: RecoveriesSite): RunningRecoveries {
    const live = new SimulatedLive(site)
    const refuse = (): Promise<never> => Promise.reject(new Error('nobody asks for a move, or hands over'))
    const engine = new Recoveries({
      aging: this.#aging(site.aging),
      clock: site.life.clock,
      targets: [live.live],
      writers: { drain: refuse, undrain: refuse, handOver: refuse },
      events: {
        recoveryChanged: (_, record) => {
          if (site.life.isAlive) this.#changed(record, site.disk)
        },
        recoveryInTrouble: (_, { id }, sentence) => {
          if (!site.life.isAlive) return
          this.#of.world.count('a recovery is in trouble')
          this.#of.world.trace(`recovery ${id}: ${sentence}`)
        },
      },
    })
    return { engine, live, site, isServing: false }
  }

  /** The records are those of the store, and the process is the owner of its VPG. */
  serve(running: RunningRecoveries, records: readonly RecoveryRecord[], definition: () => VpgDefinition): void {
    const before = this.#running?.site.disk
    this.#running = running
    for (const [id, { isOver }] of this.#attempts)
      if (!isOver && !records.some(record => record.id === id)) throw new Error(`recovery ${id} is forgotten`)
    for (const record of records) {
      const isBroken = this.#of.mutations.losesHolds === true && record.checkpoint === undefined
      if (isBroken && !this.#attempts.has(record.id)) continue // its beginning was never answered, and what it was of is not written down
      const attempt = this.#known(record)
      if (record.readyAtMicros !== undefined) attempt.disk ??= before // nobody was told
      if (!['preparing', 'ready'].includes(record.state)) this.#release(record)
    }
    running.engine.serve(this.#of.vpg, records, definition)
    running.isServing = true
  }

  /** By a recovery that has begun, and that nobody has ended yet. */
  holds(ordinal: Ordinal): boolean {
    for (const attempt of this.#attempts.values()) if (attempt.ordinal === ordinal && !attempt.isReleased) return true
    return false
  }

  /** Nothing is recovered any more, and what was is gone, or kept. */
  get isDone(): boolean {
    return [...this.#attempts.values()].every(({ isChecked }) => isChecked)
  }

  inWords(): string {
    const view = (id: string): unknown => this.#running?.engine.list().find(({ record }) => record.id === id)
    return [...this.#attempts.values()]
      .filter(({ isChecked }) => !isChecked)
      .map(({ id, kind }) => `${kind} ${JSON.stringify(view(id))}`)
      .join('; ')
  }

  /** None is begun any more, and every one is ended. */
  end(): void {
    this.#isOver = true
  }

  killThread(): void {
    this.#running?.live.killThread()
  }

  async begin(checkpoint: Checkpoint, definition: VpgDefinition): Promise<void> {
    const [{ world }, running] = [this.#of, this.#running]
    const under = [...this.#attempts.values()].filter(({ isOver }) => !isOver)
    if (running === undefined || !running.isServing || this.#isOver || under.length >= attemptsMax) return
    const order = this.#order(checkpoint, definition)
    if (order === undefined) return
    const { refusalCount } = running.site.disk
    try {
      const { record } = await running.engine.start(order, new AbortController().signal)
      if (!running.site.life.isAlive) return
      this.#known(record)
      world.count(`a ${record.kind} of a checkpoint begins`)
    } catch (error) {
      if (!running.site.life.isAlive) return
      const mayBe = [
        'STORE_UNAVAILABLE',
        'CLOSING',
        'EPOCH_SUPERSEDED',
        'BUSY',
        'CHECKPOINT_MISSING',
        'PEER_LOST',
      ] as const
      const isFull = running.site.disk.isFull || running.site.disk.refusalCount > refusalCount
      if (mayBe.some(code => failedWith(error, code)) || isFull || this.#isDamage(error)) return
      throw error
    }
  }

  #order(checkpoint: Checkpoint, definition: VpgDefinition): RecoveryOrder | undefined {
    const { random } = this.#of.world
    const all = [...definition.volumes, ...definition.removedVolumes]
    const included = checkpoint.volumes.filter(({ included }) => included).map(({ number }) => number)
    const meant = all.filter(({ number }) => included.includes(number) && random.chance(0.8))
    if (meant.length === 0) return undefined
    const kind = this.#of.world.pick(['test', 'test', 'failover', 'clone'] as const)
    return {
      ...{ kind, definition, checkpoint },
      vms: vmsOf(definition, checkpoint, meant as readonly VolumeDefinition[], 'none'),
      target: {
        kind: 'nbd',
        settings: { scratchSizeBytesMax: 64 * MiB, ...(kind === 'test' ? {} : { directory: keptDirectory }) },
      },
      commitPolicy: { kind: 'none', afterMillis: 1 },
    }
  }

  #aging(aging: RecoveriesParts['aging']): RecoveriesParts['aging'] {
    if (this.#of.mutations.losesHolds !== true) return aging
    return {
      dataSizes: argument => aging.dataSizes(argument),
      closeImage: argument => aging.closeImage(argument),
      openImage: async argument => {
        const plan = await aging.openImage(argument)
        await aging.closeImage({ vpg: argument.vpg, pinId: plan.pinId })
        return plan
      },
      putRecovery: argument => {
        const { record } = argument
        return aging.putRecovery(
          !hasEnded(record) ? { ...argument, record: { ...record, checkpoint: undefined } } : argument,
        )
      },
    }
  }

  // What becomes of them.

  #known(record: RecoveryRecord): Attempt {
    const { id, kind, checkpoint } = record
    const known = this.#attempts.get(id)
    if (known !== undefined) return known
    if (checkpoint === undefined) throw new Error(`recovery ${id} has no checkpoint`)
    const attempt: Attempt = {
      ...{ id, kind, ordinal: checkpoint.ordinal, disks: [], disk: undefined },
      ...{ isReleased: hasEnded(record), isKept: false, isChecked: false, isOver: false, tickCount: 0 },
    }
    this.#attempts.set(id, attempt)
    this.#tickLater(attempt)
    return attempt
  }

  #changed(record: RecoveryRecord, disk: SimulatedDisk): void {
    const { world } = this.#of
    world.count(`a ${record.kind} is ${record.state}${record.failure === undefined ? '' : ', it failed'}`)
    world.trace(
      `recovery ${record.id}, ${record.kind} of ${record.checkpoint?.ordinal}, is ${record.state} ${record.failure?.sentence ?? ''}`,
    )
    const attempt = this.#attempts.get(record.id)
    if (attempt === undefined) return
    if (record.state === 'ready' || record.readyAtMicros !== undefined) attempt.disk ??= disk
    if (!['preparing', 'ready'].includes(record.state)) this.#release(record)
  }

  #release({ id }: RecoveryRecord): void {
    const attempt = this.#attempts.get(id)
    if (attempt !== undefined) attempt.isReleased = true
  }

  #tickLater(attempt: Attempt): void {
    const { world } = this.#of
    world.after(world.delay(50, this.#isOver ? 1_000 : 3_000), () => {
      attempt.tickCount++
      world.background(this.#tick(attempt))
      if (!attempt.isChecked) this.#tickLater(attempt)
    })
  }

  async #tick(attempt: Attempt): Promise<void> {
    const running = this.#running
    if (running === undefined || !running.isServing || !running.site.life.isAlive) return
    const record = running.engine.list().find(view => view.record.id === attempt.id)?.record
    if (record === undefined) {
      if (attempt.isOver) attempt.isChecked = true
      else if (running.engine.list(this.#of.vpg).length > 0)
        throw new Error(`recovery ${attempt.id} is not known any more`)
      return
    }
    if (hasEnded(record) && (record.state === 'removed' || record.isServiceEnded === true)) {
      this.#checkEnded(attempt, record, running)
      return
    }
    const isHere = attempt.disk === running.site.disk
    if (isHere && (record.state === 'ready' || record.state === 'committed')) await this.#act(attempt, record, running)
    const isEnough = this.#isOver || attempt.tickCount > tickCountMax || (attempt.disk !== undefined && !isHere)
    if (isEnough || this.#of.world.random.chance(0.03)) await this.#decide(attempt, running)
  }

  async #act(attempt: Attempt, record: RecoveryRecord, { engine, live, site }: RunningRecoveries): Promise<void> {
    const { exports } = live
    if (exports === undefined || !exports.life.isAlive) return
    for (const { volume, place } of engine.get(record.id).things) {
      const name = decodeURIComponent(place.split('/').slice(3).join('/'))
      const sizeBytes = record.checkpoint?.volumes.find(({ number }) => number === volume)?.sizeBytes ?? 0
      if (attempt.disks.some(disk => disk.exportName === name)) continue
      attempt.disks.push(new RecoveredDisk(this.#of.world, { volume: volume!, exportName: name, sizeBytes }))
    }
    if (attempt.disks.length === 0) return
    const disk = this.#of.world.pick(attempt.disks)
    const isFirst = disk.found === undefined
    const { refusalCount } = site.disk
    await disk.act(exports, site.disk, (error, what) => {
      const isSick = site.disk.refusalCount > 0 && (isSystemError(error) || failedWith(error, 'DISK_FAILED'))
      const mayBe = ['STORE_UNAVAILABLE', 'CLOSING', 'EPOCH_SUPERSEDED'] as const
      if (isSick || site.disk.refusalCount > refusalCount || this.#isDamage(error)) return
      if (mayBe.some(code => failedWith(error, code))) return
      throw new Error(`recovery ${attempt.id}: a ${what} is refused: ${String(error)}`, {
        cause: error,
      })
    })
    if (isFirst && disk.found !== undefined && site.life.isAlive) {
      this.#of.checkImage(new Map([[disk.volume, disk.found]]), attempt.ordinal)
      this.#of.world.count('a recovered disk is what the disks were')
    }
  }

  /** As its kind allows. */
  async #decide(attempt: Attempt, { engine, site }: RunningRecoveries): Promise<void> {
    const { record } = engine.get(attempt.id)
    const { kind, state, handOver } = record
    const { random } = this.#of.world
    const isCommitted = state === 'committed'
    if (isCommitted && !this.#isOver && random.chance(0.5)) return
    const isKept = kind === 'failover' && state === 'ready' && handOver === 'none' && attempt.disk === site.disk
    const decision = isCommitted || kind !== 'failover' ? 'stop' : isKept && random.chance(0.5) ? 'commit' : 'rollback'
    if (kind === 'clone' && !isCommitted && !(this.#isOver && random.chance(0.2)) && attempt.disk !== undefined) return
    attempt.isReleased = true
    try {
      await engine.decide(attempt.id, decision)
      this.#of.world.count(`a ${kind} is told to ${decision}`)
    } catch (error) {
      if (!site.life.isAlive) return
      const mayBe = [
        'BUSY',
        'STORE_UNAVAILABLE',
        'CLOSING',
        'REQUEST_INVALID',
        'EPOCH_SUPERSEDED',
        'PEER_LOST',
        'NOT_FOUND',
      ] as const
      if (!mayBe.some(code => failedWith(error, code)) && site.disk.refusalCount === 0) throw error
    }
  }

  /** Nothing of it is left on the disk but what was to be kept. */
  #checkEnded(attempt: Attempt, record: RecoveryRecord, { site }: RunningRecoveries): void {
    const isHere = attempt.disk === undefined || attempt.disk === site.disk
    const own = this.#filesOf(attempt.id, site.disk)
    const left = record.state === 'removed' ? own : own.filter(file => !file.endsWith('.raw'))
    if (isHere && left.length > 0)
      throw new Error(`recovery ${attempt.id} is ${record.state}, and ${left.join(', ')} is left`)
    if (record.state === 'committed' && isHere)
      for (const disk of attempt.disks) {
        const file = own.find(each => each.endsWith(`/${disk.exportName.split('/').slice(1).join('/')}.raw`))
        if (file === undefined)
          throw new Error(`recovery ${attempt.id} was committed, and ${disk.exportName} is not kept`)
        disk.checkKept(site.disk, whole => void site.disk.of(site.life).open(file, 'read').read(whole, 0))
        this.#of.world.count('a kept disk is what it was')
      }
    attempt.isKept = record.state === 'committed'
    attempt.isOver = attempt.isChecked = attempt.isReleased = true
  }

  #filesOf(id: string, disk: SimulatedDisk): string[] {
    return disk
      .files()
      .filter(file => file.startsWith(`${liveDirectory}/${id}/`) || file.startsWith(`${keptDirectory}/${id}/`))
  }

  /** At the end: of none that was removed anything has come back. */
  checkDisk(disk: SimulatedDisk): void {
    for (const { id, disk: own, isKept } of this.#attempts.values()) {
      if (own !== disk) continue
      const left = this.#filesOf(id, disk).filter(file => !isKept || !file.endsWith('.raw'))
      if (left.length > 0) throw new Error(`recovery ${id} has ended, and ${left.join(', ')} has come back`)
    }
  }

  #isDamage(error: unknown): boolean {
    return this.#of.hasRotted() && (failedWith(error, 'RECORD_CORRUPT') || failedWith(error, 'NOT_FOUND'))
  }
}
