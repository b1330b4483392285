import { Failure, failedWith } from '../base/failure.ts'
import { sequence, type Ordinal, type PositionVector, type VpgId } from '../base/ids.ts'
import { Permits } from '../base/permits.ts'
import { createOnce, type VpgBrief, type VpgCommits, type VpgContents } from '../manifest/manifest.ts'
import { liesWithin } from '../timeline/positions.ts'
import { historyEdge, holeOver, isCovered, keptOrdinals, retention, type HistoryPoint } from '../timeline/retention.ts'
import { objectKeys, unread } from '../timeline/reach.ts'
import { withVolumesGone } from '../timeline/removed-volumes.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { Hole, SegmentSpan, VpgState } from '../timeline/state.ts'
import type { ThinningPoint } from '../timeline/thinning.ts'
import type { Sleeper } from './awake-vpgs.ts'
import { CheckpointHistory, pointOf } from './checkpoint-history.ts'
import { MadeObjects } from './made-objects.ts'
import { MergingHalt } from './merging-halt.ts'
import type { SegmentCommit } from './sealing.ts'
import { StorePatience, type Patience } from './store-patience.ts'
import type { AgingTools } from './tools.ts'

/** So often something damaged is read before it is believed. */
const looksMax = 2
/** So long a segment's commit fails, where the store answers others, before that counts as its VPG's alone. */
const heldUpMillis = 30_000

/** Contents that are to be committed, and the keys of the objects that leave with them. */
export interface Change {
  readonly contents: VpgContents
  readonly leftKeys?: readonly string[]
  /** Checkpoints that a new delta holds. */
  readonly folded?: readonly Checkpoint[]
  /** Checkpoints that the history lets go although it reaches back to them. */
  readonly dropped?: readonly Ordinal[]
}

/** What is to happen with a trim. */
export interface Trim {
  readonly folded?: readonly Checkpoint[]
  readonly dropped?: readonly Ordinal[]
  /** Where the edge is moved beyond what the definition asks for, though never past the newest checkpoint that can be recovered. */
  readonly earlyEdge?: Ordinal | undefined
}

/** Changes and reads under the VPG's one permit: what `contents` says here nobody else is changing. */
export interface Exclusive {
  /** Only of a VPG that is awake. */
  readonly contents: VpgContents
  /** Fails BUSY, and is to be asked again when that is mended, where the manifest is damaged. */
  wake(): Promise<void>
  commitManifest(change: Change): Promise<void>
  commitSegment(segment: SegmentCommit): Promise<SegmentSpan>
}

/** Whose commits the writer makes. */
export interface Owner extends Sleeper {
  /** Its contents were never read but for the root. */
  readonly isUnread: boolean
  /** The contents were read; `folded` are the retained checkpoints that deltas hold. Nothing was changed since. */
  woken(folded: readonly Checkpoint[]): void
}

/** What is known at its opening. */
export interface OpenedHistory {
  /** Retained checkpoints that deltas hold; of a VPG that sleeps none. */
  readonly folded: readonly Checkpoint[]
  /** Where it is none of them. */
  readonly newest?: Checkpoint | undefined
  /** See MadeObjects.believe. */
  readonly allCommitted?: boolean
}

/**
 * The one writer of a VPG. Everything that commits takes its turn here, is tried until the store answers, and decides on the
 * contents that it finds in its turn: a tag that came while a fold was under way is there when the fold is committed.
 * A VPG that another appliance took over, or that is damaged, stops here by itself; the others go on.
 */
