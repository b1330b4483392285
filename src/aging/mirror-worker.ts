import { Failure } from '../base/failure.ts'
import type { Clock } from '../base/clock.ts'
import type { PositionVector, StreamPosition, VpgId } from '../base/ids.ts'
import {
  contentsSizeBytesMax,
  frameSizeBytesMax,
  logFileSizeBytes,
  manifestWholeSizeBytesMax,
  ownershipCheckMillis,
} from '../base/limits.ts'
import { Permits } from '../base/permits.ts'
import type { RpcMethods } from '../base/rpc.ts'
import { MiB } from '../base/units.ts'
import { openVolumeFileToRead, realDisk, type Disk, type OpenVolumeFile } from '../disk/disk.ts'
import { LogReader } from '../journal/log-reader.ts'
import { VpgCommits, type WriterIdentity } from '../manifest/manifest.ts'
import { removeScratch, Workspace } from '../mirror/mirror.ts'
import { openStore, type ObjectStore, type StoreConfig } from '../store/store.ts'
import type { Checkpoint, Tag } from '../timeline/checkpoint.ts'
import type { WholeSync } from '../timeline/repair.ts'
import type { VpgDefinition } from '../timeline/definition.ts'
import { withRemovalNoted } from '../timeline/removed-volumes.ts'
import { withVolumeChange, withWriting } from '../timeline/definition-change.ts'
import type { VolumeDataSize } from '../timeline/image-size.ts'
import { AwakeVpgs } from './awake-vpgs.ts'
import { LogFiles } from './log-files.ts'
import { LogTail } from './log-tail.ts'
import { beginPreseed, endPreseed, noteCompared, preseedRegion } from './preseed.ts'
import { Locks, lockingStore } from './locks.ts'
import { Scrub } from './scrub.ts'
import { tellingStore } from './made-objects.ts'
import { SegmentMemory } from './segment-memory.ts'
import type {
  AgingConfig,
  AgingQueues,
  AgingService,
  ImagePlan,
  LogMark,
  OpenedVpg,
  PackedVpg,
  PreseededRegion,
  StopNote,
  VpgMirrorStatus,
} from './service.ts'
import { StoreAnswers } from './store-answers.ts'
import { StoreRequests } from './store-requests.ts'
import { Strangers } from './strangers.ts'
import { StoreOpening } from './store-opening.ts'
import { mayPass } from './store-patience.ts'
import { newestHistoryMillis } from './thinning.ts'
import type { AgingTools, Notify, TailedLog } from './tools.ts'
import { TakeoverWatch } from './takeover-watch.ts'
import { Tenure } from './tenure.ts'
import { Turns } from './turns.ts'
import { VpgAging } from './vpg-aging.ts'
import { remembered, VpgMemos } from './vpg-memos.ts'
import { openedOf, VpgOpening } from './vpg-opening.ts'

/** Room behind the target for the last record, its part of the footer, and the trailer. */
const segmentSlackBytes = 2 * frameSizeBytesMax + 2 * MiB
/** A loop that finds nothing to do looks again after this, or when the log goes on. */
const idleMillis = 500
/** So many VPGs are looked at before others have their turn in the thread. */
const vpgsPerTurn = 64
/** A VPG that the store does not know is looked for again at this pace, or that of the garbage's grace period if that is longer. */
const strangersLookMillis = 10_000
/** When nothing is to be verified, that is looked for again after this. */
const scrubLookMillis = 60_000
/** When no lock is to be renewed. */
const lockLookMillis = 10_000
/** Large buffers that nobody has used for this long are given back. */
const unusedMemoryMillis = 5_000
/** A VPG that the store does not give at a start is tried again after this, and after longer and longer. */
const waitingDelayMillisFirst = 2_000
const waitingDelayMillisMax = 60_000
/** So many at once, for which the log is read once more where it has records of any. */
const waitingPerStep = 32
/** While nobody who joined late has anything to read in the log. */
const catchUpLookMillis = 100
/** Histories that were not read at the start are read beside everything else: after each, a rest as long as that took, and this at most. */
const historyRestMillisMax = 30_000
/** When none is left, or the store refuses those that are. */
const historyLookMillis = 10_000
/** How long a call waits for the log to be read up to its checkpoint, and for the store to take a decision. */
const callPatienceMillis = 30_000

/** What a test puts in the place of the real things. */
export interface WorkerSurroundings {
  readonly disk?: Disk
  readonly openStore?: (config: StoreConfig) => Promise<ObjectStore>
  readonly openLog?: (directory: string) => TailedLog
  /** Of images that are handed over. */
  readonly openImageFile?: OpenVolumeFile
  readonly unsealedCountMax?: number
  readonly contentsSizeBytesMax?: number
  readonly wholeSizeBytesMax?: number
  readonly workspace?: Workspace
  readonly segmentMemory?: SegmentMemory
}

