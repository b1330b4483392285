import type { ImagePlan } from '../aging/service.ts'
import { Failure, failedWith, failureToRecord, type FailureRecord } from '../base/failure.ts'
import { formatCheckpointId, type VpgId } from '../base/ids.ts'
import { ebsBlockSizeBytes, snapshotsWrittenAtOnceMax } from '../base/limits.ts'
import type { SpoolableImage, VolumeRange } from '../image/image.ts'
import type { StandbyAdvance, StandbyContext } from '../recovery/target.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import { snapshotKeyOf } from '../timeline/definition.ts'
import { blocksByWindow } from './block-set.ts'
import {
  chainsMemoryOf,
  givenUp,
  linksOf,
  noChain,
  tracesOfChains,
  type ChainMemory,
  type ChainsMemory,
  type Link,
} from './chain-memory.ts'
import { errorNameOf } from './failures.ts'
import { Remembering, tokenOf } from './memory.ts'
import type { PutQuota } from './put-quota.ts'
import { removeTagged, Sightings } from './removal.ts'
import type { AwsConfig, KnownStandby } from './service.ts'
import { deleteSnapshot, isThere, makeSnapshot, type Parent, type SnapshotTools } from './snapshots.ts'
import { sideBySide } from './side-by-side.ts'
import { ownKeys, tagTable, type TagTable } from './tags.ts'

// Standby snapshot chains: of each volume a completed snapshot of some recent checkpoint S, so that a recovery to C puts only the blocks in diff(S, C),
// whichever of the two is the older.
//
//   link n (S, completed) <── parent ── link n+1 (C, pending) ── completed, remembered ─> link n is deleted: AWS keeps the blocks that n+1 reads
//
// A chain is never longer than the link that counts and the one that is being made. What has begun is remembered before the call that creates it
// (chain-memory.ts): a process that died is followed by one that asks with the same token, and goes on. A link that is given up leaves its id, or at
// least its tag, and goes with the next.
//
// S must be known, and what was written since must be, or there is no saying what changed: then the chain begins anew, with a whole snapshot.

export interface ChainTools extends SnapshotTools {
  readonly config: AwsConfig
  readonly putQuota: PutQuota
  readonly openImage: (plan: ImagePlan, signal: AbortSignal) => Promise<SpoolableImage>
  /** As changedExtents: what may differ of the volume between the two, whichever is the older; ascending, apart. */
  readonly changedRanges: (
    plans: { readonly from: ImagePlan; readonly to: ImagePlan; readonly volume: number },
    signal: AbortSignal,
  ) => Promise<readonly VolumeRange[]>
  /** Undefined where none are kept. */
  readonly standbyOf: (vpg: VpgId) => Promise<KnownStandby | undefined>
  readonly openPlanAt: (vpg: VpgId, checkpoint: Checkpoint) => Promise<ImagePlan>
  readonly release: (vpg: VpgId, plan: ImagePlan) => Promise<void>
  readonly told: (vpg: VpgId, sentence: string, failure: FailureRecord | undefined) => void
}

/** 'other-key': nothing of the key that is wanted can be put upon it. */
export type ChainOutlook = { readonly behindMillis: number; readonly putSizeBytesMax: number } | 'other-key'

interface Advancing {
  readonly context: StandbyContext
  readonly checkpoint: Checkpoint
  readonly held: Remembering<ChainsMemory>
  readonly signal: AbortSignal
}

export class Chains {
  readonly #tools: ChainTools
  /** Of removals that have not ended. */
  readonly #sightings = new Map<VpgId, Sightings>()

  constructor(tools: ChainTools) {
    this.#tools = tools
  }

  /** The link that something of this key may be put upon; undefined where there is none. */
  async newestLink(vpg: VpgId, volume: number, kmsKey: string | undefined): Promise<Parent | undefined> {
    const link = (await this.#linkAndCheckpoint(vpg, volume))?.link
    return link?.kmsKey === kmsKey ? link : undefined
  }

  async #linkAndCheckpoint(
    vpg: VpgId,
    volume: number,
  ): Promise<{ readonly link: Link; readonly held: Checkpoint } | undefined> {
    const standby = await this.#tools.standbyOf(vpg)
    if (standby === undefined || standby.state === 'ending') return undefined
    const link = linksOf(standby.memory).get(volume)
    const held = standby.checkpoints.find(({ ordinal }) => ordinal === link?.ordinal)
    return link === undefined || held === undefined ? undefined : { link, held }
  }

