import t from 'tap'
import type { PositionVector } from '../../src/base/ids.ts'
import { KiB, sectorSizeBytes } from '../../src/base/units.ts'
import { gatherRegionWrites, noData, Pace, type RegionWrites } from '../../src/mirror/mirror.ts'
import { randomFrom } from '../support/segment-records.ts'
import { MemorySource, type TestBatch, type TestWrite } from '../support/mirror-source.ts'

// Random writes of several streams in several sources, against a plain list: every bucket's pieces, oldest first, whether the bucket is searched for or all
// are sorted; of batches behind `from` and up to `to`; of a batch that comes late, at the place of its position.

const regionSizeBytes = 256 * KiB
const { signal } = new AbortController()
const pace = new Pace(() => Promise.resolve(), signal)
const streams = [3, 4]

interface Piece {
  readonly start: number
  readonly length: number
  readonly source: number
  readonly number: number
  readonly rawOffsetBytes: number
}

function randomWrites(random: () => number): TestWrite[] {
  return Array.from({ length: 1 + Math.floor(random() * 9) }, () => {
    const volume = 1 + Math.floor(random() * 2)
    const isFar = random() < 0.1
    const sector = Math.floor(random() * 4096) + (isFar ? 2 ** 33 : 0) // the high bits of an offset count
    const isZero = random() < 0.3
    const sizeBytes = (1 + Math.floor(random() ** 3 * (isZero ? 2000 : 300))) * sectorSizeBytes
    return {
      volume,
      offsetBytes: sector * sectorSizeBytes,
      sizeBytes,
      data: isZero ? undefined : new Uint8Array(sizeBytes),
    }
  })
}

function randomSources(random: () => number): TestBatch[][] {
  const next = new Map(streams.map(stream => [stream, 1]))
  return Array.from({ length: 3 }, () =>
    Array.from({ length: 15 }, () => {
      const stream = streams[Math.floor(random() * streams.length)]!
      const writes = randomWrites(random)
      const firstSequence = next.get(stream)!
      next.set(stream, firstSequence + writes.length)
      return { stream, generation: 1, firstSequence, writes }
    }),
  )
}

/** By `volume.region`. */
function expectedPieces(
  sources: readonly TestBatch[][],
  from: PositionVector,
  to: PositionVector,
): Map<string, Piece[]> {
  const reached = (vector: PositionVector, stream: number): number =>
    vector.find(position => position.stream === stream)!.sequence
  const batches = sources
    .flatMap((own, source) => own.map((batch, number) => ({ ...batch, source, number })))
    .filter(
      ({ stream, firstSequence }) => firstSequence > reached(from, stream) && firstSequence <= reached(to, stream),
    )
  // A stream's batches, in order, at the stream's places.
  const inOrder = new Map(
    streams.map(one => [
      one,
      batches.filter(({ stream }) => stream === one).sort((a, b) => a.firstSequence - b.firstSequence),
    ]),
  )
  const pieces = new Map<string, Piece[]>()
  for (const { stream } of batches) {
    const { source, number, writes } = inOrder.get(stream)!.shift()!
    let rawOffsetBytes = 0
    for (const { volume, offsetBytes, sizeBytes, data } of writes) {
      for (let at = offsetBytes; at < offsetBytes + sizeBytes;) {
        const region = Math.floor(at / regionSizeBytes)
        const end = Math.min(offsetBytes + sizeBytes, (region + 1) * regionSizeBytes)
        const own = pieces.get(`${volume}.${region}`) ?? []
        pieces.set(`${volume}.${region}`, own)
        own.push({
          start: (at - region * regionSizeBytes) / sectorSizeBytes,
          length: (end - at) / sectorSizeBytes,
          ...{ source, number, rawOffsetBytes: data === undefined ? noData : rawOffsetBytes + at - offsetBytes },
        })
        at = end
      }
      rawOffsetBytes += data?.length ?? 0
    }
  }
  return pieces
}

async function foundPieces(writes: RegionWrites): Promise<Map<string, Piece[]>> {
  const found = new Map<string, Piece[]>()
  for (const bucket of writes.buckets) {
    const own: Piece[] = []
    await writes.eachPiece(bucket, pace, (start, length, batch, rawOffsetBytes) =>
      own.push({
        ...{ start, length, rawOffsetBytes },
        ...{ source: writes.batchSource[batch]!, number: writes.batchNumber[batch]! },
      }),
    )
    found.set(`${bucket.volume}.${bucket.region}`, own)
  }
  return found
}

const sorted = (pieces: Map<string, Piece[]>): [string, Piece[]][] => [...pieces].sort(([a], [b]) => (a < b ? -1 : 1))

t.test('the writes of a region are found with their places, oldest first', async t => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = randomFrom(seed)
    const batches = randomSources(random)
    if (seed % 3 === 0) batches[2]!.push(batches[0]!.splice(4, 1)[0]!) // one comes late
    const boundary = (part: number): PositionVector =>
      streams.map(stream => {
        const own = batches.flat().filter(batch => batch.stream === stream)
        const ends = own.map(({ firstSequence, writes }) => firstSequence + writes.length - 1).sort((a, b) => a - b)
        return { stream, generation: 1, sequence: ends[Math.floor(part * (ends.length - 1))] }
      }) as unknown as PositionVector
    const [from, to] = [boundary(0.1), boundary(0.9)]
    const expected = expectedPieces(batches, from, to)
    const sources = batches.map((own, index) => new MemorySource(`source ${index}`, own))
    const open = (): Promise<RegionWrites> => gatherRegionWrites(sources, { from, to }, regionSizeBytes, pace, signal)
    const searched = await open() // the first few regions; then it sorts
    t.strictSame(sorted(await foundPieces(searched)), sorted(expected), `seed ${seed}: searched`)
    const all = await open()
    await all.sort(pace)
    t.strictSame(sorted(await foundPieces(all)), sorted(expected), `seed ${seed}: sorted`)
  }
})
