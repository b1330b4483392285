import { crc32c as native } from '@node-rs/crc32'

/** CRC-32C (Castagnoli) of the bytes, continuing `before` where given: crc32c(b, crc32c(a)) is that of a then b. */
export function crc32c(bytes: Uint8Array, before = 0): number {
  return native(bytes as Buffer, before)
}

/** The CRC-32C of a then b, of crc32c(a), crc32c(b) and the size of b, without reading either again. */
export function joinCrc32c(first: number, second: number, secondSizeBytes: number): number {
  return (multiply(powerOfX(secondSizeBytes), first) ^ second) >>> 0
}

// Polynomials over GF(2) modulo Castagnoli's, bit-reflected as the checksum is: the top bit is x^0. Appending n bytes to
// a message multiplies its checksum by x^(8n).

const polynomial = 0x82f63b78

function multiply(a: number, b: number): number {
  let product = 0
  for (let bit = 0x80000000, factor = b; bit !== 0; bit >>>= 1) {
    if ((a & bit) !== 0) product ^= factor
    factor = (factor & 1) === 0 ? factor >>> 1 : (factor >>> 1) ^ polynomial
  }
  return product
}

/** x^(8 * 2^k), for k from 0. */
const squares: number[] = [0x00800000]
for (let k = 1; k < 32; k++) squares.push(multiply(squares[k - 1] ?? 0, squares[k - 1] ?? 0))

function powerOfX(sizeBytes: number): number {
  let power = 0x80000000
  for (let k = 0, rest = sizeBytes >>> 0; rest !== 0; k++, rest >>>= 1) {
    if ((rest & 1) !== 0) power = multiply(squares[k] ?? 0, power)
  }
  return power
}
