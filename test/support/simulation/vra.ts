import { MirrorWorker } from '../../../src/aging/mirror-worker.ts'
import { SegmentMemory } from '../../../src/aging/segment-memory.ts'
import type { AgingConfig, AgingNotices, OpenedVpg, PackedVpg } from '../../../src/aging/service.ts'
import { Failure, failedWith } from '../../../src/base/failure.ts'
import { comparePositions, sequence, vpgId, type Ordinal, type Position } from '../../../src/base/ids.ts'
import { MiB, KiB } from '../../../src/base/units.ts'
import { Hashes } from '../../../src/daemon/hashes.ts'
import { reconcile, type ReconciledVpg } from '../../../src/daemon/reconcile.ts'
import { Terms } from '../../../src/daemon/terms.ts'
import { silentIngestEvents } from '../../../src/ingest/events.ts'
import { Ingest } from '../../../src/ingest/ingest.ts'
import { LogReader, type LogMark } from '../../../src/journal/log-reader.ts'
import type { RecordHeader } from '../../../src/journal/record.ts'
import { decodeCheckpoints } from '../../../src/manifest/checkpoint-page.ts'
import { Workspace } from '../../../src/mirror/mirror.ts'
import type { Checkpoint } from '../../../src/timeline/checkpoint.ts'
import type { VpgDefinition } from '../../../src/timeline/definition.ts'
import type { VolumeChange, VpgSettings } from '../../../src/timeline/definition-change.ts'
import { decodeFrame, type Ack, type Welcome } from '../../../src/wire/wire.ts'
import { openedVpg } from '../opened-vpg.ts'
import { SimulatedDisk } from './disk.ts'
import { SimulatedImages } from './images.ts'
import { SimulatedJournal } from './journal.ts'
import type { Network } from './network.ts'
import { SimulatedStore } from './store.ts'
import type { Sectors } from './volume.ts'
import { Host, type Life, type World } from './world.ts'

/** A record as the VRA keeps it. */
export interface KeptRecord {
  readonly header: RecordHeader
  readonly frame: Uint8Array
}

export interface VraSettings {
  readonly logSizeBytesMax: number
  readonly poolSizeBytes: number
  readonly syncDelayMillisMax: number
  readonly storeDelayMillisMax: number
  readonly definition: Pick<
    VpgDefinition,
    'volumes' | 'streams' | 'checkpointIntervalMillis' | 'historyMillis' | 'journalLimitSizeBytes'
  >
  readonly aging: Pick<
    AgingConfig,
    'segmentAgeMillisMax' | 'foldSizeBytesMin' | 'foldSizeBytesMax' | 'garbageGraceMillis' | 'logSizeBytesPressure'
  >
}

/** Ways to break the VRA, for showing that it is noticed. */
export interface VraMutations {
  readonly acknowledgesBeforeSync?: boolean
  readonly diskIgnoresSync?: boolean
}

interface Running {
  readonly life: Life
  readonly journal: SimulatedJournal
  readonly ingest: Ingest
  readonly worker: MirrorWorker
  readonly images: SimulatedImages
}

const directory = '/var/lib/vra'
const fileSizeBytes = 4 * MiB + 256 * KiB
const vpg = vpgId('5a'.repeat(16))
const restartMillis = 2_000
const packSizeBytes = 256 * KiB

/** One for all: what a killed process was about to build is never looked at again. */
const segmentMemory = new (class extends SegmentMemory {
  override releaseUnused(): void {
    // The next history wants as much.
  }
})()

/** The recovery site: the real ingest over the real commit log, and the real aging into a store, on a host that can fail. */
export class SimulatedVra {
  readonly host: Host
  readonly disk: SimulatedDisk
  readonly store: SimulatedStore
  /** Checkpoints that were told of as complete. */
  readonly announced = new Map<Ordinal, Checkpoint>()
  lastComplete: Checkpoint | undefined
  /** Kept whatever their age. */
  readonly tagged = new Set<Ordinal>()
  readonly #world: World
  readonly #network: Network
  readonly #settings: VraSettings
  readonly #mutations: VraMutations
  #definition: VpgDefinition
  /** Checkpoints below may be gone. */
  #edge = 0
  /** Every record that was ever durable, in the log's order, up to where the log's files have been freed. */
  readonly #archive: KeptRecord[] = []
  #archived: { readonly from?: LogMark } = {}
  readonly #archivedThrough = new Map<number, Position>()
  /** The furthest of each stream that a Welcome or an Ack has named durable. */
  readonly #told = new Map<number, Position>()
  #life: Life | undefined
  #worker: MirrorWorker | undefined
  #running: Running | undefined

