import { failedWith } from '../base/failure.ts'
import { sequence, type Ordinal } from '../base/ids.ts'
import { regionsPerCommitMax, regionSizeBytes } from '../base/limits.ts'
import { defaultFoldLimits, fold, rewriteRegion, type FoldResult } from '../mirror/mirror.ts'
import { openSegment } from '../segment/segment.ts'
import { isMarkerWithin } from '../timeline/assembler.ts'
import { lastDeltaEnd } from '../timeline/deltas.ts'
import { liesBefore, planFold, type FoldPlan } from '../timeline/fold-plan.ts'
import { historySizeBytes, planEarlyAging } from '../timeline/journal-limit.ts'
import { planRegionRewrites, type RegionPlan } from '../timeline/region-plan.ts'
import { holeOver, retention } from '../timeline/retention.ts'
import { liesWithin } from '../timeline/positions.ts'
import type { DeltaSpan, Hole, ObjectRef, RegionVersion, VpgState } from '../timeline/state.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { VpgContents } from '../manifest/manifest.ts'
import { patientStore } from './patient-store.ts'
import { isRefusal } from './store-patience.ts'
import { thinAll } from './thinning.ts'
import type { AgingTools } from './tools.ts'
import type { VpgWriter } from './vpg-writer.ts'

// The two times that all data is written again after its segment. Both work beside the VPG's turn, for minutes if need be, and
// commit in a turn of their own; objects of a merge that then is not committed are removed by the merge that made them.

/**
 * Folds what waits into a delta, if a fold is due. `tailCheckpoints`: those that the log completes beyond the segments, which nobody may
 * lose though no fold can end there yet.
 */
