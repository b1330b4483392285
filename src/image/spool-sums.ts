import { Failure } from '../base/failure.ts'
import { KiB } from '../base/units.ts'
import { crc32c, joinCrc32c } from '../codec/crc32c.ts'
import type { SpoolFile } from './types.ts'

/** What is summed at once, and read at least. Of a spool of 64 GiB the sums take 64 MiB of memory. */
const blockSizeBytes = 4 * KiB

/**
 * Checksums of a spool by blocks, in memory: what its disk returns is believed only where it is what was written. A block is put together from pieces that come in any
 * order. Without its customary first and last inversion the CRC of a sum is the sum of the CRCs, so that each piece, as if it stood alone among zeros, is added
 * to its block's.
 */
export class SpoolSums {
  /** The threads that fill and read the spool share it, one after the other. */
  readonly memory: SharedArrayBuffer
  readonly #sizeBytes: number
  readonly #sums: Uint32Array

  /** `memory` is that of another one's, of the same size, which is filled. */
  constructor(sizeBytes: number, memory?: SharedArrayBuffer) {
    const count = Math.ceil(sizeBytes / blockSizeBytes)
    this.memory = memory ?? new SharedArrayBuffer(count * Uint32Array.BYTES_PER_ELEMENT)
    this.#sizeBytes = sizeBytes
    this.#sums = new Uint32Array(this.memory)
  }

  /** Each byte once. */
  add(offsetBytes: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;) {
      const at = offsetBytes + done
      const block = Math.floor(at / blockSizeBytes)
      const part = bytes.subarray(done, Math.min(bytes.length, done + this.#endBytes(block) - at))
      const restBytes = this.#endBytes(block) - at - part.length
      const sum = sumOf(part)
      this.#sums[block]! ^= restBytes === 0 ? sum : joinCrc32c(sum, 0, restBytes)
      done += part.length
    }
  }

  /** Whole blocks that hold the range, in bytes of the spool. */
  blocksOf(startBytes: number, endBytes: number): { readonly startBytes: number; readonly endBytes: number } {
    return {
      startBytes: Math.floor(startBytes / blockSizeBytes) * blockSizeBytes,
      endBytes: this.#endBytes(Math.ceil(endBytes / blockSizeBytes) - 1),
    }
  }

  /** Whether whole blocks, from the offset on, are what was added. */
  fit(offsetBytes: number, bytes: Uint8Array): boolean {
    for (let done = 0; done < bytes.length; done += blockSizeBytes) {
      const sum = sumOf(bytes.subarray(done, done + blockSizeBytes))
      if (sum !== this.#sums[(offsetBytes + done) / blockSizeBytes]) return false
    }
    return true
  }

  #endBytes(block: number): number {
    return Math.min((block + 1) * blockSizeBytes, this.#sizeBytes)
  }
}

/** CRC-32C without its inversions. */
function sumOf(bytes: Uint8Array): number {
  return ~crc32c(bytes, 0xffffffff) >>> 0
}

/** The file with every read of it checked: DISK_FAILED where it is not what was written, or the system's error. */
export function checkedSpoolFile(file: SpoolFile, sums: SpoolSums): SpoolFile {
  return {
    read: async (target, offsetBytes) => {
      const { startBytes, endBytes } = sums.blocksOf(offsetBytes, offsetBytes + target.length)
      const blocks = Buffer.allocUnsafeSlow(endBytes - startBytes)
      await file.read(blocks, startBytes)
      if (!sums.fit(startBytes, blocks))
        throw new Failure('DISK_FAILED', 'the disk returned other bytes of a spool than were written', {
          startBytes,
          endBytes,
        })
      target.set(blocks.subarray(offsetBytes - startBytes, offsetBytes - startBytes + target.length))
    },
  }
}
