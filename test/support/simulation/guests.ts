import { holdTimeoutMillisDefault } from '../../../src/base/limits.ts'
import type { NbdExport } from '../../../src/nbd/nbd.ts'
import { sameBytes, sectorBytes, zeroSector, type SimulatedVolume } from './volume.ts'
import type { Life, World } from './world.ts'

// The guests of one volume, and what they may expect of it, as plain lists: every sector has the values that were written to it, when each
// was asked for and answered, and whether a flush was answered since. A value counts no more once a later write was asked for after its
// answer; after a power cut only what is durable supersedes.

interface Value {
  readonly bytes: Uint8Array
  readonly askedAt: number
  answeredAt: number
  isDurable: boolean
  /** A flush failed after it: no later flush makes it durable. */
  isLost?: boolean
}

interface Write {
  readonly firstSector: number
  readonly values: readonly Uint8Array[]
  readonly askedAt: number
  /** Not whole sectors: what it makes of them is known only while nobody else writes there. */
  readonly isPartial: boolean
}

/** Its own disk, and a hold for a checkpoint over several hosts, which the product bounds. */
const answerMillisMax = 1_000 + holdTimeoutMillisDefault

export interface GuestSettings {
  readonly guestCount: number
  readonly thinkMillisMax: number
  readonly sectorsPerWriteMax: number
  /** Writes stay below it: in a small place they overlap. */
  readonly hotSectors: number
}

export class Guests {
  readonly volume: SimulatedVolume
  isHurried = false
  isStopped = false
  /** The server takes no more requests. */
  isPaused = false
  /** Whether the local disks have refused something of late, so that a guest may be refused, too. */
  mayFail: () => boolean = () => false
  answeredCount = 0
  /** Of every write that was answered: when it was asked for, and when it was answered. */
  readonly answers: { readonly askedAt: number; readonly answeredAt: number }[] = []
  readonly #world: World
  readonly #settings: GuestSettings
  readonly #values = new Map<number, Value[]>()
  readonly #writes = new Set<Write>()
  #writeCount = 0
  /** Counts the servings of the disk; the guests of an earlier one are gone. */
  #serving = 0
  /** Of the disk as it is served. */
  #sizeBytes = 0
  /** When a flush was refused last. */
  #lostAt = 0
  /** Of the disk's failed syncs, also those that were no request of a guest: of each the next flush is to tell. */
  #heardSyncFailures = 0

  constructor(world: World, volume: SimulatedVolume, settings: GuestSettings) {
    this.#world = world
    this.volume = volume
    this.#settings = settings
  }

  get isIdle(): boolean {
    return this.#writes.size === 0
  }

