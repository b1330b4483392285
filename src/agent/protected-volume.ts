import type { Clock } from '../base/clock.ts'
import type { Position } from '../base/ids.ts'
import type { VolumeFile } from '../disk/disk.ts'
import type { MarkerVolume, SyncKind } from '../wire/wire.ts'
import { Bitmap } from './bitmap.ts'
import type { DirtyMap, WriteMark } from './dirty-map.ts'
import type { NumberingGate } from './numbering-gate.ts'
import type { OpenSync, VolumeState } from './state.ts'
import { SyncProgress } from './sync/progress.ts'
import { Volume, type SectorChange, type VolumeTap } from './volume.ts'

/** What a volume tells the agent that it belongs to. Synchronous. */
export interface VolumeOwner {
  readonly clock: Clock
  readonly gate: NumberingGate
  /** True: guests may only read. */
  isQuiesced(): boolean
  /** Durable on return: the volume may have changed since the agent was started. Throws where it cannot be written down. */
  noteWritten(volume: ProtectedVolume): void
  /** Durable on return. Throws where it cannot be written down. */
  saveVolume(volume: ProtectedVolume): void
  /** Gives the changes their numbers, while the volume's stream is exact. */
  number(volume: ProtectedVolume, changes: readonly SectorChange[]): void
  /** It has a synchronisation now, which it had not before. */
  syncOpened(volume: ProtectedVolume): void
}

export interface VolumeParts {
  readonly path: string
  readonly file: VolumeFile
  readonly map: DirtyMap
  readonly state: VolumeState
}

const orderOfKinds: readonly SyncKind[] = ['none', 'bitmap', 'delta', 'full', 'initial']

/** One disk of the guest, with all that the agent knows of how far the VRA has it. */
export class ProtectedVolume implements VolumeTap {
  readonly name: string
  readonly path: string
  readonly file: VolumeFile
  readonly map: DirtyMap
  /** What guests use. */
  readonly disk: Volume
  /** Regions that have held nothing since the disk was made: they need not be read. */
  readonly untouched: Bitmap
  readonly progress: SyncProgress
  /**
   * Where in an exact stream its synchronisation was opened, or it was served again: markers up to there may include it, and what the VRA had of it
   * before says nothing of the disk. Undefined where the stream was not exact.
   */
  syncPosition: Position | undefined
  /**
   * Where the stream went on from when the agent was started: markers in the queue are as its synchronisation of then allows, but the disk may have
   * changed since, back to what the VRA had before the queue as well.
   */
  startPosition: Position | undefined
  /** Why the VRA does not take it, a sentence, by its last Welcome: its writes are marked, and it is in no checkpoint. */
  refusal: string | undefined
  /** Why its synchronisation is to wait, a sentence: the VRA has said so, or has not said yet how it is to go. */
  heldBecause: string | undefined
  /** The VRA has an image of it, by its own word in this session. */
  isPreseeded = false
  readonly #owner: VolumeOwner
  #state: VolumeState

  constructor({ path, file, map, state }: VolumeParts, owner: VolumeOwner) {
    this.name = state.name
    this.path = path
    this.file = file
    this.map = map
    this.#state = state
    this.#owner = owner
    this.progress = new SyncProgress(owner.clock)
    this.disk = new Volume(state.name, file, path, this, owner.gate)
    this.untouched = new Bitmap(map.regionCount)
    if (file.isOneHole) for (let region = 0; region < map.regionCount; region++) this.untouched.add(region)
  }

  get sizeBytes(): number {
    return this.file.sizeBytes
  }
  get number(): number | undefined {
    return this.#state.number
  }
  get sync(): OpenSync | undefined {
    return this.#state.sync
  }
  get syncKind(): SyncKind {
    return this.#state.sync?.kind ?? 'none'
  }
  /** Only what differs from what the VRA has needs to go. */
  get compares(): boolean {
    return this.syncKind === 'delta' || (this.syncKind === 'initial' && this.isPreseeded)
  }
  get state(): VolumeState {
    return this.#state
  }

  /** As the VRA calls it from now on; saved by the caller. */
  setNumber(number: number): void {
    this.#state = { ...this.#state, number }
  }

  forgetNumber(): void {
    const { number: _other, ...state } = this.#state
    this.#state = state
  }

