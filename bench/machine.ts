import { execFileSync } from 'node:child_process'
import { closeSync, fdatasyncSync, openSync, rmSync, writeSync } from 'node:fs'
import * as os from 'node:os'
import * as path from 'node:path'
import { KiB, MiB } from '../src/base/units.ts'
import type { ResultTable } from './bench.ts'

/** What the figures were taken on. */
export interface Machine {
  readonly processor: string
  readonly cores: number
  readonly memoryGiB: number
  readonly kernel: string
  readonly node: string
  readonly fileSystem: string
  readonly loadAverage: number
}

export function describeMachine(directory: string): Machine {
  const [cpu] = os.cpus()
  return {
    processor: cpu?.model.trim() ?? 'unknown',
    cores: os.cpus().length,
    memoryGiB: Math.round(os.totalmem() / 2 ** 30),
    kernel: os.release(),
    node: process.version,
    fileSystem: fileSystemOf(directory),
    loadAverage: os.loadavg()[0] ?? 0,
  }
}

function fileSystemOf(directory: string): string {
  try {
    return execFileSync('findmnt', ['-n', '-o', 'FSTYPE,OPTIONS', '-T', directory], { encoding: 'utf8' }).trim()
  } catch {
    return 'unknown'
  }
}

/** How often a second the disk makes a write durable in a file whose blocks exist, by size of the write. */
export function measureSyncRate(directory: string, millis: number): ResultTable {
  const file = path.join(directory, 'sync-rate')
  const descriptor = openSync(file, 'w')
  const block = Buffer.alloc(4 * MiB, 0x5a)
  const fileSizeBytes = 256 * MiB
  for (let at = 0; at < fileSizeBytes; at += block.length) writeSync(descriptor, block, 0, block.length, at)
  fdatasyncSync(descriptor)
  const rows = [4 * KiB, 64 * KiB, 256 * KiB, 1 * MiB, 4 * MiB].map(sizeBytes => {
    const startMillis = performance.now()
    let count = 0
    for (; performance.now() - startMillis < millis; count++) {
      writeSync(descriptor, block, 0, sizeBytes, (count * sizeBytes) % fileSizeBytes)
      fdatasyncSync(descriptor)
    }
    const perSecond = (count * 1000) / (performance.now() - startMillis)
    return [sizeBytes / KiB, perSecond, (perSecond * sizeBytes) / 1e6]
  })
  closeSync(descriptor)
  rmSync(file)
  return {
    title: "The disk's own rate: write and fdatasync, one at a time",
    columns: [
      { name: 'KiB a write', digits: 0 },
      { name: 'syncs/s', digits: 0 },
      { name: 'MB/s', digits: 0 },
    ],
    rows,
    notes: [],
  }
}
