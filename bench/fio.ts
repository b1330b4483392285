import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

/** What a guest does; a flush after every 32 writes in any case. */
export interface Workload {
  readonly name: string
  readonly argv: readonly string[]
}

export interface FioFigures {
  readonly iops: number
  readonly p99Millis: number
}

export const workloads: readonly Workload[] = [
  { name: '4 KiB random, 1 deep', argv: ['--rw=randwrite', '--bs=4k', '--iodepth=1'] },
  { name: '4 KiB random, 32 deep', argv: ['--rw=randwrite', '--bs=4k', '--iodepth=32'] },
  { name: '64 KiB sequential, 32 deep', argv: ['--rw=write', '--bs=64k', '--iodepth=32'] },
]

/** Runs fio's own NBD client for so long, after a fifth of that which is not counted. */
export async function runFio(directory: string, uri: string, { argv }: Workload, seconds: number): Promise<FioFigures> {
  const { stdout } = await promisify(execFile)(
    'fio',
    [
      ...['--name=guest', '--ioengine=nbd', `--uri=${uri}`, `--aux-path=${directory}`, ...argv, '--fsync=32'],
      ...['--size=1g', '--time_based', `--runtime=${seconds}`, `--ramp_time=${Math.ceil(seconds / 5)}`],
      ...['--randrepeat=0', '--scramble_buffers=0', '--output-format=json'],
    ],
    { maxBuffer: 64 * 1024 * 1024 },
  )
  const { jobs } = JSON.parse(stdout.slice(stdout.indexOf('{'))) as {
    jobs: { write: { iops: number; clat_ns: { percentile: Record<string, number> } } }[]
  }
  const write = jobs[0]?.write
  return { iops: write?.iops ?? NaN, p99Millis: (write?.clat_ns.percentile['99.000000'] ?? NaN) / 1e6 }
}
