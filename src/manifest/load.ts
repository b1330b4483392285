import { isDeepStrictEqual } from 'node:util'
import { Failure } from '../base/failure.ts'
import type { VpgId } from '../base/ids.ts'
import { Permits } from '../base/permits.ts'
import { readSegmentFooter } from '../segment/segment.ts'
import type { ObjectStore } from '../store/object-store.ts'
import { CheckpointAssembler, type DurableMarker } from '../timeline/assembler.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import { lastDeltaEnd } from '../timeline/deltas.ts'
import { advanced } from '../timeline/positions.ts'
import { retention } from '../timeline/retention.ts'
import type { DeltaSpan, SegmentSpan } from '../timeline/state.ts'
import { deltaPartName, partsForServing, newestDeltaParts, type VpgContents } from './contents.ts'
import type { PageSet } from './pages.ts'
import { readCheckpointPage, readDeltaPage, readManifest, readPages, readRoot, type ReadManifest } from './read.ts'

const pageReadsAtOnce = 8

/** A VPG as the store has it. */
export interface LoadedVpg {
  /** False where only what serves the VPG was read: without `folded`, and without the parts that manifest.pageSet carries. */
  readonly isWhole: boolean
  readonly contents: VpgContents
  /** Retained checkpoints up to the last delta's end, ascending; the later ones are in contents.recent. */
  readonly folded: readonly Checkpoint[]
  readonly manifest: ReadManifest
  /** The newest checkpoint; undefined where there is none. */
  readonly newest: Checkpoint | undefined
}

/**
 * The newest manifest with its pages, the checkpoint pages of its deltas, and the footers of the segments after it.
 * NOT_FOUND where there is none, IDENTITY_REFUSED where another appliance owns the VPG, OBJECT_CORRUPT naming the
 * object where one is damaged or missing, VERSION_UNSUPPORTED where another program wrote it.
 */
export async function loadVpg(
  store: ObjectStore,
  vpg: VpgId,
  applianceId: string,
  signal: AbortSignal,
): Promise<LoadedVpg> {
  const loaded = await loadAnyVpg(store, vpg, signal)
  requireOwner(loaded, applianceId)
  return loaded
}

/** loadVpg, whoever owns the VPG. */
export async function loadAnyVpg(store: ObjectStore, vpg: VpgId, signal: AbortSignal): Promise<LoadedVpg> {
  return await loadContents(store, await readManifest(store, vpg, signal), signal)
}

/**
 * As loadAnyVpg where the manifest's pages are small in all (for 0 none are), or the VPG is deleted. Of any other only what does not grow with the history: enough to
 * serve it, and to commit after it.
 */
export async function loadForServing(
  store: ObjectStore,
  vpg: VpgId,
  wholeSizeBytesMax: number,
  signal: AbortSignal,
): Promise<LoadedVpg> {
  const root = await readRoot(store, vpg, signal)
  const { parts, indexes, fields } = root.body
  const pages = [...parts.flatMap(part => ('page' in part ? [part.page] : [])), ...indexes]
  const sizeBytes = pages.reduce((sum, page) => sum + page.sizeBytes, 0)
  // Pages of pages stand for far more than they are.
  const isSmall =
    sizeBytes <= wholeSizeBytesMax && wholeSizeBytesMax > 0 && (indexes.length === 0 || wholeSizeBytesMax === Infinity)
  if (isSmall || fields.deletedAtMicros !== undefined)
    return await loadContents(store, await readPages(store, root, () => () => true, signal), signal)
  const manifest = await readPages(store, root, partsForServing, signal)
  if (manifest.pageSet.carried.length === 0 && wholeSizeBytesMax > 0) return await loadContents(store, manifest, signal)
  const contents = await withSegmentsAfter(store, manifest, signal)
  const newest = contents.recent.at(-1) ?? (await newestFolded(store, contents, manifest.pageSet, signal))
  return { isWhole: false, contents, folded: [], manifest, newest }
}

/** Fails IDENTITY_REFUSED where another appliance owns the VPG. */
export function requireOwner({ manifest }: LoadedVpg, applianceId: string): void {
  const { vpg, applianceId: owner } = manifest.root.header
  if (owner === applianceId) return
  const sentence =
    `VPG ${vpg} ("${manifest.contents.state.definition.name}") belongs to the appliance ${owner}; this one is ` +
    `${applianceId}. Two appliances must not write one VPG: give this one a store or a prefix of its own, or, where the other ` +
    'one is lost for good, start this one with --adopt.'
  throw new Failure('IDENTITY_REFUSED', sentence, { vpg, owner, applianceId })
}

