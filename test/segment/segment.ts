import t from 'tap'
import {
  SegmentBuilder,
  commitKey,
  openSegment,
  peekCommitObject,
  readSegmentFooter,
} from '../../src/segment/segment.ts'
import { isZeroWrite, lengthSectorsOf, offsetSectorsOf } from '../../src/segment/record-source.ts'
import type { SegmentSpan } from '../../src/timeline/state.ts'
import { MiB } from '../../src/base/units.ts'
import { MemoryStore } from '../support/segment-store.ts'
import { otherVpg, randomFrom, randomRecords, someVpg, type TestRecord } from '../support/segment-records.ts'

const signal = new AbortController().signal
const identity = { vpg: someVpg, epoch: 2, commitNumber: 41, nonce: Buffer.alloc(16, 7), createdAtMicros: 10 ** 15 }
const buffer = new Uint8Array(24 * MiB)

function someRecords(seed: number): TestRecord[] {
  const random = randomFrom(seed)
  return randomRecords({
    random,
    vpg: someVpg,
    streams: [1, 5, 9],
    recordCount: 120,
    markerEvery: 6,
    writesPerBatchMax: 40,
  })
}

async function stored(records: readonly TestRecord[]) {
  const builder = new SegmentBuilder({ ...identity, capacityBytes: buffer.length, buffer })
  for (const { header, frame } of records) builder.add(header, frame)
  const expectedSizeBytes = builder.sizeBytes
  const { body, span, markers } = builder.finish()
  const key = commitKey(someVpg, identity.commitNumber)
  const store = new MemoryStore()
  await store.create(key, body)
  const whole: SegmentSpan = { ...span, object: { key, sizeBytes: body.length } }
  return { store, key, body: body.slice(), span: whole, markers, expectedSizeBytes }
}

t.test('what is read from a segment is what was added, batch by batch and in one scan', async t => {
  for (let seed = 1; seed <= 5; seed++) {
    const records = someRecords(seed)
    const batches = records.filter(record => record.payload !== undefined)
    const { store, span, expectedSizeBytes, body } = await stored(records)
    t.equal(expectedSizeBytes, body.length, `seed ${seed}: the size was known before`)
    const segment = openSegment(store, span)
    const columns = await segment.columns(signal)
    t.equal(columns.batches.count, batches.length, `seed ${seed}: every batch has its row`)
    t.equal(store.reads.length, 1, 'the footer is one range read')
    const wrong: string[] = []
    let write = 0
    for (const [batch, record] of batches.entries()) {
      if (columns.batches.firstWrite[batch] !== write) wrong.push(`first write of batch ${batch}`)
      for (const expected of record.writes) {
        const found = {
          volume: columns.writes.volume[write],
          offsetBytes: offsetSectorsOf(columns.writes, write) * 512,
          lengthBytes: lengthSectorsOf(columns.writes, write) * 512,
          zero: isZeroWrite(columns.writes, write),
        }
        if (JSON.stringify(found) !== JSON.stringify({ ...expected })) wrong.push(`columns of write ${write}`)
        write++
      }
      const { stream, generation, firstSequence } = record.header
      if (columns.batches.stream[batch] !== stream) wrong.push(`stream of batch ${batch}`)
      if (columns.batches.generation[batch] !== generation) wrong.push(`generation of batch ${batch}`)
      if (columns.batches.firstSequence[batch] !== firstSequence) wrong.push(`sequence of batch ${batch}`)
      const payload = await segment.readBatch(batch, signal)
      if (!Buffer.from(payload).equals(record.payload ?? Buffer.alloc(0))) wrong.push(`payload of batch ${batch}`)
    }
    t.equal(columns.writes.count, write, `seed ${seed}: every write has its row`)
    t.strictSame(wrong, [], `seed ${seed}`)

    store.reads.length = 0
    const scanned: number[] = []
    await segment.scanBatches(
      batch => batch % 3 !== 0,
      (batch, payload) => {
        scanned.push(batch)
        if (!Buffer.from(payload).equals(batches[batch]?.payload ?? Buffer.alloc(0)))
          wrong.push(`scanned batch ${batch}`)
      },
      signal,
    )
    t.strictSame(wrong, [], `seed ${seed}: the scan gives the same payloads`)
    t.strictSame(
      scanned,
      batches.map((_, batch) => batch).filter(batch => batch % 3 !== 0),
      'in order, those wanted',
    )
    t.ok(store.reads.length < scanned.length / 4, `seed ${seed}: the scan reads large pieces (${store.reads.length})`)
    t.ok(
      store.reads.every(read => read.endBytes - read.startBytes <= 4 * MiB),
      'and never more than 4 MiB at once',
    )
  }
})

