import { alignDown, alignUp, MiB, sectorSizeBytes } from '../base/units.ts'
import { isZero } from '../codec/zeros.ts'
import type { VolumeFile } from '../disk/disk.ts'
import type { NbdExport, NbdExtent, NbdWriteOptions } from '../nbd/nbd.ts'
import type { WriteMark } from './dirty-map.ts'
import { passGate, type NumberingGate } from './numbering-gate.ts'
import { RangeLock } from '../base/range-lock.ts'

/** One change of the disk, in whole sectors: `data`, or that the range reads as zeros now. */
export interface SectorChange {
  readonly offsetBytes: number
  readonly lengthBytes: number
  readonly data: Uint8Array | undefined
}

/** What a volume needs of the agent. */
export interface VolumeTap {
  /** True: guests may only read. */
  readonly isQuiesced: boolean
  /** Before the first byte of a write is submitted. Fails where the agent cannot keep account of it: the guest gets the error. */
  begin(offsetBytes: number, lengthBytes: number): WriteMark
  /** The disk holds the changes, and the guest has not been answered: number them, and copy what is to be kept. Synchronous, like the number itself. */
  changed(changes: readonly SectorChange[]): void
  /** A write may have changed the disk and will get no number. */
  writeFailed(
    range: { readonly offsetBytes: number; readonly lengthBytes: number },
    command: string,
    error: unknown,
  ): void
  /** What was written since the last flush may be lost. */
  flushFailed(error: unknown): void
  /** The write is over, whatever became of it. */
  end(mark: WriteMark): void
}

const zeroPiece = Buffer.alloc(1 * MiB)

/**
 * One disk of the guest, as an NBD export. Every write goes lock, mark, disk, gate, number, answer (the NBD server answers when the promise
 * resolves), so the numbers of overlapping writes are in the order in which the disk has them.
 */
export class Volume implements NbdExport {
  readonly name: string
  readonly description: string
  readonly sizeBytes: number
  /** Also while guests may only read: they will write again. */
  readonly mayBeShared = false
  readonly #file: VolumeFile
  readonly #tap: VolumeTap
  readonly #gate: NumberingGate
  readonly #locks = new RangeLock()
  #changeCount = 0
  #onSettled: (() => void)[] = []
  #queuedSync: Promise<void> | undefined
  #lastSync: Promise<void> = Promise.resolve()
  /** A sync that failed and that no guest has heard of: the kernel tells it once, and later syncs say that all is well. */
  #unheardFailure: { readonly error: unknown } | undefined

  constructor(name: string, file: VolumeFile, description: string, tap: VolumeTap, gate: NumberingGate) {
    this.#gate = gate
    this.name = name
    this.description = description
    this.sizeBytes = file.sizeBytes
    this.#file = file
    this.#tap = tap
  }

  /** Changes while its clients are connected: each write is held against it. */
  get readOnly(): boolean {
    return this.#tap.isQuiesced
  }

  /** Resolves when no write is under way. */
  async settled(): Promise<void> {
    if (this.#changeCount > 0) await new Promise<void>(resolve => this.#onSettled.push(resolve))
  }

  /**
   * What the disk may hold of a write that has no number yet is told only when it has one: who has read it may act on it on another host, and
   * a checkpoint must not have what follows without what it follows from.
   */
  async read(offsetBytes: number, target: Uint8Array): Promise<void> {
    await this.#file.read(target, offsetBytes)
    const writes = this.#locks.writesOver(offsetBytes, offsetBytes + target.length)
    if (writes !== undefined) await writes
  }

  async write(offsetBytes: number, data: Uint8Array, options: NbdWriteOptions): Promise<void> {
    await this.#change('write', offsetBytes, data.length, async () => [await this.#writeSectors(offsetBytes, data)])
    if (options.fua) await this.flush()
  }

  async zero(offsetBytes: number, lengthBytes: number, options: NbdWriteOptions): Promise<void> {
    await this.#change('zero', offsetBytes, lengthBytes, () => this.#zeroSectors(offsetBytes, lengthBytes))
    if (options.fua) await this.flush()
  }

  /** Node has no fallocate: the range is made to read as zeros, as for WRITE_ZEROES, so that the disk and the stream agree. */
  async trim(offsetBytes: number, lengthBytes: number, options: NbdWriteOptions): Promise<void> {
    await this.zero(offsetBytes, lengthBytes, options)
  }

  /** For a guest: it fails, too, where an earlier sync has failed that was nobody's request. */
  async flush(): Promise<void> {
    const before = this.#unheardFailure
    try {
      await this.sync()
    } catch (error) {
      this.#unheardFailure = undefined
      throw error
    }
    const failure = this.#unheardFailure ?? before
    this.#unheardFailure = undefined
    if (failure !== undefined) throw failure.error
  }

  /**
   * For the agent itself. Syncs that are asked for while one runs share the next: it begins after they came, so it covers what they
   * ask for.
   */
  sync(): Promise<void> {
    if (this.#queuedSync !== undefined) return this.#queuedSync
    const sync = this.#lastSync.then(async () => {
      this.#queuedSync = undefined
      try {
        await this.#file.sync()
      } catch (error) {
        this.#unheardFailure = { error }
        this.#tap.flushFailed(error)
        throw error
      }
    })
    this.#queuedSync = sync
    this.#lastSync = sync.catch(() => undefined)
    return sync
  }

