import assert from 'node:assert'
import * as fs from 'node:fs'
import * as path from 'node:path'
import t, { type Test } from 'tap'
import { KiB, MiB } from '../../src/base/units.ts'
import { Failure } from '../../src/base/failure.ts'
import {
  ImageSources,
  openImage,
  spoolImage,
  spoolInThread,
  type SpoolableImage,
  SpoolRoom,
  type SpoolOptions,
} from '../../src/image/image.ts'
import { newSpoolRoom } from '../../src/image/service.ts'
import { createSpoolFile, fillSpoolFile, useSpool } from '../../src/image/spool-image.ts'
import { storeReadPatienceMillis } from '../../src/base/limits.ts'
import { StoreLoad } from '../../src/store/store-load.ts'
import { newSharedLoad, openStore, type StoreConfig } from '../../src/store/store.ts'
import { eventually } from '../support/nbd-tools.ts'
import { S3Simulator } from '../support/s3-sim.ts'
import { planIn } from '../support/image-plan.ts'
import { batchRecord, randomFrom, someVpg } from '../support/segment-records.ts'
import { commitKey, SegmentBuilder } from '../../src/segment/segment.ts'
import type { ImagePlan } from '../../src/aging/service.ts'
import { sequence } from '../../src/base/ids.ts'
import { History, seeded } from '../support/mirror-history.ts'
import { readVolume, TestTimeline } from '../support/mirror-timeline.ts'

// Whether an image with a spool is right is held by random histories, in test/mirror/histories.ts; here is what a spool costs and leaves.

const { signal } = new AbortController()
const volumes = [{ number: 1, sizeBytes: 500 * KiB, included: true }]

const optionsOf = (fileName: string): SpoolOptions => ({
  fileName,
  failed: () => assert.fail('the spool failed'),
  room: SpoolRoom.open(newSpoolRoom(), 'live'),
})

/** Nothing is folded: three segments, and a tail. */
async function prepare(directory: string) {
  const history = new History(seeded(31), volumes, 1)
  const timeline = new TestTimeline(history, directory)
  for (let round = 0; round < 4; round++) {
    for (let count = 0; count < 20; count++) history.write()
    timeline.checkpoint()
    if (round < 3) history.seal('all')
  }
  const image = await timeline.open(timeline.plan(timeline.retained.at(-1)!))
  const sources = timeline.history.segments.map(segment => segment.source)
  const reads = (): number[] => sources.flatMap(source => [...source.reads])
  return { image, reads }
}

t.test('a spool is made by one pass over what is not folded, and reads then touch no batch of it', async t => {
  const { image, reads } = await prepare(t.testdir())
  const before = reads()
  const spooled = await spoolImage(image, new Set([1]), optionsOf(path.join(t.testdirName, 'spool')), signal)
  t.not(spooled, undefined)
  const filled = reads()
  t.equal(Math.max(...filled.map((count, batch) => count - before[batch]!)), 1)
  await readVolume(image, 1, seeded(1))
  t.strictSame(reads(), filled)
  await spooled?.close()
  await readVolume(image, 1, seeded(1))
  t.ok(reads().some((count, batch) => count > filled[batch]!))
})

t.test('a spool has no name, so that nobody need remove what a killed process had', async t => {
  const { image } = await prepare(t.testdir())
  const name = path.join(t.testdirName, 'spool')
  fs.writeFileSync(name, 'of a process that was killed before its file had no name')
  const spooled = await spoolImage(image, new Set([1]), optionsOf(name), signal)
  t.not(spooled, undefined)
  t.notOk(fs.existsSync(name))
  await spooled?.close()
})

t.test('where the disk takes no spool, the image is read as before', async t => {
  const { image } = await prepare(t.testdir({ file: '' }))
  const name = path.join(t.testdirName, 'file', 'spool')
  const before = await readVolume(image, 1, seeded(1))
  t.equal(await spoolImage(image, new Set([1]), optionsOf(name), signal), undefined)
  t.equal(Buffer.compare(await readVolume(image, 1, seeded(1)), before), 0)
})

