import { failedWith } from '../../../src/base/failure.ts'
import type { Ordinal } from '../../../src/base/ids.ts'
import { repairMillisBetweenMax } from '../../../src/base/limits.ts'
import { SimulatedAgent, type AgentMutations } from './agent.ts'
import { checkCuts, checkRecords, imageDifference, type CheckMutations, type MayLieBelow } from './checker.ts'
import { drawFrom } from './determinism.ts'
import { Faults } from './faults.ts'
import { Network } from './network.ts'
import { SimulatedPeers } from './peers.ts'
import { paceOf, siteSettings, vraSettings, type Pace } from './settings.ts'
import { saidDurable, SimulatedVra, type VraMutations } from './vra.ts'
import type { Sectors } from './volume.ts'
import { World } from './world.ts'
import { Random } from '../journal-random.ts'

// One history: protected sites, the links between them and to a recovery site, that site, and its object store, whose settings and
// misfortunes a seed decides. It ends with everything healed. What must hold then, whatever happened:
//
// 1. A position that the VRA has called durable is found at every later start, and its records have no gap, no repetition, no disorder.
// 2. The stream at every marker is what the disks held when it was numbered, and so is the image that is read of every checkpoint, in the
//    middle of everything, from log, segments, deltas and mirror; every checkpoint that was told of, and is not past its time, is there.
// 3. A checkpoint over several hosts is one cut: it has nothing that was written after an answer without what was answered.
// 4. No guest's request fails, and none waits for more than its own disk; what was flushed is there after a power cut.
// 5. What was called offloaded outlives the appliance: another one on an empty disk goes on from there, or on the disk of one before it. The former owner
//    stops by itself, and nothing that it does meanwhile harms.
// 6. What has rotted in the log is never in an image: its checkpoints are refused, then withdrawn, and later ones are back by themselves.
// 7. The index of every start has each checkpoint that is retained and none that has left, whatever it was filled from: notes of the run before, with a
//    store that answers then, or later, or nothing.
// 8. A checkpoint that is recovered stays as long as that lasts; its disks hold what the protected ones held, and what was written to them since, in every
//    process; when it is stopped nothing of it is left, and when it was committed the whole disks.
// 9. An image that is handed over is in the mirror when that is said, below all that was written, or the volume is protected without it; none makes a
//    checkpoint other than the disks were, or keeps an agent waiting, whatever becomes of its file, of the process that reads it, or of the appliance.
// 10. Within a bounded time after the last fault there is a checkpoint of what the disks hold, of all volumes.

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
  readonly imageCount: number
  readonly answeredCount: number
  readonly syncCount: number
  readonly counts: ReadonlyMap<string, number>
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

/** Alone in its process: what the product draws by itself comes from the seed meanwhile. */
export async function runHistory(options: HistoryOptions): Promise<HistoryOutcome> {
  const world = new World(options.seed, { keepsTrace: options.keepsTrace ?? false })
  const fail = (error: unknown): void => world.fail(error)
  drawFrom(world)
  process.on('uncaughtException', fail)
  try {
    return await new History(world, options).run()
  } catch (error) {
    throw new BrokenHistory(options.seed, error, world.lines ?? [])
  } finally {
    process.off('uncaughtException', fail)
    drawFrom(undefined)
  }
}

const hourMillis = 3_600_000
/** A refused session comes back after 30 s, a silent one is noticed after 15, a hello is waited for 10; some of each, one after the other. */
const healMillisMax = 240_000
/** An agent that was asked to repair a hole, and was lost meanwhile, is asked again after this long at most. */
const repairMillisMax = healMillisMax + repairMillisBetweenMax
/** How long a checkpoint may take to be read when nothing is broken any more. */
const readMillisMax = 300_000
/** Of those that are there at the end, so many are read. */
const readCountMax = 3
/** Of the histories, those in which checkpoints are recovered. */
const recoveredShare = 0.35
/** Those in which images are handed over, by the seed alone: the others go as they would without. */
const preseededShare = 0.3
/** Of short histories. */
const askingShare = 0.2
/** Agents start up to so long after somebody may hand images over. */
const lateMillisMax = 5_000

class History {
  readonly #world: World
  readonly #options: HistoryOptions
  readonly #mutations: Mutations
  readonly #agents: readonly SimulatedAgent[]
  readonly #vra: SimulatedVra
  readonly #faults: Faults
  readonly #pace: Pace
  readonly #isPreseeded: boolean
  #imageCount = 0
  #isHealing = false

