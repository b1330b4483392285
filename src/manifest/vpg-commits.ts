import { assert } from '../base/assert.ts'
import type { Clock } from '../base/clock.ts'
import { Failure, failedWith } from '../base/failure.ts'
import type { Ordinal, VpgId } from '../base/ids.ts'
import { segmentsBetweenManifestsMax, takeoverToldMillis } from '../base/limits.ts'
import { readSegmentFooter } from '../segment/segment.ts'
import type { ObjectStore } from '../store/object-store.ts'
import type { DurableMarker, CheckpointAssembler } from '../timeline/assembler.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { VpgDefinition } from '../timeline/definition.ts'
import { lastDeltaEnd } from '../timeline/deltas.ts'
import { isPinOfRecord } from '../timeline/standby.ts'
import type { ObjectRef, SegmentSpan, VpgState } from '../timeline/state.ts'
import { CommitSequence, newNonce, readNonce, type PendingCommit } from './commits.ts'
import type { Takeover, VpgContents } from './contents.ts'
import { commitKey, newObjectKey, registryKey, takenKey, type ObjectKind } from './keys.ts'
import { assemblerOf, loadForServing, loadVpg, requireOwner, withSegment, type LoadedVpg } from './load.ts'
import { listCommits, newestRoot } from './read.ts'
import { encodeCheckpointPage, encodeManifest, noPages, type EncodedManifest, type PageSet } from './pages.ts'
import { encodeSealed } from './sealed-object.ts'

// The writing side of one VPG's commit sequence. Every operation is prepared once and then attempted until it counts; a
// crash between two attempts leaves either the contents before it or those after it, and objects that nothing refers to.

/** A manifest that is about to be committed. */
export interface PendingManifest extends PendingCommit {
  readonly encoded: EncodedManifest
}

/** A segment that is about to be committed; `finish` tells what was encoded last. */
export interface PendingSegment extends PendingCommit {
  readonly finish: () => { readonly span: Omit<SegmentSpan, 'object'>; readonly markers: readonly DurableMarker[] }
}

export interface WriterIdentity {
  readonly store: ObjectStore
  readonly clock: Clock
  readonly applianceId: string
}

/** What stays in memory of a VPG that sleeps: it does not grow with the history. */
export interface VpgBrief extends Pick<VpgContents, 'pendingMarkers' | 'segmentsFrom' | 'deletedAtMicros'> {
  readonly state: Pick<
    VpgState,
    | 'definition'
    | 'epoch'
    | 'commitNumber'
    | 'offloaded'
    | 'historyEdge'
    | 'agedEarly'
    | 'tags'
    | 'pins'
    | 'recoveries'
    | 'standby'
    | 'holes'
  >
  /** The last of them is the newest that is in the store; a VPG that sleeps has no other. */
  readonly recent: readonly Checkpoint[]
}

/** What is left of a VPG's commits when a process ends, for the next to go on from without reading them: plain data. */
export interface CommitsAtRest {
  /** Of the newest commit: no other object has it. */
  readonly nonce: string
  readonly manifestNumber: number
  readonly rootSizeBytes: number
  /** Without what grows with the history. */
  readonly contents: VpgContents
}

/** A VPG as it was opened. */
export interface OpenedCommits {
  /** Asleep where only what serves the VPG was read. */
  readonly commits: VpgCommits
  /** The retained checkpoints that deltas hold; none where the VPG is asleep. */
  readonly folded: readonly Checkpoint[]
  /** Complete checkpoints after the last delta's end. */
  readonly recent: readonly Checkpoint[]
  readonly newest: Checkpoint | undefined
  /** Where it was another appliance's until now. */
  readonly takeover?: Takeover
}

export interface OpeningTerms {
  /** Whether a VPG of another appliance is taken over. */
  readonly adopt: boolean
  /** A manifest with pages of more bytes, and for 0 any, is not read but for its root and what serves the VPG. */
  readonly wholeSizeBytesMax: number
  /** What it fails with of the newest commit ends it before anything is committed. */
  readonly check: (newest: NewestCommit) => Promise<void>
}

