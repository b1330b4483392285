import { Failure } from '../base/failure.ts'
import { MiB } from '../base/units.ts'
import { isZero } from '../codec/zeros.ts'
import type { VolumeFile } from '../disk/disk.ts'
import type { NbdExport, NbdExtent, NbdWriteOptions } from '../nbd/nbd.ts'
import { Rounds } from './rounds.ts'

const zeroPieceSizeBytes = 1 * MiB

/** A raw file as a disk: what a recovery is when it was committed. */
export class KeptDisk implements NbdExport {
  readonly name: string
  readonly description: string
  readonly sizeBytes: number
  readonly readOnly = false
  readonly #file: VolumeFile
  readonly #syncs: Rounds
  #broken: Error | undefined

  constructor(name: string, description: string, file: VolumeFile) {
    this.name = name
    this.description = description
    this.sizeBytes = file.sizeBytes
    this.#file = file
    this.#syncs = new Rounds(() => this.#sync())
  }

  /** Claims the file until it is closed, which it is where this fails: BUSY where an agent, for instance, serves it. */
  static async open(name: string, description: string, file: VolumeFile): Promise<KeptDisk> {
    try {
      await file.claim()
      return new KeptDisk(name, description, file)
    } catch (error) {
      await file.close()
      throw error
    }
  }

  async read(offsetBytes: number, target: Uint8Array): Promise<void> {
    await this.#file.read(target, offsetBytes)
  }

  async write(offsetBytes: number, data: Uint8Array, options: NbdWriteOptions): Promise<void> {
    if (this.#broken !== undefined) throw this.#broken
    await this.#file.write(data, offsetBytes)
    if (options.fua) await this.flush()
  }

  /** Node has no fallocate: zeros are written where there are none yet. */
  async zero(offsetBytes: number, lengthBytes: number, options: NbdWriteOptions): Promise<void> {
    if (this.#broken !== undefined) throw this.#broken
    const piece = Buffer.alloc(Math.min(lengthBytes, zeroPieceSizeBytes))
    const endBytes = offsetBytes + lengthBytes
    for (let at = offsetBytes; at < endBytes; at += piece.length) {
      const found = piece.subarray(0, Math.min(piece.length, endBytes - at))
      await this.#file.read(found, at)
      if (!isZero(found)) await this.#file.write(found.fill(0), at)
    }
    if (options.fua) await this.flush()
  }

  /** As if it had been written over: what a guest needs no more reads as zeros, before a commit and after it. */
  async trim(offsetBytes: number, lengthBytes: number, options: NbdWriteOptions): Promise<void> {
    await this.zero(offsetBytes, lengthBytes, options)
  }

  /** A failure is final: what was lost stays lost. */
  async flush(): Promise<void> {
    await this.#syncs.join()
  }

  blockStatus(_offsetBytes: number, lengthBytes: number): Promise<readonly NbdExtent[]> {
    return Promise.resolve([{ lengthBytes, kind: 'data' }])
  }

  /** Durable on return, and closed. */
  async close(): Promise<void> {
    try {
      await this.flush()
    } finally {
      await this.#file.close()
    }
  }

  async #sync(): Promise<void> {
    if (this.#broken !== undefined) throw this.#broken
    try {
      await this.#file.sync()
    } catch (cause) {
      this.#broken = new Failure('DISK_FAILED', `"${this.name}" could not be made durable`, {}, { cause })
      throw this.#broken
    }
  }
}
