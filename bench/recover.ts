import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, rmSync } from 'node:fs'
import * as path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { GiB, KiB, MiB } from '../src/base/units.ts'
import { NbdClient } from '../test/support/nbd-client.ts'
import { missing } from '../test/support/nbd-tools.ts'
import { cannotMount, mustRun, ServedDisk, unmount } from '../test/support/scenario-mount.ts'
import { atMost, type Aim, type Bench, type BenchContext, type BenchResult, type Cell } from './bench.ts'
import { everywhere, makeDisk, NbdkitServer } from './disk-servers.ts'
import { Histogram } from './histogram.ts'
import { agentName, sendTo, volumeName, VraProcess } from './processes.ts'
import { chainPart } from './recover-chain.ts'
import { diskSizeBytes, filled, sizeOf } from './recover-filled.ts'
import { putPart } from './recover-put.ts'

// What a recovery takes, in parts of their own (--rows NAME of one):
//
//   open   from a command to the first byte of a checkpoint over NBD, and to a mounted ext4; how fast it is read, beside nbdkit's own server of a raw file
//   put    blocks put a second, and what they cost, into a simulator of EBS and into a server that looks at nothing; see recover-put.ts
//   chain  bytes put upon a standby snapshot chain against bytes changed since; see recover-chain.ts
//   ack    acknowledgements with and without a recovery that is read as fast as it goes
//
// Expectation: a command starts in 0.2 s. Opening reads the footers of what is not folded, 16 bytes a write: of 1,000,000 writes 16 MB.
// The first read resolves one region: an index of some 10,000 extents a layer, milliseconds. A mount reads some dozen places in a handful of regions. Then
// reading is decompression and copies: some 300 MB/s where blocks lie by place (deltas, base), and a tenth of it where each
// 4 KiB lie in a batch of their own (segments, log), until they have been put in order, which takes as long as reading, decompressing and writing
// them once.

/** So much of it is read, from its middle on. */
const readSizeBytes = 512 * MiB
const repetitions = 3
const ackRawBytesPerSecond = 20e6
const vraProgram = path.resolve(import.meta.dirname, '../src/cli/vra.js')

export const recover: Bench = {
  name: 'recover',
  describes:
    'command to first byte and to a mounted ext4 over NBD; NBD reads beside nbdkit file; puts to AWS; acks meanwhile. --rows open | put | chain | ack; --full: 10,000,000 writes of 512 bytes',
  async run(context) {
    const parts = [
      ['open', openPart],
      ['put', putPart],
      ['chain', chainPart],
      ['ack', ackPart],
    ] as const
    const results: BenchResult[] = []
    for (const [name, part] of parts) if (name.includes(context.rows)) results.push(await part(context))
    return {
      tables: results.flatMap(({ tables }) => tables),
      aims: results.flatMap(({ aims }) => aims),
      curves: [],
    }
  },
}

async function openPart(context: BenchContext): Promise<BenchResult> {
  const skip = missing('nbdkit', 'nbdfuse') || cannotMount()
  if (skip !== false) throw new Error(`it cannot be measured here: ${skip}`)
  const { directory, say } = context
  const vra = await VraProcess.start({ directory: path.join(directory, 'vra-open') })
  try {
    await filled(context, vra)
    const [byApis, byCommands, mounts]: [number[], number[], number[]] = [[], [], []]
    for (let count = 0; count < repetitions; count++) {
      byApis.push(await byApi(vra))
      byCommands.push(await byCommand(vra, readFirst))
      mounts.push(await byCommand(vra, uri => mountAt(path.join(directory, `fuse-${count}`), uri)))
      const [first, mounted] = [byCommands.at(-1), mounts.at(-1)].map(seconds => seconds?.toFixed(3))
      say(`first byte ${first} s (by the API ${byApis.at(-1)?.toFixed(3)} s), mounted ${mounted} s`)
    }
    const [firstByte, mounted] = [median(byCommands), median(mounts)]
    const found = context.full ? undefined : await rates(vra, directory, say)
    const rows: Cell[][] = [
      ['first byte, by the API, s', median(byApis)],
      ['first byte, by `vra mount`, s', firstByte],
      ['ext4 mounted, by `vra mount`, s', mounted],
      ...(found === undefined
        ? []
        : ([
            ['NBD read, first pass, MB/s', found.coldRate],
            ['NBD read, second pass, MB/s', found.warmRate],
            ['nbdkit file, first pass, MB/s', found.referenceColdRate],
            ['nbdkit file, second pass, MB/s', found.referenceWarmRate],
          ] satisfies Cell[][])),
    ]
    const { writeCount, writeSizeBytes } = sizeOf(context)
    return {
      tables: [
        {
          title: `A checkpoint over ${writeCount.toLocaleString('en')} journaled writes of ${writeSizeBytes} bytes, over NBD`,
          columns: [
            { name: '', digits: 0 },
            { name: 'measured', digits: 3 },
          ],
          rows,
          notes: [
            `Times are medians of ${repetitions}, each of a new mount; the daemon's caches in memory are new each time, the page cache is not.`,
            'NBD read: 512 MiB from the middle of the disk, random writes over most of it, in requests of 256 KiB, eight at once, by the same client. nbdkit serves a raw file; its first pass is after the file left the page cache.',
          ],
        },
      ],
      aims: [
        atMost('command to first readable byte', 1, firstByte, 's'),
        atMost('command to mounted ext4', 3, mounted, 's'),
      ],
      curves: [],
    }
  } finally {
    await vra.kill()
    rmSync(path.join(directory, 'vra-open'), { recursive: true, force: true })
  }
}

