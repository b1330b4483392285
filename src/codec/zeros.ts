import { alignDown } from '../base/units.ts'

const zeros = Buffer.alloc(64 * 1024)

/** True when every byte is 0. */
export function isZero(bytes: Uint8Array): boolean {
  // Most data is told from zeros by its first byte or its last.
  if (bytes.length === 0) return true
  if (bytes[0] !== 0 || bytes[bytes.length - 1] !== 0) return false
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const whole = alignDown(buffer.length, zeros.length)
  for (let at = 0; at < whole; at += zeros.length) {
    if (buffer.compare(zeros, 0, zeros.length, at, at + zeros.length) !== 0) return false
  }
  return buffer.compare(zeros, 0, buffer.length - whole, whole) === 0
}
