import t from 'tap'
import { StreamTail } from '../../src/aging/stream-tail.ts'
import { ordinal, sequence, type StreamPosition } from '../../src/base/ids.ts'
import { crc32c } from '../../src/codec/crc32c.ts'
import type { Hole } from '../../src/timeline/state.ts'
import { someVpg } from '../support/segment-records.ts'
import { buildBatch } from '../support/wire-samples.ts'

// What the tail of the log can know of records that it cannot read.

function holesAt(tail: StreamTail, generation: number, at: number, stretchCount: number): readonly Hole[] | 'known' {
  const frame = buildBatch([{ volume: 1, offsetBytes: 0, lengthBytes: 512, data: Buffer.alloc(512, 1) }], {
    generation,
    firstSequence: at,
  })
  const header = {
    kind: 'batch' as const,
    fileIdentity: 1,
    offsetBytes: 8192,
    vpg: someVpg,
    stream: 1,
    epoch: 1,
    generation,
    firstSequence: at,
    lastSequence: at,
    durableOffsetBytes: 0,
    frameSizeBytes: frame.length,
    frameCrc32c: crc32c(frame),
    timestampMicros: 0,
    historyMillis: 0,
  }
  const verdict = tail.next(header, stretchCount, () => frame)
  return verdict.kind === 'known' ? 'known' : verdict.holes
}

const at = (generation: number, last: number): StreamPosition => ({ stream: 1, generation, sequence: sequence(last) })

t.test('an unreadable stretch where a generation ended may have been its end', async t => {
  const tail = new StreamTail([at(1, 3)], ordinal(7))
  t.same(holesAt(tail, 1, 4, 0), [])
  const [hole] = holesAt(tail, 2, 1, 1)
  t.match(hole, { stream: 1, generation: 2, firstSequence: 0, lastSequence: 0, fromOrdinal: 8 })
  t.same(holesAt(tail, 3, 1, 1), [], 'what was read since has nothing between it')
})

t.test('of a stretch inside a generation the numbers tell', async t => {
  const tail = new StreamTail([at(1, 3)], ordinal(7))
  t.same(holesAt(tail, 1, 4, 1), [], 'it was of another stream')
  t.match(holesAt(tail, 1, 6, 2), [{ generation: 1, firstSequence: 5, lastSequence: 5 }])
})

t.test('what segments hold says that the stretch lies before it', async t => {
  const tail = new StreamTail([at(1, 3)], ordinal(7))
  t.equal(holesAt(tail, 1, 3, 1), 'known')
  t.same(holesAt(tail, 2, 1, 1), [])
})

t.test('a first generation has none before it', async t => {
  t.same(holesAt(new StreamTail([], ordinal(0)), 1, 1, 1), [])
  t.equal(holesAt(new StreamTail([], ordinal(0)), 2, 1, 1).length, 1)
})
