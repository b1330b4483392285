import { execFile, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import * as path from 'node:path'
import { promisify } from 'node:util'
import { GiB, KiB } from '../src/base/units.ts'
import { NbdClient } from '../test/support/nbd-client.ts'
import { missing } from '../test/support/nbd-tools.ts'
import { cannotMount, mustRun, ServedDisk, unmount } from '../test/support/scenario-mount.ts'
import { atMost, type Bench, type BenchContext, type Cell } from './bench.ts'
import { AgentProcess, NbdkitServer } from './disk-servers.ts'
import { volumeName, VraProcess } from './processes.ts'

// From a command to the first byte of a checkpoint over NBD, and to a mounted ext4; and how fast it is read, beside nbdkit's own server of a raw file.
//
// Expectation: a command starts in 0.2 s. Opening reads the footers of what is not folded, 16 bytes a write: of 256 MiB of 4 KiB writes 1 MB.
// The first read resolves one region: an index of some 10,000 extents a layer, milliseconds. A mount reads some dozen places in a handful of regions. Then
// reading is decompression and copies: some 300 MB/s where blocks lie by place (deltas, base), and a tenth of it where each
// 4 KiB lie in a batch of their own (segments, log).

const diskSizeBytes = 5 * GiB
/** The file system takes the first of it, and random writes all the rest. */
const fileSystemSizeBytes = 1 * GiB
const repetitions = 3
const vraProgram = path.resolve(import.meta.dirname, '../src/cli/vra.js')
const run = promisify(execFile)

export const recover: Bench = {
  name: 'recover',
  describes:
    'command to first byte and to a mounted ext4 over NBD; NBD reads beside nbdkit file; --full: 10,000,000 writes',
  async run(context) {
    const skip = missing('fio', 'nbdcopy', 'nbdkit', 'nbdfuse') || cannotMount()
    if (skip !== false) throw new Error(`it cannot be measured here: ${skip}`)
    const writeCount = context.full ? 10_000_000 : context.quick ? 100_000 : 1_000_000
    const found = await measure(context, writeCount)
    const rows: Cell[][] = [
      ['first byte, by the API, s', found.firstByteByApi],
      ['first byte, by `vra mount`, s', found.firstByte],
      ['ext4 mounted, by `vra mount`, s', found.mounted],
      ['NBD read, first pass, MB/s', found.coldRate],
      ['NBD read, second pass, MB/s', found.warmRate],
      ['nbdkit file, first pass, MB/s', found.referenceColdRate],
      ['nbdkit file, second pass, MB/s', found.referenceWarmRate],
    ]
    return {
      tables: [
        {
          title: `A checkpoint over ${writeCount.toLocaleString('en')} journaled writes of 4 KiB, over NBD`,
          columns: [
            { name: '', digits: 0 },
            { name: 'measured', digits: 3 },
          ],
          rows,
          notes: [
            `Times are medians of ${repetitions}, each of a new mount; the daemon's caches in memory are new each time, the page cache is not.`,
            'NBD read: nbdcopy of all 5 GiB to null:, bytes of the disk that are data a second. nbdkit serves the raw file that an export gave; its first pass is after the file left the page cache.',
          ],
        },
      ],
      aims: [
        atMost('command to first readable byte', 1, found.firstByte, 's'),
        atMost('command to mounted ext4', 3, found.mounted, 's'),
      ],
      curves: [],
    }
  },
}

async function measure({ directory, say }: BenchContext, writeCount: number) {
  const vra = await VraProcess.start({ directory: path.join(directory, 'vra') })
  const disk = path.join(directory, 'disk.raw')
  makeFileSystem(directory, disk)
  try {
    await vra.createVpgs(1, diskSizeBytes)
    const agent = await AgentProcess.start(path.join(directory, 'agent'), disk, vra.port)
    try {
      await agent.untilSynced()
      say(`${writeCount} writes`)
      await run('fio', [
        ...['--name=writes', '--ioengine=nbd', `--uri=${agent.uri}`, '--rw=randwrite', '--bs=4k', '--iodepth=32'],
        ...[`--offset=${fileSystemSizeBytes}`, `--size=${diskSizeBytes - fileSystemSizeBytes}`, '--norandommap'],
        ...[`--number_ios=${writeCount}`, `--io_size=${writeCount * 4 * KiB}`, '--buffer_compress_percentage=50'],
        ...['--refill_buffers', `--aux-path=${directory}`],
      ])
      await agent.untilSynced()
      await vra.control.tagCheckpoint({ vpg: 'bench-0', tag: 'measured' })
    } finally {
      await agent.stop()
    }
    const firstBytesByApi: number[] = []
    const firstBytes: number[] = []
    const mounts: number[] = []
    for (let count = 0; count < repetitions; count++) {
      firstBytesByApi.push(await byApi(vra))
      firstBytes.push(await byCommand(vra, readFirst))
      mounts.push(await byCommand(vra, uri => mountAt(path.join(directory, `fuse-${count}`), uri)))
      say(`first byte ${firstBytes.at(-1)!.toFixed(3)} s, mounted ${mounts.at(-1)!.toFixed(3)} s`)
    }
    return {
      firstByteByApi: median(firstBytesByApi),
      firstByte: median(firstBytes),
      mounted: median(mounts),
      ...(await rates(vra, directory, say)),
    }
  } finally {
    await vra.kill()
    rmSync(disk, { force: true })
  }
}

/** An ext4 with a file in it, in the first part of the disk. */
function makeFileSystem(directory: string, disk: string): void {
  const contents = path.join(directory, 'contents')
  mkdirSync(contents)
  writeFileSync(path.join(contents, 'file'), 'what was written')
  writeFileSync(disk, '')
  truncateSync(disk, diskSizeBytes)
  execFileSync('mkfs.ext4', ['-q', '-F', '-d', contents, disk, `${fileSystemSizeBytes / KiB}k`])
}

async function byApi(vra: VraProcess): Promise<number> {
  const startMillis = performance.now()
  const mount = await vra.control.startMount({ vpg: 'bench-0', checkpoint: 'measured' })
  await readFirst(mount.volumes[0]!.uri)
  const seconds = (performance.now() - startMillis) / 1000
  await vra.control.endMount(mount.id)
  return seconds
}

/** From the start of the command's process until `use` has done what it does. */
async function byCommand(vra: VraProcess, use: (uri: string) => Promise<() => Promise<void>>): Promise<number> {
  const startMillis = performance.now()
  const argv = [vraProgram, 'mount', 'bench-0', '--checkpoint', 'measured', '--json', '--url', vra.controlUrl]
  const command = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'ignore'] })
  try {
    let text = ''
    for await (const chunk of command.stdout) {
      text += String(chunk)
      if (text.endsWith('}\n')) break
    }
    const { volumes } = JSON.parse(text) as { volumes: { uri: string }[] }
    const undo = await use(volumes[0]!.uri)
    const seconds = (performance.now() - startMillis) / 1000
    await undo()
    return seconds
  } finally {
    command.kill('SIGINT')
    if (command.exitCode === null) await once(command, 'exit')
  }
}

