import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import * as path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Aging } from '../src/aging/aging.ts'
import { Catalog } from '../src/catalog/catalog.ts'
import { newVpgId } from '../src/base/ids.ts'
import { foldLiveBytesDivisor, regionSizeBytes, segmentAgeMillisMax } from '../src/base/limits.ts'
import { GiB, MiB, TiB } from '../src/base/units.ts'
import { openImage } from '../src/image/image.ts'
import { openSegment } from '../src/segment/segment.ts'
import { openStore } from '../src/store/store.ts'
import { atMost, type Aim, type Bench, type BenchContext, type ResultTable } from './bench.ts'
import { failing, layCopies, layFirstVolume, nameOf } from './scale-volumes.ts'
import { HistoryModel, kinds, perGiB, type Written } from './history-model.ts'
import { rssBytesOf, rssMaxBytesOf, sendTo, VraProcess } from './processes.ts'

// A month of history of many terabytes, without its bytes: what it costs to keep (puts, bytes written again, bytes a recovery reads), and what it costs to
// hold (start, memory, time to open an image). Manifests are real and are read by the real daemon; packs and segments are only named (scale-volumes.ts).
//
// Expectation (scale review): write amplification 3.1, 34 puts a GiB with full segments, and 1.46 of the live bytes for a recovery. A volume's manifest is
// some 250 bytes a region version and 15 for each region that a delta touches: 18 MB for 1 TiB, most of it in deltas. A daemon holds the manifests of the VPGs
// that are in use, and 64 MiB of the others, however many there are. A start reads none of them before it serves, but
// where a daemon has nothing beside the store: then it reads all of them.

const volumeSizeBytes = 1 * TiB
const volumeCountAim = 1_500
const checkpointMillis = 5_000
const dayMillis = 86_400_000

export const scale: Bench = {
  name: 'scale',
  describes:
    'a month of 1 TiB on metadata: amplification, manifests, start, memory, images; 1,500 volumes reckoned from a sample, or --full',
  async run(context) {
    const rates = context.quick ? [50] : [10, 50]
    const found: { readonly perDay: number; readonly written: Written; readonly model: HistoryModel }[] = []
    for (const perDay of rates) found.push({ perDay, ...(await steadyState(context, perDay)) })
    const amplified = amplificationTable(found.map(({ perDay, written }) => [perDay, written]))
    const sampled = await sampleOfBytes(context)
    const first = found[0]
    if (first === undefined) throw new Error('no rate was asked for')
    const held = await holding(context, first.model, first.perDay)
    return { tables: [amplified.table, sampled, held.table], aims: [...amplified.aims, ...held.aims], curves: [] }
  },
}

/** From the middle of the volume's life on, by the planners. */
async function steadyState(context: BenchContext, perDay: number): Promise<{ written: Written; model: HistoryModel }> {
  // By bytes: before as many checkpoints wait as make a fold due, they are thinned.
  const foldSizeBytes = volumeSizeBytes / foldLiveBytesDivisor
  const model = await HistoryModel.create(newVpgId(), { volumeSizeBytes, checkpointMillis, foldSizeBytes })
  const days = context.quick ? 1 : 4
  for (let day = 0; day < days; day++) {
    context.say(`${perDay} GiB a day: day ${day + 1} of ${days}`)
    await model.day(perDay * GiB, segmentAgeMillisMax)
  }
  return { written: model.takeWritten(), model }
}

