import { readdirSync, writeFileSync } from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { newVpgId, ordinal, sequence } from '../../src/base/ids.ts'
import { failedWith } from '../../src/base/failure.ts'
import { KiB, MiB } from '../../src/base/units.ts'
import { realDisk } from '../../src/disk/disk.ts'
import {
  defaultFoldLimits,
  dumpPack,
  fold,
  removeScratch,
  verifyPack,
  Workspace,
  type FoldRequest,
  type FoldResult,
} from '../../src/mirror/mirror.ts'
import type { Checkpoint } from '../../src/timeline/checkpoint.ts'
import { seeded } from '../support/mirror-history.ts'
import { MemoryStore } from '../support/mirror-memory-store.ts'
import { MemorySource, type TestBatch, type TestWrite } from '../support/mirror-source.ts'

const workspace = new Workspace()

function checkpointAt(count: number, sequenceNumber: number): Checkpoint {
  return {
    ordinal: ordinal(count),
    timestampMicros: count,
    historyMillis: count,
    vector: [{ stream: 1, generation: 1, sequence: sequence(sequenceNumber) }],
    volumes: [{ number: 1, sizeBytes: 2 ** 40, included: true }],
  }
}

function dataWrite(offsetBytes: number, sizeBytes: number, fill: number): TestWrite {
  return { volume: 1, offsetBytes, sizeBytes, data: new Uint8Array(sizeBytes).fill(fill) }
}

function batchAt(firstSequence: number, ...writes: TestWrite[]): TestBatch {
  return { stream: 1, generation: 1, firstSequence, writes }
}

async function foldOf(
  directory: string,
  sources: readonly MemorySource[],
  options: Partial<FoldRequest> = {},
): Promise<FoldResult & { store: MemoryStore; lines: string[] }> {
  const store = new MemoryStore()
  const { signal } = new AbortController()
  let keyCount = 0
  const result = await fold({
    store,
    newKey: () => `delta-${++keyCount}`,
    workspace,
    yieldNow: () => Promise.resolve(),
    signal,
    vpg: newVpgId(),
    epoch: 1,
    fromOrdinal: ordinal(0),
    fromVector: [],
    checkpoints: [checkpointAt(1, 1_000_000)],
    sources,
    holes: [],
    disk: realDisk,
    scratchDirectory: path.resolve(directory),
    limits: defaultFoldLimits,
    ...options,
  })
  const lines: string[] = []
  for (const pack of result.packs) {
    t.strictSame((await verifyPack(store, pack.object, signal)).faults, [])
    for await (const line of dumpPack(store, pack.object, signal)) if (line.startsWith('extent')) lines.push(line)
  }
  return { ...result, store, lines }
}

t.test('small writes that follow each other become extents of 64 KiB', async t => {
  const writes = Array.from({ length: 64 }, (_, index) => dataWrite(index * 4096, 4096, index))
  const { lines } = await foldOf(t.testdir(), [new MemorySource('segment', [batchAt(1, ...writes)])])
  t.strictSame(
    lines.map(line => /offset=\d+ size=\d+/.exec(line)?.[0]),
    [0, 1, 2, 3].map(index => `offset=${index * 65536} size=65536`),
  )
})

t.test(
  'extents are in order, also where a large write is divided around what another checkpoint has between',
  async t => {
    const source = new MemorySource('segment', [
      batchAt(1, dataWrite(0, 200 * KiB, 1)),
      batchAt(2, dataWrite(8 * KiB, 4 * KiB, 2), dataWrite(100 * KiB, 100 * KiB, 3)),
    ])
    const { lines } = await foldOf(t.testdir(), [source], { checkpoints: [checkpointAt(1, 1), checkpointAt(2, 3)] })
    const offsets = lines.map(line => Number(/offset=(\d+)/.exec(line)?.[1]))
    t.ok(offsets.length > 5)
    t.strictSame(
      offsets,
      [...offsets].sort((a, b) => a - b),
    )
  },
)

t.test('random small writes share blocks, so that they compress', async t => {
  const writes = Array.from({ length: 512 }, (_, index) => dataWrite(index * 1024 * KiB, 4096, 7))
  const { rawSizeBytes, storedSizeBytes } = await foldOf(t.testdir(), [
    new MemorySource('segment', [batchAt(1, ...writes.slice(0, 256)), batchAt(257, ...writes.slice(256))]),
  ])
  t.equal(rawSizeBytes, 2 * MiB)
  t.ok(storedSizeBytes < 128 * KiB, `${storedSizeBytes}`)
})

t.test('long zeros are one extent for each region', async t => {
  const writes = Array.from({ length: 12 }, (_, index) => ({
    volume: 1,
    offsetBytes: 64 * MiB + index * 16 * MiB,
    sizeBytes: 16 * MiB,
    data: undefined,
  }))
  const { lines, packs } = await foldOf(t.testdir(), [new MemorySource('segment', [batchAt(1, ...writes)])])
  t.strictSame(
    lines.map(line => /size=\d+/.exec(line)?.[0]),
    [`size=${64 * MiB}`, `size=${128 * MiB}`],
  )
  t.strictSame(packs[0]?.regionRawSizeBytes, Uint32Array.of(0, 0, 1, 0))
})

