import * as fs from 'node:fs'
import { createServer } from 'node:net'
import { once } from 'node:events'
import * as os from 'node:os'
import * as path from 'node:path'
import Table from 'cli-table3'
import { type Clock, systemClock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import { Shutdown } from '../base/shutdown.ts'
import { KiB, MiB } from '../base/units.ts'
import { isZero } from '../codec/zeros.ts'
import { ControlClient } from '../control/control.ts'
import type { ExportJob, VpgStatus } from '../control/service.ts'
import { firstDifference } from './compare.ts'
import { checkExt4, haveExt4Tools, makeExt4, type DemoFileSystem } from './filesystem.ts'
import { Load } from './load.ts'
import { NbdClient } from './nbd-client.ts'
import { Role } from './role.ts'
import { formatBytes, View } from './view.ts'

// The whole path on one machine: a VRA on embedded defaults, an agent with a real disk, a real ext4 written over NBD, a load,
// checkpoints, aging, and the disk recovered at three of them. Every claim on the screen is checked as it is made.

const diskSizeBytes = 256 * MiB
const phases = ['first', 'second', 'third'] as const
const phaseMillis = 8_000
const writesPerSecondMax = 3_000
const agingMillisMax = 25_000

interface Kept {
  readonly tag: string
  readonly checkpoint: string
  readonly writeCount: number
  /** What the disk held then, byte for byte. */
  readonly reference: string
}

interface Recovered extends Kept {
  readonly job: ExportJob
  readonly difference: number | undefined
  readonly fileSystem: string
}

/** Runs the demonstration. True when every recovered disk was what it had to be. Leaves no process and no file. */
export async function runDemo(signal: AbortSignal, clock: Clock = systemClock): Promise<boolean> {
  const view = new View()
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'vra-demo-'))
  const parts = new Shutdown()
  parts.own({ close: async () => fs.rmSync(directory, { recursive: true, force: true }) })
  try {
    const stage = await setUp(directory, parts, view)
    const fileSystem = await fillDisk(directory, stage.disk, view)
    const kept = await runPhases(directory, stage, fileSystem, view, { clock, signal })
    await watchAging(stage.control, view, { clock, signal })
    const recovered = await recoverAll(directory, stage.control, kept, view, { clock, signal })
    conclude(recovered, await stage.control.showVpg('demo'))
    return recovered.every(one => one.difference === undefined && one.fileSystem !== 'damaged')
  } finally {
    await parts.closeAll()
  }
}

interface Stage {
  readonly control: ControlClient
  readonly disk: NbdClient
  readonly diskFile: string
}

interface Waiting {
  readonly clock: Clock
  readonly signal: AbortSignal
}

async function setUp(directory: string, parts: Shutdown, view: View): Promise<Stage> {
  const [agentsPort, controlPort, nbdPort, agentControlPort] = await freePorts(4)
  const vraConfig = path.join(directory, 'vra.yaml')
  fs.writeFileSync(
    vraConfig,
    [
      `dataDirectory: ${path.join(directory, 'vra-data')}`,
      `listen: { port: ${agentsPort} }`,
      `control: { port: ${controlPort} }`,
      '# Small sizes, so that half a minute shows what a day does.',
      'aging: { segmentSizeBytesTarget: 8 MiB, segmentAgeMillisMax: 2000, foldSizeBytesMin: 24 MiB, garbageGraceMillis: 2000 }',
    ].join('\n'),
  )
  view.step('starting a VRA on its embedded defaults')
  const vraRole = await Role.start(
    'the VRA',
    ['serve', '--config', vraConfig],
    /vraReady/,
    path.join(directory, 'vra.out'),
  )
  parts.own({ close: () => vraRole.stop() })
  view.step(
    `VRA ready: agents on port ${agentsPort}, API and status page on http://127.0.0.1:${controlPort}, objects in a directory`,
  )

  const control = new ControlClient(`http://127.0.0.1:${controlPort}`)
  await control.createVpg({
    name: 'demo',
    volumes: [{ name: 'disk', sizeBytes: diskSizeBytes }],
    agents: ['demo-host'],
    historyMillis: 15_000,
    checkpointIntervalMillis: 1_000,
  })
  view.step('starting an agent on this host')
  const diskFile = path.join(directory, 'disk.img')
  fs.closeSync(fs.openSync(diskFile, 'wx'))
  fs.truncateSync(diskFile, diskSizeBytes)
  const agentConfig = path.join(directory, 'agent.yaml')
  fs.writeFileSync(
    agentConfig,
    [
      'agentId: demo-host',
      'vpg: demo',
      `vra: { port: ${agentsPort} }`,
      `stateDirectory: ${path.join(directory, 'agent-state')}`,
      `nbd: { port: ${nbdPort} }`,
      `control: { port: ${agentControlPort} }`,
      `volumes: [{ name: disk, path: ${diskFile} }]`,
    ].join('\n'),
  )
  const agentRole = await Role.start(
    'the agent',
    ['protect', '--config', agentConfig],
    /agentReady/,
    path.join(directory, 'agent.out'),
  )
  parts.own({ close: () => agentRole.stop() })
  const disk = parts.own(await NbdClient.connect({ host: '127.0.0.1', port: nbdPort ?? 0, exportName: 'disk' }))
  view.step(
    `agent ready: a disk of ${formatBytes(diskSizeBytes)} at nbd://127.0.0.1:${nbdPort}/disk, history 15 s, a checkpoint every second`,
  )
  return { control, disk, diskFile }
}

