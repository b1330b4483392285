import assert from 'node:assert'
import t from 'tap'
import { Failure } from '../../src/base/failure.ts'
import { MiB } from '../../src/base/units.ts'
import { crc32c } from '../../src/codec/crc32c.ts'
import {
  SegmentBuilder,
  commitKey,
  dumpSegment,
  openSegment,
  readSegmentFooter,
  verifySegment,
} from '../../src/segment/segment.ts'
import type { SegmentSpan } from '../../src/timeline/state.ts'
import { MemoryStore } from '../support/segment-store.ts'
import { batchRecord, otherVpg, randomFrom, randomRecords, someVpg } from '../support/segment-records.ts'

const signal = new AbortController().signal
const seed = 5
const random = randomFrom(seed)
const options = { random, vpg: someVpg, streams: [1, 2], recordCount: 12, markerEvery: 4, writesPerBatchMax: 6 }
const records = randomRecords(options)
const key = commitKey(someVpg, 41)

function segmentOf(commitNumber: number) {
  const builder = new SegmentBuilder({
    vpg: someVpg,
    epoch: 2,
    commitNumber,
    nonce: Buffer.alloc(16, 7),
    createdAtMicros: 10 ** 15,
    capacityBytes: 4 * MiB,
  })
  for (const { header, frame } of records) builder.add(header, frame)
  return builder.finish()
}

const { body, span } = segmentOf(41)
const whole: SegmentSpan = { ...span, object: { key, sizeBytes: body.length } }

function storeOf(bytes: Uint8Array, under = key): MemoryStore {
  const store = new MemoryStore()
  store.objects.set(under, bytes)
  return store
}

/** What a reader is given: all payloads, or the failure. */
async function served(store: MemoryStore): Promise<Uint8Array[] | Failure> {
  const payloads: Uint8Array[] = []
  try {
    const keep = (_: number, payload: Uint8Array): void => void payloads.push(Uint8Array.from(payload))
    await openSegment(store, whole).scanBatches(() => true, keep, signal)
    return payloads
  } catch (error) {
    if (error instanceof Failure) return error
    throw error
  }
}

const right = records.flatMap(record => (record.payload === undefined ? [] : [record.payload]))

function isRight(payloads: readonly Uint8Array[]): boolean {
  return (
    payloads.length === right.length &&
    payloads.every((payload, batch) => Buffer.from(payload).equals(right[batch] ?? Buffer.alloc(0)))
  )
}

t.test('a whole segment has no findings, and its dump names every record', async t => {
  const store = storeOf(body)
  t.strictSame(await verifySegment(store, key, body.length, signal), [])
  const lines: string[] = []
  for await (const line of dumpSegment(store, key, body.length, signal)) lines.push(line)
  t.equal(lines.filter(line => /: (batch|marker)/.test(line)).length, records.length)
  t.notOk(lines.some(line => line.includes('DAMAGED')))
  t.match(lines[1], /header: VPG 0123456789abcdef.* commit 41/)
})

t.test('whichever byte is flipped, it is found, named, and never served', async t => {
  const places = new Set<number>()
  for (let at = 0; at < 128; at++) places.add(at)
  for (let at = 128; at < 128 + 128 + 40; at++) places.add(at)
  for (let at = whole.footerOffsetBytes; at < body.length; at += 3) places.add(at)
  for (let at = body.length - 64; at < body.length; at++) places.add(at)
  for (let count = 0; count < 500; count++) places.add(Math.floor(random() * body.length))
  const wrong: string[] = []
  const bytes = Uint8Array.from(body)
  const store = storeOf(bytes)
  for (const at of places) {
    const was = bytes[at] ?? 0
    bytes[at] = was ^ (1 << Math.floor(random() * 8))
    const findings = await verifySegment(store, key, body.length, signal)
    if (findings.length === 0) wrong.push(`byte ${at} was not found`)
    for (const finding of findings) {
      if (finding.object !== key || finding.what === '') wrong.push(`byte ${at}: nothing is named`)
      if (finding.records.length === 0) wrong.push(`byte ${at}: no affected records`)
    }
    const near = findings.some(({ offsetBytes }) => offsetBytes <= at && at - offsetBytes < MiB)
    if (!near) wrong.push(`byte ${at} was found elsewhere: ${findings.map(each => each.offsetBytes).join()}`)
    const payloads = await served(store)
    if (payloads instanceof Failure) {
      if (!['OBJECT_CORRUPT', 'VERSION_UNSUPPORTED'].includes(payloads.code)) wrong.push(`byte ${at}: ${payloads.code}`)
    } else if (!isRight(payloads)) wrong.push(`byte ${at}: something wrong was served`)
    bytes[at] = was
  }
  t.strictSame(wrong, [], `seed ${seed}, ${places.size} places`)
})