  /**
   * Of the link with this key how far it is from the checkpoint, in the VPG's time, and what would be put upon it at most; undefined where there is none, AWS
   * does not know it, or nobody can say what has changed.
   */
  async outlookOf(
    { vpg, volume, kmsKey }: { readonly vpg: VpgId; readonly volume: number; readonly kmsKey: string | undefined },
    checkpoint: Checkpoint,
    signal: AbortSignal,
  ): Promise<ChainOutlook | undefined> {
    const known = await this.#linkAndCheckpoint(vpg, volume)
    if (known === undefined) return undefined
    const { link, held } = known
    if (link.kmsKey !== kmsKey) return 'other-key'
    if (!(await isThere(link.snapshot, this.#tools.ec2, signal))) return undefined
    const ranges = await this.changes({ vpg, volume, parent: link, checkpoint }, signal)
    if (ranges === undefined) return undefined
    let blockCount = 0
    for await (const { blocks } of blocksByWindow(ranges)) blockCount += blocks.length
    const behindMillis = Math.abs(held.timestampMicros - checkpoint.timestampMicros) / 1000
    return { behindMillis, putSizeBytesMax: blockCount * ebsBlockSizeBytes }
  }

  /** What may differ between the link and the checkpoint; undefined where nobody can say. */
  async changes(
    between: {
      readonly vpg: VpgId
      readonly volume: number
      readonly parent: Parent
      readonly checkpoint: Checkpoint
    },
    signal: AbortSignal,
  ): Promise<AsyncIterable<VolumeRange> | undefined> {
    const { vpg, volume, parent, checkpoint } = between
    const standby = await this.#tools.standbyOf(vpg)
    const held = standby?.checkpoints.find(({ ordinal }) => ordinal === parent.ordinal)
    if (held === undefined || !includes(held, volume) || !includes(checkpoint, volume)) return undefined
    const plans: ImagePlan[] = []
    try {
      for (const each of [held, checkpoint]) plans.push(await this.#tools.openPlanAt(vpg, each))
      const [from, to] = plans
      const ranges = await this.#tools.changedRanges({ from: from!, to: to!, volume }, signal)
      return inOrder(ranges, checkpoint.volumes.find(({ number }) => number === volume)?.sizeBytes ?? 0)
    } catch (error) {
      if (failedWith(error, 'CHECKPOINT_MISSING')) return undefined
      throw error
    } finally {
      for (const plan of plans) await this.#tools.release(vpg, plan)
    }
  }

  /**
   * Each volume that the record's next checkpoint includes has a link of it on return, and the links before it are gone; so are those of volumes that the VPG
   * has no more.
   */
  async advance(context: StandbyContext): Promise<StandbyAdvance> {
    const { record, definition } = context
    const checkpoint = record.checkpoints.find(({ ordinal }) => ordinal === record.next)
    if (checkpoint === undefined) return { putSizeBytes: 0 }
    const remember = context.remember.bind(context)
    const held = new Remembering(chainsMemoryOf(record.memory), remember, this.#tools.clock)
    await this.#forgetRemoved({ context, checkpoint, held, signal: context.signal })
    let putBlockCount = 0
    const volumes = definition.volumes.filter(({ number }) => includes(checkpoint, number))
    const advanceAll = (): Promise<void> =>
      sideBySide(volumes, snapshotsWrittenAtOnceMax, context.signal, async ({ number }, signal) => {
        const count = await this.#advanceVolume({ context, checkpoint, held, signal }, number)
        putBlockCount += count // not in one: what others have added meanwhile would be lost
      })
    await this.#tools.putQuota.learnDuring(context.signal, advanceAll)
    return { putSizeBytes: putBlockCount * ebsBlockSizeBytes }
  }

  /** Blocks that were put for it. */
  async #advanceVolume(advancing: Advancing, volume: number): Promise<number> {
    const { context, checkpoint, held, signal } = advancing
    let putBlockCount = 0
    if (chainOf(held, volume).link?.ordinal !== checkpoint.ordinal) {
      const { making } = chainOf(held, volume)
      const isOther =
        making?.ordinal !== checkpoint.ordinal || making.kmsKey !== snapshotKeyOf(context.definition, volume)
      if (making !== undefined && isOther) await setChain(held, volume, givenUp(chainOf(held, volume)))
      const link = await this.#newLink(advancing, volume)
      putBlockCount = link.putBlockCount
      const { making: _, link: former, leaving = [], ...rest } = chainOf(held, volume)
      const passed = former === undefined ? leaving : [...leaving, former.snapshot]
      await setChain(held, volume, { ...rest, link, leaving: passed })
    }
    await this.#sweep(advancing, volume, signal)
    return putBlockCount
  }

  async #newLink({ context, checkpoint, held, signal }: Advancing, volume: number): Promise<Link> {
    const { definition, record } = context
    const { id: vpg } = definition
    const { link } = chainOf(held, volume)
    const kmsKey = snapshotKeyOf(definition, volume)
    const isKnown = record.checkpoints.some(({ ordinal }) => ordinal === link?.ordinal)
    const parent = isKnown && link?.kmsKey === kmsKey ? link : undefined
    const name = definition.volumes.find(({ number }) => number === volume)?.name ?? String(volume)
    const serial = chainOf(held, volume).making === undefined ? chainOf(held, volume).serial + 1 : undefined
    const plan = await this.#tools.openPlanAt(vpg, checkpoint)
    try {
      const image = await this.#tools.openImage(plan, signal)
      const sizeBytes = image.volumes.find(({ number }) => number === volume)?.sizeBytes ?? 0
      const snapshot = await makeSnapshot(
        {
          image,
          volume,
          sizeBytes,
          description: `standby of ${definition.name} ${name} as of checkpoint ${formatCheckpointId(checkpoint.ordinal)}`,
          tags: this.#tagsOf(vpg, volume, checkpoint, sizeBytes, `${definition.name} ${name} standby`),
          memory: () => chainOf(held, volume).making,
          remember: async making => {
            const before = chainOf(held, volume)
            if (before.making?.parent !== undefined && making.parent === undefined) this.#tellAnew(vpg, name)
            const begun = before.making === undefined && serial !== undefined ? { serial } : {}
            await setChain(held, volume, { ...before, ...begun, making: { ...making, ordinal: checkpoint.ordinal } })
          },
          token: attempt => tokenOf(record.id, volume, chainOf(held, volume).serial, attempt),
          kmsKey,
          chooseParent: () => Promise.resolve(parent),
          changes: each => this.changes({ vpg, volume, parent: each, checkpoint }, signal),
          onProgress: () => undefined,
          answerSignal: context.signal,
        },
        this.#tools,
        signal,
      )
      const { making } = chainOf(held, volume)
      return {
        snapshot,
        ordinal: checkpoint.ordinal,
        putBlockCount: making?.written?.blockCount ?? 0,
        isWhole: making?.parent === undefined,
        ...(kmsKey === undefined ? {} : { kmsKey }),
      }
    } finally {
      await this.#tools.release(vpg, plan)
    }
  }

  #tellAnew(vpg: VpgId, name: string): void {
    const sentence = `the standby chain of ${name} begins anew: its last link, or what was written since, is not known any more`
    this.#tools.told(vpg, sentence, failureToRecord(new Failure('CHECKPOINT_MISSING', sentence)))
  }

  /** Chains of volumes that the VPG has no more. */
  async #forgetRemoved({ context, held, signal }: Advancing): Promise<void> {
    const { volumes } = context.definition
    for (const key of Object.keys(held.now.volumes)) {
      const volume = Number(key)
      if (volumes.some(({ number }) => number === volume)) continue
      const { link, leaving = [], ...rest } = givenUp(chainOf(held, volume))
      const passed = link === undefined ? leaving : [...leaving, link.snapshot]
      await setChain(held, volume, { ...rest, leaving: passed })
      await this.#sweep({ context, held }, volume, signal)
      const { [key]: left, ...others } = held.now.volumes
      if ((left?.leaving ?? []).length === 0 && left?.isUnnoted !== true)
        await held.set({ ...held.now, volumes: others })
    }
  }

  /**
   * What the chain has left behind goes: what is remembered, and what bears its tag, was given up before its id was known, and is listed by now. Snapshots of
   * later checkpoints than the link's are another appliance's, which has taken the VPG over.
   */
  async #sweep(
    { context, held }: Pick<Advancing, 'context' | 'held'>,
    volume: number,
    signal: AbortSignal,
  ): Promise<void> {
    const { ec2 } = this.#tools
    const { link, making, leaving = [] } = chainOf(held, volume)
    const tags = { [ownKeys.standby]: context.definition.id, [ownKeys.volume]: String(volume) }
    const own = new Set([link?.snapshot, making?.snapshot])
    const strays = (await ec2.snapshots({ tags }, signal))
      .filter(({ Tags }) => Number(tagTable(Tags)[ownKeys.checkpoint]) <= (link?.ordinal ?? Infinity))
      .flatMap(({ SnapshotId }) => (SnapshotId === undefined || own.has(SnapshotId) ? [] : [SnapshotId]))
    const kept: string[] = []
    for (const snapshot of new Set([...leaving, ...strays])) {
      try {
        await deleteSnapshot(snapshot, ec2, signal)
      } catch (error) {
        if (errorNameOf(error) !== 'InvalidSnapshot.InUse') throw error // somebody has made an image of it
        if (leaving.includes(snapshot)) kept.push(snapshot)
      }
    }
    if (leaving.length === kept.length) return
    const { leaving: _, ...rest } = chainOf(held, volume)
    await setChain(held, volume, kept.length === 0 ? rest : { ...rest, leaving: kept })
  }

