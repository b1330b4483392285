import { randomBytes } from 'node:crypto'
import { mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import * as path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { foldSizeBytesMinDefault, segmentSizeBytesTarget } from '../src/base/limits.ts'
import { GiB, MiB } from '../src/base/units.ts'
import { atLeast, type Aim, type Bench, type BenchContext, type BenchResult, type Cell } from './bench.ts'
import { Histogram } from './histogram.ts'
import type { Workload } from './frames.ts'
import { cpuSecondsOf, rssMaxBytesOf, sendTo, startSimulator, VraProcess } from './processes.ts'

// Aging while ingest runs: a backlog is made at full speed, then guests go on writing at an even pace. What was offloaded and what
// was folded are positions of the stream, looked at all the time. A fold is seen when it is committed, so the rate of folding is
// measured from the end of one to the end of another; and where the backlog is used up before the time is, up to there.
//
// Expectation, per 100 MB/s of guest data at 2:1: demultiplexing and checking 50 MB/s stored costs little; a fold decompresses
// 100 MB/s (5 % of a core), sorts, compresses again where blocks are taken apart (15 to 20 %), and writes 50 MB/s. To S3 each MiB
// costs 1.2 to 2.2 ms of CPU in the SDK, twice: 10 to 20 % more. 300 MB/s to a directory is a core.

const volumeSizeBytes = 16 * GiB
const writeSizeBytes = 4096
const sampleMillis = 200
/** Less than this cannot be waiting: it is no fold yet, or on its way. */
const caughtUpBytes = foldSizeBytesMinDefault + 4 * segmentSizeBytesTarget

type Kind = 'directory' | 's3' | 'encrypted'

export const aging: Bench = {
  name: 'aging',
  describes: 'segments and folds into a directory with ingest running',
  run: context => report(context, 'directory', 300e6),
}

export const agingToS3: Bench = {
  name: 'aging-s3',
  describes: 'segments and folds into S3 (the simulator) with ingest running',
  run: context => report(context, 's3', 100e6),
}

/** The cipher alone does 2.4 GB/s here (`openssl speed`), 0.45 s of CPU for a GiB; sealing or opening one in chunks of 64 KiB, in memory that was used before, 0.9 to 1.1 s of a busy machine's; in new memory 5 to 7 s. */
export const agingEncrypted: Bench = {
  name: 'aging-encrypted',
  describes: 'the same into a directory, encrypted by this host (store.clientEncryption)',
  run: context => report(context, 'encrypted', 300e6),
}

async function report(context: BenchContext, kind: Kind, rawBytesPerSecond: number): Promise<BenchResult> {
  const { row, aim } = await measure(context, kind, rawBytesPerSecond)
  return {
    tables: [
      {
        title: 'Aging with ingest running (4 KiB random, zipf-text; default configuration)',
        columns: [
          { name: 'store', digits: 0 },
          { name: 'ingest MB/s', digits: 0 },
          { name: 'sealed MB/s', digits: 0 },
          { name: 'folds', digits: 0 },
          { name: 'folded MB/s', digits: 0 },
          { name: 'of ingest', digits: 2 },
          { name: 'objects/GiB', digits: 1 },
          { name: 'stored/guest', digits: 2 },
          { name: 'ack p99 ms', digits: 1 },
          { name: 'vra CPU s/GiB', digits: 2 },
          { name: 'RSS max MiB', digits: 0 },
        ],
        rows: [row],
        notes: [
          'MB/s of guest data. sealed: out of the log into segments; folded: out of segments into deltas, between the ends of folds.',
          'of ingest: folded over ingest; 0 folds: none ended between two others in the time.',
          'objects/GiB: all objects in the store over guest GiB sealed; stored/guest: their bytes over guest bytes sealed.',
          'vra CPU: all of the daemon over guest GiB received meanwhile, also what it does to the backlog.',
        ],
      },
    ],
    aims: [aim],
    curves: [],
  }
}

async function measure(
  context: BenchContext,
  kind: Kind,
  rawBytesPerSecond: number,
): Promise<{ row: Cell[]; aim: Aim }> {
  const directory = path.join(context.directory, kind)
  const bucket = path.join(directory, 'bucket')
  mkdirSync(bucket, { recursive: true })
  const simulator = kind === 's3' ? await startSimulator(bucket) : undefined
  const store =
    simulator === undefined
      ? { kind: 'directory', ...(kind === 'encrypted' ? encryptionIn(directory) : {}) }
      : {
          kind: 's3',
          bucket: 'bucket',
          prefix: 'bench/',
          endpoint: simulator.endpoint,
          forcePathStyle: true,
          serverSideEncryption: 'bucket-default',
        }
  const environment = { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test' }
  const vra = await VraProcess.start({ directory, environment, store })
  try {
    const vpgs = await vra.createVpgs(1, volumeSizeBytes)
    const measureMillis = context.quick ? 20_000 : 40_000
    // A quarter of what comes in meanwhile, and what a fold and a half leave: aging that is fast enough is never without work.
    const backlogBytes = MiB * Math.ceil((rawBytesPerSecond * measureMillis * 0.00035 + caughtUpBytes) / MiB)
    context.say(`${kind}: a backlog of ${backlogBytes / MiB} MiB of guest data`)
    const workload: Workload = { pattern: 'random', writeSizeBytes, writesPerBatch: 64, data: 'zipf-text' }
    await sendTo(vra, vpgs, { volumeSizeBytes, workload, writeCountMax: backlogBytes / writeSizeBytes })
    const durable = (await vra.control.showVpg('bench-0')).agents[0]?.durable ?? { generation: 0, sequence: 0 }
    context.say(`${kind}: ${rawBytesPerSecond / 1e6} MB/s beside it`)
    const sending = sendTo(vra, [{ name: 'bench-0', durable }], {
      ...{ volumeSizeBytes, workload },
      rawBytesPerSecond,
      measureMillis,
    })
    await delay(1_000)
    const samples = await watch(vra, measureMillis - 2_000)
    const { latencyCounts, rawSizeBytes, elapsedSeconds } = await sending
    const ingestRate = rawSizeBytes / elapsedSeconds
    const { sealedRate, foldedRate, foldCount, cpuSecondsPerGiB, sealedBytes } = ratesOf(samples)
    const objects = objectsBelow(simulator === undefined ? path.join(directory, 'data/store/objects') : bucket)
    const row: Cell[] = [
      kind,
      ingestRate / 1e6,
      sealedRate / 1e6,
      foldCount,
      foldedRate / 1e6,
      foldedRate / ingestRate,
      objects.count / (sealedBytes / GiB),
      objects.sizeBytes / sealedBytes,
      new Histogram(latencyCounts).quantileMillis(0.99),
      cpuSecondsPerGiB,
      rssMaxBytesOf(vra.processId) / MiB,
    ]
    const what = `aging to ${kind} beside ${rawBytesPerSecond / 1e6} MB/s of ingest, of ingest`
    return { row, aim: atLeast(what, 1.25, foldedRate / ingestRate, '') }
  } finally {
    await vra.kill()
    await simulator?.stop()
  }
}

function encryptionIn(directory: string): {
  readonly clientEncryption: { readonly key: 'file'; readonly keyFile: string }
} {
  const keyFile = path.join(directory, 'store.key')
  writeFileSync(keyFile, randomBytes(32), { mode: 0o400 })
  return { clientEncryption: { key: 'file', keyFile } }
}

/** Guest bytes since the beginning, by how far they are. */
interface Sample {
  readonly atMillis: number
  readonly durableBytes: number
  readonly sealedBytes: number
  readonly foldedBytes: number
  readonly deltaCount: number
  readonly cpuSeconds: number
}

async function watch(vra: VraProcess, millis: number): Promise<Sample[]> {
  const samples: Sample[] = []
  const endMillis = performance.now() + millis
  while (performance.now() < endMillis) {
    samples.push(await sample(vra))
    await delay(sampleMillis)
  }
  return samples
}

async function sample(vra: VraProcess): Promise<Sample> {
  const { mirror, agents } = await vra.control.showVpg('bench-0')
  // Every write has a number, and markers are few beside them.
  const sealedBytes = (agents[0]?.offloaded.sequence ?? 0) * writeSizeBytes
  return {
    atMillis: performance.now(),
    durableBytes: (agents[0]?.durable.sequence ?? 0) * writeSizeBytes,
    sealedBytes,
    foldedBytes: sealedBytes - mirror.unfoldedRawSizeBytes,
    deltaCount: mirror.deltaCount,
    cpuSeconds: cpuSecondsOf(vra.processId),
  }
}

function ratesOf(samples: readonly Sample[]): {
  sealedRate: number
  foldedRate: number
  foldCount: number
  cpuSecondsPerGiB: number
  sealedBytes: number
} {
  const caughtUp = samples.findIndex(({ durableBytes, foldedBytes }) => durableBytes - foldedBytes < caughtUpBytes)
  const counted = caughtUp < 0 ? samples : samples.slice(0, caughtUp + 1)
  const [first, last] = [counted[0], counted.at(-1)]
  if (first === undefined || last === undefined || first === last) throw new Error('aging had nothing to do')
  const folds = counted.filter((each, index) => each.deltaCount > (counted[index - 1]?.deltaCount ?? each.deltaCount))
  return {
    sealedRate: rateBetween(first, last, each => each.sealedBytes),
    foldedRate: rateBetween(folds[0], folds.at(-1), each => each.foldedBytes),
    foldCount: Math.max(0, folds.length - 1),
    cpuSecondsPerGiB: (last.cpuSeconds - first.cpuSeconds) / ((last.durableBytes - first.durableBytes) / GiB),
    sealedBytes: last.sealedBytes,
  }
}

function rateBetween(first: Sample | undefined, last: Sample | undefined, bytes: (sample: Sample) => number): number {
  if (first === undefined || last === undefined || first === last) return 0
  return ((bytes(last) - bytes(first)) * 1000) / (last.atMillis - first.atMillis)
}

function objectsBelow(directory: string): { count: number; sizeBytes: number } {
  const files = readdirSync(directory, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile())
  const sizes = files.map(entry => statSync(path.join(entry.parentPath, entry.name)).size)
  return { count: sizes.length, sizeBytes: sizes.reduce((sum, sizeBytes) => sum + sizeBytes, 0) }
}
