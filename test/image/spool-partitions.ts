import assert from 'node:assert'
import t from 'tap'
import { GiB, KiB, MiB } from '../../src/base/units.ts'
import { partitionSizesOf, SpoolPartitions } from '../../src/image/spool-partitions.ts'
import { SpoolSums } from '../../src/image/spool-sums.ts'
import { seeded } from '../support/mirror-history.ts'

const sizes = { partitionSizeBytes: 16 * KiB, chunkSizeBytes: 4 * KiB }

/** A file in memory, and where it was written, in order. */
function memoryFile(sizeBytes: number) {
  const bytes = new Uint8Array(sizeBytes)
  const writes: { readonly offsetBytes: number; readonly sizeBytes: number }[] = []
  return {
    bytes,
    writes,
    read: (target: Uint8Array, offsetBytes: number): number => {
      target.set(bytes.subarray(offsetBytes, offsetBytes + target.length))
      return target.length
    },
    write: (pieces: readonly Uint8Array[], offsetBytes: number): void => {
      assert.equal(pieces.length, 1)
      bytes.set(pieces[0]!, offsetBytes)
      writes.push({ offsetBytes, sizeBytes: pieces[0]!.length })
    },
  }
}

/** Random bytes, and pieces of them in random order: of one sector up to more than two partitions. */
function someSpool(random: (limit: number) => number, sectors: number) {
  const right = Uint8Array.from({ length: 512 * sectors }, () => random(256))
  const pieces: { readonly offsetBytes: number; readonly bytes: Uint8Array }[] = []
  for (let sector = 0; sector < sectors;) {
    const end = Math.min(sectors, sector + 1 + random(random(8) === 0 ? 80 : 12))
    pieces.push({ offsetBytes: 512 * sector, bytes: right.subarray(512 * sector, 512 * end) })
    sector = end
  }
  return { right, pieces: pieces.sort(() => random(2) - 0.5) }
}

function allInOrder(partitions: SpoolPartitions, sums: SpoolSums): boolean {
  return Array.from({ length: partitions.count }, (_, partition) => partition).every(partition =>
    partitions.putInOrder(partition, sums),
  )
}

t.test('pieces that come in any order are in order in the end, and have their sums', async t => {
  for (let seed = 1; seed <= 30; seed++) {
    const random = seeded(seed)
    const { right, pieces } = someSpool(random, 1 + random(200))
    const file = memoryFile(right.length)
    const partitions = new SpoolPartitions(right.length, file, sizes)
    const writtenBytes = pieces.reduce((sum, { offsetBytes, bytes }) => sum + partitions.append(offsetBytes, bytes), 0)
    assert.equal(
      writtenBytes,
      file.writes.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    )
    const sums = new SpoolSums(right.length)
    assert.ok(allInOrder(partitions, sums))
    t.equal(Buffer.compare(file.bytes, right), 0, `seed ${seed}`)
    assert.ok(sums.fit(0, right))
  }
})

t.test('the file is written in chunks, and then in partitions, whatever the pieces are', async t => {
  const sectors = 160
  const file = memoryFile(512 * sectors)
  const partitions = new SpoolPartitions(file.bytes.length, file, sizes)
  for (let sector = sectors - 1; sector >= 0; sector--)
    partitions.append(512 * sector, new Uint8Array(512).fill(sector))
  t.ok(allInOrder(partitions, new SpoolSums(file.bytes.length)))
  t.strictSame(new Set(file.writes.slice(0, 20).map(({ sizeBytes }) => sizeBytes)), new Set([4 * KiB]))
  t.strictSame(
    file.writes.slice(20),
    [0, 1, 2, 3, 4].map(partition => ({ offsetBytes: partition * 16 * KiB, sizeBytes: 16 * KiB })),
  )
})

t.test('what the disk has changed before it was put in order is seen', async t => {
  const { right, pieces } = someSpool(seeded(9), 200)
  for (const offsetBytes of [0, 16 * KiB - 1, 50_000]) {
    const file = memoryFile(right.length)
    const partitions = new SpoolPartitions(right.length, file, sizes)
    for (const { offsetBytes, bytes } of pieces) partitions.append(offsetBytes, bytes)
    file.bytes[offsetBytes]! ^= 4
    t.notOk(allInOrder(partitions, new SpoolSums(right.length)))
  }
  const file = memoryFile(right.length)
  const partitions = new SpoolPartitions(right.length, { ...file, read: target => target.length - 1 }, sizes)
  for (const { offsetBytes, bytes } of pieces) partitions.append(offsetBytes, bytes)
  t.notOk(allInOrder(partitions, new SpoolSums(right.length)))
})

t.test('its memory is bounded, however large a spool is', async t => {
  for (const sizeBytes of [1, 4 * KiB, 16 * MiB + 1, 700 * MiB, 4 * GiB, 64 * GiB]) {
    const { partitionSizeBytes, chunkSizeBytes } = partitionSizesOf(sizeBytes)
    const count = Math.ceil(sizeBytes / partitionSizeBytes)
    t.ok(count * chunkSizeBytes + 2 * partitionSizeBytes <= 160 * MiB, `${sizeBytes} bytes`)
    t.equal(partitionSizeBytes % (4 * KiB), 0)
  }
})
