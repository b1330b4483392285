import { regionsPerCommitMax, regionSizeBytes } from '../base/limits.ts'
import { defaultFoldLimits, fold, rewriteRegion } from '../mirror/mirror.ts'
import { openSegment } from '../segment/segment.ts'
import { lastDeltaEnd, planFold, type FoldPlan } from '../timeline/fold-plan.ts'
import { planRegionRewrites } from '../timeline/region-plan.ts'
import { retention, withdrawnFrom } from '../timeline/retention.ts'
import type { DeltaSpan, RegionVersion } from '../timeline/state.ts'
import type { VpgContents } from '../manifest/manifest.ts'
import { patientStore } from './patient-store.ts'
import type { AgingTools } from './tools.ts'
import type { VpgWriter } from './vpg-writer.ts'

// The two times that data is written again after its segment. Both work beside the VPG's turn, for minutes if need be, and
// commit in a turn of their own; objects of a merge that then is not committed are removed by the merge that made them.

/** Folds what waits into a delta, if a fold is due. */
export async function foldWaiting(tools: AgingTools, writer: VpgWriter): Promise<boolean> {
  const plan = planOf(tools, writer.contents)
  if (plan === undefined) return false
  const { clock, notify } = tools
  const startMillis = clock.monotonicMillis()
  return await withNewObjects(tools, writer, 'delta', async newKey => {
    const before = writer.contents.state
    const store = patientStore(tools.store, writer.patience)
    const result = await fold({
      store,
      newKey,
      workspace: tools.workspace,
      yieldNow: tools.turns.yieldNow,
      signal: tools.signal,
      vpg: writer.vpg,
      epoch: before.epoch,
      fromOrdinal: plan.fromOrdinal,
      fromVector: plan.fromVector,
      checkpoints: plan.checkpoints,
      sources: plan.segments.map(segment => openSegment(store, segment)),
      holes: before.holes,
      disk: tools.disk,
      scratchDirectory: tools.config.scratchDirectory,
      limits: defaultFoldLimits,
    })
    const page = writer.commits.checkpointPage(plan.checkpoints)
    await writer.createObject(page)
    const delta: DeltaSpan = {
      kind: 'delta',
      fromOrdinal: plan.fromOrdinal,
      toOrdinal: plan.toOrdinal,
      packs: result.packs,
      checkpoints: { key: page.key, sizeBytes: page.bytes.length },
      checkpointCount: plan.checkpoints.length,
      rawSizeBytes: result.rawSizeBytes,
    }
    if (!(await commitFold(writer, plan, delta))) {
      await tools.store.remove(page.key, tools.signal)
      return false
    }
    const { state } = writer.contents
    notify('folded', {
      vpg: writer.vpg,
      rawSizeBytes: result.rawSizeBytes,
      storedSizeBytes: result.storedSizeBytes,
      objectCount: result.packs.length,
      segmentsThroughCommit: (state.segments[0]?.commitNumber ?? state.commitNumber) - 1,
      millis: clock.monotonicMillis() - startMillis,
    })
    return true
  })
}

function planOf(tools: AgingTools, { state, segmentsFrom, recent }: VpgContents): FoldPlan | undefined {
  return planFold(state, segmentsFrom, recent, tools.config)
}

/** False when what the fold was made for is not so any more: a checkpoint that it does not hold is retained, or a hole came. */
async function commitFold(writer: VpgWriter, plan: FoldPlan, delta: DeltaSpan): Promise<boolean> {
  return await writer.exclusively(async turn => {
    const { contents } = turn
    const { state } = contents
    const held = new Set(plan.checkpoints.map(checkpoint => checkpoint.ordinal))
    const isRetained = retention(state)
    const missed = contents.recent.some(
      ({ ordinal }) => ordinal <= plan.toOrdinal && isRetained(ordinal) && !held.has(ordinal),
    )
    const lost = contents.deletedAtMicros !== undefined || lastDeltaEnd(state) !== plan.fromOrdinal
    if (lost || missed || withdrawnFrom(state.holes) <= plan.toOrdinal) return false
    const folded = plan.checkpoints.filter(checkpoint => isRetained(checkpoint.ordinal))
    const change = writer.trimmed(
      {
        ...contents,
        state: { ...state, deltas: [...state.deltas, delta] },
        recent: contents.recent.filter(checkpoint => checkpoint.ordinal > plan.toOrdinal),
        segmentsFrom: plan.toVector,
      },
      folded,
    )
    await turn.commitManifest(change, folded)
    return true
  })
}

/** Rewrites the fullest regions, a few at a time, if deltas outweigh the base. */
export async function rewriteRegions(tools: AgingTools, writer: VpgWriter): Promise<boolean> {
  const limits = { deltaShareMax: tools.config.deltaShareMax, countMax: regionsPerCommitMax }
  const plans = planRegionRewrites(writer.contents.state, limits)
  if (plans.length === 0) return false
  const { clock, notify } = tools
  return await withNewObjects(tools, writer, 'base', async newKey => {
    const { state } = writer.contents
    const versions: RegionVersion[] = []
    for (const plan of plans) {
      const startMillis = clock.monotonicMillis()
      const version = await rewriteRegion({
        store: patientStore(tools.store, writer.patience),
        newKey,
        workspace: tools.workspace,
        yieldNow: tools.turns.yieldNow,
        signal: tools.signal,
        state,
        vpg: writer.vpg,
        epoch: state.epoch,
        volume: plan.volume,
        region: plan.region,
        asOfOrdinal: plan.asOfOrdinal,
        regionSizeBytes,
      })
      versions.push(version)
      notify('regionRewritten', {
        vpg: writer.vpg,
        rawSizeBytes: version.pack?.rawSizeBytes ?? 0,
        storedSizeBytes: version.pack?.object.sizeBytes ?? 0,
        millis: clock.monotonicMillis() - startMillis,
      })
    }
    return await commitVersions(writer, versions)
  })
}

/** A version is the region as of the end of a delta, and stays that whatever came meanwhile; only a deletion voids it. */
async function commitVersions(writer: VpgWriter, versions: readonly RegionVersion[]): Promise<boolean> {
  return await writer.exclusively(async turn => {
    const { contents } = turn
    if (contents.deletedAtMicros !== undefined) return false
    const regions = [...contents.state.regions, ...versions]
    await turn.commitManifest(writer.trimmed({ ...contents, state: { ...contents.state, regions } }))
    return true
  })
}

/** Runs a merge with names for new objects, and removes these objects when the merge is not committed. */
async function withNewObjects(
  tools: AgingTools,
  writer: VpgWriter,
  kind: 'delta' | 'base',
  merge: (newKey: () => string) => Promise<boolean>,
): Promise<boolean> {
  const keys: string[] = []
  const newKey = (): string => {
    const key = writer.commits.newKey(kind)
    keys.push(key)
    return key
  }
  // A merge that fails leaves its objects: whether its commit counted may be open. The next start makes them garbage.
  const merging = (): Promise<boolean | undefined> => writer.merging(() => merge(newKey))
  const committed = await tools.mergePermit.with(() => tools.workspace.use(merging))
  if (committed === undefined) return false
  if (!committed) for (const key of keys) await tools.store.remove(key, tools.signal)
  return committed
}
