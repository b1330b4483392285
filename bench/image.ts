import { execFileSync } from 'node:child_process'
import { readFileSync, rmSync, statSync } from 'node:fs'
import * as path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { KiB } from '../src/base/units.ts'
import type { ExportJob } from '../src/control/service.ts'
import { listVpgs, loadVpg } from '../src/manifest/manifest.ts'
import { openStore } from '../src/store/store.ts'
import { atLeast, atMost, type Bench, type BenchContext, type Cell } from './bench.ts'
import { sendTo, volumeName, VraProcess } from './processes.ts'

// An image of the newest checkpoint over a million writes that were journaled, its export, and what the index of them takes.
//
// Expectation: columns of a million writes are 12 to 16 MB, read in 0.1 s; sorting them by place, newest first, 52 ms as
// measured alone: well under a second. Export at 2:1 reads 2 GB, decompresses at 2 GB/s a core and writes 4 GB sparse: the disk, some
// 500 MB/s; cp --sparse=always reads and writes 4 GB. Index: 12 to 16 bytes a write in the footers, SQLite nearly nothing.

/** Random writes leave as much of a volume untouched, whatever their number. */
const volumeSizeBytesPerWrite = 8 * KiB
const indexFile = 'journal-index.sqlite'
/** After so long without a write the journal's index has given back what it does not need. */
const indexSettledMillis = 7_000
const { signal } = new AbortController()

export const image: Bench = {
  name: 'image',
  describes:
    'opening an image over 1,000,000 journaled writes, export beside cp --sparse, index bytes per write; --rows 8 | 64 a batch',
  async run(context) {
    const writeCount = context.quick ? 100_000 : 1_000_000
    const isAsked = (writesPerBatch: number): boolean => `${writesPerBatch} a batch`.includes(context.rows)
    const small = isAsked(8) ? await measure(context, Math.max(100_000, writeCount / 10), 8) : undefined
    const large = isAsked(64) ? await measure(context, writeCount, 64) : undefined
    const rows = [small, large].flatMap(found => (found === undefined ? [] : [rowOf(found)]))
    const ratio = large === undefined ? undefined : large.exportBytesPerSecond / large.copyBytesPerSecond

    return {
      tables: [
        {
          title: 'Image of the newest checkpoint, and its index (4 KiB random writes, zipf-text)',
          columns: [
            { name: 'writes', digits: 0 },
            { name: 'a batch', digits: 0 },
            { name: 'open s', digits: 3 },
            { name: 'export MB/s', digits: 0 },
            { name: 'cp --sparse MB/s', digits: 0 },
            { name: 'ratio', digits: 2 },
            { name: 'footers B/write', digits: 1 },
            { name: 'pack indexes B/write', digits: 1 },
            { name: 'SQLite B/write', digits: 1 },
            { name: 'index B/write', digits: 1 },
          ],
          rows,
          notes: [
            'open: from the request until the image can be read; export and cp: data bytes (not holes) a second, synced.',
            'Pack indexes are of what had been folded by then; a write that was overwritten has no extent any more.',
          ],
        },
      ],
      aims: [
        atMost('index at 8 writes a batch', 16, small?.indexBytesPerWrite, 'bytes/write'),
        atMost('index at 64 writes a batch', 16, large?.indexBytesPerWrite, 'bytes/write'),
        atLeast('export, of cp --sparse=always', 1, ratio, ''),
      ],
      curves: [],
    }
  },
}

function rowOf(found: Measured): Cell[] {
  return [
    found.writeCount,
    found.writesPerBatch,
    found.openSeconds,
    found.exportBytesPerSecond / 1e6,
    found.copyBytesPerSecond / 1e6,
    found.exportBytesPerSecond / found.copyBytesPerSecond,
    found.footerBytes / found.writeCount,
    found.packIndexBytes / found.writeCount,
    found.sqliteBytes / found.writeCount,
    found.indexBytesPerWrite,
  ]
}

interface Measured {
  readonly writeCount: number
  readonly writesPerBatch: number
  readonly openSeconds: number
  readonly exportBytesPerSecond: number
  readonly copyBytesPerSecond: number
  readonly footerBytes: number
  readonly packIndexBytes: number
  readonly sqliteBytes: number
  readonly indexBytesPerWrite: number
}

