import { writeFileSync } from 'node:fs'
import * as path from 'node:path'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import { silentAgentEvents } from '../../src/agent/agent.ts'
import { SharedPieces } from '../../src/agent/sealing/pieces.ts'
import { frameOf, type RecordBatch, type Sealer } from '../../src/agent/sealing/sealer.ts'
import { SealingThread } from '../../src/agent/sealing/sealing-thread.ts'
import { Stream } from '../../src/agent/stream.ts'
import { systemClock } from '../../src/base/clock.ts'
import { KiB, MiB } from '../../src/base/units.ts'
import { BatchBuilder, decodeFrame, decompressPayload } from '../../src/wire/wire.ts'

// Batches that are sealed beside the event loop: the frames leave in the order of their numbers, with the data that was numbered, whatever
// becomes of the thread, of the queue or of the agent meanwhile.

const marker = { term: 1, counter: 1, timestampMicros: 1, requestId: 0, participants: [1], volumes: [] }

/** What seals when it is told to. */
class ManualSealer implements Sealer {
  readonly pieces = new SharedPieces()
  place: ReturnType<Sealer['placeFor']> = 'elsewhere'
  readonly jobs: { batch: RecordBatch; piece: Buffer; done: (sizeBytes: number | undefined) => void }[] = []

  placeFor(): ReturnType<Sealer['placeFor']> {
    return this.place
  }
  seal(batch: RecordBatch, piece: Buffer, done: (sizeBytes: number | undefined) => void): void {
    this.jobs.push({ batch, piece, done })
  }
  close(): Promise<void> {
    return Promise.resolve()
  }
  /** Of the job that came so many after the oldest. */
  finish(index: number): void {
    const [job] = this.jobs.splice(index, 1)
    job?.done(frameOf(new BatchBuilder(), job.batch, sizeBytes => job.piece.subarray(0, sizeBytes)).length)
  }
  die(): void {
    for (const { done } of this.jobs.splice(0)) done(undefined)
  }
}

function streamOf(sealer: Sealer): Stream {
  const stream = new Stream({
    ...{ clock: systemClock, events: silentAgentEvents, sealer, queueSizeBytesMax: 256 * MiB, batchDelayMillisMax: 1 },
    ...{ onOverflow: () => t.fail('no overflow'), onSmaller: () => undefined },
  })
  stream.begin({ generation: 7, lastNumbered: 0, durable: 0, frames: [] })
  return stream
}

/** A write whose data says which it is. */
function append(stream: Stream, number: number, sizeBytes: number): void {
  const data = Buffer.alloc(sizeBytes, `write ${number} `)
  stream.append(1, [{ offsetBytes: number * MiB, lengthBytes: sizeBytes, data }])
  data.fill(0xff)
}

const turn = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

/** Every frame that can leave now, as its first record's number, or 'marker'. Checks each write's data. */
function sent(stream: Stream): (number | string)[] {
  const found: (number | string)[] = []
  for (let frame = stream.nextFrame(); frame !== undefined; frame = stream.nextFrame()) {
    found.push(check(frame))
    stream.frameSent()()
  }
  return found
}

function check(frame: Buffer): number | string {
  const message = decodeFrame(frame)
  if (message.type !== 'write-batch') return message.type
  t.equal(message.generation, 7)
  const raw = Buffer.alloc(message.rawSizeBytes)
  t.ok(decompressPayload(message, raw))
  for (let index = 0, at = 0; index < message.writeCount; index++) {
    const lengthBytes = message.lengthBytes(index)
    const wanted = Buffer.alloc(lengthBytes, `write ${message.offsetBytes(index) / MiB} `)
    t.ok(raw.subarray(at, at + lengthBytes).equals(wanted), 'as it was when it got its number')
    at += lengthBytes
  }
  return message.firstSequence
}

/** Each a batch of its own. */
async function appendTwo(stream: Stream): Promise<void> {
  for (const number of [1, 2]) {
    append(stream, number, 256 * KiB)
    await turn()
  }
}

void t.test('frames leave in the order of their numbers, whichever is sealed first', async t => {
  const sealer = new ManualSealer()
  const stream = streamOf(sealer)
  stream.resume(0, () => undefined)
  await appendTwo(stream)
  stream.appendMarker(marker)
  await turn()
  sealer.place = 'in line'
  append(stream, 4, 256 * KiB)
  await turn()
  t.equal(sealer.jobs.length, 2)
  t.same(sent(stream), [], 'nothing passes what is not sealed')
  sealer.finish(1)
  t.same(sent(stream), [])
  sealer.finish(0)
  t.same(sent(stream), [1, 2, 'marker', 4])
  stream.acknowledge(4)
  t.equal(stream.queuedBytes, 0)
})

