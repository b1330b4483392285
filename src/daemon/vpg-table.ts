import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import type { Ordinal, StreamPosition, VpgId } from '../base/ids.ts'
import type { AgingNotices, OpenedVpg } from '../aging/service.ts'
import type { VolumeDefinition, VpgDefinition } from '../timeline/definition.ts'
import type { Hole, VpgState } from '../timeline/state.ts'
import { Meter } from './meter.ts'
import { StreamProgress } from './stream-progress.ts'

/** What the main thread keeps of a VPG: what people ask for often, and what has gone wrong. */
export class VpgEntry {
  definition: VpgDefinition
  readonly epoch: number
  readonly meter: Meter
  /** By stream. */
  readonly progress: StreamProgress
  tags: VpgState['tags']
  holes: readonly Hole[]
  historyEdge: Ordinal
  offloaded: readonly StreamPosition[]
  /** Sentences about damage found since the start; bounded. */
  readonly damage: string[] = []
  storeFailure: { readonly sentence: string; readonly sinceMicros: number } | undefined
  /** Another appliance owns it now: why, in words. */
  fenced: string | undefined
  /** Where the VPG was opened from its root, and its history not read yet: of the checkpoints up to this one the index has only the newest. */
  unreadThrough: Ordinal | undefined
  /** While the store does not give the VPG since the start: why, and what is here was remembered. */
  rememberedBecause: string | undefined
  /** While rows of it that the store or the log had are still on their way into the index, beside serving; for good where they did not get there. */
  isBeingIndexed = false

  constructor(opened: OpenedVpg, clock: Clock) {
    this.definition = opened.definition
    this.epoch = opened.epoch
    this.tags = opened.tags
    this.holes = opened.holes
    this.historyEdge = opened.historyEdge
    this.offloaded = opened.offloaded
    this.rememberedBecause = opened.rememberedBecause
    if (opened.isUnread === true) this.unreadThrough = newestOf(opened)
    this.meter = new Meter(clock)
    this.progress = new StreamProgress(clock)
  }

  /** What people decided, and what is offloaded, as the store has it. */
  refresh(opened: OpenedVpg): void {
    const { definition, tags, holes, historyEdge, offloaded, rememberedBecause } = opened
    Object.assign(this, { definition, tags, holes, historyEdge, offloaded, rememberedBecause })
    if (opened.isUnread === true) this.unreadThrough = newestOf(opened)
  }

  /** The holes that nothing has repaired: from the first of them on nothing new is offered. */
  get openHoles(): readonly Hole[] {
    return this.holes.filter(hole => hole.repairedFromOrdinal === undefined)
  }

  /** A volume of now, or one that was removed and may be in older checkpoints. Fails UNKNOWN_VOLUME. */
  volumeNamed(name: string): VolumeDefinition {
    const { volumes, removedVolumes, name: vpg } = this.definition
    const found = [...volumes, ...removedVolumes.toReversed()].find(volume => volume.name === name)
    if (found !== undefined) return found
    const names = volumes.map(volume => volume.name).join(', ')
    throw new Failure('UNKNOWN_VOLUME', `${vpg} has no volume "${name}"; it has ${names}`)
  }

  /** False where it is known already. */
  addDamage(sentence: string): boolean {
    return addTo(this.damage, sentence)
  }

  /** Of what names this. False where nothing does. */
  removeDamage(what: string): boolean {
    const left = this.damage.filter(sentence => !sentence.includes(what))
    return this.damage.splice(0, this.damage.length, ...left).length > left.length
  }

  tagsOf(ordinal: Ordinal): string[] {
    return this.tags.filter(tag => tag.ordinal === ordinal).map(tag => tag.name)
  }

  isRetained(ordinal: Ordinal): boolean {
    return ordinal >= this.historyEdge || this.tags.some(tag => tag.ordinal === ordinal)
  }
}

function newestOf({ checkpoints }: OpenedVpg): Ordinal {
  return checkpoints.at(-1)?.ordinal ?? (0 as Ordinal)
}

const damageKeptMax = 20

function addTo(sentences: string[], sentence: string): boolean {
  if (sentences.includes(sentence)) return false
  if (sentences.length < damageKeptMax) sentences.push(sentence)
  return true
}

/** The VPGs that this daemon serves. */
export class VpgTable {
  readonly #byId = new Map<VpgId, VpgEntry>()
  /** Damage of no VPG that is served: of one that could not be read at the start, or of bytes that nobody knows whose they were. */
  readonly damageElsewhere: string[] = []
  /** VPGs of which nothing can be sealed, and why: nothing is taken from their agents. */
  readonly sealingStopped = new Map<VpgId, string>()
  /** VPGs that the store has, and has not given since the start, and why. */
  readonly waiting = new Map<VpgId, string>()
  /** While the store has not answered since the start. */
  storeAway: AgingNotices['storeAway'] | undefined
  /** While what the store says, after a start without it, takes the place of what was remembered: see takeStore. */
  isTakingStore = false

  /** Fails BUSY where a change would be lost in what the store said before it. */
  requireChangeable(): void {
    if (!this.isTakingStore) return
    const sentence = 'the object store has just answered, and what it holds is being read: try again in a moment'
    throw new Failure('BUSY', sentence)
  }

  /** Those that wait and of which nothing was remembered, not even their names. */
  get unknownCount(): number {
    return [...this.waiting.keys()].filter(id => !this.#byId.has(id)).length
  }

  /**
   * Fails BUSY where a VPG may come that has the name of one that is made now: of two the newer is served, and the other, with its history, would be left
   * alone.
   */
  requireNamesKnown(): void {
    const count = this.unknownCount
    if (count === 0) return
    const sentence =
      `the object store has not given ${count} of its VPGs since the start, and nobody knows their names: \`vra status\` says which, and why. A ` +
      'VPG is created when they are here'
    throw new Failure('BUSY', sentence)
  }

  add(entry: VpgEntry): void {
    this.#byId.set(entry.definition.id, entry)
  }

  remove(id: VpgId): void {
    this.#byId.delete(id)
  }

  /** False where it is known already. */
  addDamage(id: VpgId | undefined, sentence: string): boolean {
    const entry = id === undefined ? undefined : this.#byId.get(id)
    return entry === undefined ? addTo(this.damageElsewhere, sentence) : entry.addDamage(sentence)
  }

  get(id: VpgId): VpgEntry | undefined {
    return this.#byId.get(id)
  }

  /** Fails UNKNOWN_VPG. */
  named(name: string): VpgEntry {
    const entry = this.all().find(candidate => candidate.definition.name === name)
    if (entry === undefined)
      throw new Failure('UNKNOWN_VPG', `there is no VPG "${name}" here; \`vra vpg list\` shows those that are`)
    return entry
  }

  has(name: string): boolean {
    return this.all().some(entry => entry.definition.name === name)
  }

  /** By name. */
  all(): VpgEntry[] {
    return [...this.#byId.values()].sort((a, b) => (a.definition.name < b.definition.name ? -1 : 1))
  }
}
