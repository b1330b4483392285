import { rmSync } from 'node:fs'
import * as path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { ebsBlockSizeBytes } from '../src/base/limits.ts'
import { KiB, MiB } from '../src/base/units.ts'
import type { RecoveryRequest } from '../src/control/service.ts'
import { AwsSim } from '../test/support/aws-sim/aws-sim.ts'
import type { BenchContext, BenchResult, Cell } from './bench.ts'
import type { Workload } from './frames.ts'
import { sendTo, volumeName, VraProcess } from './processes.ts'

// What a failover puts where a standby snapshot chain is kept: of each group one disk of data, a chain, a change, and a test at the newest checkpoint.
//
// Expectation: each block of 512 KiB in which anything was written is put once, and nothing else. So of writes that follow each other as much as was
// written, and of 4 KiB written here and there up to 128 times as much.

const diskSizeBytes = 512 * MiB
const dataSizeBytes = 128 * MiB
const waitMillisMax = 120_000
const standbyIntervalMillis = 3_600_000

interface Change {
  readonly name: string
  readonly sizeBytes: number
  readonly workload: Workload
}

const changes: readonly Change[] = [
  {
    name: '32 MiB in one piece',
    sizeBytes: 32 * MiB,
    workload: { pattern: 'sequential', writeSizeBytes: 64 * KiB, writesPerBatch: 4, data: 'zipf-text' },
  },
  {
    name: '32 MiB in 64 KiB, anywhere',
    sizeBytes: 32 * MiB,
    workload: { pattern: 'random', writeSizeBytes: 64 * KiB, writesPerBatch: 4, data: 'zipf-text' },
  },
  {
    name: '2 MiB in 4 KiB, anywhere',
    sizeBytes: 2 * MiB,
    workload: { pattern: 'random', writeSizeBytes: 4 * KiB, writesPerBatch: 64, data: 'zipf-text' },
  },
]

const filling: Workload = { pattern: 'sequential', writeSizeBytes: 64 * KiB, writesPerBatch: 4, data: 'random' }

export async function chainPart(context: BenchContext): Promise<BenchResult> {
  const directory = path.join(context.directory, 'vra-chain')
  const sim = await AwsSim.start()
  const endpoints = { ebs: sim.endpoint, ec2: sim.endpoint }
  const environment = { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'secret' }
  const vra = await VraProcess.start({
    ...{ directory, environment },
    aging: { segmentAgeMillisMax: 1_000 }, // a chain is put of what is in the store
    aws: { region: sim.region, siteId: 'bench', endpoints },
  })
  try {
    const vpgs = await vra.createVpgs(changes.length, diskSizeBytes)
    const rows: Cell[][] = []
    for (const [index, change] of changes.entries()) {
      const found = await failover(vra, sim, vpgs[index]!, change)
      context.say(`${change.name}: ${found.putCount} blocks put, ${found.touchedCount} touched`)
      const putBytes = found.putCount * ebsBlockSizeBytes
      rows.push([
        ...[change.name, found.wholeCount, found.changedBytes / 1e6, found.touchedCount, found.putCount],
        ...[putBytes / 1e6, putBytes / found.changedBytes],
      ])
    }
    return {
      tables: [
        {
          title: 'A failover upon a standby snapshot chain: what is put against what was changed since',
          columns: [
            { name: 'changed since', digits: 0 },
            { name: 'blocks of the chain', digits: 0 },
            { name: 'MB changed', digits: 2 },
            { name: 'blocks changed', digits: 0 },
            { name: 'blocks put', digits: 0 },
            { name: 'MB put', digits: 2 },
            { name: 'put/changed', digits: 2 },
          ],
          rows,
          notes: [
            'Changed: what `vra diff` tells between the checkpoint of the chain and the newest. Blocks are of 512 KiB, what EBS takes.',
          ],
        },
      ],
      aims: [],
      curves: [],
    }
  } finally {
    await vra.kill()
    await sim.close()
    rmSync(directory, { recursive: true, force: true })
  }
}

async function failover(
  vra: VraProcess,
  sim: AwsSim,
  vpg: { readonly name: string; readonly durable: { readonly generation: number; readonly sequence: number } },
  { sizeBytes, workload }: Change,
) {
  const { control } = vra
  const { name } = vpg
  const putsSoFar = (): number => sim.callCount('PutSnapshotBlock')
  const write = async (from: typeof vpg, of: Workload, writtenBytes: number): Promise<void> => {
    await sendTo(vra, [from], {
      ...{ volumeSizeBytes: diskSizeBytes, workload: of },
      writeCountMax: writtenBytes / of.writeSizeBytes,
    })
  }
  await write(vpg, filling, dataSizeBytes)
  await until('all of it is in the store', async () => {
    const { mirror } = await control.showVpg(name)
    return mirror.unsealedSizeBytes === 0 || undefined
  })
  const beforeChain = putsSoFar()
  await control.changeVpg(name, { standbyIntervalMillis })
  const chained = await until('the chain has a link', async () => {
    const { standby } = await control.showVpg(name)
    return standby?.state === 'waiting' ? standby.copies[0] : undefined
  })
  const wholeCount = putsSoFar() - beforeChain

  const durable = (await control.showVpg(name)).agents[0]?.durable ?? vpg.durable
  await write({ name, durable }, workload, sizeBytes)
  await control.tagCheckpoint({ vpg: name, tag: 'changed', checkpoint: 'latest' })
  const changed = await control.diff({ vpg: name, volume: volumeName, from: chained.checkpoint, to: 'changed' })
  const before = putsSoFar()
  const request: RecoveryRequest = {
    ...{ vpg: name, kind: 'test', checkpoint: 'changed', target: 'aws' },
    settings: { availabilityZone: `${sim.region}a`, machine: { start: 'nothing' } },
    commitPolicy: { kind: 'none', afterMillis: 60_000 },
  }
  const { id } = await control.startRecovery(request)
  await until('the recovery is ready', async () => (await control.recovery(id)).state === 'ready' || undefined)
  const putCount = putsSoFar() - before
  await control.decideRecovery(id, 'stop')
  await until('it is removed', async () => (await control.recovery(id)).state === 'removed' || undefined)
  return { wholeCount, putCount, changedBytes: changed.sizeBytes, touchedCount: blocksTouched(changed.extents) }
}

function blocksTouched(extents: readonly { readonly offsetBytes: number; readonly sizeBytes: number }[]): number {
  const touched = new Set<number>()
  for (const { offsetBytes, sizeBytes } of extents) {
    const end = Math.ceil((offsetBytes + sizeBytes) / ebsBlockSizeBytes)
    for (let block = Math.floor(offsetBytes / ebsBlockSizeBytes); block < end; block++) touched.add(block)
  }
  return touched.size
}

async function until<T>(what: string, look: () => Promise<T | undefined>): Promise<T> {
  const endMillis = performance.now() + waitMillisMax
  for (;;) {
    const found = await look()
    if (found !== undefined) return found
    if (performance.now() > endMillis) throw new Error(`after ${waitMillisMax / 1000} s still not: ${what}`)
    await delay(50)
  }
}