export async function foldWaiting(
  tools: AgingTools,
  writer: VpgWriter,
  tailCheckpoints: () => readonly Checkpoint[],
): Promise<boolean> {
  const plan = planOf(tools, writer.contents, tailCheckpoints())
  if (plan === undefined) return false
  if (await thinAll(tools, writer)) return true // there is less to tell apart then
  const { clock, notify } = tools
  const startMillis = clock.monotonicMillis()
  const make = async ({ newKey, createPage }: NewObjects): Promise<MadeFold> => {
    const before = writer.contents.state
    const store = patientStore(tools.store, writer.patience.brief)
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
      checkpoints: plan.open === undefined ? plan.checkpoints : [openEnd(plan)],
      sources: plan.segments.map(segment => openSegment(store, segment)),
      holes: before.holes,
      disk: tools.disk,
      scratchDirectory: tools.config.scratchDirectory,
      limits: defaultFoldLimits,
    })
    const page = await createPage(plan.checkpoints)
    const delta: DeltaSpan = {
      kind: 'delta',
      fromOrdinal: plan.fromOrdinal,
      toOrdinal: plan.toOrdinal,
      ...(plan.open === undefined ? {} : { open: plan.open }),
      packs: result.packs,
      checkpoints: page,
      checkpointCount: plan.checkpoints.length,
      rawSizeBytes: result.rawSizeBytes,
    }
    return { result, delta }
  }
  return await withNewObjects(tools, writer, 'delta', make, async ({ result, delta }) => {
    if (plan.open !== undefined) await giveUp(tools, writer, plan)
    if (!(await commitFold(writer, plan, delta, tailCheckpoints))) return false
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

interface MadeFold {
  readonly result: FoldResult
  readonly delta: DeltaSpan
}

/**
 * On return no checkpoint is told of any more that the open delta goes past, and those that were told of before are known here: their
 * markers were durable then, and how far the log was durable comes before the answer.
 */
async function giveUp({ tellGivenUp, readTail }: AgingTools, writer: VpgWriter, plan: FoldPlan): Promise<void> {
  await tellGivenUp(writer.vpg, plan.toVector)
  await readTail()
}

function planOf(
  tools: AgingTools,
  { state, segmentsFrom, recent }: VpgContents,
  inLog: readonly Checkpoint[],
): FoldPlan | undefined {
  return planFold(state, { fromVector: segmentsFrom, checkpoints: recent, inLog }, tools.config)
}

/** What an open delta ends at, as a fold wants it: a cut that nobody is offered. */
function openEnd({ toOrdinal, toVector }: FoldPlan): Checkpoint {
  return { ordinal: toOrdinal, timestampMicros: 0, historyMillis: 0, vector: toVector, volumes: [] }
}

/** False when what the fold was made for is not so any more: a checkpoint that it does not hold is retained, or a hole came. */
async function commitFold(
  writer: VpgWriter,
  plan: FoldPlan,
  delta: DeltaSpan,
  tailCheckpoints: () => readonly Checkpoint[],
): Promise<boolean> {
  return await writer.exclusively(async turn => {
    const { contents } = turn
    if (plan.open !== undefined && !tailCheckpoints().every(({ vector }) => liesBefore(plan.toVector, vector)))
      return false
    const { state } = contents
    const held = new Set(plan.checkpoints.map(checkpoint => checkpoint.ordinal))
    const isRetained = retention(state)
    const isOffered = ({ ordinal }: Checkpoint): boolean =>
      isRetained(ordinal) && holeOver(state.holes, ordinal) === undefined
    const isBehind = ({ ordinal, vector }: Checkpoint): boolean =>
      plan.open === undefined ? ordinal > plan.toOrdinal : liesBefore(plan.toVector, vector)
    const missed = contents.recent.some(
      checkpoint => isOffered(checkpoint) && !isBehind(checkpoint) && !held.has(checkpoint.ordinal),
    )
    const lost = contents.deletedAtMicros !== undefined || lastDeltaEnd(state) !== plan.fromOrdinal
    const holed =
      plan.open === undefined
        ? holeOver(state.holes, plan.toOrdinal) !== undefined
        : state.holes.some(hole => hole.repairedFromOrdinal === undefined && holeStartsWithin(hole, plan))
    if (lost || missed || holed) return false
    const folded = plan.checkpoints.filter(checkpoint => isRetained(checkpoint.ordinal))
    const change = writer.trimmed(
      {
        ...contents,
        state: { ...state, deltas: [...state.deltas, delta] },
        recent: contents.recent.filter(isBehind),
        pendingMarkers: plan.open === undefined ? contents.pendingMarkers : markersBehind(contents, plan),
        segmentsFrom: plan.toVector,
      },
      { folded },
    )
    await turn.commitManifest(change)
    return true
  })
}

/** Without those of checkpoints that an open delta has gone past: they are given up. The very same list where there are none. */
function markersBehind({ pendingMarkers }: VpgContents, { toVector }: FoldPlan): VpgContents['pendingMarkers'] {
  const left = pendingMarkers.filter(marker => !isMarkerWithin(toVector, marker))
  return left.length === pendingMarkers.length ? pendingMarkers : left
}

function holeStartsWithin({ stream, generation, firstSequence }: Hole, { toVector }: FoldPlan): boolean {
  return liesWithin(toVector, stream, { generation, sequence: sequence(firstSequence) })
}

/** Rewrites the fullest regions, a few at a time, if deltas outweigh the base. */
export async function rewriteRegions(tools: AgingTools, writer: VpgWriter): Promise<boolean> {
  const limits = { deltaShareMax: tools.config.deltaShareMax, countMax: regionsPerCommitMax }
  const { state } = writer.contents
  const plans = planRegionRewrites(state, limits)
  return plans.length > 0 && (await rewritePlanned(tools, writer, { state, plans }))
}

/** The history takes more than the journal's limit: lets go of the oldest, and rewrites the regions below, a few at a time, where that needs it. */
export async function ageEarly(tools: AgingTools, writer: VpgWriter): Promise<boolean> {
  const { state } = writer.contents
  const byPolicy = writer.trimmed(writer.contents).contents
  const ordinals = writer.points(byPolicy).map(point => point.ordinal)
  const known = { ordinals, segmentsFrom: byPolicy.segmentsFrom }
  const plan = planEarlyAging(byPolicy.state, known, regionsPerCommitMax)
  const { edge, regions } = plan ?? { edge: byPolicy.state.historyEdge, regions: [] }
  if (regions.length > 0) return await rewritePlanned(tools, writer, { state, plans: regions, earlyEdge: edge })
  if (plan === undefined && historySizeBytes(byPolicy.state) === historySizeBytes(state)) return false
  return await writer.exclusively(async turn => {
    if (turn.contents.deletedAtMicros !== undefined) return false
    await turn.commitManifest(writer.trimmed(turn.contents, { earlyEdge: edge }))
    return true
  })
}

interface PlannedRewrites {
  /** That the plans were made of: what it refers to is not removed before this merge is over, whatever leaves the manifest meanwhile. */
  readonly state: VpgState
  readonly plans: readonly RegionPlan[]
  readonly earlyEdge?: Ordinal
}

async function rewritePlanned(
  tools: AgingTools,
  writer: VpgWriter,
  { state, plans, earlyEdge }: PlannedRewrites,
): Promise<boolean> {
  const { clock, notify } = tools
  const make = async ({ newKey }: NewObjects): Promise<RegionVersion[]> => {
    const versions: RegionVersion[] = []
    for (const plan of plans) {
      const startMillis = clock.monotonicMillis()
      const version = await rewriteRegion({
        store: patientStore(tools.store, writer.patience.brief),
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
    return versions
  }
  return await withNewObjects(tools, writer, 'base', make, versions =>
    commitVersions(writer, { state, versions, earlyEdge }),
  )
}

/**
 * A version is the region as of the end of a delta, and stays that whatever came above meanwhile; a deletion voids it, and so does a version
 * that a preseed put, or replaced, below: the new one would hide it.
 */
export async function commitVersions(
  writer: VpgWriter,
  made: {
    readonly state: VpgState
    readonly versions: readonly RegionVersion[]
    readonly earlyEdge: Ordinal | undefined
  },
): Promise<boolean> {
  return await writer.exclusively(async turn => {
    const { contents } = turn
    if (contents.deletedAtMicros !== undefined) return false
    const isVoid = (version: RegionVersion): boolean =>
      keyBelow(made.state, version) !== keyBelow(contents.state, version)
    if (made.versions.some(isVoid)) return false
    const regions = [...contents.state.regions, ...made.versions]
    const rewritten = { ...contents, state: { ...contents.state, regions } }
    await turn.commitManifest(writer.trimmed(rewritten, { earlyEdge: made.earlyEdge }))
    return true
  })
}

/** What a version is made over: "" for nothing at all, and for zeros. */
function keyBelow({ regions }: VpgState, { volume, region, asOfOrdinal }: RegionVersion): string {
  let newest: RegionVersion | undefined
  for (const each of regions) {
    if (each.volume !== volume || each.region !== region || each.asOfOrdinal >= asOfOrdinal) continue
    if (newest === undefined || each.asOfOrdinal > newest.asOfOrdinal) newest = each
  }
  return newest?.pack?.object.key ?? ''
}

/** What a merge makes objects with. */
export interface NewObjects {
  readonly newKey: () => string
  /** On return a page with these checkpoints is in the store. */
  readonly createPage: (checkpoints: readonly Checkpoint[]) => Promise<ObjectRef>
}

/**
 * Makes a merge's objects, in its turn among all VPGs, then commits it in none but the VPG's own: a commit waits for the store however long that takes.
 * The objects are removed when the merge is not committed, and when the store refuses one of them, or the scratch file fails: it is made again and again, and
 * what it leaves would be ever more.
 */
export async function withNewObjects<T>(
  tools: AgingTools,
  writer: VpgWriter,
  kind: 'delta' | 'base',
  make: (objects: NewObjects) => Promise<T>,
  commit: (made: T) => Promise<boolean>,
): Promise<boolean> {
  const keys: string[] = []
  const newKey = (): string => {
    const key = writer.commits.newKey(kind)
    keys.push(key)
    return key
  }
  const createPage = async (checkpoints: readonly Checkpoint[]): Promise<ObjectRef> => {
    const page = writer.commits.checkpointPage(checkpoints)
    keys.push(page.key)
    await writer.createObject(page)
    return { key: page.key, sizeBytes: page.bytes.length }
  }
  const removeMade = (): Promise<void> => writer.removeObjects(keys.splice(0))
  const making = (): Promise<T | undefined> => writer.merging(() => make({ newKey, createPage }), removeMade)
  return await writer.making.with(async () => {
    const made = await tools.mergePermit
      .with(() => tools.workspace.use(making))
      .catch(async (error: unknown) => {
        if (isRefusal(error) || failedWith(error, 'DISK_FAILED')) await writer.dropObjects(keys)
        throw error
      })
    if (made === undefined) return false
    // One that fails here leaves its objects: whether its commit counted may be open. The next start makes them garbage.
    if (await commit(made)) return true
    await removeMade()
    return false
  })
}
