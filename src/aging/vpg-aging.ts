import { randomUUID } from 'node:crypto'
import { assert } from '../base/assert.ts'
import { Failure, failedWith } from '../base/failure.ts'
import {
  checkpointOrdinal,
  formatCheckpointId,
  ordinal,
  type Ordinal,
  type PositionVector,
  type StreamPosition,
  type VpgId,
} from '../base/ids.ts'
import { idleSegmentAgeMillis } from '../base/limits.ts'
import type { RecordHeader } from '../journal/record.ts'
import { encodeCheckpoints, type VpgCommits, type VpgContents } from '../manifest/manifest.ts'
import { CheckpointAssembler, isMarkerWithin, type DurableMarker } from '../timeline/assembler.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import { lastDeltaEnd } from '../timeline/deltas.ts'
import { liesBefore } from '../timeline/fold-plan.ts'
import { preseeding } from '../timeline/region-plan.ts'
import { covers, liesWithin } from '../timeline/positions.ts'
import { withClosed, withRepairs, type WholeSync } from '../timeline/repair.ts'
import { holeOver, isOffered, type HistoryPoint } from '../timeline/retention.ts'
import { historySizeBytes, lacksRoomForSync } from '../timeline/journal-limit.ts'
import { dataSizesAt, type VolumeDataSize } from '../timeline/image-size.ts'
import { objectKeys } from '../timeline/reach.ts'
import {
  hasEnded,
  requireNoneUnderWay,
  withoutRecovery,
  withRecovery,
  type RecoveryRecord,
} from '../timeline/recovery.ts'
import { isGoneAt } from '../timeline/removed-volumes.ts'
import { isPinOfRecord, withStandby, type StandbyRecord } from '../timeline/standby.ts'
import type { Hole, StreamRange } from '../timeline/state.ts'
import { storeUseOf } from '../timeline/store-use.ts'
import { collectGarbage, dropFormerProcess, garbageAgesOf, knownKeys, moveEdge, removeDeleted } from './housekeeping.ts'
import { keepJournalLimit, mergeHistory } from './merge-history.ts'
import { foldWaiting, rewriteRegions } from './merging.ts'
import { reviewDamage } from './object-checks.ts'
import { SegmentCommit, unreadableDetail } from './sealing.ts'
import { withSegments } from './mirror-sums.ts'
import type { ImagePlan, MirrorSums, StopNote, VpgMirrorStatus } from './service.ts'
import { mayHaveWork, notedTerms, sleepTerms, termsOf, termsOver, type NotedTerms, type SleepTerms } from './sleep.ts'
import { encodeNote, type VpgNote } from './stop-notes.ts'
import { isRefusal } from './store-patience.ts'
import { damagedRecord, StreamTail } from './stream-tail.ts'
import { expireTags, thin } from './thinning.ts'
import type { AgingTools } from './tools.ts'
import { UnsealedRecords, type Place, type TailPlace, type UnsealedRecord } from './unsealed-records.ts'
import { VpgWriter, type Exclusive, type OpenedHistory, type Owner } from './vpg-writer.ts'
import { packTail, type TailRecord } from '../segment/segment.ts'

/** What a VPG has in the log since when, for the decision to seal. */
interface TailAge {
  readonly firstRecordMillis: number
  readonly firstWriteMillis: number | undefined
}

const sealDelayMillisFirst = 500
const sealDelayMillisMax = 60_000
/** After a merge that the store has refused something, or whose scratch file failed. Others merge meanwhile. */
const refusedDelayMillisFirst = 15_000
const refusedDelayMillisMax = 300_000

/** What one that slept does at most before others have their turn. */
const stepsPerWakingMax = 32

const merges = [thin, foldWaiting, rewriteRegions, mergeHistory, keepJournalLimit] as const

/** What a VPG that sleeps remembers beside its brief. */
interface Resting {
  readonly terms: SleepTerms | undefined
  readonly sums: MirrorSums
  readonly newestHistoryMillis: number
}

interface OpenImage {
  /** What its reader was told: these objects stay, whatever the manifest says meanwhile. */
  readonly keys: ReadonlySet<string>
  readonly files: ReadonlySet<number>
}

/** One VPG's way from the log's tail to the mirror. `seal…` and `merge…` steps are called by loops of their own. */
export class VpgAging implements Owner {
  readonly writer: VpgWriter
  readonly #tools: AgingTools
  readonly #unsealed: UnsealedRecords
  readonly #tail: StreamTail
  readonly #images = new Map<string, OpenImage>()
  #newHoles: Hole[] = []
  /** Of the log beyond the segments, in order. */
  #tailMarkers: DurableMarker[] = []
  /** Epochs of which the log has records that are not replayed. */
  readonly #quarantined = new Set<number>()
  #age: TailAge | undefined
  #formerProcessDropped = false
  /** Which of the merges is asked first. */
  #nextMerge = 0
  /** Contents that no merge was due for: only time can make more to do of them. */
  #settled: VpgContents | undefined
  #gone = false
  /** While what waits cannot be sealed, though the store answers: when it is tried again. */
  #sealing: { readonly delayMillis: number; readonly againMillis: number } | undefined
  /** While the store, or the disk, refuses what a merge needs: when it is tried again. */
  #refused: { readonly delayMillis: number; readonly againMillis: number } | undefined
  /** True while the tail holds a marker that may close a hole: nobody should wait for a full segment to see that. */
  #closesHole = false
  /** Why the disk lets nothing be merged, as was told last. */
  #mergingStopped: string | undefined
  #isSyncHeld = false
  /** While it sleeps: until when, and what its status was. Without terms it wakes at once. */
  #resting: Resting | undefined
  /** True until its contents are read for the first time, where it was opened from its root. */
  #isUnread = false
  /** Of the last note: what it was made of. */
  #told: readonly unknown[] = []
  /** Of these contents, which may be long: who watches asks far more often than they change. */
  #sumsKnown: { readonly contents: VpgContents; readonly sums: Omit<MirrorSums, 'historyMillis'> } | undefined

