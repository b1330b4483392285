import type { Ordinal } from '../base/ids.ts'
import {
  mergeDeadShareMin,
  mergeDeadSharePressedMin,
  mergeExtentCountMax,
  mergeLotSizeBytes,
  mergeSizeBytesMax,
  packRawSizeBytesMax,
  regionSizeBytes,
  surveyRegionsMax,
} from '../base/limits.ts'
import { readCheckpointPage } from '../manifest/manifest.ts'
import {
  mergeDeltas,
  surveyDeltas,
  type FoldResult,
  type MergedRun,
  type MergeLimits,
  type RegionAt,
} from '../mirror/mirror.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import { historySizeBytes } from '../timeline/journal-limit.ts'
import { basedIn, deltaName, planMerge, weightsAfterLook, type Run } from '../timeline/merge-plan.ts'
import { afterOpenMerge, packBytes, planOpenMerge } from '../timeline/open-merge.ts'
import { objectKeys } from '../timeline/reach.ts'
import { eachRegion } from '../timeline/region-sizes.ts'
import type { DeltaSpan } from '../timeline/state.ts'
import { ageEarly, withNewObjects, type NewObjects } from './merging.ts'
import { patientStore } from './patient-store.ts'
import { thinAll } from './thinning.ts'
import type { AgingTools } from './tools.ts'
import type { VpgWriter } from './vpg-writer.ts'

// Where checkpoints were dropped, what only they had is dead in the deltas. Adjacent deltas are merged when enough is, or when they are small:
// src/timeline/README.md has the rule, the order of the steps, and what this costs at most.

const limits: MergeLimits = {
  packRawSizeBytesMax,
  regionSizeBytes,
  extentCountMax: mergeExtentCountMax,
  lotSizeBytes: mergeLotSizeBytes,
}

/** By the share that was asked for: what was looked at and held too little that is dead. For this process: a start looks again. */
const looked = new WeakMap<VpgWriter, Map<number, Map<string, number>>>()

/** Merges a run of deltas of which half is dead, or looks at one; false where there is none. */
export async function mergeHistory(tools: AgingTools, writer: VpgWriter): Promise<boolean> {
  return await mergeWhereDead(tools, writer, mergeDeadShareMin)
}

/** While the history takes more than the journal's limit: thins, merges where less is dead than would do otherwise, then ages early. */
export async function keepJournalLimit(tools: AgingTools, writer: VpgWriter): Promise<boolean> {
  const { state } = writer.contents
  const limitSizeBytes = state.definition.journalLimitSizeBytes
  if (limitSizeBytes === 0 || historySizeBytes(state) <= limitSizeBytes) return false
  return (
    (await thinAll(tools, writer)) ||
    (await mergeWhereDead(tools, writer, mergeDeadSharePressedMin)) ||
    (await ageEarly(tools, writer))
  )
}

/** The same with another share that must be dead. */
async function mergeWhereDead(tools: AgingTools, writer: VpgWriter, deadShareMin: number): Promise<boolean> {
  const { contents } = writer
  const ordinals = writer.points(contents).map(point => point.ordinal)
  const weights = weightsOf(writer, deadShareMin)
  const { foldSizeBytesMin: smallSizeBytes } = tools.config
  const planLimits = { ...tools.config, deadShareMin, smallSizeBytes }
  const run = planMerge(contents.state, ordinals, planLimits, weights)
  if (run === undefined) return false
  const merged: MergedRun = { ...run, isBased: basedIn(contents.state, ordinals) }
  if (run.why === 'dead') {
    const deadShare = await tools.mergePermit.with(() => writer.merging(() => surveyed(tools, writer, merged)))
    if (deadShare === undefined) return false
    if (deadShare < deadShareMin) {
      for (const [name, weight] of weightsAfterLook(run, weights)) weights.set(name, weight)
      return true
    }
  }
  const committed = await mergeRun(tools, writer, run, merged)
  if (committed) for (const delta of run.deltas) weights.delete(deltaName(delta))
  return committed
}

/** The share of the run's bytes that is dead, as the indexes of some regions say. */
async function surveyed(tools: AgingTools, writer: VpgWriter, run: MergedRun): Promise<number> {
  const { signal, turns } = tools
  const request = {
    ...run,
    store: patientStore(tools.store, writer.patience.brief),
    signal,
    limits,
    yieldNow: turns.yieldNow,
  }
  const { fullest, others, othersSizeBytes } = sampleOf(run.deltas)
  const [exact, sampled] = [await surveyDeltas(request, fullest), await surveyDeltas(request, others)]
  const liveShare = sampled.rawSizeBytes === 0 ? 1 : sampled.liveSizeBytes / sampled.rawSizeBytes
  const rawSizeBytes = exact.rawSizeBytes + othersSizeBytes
  return rawSizeBytes === 0 ? 0 : 1 - (exact.liveSizeBytes + othersSizeBytes * liveShare) / rawSizeBytes
}

/** The fullest regions, and as many of the others, evenly spread. */
function sampleOf(deltas: readonly DeltaSpan[]): {
  readonly fullest: readonly RegionAt[]
  readonly others: readonly RegionAt[]
  readonly othersSizeBytes: number
} {
  const sizes = new Map<string, { volume: number; region: number; sizeBytes: number }>()
  for (const { volume, regionRawSizeBytes } of deltas.flatMap(delta => delta.packs)) {
    for (const [region, sizeBytes] of eachRegion(regionRawSizeBytes)) {
      const known = sizes.get(`${volume}/${region}`)
      if (known === undefined) sizes.set(`${volume}/${region}`, { volume, region, sizeBytes })
      else known.sizeBytes += sizeBytes
    }
  }
  const ranked = [...sizes.values()].sort((a, b) => b.sizeBytes - a.sizeBytes)
  const rest = ranked.slice(surveyRegionsMax)
  const step = Math.max(1, rest.length / surveyRegionsMax)
  const others = Array.from({ length: Math.min(surveyRegionsMax, rest.length) }, (_, at) => rest[Math.floor(at * step)])
  return {
    fullest: ranked.slice(0, surveyRegionsMax),
    others: others.filter(region => region !== undefined),
    othersSizeBytes: rest.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
  }
}