  /** The agent serves the disk: the guests go on until its process ends. */
  use(exported: NbdExport, life: Life): void {
    this.isPaused = false
    this.#sizeBytes = exported.sizeBytes
    const serving = ++this.#serving
    for (let guest = 0; guest < this.#settings.guestCount; guest++) this.#next(exported, life, serving)
  }

  /** Of every sector that is being written: what it may hold by now. Of all others, what the disk holds is what they hold. */
  uncertain(): ReadonlyMap<number, readonly Uint8Array[]> {
    const sectors = new Map<number, readonly Uint8Array[]>()
    for (const { firstSector, values } of this.#writes)
      for (const sector of values.keys()) sectors.set(firstSector + sector, this.#possible(firstSector + sector))
    return sectors
  }

  /** Some of the disk is changed while nobody serves it: that, durably, is what the guests find. */
  changeBehind(): void {
    const { random } = this.#world
    for (let count = random.integer(1, 20); count > 0; count--) {
      const { firstSector } = this.#range()
      const bytes = random.chance(0.2) ? zeroSector : this.#newData(sectorBytes)
      this.volume.changeBehind(firstSector, bytes)
      const [askedAt, answeredAt] = [this.#world.nextStep(), this.#world.nextStep()]
      this.#values.set(firstSector, [{ bytes, askedAt, answeredAt, isDurable: true }])
    }
  }

  /** The process that served the disk was killed, maybe with its host: what the disk holds now is what the guests find. */
  settle(cause: 'kill' | 'power'): void {
    const now = this.#world.nextStep()
    if (this.volume.failedSyncCount > this.#heardSyncFailures) this.#noteLost() // who should have told is dead
    const unanswered = new Map<number, Value[]>()
    for (const { firstSector, values, askedAt } of this.#writes)
      for (const [index, bytes] of values.entries()) {
        const value = { bytes, askedAt, answeredAt: now, isDurable: false }
        unanswered.set(firstSector + index, [...(unanswered.get(firstSector + index) ?? []), value])
        this.#valuesOf(firstSector + index)
      }
    this.#writes.clear()
    for (const [sector, answered] of this.#values) {
      const found = this.volume.sectors.get(sector) ?? zeroSector
      // Done or not, so it supersedes nothing.
      const maybe = unanswered.get(sector) ?? []
      const possible = [...answered.filter(value => !isSuperseded(value, answered, cause === 'power')), ...maybe]
      if (!possible.some(({ bytes }) => sameBytes(bytes, found)))
        throw new Error(
          `after a ${cause}, sector ${sector} of ${this.volume.name} holds ${stampOf(found)}, which it may not hold: ` +
            JSON.stringify(possible.map(value => ({ ...value, bytes: stampOf(value.bytes) }))),
        )
      const isDurable = cause === 'power'
      const isLost = !isDurable && isLostAmong(answered, found)
      const [askedAt, answeredAt] = [this.#world.nextStep(), this.#world.nextStep()]
      const settled = { bytes: found, askedAt, answeredAt, isDurable, isLost }
      this.#values.set(sector, isDurable ? [settled] : [...answered, ...maybe, settled])
    }
  }

  #next(exported: NbdExport, life: Life, serving: number): void {
    life.after(this.#world.delay(0, this.isHurried ? 2 : this.#settings.thinkMillisMax), () => {
      if (this.isStopped || this.isPaused || serving !== this.#serving) return
      this.#world.background(
        this.#act(exported, life).then(() => {
          if (life.isAlive) this.#next(exported, life, serving)
        }),
      )
    })
  }

  async #act(exported: NbdExport, life: Life): Promise<void> {
    const { random } = this.#world
    const kind = random.fraction()
    if (kind < 0.6) await this.#write(exported, life)
    else if (kind < 0.7) await this.#clear(exported, life)
    else if (kind < 0.85) await this.#flush(exported, life)
    else await this.#read(exported, life)
    if (life.isAlive) this.answeredCount++
  }

  async #write(exported: NbdExport, life: Life): Promise<void> {
    const { random } = this.#world
    const { firstSector, count } = this.#range()
    const data = this.#newData(count * sectorBytes)
    const fua = random.chance(0.1)
    // A write that is not whole sectors begins and ends anywhere, where nobody else writes meanwhile.
    const isPartial = random.chance(0.1) && this.#isQuiet(firstSector, count)
    const start = isPartial ? random.integer(0, sectorBytes - 1) : 0
    const end = isPartial ? data.length - random.integer(0, sectorBytes - 1) : data.length
    if (start >= end) return
    const values = this.#around(firstSector, data, start, end)
    const offsetBytes = firstSector * sectorBytes + start
    await this.#change({ firstSector, values, fua, isPartial, life }, () =>
      exported.write(offsetBytes, data.subarray(start, end), { fua }),
    )
  }

