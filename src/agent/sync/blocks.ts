import { hashSizeBytes } from '../../base/limits.ts'
import { isZero } from '../../codec/zeros.ts'
import type { SectorChange } from '../volume.ts'
import { hashBlockSizeBytes, hashOf } from './hashes.ts'

/**
 * What has to be sent of a piece of the disk: all blocks, or with the VRA's hashes of them (the first is of the piece's first block)
 * those that differ. Neighbours of one sort are one change; zeros have no data.
 */
export function planBlocks(offsetBytes: number, piece: Uint8Array, hashes: Uint8Array | undefined): SectorChange[] {
  const changes: SectorChange[] = []
  for (let at = 0; at < piece.length; at += hashBlockSizeBytes) {
    const block = piece.subarray(at, at + hashBlockSizeBytes)
    if (hashes !== undefined && isAlike(block, hashes, at / hashBlockSizeBytes)) continue
    const zero = isZero(block)
    const last = changes.at(-1)
    const joins = last !== undefined && last.offsetBytes + last.lengthBytes === offsetBytes + at
    if (joins && (last.data === undefined) === zero) {
      const startBytes = last.offsetBytes - offsetBytes
      const endBytes = at + block.length
      changes[changes.length - 1] = changeOf(offsetBytes, piece, startBytes, endBytes, zero)
    } else changes.push(changeOf(offsetBytes, piece, at, at + block.length, zero))
  }
  return changes
}

function isAlike(block: Uint8Array, hashes: Uint8Array, index: number): boolean {
  return hashOf(block).equals(hashes.subarray(index * hashSizeBytes, (index + 1) * hashSizeBytes))
}

function changeOf(offsetBytes: number, piece: Uint8Array, start: number, end: number, zero: boolean): SectorChange {
  return {
    offsetBytes: offsetBytes + start,
    lengthBytes: end - start,
    data: zero ? undefined : piece.subarray(start, end),
  }
}
