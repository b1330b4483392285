import { Failure, failedWith } from '../base/failure.ts'
import type { Ordinal, VpgId } from '../base/ids.ts'
import { Permits } from '../base/permits.ts'
import { sharedCall } from '../base/shared-call.ts'
import {
  announcedName,
  encodeCheckpoints,
  listAnnounced,
  listVpgs,
  removeRemains,
  VpgCommits,
  type NewestCommit,
  type OpenedCommits,
  type VpgBrief,
  type VpgContents,
} from '../manifest/manifest.ts'
import type { ObjectStore } from '../store/object-store.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import { isPinOfRecord } from '../timeline/standby.ts'
import type { OpenedVpg, PackedVpg, StopNote } from './service.ts'
import { decodeNote, type VpgNote } from './stop-notes.ts'
import { mayPass } from './store-patience.ts'
import type { AgingTools } from './tools.ts'
import { VpgAging } from './vpg-aging.ts'
import { remembered, requireNotOlder, type VpgMemo } from './vpg-memos.ts'

/** So many are asked after at once: of most of them a few small requests each. */
const openedAtOnce = 32
/** So many failures in a row, with none that was opened between them, are the store's. */
const failuresInARowMax = 64
/** A store that first says who owns what so long after a start was away for it. */
const startMillisMax = 60_000
/** Of two appliances' clocks. */
const clockSkewMillisMax = 300_000
/** A start over very many does not wait for all of them: the others are served as each is opened. */
const openingMillisMax = 15_000

/** What a start needs of a VPG: what ages it, and what the daemon is told. */
export interface Opened {
  readonly aging: VpgAging
  /** Undefined where there is nothing to serve. */
  readonly vpg: PackedVpg | undefined
}

interface AdoptionTerms {
  readonly adopt: boolean
  /** Fails where it is not to be taken from this owner. */
  readonly refuse: (vpg: VpgId, newest: NewestCommit) => Promise<void>
}

/** When a process was started, by both clocks. */
export interface StartedAt {
  readonly timestampMicros: number
  readonly monotonicMillis: number
}

export interface VpgOpeningOptions {
  readonly startedAt: StartedAt
  readonly notes?: readonly StopNote[] | undefined
  /** See OpeningTerms. */
  readonly wholeSizeBytesMax: number
}

/** Reads every VPG of the store once, however often the store fails on the way: of one with a long history only what serves it. */
export class VpgOpening {
  readonly #tools: AgingTools
  readonly #vpgs: Map<VpgId, VpgAging>
  readonly #wholeSizeBytesMax: number
  /** Of VPGs that need no other look; undefined where there is nothing to serve. */
  readonly #settled = new Map<VpgId, PackedVpg | undefined>()
  /** Those that the store does not give, though it gives others, and why. */
  readonly #waiting = new Map<VpgId, Failure>()
  /** Of VPGs that were not looked for yet. */
  readonly #notes: Map<VpgId, StopNote>
  #listedCount: number | undefined
  /** Takeovers that were announced before this process opened anything; undefined where nothing is taken over, or the store does not say. */
  #announcedBefore: ReadonlySet<string> | undefined
  readonly #startedAt: StartedAt
  /** True where that was asked long after the start. */
  #isAnnouncedLate = false
  readonly #listAnnounced: () => Promise<ReadonlySet<string>>

  /** VPGs are put into `vpgs` as they are opened. */
  constructor(tools: AgingTools, vpgs: Map<VpgId, VpgAging>, options: VpgOpeningOptions) {
    const { notes = [], wholeSizeBytesMax, startedAt } = options
    this.#tools = tools
    this.#startedAt = startedAt
    this.#listAnnounced = sharedCall(() => listAnnounced(tools.store, tools.signal))
    this.#vpgs = vpgs
    this.#wholeSizeBytesMax = wholeSizeBytesMax
    this.#notes = new Map(notes.map(note => [note.vpg, note]))
  }

