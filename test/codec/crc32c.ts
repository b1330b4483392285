import t from 'tap'
import { crc32c, joinCrc32c } from '../../src/codec/crc32c.ts'

// Whichever library gives the checksum on this machine: every size that its loops treat apart, at every alignment, in memory of
// either kind.

const sizes = [
  0, 1, 3, 4, 7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 128, 255, 256, 257, 1023, 1024, 1025, 4096, 65_537, 1_048_577,
]

/** Bit by bit, as the polynomial is written. */
function slowCrc32c(bytes: Uint8Array, before: number): number {
  let sum = ~before
  for (const byte of bytes) {
    sum ^= byte
    for (let bit = 0; bit < 8; bit++) sum = (sum & 1) === 0 ? sum >>> 1 : (sum >>> 1) ^ 0x82f63b78
  }
  return ~sum >>> 0
}

function filled(memory: ArrayBufferLike, offsetBytes: number): Uint8Array {
  const bytes = new Uint8Array(memory, offsetBytes)
  for (let index = 0; index < bytes.length; index++) bytes[index] = (index * 167 + (index >> 7)) & 0xff
  return bytes
}

t.test(
  'the checksum is that of the polynomial, for every size and alignment, in memory of one thread or of several',
  async t => {
    for (const sizeBytes of sizes) {
      for (let offsetBytes = 0; offsetBytes < (sizeBytes > 4096 ? 2 : 9); offsetBytes++) {
        const own = filled(new ArrayBuffer(offsetBytes + sizeBytes), offsetBytes)
        const shared = filled(new SharedArrayBuffer(offsetBytes + sizeBytes), offsetBytes)
        const expected = slowCrc32c(own, 0xdeadbeef)
        t.equal(crc32c(own, 0xdeadbeef), expected, `${sizeBytes} bytes at ${offsetBytes}`)
        t.equal(crc32c(shared, 0xdeadbeef), expected, `${sizeBytes} shared bytes at ${offsetBytes}`)
      }
    }
    t.equal(crc32c(Buffer.from('123456789')), 0xe3069283, 'the check value of the catalogues')
  },
)

t.test('a checksum goes on where another ends, and two are joined without their bytes', async t => {
  const whole = filled(new ArrayBuffer(100_000), 0)
  for (const cut of [0, 1, 8, 4096, 65_537, 100_000]) {
    const [first, second] = [whole.subarray(0, cut), whole.subarray(cut)]
    t.equal(crc32c(second, crc32c(first)), crc32c(whole), `cut at ${cut}`)
    t.equal(joinCrc32c(crc32c(first), crc32c(second), second.length), crc32c(whole), `joined at ${cut}`)
  }
})
