import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, statfsSync } from 'node:fs'
import * as path from 'node:path'
import { GiB, MiB } from '../src/base/units.ts'
import { missing } from '../test/support/nbd-tools.ts'
import { atLeast, atMost, type Aim, type Bench, type BenchContext, type Cell } from './bench.ts'
import { AgentProcess, everywhere, makeDisk, NbdkitServer, QemuMirror } from './disk-servers.ts'
import { runFio, workloads, type FioFigures } from './fio.ts'
import type { DataKind } from './data.ts'
import { rssMaxBytesOf, VraProcess } from './processes.ts'

// What a synchronisation takes, and what an agent costs its guests.
//
// Expectation: an initial synchronisation reads, checks for zeros, compresses, checksums, sends, receives and syncs each byte once; nbdcopy
// between two nbdkits reads, sends, receives and writes it: as fast where there are processors for both sides, less on two cores, more
// where compression halves what the disk has to take. A delta synchronisation reads the disk once, at the page cache's rate for
// holes, 2 to 3 GB/s, and sends 16 bytes of hash a block of 64 KiB the other way. Under a guest nbdkit costs a thread and no more; the
// agent one more copy, a checksum, and the VRA's share of the same processors.

export const sync: Bench = {
  name: 'sync',
  describes:
    'initial and delta synchronisation beside nbdcopy; guests of an agent beside nbdkit and a QEMU mirror; memory',
  async run(context) {
    const found = new Findings(context)
    for (const [kind, aim] of [
      ['random', 0.9],
      ['half-zeros', 1.3],
      ['zipf-text', 1.3],
    ] as const) {
      const name = `initial sync, ${kind}`
      if (found.wants(name, 'nbdkit', 'nbdcopy')) await measureInitial(context, found, name, kind, aim)
    }
    const sizeGiB = context.quick ? 10 : 100
    const delta = `delta sync, unchanged ${sizeGiB} GiB sparse disk`
    if (found.wants(delta)) await measureDelta(context, found, delta, sizeGiB * GiB)
    await measureOverhead(context, found)
    return {
      tables: [
        {
          title: 'Synchronising, and what an agent costs its guests',
          columns: [
            { name: '', digits: 0 },
            { name: 'measured', digits: 2 },
            { name: 'reference', digits: 2 },
            { name: 'ratio', digits: 2 },
            { name: 'aim', digits: 2 },
          ],
          rows: found.rows,
          notes: [
            'initial sync: from when the agent serves guests until all is durable at a VRA on the same disk, without what was sent before; reference: nbdcopy --flush between two nbdkit file that run already.',
            'V8 compiles both programs meanwhile, about two seconds of processor whatever the size of the disk: 4 GiB, 2 in a quick run.',
            'fio: incompressible, a flush every 32 writes, over a file that was written before; medians of alternating runs. Reference: nbdkit file, or the QEMU mirror.',
            'While fio runs the VRA keeps its data in memory where /dev/shm has room, so that its disk is not the guest’s; its processors are.',
            ...found.notes,
          ],
        },
      ],
      aims: found.aims,
      curves: [],
    }
  },
}

/** What goes into the table. */
class Findings {
  readonly rows: Cell[][] = []
  readonly aims: Aim[] = []
  readonly notes: string[] = []
  readonly #context: BenchContext

  constructor(context: BenchContext) {
    this.#context = context
  }