  /**
   * Those that this appliance owns, and of those that the store does not give, though it gives others, what is remembered; every other is told of and
   * left alone. Fails for what may pass, to be called again: VPGs that were opened are not read again.
   */
  async openAll(signal: AbortSignal): Promise<readonly PackedVpg[]> {
    const { store } = this.#tools
    await requireOwnKeys(store, signal)
    const listed = await listVpgs(store, signal)
    if (this.#tools.config.adopt && this.#announcedBefore === undefined) await this.#noteAnnounced(signal)
    this.#listedCount = listed.length
    const failures = await this.#openThose(
      listed.filter(vpg => !this.#settled.has(vpg)),
      signal,
    )
    const [first] = failures.values()
    if (first !== undefined && this.#settled.size === 0) throw first
    // Where it answers still, it is these VPGs that it does not give.
    if (first !== undefined) await listVpgs(store, signal)
    this.#tellMissing(new Set(listed))
    const remembered = [...failures].flatMap(([vpg, failure]) => this.#wait(vpg, failure) ?? [])
    return [...[...this.#settled.values()].filter(opened => opened !== undefined), ...remembered]
  }

  /** What there is of all that the store lists; undefined before that is known. */
  get progress(): string | undefined {
    const { size } = this.#settled
    return this.#listedCount === undefined
      ? undefined
      : `it has answered for ${size} of ${this.#listedCount} VPGs so far`
  }

  /** Those that the store did not give, and why. */
  get waiting(): ReadonlyMap<VpgId, Failure> {
    return this.#waiting
  }

  /**
   * Some of them once more, as many as are opened at once; each waits still, until it is said to be served. Undefined of one that is not ours, or there no
   * more; absent where the store does not give it yet. None is taken over from an appliance that has taken it since the start.
   */
  async openWaiting(vpgs: readonly VpgId[], signal: AbortSignal): Promise<ReadonlyMap<VpgId, Opened | undefined>> {
    const found = new Map<VpgId, Opened | undefined>()
    const openOne = async (vpg: VpgId): Promise<void> => {
      try {
        found.set(vpg, await this.#resumedOrOpened(vpg, signal, this.#lateTerms()))
      } catch (error) {
        if (!(error instanceof Failure) || !mayPass(error) || signal.aborted) throw error
        this.#waitsFor(vpg, error)
      }
    }
    const outcomes = await Promise.allSettled(vpgs.slice(0, openedAtOnce).map(openOne))
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason
    return found
  }

  /** To be said in the step in which others hear of it: one that neither waits nor is there would be taken for one that was deleted. */
  waitsNoMore(vpg: VpgId): void {
    this.#waiting.delete(vpg)
  }

  /** Opens many at once; what they fail with, that may pass, is each one's own. Fails where it is the store's. */
  async #openThose(vpgs: readonly VpgId[], signal: AbortSignal): Promise<Map<VpgId, Failure>> {
    const failures = new Map<VpgId, Failure>()
    const permits = new Permits(openedAtOnce)
    const { clock } = this.#tools
    const endMillis = clock.monotonicMillis() + openingMillisMax
    let inARow: Failure[] = []
    const openOne = async (vpg: VpgId): Promise<void> => {
      if (inARow.length >= failuresInARowMax) return
      if (this.#settled.size > 0 && clock.monotonicMillis() >= endMillis) {
        failures.set(vpg, new Failure('STORE_UNAVAILABLE', inTurn, { isInTurn: true }))
        return
      }
      try {
        const opened = await this.#resumedOrOpened(vpg, signal)
        if (opened !== undefined) this.#vpgs.set(vpg, opened.aging)
        this.#settled.set(vpg, opened?.vpg)
        inARow = []
      } catch (error) {
        if (!(error instanceof Failure) || !mayPass(error) || signal.aborted) throw error
        failures.set(vpg, error)
        inARow.push(error)
      }
    }
    const outcomes = await Promise.allSettled(vpgs.map(vpg => permits.with(() => openOne(vpg))))
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason
    const last = inARow.at(-1)
    if (last !== undefined && inARow.length >= failuresInARowMax) throw last
    return failures
  }

  /** What is remembered of it, for now. */
  #wait(vpg: VpgId, failure: Failure): PackedVpg | undefined {
    this.#waitsFor(vpg, failure)
    const memo = this.#tools.memos?.get(vpg)
    if (memo === undefined || memo.fenced !== undefined) return undefined
    return { ...remembered(memo), rememberedBecause: failure.message }
  }

  /** Told where that is another reason than before: what had no turn at the start may be refused when it has. */
  #waitsFor(vpg: VpgId, failure: Failure): void {
    const before = this.#waiting.get(vpg)
    this.#waiting.set(vpg, failure)
    const isRefused = failure.details['isInTurn'] !== true
    if (before?.message !== failure.message)
      this.#tools.notify('vpgWaits', { vpg, sentence: failure.message, isRefused })
  }

  /** Undefined where the store refuses to say. */
  async #noteAnnounced(signal: AbortSignal): Promise<void> {
    const { store, clock } = this.#tools
    this.#announcedBefore = await listAnnounced(store, signal).catch((error: unknown) => {
      if (!(error instanceof Failure) || error.reaction === 'retry' || signal.aborted) throw error
      return undefined
    })
    this.#isAnnouncedLate = clock.monotonicMillis() - this.#startedAt.monotonicMillis > startMillisMax
  }

