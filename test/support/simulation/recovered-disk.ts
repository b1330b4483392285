import { failedWith } from '../../../src/base/failure.ts'
import type { NbdExport } from '../../../src/nbd/nbd.ts'
import type { SimulatedDisk } from './disk.ts'
import { stampOf } from './guests.ts'
import type { SimulatedExports } from './live-thread.ts'
import { sameBytes, sectorBytes, zeroSector, type Sectors } from './volume.ts'
import type { World } from './world.ts'

const readSizeBytes = 128 * 1024

/** A call of the disk that was refused: whether it may be says who looks after the faults. */
export type Refused = (error: unknown, what: string) => void

/**
 * One disk of a recovery and the machine on it, which does one thing at a time: all of the disk is read first, and from then on it holds that and
 * what was written since, whatever becomes of thread, process, power and store.
 */
export class RecoveredDisk {
  readonly volume: number
  readonly exportName: string
  readonly sizeBytes: number
  readonly #world: World
  /** What it was found to be first. */
  #found: Sectors | undefined
  /** What was written since: the last is there, unless one of several may be. */
  readonly #written = new Map<number, Uint8Array[]>()
  /** What a power cut may bring back. */
  readonly #unflushed = new Map<number, Uint8Array[]>()
  #writing: { readonly firstSector: number; readonly values: readonly Uint8Array[] } | undefined
  /** A flush was refused: from the next process on it is as after a power cut. */
  #hasLost = false
  #servedBy: SimulatedExports | undefined
  #cutCount = 0
  #refusalCount = 0
  #isBusy = false
  #writeCount = 0

  constructor(
    world: World,
    disk: { readonly volume: number; readonly exportName: string; readonly sizeBytes: number },
  ) {
    this.#world = world
    this.volume = disk.volume
    this.exportName = disk.exportName
    this.sizeBytes = disk.sizeBytes
  }

  /** What it was found to be first; undefined where nobody has read all of it yet. */
  get found(): Sectors | undefined {
    return this.#found
  }