/** What the store shows of a VPG before it is opened. */
export interface NewestCommit {
  readonly commitNumber: number
  readonly epoch: number
  /** The appliance that the VPG belongs to. */
  readonly owner: string
  /** When it took the VPG over, by its own clock; undefined where nobody ever did. */
  readonly takenAtMicros: number | undefined
}

/** What a process goes on from. */
export interface ResumedCommits {
  readonly commits: VpgCommits
  /** Committed after what was left. */
  readonly segments: readonly SegmentSpan[]
  /** Complete with these segments. */
  readonly checkpoints: readonly Checkpoint[]
}

/** What was committed while the VPG slept. */
export interface SinceAsleep {
  readonly segmentCount: number
  readonly sizeBytes: number
  /** Of these, footers. */
  readonly indexSizeBytes: number
  readonly rawSizeBytes: number
  readonly checkpointCount: number
}

const nothingSince: SinceAsleep = {
  segmentCount: 0,
  sizeBytes: 0,
  indexSizeBytes: 0,
  rawSizeBytes: 0,
  checkpointCount: 0,
}

export class VpgCommits {
  readonly vpg: VpgId
  readonly #identity: WriterIdentity
  readonly #sequence: CommitSequence
  #assembler: CheckpointAssembler
  /** While the VPG sleeps, what is left of them. */
  #contents: VpgContents
  #since: SinceAsleep | undefined
  #pageSet: PageSet
  #manifestNumber: number | undefined
  #rootSizeBytes: number

  private constructor(
    identity: WriterIdentity,
    at: {
      readonly contents: VpgContents
      readonly commitNumber: number
      readonly manifestNumber: number | undefined
      readonly rootSizeBytes: number
      readonly pageSet: PageSet
      readonly nonce: string | undefined
      readonly isAwake: boolean
    },
  ) {
    this.vpg = at.contents.state.definition.id
    this.#identity = identity
    this.#contents = at.contents
    this.#pageSet = at.pageSet
    this.#manifestNumber = at.manifestNumber
    this.#rootSizeBytes = at.rootSizeBytes
    this.#sequence = new CommitSequence(identity.store, this.vpg, at.commitNumber, at.nonce)
    this.#since = at.isAwake ? undefined : nothingSince
    this.#assembler = assemblerOf(at.contents)
  }

  /** Opens what the store has, whole; fails as loadVpg does. */
  static async load(identity: WriterIdentity, vpg: VpgId, signal: AbortSignal): Promise<OpenedCommits> {
    return await VpgCommits.open(identity, vpg, { ...wholeTerms, adopt: false }, signal)
  }

  /** Opens what the store has, whole, whoever owns it; fails as open does. */
  static async adopt(identity: WriterIdentity, vpg: VpgId, signal: AbortSignal): Promise<OpenedCommits> {
    return await VpgCommits.open(identity, vpg, { ...wholeTerms, adopt: true }, signal)
  }

  /**
   * Opens what the store has; fails as loadVpg does. With `adopt` whoever owns the VPG: on return this appliance does, in an epoch of its own, and a
   * commit of the former owner counts no more. Where it is ours already, nothing is committed. OBJECT_CORRUPT also where the store's listing lies.
   */
  static async open(
    identity: WriterIdentity,
    vpg: VpgId,
    { adopt, wholeSizeBytesMax, check }: OpeningTerms,
    signal: AbortSignal,
  ): Promise<OpenedCommits> {
    let refused = 0
    for (let attempt = 1; ; attempt++) {
      const loaded = await loadForServing(identity.store, vpg, wholeSizeBytesMax, signal)
      const commits = await VpgCommits.#of(identity, loaded, signal)
      const { state } = commits.contents
      if (!adopt) requireOwner(loaded, identity.applianceId)
      const owner = loaded.manifest.root.header.applianceId
      const takenAtMicros = commits.contents.takeovers?.at(-1)?.atMicros
      await check({ commitNumber: state.commitNumber, epoch: state.epoch, owner, takenAtMicros })
      if (owner === identity.applianceId) return commits.#opened(loaded)
      if (state.commitNumber < refused) throw listingLies(vpg, refused, state.commitNumber)
      try {
        const { contents, takeover } = takenOver(commits.contents, owner, identity.clock.timestampMicros())
        await announce(identity, takeover, vpg, signal)
        const { takeovers } = commits.contents
        await commits.commitManifest(commits.prepareManifest(contents, []), signal)
        await forgetTold(identity, { vpg, takeover, before: takeovers ?? [] }, signal)
        return { ...commits.#opened(loaded), takeover }
      } catch (error) {
        // The former owner is alive and was a moment faster: its commit is part of what is taken over.
        if (!failedWith(error, 'EPOCH_SUPERSEDED') || attempt === adoptAttemptsMax) throw error
        refused = Number(error.details['commitNumber'])
      }
    }
  }

  /** What was opened from its root is asleep: its contents are only part of what there is. */
  #opened({ isWhole, folded, newest }: LoadedVpg): OpenedCommits {
    const { recent } = this.#contents
    if (!isWhole) this.sleep()
    return { commits: this, folded, recent, newest }
  }