  /**
   * To take VPGs over was decided at the start. Who has taken one since, did so by a later decision, and keeps it. Where the store was away for the start,
   * only clocks can tell that.
   */
  #terms(): AdoptionTerms {
    const { adopt, applianceId } = this.#tools.config
    const sinceMicros = this.#startedAt.timestampMicros - clockSkewMillisMax * 1000
    const isAwayTaken = ({ owner, takenAtMicros = 0 }: NewestCommit): boolean =>
      this.#isAnnouncedLate && owner !== applianceId && takenAtMicros > sinceMicros
    const refuse = async (vpg: VpgId, newest: NewestCommit): Promise<void> => {
      if (isAwayTaken(newest)) throw takenSince(vpg, newest.owner, applianceId)
    }
    return { adopt, refuse }
  }

  /** Of VPGs that the store gives later than others: what was announced since tells. Where the store does not show announcements, nobody may take one then. */
  #lateTerms(): AdoptionTerms {
    const { adopt, refuse } = this.#terms()
    const before = this.#announcedBefore
    if (!adopt || before === undefined) return { adopt: false, refuse }
    const seen = new Map<VpgId, number>()
    const refuseLate = async (vpg: VpgId, newest: NewestCommit): Promise<void> => {
      await refuse(vpg, newest)
      const { epoch, owner } = newest
      const { applianceId } = this.#tools.config
      if (owner === applianceId) return
      // Asked after the commit was seen: its announcement came before it.
      const now = await this.#listAnnounced()
      const name = announcedName(vpg, epoch)
      const isSince = (now.has(name) && !before.has(name)) || (seen.get(vpg) ?? epoch) !== epoch
      seen.set(vpg, epoch)
      if (isSince) throw takenSince(vpg, owner, applianceId)
    }
    return { adopt, refuse: refuseLate }
  }

  async #resumedOrOpened(
    vpg: VpgId,
    signal: AbortSignal,
    terms: AdoptionTerms = this.#terms(),
  ): Promise<Opened | undefined> {
    const note = this.#notes.get(vpg)
    const resumed = note && (await this.#resume(note, signal))
    this.#notes.delete(vpg)
    return resumed ?? (await this.#open(vpg, signal, terms))
  }

  /** Where the store shows what was noted, and segments after it. */
  async #resume(stopNote: StopNote, signal: AbortSignal): Promise<Opened | undefined> {
    const { vpg } = stopNote
    const { store, clock, config, memos } = this.#tools
    const { applianceId } = config
    const note = decodeNote(stopNote, applianceId)
    const memo = memos?.get(vpg)
    // A memory that is behind the note may have made the index say less, at a start without the store.
    if (note === undefined || memo === undefined || memo.fenced !== undefined || !isNotBehind(memo, note))
      return undefined
    const identity = { store, clock, applianceId }
    const resumed = await VpgCommits.resume(identity, note.commits, signal).catch(notResumable)
    if (resumed === undefined || memo.commitNumber > resumed.commits.brief.state.commitNumber) return undefined
    const { commits, segments } = resumed
    const newest = note.newest === undefined ? [] : [note.newest]
    const checkpointPage = encodeCheckpoints([...newest, ...resumed.checkpoints].sort(byOrdinal))
    const indexedThrough = note.newest?.ordinal ?? (0 as Ordinal)
    return {
      aging: VpgAging.resting(this.#tools, commits, { ...note, allCommitted: leftNothing(memo, note, commits.brief) }),
      vpg: { ...openedOf({ segments, ...commits.brief }), checkpointPage, indexedThrough },
    }
  }

  async #open(vpg: VpgId, signal: AbortSignal, terms: AdoptionTerms): Promise<Opened | undefined> {
    const { memos, notify } = this.#tools
    try {
      const load = (): Promise<OpenedCommits> => this.#load(vpg, signal, terms)
      const opened = await load().catch((error: unknown) => {
        // Bytes may be damaged on their way: damage is believed when it is there again. And what a killed process had sent off may land while its VPG is
        // read; another owner is met again.
        const isPassing = failedWith(error, 'EPOCH_SUPERSEDED') && !terms.adopt
        if (!failedWith(error, 'OBJECT_CORRUPT') && !isPassing) throw error
        return load()
      })
      return opened.commits.isAwake ? this.#whole(opened) : this.#unread(opened)
    } catch (reason) {
      const isUnknown = failedWith(reason, 'NOT_FOUND') && memos?.get(vpg) === undefined
      const error = isUnknown ? await this.#removeRemains(vpg, signal) : reason
      if (error === undefined) return undefined
      if (!(error instanceof Failure) || error.reaction === 'cancelled' || mayPass(error)) throw error
      if (failedWith(error, 'IDENTITY_REFUSED') && memos?.get(vpg) !== undefined) this.#tellFenced(vpg, error)
      else notify('damageFound', { vpg, sentence: `VPG ${vpg} is left alone: ${error.message}` })
      return undefined
    }
  }

  async #load(vpg: VpgId, signal: AbortSignal, { adopt, refuse }: AdoptionTerms): Promise<OpenedCommits> {
    const { store, clock, config, memos, notify } = this.#tools
    const check = async (newest: NewestCommit): Promise<void> => {
      requireNotOlder(memos?.get(vpg), newest.commitNumber)
      await refuse(vpg, newest)
    }
    const terms = { adopt, wholeSizeBytesMax: this.#wholeSizeBytesMax, check }
    const opened = await VpgCommits.open({ store, clock, applianceId: config.applianceId }, vpg, terms, signal)
    const { takeover, commits } = opened
    const { name } = commits.brief.state.definition
    if (takeover !== undefined) notify('adopted', { vpg, name, epoch: takeover.epoch, from: takeover.from })
    return opened
  }

  #whole({ commits, folded }: OpenedCommits): Opened {
    const { contents } = commits
    const aging = VpgAging.awake(this.#tools, commits, folded)
    if (aging.isDeleted) return { aging, vpg: undefined }
    return {
      aging,
      vpg: {
        ...openedOf({ ...contents, segments: contents.state.segments }),
        checkpointPage: encodeCheckpoints([...folded, ...contents.recent]),
      },
    }
  }

  #unread({ commits, recent, newest }: OpenedCommits): Opened {
    const checkpoints = recent.length > 0 || newest === undefined ? recent : [newest]
    return {
      aging: VpgAging.unread(this.#tools, commits, newest),
      vpg: {
        ...openedOf({ ...commits.brief, segments: [] }),
        checkpointPage: encodeCheckpoints(checkpoints),
        isUnread: true,
      },
    }
  }

  /** Undefined when they are removed, or another appliance's; else why not. */
  async #removeRemains(vpg: VpgId, signal: AbortSignal): Promise<unknown> {
    const { store, config } = this.#tools
    return await removeRemains(store, vpg, config.applianceId, signal).then(
      () => undefined,
      (error: unknown) => error,
    )
  }

  /** It was this appliance's, and another one has taken it over since. */
  #tellFenced(vpg: VpgId, error: Failure): void {
    const { memos, notify } = this.#tools
    memos?.fence(vpg, error.message)
    notify('fenced', { vpg, sentence: error.message })
  }

  /** A VPG that was not deleted here, and that the store does not show any more. */
  #tellMissing(listed: ReadonlySet<VpgId>): void {
    const { memos, notify } = this.#tools
    for (const [vpg, memo] of memos?.all() ?? []) {
      if (listed.has(vpg) || memo.fenced !== undefined) continue
      const sentence =
        `the store does not show VPG "${memo.opened.definition.name}", of which this appliance has seen commit ` +
        `${memo.commitNumber}: is it the right one, and is it mounted? If the VPG was meant to go, remove ${memos?.file(vpg)}`
      notify('damageFound', { vpg, sentence })
    }
  }
}