/** Writes a real ext4 through NBD, or, where its tools are missing, random data, and says so. */
async function fillDisk(directory: string, disk: NbdClient, view: View): Promise<DemoFileSystem | undefined> {
  if (!(await haveExt4Tools())) {
    view.step('mke2fs (e2fsprogs) is not installed: the disk gets plain data, and no file system is checked')
    return undefined
  }
  const fileSystem = await makeExt4(directory, diskSizeBytes)
  const source = fs.openSync(fileSystem.image, 'r')
  let sizeBytes = 0
  try {
    const piece = Buffer.alloc(256 * KiB)
    for (let at = 0; at < diskSizeBytes; at += piece.length) {
      fs.readSync(source, piece, 0, piece.length, at)
      if (isZero(piece)) continue
      await disk.write(at, piece)
      sizeBytes += piece.length
    }
  } finally {
    fs.closeSync(source)
  }
  await disk.flush()
  view.step(`ext4 written through NBD: ${formatBytes(sizeBytes)}`)
  return fileSystem
}

async function runPhases(
  directory: string,
  { control, disk, diskFile }: Stage,
  fileSystem: DemoFileSystem | undefined,
  view: View,
  { clock, signal }: Waiting,
): Promise<Kept[]> {
  const ranges = fileSystem?.fileRanges ?? [{ startBytes: 0, endBytes: diskSizeBytes }]
  const load = new Load(disk, ranges, clock)
  const kept: Kept[] = []
  for (const tag of phases) {
    view.step(`${tag} phase: random 4 KiB writes into a file of that file system`)
    load.start(writesPerSecondMax)
    const untilMillis = clock.monotonicMillis() + phaseMillis
    while (clock.monotonicMillis() < untilMillis) {
      await clock.sleep(1000, signal)
      view.live(await control.status())
    }
    await load.pause()
    // The disk stands still: what it holds now is what the checkpoint must give back.
    const { checkpoint } = await control.tagCheckpoint({ vpg: 'demo', tag })
    const reference = path.join(directory, `${tag}.reference`)
    fs.copyFileSync(diskFile, reference)
    kept.push({ tag, checkpoint, reference, writeCount: load.writeCount })
    view.detail(`checkpoint ${checkpoint} tagged "${tag}" after ${load.writeCount} writes`)
  }
  return kept
}

/** Waits until segments have become deltas and regions of the base, so that the images come through all forms. */
async function watchAging(control: ControlClient, view: View, { clock, signal }: Waiting): Promise<void> {
  view.step('aging: segments are folded into deltas, regions of the base are rewritten')
  const untilMillis = clock.monotonicMillis() + agingMillisMax
  for (;;) {
    const status = await control.status()
    const mirror = status.vpgs[0]?.mirror
    if (mirror !== undefined && mirror.deltaCount > 0 && mirror.regionCount > 0) return
    if (clock.monotonicMillis() > untilMillis) {
      view.detail('not yet in base regions; the images come from what there is')
      return
    }
    view.live(status)
    await clock.sleep(1000, signal)
  }
}

async function recoverAll(
  directory: string,
  control: ControlClient,
  kept: readonly Kept[],
  view: View,
  waiting: Waiting,
): Promise<Recovered[]> {
  const recovered: Recovered[] = []
  for (const one of kept) {
    const file = path.join(directory, `${one.tag}.recovered`)
    const started = await control.startExport({
      vpg: 'demo',
      volume: 'disk',
      checkpoint: one.tag,
      file,
      overwrite: false,
    })
    const job = await finished(control, started, waiting)
    const difference = await firstDifference(file, one.reference)
    const verdict = (await haveExt4Tools()) ? await checkExt4(file) : 'not checked'
    const fileSystem = verdict === 'clean' || verdict === 'not checked' ? verdict : 'damaged'
    view.step(
      `"${one.tag}" recovered: ${difference === undefined ? 'equal to the last byte' : `DIFFERS at byte ${difference}`}, file system ${fileSystem}`,
    )
    if (fileSystem === 'damaged') view.detail(verdict)
    recovered.push({ ...one, job, difference, fileSystem })
  }
  return recovered
}

async function finished(control: ControlClient, job: ExportJob, { clock, signal }: Waiting): Promise<ExportJob> {
  for (;;) {
    const now = await control.export(job.id)
    if (now.state === 'done') return now
    if (now.state !== 'running')
      throw new Failure('DISK_FAILED', `the export ended: ${now.failure?.sentence ?? now.state}`)
    await clock.sleep(50, signal)
  }
}

function conclude(recovered: readonly Recovered[], vpg: VpgStatus): void {
  const table = new Table({
    head: ['checkpoint', 'tag', 'writes before it', 'recovered in', 'data', 'bytes', 'e2fsck -fn'],
    style: { head: [], border: [] },
  })
  for (const { checkpoint, tag, writeCount, job, difference, fileSystem } of recovered) {
    const seconds = ((job.endedAtMicros ?? job.startedAtMicros) - job.startedAtMicros) / 1e6
    table.push([
      checkpoint,
      tag,
      writeCount,
      `${seconds.toFixed(2)} s`,
      formatBytes(job.dataBytes),
      difference === undefined ? 'equal' : 'DIFFERENT',
      fileSystem,
    ])
  }
  const { mirror } = vpg
  console.log(`\n${table.toString()}\n`)
  console.log(
    `${vpg.checkpointCount} checkpoints kept; ${mirror.segmentCount} segments, ${mirror.deltaCount} deltas, ${mirror.regionCount} base regions in the store. ` +
      'All processes stopped, all files removed.',
  )
}

/** Ports that nobody uses at this moment. */
async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer().listen(0, '127.0.0.1')
      await once(server, 'listening')
      return server
    }),
  )
  const ports = servers.map(server => (server.address() as { port: number }).port)
  await Promise.all(servers.map(server => new Promise(resolve => server.close(resolve))))
  return ports
}
