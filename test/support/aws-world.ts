import type { ImagePlan } from '../../src/aging/service.ts'
import { Attempts } from '../../src/aws/attempts.ts'
import { copiesOf } from '../../src/aws/chain-memory.ts'
import { Chains } from '../../src/aws/chains.ts'
import { newEbsClient, newEc2Client, newQuotaClient } from '../../src/aws/clients.ts'
import { EbsCalls } from '../../src/aws/ebs-calls.ts'
import { Ec2Calls } from '../../src/aws/ec2-calls.ts'
import { Pace, PutPaces } from '../../src/aws/pace.ts'
import { putHere } from '../../src/aws/putters.ts'
import { AwsRecoveries, type RecoveryTools } from '../../src/aws/recovery.ts'
import { Standbys } from '../../src/recovery/standby.ts'
import type { TargetContext } from '../../src/recovery/target.ts'
import type { AwsConfig } from '../../src/aws/service.ts'
import { ownerKeys, ownKeys } from '../../src/aws/tags.ts'
import { memoryOf } from '../../src/aws/memory.ts'
import { PutQuota } from '../../src/aws/put-quota.ts'
import { QuotaCalls } from '../../src/aws/quota-calls.ts'
import { Windows } from '../../src/aws/windows.ts'
import { onAbort } from '../../src/base/abort.ts'
import type { Clock } from '../../src/base/clock.ts'
import { Failure } from '../../src/base/failure.ts'
import { ordinal, vpgId } from '../../src/base/ids.ts'
import { Permits } from '../../src/base/permits.ts'
import { isZero } from '../../src/codec/zeros.ts'
import { SpoolRoom, type PieceSink, type SpoolableImage, type VolumeRange } from '../../src/image/image.ts'
import { newSpoolRoom } from '../../src/image/service.ts'
import type { Checkpoint } from '../../src/timeline/checkpoint.ts'
import type { VpgDefinition } from '../../src/timeline/definition.ts'
import type { Json, RecoveryRecord } from '../../src/timeline/recovery.ts'
import type { StandbyRecord } from '../../src/timeline/standby.ts'
import { AwsSim, type AwsSimOptions } from './aws-sim/aws-sim.ts'
import { seeded } from './mirror-history.ts'

process.env['AWS_ACCESS_KEY_ID'] = 'test'
process.env['AWS_SECRET_ACCESS_KEY'] = 'secret'

/** How many times as fast waits are over. */
const hurry = 1000

/**
 * Time passes only while somebody waits for it, as much as he waits, and waits of minutes are over at once, in their order: what a busy machine takes for a
 * request is no time at all.
 */
class StillClock implements Clock {
  #nowMillis = 1_000_000