  /** Nothing of the VPG's chains is left on return. */
  async removeAll({ record, definition, signal }: StandbyContext): Promise<void> {
    const { ec2, clock } = this.#tools
    const sightings = this.#sightings.get(definition.id) ?? new Sightings()
    this.#sightings.set(definition.id, sightings)
    await removeTagged(
      { [ownKeys.standby]: definition.id },
      tracesOfChains(record.memory, clock),
      sightings,
      { what: `all standby snapshots of ${definition.name} are gone` },
      ec2,
      clock,
      signal,
    )
    this.#sightings.delete(definition.id)
  }

  #tagsOf(vpg: VpgId, volume: number, checkpoint: Checkpoint, sizeBytes: number, name: string): TagTable {
    const { config } = this.#tools
    return {
      [config.tagKeys.ebs]: config.siteId,
      [ownKeys.standby]: vpg,
      [ownKeys.volume]: String(volume),
      [ownKeys.checkpoint]: String(checkpoint.ordinal),
      [ownKeys.sizeBytes]: String(sizeBytes),
      Name: name,
    }
  }
}

function chainOf(held: Remembering<ChainsMemory>, volume: number): ChainMemory {
  return held.now.volumes[volume] ?? noChain
}

async function setChain(held: Remembering<ChainsMemory>, volume: number, chain: ChainMemory): Promise<void> {
  await held.set({ ...held.now, volumes: { ...held.now.volumes, [volume]: chain } })
}

/** Up to the volume's end as of the checkpoint: it may have been larger. */
async function* inOrder(ranges: readonly VolumeRange[], sizeBytes: number): AsyncGenerator<VolumeRange> {
  for (const { startBytes, endBytes } of ranges)
    if (startBytes < sizeBytes) yield { startBytes, endBytes: Math.min(endBytes, sizeBytes) }
}

function includes({ volumes }: Checkpoint, volume: number): boolean {
  return volumes.some(({ number, included }) => number === volume && included)
}
