import t from 'tap'
import type { Ordinal } from '../../src/base/ids.ts'
import { KiB, MiB } from '../../src/base/units.ts'
import type { Checkpoint } from '../../src/timeline/checkpoint.ts'
import { dataSizesAt } from '../../src/timeline/image-size.ts'
import type { SegmentSpan } from '../../src/timeline/state.ts'

const checkpoint: Checkpoint = {
  ...{ ordinal: 9 as Ordinal, timestampMicros: 0, historyMillis: 0, vector: [] },
  volumes: [{ number: 1, sizeBytes: 64 * MiB, included: true }],
}

function segmentOf(rawSizeBytes: number, storedSizeBytes: number): SegmentSpan {
  return {
    ...{ kind: 'segment', commitNumber: 1, object: { key: 'k', sizeBytes: storedSizeBytes } as never },
    ...{ footerOffsetBytes: storedSizeBytes, footerSizeBytes: 1000, ranges: [{ stream: 1 } as never] },
    ...{ writeCount: 1, rawSizeBytes, firstOrdinal: 0 as Ordinal, lastOrdinal: 0 as Ordinal },
  }
}

function sizeOf(segments: readonly SegmentSpan[], tailBatchSizes: readonly number[]): number | undefined {
  return dataSizesAt({ regions: [], deltas: [], segments }, checkpoint, tailBatchSizes)[0]?.dataSizeBytes
}

t.test('a disk that nothing was written to has no data', async t => {
  t.equal(sizeOf([], []), 0)
})

t.test('what is in the log counts as it was compressed before, each batch up to what one may hold', async t => {
  // The segment begins after the checkpoint: it is not of it, but tells how its VPG's writes compress.
  const batches = [4 * KiB, 8 * KiB]
  t.equal(sizeOf([], batches), 24 * KiB, 'with nothing to go by')
  t.equal(sizeOf([segmentOf(8 * MiB, 2 * MiB)], batches), 48 * KiB)
  t.equal(sizeOf([segmentOf(2 * MiB, 8 * MiB)], batches), 12 * KiB, 'never less than it is there')
  t.equal(sizeOf([segmentOf(60 * MiB, MiB)], [100 * KiB]), 1 * MiB)
})