  private constructor(tools: AgingTools, commits: VpgCommits, opened: OpenedHistory) {
    this.#tools = tools
    this.writer = new VpgWriter(tools, commits, opened, this)
    this.#unsealed = new UnsealedRecords(commits.vpg)
    const { recent, state } = commits.brief
    this.#tail = new StreamTail(state.offloaded, recent.at(-1)?.ordinal ?? commits.lastDeltaEnd)
  }

  /** Of contents that have just been read. `folded` are the retained checkpoints that deltas hold. */
  static awake(tools: AgingTools, commits: VpgCommits, folded: readonly Checkpoint[]): VpgAging {
    const vpg = new VpgAging(tools, commits, { folded })
    tools.awake.used(vpg)
    return vpg
  }

  /** Asleep, until it is its turn to be looked at. */
  static resting(
    tools: AgingTools,
    commits: VpgCommits,
    { newest, sums, allCommitted, ...note }: VpgNote & { readonly allCommitted: boolean },
  ): VpgAging {
    const vpg = new VpgAging(tools, commits, { folded: [], newest, allCommitted })
    const terms = note.terms === undefined ? undefined : termsOf(note.terms, tools.clock.monotonicMillis())
    vpg.#resting = { terms, sums, newestHistoryMillis: newest?.historyMillis ?? 0 }
    return vpg
  }

  /** Asleep, and never read but for its root. `newest` is its newest checkpoint. */
  static unread(tools: AgingTools, commits: VpgCommits, newest: Checkpoint | undefined): VpgAging {
    const vpg = new VpgAging(tools, commits, { folded: [], newest })
    const sums = { ...unknownSums, agedEarlySinceMicros: commits.brief.state.agedEarly?.sinceMicros }
    vpg.#resting = { terms: undefined, sums, newestHistoryMillis: newest?.historyMillis ?? 0 }
    vpg.#isUnread = true
    return vpg
  }

  get isUnread(): boolean {
    return this.#isUnread
  }