t.test('what a read wants of one batch is asked of it at once, however many writes it was', async t => {
  const directory = path.resolve(t.testdir())
  const writes = Array.from({ length: 60 }, (_, index) => {
    return { volume: 1, offsetBytes: index * 4096, lengthBytes: 4096, zero: false }
  })
  const random = randomFrom(6)
  const { plan } = await planOfSegment(directory, [batchRecord({ ...firstOf(1), writes, random })])
  const sources = await ImageSources.open(
    { kind: 'directory', directory: path.join(directory, 'store') },
    directory,
    undefined,
  )
  t.teardown(() => sources.close())
  const tools = sources.tools(MiB)
  let partCount = 0
  const image = await openImage(
    plan,
    {
      ...tools,
      openSegment: segment => {
        const source = tools.openSegment(segment)
        return {
          name: source.name,
          columns: source.columns.bind(source),
          readBatch: source.readBatch.bind(source),
          scanBatches: source.scanBatches.bind(source),
          readPart: (...asked) => {
            partCount++
            return source.readPart(...asked)
          },
        }
      },
    },
    signal,
  )
  await image.read(1, 0, new Uint8Array(4096), signal)
  t.equal(partCount, 1)
  const before = image.wastedSizeBytes
  t.ok(before > 0 && before < 64 * KiB)
  await image.read(1, 0, new Uint8Array(240 * KiB), signal)
  t.equal(partCount, 2)
})

t.test('what reads decompress for nothing is counted, and what a spool would hold', async t => {
  const { image } = await prepare(t.testdir())
  t.ok(image.unfoldedSizeBytes > 100 * KiB)
  t.equal(image.wastedSizeBytes, 0)
  await image.read(1, 0, new Uint8Array(512), signal)
  t.ok(image.wastedSizeBytes > 0)
})

const firstOf = (sequenceNumber: number) => ({ vpg: someVpg, stream: 1, generation: 1, sequence: sequenceNumber })

/** 40 batches of 8 random writes each. */
function randomBatches(): ReturnType<typeof batchRecord>[] {
  const random = randomFrom(5)
  const place = () => 4096 * Math.floor(random() * 1000)
  return Array.from({ length: 40 }, (_, batch) => {
    const writes = Array.from({ length: 8 }, () => ({
      ...{ volume: 1, offsetBytes: place(), lengthBytes: 8192, zero: random() < 0.2 },
    }))
    return batchRecord({ ...firstOf(1 + 8 * batch), writes, random })
  })
}

/** The batches in one segment of a store, and nothing else. */
async function planOfSegment(
  directory: string,
  batches = randomBatches(),
): Promise<{ plan: ImagePlan; objectFile: string }> {
  const folded = await planIn(directory)
  const options = { epoch: 1, commitNumber: 1, nonce: Buffer.alloc(16), createdAtMicros: 1 }
  const builder = new SegmentBuilder({ vpg: someVpg, ...options, capacityBytes: 8 * MiB })
  for (const { header, frame } of batches) builder.add(header, frame)
  const { body, span } = builder.finish()
  const key = commitKey(someVpg, 1)
  const objectFile = path.join(directory, 'store', 'objects', key)
  fs.mkdirSync(path.dirname(objectFile), { recursive: true })
  fs.writeFileSync(objectFile, body)
  const segments = [{ ...span, object: { key, sizeBytes: body.length } }]
  const vector = [{ stream: 1, generation: 1, sequence: sequence(320) }]
  const checkpoint = { ...folded.checkpoint, vector, volumes: [{ number: 1, sizeBytes: 4 * MiB, included: true }] }
  return {
    plan: { ...folded, checkpoint, state: { ...folded.state, deltas: [], segments }, segmentsFrom: [] },
    objectFile,
  }
}

