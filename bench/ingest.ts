import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import * as path from 'node:path'
import { assert } from '../src/base/assert.ts'
import { GiB, MiB } from '../src/base/units.ts'
import { createAuthority, issueCertificate } from '../src/certs/certs.ts'
import { atLeast, atMost, type Aim, type Bench, type BenchContext, type BenchResult, type Cell } from './bench.ts'
import type { DataKind } from './data.ts'
import type { Workload } from './frames.ts'
import { Histogram } from './histogram.ts'
import type { SenderJob, SenderResult } from './job.ts'
import {
  agentName,
  compileSink,
  cpuSecondsOf,
  resetRssMax,
  rssMaxBytesOf,
  send,
  SinkProcess,
  volumeName,
  VraProcess,
} from './processes.ts'

// Durable writes a second, and what an acknowledgement waits for.
//
// Expectation, for 64 writes of 4 KiB a batch, 2:1, at 400,000 writes/s (6,250 batches, 819 MB/s stored): checksum 12 % of a
// core, receive 16 %, copy into the page cache 15 %, the index a few percent, per batch some 20 microseconds of JavaScript,
// another 12 %: half a core and the disk, beside the sender's third of a core. Incompressible data is twice the bytes for the same
// writes, so the disk decides. TLS adds 0.9 core seconds per GB on either side: half as many writes.
//
// The daemon runs as configured by default, with one exception: segments are not made while the clock runs (that is the
// "aging" bench), so the log may grow to 40 GiB. Its files are recycled ones, as they are after the first hours of a daemon; the
// reference writes into a file that is written already, too, and gets the same bytes right after each row.

const volumeSizeBytes = 64 * GiB
/** No segment is due before its row is over. */
const aging = { segmentSizeBytesTarget: 512 * MiB, segmentAgeMillisMax: 3_600_000, logSizeBytesPressure: 30 * GiB }
const journal = { logSizeBytesMax: 40 * GiB }
const groupMiB = 8

interface Case {
  readonly streams: number
  readonly workload: Workload
  readonly tls: boolean
}

function workloadOf(writeSizeBytes: 4096 | 65536, data: DataKind): Workload {
  const pattern = writeSizeBytes === 4096 ? 'random' : 'sequential'
  return { pattern, writeSizeBytes, writesPerBatch: writeSizeBytes === 4096 ? 64 : 4, data }
}

function casesOf(quick: boolean): Case[] {
  const streamCounts = quick ? [1, 100] : [1, 16, 100]
  const plain = streamCounts.flatMap(streams =>
    ([4096, 65536] as const).flatMap(sizeBytes =>
      (['random', 'zipf-text'] as const).map(data => ({ streams, workload: workloadOf(sizeBytes, data), tls: false })),
    ),
  )
  const encrypted = (quick ? [16] : [1, 16, 100]).map(streams => ({
    streams,
    workload: workloadOf(4096, 'zipf-text'),
    tls: true,
  }))
  return [...plain, ...encrypted]
}

/** A noisy machine is noisy for both: so what is aimed at is measured thrice in pairs, and the pair of the median ratio is told. */
function pairCountOf({ workload }: Case, { quick }: BenchContext): number {
  return quick || workload.writeSizeBytes !== 4096 ? 1 : 3
}

interface Pair {
  readonly measured: Measured
  readonly reference: Reference | undefined
  readonly referenceHalf: SenderResult | undefined
  readonly ratio: number | undefined
}

function medianOf(pairs: readonly Pair[]): Pair {
  const sorted = [...pairs].sort((a, b) => (a.ratio ?? 0) - (b.ratio ?? 0))
  const middle = sorted[Math.floor(sorted.length / 2)]
  assert(middle !== undefined, 'at least one pair was measured')
  return middle
}

interface Measured {
  readonly full: SenderResult
  readonly daemonCpuSeconds: number
  readonly rssMaxBytes: number
  readonly half: SenderResult | undefined
}