export class VpgWriter {
  readonly history = new CheckpointHistory()
  readonly made = new MadeObjects(() => this.#rememberOwned())
  readonly patience: StorePatience
  /** Held by whatever creates objects before the commit that names them: no other takes them for left behind. */
  readonly making = new Permits(1)
  readonly #tools: AgingTools
  readonly #commits: VpgCommits
  readonly #permit = new Permits(1)
  #halted: Failure | undefined
  readonly #mergingHalt: MergingHalt
  /** The newest checkpoint that is in the store. */
  #newest: Checkpoint | undefined
  /** Who needs the contents just now. */
  #userCount = 0
  readonly #owner: Owner
  #ownershipCheckedMillis: number
  #sealingSinceMillis: number | undefined

  constructor(tools: AgingTools, commits: VpgCommits, opened: OpenedHistory, owner: Owner) {
    const { folded, newest, allCommitted = false } = opened
    if (allCommitted) this.made.believe()
    this.#tools = tools
    this.#owner = owner
    this.#commits = commits
    this.#mergingHalt = new MergingHalt(tools.clock)
    this.history.add(folded)
    this.#newest = newest ?? folded.at(-1)
    this.#remember()
    this.#ownershipCheckedMillis = tools.clock.monotonicMillis()
    this.patience = new StorePatience(tools.clock, {
      failing: sentence => tools.notify('storeFailing', { vpg: this.vpg, sentence }),
      recovered: () => tools.notify('storeRecovered', { vpg: this.vpg }),
      answersOthers: sinceMillis => tools.answers.answersOthers(this.vpg, sinceMillis),
      stalled: () => tools.awake.standAside(owner),
    })
  }

  get vpg(): VpgId {
    return this.#commits.vpg
  }

  /** Only of a VPG that is awake: see awake(). */
  get contents(): VpgContents {
    return this.#commits.contents
  }

  get brief(): VpgBrief {
    return this.#commits.brief
  }

  get isAwake(): boolean {
    return this.#commits.isAwake
  }

  /** The newest checkpoint that is in the store, as far as was seen. */
  get newest(): Checkpoint | undefined {
    return this.#newest
  }

  /** True where nobody reads or changes anything. */
  get isIdle(): boolean {
    return this.#userCount === 0
  }

  /** False where somebody needs the contents, or a commit is in doubt. */
  get canSleep(): boolean {
    return this.isIdle && this.#commits.canSleep
  }

  sleep(): void {
    this.#commits.sleep()
    this.history.clear()
  }

  get commits(): VpgCommits {
    return this.#commits
  }

  /** Why nothing is written any more, or undefined. */
  get halted(): Failure | undefined {
    return this.#halted
  }

  /** Why nothing is merged, or undefined. What comes in goes to the store all the same. */
  get mergingHalted(): Failure | undefined {
    return this.#mergingHalt.failure
  }

  /** True where nothing is merged, and it is time to see whether that is mended. */
  get isMergingLookDue(): boolean {
    return this.#mergingHalt.isLookDue
  }

  /** What keeps it from being merged: sentences that name the objects. */
  get damageMet(): readonly string[] {
    return this.#mergingHalt.told
  }

  /** Somebody has read this object of the VPG, and it is whole. */
  foundWhole(key: string): void {
    this.#mergingHalt.foundWhole(key)
  }

  /** A look has found what keeps it from being merged damaged. */
  stillDamaged(): void {
    this.#mergingHalt.putOff()
  }

  /** What kept it from being merged is whole again, or nothing refers to it any more. */
  mergingGoesOn(): void {
    for (const what of this.damageMet) this.#tools.notify('damageMended', { vpg: this.vpg, what })
    this.#mergingHalt.end()
  }

  /** True where the store goes on failing for a segment of this VPG, and answers others. */
  get isSealingHeldUp(): boolean {
    const sinceMillis = this.#sealingSinceMillis
    if (sinceMillis === undefined || this.patience.failing === undefined) return false
    const isLong = this.#tools.clock.monotonicMillis() - sinceMillis >= heldUpMillis
    return isLong && this.#tools.answers.answersOthers(this.vpg, sinceMillis)
  }

  get lastCheckMillis(): number {
    return this.#ownershipCheckedMillis
  }

  /** Runs `work` in its turn, awake. What it fails with stops the VPG, unless it is a refusal or the thread is closing. */
  async exclusively<T>(work: (turn: Exclusive) => Promise<T>): Promise<T> {
    return await this.exclusivelyAsleep(async turn => {
      await turn.wake()
      return await work(turn)
    })
  }

  /** The same, asleep or awake; work that needs the contents wakes the VPG for the rest of its turn. */
  async exclusivelyAsleep<T>(work: (turn: Exclusive) => Promise<T>): Promise<T> {
    return await this.#inUse(() =>
      this.#permit.with(async () => {
        if (this.#halted !== undefined) throw this.#halted
        return await this.#guarded(() => work(this.#turn()))
      }),
    )
  }

  /** Runs `work`, during which the VPG does not sleep; other changes come in between. */
  async awake<T>(work: () => Promise<T>): Promise<T> {
    return await this.#inUse(async () => {
      if (!this.isAwake) await this.exclusively(async () => undefined)
      return await work()
    })
  }

  /** The same for work that others wait for: a manifest that the store goes on refusing is not waited for, as isRefusal() knows. */
  async awakeBriefly<T>(work: () => Promise<T>): Promise<T> {
    return await this.#inUse(async () => {
      if (!this.isAwake) await this.exclusivelyAsleep(() => this.#wake(this.patience.brief))
      return await work()
    })
  }

  async #inUse<T>(work: () => Promise<T>): Promise<T> {
    const before = this.#commits.brief
    this.#userCount++
    try {
      return await work()
    } finally {
      this.#userCount--
      if (this.isAwake && this.#commits.brief !== before) this.#tools.awake.used(this.#owner)
    }
  }

  /** What is damaged is believed when it is there again. It halts the merging, and ends whatever asked for the contents, not the sealing. */
  async #wake(patience: Patience): Promise<void> {
    if (this.isAwake) return
    const { awake, signal } = this.#tools
    // Nobody who waits for the store keeps others from being woken.
    const load = (): Promise<readonly Checkpoint[]> =>
      patience.attempt(each => awake.waking(() => this.#commits.wake(each)), signal)
    const twice = (): Promise<readonly Checkpoint[]> =>
      load().catch((error: unknown) => {
        if (!failedWith(error, 'OBJECT_CORRUPT')) throw error
        return load()
      })
    const folded = await twice().catch((error: unknown) => {
      if (!(error instanceof Failure) || error.reaction !== 'quarantine') throw error
      if (this.#mergingHalt.meet(error, { keepsAsleep: true })) {
        const listed = this.#owner.isUnread ? ' or, but for the newest, listed' : ''
        this.#tellDamage(error, `is not merged any further, and none of its checkpoints can be recovered${listed},`)
      }
      throw new Failure('BUSY', error.message, error.details, { cause: error })
    })
    this.#mergingHalt.woken()
    this.history.add(folded)
    this.#owner.woken(folded)
  }

  /** Stops the VPG for what says that it cannot go on: a takeover, or damage. Rethrows. */
  async #guarded<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      if (error instanceof Failure) this.#haltFor(error)
      throw error
    }
  }

  /**
   * Runs a merge, and again where it met damage: bytes may be damaged on their way. Undefined where it met it again. That halts the merging of
   * this VPG and no more: a VPG that were not sealed for it would keep the log's files until no VPG could write. `undo` takes back what a
   * merge has created that met damage: no commit refers to it.
   */
  async merging<T>(merge: () => Promise<T>, undo: () => Promise<void> = async () => undefined): Promise<T | undefined> {
    for (let look = 1; ; look++) {
      try {
        return await merge()
      } catch (error) {
        if (!(error instanceof Failure) || error.reaction !== 'quarantine' || this.#halted !== undefined) throw error
        await undo()
        if (look < looksMax) continue
        if (this.#mergingHalt.meet(error, { keepsAsleep: false })) this.#tellDamage(error, 'is not merged any further')
        return undefined
      }
    }
  }

  async checkOwnership(): Promise<void> {
    await this.exclusivelyAsleep(async () => {
      await this.patience.attempt(signal => this.#commits.checkOwnership(signal), this.#tools.signal)
      this.#ownershipCheckedMillis = this.#tools.clock.monotonicMillis()
    })
  }

  /** Creates an object that only we name; tried until the store answers, or goes on refusing it. */
  async createObject({ key, bytes }: { readonly key: string; readonly bytes: Uint8Array }): Promise<void> {
    const { store, signal } = this.#tools
    await this.patience.brief.attempt(each => createOnce(store, key, bytes, undefined, each), signal)
  }

  /** Removes objects that no commit refers to; tried until the store answers, or goes on refusing it: the next start finds what is left. */
  async removeObjects(keys: readonly string[]): Promise<void> {
    const { store, signal } = this.#tools
    for (const key of keys) await this.patience.brief.attempt(each => store.remove(key, each), signal)
  }

  /** The same of what a refused merge has made, each tried once, until one fails: who waits goes first. What the contents refer to stays. */
  async dropObjects(keys: readonly string[]): Promise<void> {
    const { store, signal } = this.#tools
    const live = new Set(objectKeys(this.contents.state))
    try {
      for (const key of keys) if (!live.has(key)) await store.remove(key, signal)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
    }
  }

  /** Every checkpoint that exists, ascending; that deltas hold, and after them. */
  points({ recent }: VpgContents): ThinningPoint[] {
    return [...this.history.points(), ...recent.map(pointOf)]
  }

  /** One of those. */
  holds({ recent }: VpgContents, at: Ordinal): boolean {
    return this.history.has(at) || recent.some(checkpoint => checkpoint.ordinal === at)
  }

  /** The contents with the history's edge where it belongs now, without the dropped checkpoints, and without what nobody reads any more. */
  trimmed(contents: VpgContents, { folded = [], dropped = [], earlyEdge = 0 as Ordinal }: Trim = {}): Required<Change> {
    const definition = withVolumesGone(contents.state.definition, contents.recent.at(-1) ?? folded.at(-1))
    const { holes } = contents.state
    const isDropped = new Set<number>(dropped)
    const points = [...this.history.points(), ...folded, ...contents.recent].filter(
      point => !isDropped.has(point.ordinal),
    )
    const due = historyEdge(points, definition.historyMillis, holes) ?? contents.state.historyEdge
    const newest = points.findLast(point => holeOver(holes, point.ordinal) === undefined)?.ordinal ?? (0 as Ordinal)
    const byPolicy = later(due, contents.state.historyEdge)
    const edge = later(byPolicy, earlyEdge < newest ? earlyEdge : newest)
    const state = {
      ...contents.state,
      definition,
      historyEdge: edge,
      agedEarly: this.#agedEarly(contents.state, { edge, byPolicy, points }),
    }
    state.holes = state.holes.filter(hole => !isHistory(hole, state.historyEdge, contents.segmentsFrom))
    const ordinals = points.map(point => point.ordinal)
    const { deltas, segments, regions, leftKeys } = unread(state, ordinals, contents.segmentsFrom)
    const isRetained = retention(state)
    const recent = contents.recent.filter(({ ordinal }) => isRetained(ordinal) && !isDropped.has(ordinal))
    const left = { ...contents, recent, state: { ...state, deltas, segments, regions } }
    return { contents: left, leftKeys, folded, dropped }
  }

  /** Since when the history is shorter than it should be; undefined when it is not, or not any more. */
  #agedEarly(
    { agedEarly, definition, holes }: VpgState,
    at: { readonly edge: Ordinal; readonly byPolicy: Ordinal; readonly points: readonly HistoryPoint[] },
  ): VpgState['agedEarly'] {
    if (agedEarly === undefined) {
      return at.edge > at.byPolicy ? { sinceMicros: this.#tools.clock.timestampMicros() } : undefined
    }
    const left = at.points.filter(point => point.ordinal >= at.edge)
    return isCovered(left, definition.historyMillis, holes) ? undefined : agedEarly
  }

  #turn(): Exclusive {
    const commits = this.#commits
    return {
      get contents() {
        return commits.contents
      },
      wake: () => this.#wake(this.patience),
      commitManifest: change => this.#commitManifest(change),
      commitSegment: segment => this.#commitSegment(segment),
    }
  }

  async #commitManifest({ contents, leftKeys, folded = [], dropped = [] }: Change): Promise<void> {
    const before = this.contents.state
    const pending = this.#commits.prepareManifest(contents, leftKeys ?? [])
    await this.patience.attempt(signal => this.#commits.commitManifest(pending, signal), this.#tools.signal)
    this.#ownershipCheckedMillis = this.#tools.clock.monotonicMillis()
    this.#remember()
    const { state } = this.contents
    this.history.add(folded)
    const isRetained = retention(state)
    const isDropped = new Set<number>(dropped)
    this.history.keep(ordinal => isRetained(ordinal) && !isDropped.has(ordinal))
    if (dropped.length > 0) this.#tools.notify('checkpointsThinned', { vpg: this.vpg, dropped })
    if (state.holes.length < before.holes.length)
      this.#tools.notify('holesChanged', { vpg: this.vpg, holes: state.holes })
    if (state.historyEdge !== before.historyEdge) {
      // What a hole had withdrawn, and nothing holds any more, is not kept, whatever tag it has.
      const isKept = (ordinal: Ordinal): boolean => ordinal < state.historyEdge && this.holds(this.contents, ordinal)
      const kept = keptOrdinals(state).filter(isKept)
      this.#tools.notify('historyEdgeMoved', { vpg: this.vpg, edge: state.historyEdge, kept })
    }
    if (state.agedEarly?.sinceMicros !== before.agedEarly?.sinceMicros) {
      const { journalLimitSizeBytes } = state.definition
      this.#tools.notify('historyCutShort', {
        vpg: this.vpg,
        isShort: state.agedEarly !== undefined,
        journalLimitSizeBytes,
      })
    }
  }

  async #commitSegment(segment: SegmentCommit): Promise<SegmentSpan> {
    const { segmentPermit, signal } = this.#tools
    const attempt = (each: AbortSignal): Promise<SegmentSpan> =>
      segmentPermit.with(() => this.#commits.commitSegment(segment, each))
    this.#sealingSinceMillis = this.#tools.clock.monotonicMillis()
    const span = await this.patience.attempt(attempt, signal).finally(() => (this.#sealingSinceMillis = undefined))
    this.#tools.requests.addRaw(this.vpg, span.rawSizeBytes)
    this.#remember()
    this.#ownershipCheckedMillis = this.#tools.clock.monotonicMillis()
    return span
  }

  /** Before anything is given up that the commit stands for. A VPG that has no commit yet is nothing to remember. */
  #remember(): void {
    const { memos } = this.#tools
    const { brief } = this
    this.#newest = brief.recent.at(-1) ?? this.#newest
    if (brief.deletedAtMicros !== undefined) memos?.forget(this.vpg)
    else if (brief.state.commitNumber > 0)
      memos?.keep(brief, { newest: this.#newest, allCommitted: this.made.isAllCommitted })
  }

  /** Another appliance's VPG is not said to be ours again. */
  #rememberOwned(): void {
    if (this.#halted?.reaction !== 'stand-down') this.#remember()
  }

  #haltFor(failure: Failure): void {
    if (this.#halted !== undefined) return
    if (failure.reaction === 'stand-down') {
      this.#halted = failure
      this.#tools.memos?.fence(this.vpg, failure.message)
      this.#tools.notify('fenced', { vpg: this.vpg, sentence: failure.message })
    } else if (failure.reaction === 'quarantine') {
      this.#halted = failure
      this.#tellDamage(failure, 'is not aged any further')
      this.#tools.notify('sealingStopped', { vpg: this.vpg, sentence: failure.message })
    }
  }

  #tellDamage(failure: Failure, consequence: string): void {
    const name = this.brief.state.definition.name
    const sentence = `${failure.message}; VPG "${name}" ${consequence} until that is mended`
    this.#tools.notify('damageFound', { vpg: this.vpg, sentence })
  }
}

function later(one: Ordinal, other: Ordinal): Ordinal {
  return one > other ? one : other
}

/** True of a hole that was repaired before the history begins and whose records no segment that counts holds any more. */
function isHistory(hole: Hole, edge: Ordinal, segmentsFrom: PositionVector): boolean {
  const { stream, generation, lastSequence, repairedFromOrdinal } = hole
  if (repairedFromOrdinal === undefined || repairedFromOrdinal > edge) return false
  return liesWithin(segmentsFrom, stream, { generation, sequence: sequence(lastSequence) })
}
