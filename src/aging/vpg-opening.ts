import { Failure, failedWith } from '../base/failure.ts'
import type { Ordinal, VpgId } from '../base/ids.ts'
import { Permits } from '../base/permits.ts'
import {
  encodeCheckpoints,
  listVpgs,
  removeRemains,
  VpgCommits,
  type VpgBrief,
  type VpgContents,
  type WriterIdentity,
} from '../manifest/manifest.ts'
import type { ObjectStore } from '../store/object-store.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { OpenedVpg, PackedVpg, StopNote } from './service.ts'
import { decodeNote, type VpgNote } from './stop-notes.ts'
import { mayPass } from './store-patience.ts'
import type { AgingTools } from './tools.ts'
import { VpgAging } from './vpg-aging.ts'
import { requireNotOlder, type VpgMemo } from './vpg-memos.ts'

/** So many of those that are noted are asked after at once: two small requests each. */
const resumedAtOnce = 32

/** Reads every VPG of the store once, however often the store fails on the way. */
export class VpgOpening {
  readonly #tools: AgingTools
  readonly #vpgs: Map<VpgId, VpgAging>
  /** Of VPGs that need no other look; undefined where there is nothing to serve. */
  readonly #settled = new Map<VpgId, PackedVpg | undefined>()

  /** Of VPGs that were not looked for yet. */
  readonly #notes: Map<VpgId, StopNote>
  #listedCount: number | undefined

  /** VPGs are put into `vpgs` as they are opened. */
  constructor(tools: AgingTools, vpgs: Map<VpgId, VpgAging>, notes: readonly StopNote[] = []) {
    this.#tools = tools
    this.#vpgs = vpgs
    // Who takes VPGs over looks at all of them.
    this.#notes = new Map(tools.config.adopt ? [] : notes.map(note => [note.vpg, note]))
  }

  /**
   * Those that this appliance owns; every other is told of and left alone. Fails for what may pass, to be called again: VPGs that
   * were opened are not read again.
   */
  async openAll(signal: AbortSignal): Promise<readonly PackedVpg[]> {
    await requireOwnKeys(this.#tools.store, signal)
    const listed = await listVpgs(this.#tools.store, signal)
    this.#listedCount = listed.length
    await this.#resumeAll(listed, signal)
    for (const vpg of listed) if (!this.#settled.has(vpg)) this.#settled.set(vpg, await this.#open(vpg, signal))
    this.#tellMissing(new Set(listed))
    return [...this.#settled.values()].filter(opened => opened !== undefined)
  }

  /** What there is of all that the store lists; undefined before that is known. */
  get progress(): string | undefined {
    const { size } = this.#settled
    return this.#listedCount === undefined
      ? undefined
      : `it has answered for ${size} of ${this.#listedCount} VPGs so far`
  }

  /** Those of which the store shows what was noted, and segments after it. Rejects when all others are there. */
  async #resumeAll(listed: readonly VpgId[], signal: AbortSignal): Promise<void> {
    const permits = new Permits(resumedAtOnce)
    const outcomes = await Promise.allSettled(
      listed.flatMap(vpg => {
        const note = this.#notes.get(vpg)
        return note === undefined ? [] : [permits.with(() => this.#resume(note, signal))]
      }),
    )
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason
  }

  async #resume(stopNote: StopNote, signal: AbortSignal): Promise<void> {
    const { vpg } = stopNote
    const { store, clock, config, memos } = this.#tools
    const { applianceId } = config
    const note = decodeNote(stopNote, applianceId)
    const memo = memos?.get(vpg)
    // A memory that is behind the note may have made the index say less, at a start without the store.
    if (note !== undefined && memo !== undefined && memo.fenced === undefined && isNotBehind(memo, note)) {
      const identity = { store, clock, applianceId }
      const resumed = await VpgCommits.resume(identity, note.commits, signal).catch(notResumable)
      if (resumed !== undefined && memo.commitNumber <= resumed.commits.brief.state.commitNumber) {
        const { commits, segments } = resumed
        this.#vpgs.set(vpg, VpgAging.resting(this.#tools, commits, note))
        const newest = note.newest === undefined ? [] : [note.newest]
        const checkpointPage = encodeCheckpoints([...newest, ...resumed.checkpoints].sort(byOrdinal))
        const indexedThrough = note.newest?.ordinal ?? (0 as Ordinal)
        this.#settled.set(vpg, { ...openedOf({ segments, ...commits.brief }), checkpointPage, indexedThrough })
      }
    }
    this.#notes.delete(vpg)
  }

  async #open(vpg: VpgId, signal: AbortSignal): Promise<PackedVpg | undefined> {
    const { store, clock, config, memos, notify } = this.#tools
    const { applianceId } = config
    try {
      const identity = { store, clock, applianceId }
      const load = (): ReturnType<typeof VpgCommits.load> =>
        config.adopt ? this.#adopt(identity, vpg, signal) : VpgCommits.load(identity, vpg, signal)
      const { commits, folded } = await load().catch((error: unknown) => {
        // Bytes may be damaged on their way: damage is believed when it is there again. And what a killed process had sent off may land while its VPG is
        // read; another owner is met again.
        const isPassing = failedWith(error, 'EPOCH_SUPERSEDED') && !config.adopt
        if (!failedWith(error, 'OBJECT_CORRUPT') && !isPassing) throw error
        return load()
      })
      const { contents } = commits
      requireNotOlder(memos?.get(vpg), contents.state.commitNumber)
      const aging = VpgAging.awake(this.#tools, commits, folded)
      this.#vpgs.set(vpg, aging)
      if (aging.isDeleted) return undefined
      return {
        ...openedOf({ ...contents, segments: contents.state.segments }),
        checkpointPage: encodeCheckpoints([...folded, ...contents.recent]),
      }
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

  /** Undefined when they are removed, or another appliance's; else why not. */
  async #removeRemains(vpg: VpgId, signal: AbortSignal): Promise<unknown> {
    const { store, config } = this.#tools
    return await removeRemains(store, vpg, config.applianceId, signal).then(
      () => undefined,
      (error: unknown) => error,
    )
  }

  async #adopt(identity: WriterIdentity, vpg: VpgId, signal: AbortSignal): ReturnType<typeof VpgCommits.load> {
    const { memos } = this.#tools
    const requireNewest = (commitNumber: number): void => requireNotOlder(memos?.get(vpg), commitNumber)
    const { takeover, ...opened } = await VpgCommits.adopt(identity, vpg, signal, requireNewest)
    if (takeover !== undefined) {
      const { name } = opened.commits.contents.state.definition
      this.#tools.notify('adopted', { vpg, name, epoch: takeover.epoch, from: takeover.from })
    }
    return opened
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
