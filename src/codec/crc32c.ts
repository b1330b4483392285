import { createRequire } from 'node:module'
import { crc32c as crc32cOfNodeRs } from '@node-rs/crc32'
import { loadedNatively } from '../base/threads.ts'

// Every byte is summed several times on its way, so this is the largest single piece of work of the hot path. @node-rs/crc32 is everywhere
// and makes a call of every 8 bytes: 3 to 5 GB/s. The AWS Common Runtime folds 256 at once where the processor can: 13 to 17 GB/s
// of pieces of 16 KiB and more. Of it only this one function is used, straight from its binary: its own entry starts a program to learn the
// C library. A process that loads the binary for the first time pays 100 ms, so one that sums little never does.

type Crc32c = (bytes: Uint8Array, before: number) => number

const longSizeBytesMin = 1024
const crc32cOfFew: Crc32c = (bytes, before) => crc32cOfNodeRs(bytes as Buffer, before)
let crc32cOfMany: Crc32c | undefined

/** CRC-32C (Castagnoli) of the bytes, continuing `before` where given: crc32c(b, crc32c(a)) is that of a then b. */
export function crc32c(bytes: Uint8Array, before = 0): number {
  if (bytes.length < longSizeBytesMin) return crc32cOfFew(bytes, before)
  crc32cOfMany ??= loadedNatively(() => crc32cOfAwsCrt('glibc') ?? crc32cOfAwsCrt('musl') ?? crc32cOfFew)
  return (crc32cOfMany ?? crc32cOfFew)(bytes, before)
}

/** Has the first long checksum wait for nothing: for the start of who will need one soon. */
export function prepareCrc32c(): void {
  crc32c(new Uint8Array(longSizeBytesMin))
}

/** Undefined where the package was left out, has no binary for this machine, or does not give the checksum that it should. */
function crc32cOfAwsCrt(libc: string): Crc32c | undefined {
  try {
    const file = `aws-crt/dist/bin/${process.platform}-${process.arch}-${libc}/aws-crt-nodejs.node`
    const { checksums_crc32c: found } = createRequire(import.meta.url)(file) as { readonly checksums_crc32c: Crc32c }
    return found(Buffer.from('123456789'), 0) === 0xe3069283 ? found : undefined
  } catch {
    return undefined
  }
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