  /** One thing more, where the one before was answered, or never will be. */
  async act(exports: SimulatedExports, disk: SimulatedDisk, refused: Refused): Promise<void> {
    if (!exports.has(this.exportName)) return
    if (this.#servedBy !== exports) this.#settle(exports, disk)
    if (this.#isBusy) return
    this.#isBusy = true
    await this.#once(exports, refused)
    if (this.#servedBy === exports) this.#isBusy = false
  }

  async #once(exports: SimulatedExports, refused: Refused): Promise<void> {
    const { random } = this.#world
    const kind = this.#found === undefined ? 0 : random.fraction()
    if (kind < 0.35) await this.#readAll(exports, refused)
    else if (kind < 0.8) await this.#change(exports, refused)
    else await this.#flush(exports, refused)
  }

  /** Another thread serves it: what was not answered may be there or not. */
  #settle(exports: SimulatedExports | undefined, { cutCount, refusalCount }: SimulatedDisk): void {
    this.#isBusy = false
    const isFirst = this.#servedBy === undefined
    this.#servedBy = exports
    const { firstSector = 0, values = [] } = this.#writing ?? {}
    this.#writing = undefined
    for (const [index, bytes] of values.entries()) this.#mayHold(firstSector + index, bytes)
    // A sync that was refused may have been the one of whoever closed the disk.
    const isUnsynced = this.#hasLost || this.#refusalCount !== refusalCount
    const isLost = !isFirst && (isUnsynced || this.#cutCount !== cutCount)
    this.#cutCount = cutCount
    this.#refusalCount = refusalCount
    this.#hasLost = false
    if (!isLost) return
    this.#world.count('a recovered disk loses what was not flushed')
    for (const [sector, before] of this.#unflushed) this.#written.set(sector, [...before, ...this.#possible(sector)])
    this.#unflushed.clear()
  }

  async #readAll(exports: SimulatedExports, refused: Refused): Promise<void> {
    const whole = Buffer.alloc(this.sizeBytes)
    const read = async (disk: NbdExport): Promise<void> => {
      for (let at = 0; at < whole.length; at += readSizeBytes)
        await disk.read(at, whole.subarray(at, Math.min(whole.length, at + readSizeBytes)))
    }
    if (!(await this.#answered(exports, read, refused, 'read'))) return
    this.#world.count('a recovered disk is read')
    this.#hasRead(whole)
  }

  /** Fails where it holds anything else than it may. */
  #hasRead(whole: Buffer): void {
    const sectors: Sectors = new Map()
    for (let sector = 0; sector < whole.length / sectorBytes; sector++) {
      const bytes = whole.subarray(sector * sectorBytes, (sector + 1) * sectorBytes)
      if (!sameBytes(bytes, zeroSector)) sectors.set(sector, bytes)
      if (this.#found === undefined) continue
      const possible = this.#possible(sector)
      if (!possible.some(each => sameBytes(each, bytes)))
        throw new Error(
          `sector ${sector} of the recovered disk ${this.exportName} holds ${stampOf(bytes)}, and may hold ${possible.map(stampOf).join(', ')}`,
        )
      if (this.#written.has(sector)) this.#written.set(sector, [bytes])
    }
    this.#found ??= sectors
  }

  /** Of a file that it was kept as. */
  checkKept(disk: SimulatedDisk, read: (target: Buffer) => void): void {
    if (this.#found === undefined) return
    const whole = Buffer.alloc(this.sizeBytes)
    read(whole)
    this.#settle(undefined, disk)
    this.#hasRead(whole)
  }

  async #change(exports: SimulatedExports, refused: Refused): Promise<void> {
    const { random } = this.#world
    const sectorCount = Math.floor(this.sizeBytes / sectorBytes)
    const firstSector = random.integer(0, sectorCount - 1)
    const count = Math.min(sectorCount - firstSector, random.integer(1, 12))
    const isZero = random.chance(0.3)
    const stamp = Int32Array.of(0x40000000 + ++this.#writeCount * 64 + this.volume)
    const data = isZero
      ? Buffer.alloc(count * sectorBytes)
      : Buffer.alloc(count * sectorBytes, Buffer.from(stamp.buffer))
    const values = Array.from({ length: count }, (_, at) => data.subarray(at * sectorBytes, (at + 1) * sectorBytes))
    this.#writing = { firstSector, values }
    const offsetBytes = firstSector * sectorBytes
    const fua = random.chance(0.1)
    const mayTrim = random.chance(0.5)
    const write = (disk: NbdExport): Promise<void> =>
      isZero ? disk.zero(offsetBytes, data.length, { fua, mayTrim }) : disk.write(offsetBytes, data, { fua })
    const isDone = await this.#answered(exports, write, refused, 'write')
    if (this.#servedBy !== exports) return // settled by who came next
    this.#writing = undefined
    if (!isDone && fua) this.#hasLost = true
    for (const [index, bytes] of values.entries()) {
      const sector = firstSector + index
      this.#unflushed.set(sector, [...(this.#unflushed.get(sector) ?? []), ...this.#possible(sector)])
      if (isDone) this.#written.set(sector, [bytes])
      else this.#mayHold(sector, bytes)
    }
    if (isDone && fua) this.#unflushed.clear()
  }

  async #flush(exports: SimulatedExports, refused: Refused): Promise<void> {
    const isDone = await this.#answered(exports, disk => disk.flush(), refused, 'flush')
    if (this.#servedBy !== exports) return
    if (isDone) this.#unflushed.clear()
    else this.#hasLost = true
  }

  /** False where it was refused. */
  async #answered(
    exports: SimulatedExports,
    work: (disk: NbdExport) => Promise<void>,
    refused: Refused,
    what: string,
  ): Promise<boolean> {
    try {
      await exports.call(this.exportName, work)
      return exports.life.isAlive && this.#servedBy === exports
    } catch (error) {
      if (exports.life.isAlive && !failedWith(error, 'PEER_LOST')) refused(error, what)
      return false
    }
  }

  #mayHold(sector: number, bytes: Uint8Array): void {
    this.#written.set(sector, [...this.#possible(sector), bytes])
  }

  #possible(sector: number): readonly Uint8Array[] {
    return this.#written.get(sector) ?? [this.#found?.get(sector) ?? zeroSector]
  }
}