t.test('a footer is read wherever it stands in memory', async t => {
  const { store, span } = await stored(someRecords(6))
  const readRange: MemoryStore['readRange'] = async (...call) => {
    const bytes = await store.readRange(...call)
    const shifted = new Uint8Array(bytes.length + 1).subarray(1)
    shifted.set(bytes)
    return shifted
  }
  const odd = await openSegment(Object.assign(Object.create(store) as MemoryStore, { readRange }), span).columns(signal)
  t.strictSame(odd, await openSegment(store, span).columns(signal))
})

t.test('a start learns from a segment alone what its builder knew', async t => {
  for (let seed = 11; seed <= 15; seed++) {
    const records = someRecords(seed)
    const { store, key, body, span, markers } = await stored(records)
    t.equal(peekCommitObject(body), 'segment')
    const found = await readSegmentFooter(store, key, body.length, signal)
    t.strictSame(found.span, span, `seed ${seed}`)
    t.strictSame(found.markers, markers)
    t.strictSame(await openSegment(store, span).markers(signal), markers)
    t.equal(markers.length, records.filter(record => record.payload === undefined).length, 'every marker is there')
    const covered = found.span.ranges.reduce((sum, range) => sum + range.lastSequence - range.firstSequence + 1, 0)
    const added = records.reduce((sum, { header }) => sum + header.lastSequence - header.firstSequence + 1, 0)
    t.equal(covered, added, 'the ranges cover every record once')
    t.equal(Buffer.from(found.header.nonce).toString('hex'), '07'.repeat(16))
  }
})

t.test('a footer takes at most 14 bytes a write at 8 writes a batch', async t => {
  const random = randomFrom(21)
  const records = randomRecords({
    random,
    vpg: someVpg,
    streams: [1],
    recordCount: 400,
    markerEvery: 400,
    writesPerBatchMax: 15,
  })
  const { span } = await stored(records)
  t.ok(span.footerSizeBytes / span.writeCount <= 14, `${span.footerSizeBytes / span.writeCount} bytes a write`)
})

t.test('a builder refuses what does not fit, and what header and frame disagree about', async t => {
  const records = someRecords(31)
  const builder = new SegmentBuilder({ ...identity, capacityBytes: 512 * 1024 })
  let added = 0
  for (const { header, frame } of records) {
    if (!builder.fits(header)) continue
    builder.add(header, frame)
    added++
  }
  t.ok(added > 0 && added < records.length, 'it was filled')
  t.ok(builder.finish().body.length <= 512 * 1024, 'what fits() said held to the last byte')

  const [first] = records
  if (first === undefined) throw new Error('no record')
  const fresh = (): SegmentBuilder => new SegmentBuilder({ ...identity, capacityBytes: 4 * MiB })
  const flipped = Uint8Array.from(first.frame)
  flipped[flipped.length - 1] = (flipped[flipped.length - 1] ?? 0) ^ 1
  t.throws(() => fresh().add(first.header, flipped), { code: 'RECORD_CORRUPT' }, 'a frame that was changed')
  t.throws(() => fresh().add({ ...first.header, generation: 99 }, first.frame), { code: 'RECORD_CORRUPT' })
  t.throws(() => fresh().add({ ...first.header, vpg: otherVpg }, first.frame), { name: 'AssertionFailed' })
  const builder2 = fresh()
  builder2.add(first.header, first.frame)
  t.throws(() => builder2.add(first.header, first.frame), { name: 'AssertionFailed' }, 'a record twice')
})

t.test('a failing sink or an abort ends a scan', async t => {
  const { store, span } = await stored(someRecords(41))
  const all = (): boolean => true
  const failing = (): void => {
    throw new Error('no room')
  }
  await t.rejects(openSegment(store, span).scanBatches(all, failing, signal), { message: 'no room' })
  const aborted = AbortSignal.abort(new Error('enough'))
  await t.rejects(
    openSegment(store, span).scanBatches(all, () => undefined, aborted),
    { message: 'enough' },
  )
})