  async #clear(exported: NbdExport, life: Life): Promise<void> {
    const { random } = this.#world
    const { firstSector, count } = this.#range()
    const fua = random.chance(0.1)
    const isPartial = random.chance(0.3) && this.#isQuiet(firstSector, count)
    const zeros = Buffer.alloc(count * sectorBytes)
    const start = isPartial ? random.integer(0, sectorBytes - 1) : 0
    const end = isPartial ? zeros.length - random.integer(0, sectorBytes - 1) : zeros.length
    if (start >= end) return
    const values = this.#around(firstSector, zeros, start, end)
    const offsetBytes = firstSector * sectorBytes + start
    const mayTrim = random.chance(0.5)
    await this.#change({ firstSector, values, fua, isPartial, life }, () =>
      random.chance(0.5)
        ? exported.zero(offsetBytes, end - start, { fua, mayTrim })
        : exported.trim(offsetBytes, end - start, { fua }),
    )
  }

  async #change(
    {
      firstSector,
      values,
      isPartial,
      fua,
      life,
    }: Omit<Write, 'askedAt'> & { readonly fua: boolean; readonly life: Life },
    submit: () => Promise<void>,
  ): Promise<void> {
    for (const other of this.#writes) if (other.isPartial && !this.#isQuiet(firstSector, values.length, other)) return
    const write: Write = { firstSector, values, isPartial, askedAt: this.#world.nextStep() }
    this.#writes.add(write)
    const isDone = await this.#answered(submit, life, 'write')
    if (!life.isAlive) return
    this.#writes.delete(write)
    if (!isDone && fua) this.#noteLost() // maybe by the write itself: then a failed sync is still to be told
    const answeredAt = this.#world.nextStep()
    const isLost = this.#lostAt > write.askedAt // it may have been on the disk when the flush was refused
    if (isDone) this.answers.push({ askedAt: write.askedAt, answeredAt })
    for (const [index, bytes] of values.entries()) {
      const list = this.#valuesOf(firstSector + index)
      if (isDone) {
        list.push({ bytes, askedAt: write.askedAt, answeredAt, isDurable: fua, isLost })
        continue
      }
      // Refused: it may have been done in part. What is there now is what counts, and what flushes make durable.
      const found = this.volume.sectors.get(firstSector + index) ?? zeroSector
      const isFoundLost = isLost || isLostAmong(list, found)
      list.push({ bytes, askedAt: write.askedAt, answeredAt, isDurable: false, isLost: true })
      const at = answeredAt + 0.5
      list.push({ bytes: found, askedAt: at, answeredAt: at, isDurable: false, isLost: isFoundLost })
    }
  }

  async #flush(exported: NbdExport, life: Life): Promise<void> {
    const askedAt = this.#world.nextStep()
    const isDone = await this.#answered(() => exported.flush(), life, 'flush')
    if (!life.isAlive) return
    if (!isDone) {
      this.#noteLost()
      this.#heardSyncFailures = this.volume.failedSyncCount
      return
    }
    for (const [sector, values] of this.#values) {
      for (const value of values) if (value.answeredAt < askedAt && value.isLost !== true) value.isDurable = true
      if (values.length > 1)
        this.#values.set(
          sector,
          values.filter(value => !isSuperseded(value, values, true)),
        )
    }
  }

  /** A flush was refused: what it was to make durable may be lost, whatever a later one says. */
  #noteLost(): void {
    this.#lostAt = this.#world.nextStep()
    for (const values of this.#values.values()) for (const value of values) if (!value.isDurable) value.isLost = true
  }

  async #read(exported: NbdExport, life: Life): Promise<void> {
    const { firstSector, count } = this.#range()
    const target = new Uint8Array(count * sectorBytes)
    const stepBefore = this.#world.nextStep()
    if (!this.#isQuiet(firstSector, count)) return
    if (!(await this.#answered(() => exported.read(firstSector * sectorBytes, target), life, 'read')) || !life.isAlive)
      return
    for (let index = 0; index < count; index++) {
      const sector = firstSector + index
      const wasWritten = this.#values.get(sector)?.some(value => value.askedAt > stepBefore) ?? false
      if (wasWritten || !this.#isQuiet(sector, 1)) continue
      const found = target.subarray(index * sectorBytes, (index + 1) * sectorBytes)
      if (!this.#possible(sector).some(bytes => sameBytes(bytes, found)))
        throw new Error(`sector ${sector} of ${this.volume.name} was read with other contents than were written`)
    }
  }

  /** False where it was refused. A guest waits for its own disk only, whatever becomes of the link. */
  async #answered(submit: () => Promise<void>, life: Life, what: string): Promise<boolean> {
    const startMillis = this.#world.nowMillis - life.stalledMillis
    const heardSyncFailures = this.#heardSyncFailures
    let refusal: unknown
    try {
      await submit()
    } catch (error) {
      refusal = error
    }
    if (!life.isAlive) return false
    const tookMillis = this.#world.nowMillis - life.stalledMillis - startMillis
    if (tookMillis > answerMillisMax) throw new Error(`a guest's ${what} took ${tookMillis} ms`)
    const isLateNews = this.volume.failedSyncCount > heardSyncFailures
    if (refusal !== undefined && !isLateNews && !this.mayFail()) throw refusal
    return refusal === undefined
  }

  /** As nothing else is. */
  #newData(sizeBytes: number): Buffer {
    const stamp = ++this.#writeCount * 64 + this.volume.number
    return Buffer.alloc(sizeBytes, Buffer.from(Int32Array.of(stamp).buffer))
  }

  #range(): { readonly firstSector: number; readonly count: number } {
    const { random } = this.#world
    const sectorCount = Math.max(1, Math.min(this.#sizeBytes, this.volume.sizeBytes) / sectorBytes)
    const firstSector = random.chance(0.7)
      ? random.integer(0, Math.min(this.#settings.hotSectors, sectorCount) - 1)
      : random.integer(0, sectorCount - 1)
    const count = random.chance(0.5) ? 1 : random.integer(1, this.#settings.sectorsPerWriteMax)
    return { firstSector, count: Math.min(count, sectorCount - firstSector) }
  }

  /** What the sectors hold once data[start, end) is written, and the rest is as it is. */
  #around(firstSector: number, data: Buffer, start: number, end: number): Uint8Array[] {
    return Array.from({ length: data.length / sectorBytes }, (_, index) => {
      if (end - start === data.length) return data.subarray(index * sectorBytes, (index + 1) * sectorBytes)
      const [from, to] = [index * sectorBytes, (index + 1) * sectorBytes]
      const whole = Buffer.from(this.volume.sectors.get(firstSector + index) ?? zeroSector)
      data.copy(whole, Math.max(0, start - from), Math.max(start, from), Math.min(end, to))
      return whole
    })
  }

  #isQuiet(firstSector: number, count: number, only?: Write): boolean {
    for (const write of only === undefined ? this.#writes : [only])
      if (write.firstSector < firstSector + count && firstSector < write.firstSector + write.values.length) return false
    return true
  }

  #possible(sector: number): readonly Uint8Array[] {
    const values = this.#values.get(sector) ?? this.#untouched(sector)
    const settled = values.filter(value => !isSuperseded(value, values, false)).map(({ bytes }) => bytes)
    const written = [...this.#writes].flatMap(({ firstSector, values: bytes }) => bytes[sector - firstSector] ?? [])
    return [...settled, ...written]
  }

  #untouched(sector: number): Value[] {
    const bytes = this.volume.found.get(sector) ?? zeroSector
    return [{ bytes, askedAt: -2, answeredAt: -1, isDurable: true }]
  }

  #valuesOf(sector: number): Value[] {
    const values = this.#values.get(sector) ?? this.#untouched(sector)
    this.#values.set(sector, values)
    return values
  }
}

function isSuperseded(value: Value, all: readonly Value[], byDurableOnly: boolean): boolean {
  return all.some(later => value.answeredAt < later.askedAt && (later.isDurable || !byDurableOnly))
}

/**
 * A flush that was refused has left what was last written of these bytes in the system's memory alone: no new process, and no later write
 * that fails, changes that.
 */
function isLostAmong(values: readonly Value[], bytes: Uint8Array): boolean {
  return values.findLast(value => sameBytes(value.bytes, bytes))?.isLost === true
}

export function stampOf(bytes: Uint8Array): string {
  return `${Buffer.from(bytes.subarray(0, 4)).toString('hex')}..${Buffer.from(bytes.subarray(-4)).toString('hex')}`
}
