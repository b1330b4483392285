import t from 'tap'
import { crc32c } from '../../src/codec/crc32c.ts'
import { decodeFrame, encodeFrame } from '../../src/wire/wire.ts'
import {
  batchAt,
  hello,
  marker,
  openBench,
  resumeAt,
  sampleVpg,
  TestPeer,
  until,
  volumeSizeBytes,
} from '../support/wire-ingest.ts'
import { below, buildBatch, position, randomWrites, seededRandom } from '../support/wire-samples.ts'

// Whatever bytes a peer sends:
//   1. ingest never throws, and never holds room for a peer that is gone;
//   2. every record that it appended is a frame that decodes, in bounds, next in its stream;
//   3. a session beside it writes on, and each of its batches is acknowledged.

const roundCount = 250

/** One of the ways in which a peer may be wrong. Some leave the bytes right. */
function damaged(frames: readonly Buffer[], random: () => number): Buffer {
  const stream = Buffer.concat(frames)
  const place = below(random, stream.length)
  switch (below(random, 8)) {
    case 0:
      return stream
    case 1:
      stream[place] = (stream[place] ?? 0) ^ (1 << below(random, 8))
      return stream
    case 2:
      return stream.subarray(0, place)
    case 3:
      return Buffer.concat([stream.subarray(0, place), stream.subarray(place + 1 + below(random, 40))])
    case 4:
      return Buffer.from(Array.from({ length: below(random, 300) }, () => below(random, 256)))
    case 5:
      return Buffer.concat([stream, ...frames])
    default: {
      // With a right checksum, so that the rules behind it are met: a changed body, or a lying length.
      const frame = Buffer.from(frames[below(random, frames.length)] ?? stream)
      for (let change = below(random, 4); change >= 0; change--)
        frame[16 + below(random, Math.max(1, frame.length - 16))] = below(random, 256)
      if (random() < 0.2) frame.writeUInt32LE(below(random, random() < 0.5 ? 70_000 : 2 ** 32), 8)
      if (random() < 0.2) frame[5] = below(random, 12)
      frame.writeUInt32LE(crc32c(frame.subarray(16), crc32c(frame.subarray(0, 12))), 12)
      return Buffer.concat([...frames.slice(0, below(random, frames.length)), frame])
    }
  }
}

t.test('bytes of any kind cost their sender the session at most', async t => {
  const seed = Number(process.env['FUZZ_SEED'] ?? 20_261_122)
  t.comment(`seed ${seed}`)
  const random = seededRandom(seed)
  const vpg = sampleVpg()
  const bystanderVpg = sampleVpg({ name: 'bystander' })
  const bench = await openBench(t, { automatic: true, vpgs: [vpg, bystanderVpg] })
  const bystander = await TestPeer.open(bench, { vpg: 'bystander', agent: 'bystander-host' })
  const durable = () => bench.ingest.status(vpg.definition.id).streams[0]?.durable ?? position(0, 0)

  for (let round = 1; round <= roundCount; round++) {
    const first = durable().sequence + 1
    const writes = randomWrites(random, 8)
    const frames = [
      buildBatch(writes, { generation: 1, firstSequence: first }),
      encodeFrame(marker(first + writes.length)),
      encodeFrame({ type: 'heartbeat', timestampMicros: round }),
      encodeFrame({
        type: 'agent-status',
        queuedBytes: 1,
        queuedRecords: 1,
        volumes: [],
        noCheckpointsBecause: '',
        quiescedBy: '',
      }),
    ]
    const peer = TestPeer.connect(bench.ingest.port)
    if (random() < 0.8) await peer.greet(resumeAt(durable()))
    else frames.unshift(encodeFrame(hello()))
    for (let rest = damaged(frames, random); rest.length > 0;) {
      const size = 1 + below(random, 2000)
      if (!peer.socket.writable) break
      peer.sendBytes(rest.subarray(0, size))
      rest = rest.subarray(size)
      if (random() < 0.3) await new Promise(resolve => setImmediate(resolve))
    }
    bystander.sendBytes(batchAt(round))
    await until(`seed ${seed}, round ${round}: the bystander is acknowledged`, () => bystander.acked === round)
    peer.socket.end()
    await until(`seed ${seed}, round ${round}: the session ends`, () => peer.closed)
    await until('its room is free', () => bench.journal.openSlots.size === 0)
  }

  let reached = 0
  for (const { fields, frame } of bench.journal.durable) {
    if (fields.vpg !== vpg.definition.id) continue
    const message = decodeFrame(frame)
    if (fields.firstSequence !== reached + 1) t.fail(`a gap after ${reached}`)
    reached = fields.lastSequence
    if (message.type === 'marker') t.equal(message.sequence, fields.firstSequence)
    if (message.type !== 'write-batch') continue
    for (let index = 0; index < message.writeCount; index++) {
      const inside = message.offsetBytes(index) + message.lengthBytes(index) <= volumeSizeBytes
      if (message.volume(index) !== 1 || !inside) t.fail(`a write out of bounds at ${fields.firstSequence}`)
    }
  }
  t.ok(reached > roundCount / 4, 'what was right was taken')
  t.equal(durable().sequence, reached)
  t.ok(bench.events.refused.length > roundCount / 4, 'what was wrong was refused')
  t.same(
    bench.events.refused.filter(code => code === 'BUSY'),
    [],
  )
})