t.test('a thread that is needed no more leaves nothing under way in the counts of the store', async t => {
  process.env['AWS_ACCESS_KEY_ID'] = 'test'
  process.env['AWS_SECRET_ACCESS_KEY'] = 'test'
  const simulator = await S3Simulator.start()
  t.teardown(() => simulator.close())
  const directory = path.resolve(t.testdir())
  const { plan, objectFile } = await planOfSegment(directory)
  const sharedLoad = newSharedLoad()
  const config: StoreConfig = {
    ...{ kind: 's3', bucket: 'bucket', prefix: 'a/', region: 'eu-central-1', endpoint: simulator.endpoint },
    ...{ forcePathStyle: true, checksums: 'when-supported', requestTimeoutMillis: 10_000 },
    ...{ serverSideEncryption: 'bucket-default', kmsKeyId: undefined },
    ...{ sharedLoad, readPatienceMillis: storeReadPatienceMillis },
  }
  const store = await openStore(config)
  await store.create(commitKey(someVpg, 1), fs.readFileSync(objectFile), signal)
  await store.close()
  const sources = await ImageSources.open(config, directory, undefined)
  t.teardown(() => sources.close())
  const image = await openImage(plan, sources.tools(0), signal)
  const load = new StoreLoad(sharedLoad)
  for (const answer of [{ kind: 'hang' }, { kind: 'refuse', status: 503, code: 'SlowDown' }] as const) {
    simulator.failWhere(({ operation }) => (operation === 'GetObject' ? answer : undefined))
    const abort = new AbortController()
    const options = optionsOf(path.join(directory, 'spool'))
    const sourcesOfThread = { store: config, dataDirectory: directory }
    const ended = spoolInThread(image, plan, [1], sourcesOfThread, options, abort.signal)
    const counts = (): number => (answer.kind === 'hang' ? load.facts.underWayCount : load.facts.waitingCount)
    await eventually('the thread asks the store', () => counts() > 0)
    abort.abort(new Failure('CLOSING', 'nobody reads it any more'))
    await t.rejects(ended, { code: 'CLOSING' })
    t.match(load.facts, { underWayCount: 0, waitingCount: 0 })
  }
})

t.test('a thread of its own makes the spool of an image that another one reads', async t => {
  const directory = path.resolve(t.testdir())
  const { plan, objectFile } = await planOfSegment(directory)
  const store = { kind: 'directory', directory: path.join(directory, 'store') } as const
  const sources = await ImageSources.open(store, directory, undefined)
  t.teardown(() => sources.close())
  const image = await openImage(plan, sources.tools(0), signal)
  const before = new Uint8Array(4 * MiB)
  await image.read(1, 0, before, signal)
  t.ok(before.some(byte => byte !== 0))
  const begin = (at: AbortSignal) =>
    spoolInThread(image, plan, [1], { store, dataDirectory: directory }, optionsOf(path.join(directory, 'spool')), at)
  const spooled = await begin(signal)
  t.not(spooled, undefined)
  fs.renameSync(objectFile, `${objectFile}.away`)
  const after = new Uint8Array(4 * MiB)
  await image.read(1, 0, after, signal)
  t.equal(Buffer.compare(after, before), 0)
  await spooled?.close()
  await t.rejects(image.read(1, 0, after, signal), { code: 'NOT_FOUND' })
  await t.rejects(begin(signal), { code: 'NOT_FOUND' })
  fs.renameSync(`${objectFile}.away`, objectFile)
  const abort = new AbortController()
  const ended = begin(abort.signal)
  abort.abort(new Failure('CLOSING', 'nobody reads it any more'))
  await t.rejects(ended, { code: 'CLOSING' })
})

/** One region with more of a spool than is read of it at once, and its bytes. */
async function prepareSpool(t: Test) {
  const directory = path.resolve(t.testdir())
  const { plan } = await planOfSegment(directory)
  const sources = await ImageSources.open(
    { kind: 'directory', directory: path.join(directory, 'store') },
    directory,
    undefined,
  )
  const image = await openImage(plan, sources.tools(0), signal)
  const right = await bytesOf(image)
  const failures: unknown[] = []
  const options = { failed: (cause: unknown) => failures.push(cause) }
  const file = createSpoolFile(path.join(directory, 'spool'))!
  const share = SpoolRoom.open(newSpoolRoom(), 'live').begin()!
  t.teardown(async () => {
    await file.close()
    await sources.close()
  })
  const filled = (await fillSpoolFile(image, new Set([1]), { file, directory, share }, signal))!
  t.ok(filled.places.sizeBytes > MiB)
  return { image, file, filled, options, failures, right }
}