function amplificationTable(found: readonly (readonly [number, Written])[]): {
  readonly table: ResultTable
  readonly aims: readonly Aim[]
} {
  const facts = found.map(([perDay, { rawSizeBytes, days, puts, putBytes, readShares }]) => {
    const intervals = (days * dayMillis) / segmentAgeMillisMax
    const amplification = kinds.map(kind => putBytes[kind] / rawSizeBytes)
    const perGiBOf = kinds.map(kind => perGiB(puts[kind], rawSizeBytes))
    // A segment that is sealed because it is old is the put of its interval; what the aim allows beside these is counted by the GiB.
    const beyond = kinds.reduce((sum, kind) => sum + puts[kind], 0) - Math.min(puts.segments, intervals)
    return {
      ...{ perDay, amplification, perGiBOf, sum: amplification.reduce((a, b) => a + b, 0) },
      ...{ putsBeyond: perGiB(beyond, rawSizeBytes), putsAll: perGiBOf.reduce((a, b) => a + b, 0) },
      ...{ readMean: readShares.reduce((a, b) => a + b, 0) / readShares.length, readMax: Math.max(...readShares) },
    }
  })
  return {
    table: {
      title:
        'Steady state of 1 TiB, 30 days of the default retention (4 KiB random writes, incompressible), on metadata',
      columns: [
        { name: 'GiB/day', digits: 0 },
        ...kinds.map(kind => ({ name: `${kind} WA`, digits: 2 })),
        { name: 'WA', digits: 2 },
        ...kinds.map(kind => ({ name: `${kind} puts/GiB`, digits: 1 })),
        { name: 'puts/GiB', digits: 1 },
        { name: 'without one an interval', digits: 1 },
        { name: 'recovery reads, mean', digits: 2 },
        { name: 'most', digits: 2 },
      ],
      rows: facts.map(each => [
        each.perDay,
        ...each.amplification,
        each.sum,
        ...each.perGiBOf,
        each.putsAll,
        each.putsBeyond,
        each.readMean,
        each.readMax,
      ]),
      notes: [
        'It begins in the middle of a cycle: every region was rewritten once in it, one behind the other; then the planners go on from there.',
        'WA: bytes put for each guest byte. Reads: bytes of base, deltas with their indexes and segments, over the live bytes.',
        `An interval is ${segmentAgeMillisMax / 1000} s, after which a segment is sealed however small it is.`,
      ],
    },
    aims: facts.flatMap(({ perDay, putsBeyond, sum, readMax }) => [
      atMost(`puts a GiB beside one an interval, ${perDay} GiB a day`, 40, putsBeyond, ''),
      atMost(`write amplification, ${perDay} GiB a day`, 4, sum, ''),
      atMost(`a full recovery reads, of the live bytes, ${perDay} GiB a day`, 1.5, readMax, ''),
    ]),
  }
}

/** Real bytes through the real daemon: its own counts of what it put. */
async function sampleOfBytes(context: BenchContext): Promise<ResultTable> {
  const directory = path.join(context.directory, 'sample')
  const rawSizeBytes = (context.quick ? 1 : 3) * GiB
  const vra = await VraProcess.start({ directory })
  try {
    const vpgs = await vra.createVpgs(1, 1 * GiB)
    context.say(`a sample of ${rawSizeBytes / MiB} MiB with bytes`)
    await sendTo(vra, vpgs, {
      volumeSizeBytes: 1 * GiB,
      workload: { pattern: 'random', writeSizeBytes: 4096, writesPerBatch: 64, data: 'random' },
      windowBytes: 1 * MiB,
      rawBytesPerSecond: 60e6,
      measureMillis: (rawSizeBytes / 60e6) * 1000,
    })
    const { requests, forms } = (await vra.control.showVpg('bench-0')).mirror
    const puts = (['segments', 'deltas', 'base', 'manifests'] as const).map(form => requests.puts[form])
    const bytesOf = (name: string): number => forms.find(({ form }) => form === name)?.sizeBytes ?? 0
    return {
      title: 'The same by the daemon itself, with bytes: 1 GiB, written several times over',
      columns: [
        { name: 'sealed MiB', digits: 0 },
        ...kinds.map(kind => ({ name: `${kind} WA`, digits: 2 })),
        { name: 'WA', digits: 2 },
        { name: 'puts/GiB', digits: 1 },
        { name: 'base MiB', digits: 0 },
        { name: 'deltas MiB', digits: 0 },
      ],
      rows: [
        [
          requests.rawSizeBytes / MiB,
          ...puts.map(({ sizeBytes }) => sizeBytes / requests.rawSizeBytes),
          puts.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) / requests.rawSizeBytes,
          perGiB(
            puts.reduce((sum, { count }) => sum + count, 0),
            requests.rawSizeBytes,
          ),
          bytesOf('base') / MiB,
          bytesOf('deltas') / MiB,
        ],
      ],
      notes: [
        'So small a volume is written over before it is folded: fewer bytes come into deltas, and more regions are rewritten.',
      ],
    }
  } finally {
    await vra.kill()
  }
}

interface Held {
  readonly volumeCount: number
  /** Of a start after a stop. */
  readonly readySeconds: number
  /** Of one after a kill. */
  readonly killedReadySeconds: number
  /** At the moment that it was ready, after a kill. */
  readonly rssReadyBytes: number
  /** Once it has been left alone for 20 s. */
  readonly rssRestBytes: number
  /** The most from its start until then. */
  readonly rssBytes: number
}