  /**
   * Goes on from what a former process left, asleep, and from the segments that were committed after that. Undefined where that is not what the store
   * shows: the commit is another one, or not there any more, or there is another after it than segments, or one of these cannot be read. What the commit
   * says has been read by who left it, and what it refers to is read on waking.
   */
  static async resume(
    identity: WriterIdentity,
    { nonce, contents, ...at }: CommitsAtRest,
    signal: AbortSignal,
  ): Promise<ResumedCommits | undefined> {
    const { commitNumber, definition } = contents.state
    const { store } = identity
    const own = commitKey(definition.id, commitNumber)
    const after = await listCommits(store, definition.id, own, signal)
    if (after.some((each, index) => each.commitNumber !== commitNumber + 1 + index)) return undefined
    if ((await readNonce(store, own, signal)) !== nonce) return undefined
    if ((await newestRoot(store, after, signal)) !== undefined) return undefined
    const newest = after.at(-1)
    const commits = new VpgCommits(identity, {
      ...{ ...at, contents, pageSet: noPages, isAwake: false },
      commitNumber: newest?.commitNumber ?? commitNumber,
      nonce: newest === undefined ? nonce : await readNonce(store, newest.key, signal),
    })
    const segments: SegmentSpan[] = []
    const checkpoints: Checkpoint[] = []
    for (const { key, sizeBytes, ...each } of after) {
      const footer = await readSegmentFooter(store, key, sizeBytes, signal).catch((error: unknown) => {
        if (error instanceof Failure && (error.reaction === 'quarantine' || error.code === 'NOT_FOUND'))
          return undefined
        throw error
      })
      if (footer === undefined) return undefined
      const segment = { ...footer.span, commitNumber: each.commitNumber }
      checkpoints.push(...commits.#append(segment, footer.markers))
      segments.push(segment)
    }
    return { commits, segments, checkpoints }
  }

  static async #of(
    identity: WriterIdentity,
    { contents, manifest }: LoadedVpg,
    signal: AbortSignal,
  ): Promise<VpgCommits> {
    const newest = manifest.after.at(-1)
    const nonce =
      newest === undefined ? manifest.root.header.nonce : await readNonce(identity.store, newest.key, signal)
    return new VpgCommits(identity, {
      contents,
      commitNumber: contents.state.commitNumber,
      manifestNumber: manifest.rootObject.commitNumber,
      rootSizeBytes: manifest.rootObject.sizeBytes,
      pageSet: manifest.pageSet,
      nonce,
      isAwake: true,
    })
  }

  /**
   * A VPG that the store does not know. The registry object comes first, so that whatever is created for the VPG can be found
   * again; without a manifest it is removed at the next start. The VPG exists when its first manifest is committed.
   */
  static async create(identity: WriterIdentity, definition: VpgDefinition, signal: AbortSignal): Promise<VpgCommits> {
    const nonce = definition.id // so that creating it again after a lost reply finds its own
    const header = { vpg: definition.id, commitNumber: 0, epoch: 1, nonce, applianceId: identity.applianceId }
    const registry = encodeSealed({ ...header, kind: 'registry' }, Buffer.from(JSON.stringify(definition)))
    await createOnce(identity.store, registryKey(definition.id), registry, nonce, signal)
    return new VpgCommits(identity, {
      contents: emptyContents(definition),
      commitNumber: 0,
      manifestNumber: undefined,
      rootSizeBytes: 0,
      pageSet: noPages,
      nonce: undefined,
      isAwake: true,
    })
  }

