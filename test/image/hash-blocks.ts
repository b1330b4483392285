import { createHash } from 'node:crypto'
import t from 'tap'
import { hashBlocks, type Image, type VolumeRange } from '../../src/image/image.ts'

const never = new AbortController().signal
const sizeBytes = 10 * 4096 + 512

/** An image of plain bytes, that counts what is read of it. */
class PlainImage implements Pick<Image, 'volumes' | 'read' | 'nextData'> {
  readonly volumes = [{ number: 1, sizeBytes, included: true }]
  readonly bytes = Buffer.alloc(sizeBytes)
  readBytes = 0

  async read(_volume: number, offsetBytes: number, target: Uint8Array): Promise<void> {
    if (offsetBytes + target.length > sizeBytes) throw new Error('a read past the end')
    target.set(this.bytes.subarray(offsetBytes, offsetBytes + target.length))
    this.readBytes += target.length
  }

  async nextData(_volume: number, { startBytes, endBytes }: VolumeRange): Promise<number> {
    const found = this.bytes.subarray(startBytes, endBytes).findIndex(byte => byte !== 0)
    return found < 0 ? endBytes : startBytes + found
  }
}

function expected(bytes: Buffer): Buffer {
  return bytes.every(byte => byte === 0)
    ? Buffer.alloc(16)
    : createHash('sha256').update(bytes).digest().subarray(0, 16)
}

t.test('the hash of a block is half its SHA-256, zeros for zeros; the last block may be short', async t => {
  const image = new PlainImage()
  image.bytes.fill('data', 4096 + 700, 3 * 4096)
  image.bytes.fill(9, sizeBytes - 512)
  for (const [offsetBytes, blockCount] of [
    [0, 11],
    [4096, 1],
    [3 * 4096, 4],
    [10 * 4096, 1],
  ] as const) {
    const hashes = await hashBlocks(image as never, { volume: 1, offsetBytes, blockSizeBytes: 4096, blockCount }, never)
    const wanted = Array.from({ length: blockCount }, (_, block) => {
      const start = offsetBytes + block * 4096
      return expected(image.bytes.subarray(start, Math.min(sizeBytes, start + 4096)))
    })
    t.ok(Buffer.from(hashes).equals(Buffer.concat(wanted)), `${blockCount} blocks at ${offsetBytes}`)
  }
})

t.test('what holds nothing is not read', async t => {
  const image = new PlainImage()
  const run = { volume: 1, offsetBytes: 0, blockSizeBytes: 4096, blockCount: 11 }
  t.ok((await hashBlocks(image as never, run, never)).every(byte => byte === 0))
  t.equal(image.readBytes, 0)
})