  constructor(world: World, options: HistoryOptions) {
    this.#world = world
    this.#options = options
    const own = new Random(~options.seed)
    this.#isPreseeded = own.chance(preseededShare)
    this.#mutations = options.mutations ?? {}
    this.#pace = paceOf(world)
    const [network, peers] = [new Network(world), new SimulatedPeers(world)]
    const sites = siteSettings(world, peers, this.#pace)
    this.#agents = sites.map(site => new SimulatedAgent(world, network, site, this.#mutations))
    this.#vra = new SimulatedVra(
      world,
      network,
      { ...vraSettings(world, sites, this.#pace), asksBehindPowerCuts: this.#pace.isLong || own.chance(askingShare) },
      this.#mutations,
      (volumes, ordinal) => this.#checkImage(volumes, ordinal),
      volume => this.#agents.flatMap(({ everyVolume }) => everyVolume).find(({ number }) => number === volume),
    )
    network.onServerFrame = (frame, to, from) => {
      const message = saidDurable(frame)
      const agent = this.#agents.find(({ host }) => host === to)
      if (message !== undefined && agent !== undefined) this.#vra.noteSent(message, agent.stream, from)
    }
    const askForCheckpoint = (): Promise<void> => this.#askForCheckpoint()
    const [vra, agents, isPreseeded] = [this.#vra, this.#agents, this.#isPreseeded]
    this.#faults = new Faults({ world, network, peers, vra, agents, isPreseeded, askForCheckpoint })
  }

  async run(): Promise<HistoryOutcome> {
    const world = this.#world
    const { isLong, durationMillis } = this.#pace
    this.#vra.start()
    for (const agent of this.#agents)
      if (this.#isPreseeded) world.after(world.delay(0, lateMillisMax), () => agent.start())
      else agent.start()
    if (this.#isPreseeded) this.#preseedNowAndThen()
    this.#faults.begin(isLong ? hourMillis : 3_000)
    this.#readNowAndThen()
    if (world.random.chance(recoveredShare)) this.#recoverNowAndThen()
    await world.run(durationMillis)
    await this.#heal()
    this.#checkRecords()
    // What it has called durable is durable.
    this.#vra.losePower()
    this.#vra.start()
    await world.run(world.nowMillis + readMillisMax, () => this.#vra.isRunning)
    this.#checkRecords()
    this.#vra.recoveries.checkDisk(this.#vra.disk)
    await this.#readAtEnd()
    await this.#compareIndexes()
    return this.#outcome()
  }

  #outcome(): HistoryOutcome {
    const [world, vra] = [this.#world, this.#vra]
    const guests = this.#agents.flatMap(agent => agent.guests)
    return {
      seed: this.#options.seed,
      hash: world.hash,
      eventCount: world.eventCount,
      simulatedMillis: world.nowMillis,
      recordCount: vra.records().length,
      checkpointCount: vra.announced.size,
      imageCount: this.#imageCount,
      answeredCount: guests.reduce((sum, { answeredCount }) => sum + answeredCount, 0),
      syncCount: this.#agents.reduce((sum, { syncCount }) => sum + syncCount, 0),
      counts: world.counts,
      lines: world.lines ?? [],
    }
  }

  // Checks.

  #checkRecords(): void {
    const [agents, vra] = [this.#agents, this.#vra]
    const mayLieBelow: MayLieBelow = (volume, sector) => vra.preseeds.mayLieBelow(volume, sector)
    for (const agent of agents) checkRecords(vra.records(), agent, vra.announced.keys(), mayLieBelow, this.#mutations)
    checkCuts(agents, vra.announced.keys(), this.#mutations)
    vra.checkHistory()
  }

  /** Some checkpoint, while everything goes on. */
  #readNowAndThen(): void {
    const world = this.#world
    const read = async (): Promise<void> => {
      const retained = this.#vra.retained().filter(ordinal => this.#vra.isOffered(ordinal))
      if (retained.length === 0 || !this.#vra.isRunning) return
      const ordinal = world.random.chance(0.3) ? retained[0]! : world.pick(retained)
      try {
        await this.#readCheckpoint(ordinal)
      } catch (error) {
        const isGone = failedWith(error, 'CHECKPOINT_MISSING') && this.#mayBeGone(ordinal)
        const mayBe = ['STORE_UNAVAILABLE', 'CLOSING', 'EPOCH_SUPERSEDED'] as const // the last of who is taken over meanwhile
        if (isGone || mayBe.some(code => failedWith(error, code)) || this.#isDamage(error)) return
        throw error
      }
    }
    world.after(world.delay(500, this.#pace.isLong ? hourMillis : 20_000), () => {
      world.background(read())
      this.#readNowAndThen()
    })
  }

  /** Some checkpoint, most often the one that is the next to leave. */
  #recoverNowAndThen(): void {
    const [world, vra] = [this.#world, this.#vra]
    const isLater = this.#pace.isLong ? hourMillis : 15_000
    world.after(world.delay(1_000, isLater), () => {
      const retained = vra.retained().filter(ordinal => vra.isOffered(ordinal))
      if (retained.length > 0)
        world.background(vra.recover(world.random.chance(0.6) ? retained[0]! : world.pick(retained)))
      this.#recoverNowAndThen()
    })
  }

  /** Somebody hands over images of volumes, as long as they are not protected. */
  #preseedNowAndThen(): void {
    const [world, vra] = [this.#world, this.#vra]
    world.after(world.delay(0, 1_500), () => {
      if (this.#isHealing) return
      if (world.random.chance(0.05)) vra.cancelPreseed()
      else world.background(vra.preseed())
      this.#preseedNowAndThen()
    })
  }

  async #readAtEnd(): Promise<void> {
    const world = this.#world
    const retained = this.#vra.retained().filter(ordinal => this.#vra.isOffered(ordinal))
    const tagged = retained.filter(ordinal => this.#vra.tagged.has(ordinal))
    const chosen = new Set([retained[0], retained.at(-1), ...tagged])
    while (chosen.size < Math.min(readCountMax, retained.length)) chosen.add(world.pick(retained))
    let leftCount = chosen.size
    for (const ordinal of chosen) {
      if (ordinal === undefined) continue
      const read = this.#readCheckpoint(ordinal).catch((error: unknown) => {
        if (!failedWith(error, 'CHECKPOINT_MISSING') || !this.#mayBeGone(ordinal)) throw error
      })
      world.background(read.then(() => void leftCount--))
    }
    await world.run(world.nowMillis + readMillisMax, () => leftCount === 0)
    if (leftCount > 0) throw new Error('checkpoints could not be read in time')
  }

  #mayBeGone(ordinal: Ordinal): boolean {
    return !this.#vra.retained().includes(ordinal) || this.#vra.mayBeThinned(ordinal)
  }

  /** The index that came through everything, and one that is filled from log and store alone. */
  async #compareIndexes(): Promise<void> {
    const [world, vra] = [this.#world, this.#vra]
    const kept = await this.#indexed()
    vra.loseIndex()
    vra.start()
    await world.run(world.nowMillis + readMillisMax, () => vra.isRunning)
    const filled = new Set(await this.#indexed())
    const retained = new Set(vra.retained().filter(ordinal => vra.isOffered(ordinal) && !vra.mayBeThinned(ordinal)))
    const lacking = kept.filter(ordinal => !filled.has(ordinal) && retained.has(ordinal))
    const isCompared = (ordinal: Ordinal): boolean => ordinal <= (kept.at(-1) ?? 0) && vra.isOffered(ordinal)
    const added = [...filled].filter(ordinal => isCompared(ordinal) && !kept.includes(ordinal))
    if (lacking.length > 0) throw new Error(`only an index that was kept has the checkpoints ${lacking.join(', ')}`)
    if (added.length > 0) throw new Error(`an index that was kept lacks the checkpoints ${added.join(', ')}`)
  }

  async #indexed(): Promise<readonly Ordinal[]> {
    let ordinals: readonly Ordinal[] | undefined
    this.#world.background(this.#vra.indexed().then(found => void (ordinals = found)))
    await this.#world.run(this.#world.nowMillis + readMillisMax, () => ordinals !== undefined)
    if (ordinals === undefined) throw new Error('the index does not answer')
    return ordinals
  }

  /** A checkpoint with a record that has rotted is refused until the hole is known, and withdrawn from then on. */
  #isDamage(error: unknown): boolean {
    return this.#vra.hasRotted && (failedWith(error, 'RECORD_CORRUPT') || failedWith(error, 'NOT_FOUND'))
  }

  async #readCheckpoint(ordinal: Ordinal): Promise<void> {
    this.#checkImage(await this.#vra.readCheckpoint(ordinal), ordinal)
  }

  #checkImage(volumes: ReadonlyMap<number, Sectors>, ordinal: Ordinal): void {
    const difference = imageDifference(volumes, ordinal, this.#agents)
    if (difference !== undefined)
      throw new Error(`the image of checkpoint ${ordinal} is not what the disks were: ${difference}`)
    this.#imageCount++
  }

  async #askForCheckpoint(): Promise<void> {
    const world = this.#world
    const { nowMillis } = world
    const checkpoint = await this.#vra.requestCheckpoint()
    if (checkpoint === undefined) return
    world.count('a checkpoint that was asked for is made')
    const moments = this.#agents.flatMap(agent => agent.moments.get(checkpoint.ordinal) ?? [])
    if (!moments.some(({ atMillis }) => atMillis >= nowMillis))
      throw new Error(`the checkpoint ${checkpoint.ordinal} is older than the request that it answers`)
  }

  // The end.

  /** All faults end, the guests go on for a while and stop; then there is a checkpoint of what the disks hold. */
  async #heal(): Promise<void> {
    const [world, vra, agents] = [this.#world, this.#vra, this.#agents]
    world.trace('everything is healed')
    this.#isHealing = true
    this.#faults.end()
    const deadlineMillis = world.nowMillis + (vra.hasRotted ? repairMillisMax : healMillisMax)
    const keepStarting = (): void => {
      vra.start()
      for (const agent of agents) {
        agent.start()
        if (agent.isServing && !agent.isAsConfigured) world.background(agent.reload())
      }
      world.background(vra.keepVolumes(agents))
      // Nobody has left it paused, or slow, for ever.
      if (!vra.isAsDefined) world.background(vra.change({ paused: false, syncRateBytesPerSecond: 0 }))
      world.after(1_000, keepStarting)
    }
    keepStarting()
    await world.run(world.nowMillis + world.delay(200, 1_500))
    for (const agent of agents) for (const guests of agent.guests) guests.isStopped = true
    const stoppedMillis = world.nowMillis
    await world.run(deadlineMillis, () => this.#isHealed(stoppedMillis))
    if (!this.#isHealed(stoppedMillis))
      throw new Error(
        `no checkpoint of what the disks hold in time: ` +
          `${JSON.stringify(agents.map(agent => agent.status()))}; the VRA says: ${vra.whyNoCheckpoints()}; ` +
          (vra.isAlone ? '' : 'a former appliance goes on'),
      )
    await world.run(world.nowMillis + healMillisMax, () => vra.preseedsLeft === undefined)
    if (vra.preseedsLeft !== undefined) throw new Error(vra.preseedsLeft)
    vra.recoveries.end()
    await world.run(world.nowMillis + healMillisMax, () => vra.recoveries.isDone)
    if (!vra.recoveries.isDone) throw new Error(`recoveries do not end: ${vra.recoveries.inWords()}`)
  }

  #isHealed(stoppedMillis: number): boolean {
    const [agents, vra] = [this.#agents, this.#vra]
    if (!vra.isRunning || !vra.isAlone || !vra.isWhole || !agents.every(agent => agent.isServing && agent.isIdle))
      return false
    const newest = vra.lastComplete
    if (newest === undefined || !newest.volumes.every(volume => volume.included)) return false
    if (!vra.isOffered(newest.ordinal)) return false
    if (!vra.hasVolumes(agents) || !agents.every(agent => agent.isAsConfigured)) return false
    const volumes = agents.flatMap(agent => agent.volumes)
    const isWhole = volumes.every(({ number, sizeBytes }) =>
      newest.volumes.some(volume => volume.number === number && volume.sizeBytes === sizeBytes),
    )
    if (!isWhole || newest.volumes.length !== volumes.length) return false
    return agents.every(agent =>
      (agent.moments.get(newest.ordinal) ?? []).some(
        moment => moment.atMillis > stoppedMillis && moment.changeCount === agent.changes.length && isCertain(moment),
      ),
    )
  }
}

function isCertain(moment: { readonly uncertain: ReadonlyMap<number, ReadonlyMap<number, unknown>> }): boolean {
  return [...moment.uncertain.values()].every(sectors => sectors.size === 0)
}
