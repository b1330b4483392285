import { MirrorWorker } from '../../../src/aging/mirror-worker.ts'
import { SegmentMemory } from '../../../src/aging/segment-memory.ts'
import type { AgingHandlers } from '../../../src/aging/aging.ts'
import type { AgingConfig, AgingNotices, OpenedVpg, PackedVpg } from '../../../src/aging/service.ts'
import { Failure, failedWith } from '../../../src/base/failure.ts'
import {
  comparePositions,
  sequence,
  vpgId,
  type Ordinal,
  type Position,
  type StreamPosition,
} from '../../../src/base/ids.ts'
import { untilTold } from '../../../src/base/told.ts'
import { MiB, KiB } from '../../../src/base/units.ts'
import { Histories } from '../../../src/daemon/histories.ts'
import { loadHistory, loadRemembered } from '../../../src/daemon/load-catalog.ts'
import type { Log } from '../../../src/daemon/log.ts'
import { Hashes } from '../../../src/daemon/hashes.ts'
import { reconcile, type ReconciledVpg } from '../../../src/daemon/reconcile.ts'
import { Repairs } from '../../../src/daemon/repairs.ts'
import { StopNotes } from '../../../src/daemon/stop-notes.ts'
import { recoveredOfOthers, takeStore } from '../../../src/daemon/store-return.ts'
import { Terms } from '../../../src/daemon/terms.ts'
import { VpgEntry, VpgTable } from '../../../src/daemon/vpg-table.ts'
import { silentIngestEvents } from '../../../src/ingest/events.ts'
import { Ingest } from '../../../src/ingest/ingest.ts'
import { logFilePath } from '../../../src/journal/log-file.ts'
import { LogReader, type LogMark } from '../../../src/journal/log-reader.ts'
import type { RecordHeader } from '../../../src/journal/record.ts'
import { decodeCheckpoints } from '../../../src/timeline/checkpoint-page.ts'
import { Workspace } from '../../../src/mirror/mirror.ts'
import type { Checkpoint } from '../../../src/timeline/checkpoint.ts'
import { densitiesOf, everyMillisAt } from '../../../src/timeline/densities.ts'
import type { VolumeDefinition, VpgDefinition } from '../../../src/timeline/definition.ts'
import { covers, liesWithin } from '../../../src/timeline/positions.ts'
import { holeOver } from '../../../src/timeline/retention.ts'
import type { Hole } from '../../../src/timeline/state.ts'
import type { VolumeChange, VpgSettings } from '../../../src/timeline/definition-change.ts'
import { decodeFrame, type Ack, type Welcome } from '../../../src/wire/wire.ts'
import { openedVpg } from '../opened-vpg.ts'
import { SimulatedDisk } from './disk.ts'
import { SimulatedImages } from './images.ts'
import { SimulatedIndexFile, type SimulatedCatalog } from './index-file.ts'
import { SimulatedJournal } from './journal.ts'
import type { SimulatedAgent } from './agent.ts'
import type { Network } from './network.ts'
import { SimulatedPreseeds, type PreseedMutations, type RunningPreseeds } from './preseeds.ts'
import { SimulatedRecoveries, type RecoveryMutations, type RunningRecoveries } from './recoveries.ts'
import { SimulatedStore } from './store.ts'
import { sectorBytes, type Sectors, type SimulatedVolume } from './volume.ts'
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
  /** Behind a power cut it asks whether another appliance of its id runs, and ages nothing for 20 s, which is most of a short history. Else it takes the boot for the same. */
  readonly asksBehindPowerCuts: boolean
  readonly definition: Pick<
    VpgDefinition,
    'volumes' | 'streams' | 'checkpointIntervalMillis' | 'historyMillis' | 'retention' | 'journalLimitSizeBytes'
  >
  readonly aging: Pick<
    AgingConfig,
    'segmentAgeMillisMax' | 'foldSizeBytesMin' | 'foldSizeBytesMax' | 'garbageGraceMillis' | 'logSizeBytesPressure'
  >
}

/** Ways to break the VRA, for showing that it is noticed. */
export interface VraMutations extends RecoveryMutations, PreseedMutations {
  readonly acknowledgesBeforeSync?: boolean
  readonly diskIgnoresSync?: boolean
  readonly neverRepairs?: boolean
  /** A start believes its notes, and the index was not told of what left the history, or of what is new. */
  readonly indexMisses?: 'what leaves' | 'what is new'
}