t.test('damage in one record names that record and its places, and spares the others', async t => {
  const victim = 3
  const batches = records.filter(record => record.payload !== undefined)
  const { batches: rows } = await openSegment(storeOf(body), whole).columns(signal)
  const offsetBytes = rows.offsetBytes[victim] ?? 0
  for (const within of [10, 128 + 60]) {
    const bytes = Uint8Array.from(body)
    bytes[offsetBytes + within] = (bytes[offsetBytes + within] ?? 0) ^ 0x10
    const store = storeOf(bytes)
    const [finding, ...others] = await verifySegment(store, key, body.length, signal)
    t.strictSame(others, [])
    const { stream, generation, firstSequence, lastSequence } = batches[victim]?.header ?? {}
    t.equal(finding?.offsetBytes, offsetBytes)
    t.strictSame(finding?.records, [{ stream, generation, firstSequence, lastSequence }])
    const places = batches[victim]?.writes.map(({ volume, offsetBytes, lengthBytes }) => {
      return { volume, offsetBytes, sizeBytes: lengthBytes }
    })
    t.strictSame(finding?.places, places)
    const segment = openSegment(store, whole)
    await t.rejects(segment.readBatch(victim, signal), { code: 'OBJECT_CORRUPT', details: { offsetBytes } })
    t.ok(Buffer.from(await segment.readBatch(victim + 1, signal)).equals(right[victim + 1] ?? Buffer.alloc(0)))
  }
})

t.test('a part of a batch is checked, also when only its blocks are read: damage is never served', async t => {
  const writes = Array.from({ length: 60 }, (_, index) => {
    return { volume: 1, offsetBytes: index * 4096, lengthBytes: 4096, zero: false }
  })
  const record = batchRecord({ vpg: someVpg, stream: 1, generation: 1, sequence: 1, writes, random })
  const builder = new SegmentBuilder({
    vpg: someVpg,
    epoch: 2,
    commitNumber: 41,
    nonce: Buffer.alloc(16, 7),
    createdAtMicros: 10 ** 15,
    capacityBytes: 4 * MiB,
  })
  builder.add(record.header, record.frame)
  const built = builder.finish()
  const bytes = Uint8Array.from(built.body)
  const store = storeOf(bytes)
  const segment = openSegment(store, { ...built.span, object: { key, sizeBytes: bytes.length } })
  const { batches } = await segment.columns(signal)
  const range = { startBytes: 100 * 1024, endBytes: 104 * 1024 }
  const payload = Buffer.from(record.payload ?? [])
  const isRightPart = async (): Promise<boolean> => {
    const { rawOffsetBytes, raw } = await segment.readPart(0, range, signal)
    const covers = rawOffsetBytes <= range.startBytes && rawOffsetBytes + raw.length >= range.endBytes
    assert.ok(raw.length <= 64 * 1024, 'nothing but the block that holds it')
    return covers && payload.subarray(rawOffsetBytes, rawOffsetBytes + raw.length).equals(raw)
  }
  const damaged = async (at: number): Promise<unknown> => {
    bytes[at]! ^= 1
    const outcome = await isRightPart().catch((error: unknown) => error)
    bytes[at]! ^= 1
    return outcome
  }
  const recordStart = batches.offsetBytes[0]!
  const recordSize = batches.sizeBytes[0]!
  t.match(await damaged(recordStart + recordSize - 100), { code: 'OBJECT_CORRUPT' }, 'the first read checks the whole')
  t.ok(await isRightPart())
  store.reads.length = 0
  t.ok(await isRightPart())
  const read = store.reads[0]!
  t.equal(store.reads.length, 1)
  t.ok(read.endBytes - read.startBytes <= 64 * 1024, 'later only the block is read')
  for (const at of [read.startBytes, read.startBytes + 1000, read.endBytes - 1])
    t.match(await damaged(at), { code: 'OBJECT_CORRUPT', details: { offsetBytes: recordStart } })
  t.equal(await damaged(read.endBytes), true, 'what lies beside it was not read')
  t.ok(await isRightPart())
})