  get contents(): VpgContents {
    assert(this.isAwake, 'the contents of a VPG that sleeps are in the store alone')
    return this.#contents
  }

  /** Of a VPG that sleeps, too. */
  get brief(): VpgBrief {
    return this.#contents
  }

  /** See lastDeltaEnd. Of a VPG that sleeps, too. */
  get lastDeltaEnd(): Ordinal {
    return lastDeltaEnd(this.#contents.state)
  }

  get isAwake(): boolean {
    return this.#since === undefined
  }

  /** What was committed since the VPG sleeps. */
  get sinceAsleep(): SinceAsleep {
    return this.#since ?? nothingSince
  }

  /** False while a commit is in doubt, and before the first. */
  get canSleep(): boolean {
    return this.isAwake && !this.#sequence.isInDoubt && this.#sequence.number > 0
  }

  /** Undefined while a commit is in doubt, and before the first manifest. */
  get atRest(): CommitsAtRest | undefined {
    const { nonce, isInDoubt } = this.#sequence
    const manifestNumber = this.#manifestNumber
    if (isInDoubt || nonce === undefined || manifestNumber === undefined) return undefined
    return { nonce, manifestNumber, rootSizeBytes: this.#rootSizeBytes, contents: restOf(this.#contents) }
  }

  /** Lets go of the contents: all of them are in the store. Segments can be committed all the same. */
  sleep(): void {
    assert(this.canSleep, 'what sleeps has no commit in doubt')
    this.#contents = restOf(this.#contents)
    this.#pageSet = noPages
    this.#since = nothingSince
  }

  /**
   * Reads the contents again, and returns the retained checkpoints that deltas hold. Fails as loadVpg does, and EPOCH_SUPERSEDED where another
   * writer has gone on from here meanwhile.
   */
  async wake(signal: AbortSignal): Promise<readonly Checkpoint[]> {
    assert(!this.isAwake && !this.#sequence.isInDoubt, 'who wakes has slept')
    const { store, applianceId } = this.#identity
    const loaded = await loadVpg(store, this.vpg, applianceId, signal).catch(async (error: unknown) => {
      // Of another writer's commits nothing need be readable: that there are any says enough.
      if (error instanceof Failure && error.reaction !== 'retry') await this.#sequence.checkOwnership(signal)
      throw error
    })
    const { contents, folded, manifest } = loaded
    const found = contents.state.commitNumber
    if (found > this.#sequence.number) await this.#sequence.checkOwnership(signal)
    if (found !== this.#sequence.number) throw listingLies(this.vpg, this.#sequence.number, found)
    this.#contents = contents
    this.#assembler = assemblerOf(contents)
    this.#pageSet = manifest.pageSet
    this.#manifestNumber = manifest.rootObject.commitNumber
    this.#rootSizeBytes = manifest.rootObject.sizeBytes
    this.#since = undefined
    return folded
  }

  /** True when the next commit should be a manifest: a start reads every segment's footer after the newest. */
  get manifestIsDue(): boolean {
    return this.#sequence.number - (this.#manifestNumber ?? 0) >= segmentsBetweenManifestsMax
  }

  /** Bytes of the newest manifest with the checkpoint pages that it refers to: about what the contents take in memory. */
  get manifestSizeBytes(): number {
    const pages = this.#contents.state.deltas.reduce((sum, { checkpoints }) => sum + checkpoints.sizeBytes, 0)
    return this.manifestObjects().reduce((sum, { sizeBytes }) => sum + sizeBytes, pages)
  }

  /** Keys of the newest manifest itself: its root and its pages. */
  manifestKeys(): string[] {
    return this.manifestObjects().map(({ key }) => key)
  }

  /** The newest manifest itself: its root and its pages. */
  manifestObjects(): ObjectRef[] {
    const pages = [...this.#pageSet.written.values(), ...this.#pageSet.indexes].map(page => page.place.page)
    if (this.#manifestNumber === undefined) return pages
    return [{ key: commitKey(this.vpg, this.#manifestNumber), sizeBytes: this.#rootSizeBytes }, ...pages]
  }

  newKey(kind: ObjectKind): string {
    return newObjectKey(this.vpg, kind, this.#contents.state.epoch)
  }

  /** A page with these checkpoints, for a delta to refer to; it is to be created before the delta is committed. */
  checkpointPage(checkpoints: readonly Checkpoint[]): { readonly key: string; readonly bytes: Uint8Array } {
    const { epoch } = this.#contents.state
    return encodeCheckpointPage({ vpg: this.vpg, epoch, applianceId: this.#identity.applianceId }, checkpoints)
  }

  /** Puts together the manifest that says `contents`. `leftKeys` are the objects that leave with it. */
  prepareManifest(contents: VpgContents, leftKeys: readonly string[]): PendingManifest {
    assert(this.isAwake, 'a manifest says all that there is')
    const { applianceId, clock } = this.#identity
    const former = this.#manifestNumber === undefined ? [] : [commitKey(this.vpg, this.#manifestNumber)]
    const identity = { applianceId, nowMicros: clock.timestampMicros() }
    const encoded = encodeManifest(contents, this.#pageSet, [...leftKeys, ...former], identity)
    const nonce = newNonce()
    return { nonce, encoded, encode: async commitNumber => encoded.root(commitNumber, nonce) }
  }

  /** One attempt, see CommitSequence.attempt. On return the contents are those of the manifest. */
  async commitManifest(pending: PendingManifest, signal: AbortSignal): Promise<VpgContents> {
    for (const { key, bytes } of pending.encoded.pages) {
      await createOnce(this.#identity.store, key, bytes, undefined, signal)
    }
    const commitNumber = await this.#sequence.attempt(pending, signal)
    const { contents, pageSet } = pending.encoded
    // Markers that the manifest does not know any more must complete nothing.
    if (contents.pendingMarkers !== this.#contents.pendingMarkers) this.#assembler = assemblerOf(contents)
    this.#contents = { ...contents, state: { ...contents.state, commitNumber } }
    this.#pageSet = pageSet
    this.#manifestNumber = commitNumber
    this.#rootSizeBytes = pending.encoded.rootSizeBytes
    return this.#contents
  }

  /** One attempt. On return the segment is part of the contents and its records are offloaded. */
  async commitSegment(pending: PendingSegment, signal: AbortSignal): Promise<SegmentSpan> {
    const commitNumber = await this.#sequence.attempt(pending, signal)
    const { span, markers } = pending.finish()
    assert(span.commitNumber === commitNumber, 'a segment knows its number')
    const sizeBytes = span.footerOffsetBytes + span.footerSizeBytes
    const segment = { ...span, object: { key: commitKey(this.vpg, commitNumber), sizeBytes } }
    this.#append(segment, markers)
    return segment
  }

  /** It is committed. Returns the checkpoints that are complete with it. */
  #append(segment: SegmentSpan, markers: readonly DurableMarker[]): Checkpoint[] {
    const known = new Set(this.#contents.recent.map(({ ordinal }) => ordinal))
    this.#contents = withSegment(this.#contents, this.#assembler, segment, markers)
    const added = this.#contents.recent.filter(({ ordinal }) => !known.has(ordinal))
    if (this.#since === undefined) return added
    const { segmentCount, indexSizeBytes, rawSizeBytes, checkpointCount } = this.#since
    this.#since = {
      segmentCount: segmentCount + 1,
      sizeBytes: this.#since.sizeBytes + segment.object.sizeBytes,
      indexSizeBytes: indexSizeBytes + segment.footerSizeBytes,
      rawSizeBytes: rawSizeBytes + segment.rawSizeBytes,
      checkpointCount: checkpointCount + added.length,
    }
    this.#contents = restOf(this.#contents)
    return added
  }

  /** See CommitSequence.checkOwnership. */
  async checkOwnership(signal: AbortSignal): Promise<void> {
    await this.#sequence.checkOwnership(signal)
  }
}

/** Creates an object whose name is ours alone. That it exists already means that an earlier attempt succeeded. */
export async function createOnce(
  store: ObjectStore,
  key: string,
  bytes: Uint8Array,
  nonce: string | undefined,
  signal: AbortSignal,
): Promise<void> {
  try {
    await store.create(key, bytes, signal)
  } catch (error) {
    if (!failedWith(error, 'ALREADY_EXISTS')) throw error
    if (nonce === undefined) return
    const found = await store.readRange(key, { startBytes: 40, endBytes: 56 }, signal)
    if (Buffer.from(found).toString('hex') === nonce) return
    throw new Failure('ALREADY_EXISTS', `${key} exists already`, { key }, { cause: error })
  }
}

const wholeTerms: Omit<OpeningTerms, 'adopt'> = { wholeSizeBytesMax: Infinity, check: async () => undefined }

/** As often the former owner may commit while the VPG is taken from it. */
const adoptAttemptsMax = 20
const takeoversKeptMax = 16

/** Pins were of the former owner's readers, but for those of records: what a person decided goes on with whoever owns the VPG. */
function takenOver(
  contents: VpgContents,
  from: string,
  atMicros: number,
): { readonly contents: VpgContents; readonly takeover: Takeover } {
  const { state, takeovers = [] } = contents
  const epoch = state.epoch + 1
  const takeover = { epoch, from, atMicros, ends: state.offloaded }
  const kept = [...takeovers, takeover].slice(-takeoversKeptMax)
  const pins = state.pins.filter(pin => isPinOfRecord(state, pin))
  return { contents: { ...contents, state: { ...state, epoch, pins }, takeovers: kept }, takeover }
}

/** Before the takeover: the former owner, which looks for this and asks seldom after each of its VPGs, asks after this one often from then on. */
async function announce(
  { store, applianceId }: WriterIdentity,
  { from, epoch, atMicros }: Takeover,
  vpg: VpgId,
  signal: AbortSignal,
): Promise<void> {
  const body = Buffer.from(JSON.stringify({ vpg, epoch, from, by: applianceId, atMicros }))
  await createOnce(store, takenKey(from, vpg, epoch), body, undefined, signal)
}

/**
 * Removes the announcements of takeovers that nobody need hear of any more: one from the same appliance is told by the newer one, and whoever has
 * slept for very long asks after each of its VPGs within the hour, or is told by its next commit. What the store does not remove is in nobody's way.
 */
async function forgetTold(
  { store }: WriterIdentity,
  told: { readonly vpg: VpgId; readonly takeover: Takeover; readonly before: readonly Takeover[] },
  signal: AbortSignal,
): Promise<void> {
  const { vpg, takeover, before } = told
  const isOver = ({ from, atMicros }: Takeover, index: number): boolean =>
    from === takeover.from ||
    takeover.atMicros - atMicros > takeoverToldMillis * 1000 ||
    index <= before.length - takeoversKeptMax
  const over = before.filter(isOver)
  try {
    for (const { from, epoch } of over) await store.remove(takenKey(from, vpg, epoch), signal)
  } catch (error) {
    if (!(error instanceof Failure) || signal.aborted) throw error
  }
}

/** The announcements of these takeovers. */
export function takenKeys(vpg: VpgId, takeovers: readonly Takeover[] = []): string[] {
  return takeovers.map(({ from, epoch }) => takenKey(from, vpg, epoch))
}

function listingLies(vpg: VpgId, existing: number, listed: number): Failure {
  const sentence =
    `commit ${existing} of VPG ${vpg} exists, and the store lists none above ${listed}: its listing lies, so nobody can tell ` +
    'who owns the VPG. `vra store check` says more.'
  return new Failure('OBJECT_CORRUPT', sentence, { vpg, key: commitKey(vpg, existing) })
}

/** Contents without what grows with the history; what is left still says where the last delta ends. */
function restOf(contents: VpgContents): VpgContents {
  const { state, recent } = contents
  const deltas = state.deltas.slice(-1).map(delta => ({ ...delta, packs: [] }))
  return {
    ...contents,
    state: { ...state, deltas, regions: [], segments: [], garbage: [] },
    recent: recent.slice(-1),
  }
}

function emptyContents(definition: VpgDefinition): VpgContents {
  return {
    state: {
      definition,
      epoch: 1,
      commitNumber: 0,
      deltas: [],
      segments: [],
      regions: [],
      offloaded: [],
      historyEdge: 0 as VpgContents['state']['historyEdge'],
      tags: [],
      pins: [],
      recoveries: [],
      holes: [],
      garbage: [],
    },
    recent: [],
    pendingMarkers: [],
    segmentsFrom: [],
    deletedAtMicros: undefined,
  }
}
