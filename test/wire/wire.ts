import t from 'tap'
import { Failure } from '../../src/base/failure.ts'
import { crc32c } from '../../src/codec/crc32c.ts'
import { decodeFrame, encodeFrame, FrameReader, parseFrameHeader } from '../../src/wire/wire.ts'
import { below, buildBatch, randomWrites, sampleMessages, seededRandom } from '../support/wire-samples.ts'

t.test('every control message comes out of its frame as it went in', async t => {
  for (const message of sampleMessages) t.same(decodeFrame(encodeFrame(message)), message, message.type)
})

t.test(
  'a header of another magic, version, type, reserved field or size is refused before its body is looked at',
  async t => {
    const changes: readonly [string, number, number, string][] = [
      ['magic', 0, 0x57, 'FRAME_INVALID'],
      ['version', 4, 2, 'VERSION_UNSUPPORTED'],
      ['type 0', 5, 0, 'FRAME_INVALID'],
      ['type 15', 5, 15, 'FRAME_INVALID'],
      ['reserved', 7, 1, 'FRAME_INVALID'],
      ['a control body over 64 KiB', 10, 1, 'FRAME_INVALID'],
      ['a body of 4 GiB', 11, 255, 'FRAME_INVALID'],
    ]
    for (const [what, at, value, code] of changes) {
      const frame = encodeFrame({ type: 'heartbeat', timestampMicros: 1 })
      frame[at] = value
      t.throws(() => parseFrameHeader(frame), { code }, what)
    }
  },
)

t.test('a frame with any single byte changed is refused, never misread', async t => {
  const frame = encodeFrame(sampleMessages[0] ?? { type: 'goodbye' })
  for (let at = 0; at < frame.length; at++) {
    const changed = Buffer.from(frame)
    changed[at] = (changed[at] ?? 0) ^ 0x10
    t.throws(() => decodeFrame(changed), Failure, `byte ${at}`)
  }
})

t.test('a control message that breaks a rule is refused', async t => {
  const [hello, welcome, marker] = sampleMessages
  t.ok(hello?.type === 'hello' && welcome?.type === 'welcome' && marker?.type === 'marker')
  if (hello?.type !== 'hello' || welcome?.type !== 'welcome' || marker?.type !== 'marker') return
  const volume = { number: 1, sizeBytes: 1024, included: true }
  const question = {
    type: 'hash-request',
    requestId: 1,
    volume: 1,
    offsetBytes: 0,
    blockSizeBytes: 65536,
    blockCount: 1,
  } as const
  const broken = [
    { ...hello, vpg: '' },
    { ...hello, agent: 'x'.repeat(65) },
    { ...hello, sessionNumber: 0 },
    { ...hello, sessionNumber: 2 ** 60 },
    { ...hello, volumes: [...hello.volumes, ...hello.volumes] },
    { ...hello, volumes: [{ name: 'root', sizeBytes: 1000, sync: 'none' as const }] },
    { ...hello, resumableFrom: { generation: 0, sequence: hello.resumableFrom.sequence } },
    { ...marker, counter: 0 },
    { ...marker, term: 2 ** 20 },
    { ...marker, participants: [1, 1] },
    { ...marker, volumes: [volume, volume] },
    { ...marker, sequence: 0 },
    { ...welcome, heartbeatIntervalMillis: 0 },
    { type: 'checkpoint-request', requestId: 0 } as const,
    { type: 'sync-request', kind: 'bitmap', volumes: [1] } as const,
    { type: 'sync-request', kind: 'full', volumes: [] } as const,
    { ...question, blockSizeBytes: 65537 },
    { ...question, blockSizeBytes: 2 * 2 ** 20 },
    { ...question, blockCount: 2049 },
    { ...question, blockCount: 0 },
    { ...question, offsetBytes: 4096 },
    { type: 'hash-reply', requestId: 1, hashes: Buffer.alloc(17), failure: '', passing: false } as const,
    { type: 'hold', term: 1, counter: 1, timeoutMillis: 10_001 } as const,
    { type: 'hold', term: 0, counter: 1, timeoutMillis: 1 } as const,
  ]
  for (const message of broken)
    t.throws(() => decodeFrame(encodeFrame(message)), { code: 'FRAME_INVALID' }, JSON.stringify(message).slice(0, 200))
})

t.test('a body that is not protobuf, or not UTF-8, is refused', async t => {
  for (const body of [Buffer.from([0x0a, 0xff]), Buffer.alloc(60_000, 0xfb), Buffer.from([0x1a, 2, 0xff, 0xfe])]) {
    const frame = Buffer.concat([encodeFrame({ type: 'goodbye' }), body])
    frame[5] = 1
    frame.writeUInt32LE(body.length, 8)
    frame.writeUInt32LE(crc32c(body, crc32c(frame.subarray(0, 12))), 12)
    t.throws(() => decodeFrame(frame), { code: 'FRAME_INVALID' })
  }
})

t.test('a reader gives the same frames however the bytes are cut', async t => {
  const random = seededRandom(11)
  const frames = [
    ...sampleMessages.map(message => encodeFrame(message)),
    buildBatch(randomWrites(random, 100), { generation: 1, firstSequence: 1 }),
  ]
  const stream = Buffer.concat(frames)
  for (const pieceSizeMax of [1, 3, 17, 1000, stream.length]) {
    const reader = new FrameReader()
    const out: Buffer[] = []
    for (let at = 0; at < stream.length;) {
      const size = 1 + below(random, pieceSizeMax)
      out.push(...reader.push(stream.subarray(at, at + size)))
      at += size
    }
    t.ok(Buffer.concat(out).equals(stream) && out.length === frames.length, `pieces of up to ${pieceSizeMax}, seed 11`)
  }
})

t.test('a reader refuses a lying size before it allocates', async t => {
  const header = encodeFrame({ type: 'goodbye' })
  header.writeUInt32LE(0xffffffff, 8)
  t.throws(() => new FrameReader().push(header), { code: 'FRAME_INVALID' })
})