t.test('a write is kept for each retained checkpoint that sees another one', async t => {
  const source = new MemorySource('segment', [
    batchAt(1, dataWrite(0, 4096, 1), dataWrite(0, 4096, 2)),
    batchAt(4, dataWrite(0, 4096, 3)),
    batchAt(6, dataWrite(0, 4096, 4)),
    batchAt(8, dataWrite(0, 4096, 5)),
  ])
  const checkpoints = [checkpointAt(1, 3), checkpointAt(2, 7)]
  const { lines, rawSizeBytes } = await foldOf(t.testdir(), [source], { checkpoints })
  t.equal(rawSizeBytes, 2 * 4096, 'the last before each; what lies beyond the last checkpoint is not in it')
  t.match(lines, [/checkpoint=0.1/, /checkpoint=0.2/])
})

t.test('each payload is read once at most, and one that is overwritten not at all', async t => {
  const random = seeded(11)
  const batches = Array.from({ length: 200 }, (_, index) =>
    batchAt(1 + index, dataWrite(4096 * random(64), 4096, 1 + index)),
  )
  const sources = [new MemorySource('a', batches.slice(0, 90)), new MemorySource('b', batches.slice(90))]
  const limits = { ...defaultFoldLimits, memorySizeBytesMax: 0, partitionSizeBytes: 16 * KiB }
  const { rawSizeBytes } = await foldOf(t.testdir(), sources, { limits })
  const reads = sources.flatMap(source => source.reads)
  t.equal(Math.max(...reads), 1)
  t.equal(
    reads.reduce((sum, count) => sum + count, 0),
    rawSizeBytes / 4096,
  )
})

t.test('a record that stands twice, or late, changes nothing: positions decide', async t => {
  const [first, second] = [batchAt(1, dataWrite(0, 4096, 1)), batchAt(2, dataWrite(0, 4096, 2))]
  const { store, packs } = await foldOf(t.testdir(), [new MemorySource('a', [second]), new MemorySource('b', [first])])
  const ordered = await foldOf(t.testdir(), [new MemorySource('a', [first, second])])
  const block = (objects: MemoryStore): Uint8Array => [...objects.objects.values()][0]!.subarray(80, 130)
  t.equal(packs[0]?.rawSizeBytes, 4096)
  t.strictSame(block(store), block(ordered.store))
})

t.test('batches in holes are passed over', async t => {
  const source = new MemorySource('a', [batchAt(1, dataWrite(0, 4096, 1)), batchAt(2, dataWrite(0, 4096, 2))])
  const hole = { stream: 1, generation: 1, firstSequence: 2, lastSequence: 2, fromOrdinal: ordinal(2) }
  await foldOf(t.testdir(), [source], { holes: [{ ...hole, reason: 'test', ranges: [] }] })
  t.strictSame(source.reads, [1, 0])
})

t.test('nothing between the cuts makes no pack', async t => {
  const source = new MemorySource('a', [batchAt(1, dataWrite(0, 4096, 1))])
  const fromVector = checkpointAt(1, 5).vector
  t.strictSame((await foldOf(t.testdir(), [source], { fromVector })).packs, [])
})

t.test('the scratch file is gone after a fold, after one that failed, and after one that was killed', async t => {
  const directory = path.resolve(t.testdir())
  const source = new MemorySource('a', [batchAt(1, dataWrite(0, 4096, 1))])
  const limits = { ...defaultFoldLimits, memorySizeBytesMax: 0 }
  await foldOf(directory, [source], { limits })
  t.strictSame(readdirSync(directory), [])
  const store = new MemoryStore()
  await store.create('taken', new Uint8Array(1))
  await t.rejects(
    foldOf(directory, [source], { limits, store, newKey: () => 'taken' }),
    { code: 'ALREADY_EXISTS' },
    'the failure is told',
  )
  t.strictSame(readdirSync(directory), [])
  writeFileSync(path.join(directory, 'fold-0.scratch'), 'left')
  writeFileSync(path.join(directory, 'other'), 'not ours')
  removeScratch(realDisk, directory)
  t.strictSame(readdirSync(directory), ['other'])
})

t.test('a fold stops when it is told to, and leaves no file', async t => {
  const directory = path.resolve(t.testdir())
  const abort = new AbortController()
  abort.abort(new Error('enough'))
  const source = new MemorySource('a', [batchAt(1, dataWrite(0, 4096, 1))])
  await t.rejects(foldOf(directory, [source], { signal: abort.signal }), { message: 'enough' })
  t.strictSame(readdirSync(directory), [])
})

t.test('a scratch directory that cannot be used is the disk failing, by name', async t => {
  const directory = path.resolve(t.testdir({ file: '' }))
  const source = new MemorySource('a', [batchAt(1, dataWrite(0, 4096, 1))])
  const limits = { ...defaultFoldLimits, memorySizeBytesMax: 0 }
  const scratchDirectory = path.join(directory, 'file')
  const failure: unknown = await foldOf(directory, [source], { limits, scratchDirectory }).catch((e: unknown) => e)
  t.ok(failedWith(failure, 'DISK_FAILED'), String(failure))
})
