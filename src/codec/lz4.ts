import { createRequire } from 'node:module'

interface NativeLz4 {
  encodeBound(sizeBytes: number): number
  encodeBlock(source: Buffer, target: Buffer): number
  decodeBlock(source: Buffer, target: Buffer): number
}

const native = createRequire(import.meta.url)('lz4') as NativeLz4

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** How large the LZ4 block of so many raw bytes can become. */
export function compressedSizeBytesMax(rawSizeBytes: number): number {
  return native.encodeBound(rawSizeBytes)
}

/** Writes the LZ4 block of `raw` to the start of `target`; returns its size, or 0 where `target` is too small. */
export function compressBlock(raw: Uint8Array, target: Uint8Array): number {
  return native.encodeBlock(asBuffer(raw), asBuffer(target))
}

/**
 * Decompresses an LZ4 block to exactly fill `target`. False when the block is malformed or has another raw size; never
 * writes outside `target`.
 */
export function decompressBlock(stored: Uint8Array, target: Uint8Array): boolean {
  return native.decodeBlock(asBuffer(stored), asBuffer(target)) === target.length
}