  /**
   * For a stop in order, before it is written down: the disk is synced, and its map says what is pending. Where it cannot, the next start compares
   * the whole disk.
   */
  async prepareStop(): Promise<void> {
    await this.disk.sync().catch(() => undefined) // the volume is marked so
    await this.map.writeDown().catch((error: unknown) => {
      this.#state = { ...this.#state, unmapped: unmappedBecause(error) }
      this.map.giveUp()
    })
  }

  /** For a stop in order: the disk as it is now. */
  stateAtStop(): VolumeState {
    this.#state = { ...this.#state, identity: this.file.identity() }
    return this.#state
  }

  /** Opens a synchronisation, or makes the one that is open one of more blocks. The caller sees to what is pending. */
  openSync(kind: OpenSync['kind'], reason: string): void {
    const open = this.#state.sync
    if (open !== undefined && orderOfKinds.indexOf(open.kind) >= orderOfKinds.indexOf(kind)) return
    const sinceTimestampMicros = open?.sinceTimestampMicros ?? this.#owner.clock.timestampMicros()
    this.#state = { ...this.#state, sync: { kind, reason, sinceTimestampMicros } }
    this.progress.begin()
    this.#owner.syncOpened(this)
  }

  /** What was to be sent for the first time is compared with what the VRA has. */
  compareInstead(reason: string): void {
    const sinceTimestampMicros = this.#owner.clock.timestampMicros()
    this.#state = { ...this.#state, sync: { kind: 'delta', reason, sinceTimestampMicros } }
    this.#owner.syncOpened(this)
  }

  /** Everything has its number. */
  closeSync(): void {
    const { sync: _over, ...state } = this.#state
    this.#state = state
  }

  /** Every block is to be sent; on return that is durable, and only then may a generation be opened for it. */
  async sendAll(kind: 'initial' | 'full' | 'delta', reason: string, cleared?: Position): Promise<void> {
    this.openSync(kind, reason)
    await this.map.addAllPending(cleared)
    this.#owner.saveVolume(this)
  }

  asMember(number: number): MarkerVolume {
    return { number, sizeBytes: this.sizeBytes, included: this.sync === undefined }
  }

  /** Closes as it is: for a start that failed. */
  async abandon(): Promise<void> {
    await this.map.abandon()
    await this.file.close()
  }

  async close(): Promise<void> {
    try {
      await this.map.close()
    } finally {
      await this.file.close()
    }
  }

  // The tap of the guest's writes.

  get isQuiesced(): boolean {
    return this.#owner.isQuiesced()
  }

  begin(offsetBytes: number, lengthBytes: number): WriteMark {
    this.#owner.noteWritten(this)
    const mark = this.map.begin(offsetBytes, lengthBytes)
    if (this.untouched.count > 0)
      for (let region = mark.firstRegion; region <= mark.lastRegion; region++) this.untouched.delete(region)
    if (mark.durable === undefined) return mark
    const durable = mark.durable.catch((error: unknown) => this.#goOnWithoutMap(error))
    return { ...mark, durable, of: mark }
  }

  end(mark: WriteMark): void {
    this.map.end(mark.of ?? mark)
  }

  changed(changes: readonly SectorChange[]): void {
    if (this.map.isExact) this.#owner.number(this, changes)
  }

  writeFailed(
    range: { readonly offsetBytes: number; readonly lengthBytes: number },
    command: string,
    error: unknown,
  ): void {
    // The mark is on the medium already: begin() has seen to it.
    this.map.addPending(range.offsetBytes, range.lengthBytes).catch(() => undefined)
    this.openSync(
      'bitmap',
      `a ${command} on the local disk failed (${messageOf(error)}): its range is sent as the disk has it`,
    )
  }

  flushFailed(error: unknown): void {
    this.map.keepMarks()
    this.map.repeat()
    this.#state = { ...this.#state, isSuspect: true }
    this.openSync(
      'bitmap',
      `a flush of the local disk failed (${messageOf(error)}): what was written lately is sent again`,
    )
  }

  /** Once it is written down elsewhere that the map says too little, guests go on. */
  #goOnWithoutMap(error: unknown): void {
    if (this.#state.unmapped === undefined) {
      this.#state = { ...this.#state, unmapped: unmappedBecause(error) }
      try {
        this.#owner.saveVolume(this)
      } catch (cause) {
        const { unmapped: _notSaved, ...state } = this.#state
        this.#state = state
        throw cause
      }
    }
    this.map.giveUp()
  }
}

function unmappedBecause(error: unknown): string {
  return `its dirty map could not be written (${messageOf(error)})`
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
