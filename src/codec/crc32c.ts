import { crc32c as native } from '@node-rs/crc32'

/** CRC-32C (Castagnoli) of the bytes, continuing `before` where given: crc32c(b, crc32c(a)) is that of a then b. */
export function crc32c(bytes: Uint8Array, before = 0): number {
  return native(bytes as Buffer, before)
}