const inTurn = 'it has its turn after the others, of which there are many'

function takenSince(vpg: VpgId, owner: string, applianceId: string): Failure {
  const sentence =
    `VPG ${vpg} was taken by the appliance ${owner} after this one was started with --adopt, and stays its own: to take it ` +
    'back, start this one with --adopt again.'
  return new Failure('IDENTITY_REFUSED', sentence, { vpg, owner, applianceId })
}

/**
 * Whether the process that left the note has left no more in the store than its newest commit names, nor a reader's pin. A memory that is behind the store
 * is of an older state, and so is one that is on a disk which was put back.
 */
function leftNothing({ commitNumber, allCommitted }: VpgMemo, { terms }: VpgNote, { state }: VpgBrief): boolean {
  const isOfNewest = allCommitted === true && commitNumber === state.commitNumber
  // Without terms nothing but the look would ever wake it.
  return isOfNewest && terms !== undefined && state.pins.every(pin => isPinOfRecord(state, pin))
}

function isNotBehind(memo: VpgMemo, { commits }: VpgNote): boolean {
  return memo.commitNumber >= commits.contents.state.commitNumber
}

/** What keeps only this VPG from being opened is met again, and told of, by who reads all of it. */
function notResumable(error: unknown): undefined {
  if (!(error instanceof Failure) || error.reaction === 'cancelled' || mayPass(error)) throw error
}

function byOrdinal(one: Checkpoint, other: Checkpoint): number {
  return one.ordinal - other.ordinal
}

/** An encrypted store does not show its keys to those who have the user's. */
async function requireOwnKeys(store: ObjectStore, signal: AbortSignal): Promise<void> {
  for await (const { key } of store.list('key/', undefined, signal)) {
    const sentence = `the store is encrypted ("${key}" is there), and the configuration has no store.clientEncryption: nothing is written to it`
    throw new Failure('CONFIG_INVALID', sentence, { key })
  }
}

export function openedOf({
  state,
  pendingMarkers,
  segmentsFrom: foldedThrough,
  segments,
}: VpgBrief & Pick<VpgContents['state'], 'segments'>): Omit<OpenedVpg, 'checkpoints'> {
  return {
    foldedThrough,
    pendingMarkers,
    definition: state.definition,
    epoch: state.epoch,
    offloaded: state.offloaded,
    historyEdge: state.historyEdge,
    tags: state.tags,
    recoveries: state.recoveries,
    ...(state.standby === undefined ? {} : { standby: state.standby }),
    holes: state.holes,
    segments,
  }
}