async function loadContents(store: ObjectStore, manifest: ReadManifest, signal: AbortSignal): Promise<LoadedVpg> {
  const folded = await foldedCheckpoints(store, manifest.contents, signal)
  const contents = await withSegmentsAfter(store, manifest, signal)
  return { isWhole: true, contents, folded, manifest, newest: contents.recent.at(-1) ?? folded.at(-1) }
}

async function withSegmentsAfter(
  store: ObjectStore,
  manifest: ReadManifest,
  signal: AbortSignal,
): Promise<VpgContents> {
  const assembler = assemblerOf(manifest.contents)
  let contents: VpgContents = { ...manifest.contents, recent: sharingVolumes(manifest.contents.recent) }
  for (const { key, sizeBytes, commitNumber } of manifest.after) {
    const { span, markers } = await readSegmentFooter(store, key, sizeBytes, signal)
    contents = withSegment(contents, assembler, { ...span, commitNumber }, markers)
  }
  return contents
}

/** The newest checkpoint that a delta holds; most deltas are in pages that were not read. */
async function newestFolded(
  store: ObjectStore,
  { state }: VpgContents,
  { carried }: PageSet,
  signal: AbortSignal,
): Promise<Checkpoint | undefined> {
  const isRetained = retention(state)
  const { id } = state.definition
  const newestOf = async ({ checkpoints }: DeltaSpan): Promise<Checkpoint | undefined> =>
    (await readCheckpointPage(store, id, checkpoints, signal)).findLast(({ ordinal }) => isRetained(ordinal))
  const read = new Map(state.deltas.map(delta => [deltaPartName(delta), delta]))
  const pages = new Map(carried.map(({ name, page }) => [name, page]))
  for (const name of newestDeltaParts([...read.keys(), ...pages.keys()])) {
    const page = pages.get(name)
    const delta = page === undefined ? read.get(name) : await readDeltaPage(store, id, { name, page }, signal)
    const newest = delta && (await newestOf(delta))
    if (newest !== undefined) return newest
  }
  return undefined
}

/** An assembler that goes on from the markers whose checkpoints are not complete yet. */
export function assemblerOf(contents: VpgContents): CheckpointAssembler {
  const assembler = new CheckpointAssembler()
  for (const marker of contents.pendingMarkers) assembler.add(marker)
  return assembler
}

/** The contents with one more committed segment: its records are offloaded, its markers complete checkpoints. */
export function withSegment(
  contents: VpgContents,
  assembler: CheckpointAssembler,
  segment: SegmentSpan,
  markers: readonly DurableMarker[],
): VpgContents {
  const complete = markers.flatMap(marker => assembler.add(marker) ?? [])
  const { state } = contents
  const known = new Set(contents.recent.map(checkpoint => checkpoint.ordinal))
  const added = complete.filter(({ ordinal }) => ordinal > lastDeltaEnd(state) && !known.has(ordinal))
  const recent = [...contents.recent, ...added].sort((a, b) => a.ordinal - b.ordinal)
  return {
    ...contents,
    state: {
      ...state,
      commitNumber: segment.commitNumber,
      segments: [...state.segments, segment],
      offloaded: advanced(state.offloaded, segment.ranges),
    },
    recent: sharingVolumes(recent),
    pendingMarkers: assembler.pending(),
  }
}

/** Volumes seldom change, so one list of them serves thousands of checkpoints. */
function sharingVolumes(checkpoints: readonly Checkpoint[]): Checkpoint[] {
  let volumes: Checkpoint['volumes'] = []
  return checkpoints.map(checkpoint => {
    if (checkpoint.volumes !== volumes && !isDeepStrictEqual(checkpoint.volumes, volumes)) volumes = checkpoint.volumes
    return checkpoint.volumes === volumes ? checkpoint : { ...checkpoint, volumes }
  })
}

async function foldedCheckpoints(
  store: ObjectStore,
  { state }: VpgContents,
  signal: AbortSignal,
): Promise<readonly Checkpoint[]> {
  const isRetained = retention(state)
  const permits = new Permits(pageReadsAtOnce)
  const pages = await Promise.all(
    state.deltas.map(delta =>
      permits.with(async () => {
        const page = await readCheckpointPage(store, state.definition.id, delta.checkpoints, signal)
        return page.filter(checkpoint => isRetained(checkpoint.ordinal))
      }),
    ),
  )
  return pages.flat()
}