async function measure(
  { directory, say }: BenchContext,
  writeCount: number,
  writesPerBatch: number,
): Promise<Measured> {
  const own = path.join(directory, `batches-of-${writesPerBatch}`)
  const volumeSizeBytes = writeCount * volumeSizeBytesPerWrite
  const vra = await VraProcess.start({ directory: own, aging: { segmentAgeMillisMax: 2_000, garbageGraceMillis: 0 } })
  try {
    const vpgs = await vra.createVpgs(1, volumeSizeBytes)
    say(`${writeCount} writes, ${writesPerBatch} a batch`)
    const sent = await sendTo(vra, vpgs, {
      volumeSizeBytes,
      workload: { pattern: 'random', writeSizeBytes: 4096, writesPerBatch, data: 'zipf-text' },
      writeCountMax: writeCount,
    })
    await sealed(vra) // as much at rest as for the copy beside it
    const opened = await openAndExport(vra, path.join(own, 'exported.raw'), say)
    const copyBytesPerSecond = copy(path.join(own, 'exported.raw'), opened.dataBytes)
    await delay(indexSettledMillis)
    await vra.kill() // it makes nothing smaller any more
    const sqliteBytes = sizeOf(path.join(own, 'data', indexFile)) + sizeOf(path.join(own, 'data', `${indexFile}-wal`))
    const { footerBytes, packIndexBytes } = await indexBytes(path.join(own, 'data'))
    const indexBytesPerWrite = (footerBytes + packIndexBytes + sqliteBytes) / sent.writeCountTotal
    const { openSeconds, exportBytesPerSecond } = opened
    const counts = { writeCount: sent.writeCountTotal, writesPerBatch, footerBytes, packIndexBytes, sqliteBytes }
    return { ...counts, openSeconds, exportBytesPerSecond, copyBytesPerSecond, indexBytesPerWrite }
  } finally {
    await vra.kill()
    rmSync(own, { recursive: true, force: true })
  }
}

async function openAndExport(
  vra: VraProcess,
  file: string,
  say: (line: string) => void,
): Promise<{ openSeconds: number; exportBytesPerSecond: number; dataBytes: number }> {
  await untilCheckpoint(vra)
  const startMillis = performance.now()
  const request = { vpg: 'bench-0', volume: volumeName, checkpoint: 'latest', file, overwrite: false }
  let job: ExportJob = await vra.control.startExport(request)
  const openSeconds = (performance.now() - startMillis) / 1000
  say(`image open after ${openSeconds.toFixed(3)} s; exporting`)
  while (job.state === 'running') {
    await delay(50)
    job = await vra.control.export(job.id)
  }
  if (job.state !== 'done') throw new Error(`the export ${job.state}: ${job.failure?.sentence ?? ''}`)
  const seconds = (performance.now() - startMillis) / 1000 - openSeconds
  return { openSeconds, exportBytesPerSecond: job.dataBytes / seconds, dataBytes: job.dataBytes }
}

/** The last marker is durable when the sender ends; offered a moment later. */
async function untilCheckpoint(vra: VraProcess): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    const { latestCheckpoint } = await vra.control.showVpg('bench-0')
    if (latestCheckpoint?.recoverable === true) return
    await delay(100)
  }
  throw new Error('no checkpoint came of the markers')
}

/** Until all that was written is in segments. */
async function sealed(vra: VraProcess): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    if ((await vra.control.showVpg('bench-0')).mirror.unsealedSizeBytes === 0) return
    await delay(100)
  }
  throw new Error('segments are not made of the log')
}

function copy(file: string, dataBytes: number): number {
  const target = `${file}.copy`
  const startMillis = performance.now()
  execFileSync('cp', ['--sparse=always', file, target])
  execFileSync('sync', ['-d', target])
  const seconds = (performance.now() - startMillis) / 1000
  rmSync(target)
  return dataBytes / seconds
}

/** What footers and pack indexes take of all that the newest manifests speak of: an object that left them is garbage, not index. */
async function indexBytes(dataDirectory: string): Promise<{ footerBytes: number; packIndexBytes: number }> {
  const applianceId = readFileSync(path.join(dataDirectory, 'appliance-id'), 'utf8').trim()
  const store = await openStore({ kind: 'directory', directory: path.join(dataDirectory, 'store') })
  let footerBytes = 0
  let packIndexBytes = 0
  for (const vpg of await listVpgs(store, signal)) {
    const { segments, deltas, regions } = (await loadVpg(store, vpg, applianceId, signal)).contents.state
    for (const segment of segments) footerBytes += segment.footerSizeBytes
    const packs = [...deltas.flatMap(delta => delta.packs), ...regions.flatMap(({ pack }) => pack ?? [])]
    for (const pack of packs) packIndexBytes += pack.object.sizeBytes - pack.indexOffsetBytes
  }
  await store.close()
  return { footerBytes, packIndexBytes }
}

function sizeOf(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.size ?? 0
}