async function bytesOf(image: SpoolableImage): Promise<Uint8Array> {
  const bytes = new Uint8Array(4 * MiB)
  await image.read(1, 0, bytes, signal)
  return bytes
}

/** Fails where a byte is given twice. */
async function scatteredOf(image: SpoolableImage): Promise<Uint8Array> {
  const bytes = new Uint8Array(4 * MiB)
  let sizeBytes = 0
  const piece = (offsetBytes: number, given: Uint8Array): void => {
    bytes.set(given, offsetBytes)
    sizeBytes += given.length
  }
  await image.scatter(1, { startBytes: 0, endBytes: 4 * MiB }, { piece, progress: () => undefined }, signal)
  let dataSizeBytes = 0
  for await (const { startBytes, endBytes } of image.extents(1, signal)) dataSizeBytes += endBytes - startBytes
  assert.equal(sizeBytes, dataSizeBytes)
  return bytes
}

for (const [how, readAll] of [
  ['read', bytesOf],
  ['scattered', scatteredOf],
] as const) {
  t.test(
    `what the disk has changed of a spool is not served: the batches are ${how}, and the spool no more`,
    async t => {
      const { image, file, filled, options, failures, right } = await prepareSpool(t)
      const { sizeBytes } = filled.places
      const atBytes = (part: number): number => Math.floor(part * (sizeBytes - 1))
      for (const offsetBytes of [0, 0.3, 0.8, 1].map(atBytes)) {
        failures.length = 0
        useSpool(image, filled, file, options)
        t.equal(Buffer.compare(await readAll(image), right), 0)
        t.strictSame(failures, [])
        const byte = new Uint8Array(1)
        fs.readSync(file.descriptor, byte, 0, 1, offsetBytes)
        fs.writeSync(file.descriptor, Uint8Array.of(byte[0]! ^ 16), 0, 1, offsetBytes)
        t.equal(Buffer.compare(await readAll(image), right), 0)
        t.match(failures, [{ code: 'DISK_FAILED' }])
        t.equal(Buffer.compare(await readAll(image), right), 0)
        t.equal(failures.length, 1)
        fs.writeSync(file.descriptor, byte, 0, 1, offsetBytes)
      }
    },
  )

  t.test(`where a spool cannot be read, the batches are ${how}, and the spool no more`, async t => {
    const { image, file, filled, options, failures, right } = await prepareSpool(t)
    for (const goodCount of [0, 1]) {
      let count = 0
      const read = (target: Uint8Array, offsetBytes: number): Promise<void> =>
        count++ < goodCount ? file.read(target, offsetBytes) : Promise.reject(new Error('EIO'))
      image.useSpool({ places: filled.places, file: { read }, failed: options.failed })
      for (let round = 0; round < 3; round++) t.equal(Buffer.compare(await readAll(image), right), 0)
      t.equal(count, goodCount + 1)
    }
    t.match(failures, [{ message: 'EIO' }, { message: 'EIO' }])
    t.equal(failures.length, 2)
    useSpool(image, filled, file, options)
    fs.ftruncateSync(file.descriptor, 1000)
    t.equal(Buffer.compare(await readAll(image), right), 0)
    t.match(failures[2], { code: 'DISK_FAILED' })
  })
}

t.test('a part of a spool is checked with the blocks around it', async t => {
  const { image, file, filled, options, failures, right } = await prepareSpool(t)
  useSpool(image, filled, file, options)
  const random = seeded(3)
  for (let count = 0; count < 300; count++) {
    const offsetBytes = 512 * random(8192)
    const target = new Uint8Array(Math.min(4 * MiB - offsetBytes, 512 * (1 + random(64))))
    await image.read(1, offsetBytes, target, signal)
    assert.equal(Buffer.compare(target, right.subarray(offsetBytes, offsetBytes + target.length)), 0)
  }
  t.strictSame(failures, [])
})
