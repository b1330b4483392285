import { assert } from '../base/assert.ts'
import { KiB, MiB, sectorSizeBytes } from '../base/units.ts'
import { crc32c } from '../codec/crc32c.ts'
import type { DiskFile } from '../disk/disk.ts'
import { Uint32Column } from '../mirror/mirror.ts'
import { spoolBlockSizeBytes, type SpoolSums } from './spool-sums.ts'

// Pieces of a spool come in the order of their batches. Written where they belong, each would be a write of its own, of 4 KiB and less. So the file is divided
// into partitions, ranges of places. What comes for one is first written to it in the order in which it comes, in large chunks; in the end it is as
// much as the partition is long. Then each partition is read, put in order in memory, and written once more:
//
//   first   | piece 7 | piece 2 | piece 9 | ...
//   then    | piece 1 | piece 2 | piece 3 | ...
//
// What the disk returns in between is held against a checksum, and what is there in the end has those of SpoolSums.

export interface PartitionSizes {
  /** Whole blocks of SpoolSums. */
  readonly partitionSizeBytes: number
  /** Every partition has so much in memory. */
  readonly chunkSizeBytes: number
}

const partitionSizeBytesMin = 16 * MiB
const partitionCountMax = 1024
/** Writes of this size cost the least: of larger ones the page cache takes memory in pieces that it finds less easily. */
const chunkSizeBytes = 32 * KiB

/** For a spool of so many bytes. Of 64 GiB: 1,024 partitions of 64 MiB, which have 32 MiB of memory, and 128 MiB where they are put in order. */
export function partitionSizesOf(sizeBytes: number): PartitionSizes {
  const wanted = Math.max(partitionSizeBytesMin, sizeBytes / partitionCountMax)
  return { partitionSizeBytes: Math.ceil(wanted / spoolBlockSizeBytes) * spoolBlockSizeBytes, chunkSizeBytes }
}

/** Where a piece lies in its partition, and how long it is, in one number of 32 bits; and so long it may be. */
const arrivalSectorsMax = 2048

export class SpoolPartitions {
  readonly count: number
  readonly #sizeBytes: number
  readonly #sizes: PartitionSizes
  readonly #file: Pick<DiskFile, 'read' | 'write'>
  readonly #chunks: Uint8Array
  /** By partition: so much has come, */
  readonly #usedBytes: Uint32Array
  /** ...which pieces, as they came, */
  readonly #arrivals: (Uint32Column | undefined)[]
  /** ...and the checksum of those on the disk. */
  readonly #sums: Uint32Array
  #loaded = new Uint8Array(0)
  #ordered = new Uint8Array(0)

  constructor(sizeBytes: number, file: Pick<DiskFile, 'read' | 'write'>, sizes = partitionSizesOf(sizeBytes)) {
    const sectors = sizes.partitionSizeBytes / sectorSizeBytes
    assert(sectors * arrivalSectorsMax <= 2 ** 32, 'a place in a partition and a size fit 32 bits')
    assert(sizes.partitionSizeBytes % spoolBlockSizeBytes === 0, 'no block of SpoolSums is in two partitions')
    this.count = Math.ceil(sizeBytes / sizes.partitionSizeBytes)
    this.#sizeBytes = sizeBytes
    this.#sizes = sizes
    this.#file = file
    this.#chunks = new Uint8Array(this.count * sizes.chunkSizeBytes)
    this.#usedBytes = new Uint32Array(this.count)
    this.#arrivals = Array.from({ length: this.count }, () => new Uint32Column())
    this.#sums = new Uint32Array(this.count)
  }

  /** Each byte of the spool once, in any order. Returns how many bytes it has written. */
  append(offsetBytes: number, bytes: Uint8Array): number {
    const { partitionSizeBytes } = this.#sizes
    const partSizeBytesMax = (arrivalSectorsMax - 1) * sectorSizeBytes
    let writtenBytes = 0
    for (let done = 0; done < bytes.length;) {
      const at = offsetBytes + done
      const partition = Math.floor(at / partitionSizeBytes)
      const inPartition = at - partition * partitionSizeBytes
      const sizeBytes = Math.min(bytes.length - done, partitionSizeBytes - inPartition, partSizeBytesMax)
      const part = sizeBytes === bytes.length ? bytes : bytes.subarray(done, done + sizeBytes)
      this.#arrivals[partition]!.push((inPartition / sectorSizeBytes) * arrivalSectorsMax + sizeBytes / sectorSizeBytes)
      writtenBytes += this.#appendTo(partition, part)
      done += sizeBytes
    }
    return writtenBytes
  }

  #appendTo(partition: number, bytes: Uint8Array): number {
    const { chunkSizeBytes, partitionSizeBytes } = this.#sizes
    const chunkAt = partition * chunkSizeBytes
    let usedBytes = this.#usedBytes[partition]!
    let writtenBytes = 0
    for (let done = 0; done < bytes.length;) {
      const inChunk = usedBytes % chunkSizeBytes
      const sizeBytes = Math.min(bytes.length - done, chunkSizeBytes - inChunk)
      this.#chunks.set(sizeBytes === bytes.length ? bytes : bytes.subarray(done, done + sizeBytes), chunkAt + inChunk)
      done += sizeBytes
      usedBytes += sizeBytes
      if (inChunk + sizeBytes < chunkSizeBytes) continue
      const chunk = this.#chunks.subarray(chunkAt, chunkAt + chunkSizeBytes)
      this.#sums[partition] = crc32c(chunk, this.#sums[partition])
      this.#file.write([chunk], partition * partitionSizeBytes + usedBytes - chunkSizeBytes)
      writtenBytes += chunkSizeBytes
    }
    this.#usedBytes[partition] = usedBytes
    return writtenBytes
  }

  /** When all of it has come. False, and it is not in order, where the disk returns other bytes than were written. */
  putInOrder(partition: number, sums: SpoolSums): boolean {
    const startBytes = partition * this.#sizes.partitionSizeBytes
    const sizeBytes = Math.min(this.#sizes.partitionSizeBytes, this.#sizeBytes - startBytes)
    assert(this.#usedBytes[partition] === sizeBytes, 'every byte of the spool has come, once')
    if (this.#loaded.length < sizeBytes) {
      this.#loaded = new Uint8Array(sizeBytes)
      this.#ordered = new Uint8Array(sizeBytes)
    }
    if (!this.#load(partition, startBytes, this.#loaded.subarray(0, sizeBytes))) return false
    let from = 0
    for (const arrival of this.#arrivals[partition]!.values()) {
      const pieceSizeBytes = (arrival % arrivalSectorsMax) * sectorSizeBytes
      const to = Math.floor(arrival / arrivalSectorsMax) * sectorSizeBytes
      this.#ordered.set(this.#loaded.subarray(from, from + pieceSizeBytes), to)
      from += pieceSizeBytes
    }
    this.#arrivals[partition] = undefined
    const ordered = this.#ordered.subarray(0, sizeBytes)
    sums.set(startBytes, ordered)
    this.#file.write([ordered], startBytes)
    return true
  }

  #load(partition: number, startBytes: number, target: Uint8Array): boolean {
    const { chunkSizeBytes } = this.#sizes
    const inMemoryBytes = target.length % chunkSizeBytes
    const onDisk = target.subarray(0, target.length - inMemoryBytes)
    const chunkAt = partition * chunkSizeBytes
    target.set(this.#chunks.subarray(chunkAt, chunkAt + inMemoryBytes), onDisk.length)
    if (onDisk.length === 0) return true
    return this.#file.read(onDisk, startBytes) === onDisk.length && crc32c(onDisk) === this.#sums[partition]
  }
}
