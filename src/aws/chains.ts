import type { ImagePlan } from '../aging/service.ts'
import { Failure, failedWith, failureToRecord, type FailureRecord } from '../base/failure.ts'
import { formatCheckpointId, ordinal, type Ordinal, type VpgId } from '../base/ids.ts'
import { snapshotsWrittenAtOnceMax } from '../base/limits.ts'
import { Permits } from '../base/permits.ts'
import type { Image, VolumeRange } from '../image/image.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { VpgDefinition } from '../timeline/definition.ts'
import type { Snapshot } from './ec2-calls.ts'
import { tokenOf, type SnapshotMemory } from './memory.ts'
import { noTraces, removeTagged } from './removal.ts'
import type { AwsConfig, StandbyResult } from './service.ts'
import { deleteSnapshot, makeSnapshot, type Parent, type SnapshotTools } from './snapshots.ts'
import { ownKeys, tagTable, type TagTable } from './tags.ts'

// Standby snapshot chains: of each volume a completed snapshot of some recent checkpoint S, so that a recovery to C puts only the blocks in diff(S, C),
// whichever of the two is the older.
//
//   link n (S, completed) <── parent ── link n+1 (C, pending) ── completed ─> link n is deleted: AWS keeps the blocks that n+1 reads
//
// A chain is remembered nowhere but in the tags of its snapshots: what is there is found by them, at any time and by any process. A link that is pending
// when nobody writes it is what a process left that died: its token follows from the checkpoint, so that the same link is gone on with, or, where
// the chain moves on to a newer checkpoint, deleted.
//
// S must be known, and what was written since must be, or there is no saying what changed: then the chain begins anew, with a whole snapshot.

export interface ChainTools extends SnapshotTools {
  readonly config: AwsConfig
  readonly openImage: (plan: ImagePlan, signal: AbortSignal) => Promise<Image>
  /** As changedExtents: what may differ of the volume between the two, whichever is the older; ascending, apart. */
  readonly changedRanges: (
    plans: { readonly from: ImagePlan; readonly to: ImagePlan; readonly volume: number },
    signal: AbortSignal,
  ) => Promise<readonly VolumeRange[]>
  /** Undefined where it is not retained (any more). */
  readonly checkpointAt: (vpg: VpgId, at: Ordinal) => Promise<Checkpoint | undefined>
  readonly openPlanAt: (vpg: VpgId, checkpoint: Checkpoint) => Promise<ImagePlan>
  readonly release: (vpg: VpgId, plan: ImagePlan) => Promise<void>
  readonly told: (vpg: VpgId, sentence: string, failure: FailureRecord | undefined) => void
}

interface Link extends Parent {
  readonly isCompleted: boolean
}

export class Chains {
  readonly #tools: ChainTools

  constructor(tools: ChainTools) {
    this.#tools = tools
  }

  /** Of a completed link; undefined where there is none. */
  async newestLink(vpg: VpgId, volume: number, signal: AbortSignal): Promise<Parent | undefined> {
    const links = await this.#links(vpg, volume, signal)
    return links.filter(({ isCompleted }) => isCompleted).at(-1)
  }