  /** Node has no SEEK_HOLE either: nothing is known of holes, and data is always a right answer. */
  blockStatus(_offsetBytes: number, lengthBytes: number): Promise<readonly NbdExtent[]> {
    return Promise.resolve([{ lengthBytes, kind: 'data' }])
  }

  /**
   * Fills the target, where there is one, with what the disk has, and calls `take` in a step in which it may be numbered: no write of the range is between
   * its place on the disk and its number then.
   */
  async readSettled(
    { offsetBytes, lengthBytes }: { readonly offsetBytes: number; readonly lengthBytes: number },
    target: Uint8Array | undefined,
    take: () => void,
  ): Promise<void> {
    const hold = this.#locks.acquire(offsetBytes, offsetBytes + lengthBytes, 'look')
    try {
      if (hold.granted !== undefined) await hold.granted
      if (target !== undefined) await this.#file.read(target, offsetBytes)
      if (this.#gate.isHeld) await passGate(this.#gate)
      take()
    } finally {
      hold.release()
    }
  }

  async #change(
    command: string,
    offsetBytes: number,
    lengthBytes: number,
    submit: () => Promise<readonly SectorChange[]>,
  ): Promise<void> {
    if (this.#tap.isQuiesced)
      throw Object.assign(new Error('the machines of the VPG are being moved'), { code: 'EPERM' })
    const startBytes = alignDown(offsetBytes, sectorSizeBytes)
    const endBytes = alignUp(offsetBytes + lengthBytes, sectorSizeBytes)
    const hold = this.#locks.acquire(startBytes, endBytes)
    this.#changeCount++
    try {
      if (hold.granted !== undefined) await hold.granted
      const range = { offsetBytes: startBytes, lengthBytes: endBytes - startBytes }
      const mark = this.#tap.begin(range.offsetBytes, range.lengthBytes)
      try {
        if (mark.durable !== undefined) await mark.durable
        const changes = await submit().catch((error: unknown) => {
          this.#tap.writeFailed(range, command, error)
          throw error
        })
        if (this.#gate.isHeld) await passGate(this.#gate)
        this.#tap.changed(changes)
      } finally {
        this.#tap.end(mark)
      }
    } finally {
      hold.release()
      if (--this.#changeCount === 0) for (const go of this.#onSettled.splice(0)) go()
    }
  }

  async #writeSectors(offsetBytes: number, data: Uint8Array): Promise<SectorChange> {
    const startBytes = alignDown(offsetBytes, sectorSizeBytes)
    const endBytes = alignUp(offsetBytes + data.length, sectorSizeBytes)
    const lengthBytes = endBytes - startBytes
    const sectors = lengthBytes === data.length ? data : await this.#widen(offsetBytes, data, startBytes, lengthBytes)
    await this.#file.write(sectors, startBytes)
    return { offsetBytes: startBytes, lengthBytes, data: sectors }
  }

  /** The data with the rest of its first and last sector around it, as the disk has them. */
  async #widen(offsetBytes: number, data: Uint8Array, startBytes: number, lengthBytes: number): Promise<Uint8Array> {
    const sectors = Buffer.allocUnsafeSlow(lengthBytes)
    const lastSector = lengthBytes - sectorSizeBytes
    await this.#file.read(sectors.subarray(0, sectorSizeBytes), startBytes)
    if (lastSector > 0) await this.#file.read(sectors.subarray(lastSector), startBytes + lastSector)
    sectors.set(data, offsetBytes - startBytes)
    return sectors
  }

  async #zeroSectors(offsetBytes: number, lengthBytes: number): Promise<readonly SectorChange[]> {
    const endBytes = offsetBytes + lengthBytes
    const innerStart = alignUp(offsetBytes, sectorSizeBytes)
    const innerEnd = alignDown(endBytes, sectorSizeBytes)
    if (innerStart > innerEnd) return [await this.#writeSectors(offsetBytes, Buffer.alloc(lengthBytes))]
    const changes: SectorChange[] = []
    if (offsetBytes < innerStart)
      changes.push(await this.#writeSectors(offsetBytes, Buffer.alloc(innerStart - offsetBytes)))
    if (innerStart < innerEnd) {
      await this.#clear(innerStart, innerEnd)
      changes.push({ offsetBytes: innerStart, lengthBytes: innerEnd - innerStart, data: undefined })
    }
    if (innerEnd < endBytes) changes.push(await this.#writeSectors(innerEnd, Buffer.alloc(endBytes - innerEnd)))
    return changes
  }

  /** Pieces that are zeros already are left alone: reading a hole is cheap, and a sparse file stays sparse. */
  async #clear(startBytes: number, endBytes: number): Promise<void> {
    const held = Buffer.allocUnsafeSlow(Math.min(zeroPiece.length, endBytes - startBytes))
    for (let at = startBytes; at < endBytes; at += zeroPiece.length) {
      const lengthBytes = Math.min(zeroPiece.length, endBytes - at)
      const before = held.subarray(0, lengthBytes)
      await this.#file.read(before, at)
      if (!isZero(before)) await this.#file.write(zeroPiece.subarray(0, lengthBytes), at)
    }
  }
}