async function ackPart(context: BenchContext): Promise<BenchResult> {
  const directory = path.join(context.directory, 'vra-ack')
  const vra = await VraProcess.start({ directory })
  try {
    await filled(context, vra)
    const measureMillis = context.quick ? 8_000 : 20_000
    const workload = { pattern: 'random', writeSizeBytes: 4 * KiB, writesPerBatch: 16, data: 'zipf-text' } as const
    // Each of a new group: a sender begins a stream, and goes on with none.
    const paced = async (name: string): Promise<number> => {
      await vra.control.createVpg({
        ...{ name, volumes: [{ name: volumeName, sizeBytes: diskSizeBytes }], agents: [agentName] },
        ...{ historyMillis: 3_600_000, checkpointIntervalMillis: 5_000 },
      })
      const vpgs = [{ name, durable: { generation: 0, sequence: 0 } }]
      const sent = await sendTo(vra, vpgs, {
        volumeSizeBytes: diskSizeBytes,
        workload,
        rawBytesPerSecond: ackRawBytesPerSecond,
        measureMillis,
      })
      return new Histogram(sent.latencyCounts).quantileMillis(0.99) ?? 0
    }
    const alone = await paced('alone')
    context.say(`p99 ${alone.toFixed(1)} ms alone`)
    const { stop, readBytes } = await readForEver(vra)
    const beside = await paced('beside').finally(stop)
    context.say(`p99 ${beside.toFixed(1)} ms beside a recovery`)
    const rows: Cell[][] = [
      ['p99 alone, ms', alone],
      ['p99 beside a recovery, ms', beside],
      ['ratio', beside / alone],
      ['MB read of the recovery', readBytes() / 1e6],
    ]
    const aims: Aim[] = [atMost('ack p99 beside a recovery, of that without', 1.5, beside / alone, 'times')]
    return {
      tables: [
        {
          title:
            'Acknowledgements at 20 MB/s of 4 KiB writes, alone and beside a failover test of another group that is read over and over',
          columns: [
            { name: '', digits: 0 },
            { name: 'measured', digits: 2 },
          ],
          rows,
          notes: ['The sender, the reader and the daemon share two cores.'],
        },
      ],
      aims,
      curves: [],
    }
  } finally {
    await vra.kill()
    rmSync(directory, { recursive: true, force: true })
  }
}

/** A failover test over NBD that is read from its beginning to its end, again and again. */
async function readForEver(vra: VraProcess) {
  const { id } = await vra.control.startRecovery({
    ...{ vpg: 'bench-0', kind: 'test', checkpoint: 'measured', target: 'nbd', settings: {} },
    commitPolicy: { kind: 'none', afterMillis: 60_000 },
  })
  let facts = await vra.control.recovery(id)
  while (facts.state === 'preparing') {
    await delay(20)
    facts = await vra.control.recovery(id)
  }
  const { hostname: host, port, pathname } = new URL(facts.things[0]!.place)
  const client = await NbdClient.open({ host, port: Number(port) }, decodeURIComponent(pathname.slice(1)))
  let isWanted = true
  let bytes = 0
  const reading = (async () => {
    for (let at = 0; isWanted; at = (at + MiB) % diskSizeBytes) {
      await client.read(at, MiB)
      bytes += MiB
    }
  })()
  return {
    readBytes: () => bytes,
    stop: async () => {
      isWanted = false
      await reading
      await client.close()
      await vra.control.decideRecovery(id, 'stop')
    },
  }
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
  const file = path.join(directory, 'reference.raw')
  makeDisk(file, readSizeBytes, 'zipf-text', everywhere(readSizeBytes))
  const nbdkit = await NbdkitServer.start(directory, file)
  try {
    const { uri } = mount.volumes[0]!
    const from = { fromBytes: 2 * GiB }
    const [coldRate, warmRate] = [await readRate(uri, from), await readRate(uri, from)]
    say(`read at ${coldRate.toFixed(0)} and ${warmRate.toFixed(0)} MB/s`)
    dropFromPageCache(file)
    const referenceColdRate = await readRate(nbdkit.uri, { fromBytes: 0 })
    const referenceWarmRate = await readRate(nbdkit.uri, { fromBytes: 0 })
    return { coldRate, warmRate, referenceColdRate, referenceWarmRate }
  } finally {
    await nbdkit.stop()
    await vra.control.endMount(mount.id)
    rmSync(file, { force: true })
  }
}

function dropFromPageCache(file: string): void {
  execFileSync('dd', [
    `of=${file}`,
    'if=/dev/null',
    'oflag=nocache',
    'conv=notrunc,fdatasync',
    'count=0',
    'status=none',
  ])
}

/** MB/s of the disk, from one place on, by requests of 256 KiB, eight of them at once. */
async function readRate(uri: string, { fromBytes }: { readonly fromBytes: number }): Promise<number> {
  const { hostname: host, port, pathname } = new URL(uri)
  const client = await NbdClient.open({ host, port: Number(port) }, decodeURIComponent(pathname.slice(1)))
  const pieceBytes = 256 * KiB
  const startMillis = performance.now()
  let at = fromBytes
  const reader = async (): Promise<void> => {
    while (at < fromBytes + readSizeBytes) {
      const mine = at
      at += pieceBytes
      await client.read(mine, pieceBytes)
    }
  }
  await Promise.all(Array.from({ length: 8 }, reader))
  const rate = readSizeBytes / 1e3 / (performance.now() - startMillis)
  await client.close()
  return rate
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!
}
