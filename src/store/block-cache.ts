import * as path from 'node:path'
import type { FileHandle } from 'node:fs/promises'
import { isSystemError } from '../base/failure.ts'
import { cacheBlockSizeBytes } from '../base/limits.ts'
import { crc32c } from '../codec/crc32c.ts'
import type { FileCalls } from '../disk/disk.ts'
import type { CacheFacts } from './object-store.ts'

// Blocks of objects, kept on the local disk: a file of slots. Which block is in which slot, and its checksum, is known in memory alone, so a cache begins
// empty, and its file may be deleted, cut or scribbled over at any time: what does not pass its checksum is not there.
//
// What is read once by a long read (an export) must not push out what is read again and again. So there are two lines, each by its last use: blocks
// come into the first, and from it into the second when they are wanted again; the first gives way while it has more than a fifth of all.

interface Entry {
  readonly slot: number
  /** Of the block, from its start. */
  readonly sizeBytes: number
  readonly crc32c: number
}

const firstLineShare = 1 / 5

export class BlockCache {
  readonly #file: FileHandle
  readonly #slotCount: number
  readonly #first = new Map<string, Entry>()
  readonly #second = new Map<string, Entry>()
  readonly #free: number[] = []
  #slotsUsed = 0
  #hitSizeBytes = 0
  #missSizeBytes = 0
  #evictedCount = 0
  #failedCount = 0

  private constructor(file: FileHandle, slotCount: number) {
    this.#file = file
    this.#slotCount = slotCount
  }

  /** An empty one, in place of any file of that name. Undefined where the disk has no place for it: nothing is cached then. */
  static async open(calls: FileCalls, file: string, sizeBytesMax: number): Promise<BlockCache | undefined> {
    try {
      await calls.mkdir(path.dirname(file), { recursive: true })
      await calls.unlink(file).catch(() => undefined)
      const slotCount = Math.floor(sizeBytesMax / cacheBlockSizeBytes)
      return slotCount === 0 ? undefined : new BlockCache(await calls.open(file, 'wx+', 0o600), slotCount)
    } catch (error) {
      if (!isSystemError(error)) throw error
      return undefined
    }
  }

  get facts(): CacheFacts {
    return {
      sizeBytes: (this.#first.size + this.#second.size) * cacheBlockSizeBytes,
      sizeBytesMax: this.#slotCount * cacheBlockSizeBytes,
      hitSizeBytes: this.#hitSizeBytes,
      missSizeBytes: this.#missSizeBytes,
      evictedCount: this.#evictedCount,
      failedCount: this.#failedCount,
    }
  }

  /** How much of the block is here, from its start. */
  has(name: string): number {
    return (this.#second.get(name) ?? this.#first.get(name))?.sizeBytes ?? 0
  }

  /** The block from its start, as much of it as is here; undefined where that is less than `sizeBytes`. */
  async read(name: string, sizeBytes: number): Promise<Uint8Array | undefined> {
    const entry = this.#second.get(name) ?? this.#first.get(name)
    if (entry === undefined || entry.sizeBytes < sizeBytes) return undefined
    const bytes = new Uint8Array(entry.sizeBytes)
    const offset = entry.slot * cacheBlockSizeBytes
    const { bytesRead } = await this.#file.read(bytes, 0, bytes.length, offset).catch(noBytes)
    if (this.#second.get(name) !== entry && this.#first.get(name) !== entry) return undefined // its slot is another's by now
    this.#first.delete(name)
    this.#second.delete(name)
    if (bytesRead < bytes.length || crc32c(bytes) !== entry.crc32c) {
      this.#free.push(entry.slot)
      this.#failedCount++
      return undefined
    }
    this.#second.set(name, entry)
    return bytes
  }

  /** Keeps the block, of which these are the first bytes, in place of less of it. A disk that does not take it costs nothing but that. */
  async keep(name: string, bytes: Uint8Array): Promise<void> {
    if (this.has(name) >= bytes.length) return
    const slot = this.#takeSlot()
    if (slot === undefined) return
    try {
      const { bytesWritten } = await this.#file.write(bytes, 0, bytes.length, slot * cacheBlockSizeBytes)
      if (bytesWritten < bytes.length || this.has(name) >= bytes.length) {
        this.#free.push(slot)
        return
      }
      const before = this.#first.get(name) ?? this.#second.get(name)
      const line = this.#second.has(name) ? this.#second : this.#first
      if (before !== undefined) this.#free.push(before.slot)
      line.delete(name)
      line.set(name, { slot, sizeBytes: bytes.length, crc32c: crc32c(bytes) })
    } catch (error) {
      this.#free.push(slot)
      if (!isSystemError(error)) throw error
      this.#failedCount++
    }
  }

  count(hitSizeBytes: number, missSizeBytes: number): void {
    this.#hitSizeBytes += hitSizeBytes
    this.#missSizeBytes += missSizeBytes
  }

  async close(): Promise<void> {
    await this.#file.close()
  }

  #takeSlot(): number | undefined {
    const free = this.#free.pop()
    if (free !== undefined) return free
    if (this.#slotsUsed < this.#slotCount) return this.#slotsUsed++
    const all = this.#first.size + this.#second.size
    const line = this.#first.size > all * firstLineShare || this.#second.size === 0 ? this.#first : this.#second
    for (const [oldest, { slot }] of line) {
      line.delete(oldest)
      this.#evictedCount++
      return slot
    }
    return undefined // every slot is being written
  }
}

function noBytes(error: unknown): { bytesRead: number } {
  if (!isSystemError(error)) throw error
  return { bytesRead: 0 }
}