export const ingest: Bench = {
  name: 'ingest',
  describes: 'durable writes/s and ack latency over 1, 16 and 100 streams, beside a plain sink',
  async run(context): Promise<BenchResult> {
    const sink = await compileSink(context.directory)
    const rows: Cell[][] = []
    const curves: { name: string; counts: readonly number[] }[] = []
    const found = new Map<string, Pair>()
    const daemons = new Daemons(context)
    for (const one of casesOf(context.quick)) {
      const name = nameOf(one)
      if (!name.includes(context.rows)) continue
      const { vra, agentTls } = await daemons.for(one)
      context.say(name)
      const pairs: Pair[] = []
      while (pairs.length < pairCountOf(one, context)) {
        const measured = await measureVra(context, vra, agentTls, one)
        const reference = 'program' in sink ? await measureSink(context, one, sink.program) : undefined
        const referenceHalf =
          'program' in sink && measured.half !== undefined
            ? await halfOfSink(context, one, sink.program, measured.full)
            : undefined
        const ratio = reference === undefined ? undefined : rateOf(measured.full) / storedRateOf(reference.result)
        pairs.push({ measured, reference, referenceHalf, ratio })
      }
      const pair = medianOf(pairs)
      const { measured } = pair
      found.set(name, pair)
      rows.push(rowOf(one, pair))
      if (measured.half !== undefined && one.workload.data === 'zipf-text' && one.workload.writeSizeBytes === 4096)
        curves.push({ name: `${name}, half load`, counts: measured.half.latencyCounts })
    }
    await daemons.close()
    return {
      tables: [
        {
          title: 'Ingest: durable on acknowledgement',
          columns,
          rows,
          notes: [
            'MB/s: 10^6 bytes a second; guest as written by the guest, stored as sent and journaled.',
            `reference: the same frames into sink.c, group commit of at most ${groupMiB} MiB${'missing' in sink ? `: ${sink.missing}` : ''}.`,
            'segments are held back while the clock runs; the log may grow to 40 GiB and its files are recycled ones.',
            'Without --quick rows of 4 KiB are measured three times, in pairs with the reference; the pair of the median ratio is told.',
            'ratio: guest MB/s over the bytes/s of the reference. sender: the sending process, on the same cores.',
            'p50, p99 at full load are the depth of the queue (16 MiB); half p99 is at half the rate that is aimed at (of 4 KiB: 200,000',
            'writes/s, 100,000 over TLS; half of what was measured, if less), from when a frame was due, so it holds what the sender, on',
            'the same cores, was late with it: sent late. reference half: the sink at that rate.',
          ],
        },
      ],
      aims: aimsOf(found),
      curves,
    }
  },
}

const columns = [
  { name: 'streams', digits: 0 },
  { name: 'writes', digits: 0 },
  { name: 'data', digits: 0 },
  { name: 'link', digits: 0 },
  { name: 'writes/s', digits: 0 },
  { name: 'guest MB/s', digits: 0 },
  { name: 'stored MB/s', digits: 0 },
  { name: 'p50 ms', digits: 1 },
  { name: 'p99 ms', digits: 1 },
  { name: 'half p99 ms', digits: 1 },
  { name: 'sent late p99 ms', digits: 1 },
  { name: 'reference half p99 ms', digits: 1 },
  { name: 'vra CPU s/GiB', digits: 2 },
  { name: 'sender CPU s/GiB', digits: 2 },
  { name: 'RSS max MiB', digits: 0 },
  { name: 'reference MB/s', digits: 0 },
  { name: 'reference CPU s/GiB', digits: 2 },
  { name: 'ratio', digits: 2 },
]

function nameOf({ streams, workload, tls }: Case): string {
  const size = workload.writeSizeBytes === 4096 ? '4 KiB random' : '64 KiB sequential'
  return `${streams} stream${streams === 1 ? '' : 's'}, ${size}, ${workload.data}${tls ? ', TLS' : ''}`
}