  constructor(world: World, network: Network, settings: VraSettings, mutations: VraMutations) {
    this.#world = world
    this.#network = network
    this.#settings = settings
    this.#mutations = mutations
    this.host = new Host(world, 'vra')
    this.disk = new SimulatedDisk(world)
    this.disk.ignoresSync = mutations.diskIgnoresSync ?? false
    this.store = new SimulatedStore(world)
    this.store.delayMillisMax = settings.storeDelayMillisMax
    this.#definition = { ...openedVpg().definition, ...settings.definition, id: vpg }
  }

  get isRunning(): boolean {
    return this.#running !== undefined
  }

  get volumes(): VpgDefinition['volumes'] {
    return this.#definition.volumes
  }

  /** Neither paused nor slow. */
  get isAsDefined(): boolean {
    return !this.#definition.paused && this.#definition.syncRateBytesPerSecond === 0
  }

  get life(): Life | undefined {
    return this.#life
  }

  /** The VRA sends this frame to the agent of a stream. */
  noteSent(message: Ack | Welcome, stream: number): void {
    // That a generation was opened may be forgotten as long as there is nothing in it.
    if (message.durable.sequence === 0) return
    const told = this.#told.get(stream)
    if (told === undefined || comparePositions(message.durable, told) > 0) this.#told.set(stream, message.durable)
  }