  timestampMicros(): number {
    return Math.floor((performance.timeOrigin + this.#nowMillis) * 1000)
  }

  monotonicMillis(): number {
    return this.#nowMillis
  }

  async sleep(delayMillis: number, signal: AbortSignal): Promise<void> {
    const endMillis = this.#nowMillis + delayMillis
    await new Promise<void>((resolve, reject) => {
      signal.throwIfAborted()
      const timer = setTimeout(() => {
        forget()
        resolve()
      }, delayMillis / hurry)
      const forget = onAbort(signal, () => {
        clearTimeout(timer)
        reject(signal.reason as Error)
      })
    })
    this.#nowMillis = Math.max(this.#nowMillis, endMillis)
  }

  /** Of requests that are answered nobody gives one up. */
  after(): () => void {
    return () => undefined
  }
}

const block = 524_288
export const modelVpg = vpgId('0'.repeat(31) + '1')

/** Volumes of a VPG as plain arrays, a copy for every checkpoint; as an image, and as what has changed between two. */
export class Model {
  readonly checkpoints: Checkpoint[] = []
  readonly contents = new Map<number, Map<number, Buffer>>()
  /** Checkpoints that exist; others have been dropped. */
  readonly retained = new Set<number>()
  /** What changedRanges names beside what differs, as a superset may. */
  namedToo: VolumeRange[] = []
  readonly #now: Map<number, Buffer>
  readonly #random: (below: number) => number

  constructor(sizesBytes: Readonly<Record<number, number>>, seed = 1) {
    this.#random = seeded(seed)
    this.#now = new Map(Object.entries(sizesBytes).map(([number, size]) => [Number(number), Buffer.alloc(size)]))
  }

  write(volume: number, offsetBytes: number, bytes: Uint8Array): void {
    this.#now.get(volume)!.set(bytes, offsetBytes)
  }

  /** Some data somewhere, or zeros. */
  writeRandomly(volume: number, isZero = this.#random(5) === 0): void {
    const bytes = this.#now.get(volume)!
    const length = 512 * (1 + this.#random(200))
    const at = 512 * this.#random(Math.max(1, Math.floor((bytes.length - length) / 512)))
    bytes.fill(isZero ? 0 : 1 + this.#random(255), at, Math.min(bytes.length, at + length))
  }

  checkpoint(): Checkpoint {
    const count = this.checkpoints.length + 1
    const checkpoint: Checkpoint = {
      ordinal: ordinal(count * 10),
      timestampMicros: 1_790_000_000_000_000 + count * 60_000_000,
      historyMillis: count * 60_000,
      vector: [],
      volumes: [...this.#now].map(([number, bytes]) => ({ number, sizeBytes: bytes.length, included: true })),
    }
    this.checkpoints.push(checkpoint)
    this.retained.add(checkpoint.ordinal)
    this.contents.set(
      checkpoint.ordinal,
      new Map([...this.#now].map(([number, bytes]) => [number, Buffer.from(bytes)])),
    )
    return checkpoint
  }

  bytesAt(checkpoint: Checkpoint, volume: number): Buffer {
    return this.contents.get(checkpoint.ordinal)!.get(volume)!
  }

  plan(checkpoint: Checkpoint): ImagePlan {
    return { pinId: 'model', checkpoint } as ImagePlan
  }

  /** Data in pieces of 4 KiB, so that an extent says little about the blocks of EBS. */
  image(checkpoint: Checkpoint): SpoolableImage {
    const bytesOf = (volume: number): Buffer => this.bytesAt(checkpoint, volume)
    async function* extents(volume: number): AsyncGenerator<VolumeRange> {
      const bytes = bytesOf(volume)
      for (let at = 0; at < bytes.length; at += 4096) {
        const endBytes = Math.min(bytes.length, at + 4096)
        if (!isZero(bytes.subarray(at, endBytes))) yield { startBytes: at, endBytes }
      }
    }
    return {
      checkpoint,
      volumes: checkpoint.volumes,
      read: (volume, offsetBytes, target) => {
        const bytes = bytesOf(volume)
        if (offsetBytes + target.length > bytes.length)
          return Promise.reject(new Failure('OUT_OF_BOUNDS', 'past the end'))
        target.set(bytes.subarray(offsetBytes, offsetBytes + target.length))
        return Promise.resolve()
      },
      scatter: async (volume, range, sink: PieceSink) => {
        const found: VolumeRange[] = []
        for await (const each of extents(volume)) found.push(each)
        for (const { startBytes, endBytes } of found.reverse()) {
          const [from, to] = [Math.max(startBytes, range.startBytes), Math.min(endBytes, range.endBytes)]
          if (from < to) sink.piece(from, bytesOf(volume).subarray(from, to))
        }
      },
      nextData: () => Promise.reject(new Error('nobody asks for it')),
      runAt: () => Promise.reject(new Error('nobody asks for it')),
      prefetch: () => Promise.resolve(),
      extents,
      unfoldedSizeBytes: 0,
      wastedSizeBytes: 0,
      fillSpool: () => Promise.reject(new Error('nobody asks for it')),
      useSpool: () => undefined,
    }
  }

  changedRanges(from: ImagePlan, to: ImagePlan, volume: number): VolumeRange[] {
    const [a, b] = [this.bytesAt(from.checkpoint, volume), this.bytesAt(to.checkpoint, volume)]
    const ranges: VolumeRange[] = []
    for (let at = 0; at < b.length; at += 4096) {
      const range = { startBytes: at, endBytes: Math.min(b.length, at + 4096) }
      const isNamed = this.namedToo.some(({ startBytes, endBytes }) => startBytes <= at && at < endBytes)
      if (isNamed || !a.subarray(at, range.endBytes).equals(b.subarray(at, range.endBytes))) ranges.push(range)
    }
    return ranges
  }

  definition(): VpgDefinition {
    return {
      id: modelVpg,
      name: 'shop',
      incarnation: 1,
      volumes: [...this.#now].map(([number, bytes]) => ({
        number,
        name: `disk${number}`,
        sizeBytes: bytes.length,
        stream: 1,
      })),
      removedVolumes: [],
      streams: [],
      historyMillis: 1,
      checkpointIntervalMillis: 1,
      syncRateBytesPerSecond: 0,
      paused: false,
      journalWarnSizeBytes: 0,
      journalLimitSizeBytes: 0,
      createdAtMicros: 0,
    }
  }
}

/** A boot sector with a partition table. */
export function bootSector(): Buffer {
  const sector = Buffer.alloc(512, 0x90)
  sector.fill(0, 446)
  sector[446] = 0x80
  sector[450] = 0x83
  sector.writeUInt16LE(0xaa55, 510)
  return sector
}

export interface StandbyProcess {
  readonly engine: Standbys
  /** Read anew at every step. */
  readonly definition: { -readonly [K in keyof VpgDefinition]: VpgDefinition[K] }
  /** Nothing of it goes on, and nothing of it is remembered any more, on return. */
  kill(): Promise<void>
}

/** The target's own parts beside a simulated AWS, in one thread; each instance of `tools` is as a process of its own. */
export class AwsWorld {
  readonly sim: AwsSim
  readonly model: Model
  readonly clock: StillClock
  readonly told: string[] = []
  readonly advances: { readonly ordinal: number; readonly putSizeBytes: number }[] = []
  /** As the store has it: it outlives processes. */
  standby: StandbyRecord | undefined
  /** Of puts of that record, from 1: whether the process dies at it. */
  fateOfPut: (number: number) => 'works' | 'dies-before' | 'dies-after' = () => 'works'
  putCount = 0
  /** Called when it does. */
  diedAtPut: () => void = () => undefined

  private constructor(sim: AwsSim, model: Model, clock: StillClock) {
    this.sim = sim
    this.model = model
    this.clock = clock
  }

  static async start(model: Model, options: Partial<AwsSimOptions> = {}): Promise<AwsWorld> {
    const clock = new StillClock()
    const nowMillis = (): number => clock.monotonicMillis()
    const sim = await AwsSim.start({ nowMillis, completionMillis: 800, settleMillis: 400, ...options })
    return new AwsWorld(sim, model, clock)
  }

  config(changes: Partial<AwsConfig> = {}): AwsConfig {
    return {
      region: this.sim.region,
      endpoints: { ebs: this.sim.endpoint, ec2: this.sim.endpoint, quotas: this.sim.endpoint },
      siteId: 'site-7',
      tagKeys: ownerKeys,
      putsPerSecondMax: 1000,
      putsAtOnceMax: 8,
      putThreads: 1,
      requestTimeoutMillis: 100_000,
      ...changes,
    }
  }

  tools(changes: Partial<AwsConfig> = {}): RecoveryTools & { readonly paces: PutPaces; close(): Promise<void> } {
    const config = this.config(changes)
    const { clock, model } = this
    const attempts = new Attempts(config.requestTimeoutMillis, clock)
    const ebsClient = newEbsClient({ ...config, requestTimeoutMillis: 60_000 }, 16)
    const ec2Client = newEc2Client({ ...config, requestTimeoutMillis: 60_000 })
    const quotaClient = newQuotaClient({ ...config, requestTimeoutMillis: 60_000 })
    const windows = new Windows()
    const putters = putHere(config, windows.memory, clock)
    const quotas = new QuotaCalls(quotaClient, attempts)
    const paces = new PutPaces(config.putsPerSecondMax, clock)
    const openImage = (plan: ImagePlan): Promise<SpoolableImage> => Promise.resolve(model.image(plan.checkpoint))
    const snapshotTools = {
      clock,
      attempts: new Attempts(config.requestTimeoutMillis, clock),
      putters,
      windows,
      spool: { fileName: '/nowhere', failed: () => undefined, room: SpoolRoom.open(newSpoolRoom(), 'aws') },
      spoolPermit: new Permits(1),
      accountPace: paces.account,
      paces,
      newPace: () => new Pace(config.putsPerSecondMax, clock),
      ebs: new EbsCalls(ebsClient, attempts),
      ec2: new Ec2Calls(ec2Client, attempts),
      quotas,
      putQuota: new PutQuota(quotas, paces, clock),
    }
    const chains = new Chains({
      ...snapshotTools,
      config,
      openImage,
      changedRanges: ({ from, to, volume }) => Promise.resolve(model.changedRanges(from, to, volume)),
      standbyOf: () => Promise.resolve(this.standby),
      openPlanAt: (_, checkpoint) =>
        model.retained.has(checkpoint.ordinal)
          ? Promise.resolve(model.plan(checkpoint))
          : Promise.reject(new Failure('CHECKPOINT_MISSING', 'it was dropped')),
      release: () => Promise.resolve(),
      told: (_, sentence) => void this.told.push(sentence),
    })
    const close = async (): Promise<void> => {
      await putters.close()
      ebsClient.destroy()
      ec2Client.destroy()
      quotaClient?.destroy()
    }
    return { ...snapshotTools, config, chains, openImage, close }
  }

  /** Standby chains as a process keeps them: what it puts into the store outlives it, until it is dead. */
  standbys(tools: RecoveryTools, changes: Partial<VpgDefinition> = {}): StandbyProcess {
    const { clock, model } = this
    const definition = { ...model.definition(), standbyIntervalMillis: 3_600_000, ...changes }
    let isDead = false
    const engine = new Standbys({
      aging: {
        putStandby: ({ standby }) => {
          const dead = (): Promise<never> => Promise.reject(new Failure('CLOSING', 'this process is dead'))
          if (isDead) return dead()
          const fate = this.fateOfPut(++this.putCount)
          if (fate !== 'works') {
            isDead = true
            this.diedAtPut()
          }
          if (fate === 'dies-before') return dead()
          const missing = standby?.checkpoints.filter(each => !model.retained.has(each.ordinal)) ?? []
          if (missing.some(({ ordinal }) => this.standby?.checkpoints.every(each => each.ordinal !== ordinal) ?? true))
            return Promise.reject(new Failure('CHECKPOINT_MISSING', 'it was dropped'))
          this.standby = standby === undefined ? undefined : (JSON.parse(JSON.stringify(standby)) as StandbyRecord)
          return fate === 'dies-after' ? dead() : Promise.resolve()
        },
      },
      clock,
      target: {
        advance: context => tools.chains.advance(context),
        end: context => tools.chains.removeAll(context),
        copies: ({ memory }) => copiesOf(memory),
      },
      newestOffloaded: () => Promise.resolve(model.checkpoints.findLast(each => model.retained.has(each.ordinal))),
      events: {
        standbyAdvanced: (_, { ordinal, putSizeBytes }) => void this.advances.push({ ordinal, putSizeBytes }),
        standbyFailed: (_, failure) => void this.told.push(failure.message),
        standbyEnded: () => undefined,
      },
    })
    engine.serve(modelVpg, this.standby, () => definition)
    const kill = async (): Promise<void> => {
      isDead = true
      await engine.close()
    }
    return { engine, definition, kill }
  }

  /** Until it holds; time goes on meanwhile. */
  async until(condition: () => boolean, signal = new AbortController().signal): Promise<void> {
    for (let looks = 0; !condition(); looks++) {
      if (looks > 20_000) throw new Error(`waited in vain; told: ${this.told.join('; ')}`)
      await this.clock.sleep(200, signal)
    }
  }

  /** One machine has all volumes, unless it is said whose they are. */
  record(
    checkpoint: Checkpoint,
    settings: Json,
    id = 'r-0123456789ab',
    vms: RecoveryRecord['vms'] = [{ name: 'web', volumes: checkpoint.volumes.map(({ number }) => number) }],
  ): RecoveryRecord {
    return {
      formatVersion: 1,
      id,
      incarnation: 1,
      handOver: 'none',
      kind: 'failover',
      checkpoint,
      vms,
      target: { kind: 'aws', settings },
      commitPolicy: { kind: 'none', afterMillis: 0 },
      state: 'preparing',
      memory: null,
      createdAtMicros: 0,
      readyAtMicros: undefined,
      endedAtMicros: undefined,
      failure: undefined,
    }
  }

  /** What the engine would give: the memory outlives it. */
  context(held: { record: RecoveryRecord }, signal: AbortSignal): TargetContext {
    const { model } = this
    return {
      get record() {
        return held.record
      },
      definition: model.definition(),
      remember: memory => {
        held.record = { ...held.record, memory: JSON.parse(JSON.stringify(memory)) as Json }
        return Promise.resolve()
      },
      openPlan: () => Promise.resolve(model.plan(held.record.checkpoint!)),
      release: () => Promise.resolve(),
      progress: () => undefined,
      signal,
    }
  }

  recoveries(tools: RecoveryTools): AwsRecoveries {
    return new AwsRecoveries(tools)
  }

  /** The volume's first bytes, as many as the model's has. */
  volumeBytes(id: string, sizeBytes: number): Buffer {
    return this.sim.account
      .contentOf(this.sim.account.volumes.get(id)!.blocks, sizeBytes + block)
      .subarray(0, sizeBytes)
  }

  snapshotBytes(id: string, sizeBytes: number): Buffer {
    const { account } = this.sim
    return account.contentOf(account.blocksOf(account.snapshots.get(id)!), sizeBytes + block).subarray(0, sizeBytes)
  }

  async close(): Promise<void> {
    await this.sim.close()
  }
}

/** Two volumes, the first of which boots. */
export function bootableModel(): Model {
  const model = new Model({ 1: 2 ** 20 + 512, 2: 2 ** 19 })
  for (let count = 0; count < 12; count++) model.writeRandomly(1 + (count % 2), false)
  model.write(1, 0, bootSector())
  return model
}

/** What is wrong with what was recovered: nothing. */
export function faultsOf(world: AwsWorld, record: RecoveryRecord): string[] {
  const memory = memoryOf(record.memory)
  const { account } = world.sim
  const faults: string[] = []
  for (const { number, sizeBytes } of record.checkpoint!.volumes) {
    const id = memory.volumes[number]?.volume ?? ''
    const volume = account.volumes.get(id)
    if (volume === undefined) faults.push(`volume ${number} is not there`)
    else {
      if (!world.volumeBytes(id, sizeBytes).equals(world.model.bytesAt(record.checkpoint!, number)))
        faults.push(`volume ${number} has other bytes`)
      if (volume.tags.get('ZERTO_EBS_RESOURCE') !== 'site-7') faults.push(`volume ${number} lacks the owner's tag`)
      if (volume.tags.get(ownKeys.sizeBytes) !== String(sizeBytes)) faults.push(`volume ${number} lacks its size`)
    }
  }
  const left = account.tagged(ownKeys.recovery, record.id)
  const kinds = left.map(id => id.split('-')[0]).sort()
  const made = record.vms.map(({ name }) => memory.machines[name])
  const expected = [
    ...made.flatMap(machine => (machine?.image === undefined ? [] : ['ami'])),
    ...made.map(() => 'i'),
    ...record.checkpoint!.volumes.flatMap(() => ['snap', 'vol']),
  ].sort()
  if (kinds.join() !== expected.join()) faults.push(`there is ${kinds.join()}, expected ${expected.join()}`)
  return faults
}
