import { createHash } from 'node:crypto'
import { hashSizeBytes } from '../base/limits.ts'
import { alignDown, MiB } from '../base/units.ts'
import { isZero } from '../codec/zeros.ts'
import { imagePace } from './resolved-region.ts'
import type { Image } from './types.ts'

/** Blocks of a volume; the last may reach past the volume's end, and is then shorter. */
export interface BlockRun {
  readonly volume: number
  /** A multiple of the block's size. */
  readonly offsetBytes: number
  readonly blockSizeBytes: number
  readonly blockCount: number
}

/** Read at once; a block is never larger. */
const readSizeBytes = 1 * MiB

/** The hashes of the blocks, one behind the other: see HashReply of the protocol. Where the image holds nothing nothing is read. */
export async function hashBlocks(image: Image, run: BlockRun, signal: AbortSignal): Promise<Uint8Array> {
  const { volume, offsetBytes, blockSizeBytes, blockCount } = run
  const hashes = new Uint8Array(blockCount * hashSizeBytes)
  const sizeBytes = image.volumes.find(({ number }) => number === volume)?.sizeBytes ?? 0
  const endBytes = Math.min(offsetBytes + blockCount * blockSizeBytes, sizeBytes)
  const buffer = new Uint8Array(Math.min(readSizeBytes, blockCount * blockSizeBytes))
  const pace = imagePace(signal)
  let at = offsetBytes
  while (at < endBytes) {
    const dataBytes = await image.nextData(volume, { startBytes: at, endBytes }, signal)
    if (dataBytes === endBytes) break
    at = alignDown(dataBytes, blockSizeBytes)
    const bytes = buffer.subarray(0, Math.min(buffer.length, endBytes - at))
    await image.read(volume, at, bytes, signal)
    for (let start = 0; start < bytes.length; start += blockSizeBytes) {
      const block = bytes.subarray(start, start + blockSizeBytes)
      if (isZero(block)) continue
      const hash = createHash('sha256').update(block).digest()
      hashes.set(hash.subarray(0, hashSizeBytes), ((at + start - offsetBytes) / blockSizeBytes) * hashSizeBytes)
    }
    at += bytes.length
    await pace.step()
  }
  return hashes
}