/** The thread's work: the service's calls, and the loops that they steer. */
export class MirrorWorker implements RpcMethods<AgingService> {
  readonly #clock: Clock
  readonly #notify: Notify
  readonly #surroundings: WorkerSurroundings
  readonly #closing = new AbortController()
  readonly #vpgs = new Map<VpgId, VpgAging>()
  readonly #loops = new Set<Promise<void>>()
  /** VPGs with steps under way, of each kind. */
  readonly #sealing = new Set<VpgAging>()
  readonly #merging = new Set<VpgAging>()
  readonly #tailPermit = new Permits(1)
  /** Undefined until the store has answered. */
  #tools: AgingTools | undefined
  #opening: StoreOpening<readonly PackedVpg[]> | undefined
  #vpgOpening: VpgOpening | undefined
  #store: ObjectStore | undefined
  #tail: LogTail | undefined
  #strangers: Strangers | undefined
  #scrub: Scrub | undefined
  #locks: Locks | undefined
  /** VPGs that the store does not give, of which nothing is taken while the log is under pressure. */
  readonly #intakeStopped = new Set<VpgId>()
  /** VPGs whose segments the store does not take, of which nothing is taken since the log was under pressure. */
  readonly #heldUp = new Set<VpgId>()
  /** How far the log was said to be durable last. */
  #durable: LogMark | undefined
  readonly #logs: TailedLog[] = []
  /** Of checkpointsGivenUp: what goes on with the answer. */
  readonly #questions = new Map<number, () => void>()
  #lastQuestion = 0

  constructor(clock: Clock, notify: Notify, surroundings: WorkerSurroundings = {}) {
    this.#clock = clock
    this.#notify = notify
    this.#surroundings = surroundings
  }

  async open({ notes, ...config }: AgingConfig): ReturnType<AgingService['open']> {
    const disk = this.#surroundings.disk ?? realDisk
    disk.makeDirectory(config.scratchDirectory)
    removeScratch(disk, config.scratchDirectory)
    const memos = this.#openMemos(disk, config)
    const served = (memos?.all() ?? []).map(([, memo]) => memo).filter(memo => memo.fenced === undefined)
    const opening = new StoreOpening({
      attempt: this.#attemptOpen(disk, config, memos, notes),
      progress: () => this.#vpgOpening?.progress,
      // A store that was never in use refuses us for what is configured: that is mended before the first start.
      mayPass: failure => (served.length > 0 ? mayPass(failure) : failure.reaction === 'retry'),
      onAway: away => this.#notify('storeAway', away),
      clock: this.#clock,
      signal: this.#closing.signal,
    })
    this.#opening = opening
    const vpgs = await opening.first()
    if (vpgs !== undefined) return { vpgs, isStoreAway: false }
    this.#run(async () => this.#notify('storeOpened', { vpgs: await opening.done }))
    return { vpgs: served.map(remembered), isStoreAway: true }
  }