interface Running {
  readonly life: Life
  readonly journal: SimulatedJournal
  readonly ingest: Ingest
  readonly worker: MirrorWorker
  readonly images: SimulatedImages
  readonly entry: VpgEntry
  readonly table: VpgTable
  readonly catalog: SimulatedCatalog
  readonly histories: Histories
  readonly stop: StopNotes
  readonly recoveries: RunningRecoveries
  readonly preseeds: RunningPreseeds
  /** What the index and its notes hear of. */
  readonly handlers: AgingHandlers
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

/** An appliance that was the owner: what it has on its disk, and its process as long as it goes on. */
interface Former {
  readonly applianceId: string
  readonly host: Host
  readonly disk: SimulatedDisk
  readonly indexFile: SimulatedIndexFile
  running: Running | undefined
}

/** The recovery site: the real ingest over the real commit log, and the real aging into a store, on a host that can fail. */
export class SimulatedVra {
  /** Of the present appliance. */
  host: Host
  disk: SimulatedDisk
  #indexFile = new SimulatedIndexFile()
  readonly store: SimulatedStore
  readonly recoveries: SimulatedRecoveries
  readonly preseeds: SimulatedPreseeds
  /** Checkpoints that were told of as complete. */
  readonly announced = new Map<Ordinal, Checkpoint>()
  lastComplete: Checkpoint | undefined
  /** History clock of the newest checkpoint that a start found in the log, which its process may have had no time to tell of. */
  #recoveredHistoryMillis = 0
  /** Kept whatever their age. */
  readonly tagged = new Set<Ordinal>()
  readonly #world: World
  readonly #network: Network
  readonly #settings: VraSettings
  readonly #mutations: VraMutations
  #definition: VpgDefinition
  #applianceId = 'appliance-1'
  #applianceCount = 1
  #epoch = 1
  #isStopping = false
  /** A byte of its log has changed by itself: what is damaged is withdrawn, and comes back by a repair. */
  #hasRotted = false
  /** The present appliance is to take the VPG over, from the last of these. */
  #isAdopting = false
  readonly #formers: Former[] = []
  /** The furthest of each stream that was named offloaded: it outlives the appliance. */
  readonly #toldOffloaded = new Map<number, StreamPosition>()
  /** Of volumes that were removed: the newest checkpoint that was told of before. Up to there they are read. */
  readonly #removedAfter = new Map<number, number>()
  /** A hole was over them: they may go before their time, which is counted without them. */
  readonly #withdrawn = new Set<Ordinal>()
  /** Checkpoints below may be gone. */
  #edge = 0
  /** Dropped because the retention lets them go. */
  readonly #thinned = new Set<Ordinal>()
  /** A former owner may have dropped them before it was fenced: nobody heard. */
  readonly #leftToFormer = new Set<Ordinal>()
  /** Below it, but not gone with it: tagged, or being read then. They may go at any time. */
  readonly #keptBelowEdge = new Set<Ordinal>()
  /** Every record that was ever durable, in the log's order, up to where the log's files have been freed. */
  readonly #archive: KeptRecord[] = []
  /** How far the log of the present appliance was looked at; while another one takes over, of the one before. */
  #archived: { readonly from?: LogMark } = {}
  readonly #archivedThrough = new Map<number, Position>()
  /** The furthest of each stream that a Welcome or an Ack has named durable. */
  readonly #told = new Map<number, Position>()
  #life: Life | undefined
  #worker: MirrorWorker | undefined
  #startCount = 0
  #running: Running | undefined

  constructor(
    world: World,
    network: Network,
    settings: VraSettings,
    mutations: VraMutations,
    checkImage: (volumes: ReadonlyMap<number, Sectors>, ordinal: Ordinal) => void,
    diskOf: (volume: number) => SimulatedVolume | undefined,
  ) {
    this.#world = world
    this.#network = network
    this.#settings = settings
    this.#mutations = mutations
    this.host = new Host(world, 'vra')
    this.disk = this.#newDisk()
    this.store = new SimulatedStore(world)
    this.store.delayMillisMax = settings.storeDelayMillisMax
    const hasRotted = (): boolean => this.#hasRotted
    this.recoveries = new SimulatedRecoveries({ world, vpg, mutations, hasRotted, checkImage })
    this.preseeds = new SimulatedPreseeds({ world, vpg, mutations, diskOf })
    this.#definition = { ...openedVpg().definition, ...settings.definition, id: vpg }
  }

  #newDisk(): SimulatedDisk {
    const disk = new SimulatedDisk(this.#world)
    disk.ignoresSync = this.#mutations.diskIgnoresSync ?? false
    return disk
  }