  /** Tells the history of one that was opened from its root: before anything of it can leave. */
  woken(folded: readonly Checkpoint[]): void {
    if (!this.#isUnread) return
    this.#isUnread = false
    const { state, recent } = this.contents
    const checkpointPage = encodeCheckpoints([...folded, ...recent])
    const { segments, offloaded } = state
    this.#tools.notify('historyRead', { vpg: this.vpg, segments, checkpointPage, offloaded })
  }

  /** On return its contents were read at least once. Fails STORE_UNAVAILABLE where the store goes on failing: to seal what comes in is not to wait for it. */
  async readHistory(): Promise<void> {
    if (this.#isUnread) await this.writer.awakeBriefly(async () => undefined)
  }

  /** The same for who has others to go on with; false where the store goes on failing. */
  async readHistoryBriefly(): Promise<boolean> {
    if (!this.#isUnread || this.writer.halted !== undefined || this.#isDamagedForNow) return true
    try {
      await this.readHistory()
      return true
    } catch (error) {
      if (isRefusal(error)) return false
      if (this.writer.mergingHalted === undefined) throw error
      return true // that has been told
    }
  }

  /** Empty where the next start has more to do than to go on from here; undefined where nobody can tell now: what was noted before stays true. */
  note(): StopNote | undefined {
    const { commits, halted, mergingHalted, isIdle, newest, brief } = this.writer
    const isPlain =
      !this.isDeleted && !this.#isUnread && halted === undefined && mergingHalted === undefined && !this.#isSyncHeld
    const holeCount = this.#newHoles.length + brief.state.holes.length
    const isOdd = !isPlain || holeCount > 0 || preseeding(brief.state.definition).size > 0
    if (isOdd) return { vpg: this.vpg, text: '' }
    const { atRest } = commits
    if (!isIdle || atRest === undefined) return undefined
    const sums = this.writer.isAwake ? this.#sums() : this.#restingSums()
    const { applianceId } = this.#tools.config
    return encodeNote({ applianceId, commits: atRest, sums, newest, terms: this.#notedTerms() })
  }

  /** Tells what a start after this moment could go on from, where that is something else than at the last time. */
  tellNote(): void {
    const { isAwake, isIdle, mergingHalted } = this.writer
    const { commitNumber } = this.writer.brief.state
    const now = [commitNumber, this.#resting, isAwake && this.#isSettled, mergingHalted, this.#newHoles.length] as const
    if (!isIdle || now.every((each, index) => each === this.#told[index])) return
    const note = this.note()
    if (note === undefined) return
    this.#told = now
    this.#tools.notify('noted', note)
  }

  #notedTerms(): NotedTerms | undefined {
    const terms = this.writer.isAwake ? this.#settledTerms() : this.#resting?.terms
    // What is due, or may be, has its turn before what has to be looked at only because a process has ended.
    if (terms === undefined && !this.#formerProcessDropped) return undefined
    return notedTerms(terms ?? termsOver, this.writer.commits.sinceAsleep, this.#tools.clock.monotonicMillis())
  }

  get vpg(): VpgId {
    return this.writer.vpg
  }

  get contents(): VpgContents {
    return this.writer.contents
  }

  /** Of all markers that the log and the store are known to hold, the newest's. */
  get newestOrdinal(): Ordinal {
    const { recent, pendingMarkers } = this.writer.brief
    const pending = pendingMarkers.map(({ term, counter }) => checkpointOrdinal(term, counter))
    return ordinal(
      Math.max(this.writer.commits.lastDeltaEnd, recent.at(-1)?.ordinal ?? 0, this.#tail.newestMarker, ...pending),
    )
  }

  get isDeleted(): boolean {
    return this.writer.brief.deletedAtMicros !== undefined
  }

  /** True when nothing of the VPG is in the store any more. */
  get isGone(): boolean {
    return this.#gone
  }

  get unsealed(): UnsealedRecords {
    return this.#unsealed
  }

  /** Takes the next record of the log. `read` gives its frame. */
  take(header: RecordHeader, { place, stretchCount }: TailPlace, read: () => Uint8Array): void {
    if (this.isDeleted) return
    if (this.writer.halted !== undefined) {
      // It goes nowhere in this process, and must not fill the memory for those that do: the log alone keeps it.
      this.#tools.logFiles.hold(place.fileIdentity)
      return
    }
    if (header.epoch !== this.writer.brief.state.epoch && !this.#tail.knows(header)) {
      this.#quarantine(header, place)
      return
    }
    const verdict = this.#tail.next(header, stretchCount, read)
    if (verdict.kind === 'known') return
    for (const hole of verdict.holes) this.#addHole(hole)
    if (verdict.marker !== undefined) this.#tailMarkers.push(verdict.marker)
    if (!verdict.sealable) return
    this.#unsealed.push({ header, place, afterOrdinal: verdict.afterOrdinal })
    this.#tools.logFiles.hold(place.fileIdentity)
    const nowMillis = this.#tools.clock.monotonicMillis()
    this.#age ??= { firstRecordMillis: nowMillis, firstWriteMillis: undefined }
    if (header.kind === 'marker') this.#closesHole ||= this.#awaitsRepair(header)
    if (header.kind === 'batch') this.#age = { ...this.#age, firstWriteMillis: this.#age.firstWriteMillis ?? nowMillis }
  }

  /** It was acknowledged by an appliance that was not the VPG's owner any more, or is by now: its agent has sent it to the owner. */
  #quarantine({ epoch }: RecordHeader, { fileIdentity }: Place): void {
    if (this.#quarantined.has(epoch)) return
    this.#quarantined.add(epoch)
    this.#tools.notify('recordsQuarantined', { vpg: this.vpg, epoch, fileIdentity })
  }

  /** True when the tail is to be sealed now: large enough, old enough, or in the way of a full log. */
  sealIsDue(oldestFileUnderPressure: number | undefined): boolean {
    if (this.#unsealed.count === 0 || this.#age === undefined) return false
    const { config, clock } = this.#tools
    const nowMillis = clock.monotonicMillis()
    const { firstRecordMillis, firstWriteMillis } = this.#age
    return (
      this.#unsealed.sizeBytes >= config.segmentSizeBytesTarget ||
      this.#closesHole ||
      (firstWriteMillis !== undefined && nowMillis - firstWriteMillis >= config.segmentAgeMillisMax) ||
      nowMillis - firstRecordMillis >= Math.max(idleSegmentAgeMillis, config.segmentAgeMillisMax) ||
      this.#unsealed.at(0).place.fileIdentity === oldestFileUnderPressure
    )
  }

  /** True where nothing can be sealed: what waits for it is not to hold up others. */
  get isSealingStopped(): boolean {
    return this.#sealing !== undefined || this.writer.halted !== undefined
  }

  /** Commits what is due; false when nothing was. What cannot be sealed is told, and tried again ever more seldom. */
  async sealStep(oldestFileUnderPressure: number | undefined): Promise<boolean> {
    const stopped = this.#sealing
    if (stopped !== undefined && this.#tools.clock.monotonicMillis() < stopped.againMillis) return false
    try {
      const worked = await this.#sealStep(oldestFileUnderPressure)
      if (stopped !== undefined) this.#sealingGoesOn()
      return worked
    } catch (error) {
      if (error instanceof Failure) this.#sealingFailed(error)
      throw error
    }
  }

  #sealingFailed(failure: Failure): void {
    const passes = failure.reaction === 'retry' || failure.reaction === 'cancelled'
    if (passes || this.writer.halted !== undefined) return // of a VPG that is halted the writer tells
    const { clock, notify } = this.#tools
    const delayMillis = Math.min(sealDelayMillisMax, 2 * (this.#sealing?.delayMillis ?? sealDelayMillisFirst / 2))
    if (this.#sealing === undefined) notify('sealingStopped', { vpg: this.vpg, sentence: failure.message })
    this.#sealing = { delayMillis, againMillis: clock.monotonicMillis() + delayMillis }
  }

  #sealingGoesOn(): void {
    this.#sealing = undefined
    this.#tools.notify('sealingStopped', { vpg: this.vpg, sentence: undefined })
  }

  async #sealStep(oldestFileUnderPressure: number | undefined): Promise<boolean> {
    if (this.isDeleted || this.writer.halted !== undefined) return false
    if (this.#sealing !== undefined || this.sealIsDue(oldestFileUnderPressure)) {
      await this.sealOne()
      return true
    }
    if (this.#newHoles.length > 0) {
      await this.writer.exclusively(turn => this.#commitHoles(turn))
      return true
    }
    const checkMillis = this.#tools.takeovers.checkMillis(this.vpg, this.writer.brief.state.epoch)
    if (this.#tools.clock.monotonicMillis() - this.writer.lastCheckMillis < checkMillis) return false
    await this.writer.checkOwnership()
    return false
  }

  /** The oldest unsealed records as one segment, after the holes that were found among them. */
  async sealOne(): Promise<void> {
    await this.writer.exclusivelyAsleep(async turn => {
      if (this.isDeleted) return
      if (this.#newHoles.length > 0 || this.writer.brief.state.holes.length > 0) await turn.wake()
      await this.#commitHoles(turn)
      if (this.#unsealed.count === 0) return
      const { clock, notify, logFiles } = this.#tools
      const segment = new SegmentCommit(this.#tools, this.writer.commits, this.#unsealed)
      const startMillis = clock.monotonicMillis()
      try {
        const span = await turn.commitSegment(segment)
        const putMillis = clock.monotonicMillis() - startMillis - segment.buildMillis
        const files = Array.from({ length: segment.recordCount }, (_, at) => this.#unsealed.at(at).place.fileIdentity)
        this.#unsealed.dropFirst(segment.recordCount)
        this.#dropSealedMarkers() // here, for a VPG that is not merged would keep them for ever
        this.#restartAge()
        const { offloaded } = this.writer.brief.state
        notify('segmentCommitted', {
          vpg: this.vpg,
          segment: span,
          offloaded,
          buildMillis: segment.buildMillis,
          putMillis,
        })
        for (const file of files) logFiles.release(file)
        if (this.writer.isAwake) await this.#closeHoles(turn)
        this.#closesHole &&= this.#tailAwaitsRepair()
      } catch (error) {
        if (!failedWith(error, 'RECORD_CORRUPT') || segment.wasBuilt) throw error
        await this.#leaveOut(turn, error)
      }
      if (!this.writer.commits.manifestIsDue) return
      // A manifest that is damaged is told, and replaced by no other; segments are committed all the same.
      if (!this.writer.isAwake && this.writer.mergingHalted !== undefined) return
      await turn.wake()
      await turn.commitManifest(this.writer.trimmed(turn.contents))
    })
  }

  /** Seals all that the tail holds now. */
  async sealAll(): Promise<readonly StreamPosition[]> {
    const through = this.#tail.positions
    while (this.#unsealed.count > 0 && !covers(this.writer.brief.state.offloaded, through)) await this.sealOne()
    return this.writer.brief.state.offloaded
  }

  /** One step of everything that turns segments into the mirror; false when nothing was due, or the store or the disk has refused us for it lately. */
  async mergeStep(): Promise<boolean> {
    if (this.writer.halted !== undefined) return false
    const { clock } = this.#tools
    if (this.#refused !== undefined && clock.monotonicMillis() < this.#refused.againMillis) return false
    try {
      const worked = await this.#mergeNow()
      if (worked) {
        this.#refused = undefined
        this.#tellMerging(undefined)
      }
      return worked
    } catch (error) {
      const isOfDisk = failedWith(error, 'DISK_FAILED')
      if (!isOfDisk && !isRefusal(error)) throw error
      const delayMillis = Math.min(
        refusedDelayMillisMax,
        2 * (this.#refused?.delayMillis ?? refusedDelayMillisFirst / 2),
      )
      this.#refused = { delayMillis, againMillis: clock.monotonicMillis() + delayMillis }
      if (isOfDisk) this.#tellMerging(error.message) // of the store the writer's patience has told
      return false
    }
  }

  #tellMerging(sentence: string | undefined): void {
    if (sentence === this.#mergingStopped) return
    this.#mergingStopped = sentence
    this.#tools.notify('mergingStopped', { vpg: this.vpg, sentence })
  }

  async #mergeNow(): Promise<boolean> {
    if (this.isDeleted) return await this.#removeStep()
    if (this.writer.isAwake) return await this.writer.awake(() => this.#mergeAwake())
    if (this.#isDamagedForNow || this.#isUnread) return false
    const merge = (): Promise<boolean> => this.writer.awakeBriefly(() => this.#mergeSome())
    try {
      if (this.writer.isMergingLookDue || this.#hasWork()) return await this.#tools.awake.inTurn(this, merge)
      // Where a former process has left nothing, it is looked through when something is due.
      const isToBeLooked = !this.#formerProcessDropped && !this.writer.made.isAllCommitted
      return isToBeLooked && (await this.#tools.awake.firstLook(this, merge)) === true
    } catch (error) {
      if (this.writer.isAwake || this.writer.mergingHalted === undefined) throw error
      return false // that has been told
    }
  }

  /** While it sleeps: whether something may be due. Before the first look of this process that is known only where it was noted. */
  #hasWork(): boolean {
    const terms = this.#resting?.terms
    if (terms === undefined) return this.#formerProcessDropped
    const { commits, brief } = this.writer
    return mayHaveWork(terms, commits.sinceAsleep, brief, this.#tools.clock.monotonicMillis())
  }

  /** All that is due, or much of it: others wait to be awake. */
  async #mergeSome(): Promise<boolean> {
    for (let step = 0; step < stepsPerWakingMax; step++) if (!(await this.#mergeAwake())) return step > 0
    return true
  }

  get awakeSizeBytes(): number {
    return this.writer.commits.manifestSizeBytes
  }

  /** Lets go of the contents, where nobody needs them. */
  sleep(): boolean {
    if (!this.writer.canSleep || this.isDeleted || this.#newHoles.length > 0 || this.#isSyncHeld) return false
    const { writer } = this
    const terms = this.#sleepTerms()
    if (terms === undefined) return false
    const newestHistoryMillis = writer.newest?.historyMillis ?? 0
    this.#resting = { terms: this.#isSettled ? terms : undefined, sums: this.#sums(), newestHistoryMillis }
    this.#settled = undefined
    this.#sumsKnown = undefined
    writer.sleep()
    return true
  }

  /** Nothing is due in the contents as they are. */
  get #isSettled(): boolean {
    return this.contents === this.#settled && this.#formerProcessDropped
  }

  #settledTerms(): SleepTerms | undefined {
    return this.#isSettled ? this.#sleepTerms() : undefined
  }

  #sleepTerms(): SleepTerms | undefined {
    const { contents, writer } = this
    const { clock, config } = this.#tools
    const ages = garbageAgesOf(this.#tools, writer)
    return sleepTerms(contents, {
      limits: config,
      pointCount: writer.points(contents).length,
      newestHistoryMillis: writer.newest?.historyMillis ?? 0,
      graceMillis: config.garbageGraceMillis,
      ageMillis: at => ages.ageMillis(at),
      nowMillis: clock.monotonicMillis(),
    })
  }

  /** It cannot be merged, nor, asleep, be woken, and it is not time to see whether that is mended. */
  get #isDamagedForNow(): boolean {
    return this.writer.mergingHalted !== undefined && !this.writer.isMergingLookDue
  }

  async #mergeAwake(): Promise<boolean> {
    if (!this.#formerProcessDropped) {
      await dropFormerProcess(this.#tools, this.writer, pinId => this.#images.has(pinId))
      this.#formerProcessDropped = true
      // It may have died between the segment with the closing checkpoint and the manifest that says so; no other segment need come.
      await this.writer.exclusively(turn => this.#closeHoles(turn))
    }
    const { contents } = this
    if (this.writer.isMergingLookDue) {
      await reviewDamage(this.#tools, this.writer)
      this.#settled = undefined
    }
    if (contents !== this.#settled) {
      const merged =
        (await this.#merge()) || (await expireTags(this.#tools, this.writer)) || (await moveEdge(this.writer))
      if (merged) return true
      this.#settled = contents
      this.writer.made.review(() => knownKeys(this.writer, contents))
      this.#reviewRoomForSync()
    }
    return await collectGarbage(this.#tools, this.writer, key => this.#isRead(key))
  }

  /** Tells when synchronisations have to wait, and when they can go on: no merge can make more room by now. */
  #reviewRoomForSync(): void {
    const { state, segmentsFrom, recent } = this.contents
    if (state.definition.journalLimitSizeBytes === 0 && !this.#isSyncHeld) return
    const ordinals = [...this.writer.history.points(), ...recent].map(point => point.ordinal)
    const isHeld = lacksRoomForSync(state, { ordinals, segmentsFrom }, { isHeld: this.#isSyncHeld })
    if (isHeld === this.#isSyncHeld) return
    this.#isSyncHeld = isHeld
    this.#tools.notify('roomForSync', { vpg: this.vpg, isHeld })
  }

  /** One merge that is due, every kind in its turn: none waits for another that never ends. */
  async #merge(): Promise<boolean> {
    for (let step = 0; step < merges.length && this.writer.mergingHalted === undefined; step++) {
      const at = (this.#nextMerge + step) % merges.length
      if (!(await merges[at]?.(this.#tools, this.writer, () => this.#tailCheckpoints()))) continue
      this.#nextMerge = (at + 1) % merges.length
      return true
    }
    return false
  }

  async createFirst(): Promise<void> {
    this.#formerProcessDropped = true
    await this.writer.exclusively(turn => turn.commitManifest({ contents: turn.contents }))
  }

  /** Commits a change of what people decide; `change` sees the contents of its turn and may refuse. */
  async decide(change: (contents: VpgContents) => VpgContents | undefined): Promise<void> {
    await this.writer.exclusively(async turn => {
      this.#refuseDeleted()
      await this.#commitHoles(turn)
      const contents = change(turn.contents)
      if (contents !== undefined) await turn.commitManifest({ contents })
    })
  }

  /** Checkpoints that are complete and told of, though the last of their markers is in no segment yet. */
  #tailCheckpoints(): readonly Checkpoint[] {
    const { pendingMarkers } = this.contents
    this.#dropSealedMarkers()
    const assembler = new CheckpointAssembler()
    for (const marker of pendingMarkers) assembler.add(marker)
    return this.#tailMarkers.flatMap(marker => assembler.add(marker) ?? [])
  }

  /** The contents have those that are in segments. */
  #dropSealedMarkers(): void {
    const { offloaded } = this.writer.brief.state
    const isSealed = (marker: DurableMarker): boolean => isMarkerWithin(offloaded, marker)
    if (this.#tailMarkers.some(isSealed)) this.#tailMarkers = this.#tailMarkers.filter(marker => !isSealed(marker))
  }

  /** Marks the holes that a synchronisation, which has just begun, will repair. */
  async generationOpened(sync: WholeSync): Promise<void> {
    await this.writer.exclusively(async turn => {
      if (this.isDeleted) return
      await this.#commitHoles(turn)
      const { state } = turn.contents
      await this.#replaceHoles(turn, withRepairs(state.holes, sync, state.definition))
    })
  }

  async delete(atMicros: number, { isForced }: { readonly isForced: boolean }): Promise<void> {
    await this.writer.exclusively(async turn => {
      this.#refuseDeleted()
      const { contents } = turn
      requireNoneUnderWay(contents.state.recoveries, { vpg: this.vpg, isForced }) // they have images open, and say what to do about it
      if (this.#images.size > 0) {
        const sentence = `${this.#images.size} images of the VPG are open; close them first`
        throw new Failure('BUSY', sentence, { vpg: this.vpg, openImages: this.#images.size })
      }
      if (!isForced) refuseStandby(contents)
      const empty = { deltas: [], segments: [], regions: [], tags: [], pins: [], recoveries: [], holes: [] }
      const leftKeys = objectKeys(contents.state)
      const state = { ...contents.state, ...empty, standby: undefined }
      const deleted = { ...contents, state, recent: [], pendingMarkers: [], deletedAtMicros: atMicros }
      await turn.commitManifest({ contents: deleted, leftKeys })
      // Still in this turn: a seal that waits for its own must find nothing to seal.
      for (let index = this.#unsealed.count - 1; index >= 0; index--) {
        this.#tools.logFiles.release(this.#unsealed.at(index).place.fileIdentity)
      }
      this.#unsealed.dropFirst(this.#unsealed.count)
    })
  }

  /** True when the log was read up to the cut. */
  hasReadUpTo(cut: PositionVector): boolean {
    return covers(this.#tail.positions, cut) || covers(this.writer.brief.state.offloaded, cut)
  }

  /** About how much data there is as of the checkpoint. */
  async dataSizes(checkpoint: Checkpoint): Promise<VolumeDataSize[]> {
    return await this.writer.exclusively(async turn => {
      this.#refuseDeleted()
      this.#requireOffered(turn.contents, checkpoint)
      const tail = [...this.#unsealedUpTo(checkpoint)]
      const batchSizes = tail.flatMap(({ header }) => (header.kind === 'batch' ? [header.frameSizeBytes] : []))
      return dataSizesAt(turn.contents.state, checkpoint, batchSizes)
    })
  }

  /** Commits the pin, unless a record's is there, then says in one synchronous piece what is to be read, and holds it. */
  async openImage(checkpoint: Checkpoint, owner: string): Promise<ImagePlan> {
    const pin = { id: randomUUID(), ordinal: checkpoint.ordinal, owner, kind: 'image' as const }
    return await this.#forReader(async turn => {
      this.#refuseDeleted()
      await this.#commitHoles(turn)
      this.#requireOffered(turn.contents, checkpoint)
      this.#requireNotGivenUp(turn.contents, checkpoint)
      const { state } = turn.contents
      const isPinned = state.pins.some(pin => pin.ordinal === checkpoint.ordinal && isPinOfRecord(state, pin))
      if (isPinned) return this.#hold(pin.id, checkpoint, turn.contents)
      // Held before the commit, so that no other step takes the pin for one of a former process.
      this.#images.set(pin.id, { keys: new Set(), files: new Set() })
      try {
        await turn.commitManifest({ contents: { ...turn.contents, state: { ...state, pins: [...state.pins, pin] } } })
      } catch (error) {
        this.#images.delete(pin.id)
        throw error
      }
      return this.#hold(pin.id, checkpoint, turn.contents)
    })
  }

  /** The same for the volumes as of positions that are no checkpoint: held in memory alone, for this process. */
  async openReading(positions: PositionVector): Promise<ImagePlan> {
    return await this.#forReader(async turn => {
      this.#refuseDeleted()
      if (!this.hasReadUpTo(positions))
        throw new Failure('CHECKPOINT_MISSING', 'the log was not read up to these positions yet', { vpg: this.vpg })
      const volumes = turn.contents.state.definition.volumes.map(({ number, sizeBytes }) => ({
        number,
        sizeBytes,
        included: true,
      }))
      const newest = { ordinal: aboveAll, timestampMicros: 0, historyMillis: 0, vector: positions, volumes }
      return this.#hold(randomUUID(), newest, turn.contents)
    })
  }

  /** Who reads is told what is damaged; that it keeps the VPG asleep is of interest to those who change it. */
  async #forReader<T>(work: (turn: Exclusive) => Promise<T>): Promise<T> {
    return await this.writer.exclusively(work).catch((error: unknown) => {
      throw failedWith(error, 'BUSY') && error.cause instanceof Failure ? error.cause : error
    })
  }

  #hold(pinId: string, checkpoint: Checkpoint, contents: VpgContents): ImagePlan {
    const tail = this.#tailUpTo(checkpoint)
    const files = new Set(tail.map(record => record.fileIdentity))
    for (const file of files) this.#tools.logFiles.hold(file)
    this.#images.set(pinId, { keys: new Set(objectKeys(contents.state)), files })
    const state = { ...contents.state, recoveries: [], standby: undefined } // of no use to a reader
    const volumes = checkpoint.volumes.map(volume =>
      isGoneAt(state.definition, volume.number, checkpoint.ordinal) ? { ...volume, included: false } : volume,
    )
    return {
      pinId,
      checkpoint: { ...checkpoint, volumes },
      state,
      tail: packTail(tail),
      segmentsFrom: contents.segmentsFrom,
    }
  }

  async closeImage(pinId: string): Promise<void> {
    const image = this.#images.get(pinId)
    if (image === undefined) return
    this.#images.delete(pinId)
    for (const file of image.files) this.#tools.logFiles.release(file)
    if (!this.writer.brief.state.pins.some(pin => pin.id === pinId)) return
    await this.decide(contents => {
      const pins = contents.state.pins.filter(pin => pin.id !== pinId)
      return { ...contents, state: { ...contents.state, pins } }
    })
  }

  /** Commits the record, and with it the pin that it needs. A checkpoint that it did not name before must be offered. */
  async putRecovery(record: RecoveryRecord): Promise<void> {
    await this.decide(contents => {
      const { state } = contents
      const { checkpoint } = record
      const isPinned = state.pins.some(pin => pin.kind === 'recovery' && pin.id === record.id)
      if (checkpoint !== undefined && !isPinned && !hasEnded(record)) {
        this.#requireOffered(contents, checkpoint)
        this.#requireNotGivenUp(contents, checkpoint)
      }
      return { ...contents, state: { ...state, ...withRecovery(state, record) } }
    })
  }

  /** Commits the record, and with it the pins that it needs. A checkpoint that it did not name before must be offered. */
  async putStandby(standby: StandbyRecord | undefined): Promise<void> {
    await this.decide(contents => {
      const { state } = contents
      for (const checkpoint of standby?.checkpoints ?? []) {
        const isPinned = state.pins.some(({ kind, ordinal }) => kind === 'standby' && ordinal === checkpoint.ordinal)
        if (isPinned) continue
        this.#requireOffered(contents, checkpoint)
        this.#requireNotGivenUp(contents, checkpoint)
      }
      return { ...contents, state: { ...state, ...withStandby(state, standby) } }
    })
  }

  async dropRecovery(id: string): Promise<void> {
    await this.decide(contents => {
      const { state } = contents
      return state.recoveries.some(record => record.id === id)
        ? { ...contents, state: { ...state, ...withoutRecovery(state, id) } }
        : undefined
    })
  }

  /** True when a checkpoint of this ordinal is in the store or may be in the log, and is offered. */
  requireRetained(contents: VpgContents, at: Ordinal): void {
    const { state, recent } = contents
    const newestCommitted = recent.at(-1)?.ordinal ?? lastDeltaEnd(state)
    const exists = at > newestCommitted || this.writer.holds(contents, at)
    if (exists && isOffered(state, at)) return
    const why = exists ? 'has left the history, or a hole in the journal has withdrawn it' : 'is not kept'
    const sentence = `checkpoint ${formatCheckpointId(at)} ${why}; ${this.#nearest(contents, at)}`
    throw new Failure('CHECKPOINT_MISSING', sentence, { vpg: this.vpg, ordinal: at })
  }

  /** Those before and after it that can be recovered, in words. */
  #nearest(contents: VpgContents, at: Ordinal): string {
    const offered = this.writer.points(contents).filter(({ ordinal }) => isOffered(contents.state, ordinal))
    const neighbours = [offered.findLast(({ ordinal }) => ordinal < at), offered.find(({ ordinal }) => ordinal > at)]
    const names = neighbours.flatMap(point => (point === undefined ? [] : [formatCheckpointId(point.ordinal)]))
    return names.length === 0 ? 'there is none' : `the nearest that are kept: ${names.join(' and ')}`
  }

  #sums(): MirrorSums {
    const { contents } = this
    if (this.#sumsKnown?.contents !== contents) this.#sumsKnown = { contents, sums: this.#summedUp() }
    return { ...this.#sumsKnown.sums, historyMillis: this.#historyMillis() }
  }

  #summedUp(): Omit<MirrorSums, 'historyMillis'> {
    const { state } = this.contents
    const segmentBytes = state.segments.map(segment => segment.object.sizeBytes)
    const packs = state.deltas.flatMap(delta => delta.packs.map(pack => pack.object.sizeBytes))
    const regions = state.regions.map(version => version.pack?.object.sizeBytes ?? 0)
    return {
      segmentCount: segmentBytes.length,
      segmentSizeBytes: sum(segmentBytes),
      deltaCount: state.deltas.length,
      deltaSizeBytes: sum(packs),
      regionCount: regions.length,
      baseSizeBytes: sum(regions),
      garbageCount: state.garbage.length,
      unfoldedRawSizeBytes: sum(state.segments.map(segment => segment.rawSizeBytes)),
      historySizeBytes: historySizeBytes(state),
      agedEarlySinceMicros: state.agedEarly?.sinceMicros,
      forms: storeUseOf(state, this.writer.commits.manifestObjects()),
    }
  }

  #restingSums(): MirrorSums {
    const { commits, newest } = this.writer
    assert(this.#resting !== undefined, 'a VPG that sleeps remembers what it had')
    const { sums, newestHistoryMillis } = this.#resting
    const grownMillis = Math.max(0, (newest?.historyMillis ?? 0) - newestHistoryMillis)
    return withSegments(sums, commits.sinceAsleep, grownMillis)
  }

  status(): Omit<VpgMirrorStatus, 'scrub' | 'locks'> {
    const { brief, patience, halted } = this.writer
    const { state } = brief
    const failing = patience.failing
    return {
      ...(this.writer.isAwake ? this.#sums() : this.#restingSums()),
      unsealedSizeBytes: this.#unsealed.sizeBytes,
      offloaded: state.offloaded,
      historyEdge: state.historyEdge,
      requests: this.#tools.requests.factsOf(this.vpg),
      commitNumber: state.commitNumber,
      isUnread: this.#isUnread,
      storeFailingSince: failing?.sinceMicros,
      storeFailure: failing?.sentence ?? halted?.message,
    }
  }

  #historyMillis(): number {
    const { state, recent } = this.contents
    const isOfHistory = ({ ordinal }: HistoryPoint): boolean =>
      ordinal >= state.historyEdge && holeOver(state.holes, ordinal) === undefined
    const oldest = this.writer.history.find(isOfHistory) ?? recent.find(isOfHistory)
    const newest = recent.findLast(isOfHistory) ?? this.writer.history.findLast(isOfHistory)
    return oldest === undefined || newest === undefined ? 0 : newest.historyMillis - oldest.historyMillis
  }

  #refuseDeleted(): void {
    if (!this.isDeleted) return
    throw new Failure('UNKNOWN_VPG', 'this VPG was deleted', { vpg: this.vpg })
  }

  #requireOffered(contents: VpgContents, checkpoint: Checkpoint): void {
    this.requireRetained(contents, checkpoint.ordinal)
    const refuse = (sentence: string): never => {
      throw new Failure('CHECKPOINT_MISSING', sentence, { vpg: this.vpg, ordinal: checkpoint.ordinal })
    }
    if (!this.hasReadUpTo(checkpoint.vector)) refuse('the log does not reach up to this checkpoint')
    if (!this.#isThere(contents, checkpoint)) refuse('it was lost with the appliance that had it in its log')
  }

  /**
   * That its streams have gone on says nothing of a checkpoint that is not committed: a former appliance may have had it in its log, and a stream that is begun
   * anew is past it in its first record.
   */
  #isThere({ state, recent }: VpgContents, { ordinal, vector }: Checkpoint): boolean {
    if (ordinal <= (recent.at(-1)?.ordinal ?? lastDeltaEnd(state))) return true
    const isIn = (range: StreamRange, { stream, generation, sequence: at }: StreamPosition): boolean =>
      range.stream === stream &&
      range.generation === generation &&
      range.firstSequence <= at &&
      at <= range.lastSequence
    const isUnsealed = (marker: StreamPosition): boolean => {
      for (let index = this.#unsealed.count - 1; index >= 0; index--)
        if (isIn(this.#unsealed.at(index).header, marker)) return true
      return false
    }
    return vector.every(
      marker => state.segments.some(({ ranges }) => ranges.some(range => isIn(range, marker))) || isUnsealed(marker),
    )
  }

  /** What became complete after an open delta had gone past its first marker cannot be told from what came later. */
  #requireNotGivenUp({ state, segmentsFrom }: VpgContents, { ordinal, vector }: Checkpoint): void {
    if (ordinal <= lastDeltaEnd(state) || liesBefore(segmentsFrom, vector)) return
    const sentence = 'the checkpoint became complete too late: what it holds is merged with what came after it'
    throw new Failure('CHECKPOINT_MISSING', sentence, { vpg: this.vpg, ordinal })
  }

  #tailUpTo(checkpoint: Checkpoint): TailRecord[] {
    const tail: TailRecord[] = []
    for (const { header, place } of this.#unsealedUpTo(checkpoint)) {
      const { stream, generation, firstSequence, lastSequence } = header
      tail.push({ ...place, stream, generation, firstSequence, lastSequence })
    }
    return tail
  }

  *#unsealedUpTo(checkpoint: Checkpoint): Generator<UnsealedRecord> {
    for (let index = 0; index < this.#unsealed.count; index++) {
      const record = this.#unsealed.at(index)
      const { stream, generation, firstSequence } = record.header
      const first = { generation, sequence: firstSequence as StreamPosition['sequence'] }
      if (liesWithin(checkpoint.vector, stream, first)) yield record
    }
  }

  #isRead(key: string): boolean {
    return [...this.#images.values()].some(image => image.keys.has(key))
  }

  #addHole(hole: Hole): void {
    const same = (other: Hole): boolean =>
      other.stream === hole.stream && other.generation === hole.generation && other.firstSequence === hole.firstSequence
    if (this.writer.brief.state.holes.some(same) || this.#newHoles.some(same)) return
    this.#newHoles.push(hole)
    this.#tools.notify('holeFound', { vpg: this.vpg, hole })
  }

  async #commitHoles(turn: Exclusive): Promise<void> {
    const holes = this.#newHoles
    if (holes.length === 0) return
    const { state } = turn.contents
    await turn.commitManifest({
      contents: { ...turn.contents, state: { ...state, holes: [...state.holes, ...holes] } },
    })
    this.#newHoles = this.#newHoles.filter(hole => !holes.includes(hole))
  }

  async #closeHoles(turn: Exclusive): Promise<void> {
    await this.#replaceHoles(turn, withClosed(turn.contents.state.holes, turn.contents.recent))
  }

  async #replaceHoles(turn: Exclusive, holes: readonly Hole[]): Promise<void> {
    const { contents } = turn
    if (holes === contents.state.holes) return
    await turn.commitManifest({ contents: { ...contents, state: { ...contents.state, holes } } })
    this.#tools.notify('holesChanged', { vpg: this.vpg, holes })
  }

  /** A record that was whole when the tail was read and is not any more: a hole instead of it. */
  async #leaveOut(turn: Exclusive, failure: Failure): Promise<void> {
    await turn.wake()
    const index = failure.details[unreadableDetail]
    assert(typeof index === 'number', 'the failure names the record')
    const { header, place, afterOrdinal } = this.#unsealed.at(index)
    this.#tools.notify('damageFound', { vpg: this.vpg, sentence: failure.message })
    this.#addHole(damagedRecord(header, afterOrdinal, failure.message))
    await this.#commitHoles(turn)
    this.#unsealed.dropAt(index)
    this.#tools.logFiles.release(place.fileIdentity)
  }

  #awaitsRepair({ stream, generation }: RecordHeader): boolean {
    return this.writer.brief.state.holes.some(
      ({ repair, repairedFromOrdinal }) =>
        repairedFromOrdinal === undefined && repair?.stream === stream && generation >= repair.generation,
    )
  }

  #tailAwaitsRepair(): boolean {
    for (let index = 0; index < this.#unsealed.count; index++) {
      const { header } = this.#unsealed.at(index)
      if (header.kind === 'marker' && this.#awaitsRepair(header)) return true
    }
    return false
  }

  #restartAge(): void {
    const nowMillis = this.#tools.clock.monotonicMillis()
    if (this.#unsealed.count === 0) this.#age = undefined
    else this.#age = { firstRecordMillis: nowMillis, firstWriteMillis: nowMillis }
  }

  async #removeStep(): Promise<boolean> {
    if (this.#gone) return false
    this.#gone = await removeDeleted(this.#tools, this.writer)
    return this.#gone
  }
}

/** What was created elsewhere would be nobody's. */
function refuseStandby({ state }: VpgContents): void {
  if (state.standby === undefined) return
  const sentence = `there are standby copies of ${state.definition.name}, and who deletes the group would leave them behind: end them first, with --standby none, or leave them in AWS with --force`
  throw new Failure('BUSY', sentence, { vpg: state.definition.id })
}

/** An ordinal that no checkpoint has: what is read as of it is all there is. */
const aboveAll = ordinal(Number.MAX_SAFE_INTEGER)

/** Of one whose history was not read. */
const unknownSums: MirrorSums = {
  ...{ segmentCount: 0, segmentSizeBytes: 0, deltaCount: 0, deltaSizeBytes: 0, regionCount: 0, baseSizeBytes: 0 },
  ...{ garbageCount: 0, unfoldedRawSizeBytes: 0, historyMillis: 0, historySizeBytes: 0 },
  ...{ agedEarlySinceMicros: undefined, forms: [] },
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}