  #openMemos(disk: Disk, { memoDirectory, applianceId }: AgingConfig): VpgMemos | undefined {
    if (memoDirectory === undefined) return undefined
    const damageFound = (sentence: string): void => this.#notify('damageFound', { vpg: undefined, sentence })
    return VpgMemos.open(disk, memoDirectory, applianceId, damageFound)
  }

  #attemptOpen(
    disk: Disk,
    config: AgingConfig,
    memos: VpgMemos | undefined,
    notes: AgingConfig['notes'],
  ): (signal: AbortSignal) => Promise<readonly PackedVpg[]> {
    let tools: AgingTools | undefined
    const startedAt = {
      timestampMicros: this.#clock.timestampMicros(),
      monotonicMillis: this.#clock.monotonicMillis(),
    }
    return async signal => {
      this.#store ??= await (this.#surroundings.openStore ?? openStore)(config.store)
      tools ??= this.#newTools(disk, config, this.#store, memos)
      const wholeSizeBytesMax = this.#surroundings.wholeSizeBytesMax ?? manifestWholeSizeBytesMax
      this.#vpgOpening ??= new VpgOpening(tools, this.#vpgs, { startedAt, notes, wholeSizeBytesMax })
      const vpgs = await this.#vpgOpening.openAll(signal)
      this.#tools = tools
      return vpgs
    }
  }

  #newTools(disk: Disk, config: AgingConfig, store: ObjectStore, memos: VpgMemos | undefined): AgingTools {
    const requests = new StoreRequests(this.#clock)
    const answers = new StoreAnswers(this.#clock)
    const counted = requests.counting(answers.watching(tellingStore(lockingStore(store, this.#vpgs), this.#vpgs)))
    const { applianceId } = config
    const shared = { store: counted, clock: this.#clock, disk, notify: this.#notify }
    const tenure = new Tenure({ ...shared, applianceId, config: config.tenure })
    return {
      config,
      store: counted,
      takeovers: new TakeoverWatch(counted, this.#clock, applianceId, tenure),
      tenure,
      requests,
      answers,
      disk,
      openImageFile: this.#surroundings.openImageFile ?? openVolumeFileToRead,
      clock: this.#clock,
      turns: new Turns(config.paceFlag),
      notify: this.#notify,
      logFiles: new LogFiles(fileIdentity => this.#notify('logFileFree', { fileIdentity })),
      frames: this.#openLog(disk, config.logDirectory),
      readTail: () => this.readTail(),
      tellGivenUp: (vpg, through) => this.#tellGivenUp(vpg, through),
      segmentPermit: new Permits(1),
      segmentSizeBytesMax: config.segmentSizeBytesTarget + segmentSlackBytes,
      segmentMemory: this.#surroundings.segmentMemory ?? new SegmentMemory(),
      mergePermit: new Permits(1),
      workspace: this.#surroundings.workspace ?? new Workspace(),
      awake: new AwakeVpgs(this.#surroundings.contentsSizeBytesMax ?? contentsSizeBytesMax, this.#clock),
      memos,
      signal: this.#closing.signal,
    }
  }

  /**
   * Returns at once: the log may be long, and the store away. Nothing ages, and no log file is given back, before the log has been
   * read once, nor is it read before it is known which of its records the store has.
   */
  async start({ durable }: { readonly durable: LogMark }): Promise<void> {
    this.durable(durable)
    this.#run(async () => {
      await this.#opening?.done
      this.#openTail(durable)
      await this.readTail()
      this.#run(() => this.#takeoversLoop())
      this.#run(() => this.#stepsLoop())
      this.#run(() => this.#strangersLoop())
      this.#run(() => this.#scrubLoop())
      this.#run(() => this.#historyLoop())
      this.#run(() => this.#waitingLoop())
      this.#run(() => this.#catchUpLoop())
      if (this.#ready().store.locks !== undefined) this.#run(() => this.#lockLoop())
      await this.#tailLoop()
    })
  }

  /** Reads the log from its oldest file on. Alone, without the loops of start(): for a driver that calls step(). */
  async follow({ durable }: { readonly durable: LogMark }): Promise<void> {
    this.#openTail(durable)
    await this.readTail()
  }

  #openTail(durable: LogMark): void {
    const { disk, config, turns, logFiles, store } = this.#ready()
    const reader = this.#openLog(disk, config.logDirectory)
    const damageFound = this.#notify.bind(undefined, 'damageFound')
    const { unsealedCountMax } = this.#surroundings
    const clock = this.#clock
    const strangers = new Strangers({ store, clock, logFiles, graceMillis: config.garbageGraceMillis })
    this.#strangers = strangers
    const isAwaited = (vpg: VpgId): boolean => this.#vpgOpening?.waiting.has(vpg) === true
    const handing = { turns, logFiles, vpgs: this.#vpgs, strangers, isAwaited, damageFound }
    this.#tail = new LogTail({ reader, ...handing, unsealedCountMax })
    this.#tail.moveLimit(durable)
    if (this.#durable !== undefined) this.#tail.moveLimit(this.#durable)
  }

  /** How far the log is durable now. */
  durable(mark: LogMark): void {
    this.#durable = mark
    this.#tail?.moveLimit(mark)
  }

  async createVpg(definition: VpgDefinition): Promise<OpenedVpg> {
    if (this.#vpgs.has(definition.id)) {
      throw new Failure('ALREADY_EXISTS', `VPG ${definition.id} exists already`, { vpg: definition.id })
    }
    const tools = this.#ready()
    const commits = await VpgCommits.create(this.#identity(tools), definition, this.#closing.signal)
    const vpg = VpgAging.awake(tools, commits, [])
    const created = vpg.createFirst().then(() => {
      this.#vpgs.set(definition.id, vpg)
    })
    const undo = (): Promise<void> => vpg.delete(this.#clock.timestampMicros(), { isForced: false })
    await this.#bounded(created, undo)
    return { ...openedOf({ ...vpg.writer.brief, segments: [] }), checkpoints: [] }
  }

  async deleteVpg({ vpg, isForced }: Parameters<AgingService['deleteVpg']>[0]): Promise<void> {
    await this.#bounded(this.#known(vpg).delete(this.#clock.timestampMicros(), { isForced }))
  }

  async changeVpg({ vpg, ...settings }: Parameters<AgingService['changeVpg']>[0]): Promise<VpgDefinition> {
    return await this.#redefine(vpg, definition => ({ ...definition, ...settings }))
  }

  async changeWriting({ vpg, change }: Parameters<AgingService['changeWriting']>[0]): Promise<VpgDefinition> {
    return await this.#redefine(vpg, definition => withWriting(definition, change))
  }

  async changeVolumes({ vpg, change }: Parameters<AgingService['changeVolumes']>[0]): Promise<VpgDefinition> {
    if (change.kind !== 'remove') return await this.#redefine(vpg, definition => withVolumeChange(definition, change))
    await this.#readTailOf(vpg)
    const { newestOrdinal } = this.#known(vpg)
    return await this.#redefine(vpg, definition =>
      withRemovalNoted(withVolumeChange(definition, change), newestOrdinal),
    )
  }

  async beginPreseed({ vpg, ...image }: Parameters<AgingService['beginPreseed']>[0]): Promise<VpgDefinition> {
    const begun = beginPreseed(this.#ready(), this.#known(vpg), image)
    return await this.#bounded(begun, async definition => this.#notify('redefined', { vpg, definition }))
  }

  /** As long as the store takes for it. */
  async preseedRegion({ vpg, ...at }: Parameters<AgingService['preseedRegion']>[0]): Promise<PreseededRegion> {
    return await preseedRegion(this.#ready(), this.#known(vpg), at)
  }

  async endPreseed({ vpg, ...at }: Parameters<AgingService['endPreseed']>[0]): Promise<VpgDefinition> {
    return await this.#bounded(endPreseed(this.#known(vpg), at))
  }

  async noteCompared({ vpg, ...at }: Parameters<AgingService['noteCompared']>[0]): Promise<boolean> {
    return await this.#bounded(noteCompared(this.#known(vpg), at))
  }

  async #redefine(id: VpgId, change: (before: VpgDefinition) => VpgDefinition): Promise<VpgDefinition> {
    const vpg = this.#known(id)
    const decided = vpg.decide(contents => {
      const definition = change(contents.state.definition)
      if (definition === contents.state.definition) return undefined
      return { ...contents, state: { ...contents.state, definition } }
    })
    await this.#bounded(decided, async () =>
      this.#notify('redefined', { vpg: id, definition: vpg.writer.brief.state.definition }),
    )
    return vpg.writer.brief.state.definition
  }

  async tag({ ordinal, name, keepMillis, ...at }: Parameters<AgingService['tag']>[0]): Promise<Tag> {
    const vpg = this.#known(at.vpg)
    const decided = vpg.decide(contents => {
      const { state } = contents
      const same = state.tags.find(tag => tag.name === name)
      if (same?.ordinal === ordinal && same.keep === undefined && keepMillis === undefined) return undefined
      if (same !== undefined && same.ordinal !== ordinal) {
        throw new Failure('ALREADY_EXISTS', `another checkpoint is tagged "${name}"`, { name, ordinal: same.ordinal })
      }
      vpg.requireRetained(contents, ordinal)
      const fromHistoryMillis = newestHistoryMillis(vpg.writer)
      const keep = keepMillis === undefined ? undefined : { millis: keepMillis, fromHistoryMillis }
      const tag = { ordinal, name, taggedAtMicros: same?.taggedAtMicros ?? this.#clock.timestampMicros(), keep }
      return { ...contents, state: { ...state, tags: [...state.tags.filter(other => other !== same), tag] } }
    })
    await this.#bounded(decided)
    const tagged = vpg.writer.brief.state.tags.find(tag => tag.name === name)
    if (tagged === undefined) throw new Failure('NOT_FOUND', `the tag "${name}" was taken away again`, { name })
    return tagged
  }

  async untag({ vpg, name }: { readonly vpg: VpgId; readonly name: string }): Promise<void> {
    const decided = this.#known(vpg).decide(contents => {
      const tags = contents.state.tags.filter(tag => tag.name !== name)
      if (tags.length === contents.state.tags.length) {
        throw new Failure('NOT_FOUND', `no checkpoint is tagged "${name}"`, { name })
      }
      return { ...contents, state: { ...contents.state, tags } }
    })
    await this.#bounded(decided)
  }

  async putRecovery({ record, isNew, ...at }: Parameters<AgingService['putRecovery']>[0]): Promise<void> {
    const vpg = this.#known(at.vpg)
    const cut = record.checkpoint?.vector ?? []
    if (!vpg.hasReadUpTo(cut)) await this.#ready().turns.hurry(() => this.#readTailOf(at.vpg))
    await this.#bounded(vpg.putRecovery(record), isNew ? () => vpg.dropRecovery(record.id) : undefined)
  }

  async putStandby({ standby, ...at }: Parameters<AgingService['putStandby']>[0]): Promise<void> {
    const vpg = this.#known(at.vpg)
    const cut = standby?.checkpoints.at(-1)?.vector ?? []
    if (!vpg.hasReadUpTo(cut)) await this.#ready().turns.hurry(() => this.#readTailOf(at.vpg))
    await this.#bounded(vpg.putStandby(standby))
  }

  async dataSizes({
    vpg: id,
    checkpoint,
  }: Parameters<AgingService['dataSizes']>[0]): Promise<readonly VolumeDataSize[]> {
    const vpg = this.#known(id)
    if (!vpg.hasReadUpTo(checkpoint.vector)) await this.#ready().turns.hurry(() => this.#readTailOf(id))
    return await this.#bounded(vpg.dataSizes(checkpoint))
  }

  async openImage(argument: {
    readonly vpg: VpgId
    readonly checkpoint: Checkpoint
    readonly owner: string
  }): Promise<ImagePlan> {
    const vpg = this.#known(argument.vpg)
    if (!vpg.hasReadUpTo(argument.checkpoint.vector))
      await this.#ready().turns.hurry(() => this.#readTailOf(argument.vpg))
    return await this.#bounded(vpg.openImage(argument.checkpoint, argument.owner), plan => vpg.closeImage(plan.pinId))
  }

  async openReading(argument: { readonly vpg: VpgId; readonly positions: PositionVector }): Promise<ImagePlan> {
    const vpg = this.#known(argument.vpg)
    if (!vpg.hasReadUpTo(argument.positions)) await this.#ready().turns.hurry(() => this.#readTailOf(argument.vpg))
    return await this.#bounded(vpg.openReading(argument.positions), plan => vpg.closeImage(plan.pinId))
  }

  async closeImage({ vpg, pinId }: { readonly vpg: VpgId; readonly pinId: string }): Promise<void> {
    await this.#bounded(this.#known(vpg).closeImage(pinId))
  }

  async generationOpened({ vpg, ...sync }: { readonly vpg: VpgId } & WholeSync): Promise<void> {
    const known = this.#known(vpg)
    await this.#readTailOf(vpg, Infinity) // a hole that is in the log, and not seen yet, is repaired as well
    await this.#bounded(known.generationOpened(sync))
  }

  async readHistory({ vpg }: Parameters<AgingService['readHistory']>[0]): Promise<void> {
    await this.#bounded(this.#known(vpg).readHistory())
  }

  async status({ vpg }: { readonly vpg: VpgId }): Promise<VpgMirrorStatus> {
    return this.#statusOf(vpg)
  }

  async statuses({ vpgs }: Parameters<AgingService['statuses']>[0]): ReturnType<AgingService['statuses']> {
    return vpgs.map(vpg => {
      try {
        return this.#statusOf(vpg)
      } catch (error) {
        if (!(error instanceof Failure)) throw error
        return { missingBecause: error.message }
      }
    })
  }

  #statusOf(vpg: VpgId): VpgMirrorStatus {
    return { ...this.#known(vpg).status(), scrub: this.#scrub?.factsOf(vpg), locks: this.#locks?.factsOf(vpg) }
  }

  async queues(): Promise<AgingQueues> {
    const facts = this.#ready().store.loadFacts
    const waits = [...this.#vpgs.values()].map(({ writer }) => writer.patience.waits)
    const load = facts && {
      ...facts,
      backedOffMillis: waits.reduce((sum, { millis }) => sum + millis, facts.backedOffMillis),
      waitingCount: waits.reduce((sum, { count }) => sum + count, facts.waitingCount),
    }
    const { unsealedCount = 0, unsealedCountMax = 0 } = this.#tail ?? {}
    return { load, unsealedRecordCount: unsealedCount, unsealedRecordCountMax: unsealedCountMax }
  }

  async seal({ vpg }: { readonly vpg: VpgId }): Promise<readonly StreamPosition[]> {
    return await this.#ready().turns.hurry(async () => {
      await this.#readTailOf(vpg)
      return await this.#known(vpg).sealAll()
    })
  }

  async givenUp({ question }: { readonly question: number }): Promise<void> {
    this.#questions.get(question)?.()
    this.#questions.delete(question)
  }

  /** However long the daemon takes to answer: what it told before is not known any sooner. */
  async #tellGivenUp(vpg: VpgId, through: PositionVector): Promise<void> {
    const { signal } = this.#closing
    signal.throwIfAborted()
    const question = ++this.#lastQuestion
    await new Promise<void>((resolve, reject) => {
      const end = (): void => reject(signal.reason as Error)
      signal.addEventListener('abort', end, { once: true })
      this.#questions.set(question, () => {
        signal.removeEventListener('abort', end)
        resolve()
      })
      this.#notify('checkpointsGivenUp', { vpg, through, question })
    })
  }

  /** Ends the loops between two steps. What a step has created without committing it is found at the next start. */
  async close(): Promise<readonly StopNote[]> {
    this.#closing.abort(new Failure('CLOSING', 'the aging thread is closing'))
    await Promise.all(this.#loops)
    this.#tail?.close()
    for (const log of this.#logs) log.close()
    await this.#store?.close()
    return [...this.#vpgs.values()].flatMap(vpg => vpg.note() ?? [])
  }

  /** Reads the log up to what is durable. */
  async readTail(): Promise<void> {
    await this.#tailPermit.with(async () => await this.#tail?.readUp(this.#closing.signal))
  }

  /** One round over every VPG; false when nothing was due. For a driver without loops; the loops make the same steps. */
  async step(): Promise<boolean> {
    let worked = await this.catchUpStep()
    this.#reviewIntake()
    for (const vpg of [...this.#vpgs.values()]) {
      if (vpg.isUnread) await vpg.readHistoryBriefly()
      worked = (await vpg.sealStep(this.#fileInTheWayOf(vpg))) || worked
      worked = (await this.#mergeStep(vpg)) || worked
      vpg.tellNote()
    }
    return (await this.#strangersStep()) || worked
  }

  async #tailLoop(): Promise<void> {
    for (;;) {
      await this.readTail()
      this.#reviewIntake()
      this.#ready().workspace.releaseUnused(unusedMemoryMillis)
      this.#ready().segmentMemory.releaseUnused(unusedMemoryMillis)
      await this.#clock.sleep(idleMillis / 5, this.#closing.signal)
    }
  }

  async #scrubLoop(): Promise<void> {
    for (;;) if (!(await this.scrubStep())) await this.#clock.sleep(scrubLookMillis, this.#closing.signal)
  }

  async #takeoversLoop(): Promise<void> {
    for (;;) {
      await this.takeoversStep()
      await this.#clock.sleep(ownershipCheckMillis, this.#closing.signal)
    }
  }

  /** Looks once for takeovers that are announced. For a driver without loops. */
  async takeoversStep(): Promise<void> {
    const { signal } = this.#closing
    await this.#ready()
      .takeovers.look(signal)
      .catch((error: unknown) => {
        if (!(error instanceof Failure) || signal.aborted) throw error // every VPG asks for itself then, and tells
      })
  }

  /** Reads the histories that were not read at the start, one by one. One that the store refuses has its turn again after the others. */
  async #historyLoop(): Promise<void> {
    for (;;) {
      let worked = false
      for (const vpg of this.#unread()) worked = (await this.#historyStep(vpg)) || worked
      if (!worked) await this.#clock.sleep(historyLookMillis, this.#closing.signal)
    }
  }

  async #historyStep(vpg: VpgAging): Promise<boolean> {
    const { turns, clock } = this.#ready()
    await turns.yieldNow()
    const startMillis = clock.monotonicMillis()
    const isRead = await this.#ofOne(vpg, () => vpg.readHistoryBriefly())
    const tookMillis = clock.monotonicMillis() - startMillis
    await clock.sleep(Math.min(historyRestMillisMax, tookMillis), this.#closing.signal)
    return isRead
  }

  #unread(): VpgAging[] {
    const isWaiting = ({ isUnread, isDeleted, writer }: VpgAging): boolean =>
      isUnread &&
      !isDeleted &&
      writer.halted === undefined &&
      (writer.mergingHalted === undefined || writer.isMergingLookDue)
    return [...this.#vpgs.values()].filter(isWaiting)
  }

  /** Opens the VPGs that the store did not give at the start, and those that had no turn yet. */
  async #waitingLoop(): Promise<void> {
    const { signal } = this.#closing
    let delayMillis = waitingDelayMillisFirst
    while ((this.#vpgOpening?.waiting.size ?? 0) > 0) {
      if (await this.waitingStep()) continue
      await this.#clock.sleep(delayMillis * (0.5 + Math.random() / 2), signal)
      delayMillis = Math.min(2 * delayMillis, waitingDelayMillisMax)
    }
  }

  /** Tries each of them once; true where one was opened. For a driver without loops. */
  async waitingStep(): Promise<boolean> {
    const opening = this.#vpgOpening
    let worked = false
    const left = new Set(opening?.waiting.keys() ?? [])
    while (opening !== undefined && left.size > 0) {
      const some = [...left].slice(0, waitingPerStep)
      for (const vpg of some) left.delete(vpg)
      const found = await opening.openWaiting(some, this.#closing.signal)
      for (const [vpg, opened] of found) {
        if (opened !== undefined) this.#join(opened.aging)
        opening.waitsNoMore(vpg)
        this.#notify('vpgOpened', { vpg, opened: opened?.vpg })
        this.#takeIntakeBack(vpg)
        if (opened === undefined && this.#ready().memos?.get(vpg)?.fenced === undefined) this.#tail?.tellStranger(vpg)
      }
      worked ||= found.size > 0
    }
    return worked
  }

  /** From here on the VPG is aged, but for merges: these wait for its records that the tail has passed as a stranger's. */
  #join(vpg: VpgAging): void {
    this.#tail?.join(vpg)
    this.#vpgs.set(vpg.vpg, vpg)
  }

  async #catchUpLoop(): Promise<void> {
    for (;;) if (!(await this.catchUpStep())) await this.#clock.sleep(catchUpLookMillis, this.#closing.signal)
  }

  /** Reads a slice of the log for VPGs that joined late; false where there are none, or too much waits to be sealed. For a driver without loops. */
  async catchUpStep(): Promise<boolean> {
    const { disk, config } = this.#ready()
    const openReader = (): TailedLog => this.#newLog(disk, config.logDirectory)
    return await this.#tailPermit.with(
      async () => (await this.#tail?.catchUp(openReader, this.#closing.signal)) ?? false,
    )
  }

  /** As readTail, and for a VPG that joined late first what the tail has passed of it. Fails STORE_UNAVAILABLE where that takes too long. */
  async #readTailOf(vpg: VpgId, patienceMillis = callPatienceMillis): Promise<void> {
    const endMillis = this.#clock.monotonicMillis() + patienceMillis
    while (this.#tail?.isBehind(vpg) === true) {
      if (this.#clock.monotonicMillis() >= endMillis) {
        const sentence = 'the store has given the VPG only now, and what the log has of it is still being read'
        throw new Failure('STORE_UNAVAILABLE', sentence, { vpg })
      }
      if (!(await this.catchUpStep())) await this.#clock.sleep(catchUpLookMillis, this.#closing.signal)
    }
    await this.readTail()
  }

  /** What nobody can seal is not to fill the log that all share. */
  #reviewIntake(): void {
    this.#reviewHeldUp()
    const waiting = this.#vpgOpening?.waiting
    if (waiting === undefined || waiting.size === 0 || !this.#isLogUnderPressure()) return
    for (const [vpg, { message }] of waiting) {
      if (this.#intakeStopped.has(vpg) || this.#strangers?.knows(vpg) !== true) continue
      this.#intakeStopped.add(vpg)
      const sentence = `the store has not given the VPG since the start, and the log is filling: ${message}`
      this.#notify('sealingStopped', { vpg, sentence })
    }
  }

  /** The same of those whose segments the store refuses while it takes others'; they go on when it takes one. */
  #reviewHeldUp(): void {
    for (const vpg of this.#heldUp) if (this.#vpgs.get(vpg)?.writer.isSealingHeldUp !== true) this.#letGoOn(vpg)
    if (!this.#isLogUnderPressure()) return
    for (const [vpg, { writer, isSealingStopped }] of this.#vpgs) {
      if (this.#heldUp.has(vpg) || isSealingStopped || !writer.isSealingHeldUp) continue
      this.#heldUp.add(vpg)
      const why = writer.patience.failing?.sentence ?? ''
      const sentence = `the store does not take its segments, though it takes others', and the log is filling: ${why}`
      this.#notify('sealingStopped', { vpg, sentence })
    }
  }

  #letGoOn(vpg: VpgId): void {
    this.#heldUp.delete(vpg)
    if (this.#vpgs.get(vpg)?.isSealingStopped !== true) this.#notify('sealingStopped', { vpg, sentence: undefined })
  }

  #takeIntakeBack(vpg: VpgId): void {
    if (this.#intakeStopped.delete(vpg)) this.#notify('sealingStopped', { vpg, sentence: undefined })
  }

  /** Verifies one object; false when nothing is to be verified. For a driver without loops. */
  async scrubStep(): Promise<boolean> {
    const tools = this.#ready()
    const { scrub } = tools.config
    if (scrub === undefined) return false
    this.#scrub ??= new Scrub(tools, scrub, this.#vpgs)
    return await this.#scrub.step()
  }

  async #lockLoop(): Promise<void> {
    for (;;) if (!(await this.lockStep())) await this.#clock.sleep(lockLookMillis, this.#closing.signal)
  }

  /** Renews some locks; false when none is due, and where nothing is locked. For a driver without loops. */
  async lockStep(): Promise<boolean> {
    const tools = this.#ready()
    if (tools.store.locks === undefined) return false
    this.#locks ??= new Locks(tools, this.#vpgs)
    return await this.#locks.step()
  }

  async #strangersLoop(): Promise<void> {
    for (;;) {
      await this.#clock.sleep(strangersLookMillis, this.#closing.signal)
      await this.#strangersStep()
    }
  }

  /** Gives back the log files of VPGs that are gone; false where there are none, or the store does not say so. */
  async #strangersStep(): Promise<boolean> {
    try {
      const gone = (await this.#strangers?.forgetGone(this.#vpgs.keys(), this.#closing.signal)) ?? []
      for (const vpg of gone) this.#notify('recordsForgotten', { vpg })
      return gone.length > 0
    } catch (error) {
      if (!(error instanceof Failure) || this.#closing.signal.aborted) throw error
      return false
    }
  }

  /** Looks again and again what is due of which VPG: one timer for all, for there may be very many that have nothing to do. */
  async #stepsLoop(): Promise<void> {
    for (;;) {
      let count = 0
      for (const vpg of [...this.#vpgs.values()]) {
        if (++count % vpgsPerTurn === 0) await new Promise(resolve => setImmediate(resolve))
        this.#runSteps(vpg, this.#sealing, () => vpg.sealStep(this.#fileInTheWayOf(vpg)))
        this.#runSteps(vpg, this.#merging, () => this.#mergeStep(vpg))
      }
      await this.#clock.sleep(idleMillis * (0.5 + Math.random()), this.#closing.signal)
    }
  }

  /** As long as there is something to do; those of a VPG that are under way go on. None where another process may be this appliance. */
  #runSteps(vpg: VpgAging, underWay: Set<VpgAging>, step: () => Promise<boolean>): void {
    const { tenure } = this.#ready()
    const mayGoOn = (): boolean => !vpg.isGone && vpg.writer.halted === undefined && tenure.mayCommit
    if (underWay.has(vpg) || !mayGoOn()) return
    underWay.add(vpg)
    this.#run(async () => {
      while (mayGoOn() && (await this.#ofOne(vpg, step)));
      vpg.tellNote()
      underWay.delete(vpg)
    })
  }

  async #mergeStep(vpg: VpgAging): Promise<boolean> {
    if (this.#tail?.isBehind(vpg.vpg) === true) return false
    const worked = await vpg.mergeStep()
    if (vpg.isGone) {
      this.#vpgs.delete(vpg.vpg)
      this.#ready().awake.forget(vpg)
      this.#ready().requests.forget(vpg.vpg)
      this.#ready().answers.forget(vpg.vpg)
    }
    return worked
  }

  /** False where the step fails as one VPG may: that has been told where it happened, and ends at that VPG. */
  async #ofOne(vpg: VpgAging, step: () => Promise<boolean>): Promise<boolean> {
    try {
      return await step()
    } catch (error) {
      if (!(error instanceof Failure) || this.#closing.signal.aborted) throw error
      if (vpg.writer.halted === undefined && error.reaction !== 'retry')
        this.#notify('damageFound', { vpg: vpg.vpg, sentence: error.message })
      return false
    }
  }

  /** Loops end by the closing signal alone; anything else that ends one is a bug, and ends the thread. */
  #run(loop: () => Promise<void>): void {
    const running = loop()
      .catch((error: unknown) => {
        if (this.#closing.signal.aborted) return
        setImmediate(() => {
          throw error
        })
      })
      .finally(() => this.#loops.delete(running))
    this.#loops.add(running)
  }

  /** All VPGs are looked through for it, so only where this one may have it: most have nothing that waits. */
  #fileInTheWayOf({ unsealed }: VpgAging): number | undefined {
    return unsealed.count === 0 ? undefined : this.#fileUnderPressure()
  }

  #isLogUnderPressure(): boolean {
    const { config, logFiles } = this.#ready()
    const limit = this.#tail?.limit
    return (
      limit !== undefined && logFiles.fileCount(limit.fileIdentity) * logFileSizeBytes > config.logSizeBytesPressure
    )
  }

  #fileUnderPressure(): number | undefined {
    const isMemoryFull = this.#tail?.waits === true || this.#tail?.catchUpWaits === true
    if (!isMemoryFull && !this.#isLogUnderPressure()) return undefined
    // Of those that a seal can free: a file may be held by an image or a VPG that cannot be sealed.
    const oldest = [...this.#vpgs.values()]
      .filter(
        ({ vpg, isSealingStopped, unsealed }) => !isSealingStopped && !this.#heldUp.has(vpg) && unsealed.count > 0,
      )
      .map(({ unsealed }) => unsealed.at(0).place.fileIdentity)
    return oldest.length === 0 ? undefined : Math.min(...oldest)
  }

  /**
   * What was asked goes on when the bound is over: a commit in doubt is finished before any other. `late` then tells, or takes
   * back, what nobody would, for the caller has given up.
   */
  async #bounded<T>(work: Promise<T>, late?: (result: T) => Promise<void>): Promise<T> {
    let isLate = false
    const timer = new AbortController()
    const expired = this.#clock.sleep(callPatienceMillis, timer.signal).then(
      (): never => {
        isLate = true
        throw new Failure('STORE_UNAVAILABLE', 'the object store has not taken this yet; it may still take effect')
      },
      () => new Promise<never>(() => undefined),
    )
    try {
      return await Promise.race([work, expired])
    } finally {
      timer.abort()
      work.then(result => (isLate ? late?.(result) : undefined)).catch(() => undefined)
    }
  }

  #openLog(disk: Disk, directory: string): TailedLog {
    const log = this.#newLog(disk, directory)
    this.#logs.push(log)
    return log
  }

  /** The caller closes it. */
  #newLog(disk: Disk, directory: string): TailedLog {
    const { openLog } = this.#surroundings
    return openLog === undefined ? new LogReader({ disk, directory }) : openLog(directory)
  }

  #known(vpg: VpgId): VpgAging {
    this.#ready()
    const known = this.#vpgs.get(vpg)
    const waits = this.#vpgOpening?.waiting.get(vpg)
    if (known === undefined && waits !== undefined)
      throw new Failure('STORE_UNAVAILABLE', `the store has not given the VPG since the start: ${waits.message}`, {
        vpg,
      })
    if (known === undefined || known.isDeleted) throw new Failure('UNKNOWN_VPG', `no VPG ${vpg} here`, { vpg })
    return known
  }

  #ready(): AgingTools {
    if (this.#tools !== undefined) return this.#tools
    const away = this.#opening?.away
    if (away === undefined) throw new Failure('BUSY', 'the aging thread is not open yet')
    const since = new Date(away.sinceMicros / 1000).toISOString()
    throw new Failure('STORE_UNAVAILABLE', `the object store has not answered since ${since}: ${away.sentence}`)
  }

  #identity({ store, clock, config }: AgingTools): WriterIdentity {
    return { store, clock, applianceId: config.applianceId }
  }
}