function rowOf(
  { streams, workload, tls }: Case,
  { measured: { full, half, daemonCpuSeconds, rssMaxBytes }, reference, referenceHalf, ratio }: Pair,
): Cell[] {
  const latency = new Histogram(full.latencyCounts)
  const guestGiB = full.rawSizeBytes / GiB
  return [
    streams,
    workload.writeSizeBytes === 4096 ? '4K random' : '64K seq',
    `${workload.data} ${full.ratio.toFixed(2)}:1`,
    tls ? 'TLS' : 'TCP',
    full.writeCount / full.elapsedSeconds,
    rateOf(full) / 1e6,
    storedRateOf(full) / 1e6,
    latency.quantileMillis(0.5),
    latency.quantileMillis(0.99),
    half && new Histogram(half.latencyCounts).quantileMillis(0.99),
    half && new Histogram(half.latenessCounts).quantileMillis(0.99),
    referenceHalf && new Histogram(referenceHalf.latencyCounts).quantileMillis(0.99),
    daemonCpuSeconds / guestGiB,
    full.cpuSeconds / guestGiB,
    rssMaxBytes / MiB,
    reference === undefined ? undefined : storedRateOf(reference.result) / 1e6,
    reference === undefined ? undefined : reference.cpuSeconds / (reference.result.frameSizeBytes / GiB),
    ratio,
  ]
}

function rateOf(result: SenderResult): number {
  return result.rawSizeBytes / result.elapsedSeconds
}

function storedRateOf(result: SenderResult): number {
  return result.frameSizeBytes / result.elapsedSeconds
}

/** One daemon for all rows over TCP and one for all over TLS, as one that has run for days: its log files are recycled ones. */
class Daemons {
  readonly #context: BenchContext
  #running: { readonly tls: boolean; readonly vra: VraProcess; readonly agentTls: SenderJob['tls'] } | undefined

  constructor(context: BenchContext) {
    this.#context = context
  }