  /** How far the newest link is from the checkpoint, in the VPG's time. */
  async ageOf(
    vpg: VpgId,
    volume: number,
    checkpoint: Checkpoint,
    signal: AbortSignal,
  ): Promise<{ readonly behindMillis: number } | undefined> {
    const link = await this.newestLink(vpg, volume, signal)
    const held = link === undefined ? undefined : await this.#tools.checkpointAt(vpg, ordinal(link.ordinal))
    if (held === undefined) return undefined
    return { behindMillis: Math.abs(held.timestampMicros - checkpoint.timestampMicros) / 1000 }
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
    const held = await this.#tools.checkpointAt(vpg, ordinal(parent.ordinal))
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

  /** Each volume that the checkpoint includes has a completed link of it on return, and no other. */
  async advance(definition: VpgDefinition, checkpoint: Checkpoint, signal: AbortSignal): Promise<StandbyResult> {
    const permits = new Permits(snapshotsWrittenAtOnceMax)
    const failing = new AbortController()
    const either = AbortSignal.any([signal, failing.signal])
    const volumes = definition.volumes.filter(({ number }) => includes(checkpoint, number))
    const advancing = volumes.map(({ number }) =>
      permits.with(async () => {
        try {
          return await this.#advanceVolume(definition, number, checkpoint, either)
        } catch (error) {
          failing.abort(error)
          throw error
        }
      }),
    )
    const settled = await Promise.allSettled(advancing)
    either.throwIfAborted()
    return { volumes: settled.flatMap(result => (result.status === 'fulfilled' ? [result.value] : [])) }
  }

  async #advanceVolume(
    definition: VpgDefinition,
    volume: number,
    checkpoint: Checkpoint,
    signal: AbortSignal,
  ): Promise<StandbyResult['volumes'][number]> {
    const { id: vpg } = definition
    const { ec2 } = this.#tools
    const before = await this.#links(vpg, volume, signal)
    const completed = before.filter(({ isCompleted }) => isCompleted)
    const done = completed.find(link => link.ordinal === checkpoint.ordinal)
    const made = done ?? (await this.#newLink(definition, volume, checkpoint, completed.at(-1), signal))
    for (const { snapshot } of await this.#links(vpg, volume, signal))
      if (snapshot !== made.snapshot) await deleteSnapshot(snapshot, ec2, signal)
    const { putBlockCount, isWhole } = 'putBlockCount' in made ? made : { putBlockCount: 0, isWhole: false }
    return { volume, snapshot: made.snapshot, putBlockCount, isWhole }
  }

  async #newLink(
    definition: VpgDefinition,
    volume: number,
    checkpoint: Checkpoint,
    newest: Link | undefined,
    signal: AbortSignal,
  ): Promise<{ readonly snapshot: string; readonly putBlockCount: number; readonly isWhole: boolean }> {
    const { id: vpg } = definition
    const plan = await this.#tools.openPlanAt(vpg, checkpoint)
    // The next attempt's number is taken from nowhere but here: a token of a link that was deleted names nothing any more, and is passed over.
    let memory: SnapshotMemory | undefined
    try {
      const image = await this.#tools.openImage(plan, signal)
      const sizeBytes = image.volumes.find(({ number }) => number === volume)?.sizeBytes ?? 0
      const name = definition.volumes.find(({ number }) => number === volume)?.name ?? String(volume)
      const snapshot = await makeSnapshot(
        {
          image,
          volume,
          sizeBytes,
          description: `standby of ${definition.name} ${name} as of checkpoint ${formatCheckpointId(checkpoint.ordinal)}`,
          tags: this.#tagsOf(vpg, volume, checkpoint, sizeBytes, `${definition.name} ${name} standby`),
          memory: () => memory,
          remember: async now => {
            if (memory?.parent !== undefined && now.parent === undefined) this.#tellAnew(vpg, name)
            memory = now
          },
          token: attempt => tokenOf(vpg, volume, 'standby', checkpoint.ordinal, newest?.snapshot ?? '', attempt),
          chooseParent: () => Promise.resolve(newest),
          changes: parent => this.changes({ vpg, volume, parent, checkpoint }, signal),
          onProgress: () => undefined,
        },
        this.#tools,
        signal,
      )
      const now = memory as SnapshotMemory | undefined
      return { snapshot, putBlockCount: now?.written?.blockCount ?? 0, isWhole: now?.parent === undefined }
    } finally {
      await this.#tools.release(vpg, plan)
    }
  }

  #tellAnew(vpg: VpgId, name: string): void {
    const sentence = `the standby chain of ${name} begins anew: its last link, or what was written since, is not known any more`
    this.#tools.told(vpg, sentence, failureToRecord(new Failure('CHECKPOINT_MISSING', sentence)))
  }

  async removeAll(vpg: VpgId, signal: AbortSignal): Promise<void> {
    const { ec2, clock } = this.#tools
    await removeTagged({ [ownKeys.standby]: vpg }, noTraces, ec2, clock, signal)
  }

  /** Oldest checkpoint first; those that failed are not among them, and go. */
  async #links(vpg: VpgId, volume: number, signal: AbortSignal): Promise<Link[]> {
    const tags = { [ownKeys.standby]: vpg, [ownKeys.volume]: String(volume) }
    const found = await this.#tools.ec2.snapshots({ tags }, signal)
    const failed = found.filter(({ State }) => State === 'error')
    for (const { SnapshotId = '' } of failed) await deleteSnapshot(SnapshotId, this.#tools.ec2, signal)
    return found
      .filter(({ State }) => State !== 'error')
      .map(linkOf)
      .sort((a, b) => a.ordinal - b.ordinal)
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

function linkOf({ SnapshotId = '', State, Tags }: Snapshot): Link {
  const held = Number(tagTable(Tags)[ownKeys.checkpoint])
  return { snapshot: SnapshotId, ordinal: Number.isSafeInteger(held) ? held : 0, isCompleted: State === 'completed' }
}

/** Up to the volume's end as of the checkpoint: it may have been larger. */
async function* inOrder(ranges: readonly VolumeRange[], sizeBytes: number): AsyncGenerator<VolumeRange> {
  for (const { startBytes, endBytes } of ranges)
    if (startBytes < sizeBytes) yield { startBytes, endBytes: Math.min(endBytes, sizeBytes) }
}

function includes({ volumes }: Checkpoint, volume: number): boolean {
  return volumes.some(({ number, included }) => number === volume && included)
}
