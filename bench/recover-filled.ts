import { execFileSync } from 'node:child_process'
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs'
import * as path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { GiB, KiB, MiB } from '../src/base/units.ts'
import type { BenchContext } from './bench.ts'
import { sendTo, type VraProcess } from './processes.ts'

// The disk that recoveries are measured on.

export const diskSizeBytes = 5 * GiB
/** The file system takes the first of it, and random writes all the rest. */
const fileSystemSizeBytes = 256 * MiB
/** So long the log may take to be in segments before it is measured all the same. */
const sealMillisMax = 20_000

/** How many writes of how many bytes there are below the checkpoint. */
export function sizeOf({ full, quick }: BenchContext): {
  readonly writeCount: number
  readonly writeSizeBytes: number
} {
  if (full) return { writeCount: 10_000_000, writeSizeBytes: 512 }
  return { writeCount: quick ? 100_000 : 1_000_000, writeSizeBytes: 4 * KiB }
}

/** A file system, and random writes behind it, in the journal of the first VPG; tagged "measured". */
export async function filled(
  context: BenchContext,
  vra: VraProcess,
  { writeCount, writeSizeBytes } = sizeOf(context),
  sizeBytes = diskSizeBytes,
): Promise<void> {
  const { directory, say } = context
  const imageFile = path.join(directory, 'file-system.raw')
  makeFileSystem(directory, imageFile)
  const vpgs = await vra.createVpgs(1, sizeBytes)
  const writesPerBatch = (256 * KiB) / writeSizeBytes
  const sent = await sendTo(vra, vpgs, {
    volumeSizeBytes: sizeBytes,
    imageFile,
    workload: { pattern: 'random', writeSizeBytes, writesPerBatch, data: 'zipf-text', fromBytes: fileSystemSizeBytes },
    writeCountMax: writeCount,
  })
  say(`${sent.writeCountTotal} writes in ${sent.elapsedSeconds.toFixed(1)} s`)
  const endMillis = performance.now() + sealMillisMax
  while ((await vra.control.showVpg('bench-0')).mirror.unsealedSizeBytes > 0 && performance.now() < endMillis)
    await delay(100)
  await vra.control.tagCheckpoint({ vpg: 'bench-0', tag: 'measured', checkpoint: 'latest' })
}

/** An ext4 with a file in it. */
function makeFileSystem(directory: string, file: string): void {
  const contents = path.join(directory, 'contents')
  mkdirSync(contents, { recursive: true })
  writeFileSync(path.join(contents, 'file'), 'what was written')
  writeFileSync(file, '')
  truncateSync(file, fileSystemSizeBytes)
  execFileSync('mkfs.ext4', ['-q', '-F', '-d', contents, file])
}
