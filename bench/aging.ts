import { mkdirSync, readdirSync, statSync } from 'node:fs'
import * as path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { GiB, MiB } from '../src/base/units.ts'
import { atLeast, type Aim, type Bench, type BenchContext, type Cell } from './bench.ts'
import { Histogram } from './histogram.ts'
import type { SenderJob } from './job.ts'
import { agentName, cpuSecondsOf, rssMaxBytesOf, send, startSimulator, volumeName, VraProcess } from './processes.ts'

// Aging while ingest runs: a backlog is made at full speed, then guests go on writing at an even pace, and what shrinks of
// the backlog beside that is what aging is ahead of them.
//
// Expectation, per 100 MB/s of guest data at 2:1: demultiplexing and checking 50 MB/s stored costs little; a fold decompresses
// 100 MB/s (5 % of a core), sorts, compresses again where blocks are taken apart (15 to 20 %), and writes 50 MB/s. To S3 each MiB
// costs 1.2 to 2.2 ms of CPU in the SDK, twice: 10 to 20 % more. 300 MB/s to a directory is a core.

const volumeSizeBytes = 16 * GiB

export const aging: Bench = {
  name: 'aging',
  describes: 'segments and folds into a directory and into S3 (the simulator) with ingest running',
  async run(context) {
    const toDirectory = await measure(context, 'directory', 300e6)
    const toS3 = await measure(context, 's3', 100e6)
    return {
      tables: [
        {
          title: 'Aging with ingest running (4 KiB random, zipf-text; default configuration)',
          columns: [
            { name: 'store', digits: 0 },
            { name: 'ingest MB/s', digits: 0 },
            { name: 'sealed MB/s', digits: 0 },
            { name: 'folded MB/s', digits: 0 },
            { name: 'of ingest', digits: 2 },
            { name: 'objects/GiB', digits: 1 },
            { name: 'stored/guest', digits: 2 },
            { name: 'ack p99 ms', digits: 1 },
            { name: 'vra CPU s/GiB', digits: 2 },
            { name: 'RSS max MiB', digits: 0 },
          ],
          rows: [toDirectory.row, toS3.row],
          notes: [
            'MB/s of guest data. sealed: out of the log into segments; folded: out of segments into deltas. of ingest: folded over ingest.',
            'objects/GiB: all objects in the store over guest GiB sent; stored/guest: their bytes over guest bytes.',
          ],
        },
      ],
      aims: [toDirectory.aim, toS3.aim],
      curves: [],
    }
  },
}

async function measure(
  context: BenchContext,
  kind: 'directory' | 's3',
  rawBytesPerSecond: number,
): Promise<{ row: Cell[]; aim: Aim }> {
  const directory = path.join(context.directory, kind)
  const bucket = path.join(directory, 'bucket')
  mkdirSync(bucket, { recursive: true })
  const simulator = kind === 's3' ? await startSimulator(bucket) : undefined
  const store = simulator && {
    kind: 's3',
    bucket: 'bucket',
    prefix: 'bench/',
    endpoint: simulator.endpoint,
    forcePathStyle: true,
  }
  const environment = { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test' }
  const vra = await VraProcess.start({ directory, environment, ...(store === undefined ? {} : { store }) })
  try {
    const vpgs = await vra.createVpgs(1, volumeSizeBytes)
    const backlogBytes = context.quick ? 1 * GiB : 3 * GiB
    context.say(`${kind}: a backlog of ${backlogBytes / MiB} MiB of guest data`)
    const job: SenderJob = {
      target: 'vra',
      port: vra.port,
      tls: undefined,
      agent: agentName,
      vpgs,
      volumeName,
      volumeSizeBytes,
      workload: { pattern: 'random', writeSizeBytes: 4096, writesPerBatch: 64, data: 'zipf-text' },
      windowBytes: 8 * MiB,
      rawBytesPerSecond: undefined,
      warmupMillis: 0,
      measureMillis: 600_000,
      writeCountMax: backlogBytes / 4096,
      markerMillis: 1_000,
    }
    const first = await send(job)
    const durable = (await vra.control.showVpg('bench-0')).agents[0]?.durable ?? { generation: 0, sequence: 0 }
    const measureMillis = context.quick ? 8_000 : 20_000
    context.say(`${kind}: ${rawBytesPerSecond / 1e6} MB/s beside it`)
    const sending = send({
      ...job,
      vpgs: [{ name: 'bench-0', durable }],
      rawBytesPerSecond,
      measureMillis,
      writeCountMax: undefined,
    })
    await delay(1_000)
    const before = await sample(vra, first.ratio)
    await delay(measureMillis - 2_000)
    const after = await sample(vra, first.ratio)
    const second = await sending
    const seconds = (after.atMillis - before.atMillis) / 1000
    const ingestRate = second.rawSizeBytes / second.elapsedSeconds
    const sealedRate = ingestRate + (before.unsealedRawBytes - after.unsealedRawBytes) / seconds
    const foldedRate = sealedRate + (before.unfoldedRawBytes - after.unfoldedRawBytes) / seconds
    const guestBytes = (first.writeCountTotal + second.writeCountTotal) * 4096
    const objects = objectsBelow(simulator === undefined ? path.join(directory, 'data/store/objects') : bucket)
    const row: Cell[] = [
      kind,
      ingestRate / 1e6,
      sealedRate / 1e6,
      foldedRate / 1e6,
      foldedRate / ingestRate,
      objects.count / (guestBytes / GiB),
      objects.sizeBytes / guestBytes,
      new Histogram(second.latencyCounts).quantileMillis(0.99),
      (after.cpuSeconds - before.cpuSeconds) / ((ingestRate * seconds) / GiB),
      rssMaxBytesOf(vra.processId) / MiB,
    ]
    const what = `aging to ${kind} beside ${rawBytesPerSecond / 1e6} MB/s of ingest, of ingest`
    return { row, aim: atLeast(what, 1.25, foldedRate / ingestRate, '') }
  } finally {
    await vra.kill()
    await simulator?.stop()
  }
}

interface Sample {
  readonly atMillis: number
  readonly unsealedRawBytes: number
  readonly unfoldedRawBytes: number
  readonly cpuSeconds: number
}

async function sample(vra: VraProcess, ratio: number): Promise<Sample> {
  const { mirror } = await vra.control.showVpg('bench-0')
  return {
    atMillis: performance.now(),
    unsealedRawBytes: mirror.unsealedSizeBytes * ratio,
    unfoldedRawBytes: mirror.unfoldedRawSizeBytes,
    cpuSeconds: cpuSecondsOf(vra.processId),
  }
}

function objectsBelow(directory: string): { count: number; sizeBytes: number } {
  const files = readdirSync(directory, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile())
  const sizes = files.map(entry => statSync(path.join(entry.parentPath, entry.name)).size)
  return { count: sizes.length, sizeBytes: sizes.reduce((sum, sizeBytes) => sum + sizeBytes, 0) }
}