/** The daemon with so many volumes of a month each, and 1,500 reckoned from that where they are not all held. */
async function holding(
  context: BenchContext,
  model: HistoryModel,
  perDay: number,
): Promise<{ table: ResultTable; aims: readonly Aim[] }> {
  const directory = path.join(context.directory, 'holding')
  mkdirSync(directory)
  // Nothing of the packs is there to be verified.
  const vra = await VraProcess.start({ directory, aging: { scrubBytesPerSecond: 0 } })
  await vra.stop()
  const data = path.join(directory, 'data')
  const applianceId = readFileSync(path.join(data, 'appliance-id'), 'utf8').trim()
  const store = { kind: 'directory', directory: path.join(data, 'store') } as const
  const at = { dataDirectory: data, applianceId }
  await layFirstVolume(model, at)
  await vra.start()
  const firstReadySeconds = vra.readyMillis / 1000
  // Its history is read beside serving, and noted when it rests again.
  while ((await vra.control.showVpg(nameOf(0))).mirror.isUnread) await delay(200)
  await delay(5_000)
  await vra.stop()
  const held: Held[] = []
  const counts = context.full ? [1, volumeCountAim] : context.quick ? [25, 100] : [50, 300]
  let [volumeCount, manifestSizeBytes] = [1, 0]
  for (const count of counts) {
    context.say(`${count} volumes`)
    manifestSizeBytes = await layCopies(at, { from: volumeCount, to: count })
    volumeCount = count
    // What was laid down is on its way to the disk still, and has taken the page cache: the first start after it tells of that.
    execFileSync('sync')
    await vra.start()
    await delay(2_000)
    await vra.stop()
    await vra.start()
    const readySeconds = vra.readyMillis / 1000
    await delay(2_000)
    await vra.kill()
    await vra.start()
    const killedReadySeconds = vra.readyMillis / 1000
    const rssReadyBytes = rssBytesOf(vra.processId)
    await delay(20_000)
    const [rssRestBytes, rssBytes] = [rssBytesOf(vra.processId), rssMaxBytesOf(vra.processId)]
    held.push({ volumeCount, readySeconds, killedReadySeconds, rssReadyBytes, rssRestBytes, rssBytes })
    if (count !== counts.at(-1)) await vra.stop()
  }
  const listMillis = await millisOf(() =>
    vra.control.listCheckpoints({ vpg: nameOf(0), limit: 1000, order: 'newest-first' }),
  )
  await vra.stop()
  const images = await openingImages(data, store, applianceId)
  const adopted = await adopting(context, store)
  const [fewer, most] = [held.at(-2), held.at(-1)]
  if (fewer === undefined || most === undefined) throw new Error('nothing was held')
  const reckoned = (of: (each: Held) => number): number => {
    const perVolume = Math.max(0, of(most) - of(fewer)) / (most.volumeCount - fewer.volumeCount)
    return of(most) + perVolume * (volumeCountAim - most.volumeCount)
  }
  const readySeconds = reckoned(each => each.readySeconds)
  const killedReadySeconds = reckoned(each => each.killedReadySeconds)
  // The heap grows by steps, and not with the volumes: from fewer of them nothing can be told of what all take.
  const rss = most.volumeCount === volumeCountAim ? most : undefined
  return {
    table: {
      title: `A daemon over volumes of 1 TiB with a month at ${perDay} GiB a day each, a VPG a volume`,
      columns: [
        { name: 'volumes', digits: 0 },
        { name: 'ready s', digits: 2 },
        { name: 'killed, ready s', digits: 2 },
        { name: 'read, ready s', digits: 2 },
        { name: 'adopted, ready s', digits: 2 },
        { name: 'first list s', digits: 2 },
        { name: 'RSS ready MiB', digits: 0 },
        { name: 'RSS at rest MiB', digits: 0 },
        { name: 'RSS max MiB', digits: 0 },
        { name: 'manifest MiB each', digits: 2 },
        { name: 'list 1,000 ms', digits: 1 },
        { name: 'open newest ms', digits: 1 },
        { name: 'open oldest ms', digits: 1 },
      ],
      rows: [
        ...held.map(each => [
          each.volumeCount,
          each.readySeconds,
          each.killedReadySeconds,
          each === held[0] ? firstReadySeconds : undefined,
          each === most ? adopted.readySeconds : undefined,
          each === most ? adopted.firstListSeconds : undefined,
          each.rssReadyBytes / MiB,
          each.rssRestBytes / MiB,
          each.rssBytes / MiB,
          undefined,
          undefined,
          undefined,
          undefined,
        ]),
        [
          volumeCountAim,
          readySeconds,
          killedReadySeconds,
          undefined,
          (adopted.readySeconds * volumeCountAim) / most.volumeCount,
          undefined,
          rss && rss.rssReadyBytes / MiB,
          rss && rss.rssRestBytes / MiB,
          rss && rss.rssBytes / MiB,
          manifestSizeBytes / MiB,
          listMillis,
          images.newestMillis,
          images.oldestMillis,
        ],
      ],
      notes: [
        'Ready: after a stop, of a start that found all on the disk; killed: after a kill -9; read: with one volume, where the daemon has nothing beside the store; adopted: by another appliance on an empty disk, which reads the histories beside serving.',
        'RSS of a start after a kill: when it was ready, when it had been left alone for 20 s, and the most until then, which the questions after its readiness are part of.',
        'First list: of a volume whose history was not read yet.',
        'The last line is reckoned, but for RSS, which is told where all are held: each volume more costs what the last of the sample did. Times to list and to open are of the sample. --full holds all of them (29 GB).',
        'Of the volumes one is the history model, the others are its objects, and what a daemon left beside them, with another id and name.',
        `A manifest names ${model.contents.state.regions.length} region versions and ${model.contents.state.deltas.length} deltas.`,
      ],
    },
    aims: [
      atMost(`start with ${volumeCountAim} volumes of 1 TiB, reckoned`, 5, readySeconds, 's'),
      atMost(`start after a kill with ${volumeCountAim} volumes of 1 TiB, reckoned`, 5, killedReadySeconds, 's'),
      ...(rss === undefined
        ? []
        : [atMost(`RSS with ${volumeCountAim} volumes of 1 TiB`, 512, rss.rssBytes / MiB, 'MiB')]),
      atMost('open the newest image', 1, images.newestMillis / 1000, 's'),
      atMost('open the oldest image', 1, images.oldestMillis / 1000, 's'),
    ],
  }
}

