import * as fs from 'node:fs'
import * as path from 'node:path'
import { RealFile, type DiskFile } from './real-file.ts'
import { readWhole } from './volume-file.ts'

/**
 * A file that has no name: its room is free again when it is closed, or its process has ended, however. It is never synced. All threads of the process may use its
 * descriptor until it is closed.
 */
export class UnnamedFile {
  readonly descriptor: number
  readonly writer: DiskFile
  #readCount = 0
  #onIdle: (() => void) | undefined

  private constructor(descriptor: number) {
    this.descriptor = descriptor
    this.writer = new RealFile(descriptor)
  }

  /** The name is taken for a moment; what a killed process, or a disk that failed to remove it, may have left under it goes. Throws the system's error. */
  static create(name: string): UnnamedFile {
    fs.mkdirSync(path.dirname(name), { recursive: true, mode: 0o750 })
    fs.rmSync(name, { force: true })
    const descriptor = fs.openSync(name, 'wx+', 0o600)
    try {
      fs.rmSync(name)
    } catch (error) {
      fs.closeSync(descriptor)
      throw error
    }
    return new UnnamedFile(descriptor)
  }

  /** One that another thread has created, and closes. */
  static of(descriptor: number): UnnamedFile {
    return new UnnamedFile(descriptor)
  }

  /** Fills the whole target, in the thread pool. */
  async read(target: Uint8Array, offsetBytes: number): Promise<void> {
    this.#readCount++
    try {
      await readWhole(this.descriptor, target, offsetBytes)
    } finally {
      if (--this.#readCount === 0) this.#onIdle?.()
    }
  }

  /** When the reads that are under way have ended; no other may be begun. */
  async close(): Promise<void> {
    if (this.#readCount > 0) await new Promise<void>(resolve => (this.#onIdle = resolve))
    this.writer.close()
  }
}