t.test('an object that was cut off anywhere is refused', async t => {
  const wrong: string[] = []
  const ends = [0, 3, 100, 128, 200, 5000, whole.footerOffsetBytes, body.length - 64, body.length - 1]
  for (const sizeBytes of ends) {
    const store = storeOf(body.subarray(0, sizeBytes))
    const outcome = await readSegmentFooter(store, key, sizeBytes, signal).catch((error: unknown) => error)
    if (!(outcome instanceof Failure) || outcome.code !== 'OBJECT_CORRUPT') wrong.push(`cut at ${sizeBytes}`)
    if ((await verifySegment(store, key, sizeBytes, signal)).length === 0) wrong.push(`verify, cut at ${sizeBytes}`)
    if (!((await served(store)) instanceof Failure)) wrong.push(`served, cut at ${sizeBytes}`)
  }
  t.strictSame(wrong, [])
})

t.test('a segment of another VPG, another number or another version under this key is refused', async t => {
  const foreignKey = commitKey(otherVpg, 41)
  await t.rejects(readSegmentFooter(storeOf(body, foreignKey), foreignKey, body.length, signal), {
    code: 'OBJECT_CORRUPT',
    message: /another VPG/,
  })
  const foreign = openSegment(storeOf(body, foreignKey), { ...whole, object: { ...whole.object, key: foreignKey } })
  await t.rejects(foreign.columns(signal), { code: 'OBJECT_CORRUPT', message: /another VPG/ })
  const elsewhere = commitKey(someVpg, 42)
  await t.rejects(readSegmentFooter(storeOf(body, elsewhere), elsewhere, body.length, signal), {
    code: 'OBJECT_CORRUPT',
    message: /commit 41/,
  })
  const newer = Uint8Array.from(body)
  newer[4] = 2
  new DataView(newer.buffer).setUint32(124, crc32c(newer.subarray(0, 124)), true)
  await t.rejects(readSegmentFooter(storeOf(newer), key, body.length, signal), { code: 'VERSION_UNSUPPORTED' })
})

t.test('a footer that lies, with right checksums, is found by holding it against the records', async t => {
  const bytes = Uint8Array.from(body)
  const trailer = body.length - 64
  const { writes, batches, ranges } = {
    ...(await openSegment(storeOf(body), whole).columns(signal)),
    ranges: whole.ranges,
  }
  const volumes = whole.footerOffsetBytes + 80 + 32 * ranges.length + 28 * batches.count + 4 * writes.count
  bytes[volumes] = (bytes[volumes] ?? 0) ^ 1
  const view = new DataView(bytes.buffer)
  view.setUint32(trailer + 20, crc32c(bytes.subarray(whole.footerOffsetBytes, trailer)), true)
  view.setUint32(trailer + 60, crc32c(bytes.subarray(trailer, trailer + 60)), true)
  const findings = await verifySegment(storeOf(bytes), key, body.length, signal)
  t.match(findings, [{ offsetBytes: whole.footerOffsetBytes, what: /something else than the records/ }])
  t.equal(findings.length, 1)
})
