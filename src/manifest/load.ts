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
import type { SegmentSpan } from '../timeline/state.ts'
import type { VpgContents } from './contents.ts'
import { readCheckpointPage, readManifest, type ReadManifest } from './read.ts'

const pageReadsAtOnce = 8

/** A VPG as the store has it. */
export interface LoadedVpg {
  readonly contents: VpgContents
  /** Retained checkpoints up to the last delta's end, ascending; the later ones are in contents.recent. */
  readonly folded: readonly Checkpoint[]
  readonly manifest: ReadManifest
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
  const manifest = await readManifest(store, vpg, signal)
  const owner = manifest.root.header.applianceId
  if (owner !== applianceId) {
    const sentence =
      `VPG ${vpg} ("${manifest.contents.state.definition.name}") belongs to the appliance ${owner}; this one is ` +
      `${applianceId}. Two appliances must not write one VPG: give this one a store or a prefix of its own, or, where the other ` +
      'one is lost for good, start this one with --adopt.'
    throw new Failure('IDENTITY_REFUSED', sentence, { vpg, owner, applianceId })
  }
  return await loadContents(store, manifest, signal)
}

/** loadVpg, whoever owns the VPG. */
export async function loadAnyVpg(store: ObjectStore, vpg: VpgId, signal: AbortSignal): Promise<LoadedVpg> {
  return await loadContents(store, await readManifest(store, vpg, signal), signal)
}

async function loadContents(store: ObjectStore, manifest: ReadManifest, signal: AbortSignal): Promise<LoadedVpg> {
  const folded = await foldedCheckpoints(store, manifest.contents, signal)
  const assembler = assemblerOf(manifest.contents)
  let contents: VpgContents = { ...manifest.contents, recent: sharingVolumes(manifest.contents.recent) }
  for (const { key, sizeBytes, commitNumber } of manifest.after) {
    const { span, markers } = await readSegmentFooter(store, key, sizeBytes, signal)
    contents = withSegment(contents, assembler, { ...span, commitNumber }, markers)
  }
  return { contents, folded, manifest }
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