async function mergeRun(tools: AgingTools, writer: VpgWriter, run: Run, merged: MergedRun): Promise<boolean> {
  const { clock, notify, turns, signal, workspace, config } = tools
  const startMillis = clock.monotonicMillis()
  const [first, last, toOrdinal] = [run.deltas[0], run.deltas.at(-1), run.groups.at(-1)]
  if (first === undefined || last === undefined || toOrdinal === undefined) return false
  const make = async ({ newKey, createPage }: NewObjects): Promise<MadeMerge> => {
    const store = patientStore(tools.store, writer.patience.brief)
    const { epoch } = writer.contents.state
    const merge = (deltas: readonly DeltaSpan[]): Promise<FoldResult> =>
      mergeDeltas({
        ...merged,
        deltas,
        store,
        newKey,
        workspace,
        yieldNow: turns.yieldNow,
        signal,
        vpg: writer.vpg,
        epoch,
        limits,
      })
    if (last.open !== undefined) {
      const plan = planOpenMerge(run.deltas, config.mergeSizeBytesMax ?? mergeSizeBytesMax)
      const results: FoldResult[] = []
      for (const group of plan.groups) results.push(await merge(group))
      const packs = results.flatMap(result => result.packs)
      return { deltas: afterOpenMerge(run.deltas, plan, packs), readFrom: plan.groups.flat(), results }
    }
    const result = await merge(run.deltas)
    const checkpoints = await checkpointsOf(tools, writer, run)
    const page = await createPage(checkpoints)
    const delta: DeltaSpan = {
      kind: 'delta',
      fromOrdinal: first.fromOrdinal,
      toOrdinal,
      packs: result.packs,
      checkpoints: page,
      checkpointCount: checkpoints.length,
      versionCount: run.groups.length,
      rawSizeBytes: result.rawSizeBytes,
    }
    return { deltas: [delta], readFrom: run.deltas, results: [result] }
  }
  return await withNewObjects(tools, writer, 'delta', make, async ({ deltas, readFrom, results }) => {
    if (!(await commitMerge(writer, run, deltas))) return false
    notify('deltasMerged', {
      vpg: writer.vpg,
      deltaCount: run.deltas.length,
      mergedRawSizeBytes: readFrom.reduce((sum, delta) => sum + packBytes(delta), 0),
      rawSizeBytes: results.reduce((sum, result) => sum + result.rawSizeBytes, 0),
      storedSizeBytes: results.reduce((sum, result) => sum + result.storedSizeBytes, 0),
      objectCount: results.reduce((sum, result) => sum + result.packs.length, 0),
      millis: clock.monotonicMillis() - startMillis,
    })
    return true
  })
}

interface MadeMerge {
  /** In the place of the run's. */
  readonly deltas: readonly DeltaSpan[]
  readonly readFrom: readonly DeltaSpan[]
  readonly results: readonly FoldResult[]
}

/** The retained ones, as the pages of the run's deltas have them. */
async function checkpointsOf({ store, signal }: AgingTools, writer: VpgWriter, run: Run): Promise<Checkpoint[]> {
  const groups = new Set<Ordinal>(run.groups)
  const found: Checkpoint[] = []
  for (const { open, checkpoints } of run.deltas) {
    if (open !== undefined) continue
    const page = await readCheckpointPage(patientStore(store, writer.patience.brief), writer.vpg, checkpoints, signal)
    found.push(...page.filter(({ ordinal }) => groups.has(ordinal) && writer.history.has(ordinal)))
  }
  return found
}

/** False where the run is not in the manifest any more as it was. What was dropped of it meanwhile, the new deltas only hold needlessly. */
async function commitMerge(writer: VpgWriter, run: Run, made: readonly DeltaSpan[]): Promise<boolean> {
  return await writer.exclusively(async turn => {
    const { contents } = turn
    const { deltas } = contents.state
    const first = deltas.findIndex(other => other.checkpoints.key === run.deltas[0]?.checkpoints.key)
    const merged = deltas.slice(Math.max(0, first), first + run.deltas.length)
    const isWhole =
      first >= 0 &&
      merged.length === run.deltas.length &&
      merged.every((other, index) => other.checkpoints.key === run.deltas[index]?.checkpoints.key)
    if (contents.deletedAtMicros !== undefined || !isWhole) return false
    const state = { ...contents.state, deltas: deltas.toSpliced(first, merged.length, ...made) }
    const change = writer.trimmed({ ...contents, state })
    const stays = new Set(objectKeys(change.contents.state))
    const formerKeys = objectKeys({ deltas: merged, segments: [], regions: [] }).filter(key => !stays.has(key))
    const leftKeys = [...new Set([...change.leftKeys, ...formerKeys])]
    await turn.commitManifest({ ...change, leftKeys })
    return true
  })
}

function weightsOf(writer: VpgWriter, deadShareMin: number): Map<string, number> {
  const byShare = looked.get(writer) ?? new Map<number, Map<string, number>>()
  looked.set(writer, byShare)
  const weights = byShare.get(deadShareMin) ?? new Map<string, number>()
  byShare.set(deadShareMin, weights)
  const known = new Set(writer.contents.state.deltas.map(deltaName))
  for (const name of weights.keys()) if (!known.has(name)) weights.delete(name)
  return weights
}
