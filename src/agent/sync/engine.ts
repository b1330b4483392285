import type { Clock } from '../../base/clock.ts'
import { hashSizeBytes } from '../../base/limits.ts'
import { alignDown, KiB, MiB } from '../../base/units.ts'
import { Bell } from '../bell.ts'
import type { AgentEvents } from '../events.ts'
import type { Loan } from '../pending-records.ts'
import type { ProtectedVolume } from '../protected-volume.ts'
import type { Stream } from '../stream.ts'
import type { SectorChange } from '../volume.ts'
import { planBlocks } from './blocks.ts'
import { hashBlockSizeBytes, type HashQuestions } from './hashes.ts'
import { RateLimit } from './rate-limit.ts'

// Sends what is pending in the dirty maps, whatever the kind of the synchronisation: a few lanes, each with one unit of regions at a
// time.
//
//   claim a unit ─> ask for its hashes (delta) ─> per piece: wait for room in the queue and for the rate ─> lock ─ read ─ gate ─ number
//                                                                              after its last piece: the regions are settled
//
// A piece is read and numbered as a guest's write is, under the lock of its range, so at its number it is exactly the disk. What a
// lane does is good for one generation: it looks, in the step that numbers, whether that is still the present one. Guests come first:
// a lane has one read under way, and the queue's larger part is theirs.

/** What the engine needs of its agent. */
export interface SyncHost {
  readonly clock: Clock
  readonly events: AgentEvents
  readonly stream: Stream
  readonly hashes: HashQuestions
  readonly queueSizeBytesMax: number
  volumes(): readonly ProtectedVolume[]
  /** Durable on return: records are numbered from now on. */
  noteRunning(): void
  /** All of the volume has its number; nothing of it is pending. */
  synced(volume: ProtectedVolume): void
}

interface Unit {
  readonly volume: ProtectedVolume
  readonly generation: number
  readonly firstRegion: number
  readonly regionCount: number
  /** It has held nothing ever: it need not be read. */
  readonly isUntouched: boolean
}

interface Waiting {
  readonly unit: Unit
  readonly bytes: number
  readonly resolve: () => void
}

export interface Unreadable {
  readonly offsetBytes: number
  readonly reason: string
}

const laneCount = 6
const pieceSizeBytesMax = 512 * KiB
const comparedUnitSizeBytesMax = 4 * MiB
const untouchedUnitSizeBytesMax = 64 * MiB
/** Of the queue at most, so that a guest's burst finds room. */
const queueShareBytesMax = 16 * MiB
/** When a region that could not be read is read again. */
const unreadableRetryMillis = 10_000

export class SyncEngine {
  readonly #host: SyncHost
  readonly #rate: RateLimit
  readonly #closing = new AbortController()
  readonly #claimed = new Map<ProtectedVolume, Set<number>>()
  readonly #unreadable = new Map<ProtectedVolume, Map<number, Unreadable & { readonly untilMillis: number }>>()
  readonly #cursors = new Map<ProtectedVolume, number>()
  #reservedBytes = 0
  /** Lanes that wait for room, the first to have it first. */
  #waiting: Waiting[] = []
  /** Beside pieces, what no lane reads into now, and nobody reads. */
  #memory: Buffer[] = []
  readonly #work: Bell
  readonly #released: Bell
  readonly #forgotten = new WeakSet<ProtectedVolume>()
  /** A volume waits for an acknowledgement before it may be compared. */
  #isAwaitingAck = false
  #lanes: Promise<void>[] = []

  constructor(host: SyncHost) {
    this.#host = host
    this.#rate = new RateLimit(host.clock)
    this.#work = new Bell(host.clock)
    this.#released = new Bell(host.clock)
  }

  start(): void {
    for (let lane = 0; lane < laneCount; lane++) this.#lanes.push(this.#runLane())
  }

  /** There may be something to do that there was not before. */
  wake(): void {
    this.#work.ring()
    this.#letGo()
  }