  /** Starts the process; where its disk or the store refuses, it is started again after a while, as by systemd. */
  start(): void {
    if (this.#life !== undefined) return
    const life = (this.#life = this.host.boot())
    this.#network.booted(this.host)
    this.#world.trace(`vra ${life.name} starts`)
    this.#world.background(
      this.#open(life).catch((error: unknown) => {
        if (!life.isAlive) return
        if (!this.#mayFail(error)) throw error
        this.#world.count('the VRA cannot start')
        this.#world.trace(`vra cannot start: ${String(error)}`)
        this.#end(life)
        this.#world.after(restartMillis, () => {
          if (this.host.isUp) this.start()
        })
      }),
    )
  }

  /** A disk that is full or fails, a store that does not answer. */
  #mayFail(error: unknown): boolean {
    return (
      failedWith(error, 'STORE_UNAVAILABLE') ||
      failedWith(error, 'DISK_FAILED') ||
      ['ENOSPC', 'EIO'].includes((error as { readonly code?: string }).code ?? '')
    )
  }

  async #open(life: Life): Promise<void> {
    const world = this.#world
    const disk = this.disk.of(life)
    const store = this.store.of(life)
    let running: Running | undefined
    const notify = <K extends keyof AgingNotices>(name: K, notice: AgingNotices[K]): void => {
      if (life.isAlive) this.#noteAging(running, name, notice)
    }
    const worker = (this.#worker = new MirrorWorker(life.clock, notify, {
      disk,
      openStore: () => Promise.resolve(store),
      workspace: new Workspace(packSizeBytes),
      segmentMemory,
    }))
    const { vpgs, isStoreAway } = await worker.open(this.#agingConfig())
    if (isStoreAway) throw new Failure('STORE_UNAVAILABLE', 'the store does not answer')
    const opened = vpgs[0] === undefined ? await worker.createVpg(this.#definition) : unpacked(vpgs[0])
    if (!life.isAlive) return
    this.#definition = opened.definition
    this.#edge = Math.max(this.#edge, opened.historyEdge)
    const journal = new SimulatedJournal({
      life,
      disk,
      directory,
      fileSizeBytes,
      logSizeBytesMax: this.#settings.logSizeBytesMax,
      poolSizeBytes: this.#settings.poolSizeBytes,
      tellsBeforeSync: this.#mutations.acknowledgesBeforeSync ?? false,
      onDurable: mark => worker.durable(mark),
    })
    journal.delayMillisMax = this.#settings.syncDelayMillisMax
    const { recovered } = journal
    if (recovered.damage.length > 0) throw new Error(`damage is told of: ${JSON.stringify(recovered.damage)}`)
    const [known] = reconcile([opened], recovered)
    const terms = Terms.open(disk, directory)
    terms.prepare([{ id: vpg, above: Math.floor(known!.ingest.lastMarker / 2 ** 32) }])
    this.#checkRecovered(life, known!)
    const images = new SimulatedImages(life, store, disk, directory)
    const ingest = await Ingest.open({
      listen: { host: '10.0.0.2', port: 7420 },
      journal,
      vpgs: [known!.ingest],
      clock: life.clock,
      issueTerm: (id, above) => terms.issue(id, above),
      hashes: new Hashes({ aging: worker, images: () => images, clock: life.clock }),
      server: this.#network.serverOf(life),
      events: this.#ingestEvents(life, worker),
    })
    if (!life.isAlive) return
    running = this.#running = { life, journal, ingest, worker, images }
    ingest.offloaded(vpg, opened.offloaded)
    await worker.start({ durable: journal.durable() })
    world.trace(`vra ${life.name} runs`)
  }

  #agingConfig(): AgingConfig {
    return {
      store: { kind: 'directory', directory: '/nowhere' },
      logDirectory: directory,
      scratchDirectory: `${directory}/scratch`,
      memoDirectory: undefined,
      applianceId: 'appliance-one',
      adopt: false,
      segmentSizeBytesTarget: 64 * KiB,
      deltaShareMax: 0.45,
      ...this.#settings.aging,
    }
  }

  #ingestEvents(life: Life, worker: MirrorWorker): typeof silentIngestEvents {
    const world = this.#world
    return {
      ...silentIngestEvents,
      sessionOpened: ({ agent }) => world.trace(`vra: session of ${agent} opened`),
      sessionClosed: (session, end, sentence) => {
        if (life.isAlive) world.trace(`vra: session of ${session?.agent} closed, ${end}: ${sentence}`)
      },
      generationOpened: (_vpg, { stream, generation, volumes }) => {
        const wholeVolumes = volumes.filter(({ sync }) => sync !== 'none' && sync !== 'bitmap')
        if (wholeVolumes.length === 0) return
        const numbers = wholeVolumes.map(({ number }) => number)
        worker.generationOpened({ vpg, stream, generation, wholeVolumes: numbers }).catch(() => undefined)
      },
      coordinatorChanged: (_vpg, { agent, term }) => {
        world.count('a coordinator is named')
        world.trace(`vra: "${agent}" coordinates in term ${term}`)
      },
      checkpointComplete: (_vpg, checkpoint) => {
        if (!life.isAlive) return
        world.trace(`vra: checkpoint ${checkpoint.ordinal}`)
        this.announced.set(checkpoint.ordinal, checkpoint)
        this.lastComplete = checkpoint
      },
    }
  }

  #noteAging<K extends keyof AgingNotices>(running: Running | undefined, name: K, notice: AgingNotices[K]): void {
    const world = this.#world
    world.count(`aging: ${name}`)
    world.trace(`vra: ${name} ${JSON.stringify(notice, (key, value: unknown) => (key === 'segment' ? '' : value))}`)
    switch (name) {
      case 'segmentCommitted':
        running?.ingest.offloaded(vpg, (notice as AgingNotices['segmentCommitted']).offloaded)
        return
      case 'checkpointsGivenUp': {
        const { through, question } = notice as AgingNotices['checkpointsGivenUp']
        running?.ingest.giveUp(vpg, through)
        running?.worker.givenUp({ question }).catch(() => undefined)
        return
      }
      case 'historyEdgeMoved':
        this.#edge = (notice as AgingNotices['historyEdgeMoved']).edge
        return
      case 'logFileFree':
        this.#archiveLog()
        running?.journal.freeFile((notice as AgingNotices['logFileFree']).fileIdentity)
        return
      case 'damageFound':
      case 'holeFound':
      case 'fenced':
        world.fail(new Error(`${name} without damage: ${JSON.stringify(notice)}`))
    }
  }

  /** What a start finds must hold everything that was ever called durable, and every checkpoint that was told of and not given up. */
  #checkRecovered(life: Life, { ingest, opened, logCheckpoints }: ReconciledVpg): void {
    const named = ingest.durable.map(({ stream, generation, sequence: at }) => `${stream}: ${generation}/${at}`)
    this.#world.trace(`vra ${life.name} has ${named.join(', ')}`)
    for (const [stream, told] of this.#told) {
      const durable = ingest.durable.find(position => position.stream === stream)!
      if (comparePositions(durable, told) < 0)
        throw new Error(
          `recovered ${durable.generation}/${durable.sequence} of stream ${stream}, but ${told.generation}/${told.sequence} was called durable`,
        )
    }
    const found = new Set([...opened.checkpoints, ...logCheckpoints].map(({ ordinal }) => ordinal))
    for (const ordinal of this.retained())
      if (!found.has(ordinal)) throw new Error(`the checkpoint ${ordinal} is lost: a start does not find it`)
  }

  /** What was told of, and must still be there. */
  retained(): readonly Ordinal[] {
    return [...this.announced.keys()].filter(ordinal => ordinal >= this.#edge || this.tagged.has(ordinal))
  }

  /** Fails where labels do not rise, or the history is shorter than it should be and no limit says so. */
  checkHistory(): void {
    const newest = this.lastComplete
    let before: Checkpoint | undefined
    for (const checkpoint of [...this.announced.values()].sort((a, b) => a.ordinal - b.ordinal)) {
      if (before !== undefined && checkpoint.timestampMicros <= before.timestampMicros)
        throw new Error(`the label of ${checkpoint.ordinal} does not rise`)
      if (before !== undefined && checkpoint.historyMillis < before.historyMillis)
        throw new Error(`the history clock goes back at ${checkpoint.ordinal}`)
      before = checkpoint
    }
    if (newest === undefined || this.#settings.definition.journalLimitSizeBytes > 0) return
    for (const { ordinal, historyMillis } of this.announced.values())
      if (newest.historyMillis - historyMillis <= this.#definition.historyMillis && ordinal < this.#edge)
        throw new Error(`the checkpoint ${ordinal} was given up before its time`)
  }

  /** What the volumes hold as of a checkpoint. Fails as the store fails, CHECKPOINT_MISSING where it is not retained any more. */
  async readCheckpoint(ordinal: Ordinal): Promise<ReadonlyMap<number, Sectors>> {
    const running = this.#running
    const checkpoint = this.announced.get(ordinal)
    if (running === undefined || checkpoint === undefined) throw new Failure('CLOSING', 'the VRA does not run')
    const plan = await running.worker.openImage({ vpg, checkpoint, owner: 'a check' })
    if (plan.state.deltas.length > 0) this.#world.count('an image is read from deltas')
    if (plan.state.deltas.some(delta => delta.open !== undefined))
      this.#world.count('an image is read with an open delta there')
    if (plan.state.regions.some(region => region.asOfOrdinal <= ordinal))
      this.#world.count('an image is read from the mirror')
    try {
      return await running.images.read(plan)
    } finally {
      await running.worker.closeImage({ vpg, pinId: plan.pinId }).catch(() => undefined)
    }
  }

  /** What a person changes of the VPG while it is protected; where the store does not take it, nothing. */
  async change(settings: VpgSettings): Promise<void> {
    await this.#redefine(({ worker }) => worker.changeVpg({ vpg, ...settings }))
  }

  async changeVolumes(change: VolumeChange): Promise<void> {
    await this.#redefine(({ worker }) => worker.changeVolumes({ vpg, change }))
  }

  async #redefine(decide: (running: Running) => Promise<VpgDefinition>): Promise<void> {
    const running = this.#running
    if (running === undefined) return
    try {
      const definition = await decide(running)
      if (!running.life.isAlive) return
      this.#definition = definition
      running.ingest.updateVpg(definition)
    } catch (error) {
      if (running.life.isAlive && !(error instanceof Failure)) throw error
    }
  }

  /** Kept from now on, whatever its age; where the store does not take it, or the checkpoint is gone, nothing. */
  async tag(ordinal: Ordinal): Promise<void> {
    const running = this.#running
    if (running === undefined) return
    try {
      await running.worker.tag({ vpg, ordinal, name: `tag ${ordinal}` })
      if (running.life.isAlive) this.tagged.add(ordinal)
    } catch (error) {
      if (running.life.isAlive && !(error instanceof Failure)) throw error
    }
  }

  /** From here on it may go; whether the store has taken it or not. */
  async untag(ordinal: Ordinal): Promise<void> {
    const running = this.#running
    if (running === undefined) return
    this.tagged.delete(ordinal)
    try {
      await running.worker.untag({ vpg, name: `tag ${ordinal}` })
    } catch (error) {
      if (running.life.isAlive && !(error instanceof Failure)) throw error
    }
  }

  /** Asks the agents for a synchronisation; false where one of them is not connected. */
  requestSync(kind: 'full' | 'delta', volumes: readonly number[]): boolean {
    try {
      this.#running?.ingest.requestSync(vpg, kind, volumes)
      return this.#running !== undefined
    } catch (error) {
      if (!failedWith(error, 'PEER_LOST')) throw error
      return false
    }
  }

  /** A checkpoint that is made after this; undefined where the VRA says that there is none. */
  async requestCheckpoint(): Promise<Checkpoint | undefined> {
    try {
      return await this.#running?.ingest.requestCheckpoint(vpg)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      return undefined
    }
  }

  /** Why there are no checkpoints, in its own words. */
  whyNoCheckpoints(): string | undefined {
    return this.#running?.ingest.status(vpg).noCheckpointsBecause
  }

  kill(): void {
    this.#end(this.#life)
  }

  losePower(): void {
    this.host.isUp = false
    this.#end(this.#life)
    this.disk.losePower()
  }

  /** As by SIGTERM. */
  stop(): void {
    const running = this.#running
    if (running === undefined) return
    const stopped = running.ingest.close().then(async () => {
      if (!running.life.isAlive) return
      await running.worker.close()
      if (!running.life.isAlive) return
      running.journal.close()
      this.#world.trace('vra: stopped')
      this.#end(running.life)
    })
    this.#world.background(stopped)
  }

  #end(life: Life | undefined): void {
    if (life === undefined || !life.isAlive) return
    const worker = this.#worker
    this.#life = this.#running = this.#worker = undefined
    life.kill()
    this.#network.killed(life)
    // Its loops have died with it; should one be in the middle of a step, that ends quietly.
    worker?.close().catch(() => undefined)
  }

  /** Every record that was ever durable, in the log's order. */
  records(): readonly KeptRecord[] {
    this.#archiveLog()
    return this.#archive
  }

  #archiveLog(): void {
    const running = this.#running
    if (running === undefined) throw new Error('the VRA runs when its records are looked at')
    const reader = new LogReader({ disk: this.disk.of(running.life), directory, ...this.#archived })
    for (;;) {
      const { records, damage } = reader.next(running.journal.durable(), 4 * MiB)
      if (damage.length > 0) throw new Error(`the log is damaged: ${damage[0]!.sentence}`)
      if (records.length === 0) break
      for (const { header, place } of records) {
        const last = { generation: header.generation, sequence: sequence(header.lastSequence) }
        const through = this.#archivedThrough.get(header.stream)
        if (through !== undefined && comparePositions(last, through) <= 0) continue
        this.#archivedThrough.set(header.stream, last)
        this.#archive.push({ header, frame: reader.readRecord(place).slice() })
      }
    }
    reader.close()
    this.#archived = { from: reader.position() }
  }
}

function unpacked({ checkpointPage, ...packed }: PackedVpg): OpenedVpg {
  return { ...packed, checkpoints: decodeCheckpoints('of the store', checkpointPage) }
}

/** The messages of a frame that the VRA sends which say what is durable. */
export function saidDurable(frame: Uint8Array): Ack | Welcome | undefined {
  const message = decodeFrame(frame)
  return message.type === 'ack' || message.type === 'welcome' ? message : undefined
}
