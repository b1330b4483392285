import { decompressBlock } from '../codec/lz4.ts'
import type { BatchView } from './messages.ts'

/** Writes the raw payload of the batch to `target`, which has exactly its raw size. False when a block does not decompress. */
export function decompressPayload(batch: BatchView, target: Uint8Array): boolean {
  const { payload, blockCount } = batch
  let storedStart = 0
  let rawStart = 0
  for (let block = 0; block < blockCount; block++) {
    const stored = payload.subarray(storedStart, storedStart + batch.blockStoredSizeBytes(block))
    const raw = target.subarray(rawStart, rawStart + batch.blockRawSizeBytes(block))
    if (!restoreBlock(stored, raw)) return false
    storedStart += stored.length
    rawStart += raw.length
  }
  return rawStart === target.length
}

/** Whether every block decompresses to its raw size. `scratch` has room for a block of the largest size. */
export function payloadDecompresses(batch: BatchView, scratch: Uint8Array): boolean {
  const { payload, blockCount } = batch
  let storedStart = 0
  for (let block = 0; block < blockCount; block++) {
    const storedSizeBytes = batch.blockStoredSizeBytes(block)
    const rawSizeBytes = batch.blockRawSizeBytes(block)
    if (storedSizeBytes !== rawSizeBytes) {
      const stored = payload.subarray(storedStart, storedStart + storedSizeBytes)
      if (!decompressBlock(stored, scratch.subarray(0, rawSizeBytes))) return false
    }
    storedStart += storedSizeBytes
  }
  return true
}

/** Writes one block to `target`, which has exactly its raw size. False when it does not decompress. */
export function decompressBatchBlock(batch: BatchView, block: number, target: Uint8Array): boolean {
  let storedStart = 0
  for (let before = 0; before < block; before++) storedStart += batch.blockStoredSizeBytes(before)
  const stored = batch.payload.subarray(storedStart, storedStart + batch.blockStoredSizeBytes(block))
  return target.length === batch.blockRawSizeBytes(block) && restoreBlock(stored, target)
}

/** Writes the raw bytes of a stored block to `raw`, which has exactly their size. False when it does not decompress. */
export function restoreBlock(stored: Uint8Array, raw: Uint8Array): boolean {
  if (stored.length !== raw.length) return decompressBlock(stored, raw)
  raw.set(stored)
  return true
}
