import t from 'tap'
import { offsetSectorsOf } from '../../src/segment/record-source.ts'
import { tailSource, type TailReader } from '../../src/segment/segment.ts'
import { randomFrom, randomRecords, someVpg } from '../support/segment-records.ts'

const signal = new AbortController().signal
const seed = 3
const records = randomRecords({
  random: randomFrom(seed),
  vpg: someVpg,
  streams: [1, 2],
  recordCount: 30,
  markerEvery: 4,
  writesPerBatchMax: 8,
})
const batches = records.filter(record => record.payload !== undefined)
const tail = records.map(({ header, frame }, index) => ({
  fileIdentity: 7,
  offsetBytes: index * 4096,
  sizeBytes: 128 + frame.length,
  stream: header.stream,
  generation: header.generation,
  firstSequence: header.firstSequence,
  lastSequence: header.lastSequence,
  frame,
}))

function readerOf(frameOf: (record: (typeof tail)[number]) => Uint8Array): TailReader<(typeof tail)[number]> {
  return {
    readRecord: frameOf,
    readUncheckedPart: (record, { startBytes, endBytes }) => frameOf(record).subarray(startBytes, endBytes),
  }
}

t.test('batches that are still in the log are read as those of a segment are', async t => {
  const source = tailSource(
    'log',
    tail,
    readerOf(record => record.frame),
  )
  const columns = await source.columns(signal)
  t.equal(columns.batches.count, batches.length, `seed ${seed}: markers are passed over`)
  t.strictSame(
    Array.from({ length: columns.writes.count }, (_, write) => offsetSectorsOf(columns.writes, write) * 512),
    batches.flatMap(record => record.writes.map(write => write.offsetBytes)),
  )
  const wrong: number[] = []
  const scanned: number[] = []
  const check = (batch: number, payload: Uint8Array): void => {
    if (!Buffer.from(payload).equals(batches[batch]?.payload ?? Buffer.alloc(0))) wrong.push(batch)
  }
  for (let batch = 0; batch < batches.length; batch++) check(batch, await source.readBatch(batch, signal))
  const keep = (batch: number, payload: Uint8Array): void => {
    scanned.push(batch)
    check(batch, payload)
  }
  await source.scanBatches(batch => batch !== 2, keep, signal)
  t.strictSame(wrong, [])
  t.equal(scanned.length, batches.length - 1)
})

t.test('a record that is another, or damaged, is refused by file and offset', async t => {
  const swapped = tailSource(
    'log',
    tail,
    readerOf(() => tail.at(-1)?.frame ?? new Uint8Array(0)),
  )
  await t.rejects(swapped.columns(signal), { code: 'RECORD_CORRUPT', details: { fileIdentity: 7, offsetBytes: 0 } })
  const flipped = tailSource(
    'log',
    tail,
    readerOf(record => {
      const frame = Uint8Array.from(record.frame)
      frame[frame.length - 1] = (frame[frame.length - 1] ?? 0) ^ 1
      return frame
    }),
  )
  await t.rejects(flipped.columns(signal), { code: 'RECORD_CORRUPT', message: /log file 7, byte 0/ })
})

t.test('a part of a batch of the log that is damaged after its first read is refused', async t => {
  let mask = 0
  const spoilt = (frame: Uint8Array): Uint8Array => frame.map(byte => byte ^ mask)
  const source = tailSource(
    'log',
    tail,
    readerOf(record => spoilt(record.frame)),
  )
  for (const [batch, { payload }] of batches.entries()) {
    if (payload === undefined || payload.length === 0) continue
    const range = { startBytes: payload.length - 512, endBytes: payload.length }
    for (const _ of ['whole', 'its blocks']) {
      const { rawOffsetBytes, raw } = await source.readPart(batch, range, signal)
      t.ok(raw.length <= 64 * 1024)
      t.ok(
        Buffer.from(payload)
          .subarray(rawOffsetBytes, rawOffsetBytes + raw.length)
          .equals(raw),
      )
    }
    mask = 1
    await t.rejects(source.readPart(batch, range, signal), { code: 'RECORD_CORRUPT' })
    mask = 0
  }
})