/** By an appliance on an empty disk: until it serves all volumes, and until one whose history nobody has read is listed. */
async function adopting(
  context: BenchContext,
  store: { readonly kind: 'directory'; readonly directory: string },
): Promise<{ readonly readySeconds: number; readonly firstListSeconds: number }> {
  const directory = path.join(context.directory, 'adopting')
  const vra = await VraProcess.start({ directory, store, adopt: true, aging: { scrubBytesPerSecond: 0 } })
  try {
    const last = [...(await vra.control.status()).vpgs].reverse().find(({ mirror }) => mirror.isUnread)
    if (last === undefined) throw new Error('every history was read at the start')
    const query = { vpg: last.name, limit: 1000, order: 'newest-first' } as const
    const firstListMillis = await millisOf(() => vra.control.listCheckpoints(query))
    return { readySeconds: vra.readyMillis / 1000, firstListSeconds: firstListMillis / 1000 }
  } finally {
    await vra.stop()
  }
}

/** Through the aging thread, pin and all, and the image's own opening. */
async function openingImages(
  data: string,
  store: { readonly kind: 'directory'; readonly directory: string },
  applianceId: string,
): Promise<{ newestMillis: number; oldestMillis: number }> {
  const catalog = await Catalog.open({ file: path.join(data, 'journal-index.sqlite'), events: failing })
  const notes = catalog.takeNotes()
  const config = {
    ...{
      store,
      logDirectory: data,
      scratchDirectory: path.join(data, 'scratch'),
      memoDirectory: path.join(data, 'vpgs'),
      applianceId,
    },
    ...{
      adopt: false,
      segmentSizeBytesTarget: 64 * MiB,
      segmentAgeMillisMax,
      foldSizeBytesMin: 256 * MiB,
      deltaShareMax: 0.45,
    },
    ...{ garbageGraceMillis: 86_400_000, logSizeBytesPressure: 2 * GiB },
  }
  const aging = await Aging.open(config, {}, Promise.resolve(notes))
  const objects = await openStore(store)
  try {
    const vpg = aging.vpgs.find(({ definition }) => definition.name === nameOf(0))?.definition.id
    if (vpg === undefined) throw new Error('there is no volume')
    const [oldest, newest] = [
      (await catalog.listCheckpoints({ vpg, limit: 1, order: 'oldest-first' })).checkpoints[0],
      (await catalog.listCheckpoints({ vpg, limit: 1, order: 'newest-first' })).checkpoints[0],
    ]
    if (oldest === undefined || newest === undefined) throw new Error('there is no checkpoint')
    const tools = {
      ...{ store: objects, cacheSizeBytes: 64 * MiB, regionSizeBytes },
      openSegment: (segment: Parameters<typeof openSegment>[1]) => openSegment(objects, segment),
      openTail: () => {
        throw new Error('nothing is in the log')
      },
    }
    const open = (checkpoint: typeof newest): Promise<number> =>
      millisOf(async () => {
        const plan = await aging.openImage({ vpg, checkpoint, owner: 'bench' })
        await openImage(plan, tools, never)
        await aging.closeImage({ vpg, pinId: plan.pinId })
      })
    return { newestMillis: await open(newest), oldestMillis: await open(oldest) }
  } finally {
    await objects.close()
    await catalog.close()
    await aging.close()
  }
}

async function millisOf(work: () => Promise<unknown>): Promise<number> {
  const startMillis = performance.now()
  await work()
  return performance.now() - startMillis
}

const never = new AbortController().signal
