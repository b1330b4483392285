import t from 'tap'
import { packTail, unpackTail } from '../../src/segment/segment.ts'

t.test('records of the log cross threads as numbers, and are the same afterwards', async t => {
  const records = Array.from({ length: 1000 }, (_, index) => ({
    fileIdentity: 1 + Math.floor(index / 100),
    offsetBytes: 8192 + index * 136,
    sizeBytes: 136,
    stream: 1 + (index % 3),
    generation: 2,
    firstSequence: 2 ** 52 + index,
    lastSequence: 2 ** 52 + index + 7,
  }))
  const crossed = structuredClone(packTail(records))
  t.equal(crossed.count, records.length)
  t.strictSame(unpackTail(crossed), records)
  t.ok(crossed.rows.byteLength <= 56 * records.length, 'nothing but numbers')
  t.strictSame(unpackTail(packTail([])), [])
})
