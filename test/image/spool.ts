import * as fs from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { KiB, MiB } from '../../src/base/units.ts'
import { Failure } from '../../src/base/failure.ts'
import { ImageSources, openImage, spoolImage, spoolInThread } from '../../src/image/image.ts'
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
  const spooled = await spoolImage(image, new Set([1]), path.join(t.testdirName, 'spool'), signal)
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
  const spooled = await spoolImage(image, new Set([1]), name, signal)
  t.not(spooled, undefined)
  t.notOk(fs.existsSync(name))
  await spooled?.close()
})

t.test('where the disk takes no spool, the image is read as before', async t => {
  const { image } = await prepare(t.testdir({ file: '' }))
  const name = path.join(t.testdirName, 'file', 'spool')
  const before = await readVolume(image, 1, seeded(1))
  t.equal(await spoolImage(image, new Set([1]), name, signal), undefined)
  t.equal(Buffer.compare(await readVolume(image, 1, seeded(1)), before), 0)
})

t.test('what reads decompress for nothing is counted, and what a spool would hold', async t => {
  const { image } = await prepare(t.testdir())
  t.ok(image.unfoldedSizeBytes > 100 * KiB)
  t.equal(image.wastedSizeBytes, 0)
  await image.read(1, 0, new Uint8Array(512), signal)
  t.ok(image.wastedSizeBytes > 0)
})

/** 40 batches of 8 random writes each in one segment of a store, and nothing else. */
async function planOfSegment(directory: string): Promise<{ plan: ImagePlan; objectFile: string }> {
  const folded = await planIn(directory)
  const random = randomFrom(5)
  const options = { epoch: 1, commitNumber: 1, nonce: Buffer.alloc(16), createdAtMicros: 1 }
  const builder = new SegmentBuilder({ vpg: someVpg, ...options, capacityBytes: 8 * MiB })
  for (let batch = 0; batch < 40; batch++) {
    const place = () => 4096 * Math.floor(random() * 250)
    const writes = Array.from({ length: 8 }, () => ({
      ...{ volume: 1, offsetBytes: place(), lengthBytes: 8192, zero: random() < 0.2 },
    }))
    const at = { vpg: someVpg, stream: 1, generation: 1, sequence: 1 + 8 * batch }
    const { header, frame } = batchRecord({ ...at, writes, random })
    builder.add(header, frame)
  }
  const { body, span } = builder.finish()
  const key = commitKey(someVpg, 1)
  const objectFile = path.join(directory, 'store', 'objects', key)
  fs.mkdirSync(path.dirname(objectFile), { recursive: true })
  fs.writeFileSync(objectFile, body)
  const segments = [{ ...span, object: { key, sizeBytes: body.length } }]
  const vector = [{ stream: 1, generation: 1, sequence: sequence(320) }]
  const checkpoint = { ...folded.checkpoint, vector, volumes: [{ number: 1, sizeBytes: MiB, included: true }] }
  return {
    plan: { ...folded, checkpoint, state: { ...folded.state, deltas: [], segments }, segmentsFrom: [] },
    objectFile,
  }
}

t.test('a thread of its own makes the spool of an image that another one reads', async t => {
  const directory = path.resolve(t.testdir())
  const { plan, objectFile } = await planOfSegment(directory)
  const store = { kind: 'directory', directory: path.join(directory, 'store') } as const
  const sources = await ImageSources.open(store, directory, undefined)
  t.teardown(() => sources.close())
  const image = await openImage(plan, sources.tools(0), signal)
  const before = new Uint8Array(MiB)
  await image.read(1, 0, before, signal)
  t.ok(before.some(byte => byte !== 0))
  const begin = (at: AbortSignal) =>
    spoolInThread(image, plan, [1], { store, dataDirectory: directory }, path.join(directory, 'spool'), at)
  const spooled = await begin(signal)
  t.not(spooled, undefined)
  fs.renameSync(objectFile, `${objectFile}.away`)
  const after = new Uint8Array(MiB)
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