  /** False where the row was not asked for, or cannot be measured here: then it is named. */
  wants(name: string, ...programs: readonly string[]): boolean {
    if (!name.includes(this.#context.rows)) return false
    const why = missing(...programs)
    if (why !== false) this.notes.push(`Skipped: ${name}: ${why}.`)
    return why === false
  }

  atLeast(name: string, measured: number, reference: number, aim: number): void {
    this.rows.push([name, measured, reference, measured / reference, aim])
    this.aims.push(atLeast(`${name}, of the reference`, aim, measured / reference, ''))
  }

  atMost(name: string, measured: number, reference: number, aim: number): void {
    this.rows.push([name, measured, reference, measured / reference, aim])
    this.aims.push(atMost(`${name}, of the reference`, aim, measured / reference, ''))
  }

  alone(name: string, measured: number): void {
    this.rows.push([name, measured, undefined, undefined, undefined])
  }
}

async function measureInitial(
  { directory, quick, say }: BenchContext,
  found: Findings,
  name: string,
  kind: DataKind,
  aim: number,
): Promise<void> {
  const own = mkdtempSync(path.join(directory, 'initial-'))
  const sizeBytes = quick ? 2 * GiB : 4 * GiB
  const disk = path.join(own, 'disk.img')
  makeDisk(disk, sizeBytes, kind, everywhere(sizeBytes))
  const runs = Array.from({ length: quick ? 1 : 3 }, (_, index) => index)
  const rates: { copy: number[]; sync: number[] } = { copy: [], sync: [] }
  for (const run of runs) {
    say(`${name}: nbdcopy`)
    rates.copy.push(await copyRate(own, disk, sizeBytes))
    say(`${name}: agent and VRA`)
    rates.sync.push(await syncRate(path.join(own, `run-${run}`), disk, sizeBytes))
  }
  found.atLeast(`${name}, MB/s`, median(rates.sync), median(rates.copy), aim)
  rmSync(own, { recursive: true })
}

async function copyRate(directory: string, disk: string, sizeBytes: number): Promise<number> {
  const copy = path.join(directory, 'copy.img')
  makeDisk(copy, sizeBytes, 'random', [])
  const [source, target] = [await NbdkitServer.start(directory, disk), await NbdkitServer.start(directory, copy)]
  const startMillis = performance.now()
  execFileSync('nbdcopy', ['--flush', source.uri, target.uri])
  const seconds = (performance.now() - startMillis) / 1000
  await source.stop()
  await target.stop()
  rmSync(copy)
  return sizeBytes / 1e6 / seconds
}

async function syncRate(directory: string, disk: string, sizeBytes: number): Promise<number> {
  const vra = await VraProcess.start({ directory })
  try {
    await vra.createVpgs(1, sizeBytes)
    const agent = await AgentProcess.start(directory, disk, vra.port)
    const startMillis = performance.now()
    const doneBytes = (await agent.status()).volumes[0]?.syncDoneBytes ?? 0
    await agent.untilSynced()
    const seconds = (performance.now() - startMillis) / 1000
    await agent.stop()
    return (sizeBytes - doneBytes) / 1e6 / seconds
  } finally {
    await vra.kill()
    rmSync(directory, { recursive: true })
  }
}

async function measureDelta(
  { directory, say }: BenchContext,
  found: Findings,
  name: string,
  sizeBytes: number,
): Promise<void> {
  const own = mkdtempSync(path.join(directory, 'delta-'))
  const disk = path.join(own, 'disk.img')
  const places = Array.from({ length: 16 }, (_, index) => (index * sizeBytes) / 16)
  makeDisk(disk, sizeBytes, 'zipf-text', places)
  const vra = await VraProcess.start({ directory: own })
  try {
    await vra.createVpgs(1, sizeBytes)
    say(`${name}: first the initial synchronisation`)
    const agent = await AgentProcess.start(own, disk, vra.port)
    const initialMillis = performance.now()
    await agent.untilSynced()
    found.alone(`${name}: the initial one before, s`, (performance.now() - initialMillis) / 1000)
    await agent.until(({ lastCheckpoint }) => lastCheckpoint !== undefined)
    say(name)
    const before = ioOf(agent.process.processId)
    const startMillis = performance.now()
    await vra.control.requestSync('bench-0', { kind: 'delta' })
    await agent.until(() => agent.process.output.includes('"kind":"delta","sentBytes"'))
    const seconds = (performance.now() - startMillis) / 1000
    const after = ioOf(agent.process.processId)
    found.alone(`${name}, s`, seconds)
    found.alone(`${name}: read, GiB`, (after.readBytes - before.readBytes) / GiB)
    found.alone(`${name}: sent, MiB`, (after.writtenBytes - before.writtenBytes) / MiB)
    await agent.stop()
  } finally {
    await vra.kill()
    rmSync(own, { recursive: true })
  }
}

/** What a process has read and written by system calls, files and sockets. */
function ioOf(processId: number): { readBytes: number; writtenBytes: number } {
  const text = readFileSync(`/proc/${processId}/io`, 'utf8')
  const field = (name: string): number => Number(new RegExp(`^${name}: (\\d+)`, 'm').exec(text)?.[1] ?? 0)
  return { readBytes: field('rchar'), writtenBytes: field('wchar') }
}

async function measureOverhead(context: BenchContext, found: Findings): Promise<void> {
  const chosen = workloads.filter(({ name }) => found.wants(`guest, ${name}`, 'fio', 'nbdkit'))
  if (chosen.length === 0) return
  const mirrors = found.wants('guest', 'qemu-storage-daemon') || missing('qemu-storage-daemon') === false
  const own = mkdtempSync(path.join(context.directory, 'overhead-'))
  const memory = '/dev/shm'
  const hasRoom = existsSync(memory) && statfsSync(memory).bavail * statfsSync(memory).bsize > 6 * GiB
  const vraDirectory = hasRoom ? mkdtempSync(path.join(memory, 'vra-bench-')) : path.join(own, 'vra')
  if (!hasRoom) found.notes.push('The VRA kept its data on the guest’s disk: /dev/shm has no room.')
  const sizeBytes = 1 * GiB
  const disks = ['agent', 'nbdkit', 'mirror', 'mirrored'].map(name => path.join(own, `${name}.img`))
  const [agentDisk = '', nbdkitDisk = '', mirrorDisk = '', mirroredDisk = ''] = disks
  for (const disk of disks) makeDisk(disk, sizeBytes, 'random', everywhere(sizeBytes))
  const ends: (() => Promise<void>)[] = []
  try {
    const vra = await VraProcess.start({ directory: vraDirectory })
    ends.push(() => vra.kill())
    await vra.createVpgs(1, sizeBytes)
    const agent = await AgentProcess.start(own, agentDisk, vra.port)
    ends.push(() => agent.stop())
    await agent.untilSynced()
    const nbdkit = await NbdkitServer.start(own, nbdkitDisk)
    ends.push(() => nbdkit.stop())
    const mirror = mirrors ? await QemuMirror.start(own, mirrorDisk, mirroredDisk) : undefined
    if (mirror !== undefined) ends.push(() => mirror.stop())
    for (const workload of chosen) {
      const detachedBefore = countOf(agent.process.output, '"event":"detached"')
      const figures: Record<'agent' | 'nbdkit' | 'mirror', FioFigures[]> = { agent: [], nbdkit: [], mirror: [] }
      for (let round = 0; round < (context.quick ? 2 : 3); round++) {
        for (const [name, server] of [
          ['nbdkit', nbdkit],
          ['agent', agent],
          ['mirror', mirror],
        ] as const) {
          if (server === undefined) continue
          context.say(`guest, ${workload.name}: ${name}`)
          figures[name].push(await runFio(own, server.uri, workload, context.quick ? 4 : 10))
          if (name === 'agent') await agent.untilSynced()
        }
      }
      const [own_, reference] = [summary(figures.agent), summary(figures.nbdkit)]
      found.atLeast(`guest, ${workload.name}, IOPS of nbdkit`, own_.iops, reference.iops, 1)
      found.atMost(`guest, ${workload.name}, p99 ms of nbdkit`, own_.p99Millis, reference.p99Millis, 1.3)
      if (mirror !== undefined)
        found.atLeast(`guest, ${workload.name}, IOPS of a QEMU mirror`, own_.iops, summary(figures.mirror).iops, 2)
      const detached = countOf(agent.process.output, '"event":"detached"') - detachedBefore
      if (detached > 0)
        found.notes.push(
          `guest, ${workload.name}: the VRA could not follow; the agent's queue passed its bound ${detached} times.`,
        )
    }
    found.alone('agent memory at most, MiB', rssMaxBytesOf(agent.process.processId) / MiB)
  } finally {
    for (const end of ends.reverse()) await end()
    rmSync(own, { recursive: true })
    rmSync(vraDirectory, { recursive: true, force: true })
  }
}

function summary(figures: readonly FioFigures[]): FioFigures {
  return {
    iops: median(figures.map(({ iops }) => iops)),
    p99Millis: median(figures.map(({ p99Millis }) => p99Millis)),
  }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  const upper = sorted[middle] ?? NaN
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? NaN)) / 2
}

function countOf(text: string, part: string): number {
  return text.split(part).length - 1
}
