import * as path from 'node:path'
import { assert } from '../base/assert.ts'
import { Failure, isSystemError } from '../base/failure.ts'
import { alignDown, KiB, MiB } from '../base/units.ts'
import { crc32c } from '../codec/crc32c.ts'
import type { Disk, DiskFile } from '../disk/disk.ts'
import type { GrowingBuffer } from './workspace.ts'

// The data of a fold on its way from the order of time to the order of place. Each partition is a range of places; data is appended to
// partitions as it is read, and each partition is then loaded whole.

export interface Partitions {
  /** Keeps the bytes; returns where in the partition they begin. */
  append(partition: number, bytes: Uint8Array): number
  /** All that was appended to the partition; valid until the next load. */
  load(partition: number): Uint8Array
  close(): void
}

const partitionCountMax = 1024
/** Each partition has a buffer of one chunk, and its data lies in the file in chunks: large ones while the buffers together are small. */
const chunkSizeBytesMin = 32 * KiB
const chunkSizeBytesMax = 256 * KiB
const chunksSizeBytesMax = 16 * MiB

/** In how many partitions of about this size so many bytes are divided. */
export function partitionCount(sizeBytes: number, partitionSizeBytes: number): number {
  return Math.max(1, Math.min(partitionCountMax, Math.ceil(sizeBytes / partitionSizeBytes)))
}

/** One partition, in memory. */
export class MemoryPartition implements Partitions {
  readonly #bytes: Uint8Array
  #sizeBytes = 0

  constructor(buffer: GrowingBuffer, sizeBytes: number) {
    this.#bytes = buffer.reserve(sizeBytes)
  }

  append(partition: number, bytes: Uint8Array): number {
    assert(partition === 0, 'there is one partition')
    this.#bytes.set(bytes, this.#sizeBytes)
    this.#sizeBytes += bytes.length
    return this.#sizeBytes - bytes.length
  }

  load(): Uint8Array {
    return this.#bytes.subarray(0, this.#sizeBytes)
  }

  close(): void {
    this.#sizeBytes = 0
  }
}

/**
 * Partitions in the chunks of one scratch file; it is never synced, and gone after close(). What a delta is made of has its checksum anew from there on, so what
 * the disk returns is held against one of each chunk.
 */
export class FilePartitions implements Partitions {
  readonly #disk: Disk
  readonly #path: string
  readonly #file: DiskFile
  readonly #buffer: GrowingBuffer
  readonly #chunkSizeBytes: number
  readonly #open: Uint8Array[]
  readonly #sizeBytes: Float64Array
  readonly #chunks: number[][]
  /** By the number of the chunk in the file. */
  readonly #sums: number[] = []
  #chunkCount = 0

  constructor(disk: Disk, file: string, count: number, buffer: GrowingBuffer) {
    this.#disk = disk
    this.#path = file
    this.#buffer = buffer
    const chunkSizeBytes = alignDown(chunksSizeBytesMax / count, chunkSizeBytesMin)
    this.#chunkSizeBytes = Math.min(chunkSizeBytesMax, Math.max(chunkSizeBytesMin, chunkSizeBytes))
    this.#open = Array.from({ length: count }, () => new Uint8Array(this.#chunkSizeBytes))
    this.#sizeBytes = new Float64Array(count)
    this.#chunks = Array.from({ length: count }, () => [])
    this.#file = onDisk(file, () => {
      disk.makeDirectory(path.dirname(file))
      disk.remove(file)
      return disk.open(file, 'create')
    })
  }

  append(partition: number, bytes: Uint8Array): number {
    const chunkSizeBytes = this.#chunkSizeBytes
    const offsetBytes = this.#sizeBytes[partition]!
    const open = this.#open[partition]!
    for (let from = 0; from < bytes.length;) {
      const at = (offsetBytes + from) % chunkSizeBytes
      const part = bytes.subarray(from, from + chunkSizeBytes - at)
      open.set(part, at)
      from += part.length
      if (at + part.length === chunkSizeBytes) this.#writeChunk(partition, open)
    }
    this.#sizeBytes[partition] = offsetBytes + bytes.length
    return offsetBytes
  }

  #writeChunk(partition: number, chunk: Uint8Array): void {
    const number = this.#chunkCount++
    this.#sums.push(crc32c(chunk))
    onDisk(this.#path, () => this.#file.write([chunk], number * this.#chunkSizeBytes))
    this.#chunks[partition]!.push(number)
  }

  load(partition: number): Uint8Array {
    const sizeBytes = this.#sizeBytes[partition]!
    const bytes = this.#buffer.reserve(sizeBytes).subarray(0, sizeBytes)
    const chunks = this.#chunks[partition]!
    chunks.forEach((number, index) => {
      const target = bytes.subarray(index * this.#chunkSizeBytes, (index + 1) * this.#chunkSizeBytes)
      const count = onDisk(this.#path, () => this.#file.read(target, number * this.#chunkSizeBytes))
      if (count !== target.length) throw this.#isOther('is shorter than what was written to it')
      if (crc32c(target) !== this.#sums[number]) throw this.#isOther('returns other bytes than were written to it')
    })
    const written = chunks.length * this.#chunkSizeBytes
    bytes.set(this.#open[partition]!.subarray(0, sizeBytes - written), written)
    return bytes
  }

  #isOther(how: string): Failure {
    return new Failure('DISK_FAILED', `the scratch file ${this.#path} ${how}`, { file: this.#path })
  }

  /** What a disk that fails leaves of it is removed by the next fold of the VPG, or the next start. */
  close(): void {
    for (const step of [() => this.#file.close(), () => this.#disk.remove(this.#path)]) {
      try {
        step()
      } catch (error) {
        if (!isSystemError(error)) throw error
      }
    }
  }
}

function onDisk<T>(file: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    if (error instanceof Failure) throw error
    const code = (error as NodeJS.ErrnoException).code
    throw new Failure(
      'DISK_FAILED',
      `the scratch file ${file} cannot be used (${code ?? String(error)}); folding needs room on its disk`,
      { file, errno: code },
      { cause: error },
    )
  }
}