  /** No former appliance goes on. */
  get isAlone(): boolean {
    return this.#formers.every(({ running }) => running === undefined)
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

  /** The process of a VRA sends this frame to the agent of a stream. */
  noteSent(message: Ack | Welcome, stream: number, from: Life): void {
    const offloaded = this.#toldOffloaded.get(stream)
    if (
      message.offloaded.sequence > 0 &&
      (offloaded === undefined || comparePositions(message.offloaded, offloaded) > 0)
    ) {
      if (from !== this.#life && !this.#isAdopting)
        throw new Error(`a former appliance has called ${JSON.stringify(message.offloaded)} offloaded`)
      this.#toldOffloaded.set(stream, { stream, ...message.offloaded })
    }
    if (from !== this.#life) return // what it calls durable is lost with it
    // That a generation was opened may be forgotten as long as there is nothing in it.
    if (message.durable.sequence === 0) return
    const told = this.#told.get(stream)
    if (told === undefined || comparePositions(message.durable, told) > 0) this.#told.set(stream, message.durable)
  }

  /**
   * The appliance is given up, for whatever reason, dead or not; another one, on an empty disk or on that of one before it, is to go on with what
   * the store has. It is not started yet.
   */
  takeOver({
    disk,
    former,
  }: {
    readonly disk: 'empty' | 'used'
    readonly former: 'is killed' | 'loses its power' | 'goes on'
  }): void {
    const running = this.#running
    if (running === undefined || this.#isStopping || this.#isAdopting || !this.isAlone) return
    this.#world.count(`another appliance takes over, its disk ${disk}; the former one ${former}`)
    this.#archiveLog()
    const used = disk === 'used' ? this.#formers.pop() : undefined
    this.#formers.push({
      applianceId: this.#applianceId,
      host: this.host,
      disk: this.disk,
      indexFile: this.#indexFile,
      running,
    })
    running.catalog.leave()
    if (former === 'goes on') this.#life = this.#running = this.#worker = undefined
    else {
      if (former === 'loses its power') this.losePower()
      else this.kill()
      this.#formers.at(-1)!.running = undefined
    }
    this.#isAdopting = true
    this.host = used?.host ?? new Host(this.#world, `vra${this.#applianceCount + 1}`)
    this.disk = used?.disk ?? this.#newDisk()
    this.#indexFile = used?.indexFile ?? new SimulatedIndexFile()
    this.disk.isFull = this.disk.failsNextSync = false
    this.#applianceId = used?.applianceId ?? `appliance-${++this.#applianceCount}`
  }

  /** The process of an appliance that was the owner is started again: it finds that it is not, and leaves everything alone. */
  wakeFormer(): void {
    const former = this.#formers.at(-1)
    if (former === undefined || former.running !== undefined || this.#isAdopting) return
    this.#world.count('a former appliance is started again')
    const life = former.host.boot()
    const worker = new MirrorWorker(life.clock, () => undefined, {
      disk: former.disk.of(life),
      openStore: () => Promise.resolve(this.store.of(life)),
      workspace: new Workspace(packSizeBytes),
      segmentMemory,
    })
    const config = { ...this.#agingConfig(), applianceId: former.applianceId, adopt: false, memoDirectory: undefined }
    const looked = worker.open(config).then(
      ({ vpgs }) => {
        if (vpgs.length > 0 && this.#formers.includes(former))
          throw new Error(`${former.applianceId} was taken over, and goes on`)
      },
      (error: unknown) => {
        if (!this.#mayFail(error)) throw error
      },
    )
    this.#world.background(
      looked.finally(() => {
        life.kill()
        worker.close().catch(() => undefined)
      }),
    )
  }

  /** What the new owner finds: all that was called offloaded, and of what was acknowledged after that nothing. */
  #takenOver({ epoch, offloaded }: OpenedVpg, found: ReadonlySet<Ordinal>): void {
    const former = this.#formers.at(-1)
    if (former?.running !== undefined) this.#archiveLog(former.running, former.disk)
    for (const told of this.#toldOffloaded.values()) {
      const end = offloaded.find(({ stream }) => stream === told.stream)
      if (end === undefined || comparePositions(end, told) < 0)
        throw new Error(`${JSON.stringify(told)} was called offloaded, and is lost with the appliance`)
    }
    const isKept = ({ header: { stream, generation, lastSequence } }: KeptRecord): boolean =>
      liesWithin(offloaded, stream, { generation, sequence: sequence(lastSequence) })
    const kept = this.#archive.filter(isKept)
    this.#archive.splice(0, this.#archive.length, ...kept)
    this.#archived = {}
    this.#archivedThrough.clear()
    this.#told.clear()
    for (const { stream, ...position } of offloaded) {
      this.#archivedThrough.set(stream, position)
      this.#told.set(stream, position)
      this.#toldOffloaded.set(stream, { stream, ...position }) // up to here the former owner may say so yet
    }
    const isThinned = densitiesOf(this.#definition).length > 1
    for (const [ordinal, { vector }] of this.announced) {
      if (covers(offloaded, vector) && isThinned && !this.tagged.has(ordinal)) this.#leftToFormer.add(ordinal)
      if (found.has(ordinal) || covers(offloaded, vector)) continue
      this.#world.count('a checkpoint is lost with its appliance')
      this.announced.delete(ordinal)
      this.tagged.delete(ordinal)
    }
    this.lastComplete = [...this.announced.values()].sort((a, b) => b.ordinal - a.ordinal)[0]
    this.#world.count('another appliance has taken over')
    this.#epoch = epoch
    this.#isAdopting = false
  }

  #noteFormer<K extends keyof AgingNotices>(
    former: Former,
    { ingest, worker, journal, life, recoveries }: Running,
    name: K,
    notice: AgingNotices[K],
  ): void {
    switch (name) {
      case 'segmentCommitted':
        ingest.offloaded(vpg, (notice as AgingNotices['segmentCommitted']).offloaded)
        return
      case 'checkpointsGivenUp': {
        const { through, question } = notice as AgingNotices['checkpointsGivenUp']
        ingest.giveUp(vpg, through)
        worker.givenUp({ question }).catch(() => undefined)
        return
      }
      case 'logFileFree':
        if (this.#isAdopting) this.#archiveLog(former.running, former.disk)
        journal.freeFile((notice as AgingNotices['logFileFree']).fileIdentity)
        return
      case 'fenced': {
        this.#world.count('a former appliance stops by itself')
        if (this.#isAdopting) this.#archiveLog(former.running, former.disk)
        former.running = undefined
        this.#world.background(recoveries.engine.forget(vpg))
        const stopped = ingest.close().then(async () => {
          await worker.close()
          this.#network.killed(life)
          life.kill()
        })
        this.#world.background(stopped)
        return
      }
      case 'damageFound':
      case 'holeFound':
        if (this.#hasRotted) return
        this.#world.fail(new Error(`${name} by a former appliance, without damage: ${JSON.stringify(notice)}`))
        return
      case 'superseded':
      case 'tenureTold':
      case 'sealingStopped':
        this.#world.fail(new Error(`${name} by a former appliance, without damage: ${JSON.stringify(notice)}`))
    }
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
    const storeOpened = untilTold<readonly OpenedVpg[]>()
    const notify = <K extends keyof AgingNotices>(name: K, notice: AgingNotices[K]): void => {
      if (!life.isAlive) return
      if (name === 'storeOpened') storeOpened.tell((notice as AgingNotices['storeOpened']).vpgs.map(unpacked))
      this.#noteAging(running, name, notice)
    }
    const worker = (this.#worker = new MirrorWorker(life.clock, notify, {
      disk,
      openStore: () => Promise.resolve(store),
      workspace: new Workspace(packSizeBytes),
      segmentMemory,
      openImageFile: this.preseeds.openerOf(life),
      // Every other start reads what serves the VPG, and its history only then.
      wholeSizeBytesMax: this.#startCount++ % 2 === 0 ? Infinity : 0,
    }))
    const catalog = this.#indexFile.open(life)
    const notes = catalog.notes.map(({ vpg: id, text }) => ({ vpg: vpgId(id), text }))
    const { vpgs, isStoreAway } = await worker.open({ ...this.#agingConfig(), notes })
    if (isStoreAway && (vpgs[0] === undefined || this.#isAdopting))
      throw new Failure('STORE_UNAVAILABLE', 'the store does not answer')
    const opened = vpgs[0] === undefined ? await worker.createVpg(this.#definition) : unpacked(vpgs[0])
    if (!life.isAlive) return
    if (opened.indexedThrough !== undefined) world.count('a start reads no manifest, but what came after a note')
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
    if (recovered.damage.length > 0 && !this.#hasRotted)
      throw new Error(`damage is told of: ${JSON.stringify(recovered.damage)}`)
    const [known] = reconcile([opened], recovered)
    const recoveredMillis = known!.logCheckpoints.map(({ historyMillis }) => historyMillis)
    this.#recoveredHistoryMillis = Math.max(this.#recoveredHistoryMillis, ...recoveredMillis)
    const terms = Terms.open(disk, directory)
    terms.prepare([{ id: vpg, above: Math.floor(known!.ingest.lastMarker / 2 ** 32) }])
    const table = new VpgTable()
    const entry = new VpgEntry(opened, life.clock)
    table.add(entry)
    const stop = new StopNotes({ aging: { stop: () => worker.close() }, catalog, table })
    await (isStoreAway ? loadRemembered(catalog, [known!]) : loadHistory(catalog, [known!]))
    if (!life.isAlive) return
    if (!isStoreAway) stop.indexIsWhole()
    const found = new Set(catalog.ordinals(vpg))
    if (this.#isAdopting) this.#takenOver(opened, found)
    this.#definition = opened.definition
    this.#edge = Math.max(this.#edge, opened.historyEdge)
    this.#checkRecovered(life, known!)
    if (!isStoreAway) this.#checkIndex(found, opened)
    const images = new SimulatedImages(life, store, disk, directory)
    const ingest = await Ingest.open({
      listen: { host: '10.0.0.2', port: 7420 },
      journal,
      vpgs: [known!.ingest],
      clock: life.clock,
      issueTerm: (id, above) => terms.issue(id, above),
      hashes: new Hashes({
        aging: {
          openReading: argument => worker.openReading(argument),
          closeImage: argument => worker.closeImage(argument),
          noteCompared: this.preseeds.noteCompared(worker, volume => world.background(this.preseed([volume]))),
        },
        images: () => images,
        clock: life.clock,
      }),
      server: this.#network.serverOf(life),
      events: this.#ingestEvents(life, worker, catalog),
    })
    if (!life.isAlive) return
    const histories = new Histories({
      ...{ aging: worker, catalog, clock: life.clock, table },
      notTaken: error => world.fail(error),
    })
    const handlers = stop.watching(this.#indexing({ catalog, histories, entry }), error => world.fail(error))
    const recoveries = this.recoveries.open({ life, disk: this.disk, store, directory, aging: worker })
    const preseeds = this.preseeds.open({
      ...{ life, aging: worker, entry },
      redefine: definition => this.#takeDefinition(running, definition),
      readBelowRecords: volume => this.#readBelowRecords(running, volume),
    })
    const parts = {
      recoveries,
      preseeds,
      life,
      journal,
      ingest,
      worker,
      images,
      entry,
      table,
      catalog,
      histories,
      stop,
      handlers,
    }
    running = this.#running = parts
    if (this.#hasRotted && this.#mutations.neverRepairs !== true) this.#repair(running)
    ingest.offloaded(vpg, opened.offloaded)
    world.trace(`vra ${life.name} runs${isStoreAway ? ' without the store' : ''}`)
    this.preseeds.resume(preseeds)
    if (isStoreAway) {
      world.count('a start without the store')
      const without = running
      world.background(storeOpened.told.then(vpgs => this.#takeStore(without, vpgs)))
    } else {
      await worker.start({ durable: journal.durable() })
      this.#serveRecoveries(running, opened)
    }
  }

  #serveRecoveries(running: Running, opened: OpenedVpg): void {
    if (running !== this.#running || !running.life.isAlive) return
    this.recoveries.serve(running.recoveries, opened.recoveries, () => running.entry.definition)
  }

  /** The store has answered a VRA that was started without it. */
  async #takeStore(running: Running, vpgs: readonly OpenedVpg[]): Promise<void> {
    const { life, catalog, ingest, table, stop, worker, journal, entry } = running
    const log = { warn: () => undefined, error: () => undefined } as unknown as Log
    const unknownInLog = recoveredOfOthers(journal.recovered, vpgs)
    try {
      await takeStore({ catalog, clock: life.clock, ingest, log, table, unknownInLog }, vpgs)
    } catch (error) {
      if (!failedWith(error, 'PEER_LOST')) throw error
      this.#world.count('the VRA ends: its VPG went on elsewhere while the store was away')
      this.#end(life)
      return
    }
    if (!life.isAlive) return
    this.#world.count('the store answers a VRA that was started without it')
    stop.indexIsWhole()
    if (running === this.#running) {
      const [opened] = vpgs
      if (opened === undefined) throw new Error('the store has no VPG any more')
      this.#definition = entry.definition
      this.#edge = Math.max(this.#edge, entry.historyEdge)
      this.#takeHoles(running, entry.holes)
      await catalog.flush()
      this.#checkIndex(new Set(catalog.ordinals(vpg)), opened)
    }
    await worker.start({ durable: journal.durable() })
    this.preseeds.resume(running.preseeds)
    if (vpgs[0] !== undefined) this.#serveRecoveries(running, vpgs[0])
  }

  /** As agingHandlers of the daemon. */
  #indexing({ catalog, histories, entry }: Pick<Running, 'catalog' | 'histories' | 'entry'>): AgingHandlers {
    const failed = (error: unknown): void => this.#world.fail(error)
    const change = (make: () => Promise<void>): void => void histories.change(vpg, make).catch(failed)
    return {
      historyRead: notice => {
        const through = entry.unreadThrough
        const read = histories.read(notice).then(() => {
          const found = new Set(catalog.ordinals(vpg))
          if (through !== undefined) this.#checkIndexed(found, entry.holes, { above: 0, through })
        })
        this.#world.background(read)
      },
      segmentCommitted: ({ segment, offloaded }) => change(() => catalog.addSegment({ vpg, segment, offloaded })),
      folded: ({ segmentsThroughCommit: throughCommitNumber }) =>
        change(() => catalog.dropSegments({ vpg, throughCommitNumber })),
      historyEdgeMoved: ({ edge, kept }) => {
        if (this.#mutations.indexMisses !== 'what leaves') change(() => catalog.dropCheckpoints({ vpg, edge, kept }))
      },
      checkpointsThinned: ({ dropped }) => change(() => catalog.thinCheckpoints({ vpg, dropped })),
    }
  }

  /** Whatever it was filled from, the index has what was told of and is retained, and nothing that left the history. */
  #checkIndex(found: ReadonlySet<Ordinal>, { holes, tags, historyEdge, isUnread, checkpoints }: OpenedVpg): void {
    const unreadThrough = isUnread === true ? (checkpoints.at(-1)?.ordinal ?? 0) : 0
    this.#checkIndexed(found, holes, { above: unreadThrough, through: Infinity })
    if (isUnread === true) {
      this.#world.count('a start does not read the history')
      return
    }
    const kept = new Set(tags.map(tag => tag.ordinal))
    for (const ordinal of found)
      if (
        this.#thinned.has(ordinal) ||
        (ordinal < historyEdge && !kept.has(ordinal) && !this.#keptBelowEdge.has(ordinal))
      )
        throw new Error(`the checkpoint ${ordinal} has left the history, and the index of a start has it`)
  }

  #checkIndexed(
    found: ReadonlySet<Ordinal>,
    holes: readonly Hole[],
    { above, through }: { readonly above: number; readonly through: number },
  ): void {
    for (const ordinal of this.retained()) {
      const isIndexed = found.has(ordinal) || ordinal <= above || ordinal > through
      if (isIndexed || holeOver(holes, ordinal) !== undefined) continue
      if (!this.mayBeThinned(ordinal))
        throw new Error(`the checkpoint ${ordinal} is lost: the index of a start lacks it`)
      this.#thinned.add(ordinal) // by a process that had no time to tell
    }
  }

  /** As long as the process lives, what is damaged is asked for again. */
  #repair({ life, ingest, entry }: Running): void {
    const table = new VpgTable()
    table.add(entry)
    const asked = (): void => this.#world.count('a repair is asked for')
    void new Repairs({ clock: life.clock, ingest, table, asked })
  }

  #takeHoles({ entry }: Running, holes: readonly Hole[]): void {
    entry.holes = holes
    for (const ordinal of this.announced.keys())
      if (holeOver(holes, ordinal) !== undefined) this.#withdrawn.add(ordinal)
  }

  #agingConfig(): AgingConfig {
    return {
      store: { kind: 'directory', directory: '/nowhere' },
      logDirectory: directory,
      scratchDirectory: `${directory}/scratch`,
      memoDirectory: `${directory}/vpgs`,
      applianceId: this.#applianceId,
      adopt: this.#isAdopting,
      tenure: {
        file: `${directory}/tenure.json`,
        place: `${this.#settings.asksBehindPowerCuts ? this.disk.cutCount : 0}`,
        host: this.host.name,
      },
      segmentSizeBytesTarget: 64 * KiB,
      deltaShareMax: 0.45,
      ...this.#settings.aging,
    }
  }

  #ingestEvents(life: Life, worker: MirrorWorker, catalog: SimulatedCatalog): typeof silentIngestEvents {
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
        if (!life.isAlive || life !== this.#life) return
        if (this.#mutations.indexMisses !== 'what is new') catalog.addCheckpoints(vpg, [checkpoint])
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
    const former = this.#formers.find(each => each.running !== undefined && each.running === running)
    if (former !== undefined && running !== undefined) {
      this.#noteFormer(former, running, name, notice)
      return
    }
    if (running !== undefined && running !== this.#running) return // of a former one that was fenced, and is ending
    const handler = running?.handlers[name] as ((notice: unknown) => void) | undefined
    handler?.(notice)
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
      case 'historyEdgeMoved': {
        const { edge, kept } = notice as AgingNotices['historyEdgeMoved']
        this.#edge = edge
        for (const ordinal of kept) this.#keptBelowEdge.add(ordinal)
        for (const ordinal of this.tagged)
          if (ordinal < this.#edge && this.#withdrawn.has(ordinal) && !kept.includes(ordinal))
            this.tagged.delete(ordinal)
        for (const ordinal of this.announced.keys())
          if (ordinal < edge && !kept.includes(ordinal) && this.#isHeld(ordinal))
            throw new Error(`the checkpoint ${ordinal} has left the history: it is lost for the recovery that holds it`)
        return
      }
      case 'checkpointsThinned':
        for (const ordinal of (notice as AgingNotices['checkpointsThinned']).dropped) {
          if (this.announced.has(ordinal) && !this.mayBeThinned(ordinal))
            throw new Error(`the checkpoint ${ordinal} was thinned away, and none stays in its place`)
          this.#thinned.add(ordinal)
        }
        return
      case 'redefined':
        this.#takeDefinition(running, (notice as AgingNotices['redefined']).definition)
        if (running !== undefined) this.preseeds.resume(running.preseeds)
        return
      case 'logFileFree':
        this.#archiveLog()
        running?.journal.freeFile((notice as AgingNotices['logFileFree']).fileIdentity)
        return
      case 'holesChanged':
        if (running !== undefined) this.#takeHoles(running, (notice as AgingNotices['holesChanged']).holes)
        return
      case 'holeFound':
        if (running !== undefined && this.#hasRotted) {
          this.#takeHoles(running, [...running.entry.holes, (notice as AgingNotices['holeFound']).hole])
          return
        }
        world.fail(new Error(`${name} without damage: ${JSON.stringify(notice)}`))
        return
      case 'damageFound':
        if (this.#hasRotted) return
        world.fail(new Error(`${name} without damage: ${JSON.stringify(notice)}`))
        return
      case 'sealingStopped':
      case 'superseded':
      case 'tenureTold':
      case 'fenced':
        world.fail(new Error(`${name} without damage: ${JSON.stringify(notice)}`))
    }
  }

  /** What a checkpoint's image is read for: no hole withdraws it. */
  isOffered(ordinal: Ordinal): boolean {
    return holeOver(this.#running?.entry.holes ?? [], ordinal) === undefined
  }

  /** Nothing is withdrawn that a repair could still bring back. */
  get isWhole(): boolean {
    return (this.#running?.entry.openHoles ?? []).length === 0
  }

  get hasRotted(): boolean {
    return this.#hasRotted
  }

  /** What a start finds must hold everything that was ever called durable. */
  #checkRecovered(life: Life, { ingest }: ReconciledVpg): void {
    const named = ingest.durable.map(({ stream, generation, sequence: at }) => `${stream}: ${generation}/${at}`)
    this.#world.trace(`vra ${life.name} has ${named.join(', ')}`)
    for (const [stream, told] of this.#told) {
      const durable = ingest.durable.find(position => position.stream === stream)!
      if (comparePositions(durable, told) >= 0) continue
      if (this.#hasRotted) this.#forgetAfter(durable)
      else
        throw new Error(
          `recovered ${durable.generation}/${durable.sequence} of stream ${stream}, but ${told.generation}/${told.sequence} was called durable`,
        )
    }
  }

  /** What has rotted was the end of its stream: nothing tells of it any more, and its agent sends it again. */
  #forgetAfter({ stream, ...durable }: StreamPosition): void {
    this.#world.count('the rotten end of a stream is sent again')
    this.#told.set(stream, durable)
    this.#archivedThrough.set(stream, durable)
    const isAfter = ({ header }: KeptRecord): boolean =>
      header.stream === stream &&
      comparePositions({ generation: header.generation, sequence: sequence(header.lastSequence) }, durable) > 0
    const kept = this.#archive.filter(record => !isAfter(record))
    this.#archive.splice(0, this.#archive.length, ...kept)
  }

  /** By a recovery, and there for it. */
  #isHeld(ordinal: Ordinal): boolean {
    return this.recoveries.holds(ordinal) && this.isOffered(ordinal)
  }

  /** What was told of, and must still be there. */
  retained(): readonly Ordinal[] {
    return [...this.announced.keys()].filter(
      ordinal =>
        (ordinal >= this.#edge && !this.#thinned.has(ordinal)) || this.tagged.has(ordinal) || this.#isHeld(ordinal),
    )
  }

  /** The retention lets it go: another one of its interval stays. */
  mayBeThinned(ordinal: Ordinal): boolean {
    const checkpoint = this.announced.get(ordinal)
    const newest = this.lastComplete
    if (checkpoint === undefined || newest === undefined || this.tagged.has(ordinal)) return false
    if (this.#isHeld(ordinal)) return false
    if (this.#leftToFormer.has(ordinal)) return true
    const { historyMillis } = checkpoint
    const newestMillis = Math.max(newest.historyMillis, this.#recoveredHistoryMillis)
    const everyMillis = everyMillisAt(densitiesOf(this.#definition), historyMillis, newestMillis)
    if (everyMillis === 0) return false
    const interval = Math.floor(historyMillis / everyMillis)
    const isOther = (other: Checkpoint): boolean =>
      other.ordinal !== ordinal &&
      !this.#thinned.has(other.ordinal) &&
      Math.floor(other.historyMillis / everyMillis) === interval
    return this.#hasRotted || [...this.announced.values()].some(isOther)
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
      if (
        newest.historyMillis - historyMillis <= this.#definition.historyMillis &&
        ordinal < this.#edge &&
        !this.#withdrawn.has(ordinal)
      )
        throw new Error(`the checkpoint ${ordinal} was given up before its time`)
  }

  /** What the volumes hold as of a checkpoint. Fails as the store fails, CHECKPOINT_MISSING where it is not retained any more. */
  async readCheckpoint(ordinal: Ordinal): Promise<ReadonlyMap<number, Sectors>> {
    const running = this.#running
    const checkpoint = this.announced.get(ordinal)
    if (running === undefined || checkpoint === undefined) throw new Failure('CLOSING', 'the VRA does not run')
    this.#keptBelowEdge.add(ordinal) // as long as it is read, and until the next look of a process that follows
    const plan = await running.worker.openImage({ vpg, checkpoint, owner: 'a check' })
    if (plan.state.deltas.length > 0) this.#world.count('an image is read from deltas')
    if (plan.state.deltas.some(delta => delta.open !== undefined))
      this.#world.count('an image is read with an open delta there')
    if (plan.state.regions.some(region => region.asOfOrdinal <= ordinal))
      this.#world.count('an image is read from the mirror')
    try {
      const volumes = await running.images.read(plan)
      for (const { number, included } of checkpoint.volumes) {
        if (!included || volumes.has(number)) continue
        this.#world.count('a removed volume is not in an image any more')
        if (ordinal <= (this.#removedAfter.get(number) ?? Infinity))
          throw new Error(`the image of checkpoint ${ordinal} lacks volume ${number}`)
      }
      return volumes
    } finally {
      await running.worker.closeImage({ vpg, pinId: plan.pinId }).catch(() => undefined)
    }
  }

  /** What a person changes of the VPG while it is protected; where the store does not take it, nothing. */
  async change(settings: VpgSettings): Promise<void> {
    await this.#redefine(({ worker }) => worker.changeVpg({ vpg, ...settings }))
  }

  /** Every volume that the agents are to serve is defined, and no other; sizes may differ. */
  hasVolumes(agents: readonly SimulatedAgent[]): boolean {
    const wanted = agents.flatMap(agent => agent.volumes.map(({ number }) => number))
    return wanted.length === this.volumes.length && this.volumes.every(({ number }) => wanted.includes(number))
  }

  /** The number of the next volume. */
  get nextVolume(): number {
    const { volumes, removedVolumes } = this.#definition
    return Math.max(...[...volumes, ...removedVolumes].map(({ number }) => number)) + 1
  }

  /** What a person does until the volumes are defined as the agents have them. */
  async keepVolumes(agents: readonly SimulatedAgent[]): Promise<void> {
    for (const agent of agents)
      for (const { number, name, sizeBytes } of agent.volumes) {
        const defined = this.volumes.find(volume => volume.number === number)
        if (defined === undefined) await this.#changeVolumes({ kind: 'add', name, sizeBytes, agent: agent.id })
        else if (defined.sizeBytes < sizeBytes) await this.#changeVolumes({ kind: 'grow', name, sizeBytes })
      }
    const wanted = new Set(agents.flatMap(agent => agent.volumes.map(({ number }) => number)))
    for (const { number, name } of this.volumes) {
      if (wanted.has(number)) continue
      const newest = Math.max(0, ...this.announced.keys())
      if (!this.#removedAfter.has(number)) this.#removedAfter.set(number, newest)
      await this.#changeVolumes({ kind: 'remove', name })
    }
  }

  async #changeVolumes(change: VolumeChange): Promise<void> {
    await this.#redefine(({ worker }) => worker.changeVolumes({ vpg, change }))
    if (this.#running !== undefined) this.#world.count(`a volume: ${change.kind}`)
  }

  #takeDefinition(running: Running | undefined, definition: VpgDefinition): void {
    if (running === this.#running) this.#definition = definition
    if (running === undefined) return
    running.entry.definition = definition
    running.ingest.updateVpg(definition)
  }

  async #redefine(decide: (running: Running) => Promise<VpgDefinition>): Promise<void> {
    const running = this.#running
    if (running === undefined || running.table.isTakingStore) return // refused as BUSY
    try {
      const definition = await decide(running)
      if (running.life.isAlive && running === this.#running) this.#takeDefinition(running, definition)
    } catch (error) {
      if (running.life.isAlive && !(error instanceof Failure)) throw error
    }
  }

  /** Kept from now on, whatever its age; where the store does not take it, or the checkpoint is gone, nothing. */
  async tag(ordinal: Ordinal): Promise<void> {
    const running = this.#running
    if (running === undefined || running.table.isTakingStore) return // refused as BUSY
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
    if (running === undefined || running.table.isTakingStore) return // refused as BUSY
    this.tagged.delete(ordinal)
    try {
      await running.worker.untag({ vpg, name: `tag ${ordinal}` })
    } catch (error) {
      if (running.life.isAlive && !(error instanceof Failure)) throw error
    }
  }

  /** Beside everything else, to disks that a machine uses. */
  async recover(ordinal: Ordinal): Promise<void> {
    const [running, checkpoint] = [this.#running, this.announced.get(ordinal)]
    if (running === undefined || running.table.isTakingStore || checkpoint === undefined) return
    this.#keptBelowEdge.add(ordinal) // as when it is read
    await this.recoveries.begin(checkpoint, running.entry.definition)
  }

  /** Somebody hands an image of a volume over that no checkpoint includes yet, of one of these. */
  async preseed(among: readonly number[] = this.volumes.map(({ number }) => number)): Promise<void> {
    const running = this.#running
    if (running === undefined || running.table.isTakingStore) return // refused as BUSY
    const isIncluded = ({ number }: VolumeDefinition): boolean =>
      [...this.announced.values()].some(({ volumes }) => volumes.some(each => each.number === number && each.included))
    const candidates = running.entry.definition.volumes.filter(
      volume => among.includes(volume.number) && !isIncluded(volume),
    )
    if (candidates.length > 0) await this.preseeds.begin(running.preseeds, this.#world.pick(candidates))
  }

  cancelPreseed(): void {
    if (this.#running !== undefined) this.preseeds.cancelOne(this.#running.preseeds)
  }

  /** What of preseeds is not over, in words. */
  get preseedsLeft(): string | undefined {
    return this.#running === undefined ? 'the VRA does not run' : this.preseeds.leftOf(this.#running.preseeds)
  }

  async #readBelowRecords(
    running: Running | undefined,
    volume: number,
  ): Promise<{ readonly found: Sectors; readonly written: ReadonlySet<number> }> {
    if (running === undefined || running !== this.#running) throw new Failure('CLOSING', 'it is another process by now')
    this.#archiveLog()
    const positions = [...this.#archivedThrough].map(([stream, position]) => ({ stream, ...position }))
    const plan = await running.worker.openReading({ vpg, positions })
    try {
      const found = (await running.images.read(plan)).get(volume) ?? new Map<number, Uint8Array>()
      if (running !== this.#running) throw new Failure('CLOSING', 'it is another process by now')
      return { found, written: sectorsWritten(this.records(), volume) }
    } finally {
      await running.worker.closeImage({ vpg, pinId: plan.pinId }).catch(() => undefined)
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

  /** A byte of a batch in its log that was durable becomes another one while it is down. */
  rot(): void {
    const running = this.#running
    if (running === undefined || this.#isStopping || this.#isAdopting || !this.isAlone) return
    this.#archiveLog() // what the records were
    const reader = new LogReader({ disk: this.disk.of(running.life), directory })
    const { records } = reader.next(running.journal.durable(), Infinity)
    reader.close()
    const newest = records.at(-1)?.header
    // The last group of a log that was not ended is torn, and not damaged, as far as anybody can tell.
    const isKnownDurable = ({ header, place }: (typeof records)[number]): boolean =>
      header.kind === 'batch' &&
      newest !== undefined &&
      (newest.fileIdentity > header.fileIdentity || newest.durableOffsetBytes >= header.offsetBytes + place.sizeBytes)
    const candidates = records.filter(isKnownDurable)
    if (candidates.length === 0) return
    const { place } = this.#world.pick(candidates.slice(-8)) // what is older is in segments already
    this.kill()
    this.#hasRotted = true
    this.#world.count('a record of the log rots')
    const at = place.offsetBytes + this.#world.random.integer(0, place.sizeBytes - 1)
    this.disk.flipBit(logFilePath(directory, place.fileIdentity), at)
    this.#world.trace(`log file ${place.fileIdentity}: other than it was at ${at}`)
  }

  losePower(): void {
    const life = this.#life
    this.host.isUp = false
    this.#end(life)
    this.disk.losePower()
    if (life !== undefined) this.#indexFile.losePower(life)
  }

  /** Its process is killed, and the file of its index removed or set aside. */
  loseIndex(): void {
    this.kill()
    this.#indexFile.lose()
  }

  /** What the index has of the checkpoints that may be asked for. */
  async indexed(): Promise<readonly Ordinal[]> {
    const running = this.#running
    if (running === undefined) throw new Error('the VRA runs when its index is looked at')
    await running.histories.untilIndexed(running.entry)
    await running.catalog.flush()
    const edge = this.#edge
    const thinned = new Set(this.#thinned)
    await running.catalog.settled()
    const ordinals = running.catalog.ordinals(vpg)
    const hasLeft = (ordinal: Ordinal): boolean =>
      thinned.has(ordinal) || (ordinal < edge && !this.tagged.has(ordinal) && !this.#keptBelowEdge.has(ordinal))
    const left = ordinals.filter(hasLeft)
    if (left.length > 0)
      throw new Error(`an index that was kept has the checkpoints ${left.join(', ')}, which have left`)
    return ordinals.filter(ordinal => ordinal >= this.#edge || this.tagged.has(ordinal))
  }

  /** As by SIGTERM. */
  stop(): void {
    const running = this.#running
    if (running === undefined) return
    this.#isStopping = true
    const closed = Promise.all([running.recoveries.engine.close(), running.preseeds.jobs.close()])
    const stopped = closed.then(async () => {
      if (!running.life.isAlive) return
      running.stop.ingestIsClosing()
      await running.ingest.close()
      if (!running.life.isAlive) return
      await running.stop.close()
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
    this.#isStopping = false
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

  #archiveLog(running: Running | undefined = this.#running, disk: SimulatedDisk = this.disk): void {
    if (running === undefined) throw new Error('the VRA runs when its records are looked at')
    const reader = new LogReader({ disk: disk.of(running.life), directory, ...this.#archived })
    for (;;) {
      const { records, damage } = reader.next(running.journal.durable(), 4 * MiB)
      if (damage.length > 0 && !this.#hasRotted) throw new Error(`the log is damaged: ${damage[0]!.sentence}`)
      if (records.length === 0 && damage.length === 0) break
      for (const { header, place } of records) {
        if (header.epoch !== this.#epoch) continue // of an owner before, past the end of its epoch or in the store
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

function sectorsWritten(records: readonly KeptRecord[], volume: number): ReadonlySet<number> {
  const sectors = new Set<number>()
  for (const { header, frame } of records) {
    if (header.kind !== 'batch') continue
    const batch = decodeFrame(frame)
    if (batch.type !== 'write-batch') throw new Error(`a ${batch.type} was kept as a batch`)
    for (let index = 0; index < batch.writeCount; index++) {
      if (batch.volume(index) !== volume) continue
      const firstSector = batch.offsetBytes(index) / sectorBytes
      for (let at = 0; at < batch.lengthBytes(index) / sectorBytes; at++) sectors.add(firstSector + at)
    }
  }
  return sectors
}

/** The messages of a frame that the VRA sends which say what is durable. */
export function saidDurable(frame: Uint8Array): Ack | Welcome | undefined {
  const message = decodeFrame(frame)
  return message.type === 'ack' || message.type === 'welcome' ? message : undefined
}