  async for(one: Case): Promise<{ readonly vra: VraProcess; readonly agentTls: SenderJob['tls'] }> {
    if (this.#running?.tls === one.tls) return this.#running
    await this.close()
    const directory = this.#directory()
    mkdirSync(directory, { recursive: true })
    const tls = one.tls ? await certificates(directory) : undefined
    const vra = await VraProcess.start({ directory, aging, journal, ...(tls === undefined ? {} : { tls: tls.vra }) })
    this.#running = { tls: one.tls, vra, agentTls: tls?.agent }
    this.#context.say('filling log files, to be recycled')
    const vpgs = await vra.createVpgs(fillStreamCount, volumeSizeBytes)
    const filling = { ...one, streams: fillStreamCount, workload: workloadOf(65536, 'random') }
    const fillSizeBytes = (this.#context.quick ? 4 : 8) * GiB // as much as any row can write
    await send({
      ...jobOf(this.#context, filling),
      port: vra.port,
      vpgs,
      tls: tls?.agent,
      target: 'vra',
      measureMillis: fillMillisMax,
      writeCountMax: fillSizeBytes / filling.workload.writeSizeBytes,
    })
    await forget(vra, vpgs)
    return this.#running
  }

  async close(): Promise<void> {
    await this.#running?.vra.kill()
    this.#running = undefined
    rmSync(this.#directory(), { recursive: true, force: true })
  }

  #directory(): string {
    return path.join(this.#context.directory, 'vra')
  }
}

/** Deletes the VPGs, and waits until the log holds nothing of them: their files are then free for the next row. */
async function forget(vra: VraProcess, vpgs: readonly { readonly name: string }[]): Promise<void> {
  for (const { name } of vpgs) await vra.control.deleteVpg(name)
  for (let turn = 0; turn < forgetTurnsMax; turn++) {
    if ((await vra.control.status()).journal.logFileCount <= 1) break
    await passed(100)
  }
}

const forgetTurnsMax = 600
const fillMillisMax = 60_000
/** So many that none fills a segment: what is being filled is the log. */
const fillStreamCount = 32

async function measureVra(
  context: BenchContext,
  vra: VraProcess,
  agentTls: SenderJob['tls'],
  one: Case,
): Promise<Measured> {
  const vpgs = await vra.createVpgs(one.streams, volumeSizeBytes)
  resetRssMax(vra.processId)
  const job = { ...jobOf(context, one), port: vra.port, vpgs, tls: agentTls, target: 'vra' } as const
  const cpu = cpuMeter(vra.processId, job.warmupMillis)
  const full = await send(job)
  const daemonCpuSeconds = (await cpu) * (full.elapsedSeconds / (job.measureMillis / 1000))
  const half = context.quick && one.streams !== 100 ? undefined : await sendHalf(vra, job, full)
  const rssMaxBytes = rssMaxBytesOf(vra.processId)
  await forget(vra, vpgs)
  return { full, daemonCpuSeconds, rssMaxBytes, half }

  /** CPU seconds from the end of the warm-up to the end of the measured time, by the clock: senders take a moment to connect. */
  async function cpuMeter(processId: number, warmupMillis: number): Promise<number> {
    await passed(warmupMillis + connectMillis)
    const before = cpuSecondsOf(processId)
    await passed(measureMillis(context))
    return cpuSecondsOf(processId) - before
  }
}

const connectMillis = 1500

async function passed(millis: number): Promise<void> {
  await new Promise(resolve => setTimeout(resolve, millis))
}

function measureMillis(context: BenchContext): number {
  return context.quick ? 2_000 : 4_000
}

/** Half of the aim, or of what was just measured if that is less, at an even pace; the streams go on where they are. */
async function sendHalf(vra: VraProcess, job: SenderJob, full: SenderResult): Promise<SenderResult> {
  const vpgs = await Promise.all(
    job.vpgs.map(async ({ name }) => {
      const { agents } = await vra.control.showVpg(name)
      return { name, durable: agents[0]?.durable ?? { generation: 0, sequence: 0 } }
    }),
  )
  return await send({ ...job, vpgs, ...halfLoad(job, full) })
}

function halfLoad(
  job: Pick<SenderJob, 'tls' | 'workload'>,
  full: SenderResult,
): Pick<SenderJob, 'rawBytesPerSecond' | 'warmupMillis'> {
  const aimedWritesPerSecond = job.tls === undefined ? writesPerSecondAim.plain : writesPerSecondAim.tls
  const aimedRate = aimedWritesPerSecond * job.workload.writeSizeBytes
  return { rawBytesPerSecond: Math.min(rateOf(full), aimedRate) / 2, warmupMillis: 500 }
}

/** Durable writes of 4 KiB that are aimed at; what is promised of latency is promised at half of that. */
const writesPerSecondAim = { plain: 400_000, tls: 200_000 }

interface Reference {
  readonly result: SenderResult
  readonly cpuSeconds: number
}

async function measureSink(context: BenchContext, one: Case, program: string): Promise<Reference> {
  return await withSink(context, program, async sink => {
    const result = await send(toSink(context, one, sink))
    const { sizeBytes, cpuSeconds } = await sink.stop()
    return { result, cpuSeconds: cpuSeconds * (result.frameSizeBytes / sizeBytes) }
  })
}

/** What an acknowledgement of the sink waits for at the rate at which the daemon's was measured. */
async function halfOfSink(
  context: BenchContext,
  one: Case,
  program: string,
  full: SenderResult,
): Promise<SenderResult> {
  return await withSink(context, program, async sink => {
    const job = toSink(context, one, sink)
    const result = await send({ ...job, ...halfLoad(job, full) })
    await sink.stop()
    return result
  })
}

async function withSink<T>(context: BenchContext, program: string, use: (sink: SinkProcess) => Promise<T>): Promise<T> {
  const file = path.join(context.directory, 'sink-file')
  const sink = await SinkProcess.start(program, { file, fileMiB: 1024, groupMiB })
  const result = await use(sink)
  rmSync(file, { force: true })
  return result
}

function toSink(context: BenchContext, one: Case, sink: SinkProcess): SenderJob {
  const vpgs = Array.from({ length: one.streams }, () => ({ name: '', durable: { generation: 0, sequence: 0 } }))
  return { ...jobOf(context, one), target: 'sink', port: sink.port, vpgs, tls: undefined }
}

function jobOf(context: BenchContext, one: Case): Omit<SenderJob, 'target' | 'port' | 'vpgs' | 'tls'> {
  return {
    agent: agentName,
    volumeName,
    volumeSizeBytes,
    workload: one.workload,
    windowBytes: Math.max(512 * 1024, (16 * MiB) / one.streams),
    rawBytesPerSecond: undefined,
    warmupMillis: 1_000,
    measureMillis: measureMillis(context),
    writeCountMax: undefined,
    markerMillis: undefined,
  }
}

async function certificates(
  directory: string,
): Promise<{ vra: Readonly<Record<string, string>>; agent: NonNullable<SenderJob['tls']> }> {
  const authority = await createAuthority({ name: 'bench authority', validDays: 2 })
  const own = await issueCertificate(authority, {
    commonName: 'vra',
    kind: 'server',
    hosts: ['127.0.0.1'],
    validDays: 1,
  })
  const agent = await issueCertificate(authority, { commonName: agentName, kind: 'client', hosts: [], validDays: 1 })
  const put = (name: string, text: string): string => {
    const file = path.join(directory, name)
    writeFileSync(file, text, { mode: 0o600 })
    return file
  }
  return {
    vra: {
      certificateFile: put('own.crt', own.certificatePem),
      privateKeyFile: put('own.key', own.privateKeyPem),
      authorityFile: put('authority.crt', authority.certificatePem),
    },
    agent: {
      authority: authority.certificatePem,
      certificate: agent.certificatePem,
      privateKey: agent.privateKeyPem,
    },
  }
}

function aimsOf(found: ReadonlyMap<string, Pair>): Aim[] {
  const at = (name: string): Pair | undefined => found.get(name)
  const writesPerSecond = (name: string): number | undefined => {
    const full = at(name)?.measured.full
    return full === undefined ? undefined : full.writeCount / full.elapsedSeconds
  }
  const best = (name: (streams: number) => string): number | undefined =>
    [1, 16, 100]
      .map(streams => writesPerSecond(name(streams)))
      .reduce((a, b) => (a === undefined || (b ?? 0) > a ? b : a))
  const text = (streams: number): string => `${streams} stream${streams === 1 ? '' : 's'}, 4 KiB random, zipf-text`
  const plain = (streams: number): string => `${streams} stream${streams === 1 ? '' : 's'}, 4 KiB random, random`
  const half = at(text(100))?.measured.half ?? at(text(1))?.measured.half
  const [one, hundred] = [writesPerSecond(text(1)), writesPerSecond(text(100))]
  const rss = at(text(100))?.measured.rssMaxBytes
  return [
    atLeast('incompressible data, of the reference (1 stream)', 0.9, at(plain(1))?.ratio, ''),
    atLeast('2:1 data, of the reference (1 stream)', 1.6, at(text(1))?.ratio, ''),
    atLeast('durable 4 KiB writes, plain TCP', writesPerSecondAim.plain, best(text), '/s'),
    atLeast(
      'durable 4 KiB writes, TLS',
      writesPerSecondAim.tls,
      best(streams => `${text(streams)}, TLS`),
      '/s',
    ),
    atMost('p99 ack at half the aimed load', 10, half && new Histogram(half.latencyCounts).quantileMillis(0.99), 'ms'),
    atLeast('100 streams, of one', 0.8, one === undefined || hundred === undefined ? undefined : hundred / one, ''),
    atMost('RSS at 100 streams', 300, rss === undefined ? undefined : rss / MiB, 'MiB'),
  ]
}