/** Of the part that random writes went to. */
async function readFirst(uri: string): Promise<() => Promise<void>> {
  const { hostname, port, pathname } = new URL(uri)
  const client = await NbdClient.open({ host: hostname, port: Number(port) }, pathname.slice(1))
  await client.read(3 * GiB, 4 * KiB)
  return () => client.close()
}

async function mountAt(directory: string, uri: string): Promise<() => Promise<void>> {
  const at = `${directory}-mounted`
  mkdirSync(at)
  const served = await ServedDisk.open(directory, uri)
  const loop = await served.attach()
  if (loop === undefined) throw new Error('no loop device is to be had')
  await mustRun('mount', '-o', 'ro,noload', loop, at)
  await mustRun('cat', path.join(at, 'file'))
  return async () => {
    await unmount(at)
    await served.close()
  }
}

async function rates(vra: VraProcess, directory: string, say: (line: string) => void) {
  const mount = await vra.control.startMount({ vpg: 'bench-0', checkpoint: 'measured' })
  const file = path.join(directory, 'exported.raw')
  const request = { vpg: 'bench-0', volume: volumeName, checkpoint: 'measured', file, overwrite: true }
  try {
    const { uri } = mount.volumes[0]!
    let job = await vra.control.startExport(request)
    while (job.state === 'running') job = await vra.control.export(job.id)
    const { dataBytes } = job
    say(`${(dataBytes / 1e9).toFixed(2)} GB of data; reading all of it`)
    const [coldRate, warmRate] = [await copyRate(uri, dataBytes), await copyRate(uri, dataBytes)]
    const nbdkit = await NbdkitServer.start(directory, file)
    execFileSync('dd', [
      `of=${file}`,
      'if=/dev/null',
      'oflag=nocache',
      'conv=notrunc,fdatasync',
      'count=0',
      'status=none',
    ])
    const referenceColdRate = await copyRate(nbdkit.uri, dataBytes)
    const referenceWarmRate = await copyRate(nbdkit.uri, dataBytes)
    await nbdkit.stop()
    return { coldRate, warmRate, referenceColdRate, referenceWarmRate }
  } finally {
    await vra.control.endMount(mount.id)
    rmSync(file, { force: true })
  }
}

/** MB/s. */
async function copyRate(uri: string, dataBytes: number): Promise<number> {
  const startMillis = performance.now()
  await run('nbdcopy', [uri, 'null:'])
  return dataBytes / 1e3 / (performance.now() - startMillis)
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!
}