void t.test(
  'a queue that is dropped while batches are out gives all memory back, and nothing of it is sent',
  async t => {
    const sealer = new ManualSealer()
    const stream = streamOf(sealer)
    const { leftCount } = sealer.pieces
    stream.resume(0, () => undefined)
    let givenBack = 0
    for (const number of [1, 2]) {
      const piece = sealer.pieces.take()!
      const data = piece.subarray(0, 512 * KiB).fill(`write ${number} `)
      const giveBack = (): void => {
        givenBack++
        sealer.pieces.give(piece)
      }
      const change = { offsetBytes: number * MiB, lengthBytes: data.length, data }
      stream.append(1, [change], { isPiece: true, giveBack })
      await turn()
    }
    stream.detach()
    t.equal(stream.queuedBytes, 0)
    t.equal(givenBack, 0, 'it is still read')
    sealer.finish(0)
    sealer.die()
    t.equal(givenBack, 2)
    stream.begin({ generation: 7, lastNumbered: 0, durable: 0, frames: [] })
    append(stream, 1, 256 * KiB)
    await turn()
    sealer.finish(0)
    t.same(sent(stream), [1])
    stream.acknowledge(1)
    t.equal(sealer.pieces.leftCount, leftCount - 1, 'but for what the next write is copied to')
  },
)

void t.test('what a thread had when it died is sealed in line', async t => {
  const sealer = new ManualSealer()
  const stream = streamOf(sealer)
  stream.resume(0, () => undefined)
  await appendTwo(stream)
  sealer.die()
  t.same(sent(stream), [1, 2])
})

void t.test('an agent that stops has every frame, also of batches that are out', async t => {
  const sealer = new ManualSealer()
  const stream = streamOf(sealer)
  append(stream, 1, 256 * KiB)
  await turn()
  append(stream, 2, 4 * KiB)
  stream.appendMarker(marker)
  const frames = stream.sealAll()
  t.same(
    frames.map(({ bytes }) => check(bytes)),
    [1, 2, 'marker'],
  )
  sealer.finish(0)
  t.same(stream.sealAll(), frames, 'an answer that comes then changes nothing')
})

void t.test('memory runs out, and batches are sealed in line', async t => {
  const sealer = new ManualSealer()
  const stream = streamOf(sealer)
  while (sealer.pieces.take() !== undefined);
  append(stream, 1, 256 * KiB)
  await turn()
  t.equal(sealer.jobs.length, 0)
  t.same(sent(stream), [1])
})

void t.test('a batch is compressed but where much waits to be sealed and little is on its way', async t => {
  const sealer = new ManualSealer()
  const stream = streamOf(sealer)
  stream.resume(0, () => undefined)
  let number = 0
  const appendSome = async (count: number): Promise<void> => {
    for (let appended = 0; appended < count; appended++) {
      append(stream, ++number, 256 * KiB)
      await turn()
    }
  }
  const hurriedCount = (): number => sealer.jobs.filter(({ batch }) => batch.isHurried).length
  await appendSome(15)
  t.equal(hurriedCount(), 0, 'little waits')
  await appendSome(13)
  t.equal(hurriedCount(), 13)
  while (sealer.jobs.length > 0) sealer.finish(0)
  t.equal(sent(stream).length, number)
  t.ok(stream.queuedBytes > 13 * 256 * KiB, 'stored as they are')
  t.ok(stream.queuedBytes < 14 * 256 * KiB, 'the others are compressed')
  await appendSome(20)
  t.equal(hurriedCount(), 0, 'much is on its way')
  stream.acknowledge(28)
  await appendSome(1)
  t.equal(hurriedCount(), 1)
})

void t.test('the thread seals what is given to it', async t => {
  const sealer = new SealingThread(systemClock, why => t.fail(why))
  t.teardown(() => sealer.close())
  const stream = streamOf(sealer)
  // The first ones are sealed in line, until the thread is there.
  while (sealer.placeFor({ sizeBytes: 1 * MiB, waitingBytes: 0 }) !== 'elsewhere') await turn()
  let tellAll: () => void = () => undefined
  const all = new Promise<void>(resolve => {
    tellAll = resolve
  })
  const found: (number | string)[] = []
  stream.resume(0, () => {
    found.push(...sent(stream))
    if (found.length === 12) tellAll()
  })
  for (let number = 1; number <= 12; number++) {
    append(stream, number, number % 3 === 0 ? 512 * KiB : 256 * KiB)
    await turn()
  }
  await all
  t.same(found, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
})

void t.test('a thread that dies is told of, and everything is sealed', async t => {
  const program = path.join(t.testdir(), 'dies.mjs')
  writeFileSync(
    program,
    `import { parentPort } from 'node:worker_threads'
     parentPort.on('message', () => { throw new Error('it is broken') })
     parentPort.postMessage({ type: 'born' })`,
  )
  let tellDied: (why: string) => void = () => undefined
  const died = new Promise<string>(resolve => {
    tellDied = resolve
  })
  const sealer = new SealingThread(systemClock, tellDied, pathToFileURL(program))
  t.teardown(() => sealer.close())
  const stream = streamOf(sealer)
  while (sealer.placeFor({ sizeBytes: 1 * MiB, waitingBytes: 0 }) !== 'elsewhere') await turn()
  append(stream, 1, 256 * KiB)
  await turn()
  t.equal(await died, 'it is broken')
  await turn()
  append(stream, 2, 256 * KiB)
  await turn()
  t.same(sent(stream), [1, 2])
})
