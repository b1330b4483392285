import t from 'tap'
import { batchRawSizeBytesMax, batchWriteCountMax, frameSizeBytesMax, zeroSizeBytesMax } from '../../src/base/limits.ts'
import { crc32c, joinCrc32c } from '../../src/codec/crc32c.ts'
import { lookupMessage } from '../../src/wire/control-codec.ts'
import type { BatchView } from '../../src/wire/messages.ts'
import {
  BatchBuilder,
  decodeFrame,
  decodeFrameBody,
  decompressBatchBlock,
  decompressPayload,
} from '../../src/wire/wire.ts'
import { below, buildBatch, guestBytes, randomWrites, seededRandom, type SampleWrite } from '../support/wire-samples.ts'

const at = { generation: 1, firstSequence: 1, timestampMicros: 1_790_000_000_000_000 }

function viewOf(frame: Uint8Array): BatchView {
  const message = decodeFrame(frame)
  if (message.type !== 'write-batch') throw new Error(`a ${message.type}`)
  return message
}

function rawPayload(view: BatchView): Buffer | undefined {
  const target = Buffer.alloc(view.rawSizeBytes)
  return decompressPayload(view, target) ? target : undefined
}

function writesOf(view: BatchView): SampleWrite[] {
  const raw = rawPayload(view)
  if (raw === undefined) throw new Error('the payload does not decompress')
  let start = 0
  return Array.from({ length: view.writeCount }, (_, index) => {
    const lengthBytes = view.lengthBytes(index)
    const data = view.isZero(index) ? undefined : raw.subarray(start, start + lengthBytes)
    if (data !== undefined) start += lengthBytes
    return { volume: view.volume(index), offsetBytes: view.offsetBytes(index), lengthBytes, data }
  })
}

t.test('random batches come out as they went in', async t => {
  for (let seed = 1; seed <= 60; seed++) {
    const writes = randomWrites(seededRandom(seed), 300)
    const view = viewOf(buildBatch(writes, { generation: 2 ** 40, firstSequence: 2 ** 52 }))
    t.same([view.generation, view.firstSequence, view.timestampMicros], [2 ** 40, 2 ** 52, at.timestampMicros])
    const same = writesOf(view).every((write, index) => {
      const expected = writes[index]
      return (
        write.volume === expected?.volume &&
        write.offsetBytes === expected.offsetBytes &&
        write.lengthBytes === expected.lengthBytes &&
        (write.data?.equals(expected.data ?? Buffer.alloc(0)) ?? expected.data === undefined)
      )
    })
    t.ok(same && view.writeCount === writes.length, `seed ${seed}`)
  }
})

