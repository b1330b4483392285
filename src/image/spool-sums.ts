import { Failure } from '../base/failure.ts'
import { KiB } from '../base/units.ts'
import { crc32c } from '../codec/crc32c.ts'
import type { SpoolFile } from './types.ts'

/** What is summed at once, and read at least. Of a spool of 64 GiB the sums take 64 MiB of memory. */
export const spoolBlockSizeBytes = 4 * KiB

/** Checksums of a spool by blocks, in memory: what its disk returns is believed only where it is what was written. */
export class SpoolSums {
  /** The threads that fill and read the spool share it, one after the other. */
  readonly memory: SharedArrayBuffer
  readonly #sizeBytes: number
  readonly #sums: Uint32Array

  /** `memory` is that of another one's, of the same size, which is filled. */
  constructor(sizeBytes: number, memory?: SharedArrayBuffer) {
    const count = Math.ceil(sizeBytes / spoolBlockSizeBytes)
    this.memory = memory ?? new SharedArrayBuffer(count * Uint32Array.BYTES_PER_ELEMENT)
    this.#sizeBytes = sizeBytes
    this.#sums = new Uint32Array(this.memory)
  }

  /** Of whole blocks, from the offset on; the spool's last one may be shorter. */
  set(offsetBytes: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; done += spoolBlockSizeBytes)
      this.#sums[(offsetBytes + done) / spoolBlockSizeBytes] = crc32c(bytes.subarray(done, done + spoolBlockSizeBytes))
  }

  /** Whole blocks that hold the range, in bytes of the spool. */
  blocksOf(startBytes: number, endBytes: number): { readonly startBytes: number; readonly endBytes: number } {
    return {
      startBytes: Math.floor(startBytes / spoolBlockSizeBytes) * spoolBlockSizeBytes,
      endBytes: this.#endBytes(Math.ceil(endBytes / spoolBlockSizeBytes) - 1),
    }
  }

  /** Whether whole blocks, from the offset on, are what was there. */
  fit(offsetBytes: number, bytes: Uint8Array): boolean {
    for (let done = 0; done < bytes.length; done += spoolBlockSizeBytes) {
      const sum = crc32c(bytes.subarray(done, done + spoolBlockSizeBytes))
      if (sum !== this.#sums[(offsetBytes + done) / spoolBlockSizeBytes]) return false
    }
    return true
  }

  #endBytes(block: number): number {
    return Math.min((block + 1) * spoolBlockSizeBytes, this.#sizeBytes)
  }
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