  /** The queue has become smaller. */
  roomMade(): void {
    for (let first = this.#waiting[0]; first !== undefined; first = this.#waiting[0]) {
      if (this.#isCurrent(first.unit) && !this.#hasRoomFor(first.bytes)) break
      this.#waiting.shift()
      this.#admit(first)
    }
    if (!this.#isAwaitingAck) return
    this.#isAwaitingAck = false // a lane that finds it so again says it again
    this.wake()
  }

  /** Resolves when no lane has anything of a volume that is served no more. */
  async forget(volume: ProtectedVolume): Promise<void> {
    this.#forgotten.add(volume)
    this.#letGo()
    while ((this.#claimed.get(volume)?.size ?? 0) > 0) await this.#released.wait(idleMillisMax)
    this.#claimed.delete(volume)
    this.#cursors.delete(volume)
    this.#unreadable.delete(volume)
  }

  /** 0 for no limit; at once, also for what waits. */
  setRate(rateBytesPerSecond: number): void {
    this.#rate.set(rateBytesPerSecond)
  }

  /** What the local disk does not give; it is read again from time to time. */
  unreadable(volume: ProtectedVolume): readonly Unreadable[] {
    return [...(this.#unreadable.get(volume)?.values() ?? [])]
  }

  /** Resolves when no lane is at work. */
  async close(): Promise<void> {
    this.#closing.abort()
    this.setRate(0)
    this.wake()
    await Promise.all(this.#lanes)
  }

  async #runLane(): Promise<void> {
    while (!this.#closing.signal.aborted) {
      const unit = this.#claim()
      if (unit === undefined) {
        await this.#work.wait(this.#nextRetryMillis())
        continue
      }
      try {
        const unsettled = await this.#send(unit)
        if (unsettled === 'given-up') await this.#work.wait(stateRetryMillis)
      } finally {
        this.#release(unit)
      }
    }
  }

  // Which regions.

  #claim(): Unit | undefined {
    for (const volume of this.#host.volumes()) {
      if (!volume.map.isExact || volume.sync === undefined || !this.#host.stream.isExact) continue
      if (volume.heldBecause !== undefined) continue
      this.#endIfDone(volume)
      const region = this.#nextRegion(volume)
      if (region !== undefined && !this.#mayCompare(volume)) continue
      if (region !== undefined) return this.#unitFrom(volume, region)
    }
    return undefined
  }

  /**
   * False where the VRA's answer could be of before the volume was served again: what it has on its way would come after a block that was found alike, and
   * change it.
   */
  #mayCompare({ compares, startPosition, syncPosition }: ProtectedVolume): boolean {
    const { generation, durable } = this.#host.stream
    const isAhead = [startPosition, syncPosition].some(
      from => from?.generation === generation && from.sequence > durable,
    )
    if (!compares || !isAhead) return true
    this.#isAwaitingAck = true
    return false
  }

  #nextRegion(volume: ProtectedVolume): number | undefined {
    const from = this.#cursors.get(volume) ?? 0
    return this.#nextFree(volume, from) ?? this.#nextFree(volume, 0)
  }

  #nextFree(volume: ProtectedVolume, from: number): number | undefined {
    let region = volume.map.nextPending(from)
    while (region !== undefined && !this.#isFree(volume, region)) region = volume.map.nextPending(region + 1)
    return region
  }

  #isFree(volume: ProtectedVolume, region: number): boolean {
    if (this.#claimed.get(volume)?.has(region) === true) return false
    const untilMillis = this.#unreadable.get(volume)?.get(region)?.untilMillis
    return untilMillis === undefined || untilMillis <= this.#host.clock.monotonicMillis()
  }

  #unitFrom(volume: ProtectedVolume, firstRegion: number): Unit {
    const { map, untouched } = volume
    const isUntouched = untouched.has(firstRegion)
    const sizeBytesMax = isUntouched
      ? untouchedUnitSizeBytesMax
      : volume.compares
        ? comparedUnitSizeBytesMax
        : map.regionSizeBytes
    const countMax = Math.max(1, Math.floor(sizeBytesMax / map.regionSizeBytes))
    let regionCount = 1
    while (regionCount < countMax) {
      const next = firstRegion + regionCount
      if (!map.isPending(next) || !this.#isFree(volume, next) || untouched.has(next) !== isUntouched) break
      regionCount++
    }
    const claimed = this.#claimed.get(volume) ?? new Set()
    this.#claimed.set(volume, claimed)
    for (let region = firstRegion; region < firstRegion + regionCount; region++) {
      claimed.add(region)
      map.claim(region)
    }
    this.#cursors.set(volume, firstRegion + regionCount)
    return { volume, generation: this.#host.stream.generation, firstRegion, regionCount, isUntouched }
  }

  #release({ volume, firstRegion, regionCount }: Unit): void {
    const claimed = this.#claimed.get(volume)
    for (let region = firstRegion; region < firstRegion + regionCount; region++) {
      claimed?.delete(region)
      volume.map.unclaim(region)
    }
    this.#released.ring()
    this.#endIfDone(volume)
  }

  #endIfDone(volume: ProtectedVolume): void {
    if (volume.sync === undefined || !volume.map.isExact || !this.#host.stream.isExact) return
    if (this.#forgotten.has(volume)) return
    if (volume.map.pendingCount > 0 || (this.#claimed.get(volume)?.size ?? 0) > 0) return
    this.#cursors.delete(volume)
    this.#unreadable.delete(volume)
    this.#memory = []
    this.#host.synced(volume)
  }

  #nextRetryMillis(): number {
    const times = [...this.#unreadable.values()].flatMap(regions => [...regions.values()].map(each => each.untilMillis))
    const now = this.#host.clock.monotonicMillis()
    return Math.max(1, Math.min(idleMillisMax, ...times.map(each => each - now)))
  }

  // Sending.

  async #send(unit: Unit): Promise<'done' | 'given-up'> {
    try {
      this.#host.noteRunning()
    } catch (error) {
      this.#host.events.stateNotSaved(error)
      return 'given-up'
    }
    const { volume, firstRegion, regionCount } = unit
    const hashes = await this.#askFor(unit)
    if (hashes === 'lost') return 'given-up'
    const startBytes = volume.map.rangeOf(firstRegion).offsetBytes
    for (let region = firstRegion; region < firstRegion + regionCount; region++) {
      const isWhole = await this.#sendRegion(unit, region, hashes, startBytes)
      if (!this.#isCurrent(unit)) return 'done'
      if (!isWhole) continue
      volume.map.settle(region)
      volume.progress.noteDone(volume.map.rangeOf(region).lengthBytes)
      this.#unreadable.get(volume)?.delete(region)
    }
    return 'done'
  }

  async #askFor(unit: Unit): Promise<Uint8Array | undefined | 'lost'> {
    const { volume, firstRegion, regionCount } = unit
    if (!volume.compares || unit.isUntouched || volume.number === undefined) return undefined
    if (!this.#mayCompare(volume)) return 'lost' // it may be compared since the unit was claimed
    const { offsetBytes } = volume.map.rangeOf(firstRegion)
    const last = volume.map.rangeOf(firstRegion + regionCount - 1)
    const blockCount = Math.ceil((last.offsetBytes + last.lengthBytes - offsetBytes) / hashBlockSizeBytes)
    const range = { volume: volume.number, offsetBytes, blockCount }
    let waitMillis = hashRetryMillisFirst
    for (let attempt = 1; ; attempt++, waitMillis = Math.min(2 * waitMillis, hashRetryMillisMax)) {
      const answer = await this.#host.hashes.ask(range)
      if (answer === 'lost') return 'lost'
      if (answer === 'failed') return undefined
      if (answer !== 'later') return answer.hashes
      if (attempt === hashAttemptsMax) return undefined
      await this.#host.clock.sleep(waitMillis, this.#closing.signal).catch(() => undefined) // aborted: it is closing
      if (!this.#isCurrent(unit)) return 'lost'
    }
  }

  /** True when every piece of the region is numbered or known to be alike. */
  async #sendRegion(unit: Unit, region: number, hashes: Uint8Array | undefined, startBytes: number): Promise<boolean> {
    const { volume } = unit
    const range = volume.map.rangeOf(region)
    const { queueSizeBytesMax } = this.#host
    const readMax = Math.min(pieceSizeBytesMax, alignDown(queueSizeBytesMax / 4, hashBlockSizeBytes))
    const pieceMax = unit.isUntouched ? range.lengthBytes : Math.max(hashBlockSizeBytes, readMax)
    for (let at = 0; at < range.lengthBytes; at += pieceMax) {
      const piece = { offsetBytes: range.offsetBytes + at, lengthBytes: Math.min(pieceMax, range.lengthBytes - at) }
      const hashStart = ((piece.offsetBytes - startBytes) / hashBlockSizeBytes) * hashSizeBytes
      try {
        if (!(await this.#sendPiece(unit, region, piece, hashes?.subarray(hashStart)))) return false
      } catch (error) {
        if (this.#closing.signal.aborted) return false
        this.#noteUnreadable(volume, region, piece.offsetBytes, error)
        return false
      }
    }
    return true
  }

  /** False where the unit is not current any more, or has been written to for the first time: it is claimed again then. */
  async #sendPiece(
    unit: Unit,
    region: number,
    { offsetBytes, lengthBytes }: { readonly offsetBytes: number; readonly lengthBytes: number },
    hashes: Uint8Array | undefined,
  ): Promise<boolean> {
    const { volume, isUntouched } = unit
    if (!isUntouched) await this.#rate.take(lengthBytes)
    const bytes = isUntouched ? 0 : lengthBytes
    await this.#reserve(unit, bytes)
    const loan = isUntouched ? undefined : this.#takeMemory()
    let isSent = false
    let isLent = false
    try {
      if (!this.#isCurrent(unit)) return false
      const target = loan?.memory.subarray(0, lengthBytes)
      await volume.disk.readSettled({ offsetBytes, lengthBytes }, target, () => {
        if (!this.#isCurrent(unit) || (isUntouched && !volume.untouched.has(region))) return
        const zeros = { offsetBytes, lengthBytes, data: undefined }
        const changes = target === undefined ? [zeros] : planBlocks(offsetBytes, target, hashes)
        // What is lent counts in the queue by its data: where that is little it is copied, so that the memory comes back at once.
        isLent = 2 * dataBytesOf(changes) >= pieceSizeBytesMax
        this.#number(volume, changes, isLent ? loan : undefined)
        isSent = true
      })
    } finally {
      if (!isLent) loan?.giveBack()
      this.#reservedBytes -= bytes
      this.roomMade()
    }
    return isSent
  }

  /** A piece, as long as there are any. */
  #takeMemory(): Loan & { readonly memory: Buffer } {
    const { pieces } = this.#host.stream
    const piece = pieces.take()
    if (piece !== undefined) return { memory: piece, isPiece: true, giveBack: () => pieces.give(piece) }
    const memory = this.#memory.pop() ?? Buffer.allocUnsafeSlow(pieceSizeBytesMax)
    return { memory, isPiece: false, giveBack: () => void this.#memory.push(memory) }
  }

  #number(volume: ProtectedVolume, changes: readonly SectorChange[], loan: Loan | undefined): void {
    if (changes.length === 0 || volume.number === undefined) {
      loan?.giveBack()
      return
    }
    const dataBytes = dataBytesOf(changes)
    const recordCount = this.#host.stream.append(volume.number, changes, loan)
    volume.progress.noteSent(dataBytes)
    this.#host.events.syncNumbered(volume.name, { recordCount, sizeBytes: dataBytes })
  }

  /** On return so many bytes of the queue are this lane's, or its unit is not current any more. */
  #reserve(unit: Unit, bytes: number): Promise<void> {
    return new Promise(resolve => {
      this.#waiting.push({ unit, bytes, resolve })
      this.#letGo() // perhaps this one: it was somewhere else when its volume went
      this.roomMade()
    })
  }

  #admit({ bytes, resolve }: Waiting): void {
    this.#reservedBytes += bytes // in the step that has looked
    resolve()
  }

  /** Lanes that wait for room that they do not need any more. */
  #letGo(): void {
    const idle = this.#waiting.filter(({ unit }) => !this.#isCurrent(unit))
    if (idle.length === 0) return
    this.#waiting = this.#waiting.filter(each => !idle.includes(each))
    for (const each of idle) this.#admit(each)
  }

  /** The engine's share is never passed, but for one piece where nothing is in the queue. */
  #hasRoomFor(bytes: number): boolean {
    const { stream, queueSizeBytesMax } = this.#host
    const usedBytes = stream.queuedBytes + this.#reservedBytes
    return usedBytes === 0 || usedBytes + bytes <= Math.min(queueShareBytesMax, queueSizeBytesMax / 2)
  }

  #isCurrent({ volume, generation }: Unit): boolean {
    const { stream } = this.#host
    return (
      stream.isExact &&
      stream.generation === generation &&
      volume.map.isExact &&
      volume.sync !== undefined &&
      volume.heldBecause === undefined &&
      !this.#forgotten.has(volume) &&
      !this.#closing.signal.aborted
    )
  }

  #noteUnreadable(volume: ProtectedVolume, region: number, offsetBytes: number, error: unknown): void {
    const reason = error instanceof Error ? error.message : String(error)
    const regions = this.#unreadable.get(volume) ?? new Map()
    this.#unreadable.set(volume, regions)
    const untilMillis = this.#host.clock.monotonicMillis() + unreadableRetryMillis
    if (!regions.has(region)) this.#host.events.syncReadFailed(volume.name, { offsetBytes, error })
    regions.set(region, { offsetBytes, reason, untilMillis })
  }
}

function dataBytesOf(changes: readonly SectorChange[]): number {
  return changes.reduce((sum, { data }) => sum + (data?.length ?? 0), 0)
}

/** After which a lane looks again by itself. */
const idleMillisMax = 60_000
/** A VRA that cannot tell hashes now is asked again, for some minutes; what it cannot tell then is sent. */
const hashRetryMillisFirst = 250
const hashRetryMillisMax = 15_000
const hashAttemptsMax = 16
/** After the state could not be saved, or the VRA's answer was lost. */
const stateRetryMillis = 1_000