t.test('the walk over the fields reads what protobufjs reads, whatever their order', async t => {
  const WriteBatch = lookupMessage('WriteBatch')
  for (let seed = 1; seed <= 40; seed++) {
    const random = seededRandom(seed)
    const frame = buildBatch(randomWrites(random, 40), { generation: 1 + seed, firstSequence: 2 ** 33 + seed })
    const fields = WriteBatch.toObject(WriteBatch.decode(frame.subarray(16)), { longs: Number })
    // Every field as a message of its own: protobuf messages may be concatenated, and the last value of a field wins.
    const pieces = Object.entries(fields).map(([name, value]) =>
      Buffer.from(WriteBatch.encode(WriteBatch.create({ [name]: value })).finish()),
    )
    const stale = Buffer.from(
      WriteBatch.encode(WriteBatch.create({ writeCount: 9, volumes: Buffer.alloc(3) })).finish(),
    )
    // Unknown: a varint, a text, a fixed32, a fixed64, and two known numbers with other wire types.
    const unknown = [
      Buffer.from([0xa8, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
      Buffer.from([0xb2, 0x01, 2, 104, 105]),
      Buffer.from([0xbd, 0x01, 1, 2, 3, 4]),
      Buffer.from([0xc1, 0x01, 1, 2, 3, 4, 5, 6, 7, 8]),
      Buffer.from([0x0a, 1, 0]),
      Buffer.from([0x28, 7]),
    ]
    const shuffled = [...pieces, ...unknown].sort(() => random() - 0.5)
    const view = decodeFrameBody('write-batch', Buffer.concat([stale, ...shuffled]))
    t.same(view, viewOf(frame), `seed ${seed}`)
    if (view.type !== 'write-batch') return
    t.equal(view.firstSequence, fields['firstSequence'])
    t.ok(Buffer.from(view.payload).equals(fields['payload'] ?? Buffer.alloc(0)))
    t.same(writesOf(view), writesOf(viewOf(frame)), `seed ${seed}`)
  }
})

t.test('a batch that breaks a rule is refused', async t => {
  const WriteBatch = lookupMessage('WriteBatch')
  const u16 = (value: number) => Buffer.from(new Uint16Array([value]).buffer)
  const u32 = (...values: number[]) => Buffer.from(new Uint32Array(values).buffer)
  const u64 = (value: bigint) => Buffer.from(new BigUint64Array([value]).buffer)
  const good = {
    generation: 1,
    firstSequence: 1,
    writeCount: 1,
    timestampMicros: 1,
    volumes: u16(1),
    offsets: u64(512n),
    lengths: u32(512),
    flags: Buffer.of(0),
    blocks: u32(512, 512),
    payload: Buffer.alloc(512),
  }
  const decode = (changes: Partial<typeof good> | Record<string, unknown>) =>
    decodeFrameBody('write-batch', WriteBatch.encode(WriteBatch.create({ ...good, ...changes })).finish())
  t.equal(decode({}).type, 'write-batch')
  const none = Buffer.alloc(0)
  const zero = { flags: Buffer.of(1), blocks: none, payload: none }
  t.equal(decode({ ...zero, lengths: u32(zeroSizeBytesMax) }).type, 'write-batch', 'the longest zero write')
  const broken: readonly [string, Record<string, unknown>][] = [
    ['no writes', { writeCount: 0 }],
    ['too many writes', { writeCount: batchWriteCountMax + 1 }],
    ['generation 0', { generation: 0 }],
    ['sequence 0', { firstSequence: 0 }],
    ['a sequence past 2^53', { firstSequence: Number.MAX_SAFE_INTEGER }],
    ['a short column', { volumes: none }],
    ['a long column', { flags: Buffer.of(0, 0) }],
    ['a column of another count', { offsets: Buffer.alloc(16) }],
    ['an unknown flag', { flags: Buffer.of(2) }],
    ['a length of 0', { lengths: u32(0), blocks: none, payload: none }],
    ['a length that is not whole sectors', { lengths: u32(513) }],
    ['a data write that is too long', { lengths: u32(524_288 + 512) }],
    ['a zero write that is too long', { ...zero, lengths: u32(zeroSizeBytesMax + 512) }],
    ['an offset inside a sector', { offsets: u64(513n) }],
    ['an offset inside a sector past 2^32', { offsets: u64(2n ** 40n + 1n) }],
    ['a zero write with a payload', { flags: Buffer.of(1) }],
    ['half a block entry', { blocks: u32(512) }],
    ['an empty block', { blocks: u32(512, 512, 0, 0) }],
    ['a block that grew', { blocks: u32(512, 513), payload: Buffer.alloc(513) }],
    ['a block over 64 KiB', { lengths: u32(65_536 + 512), blocks: u32(65_536 + 512, 512) }],
    ['a raw sum that is not the writes', { blocks: u32(1024, 512) }],
    ['a stored sum that is not the payload', { blocks: u32(512, 511) }],
    ['sums that agree only when they wrap at 2^32', { blocks: u32(512, 512, 2 ** 31, 2 ** 31, 2 ** 31, 2 ** 31) }],
  ]
  for (const [what, changes] of broken) t.throws(() => decode(changes), { code: 'FRAME_INVALID' }, what)
  const many = 3
  t.throws(
    () =>
      decode({
        writeCount: many,
        volumes: Buffer.concat([u16(1), u16(1), u16(1)]),
        offsets: Buffer.alloc(8 * many),
        lengths: u32(524_288, 524_288, 512),
        flags: Buffer.alloc(many),
        blocks: u32(...Array.from({ length: 17 }, (_, block) => (block < 16 ? [65_536, 1] : [512, 1])).flat()),
        payload: Buffer.alloc(17),
      }),
    { code: 'FRAME_INVALID' },
    'a raw payload over 1 MiB',
  )
  const malformed: readonly (readonly [string, number[]])[] = [
    ['field number 0', [0x02, 0]],
    ['a group', [0xab, 0x01]],
    ['a number without an end', [0x08, 0xff]],
    ['a number of eleven bytes', [0x08, ...Array<number>(10).fill(0xff), 1]],
    ['bytes past the end', [0x2a, 100, 1]],
    ['bytes of 2^40', [0x2a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20]],
    ['a number past 2^53', [0x08, ...Array<number>(9).fill(0xff), 1]],
  ]
  for (const [what, bytes] of malformed)
    t.throws(() => decodeFrameBody('write-batch', Buffer.from(bytes)), { code: 'FRAME_INVALID' }, what)
})

t.test('small writes share blocks that are cut between writes, large ones have their own', async t => {
  const random = seededRandom(3)
  const sizes = [...Array<number>(20).fill(4096), 512 * 1024, 512, 68 * 1024]
  const writes = sizes.map(lengthBytes => ({
    volume: 1,
    offsetBytes: 0,
    lengthBytes,
    data: guestBytes(random, lengthBytes),
  }))
  const view = viewOf(buildBatch(writes, at))
  const blocks = Array.from({ length: view.blockCount }, (_, block) => view.blockRawSizeBytes(block))
  t.same(blocks, [65_536, 16_384, ...Array<number>(8).fill(65_536), 512, 65_536, 4096])
  const raw = rawPayload(view) ?? Buffer.alloc(0)
  let start = 0
  for (const [block, sizeBytes] of blocks.entries()) {
    const target = Buffer.alloc(sizeBytes)
    t.ok(decompressBatchBlock(view, block, target) && target.equals(raw.subarray(start, start + sizeBytes)))
    start += sizeBytes
  }
})

t.test('whatever a builder has room for makes a frame within the bound', async t => {
  const random = seededRandom(9)
  const noise = Buffer.from(Array.from({ length: 512 * 1024 }, () => below(random, 256)))
  for (const [what, sizeBytes] of [
    ['sectors', 512],
    ['pages', 4096],
    ['long writes', 512 * 1024],
    ['zeros', 0],
  ] as const) {
    const builder = new BatchBuilder()
    while (builder.hasRoom(sizeBytes)) {
      if (sizeBytes === 0) builder.addZero({ volume: 1, offsetBytes: 0, lengthBytes: zeroSizeBytesMax })
      else builder.add({ volume: 1, offsetBytes: 0, data: noise.subarray(0, sizeBytes) })
    }
    t.ok(builder.isFull && builder.rawSizeBytes <= batchRawSizeBytesMax, what)
    const frame = builder.finish(at)
    t.ok(frame.length <= frameSizeBytesMax, `${what}: ${frame.length}`)
    t.equal(rawPayload(viewOf(frame))?.length, viewOf(frame).rawSizeBytes, what)
    t.equal(builder.writeCount, 0, 'it is empty again')
  }
})

t.test('a payload that does not decompress is found out, and writes nothing past its target', async t => {
  const random = seededRandom(4)
  const frame = buildBatch(randomWrites(random, 20), at)
  const view = viewOf(frame)
  t.ok(view.payload.length < view.rawSizeBytes, 'it was compressed')
  const guarded = Buffer.alloc(view.rawSizeBytes + 64, 0xa5)
  let foundCount = 0
  for (let flip = 0; flip < 200; flip++) {
    const place = below(random, view.payload.length)
    view.payload[place] = below(random, 256)
    if (!decompressPayload(view, guarded.subarray(0, view.rawSizeBytes))) foundCount++
    t.ok(
      guarded.subarray(view.rawSizeBytes).every(byte => byte === 0xa5),
      'seed 4',
    )
  }
})

t.test('the checksum of joined bytes follows from the two', async t => {
  const random = seededRandom(6)
  for (const sizeBytes of [0, 1, 7, 4096, 1_048_576]) {
    const first = guestBytes(random, 32).subarray(0, 12)
    const second = Buffer.from(Array.from({ length: sizeBytes }, () => below(random, 256)))
    t.equal(joinCrc32c(crc32c(first), crc32c(second), sizeBytes), crc32c(Buffer.concat([first, second])))
  }
})
