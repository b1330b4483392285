import {
  checkpointOrdinal,
  comparePositions,
  sequence,
  type Ordinal,
  type StreamPosition,
  type VpgId,
} from '../base/ids.ts'
import type { OpenedVpg } from '../aging/service.ts'
import type { IngestVpg } from '../ingest/registry.ts'
import type { RecoveredLog } from '../journal/journal.ts'
import { CheckpointAssembler, isMarkerWithin, type DurableMarker } from '../timeline/assembler.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { VpgDefinition } from '../timeline/definition.ts'
import { covers } from '../timeline/positions.ts'
import { decodeFrame } from '../wire/wire.ts'

/** A VPG after a start: what the store says of it, and what the log has beyond. */
export interface ReconciledVpg {
  readonly opened: OpenedVpg
  readonly ingest: IngestVpg
  /** Complete checkpoints whose markers are in the log, in no delta, and that are retained; those of segments are among them. */
  readonly logCheckpoints: readonly Checkpoint[]
}

/**
 * Puts together what the object store and the log know of each VPG. The log may reach further than the store (acknowledged,
 * not offloaded yet) or less far (its files were freed); a stream is durable up to the further of the two.
 */
export function reconcile(opened: readonly OpenedVpg[], log: RecoveredLog): ReconciledVpg[] {
  const markers = log.markers.flatMap(({ header, frame }) => {
    const message = decodeFrame(frame)
    if (message.type !== 'marker') return []
    const { timestampMicros, historyMillis, stream } = header
    return [
      {
        vpg: header.vpg,
        epoch: header.epoch,
        marker: { ...message, stream, timestampMicros, historyMillis } satisfies DurableMarker,
      },
    ]
  })
  return opened.map(vpg => {
    // Of another epoch: an appliance wrote them that was not the owner any more, or this one before it was the owner again.
    const isOwn = (entry: { readonly vpg: VpgId; readonly epoch: number }): boolean =>
      entry.vpg === vpg.definition.id && entry.epoch === vpg.epoch
    const own = markers.filter(isOwn).map(entry => entry.marker)
    const assembler = new CheckpointAssembler()
    // The other streams' markers of a checkpoint may be in segments already, their log files freed.
    for (const marker of vpg.pendingMarkers) assembler.add(marker)
    // Of those up to the last delta's end the store tells which are checkpoints.
    const complete = own.flatMap(marker =>
      isMarkerWithin(vpg.foldedThrough, marker) ? [] : (assembler.add(marker) ?? []),
    )
    const recovered = log.streams.filter(isOwn)
    const found = { markers: own, complete, pending: assembler.pending(), recovered }
    return { opened: vpg, logCheckpoints: stillKept(vpg, complete), ingest: ingestVpg(vpg, found) }
  })
}

/**
 * Log files outlive the history and its density: a checkpoint below the edge, or with all its markers in the store, is one only where the store has
 * kept it.
 */
function stillKept(vpg: OpenedVpg, complete: readonly Checkpoint[]): Checkpoint[] {
  if (complete.length === 0) return []
  const stored = new Set(vpg.checkpoints.map(checkpoint => checkpoint.ordinal))
  const isNew = ({ ordinal, vector }: Checkpoint): boolean =>
    ordinal >= vpg.historyEdge && !covers(vpg.offloaded, vector)
  return complete.filter(checkpoint => stored.has(checkpoint.ordinal) || isNew(checkpoint))
}

/**
 * Of VPGs with one name the newest, and the others. A creation that the store did not take in time is reported as failed and may
 * take effect later: the one that was then created in its place is the one that agents know.
 */
export function newestOfEachName(vpgs: readonly OpenedVpg[]): {
  readonly served: OpenedVpg[]
  readonly replaced: OpenedVpg[]
} {
  const newest = new Map<string, OpenedVpg>()
  for (const vpg of vpgs) {
    const other = newest.get(vpg.definition.name)
    if (other === undefined || other.definition.createdAtMicros < vpg.definition.createdAtMicros)
      newest.set(vpg.definition.name, vpg)
  }
  const isServed = (vpg: OpenedVpg): boolean => newest.get(vpg.definition.name) === vpg
  return { served: vpgs.filter(isServed), replaced: vpgs.filter(vpg => !isServed(vpg)) }
}

/** What the log says of one VPG. */
interface Found {
  readonly markers: readonly DurableMarker[]
  readonly complete: readonly Checkpoint[]
  readonly pending: readonly DurableMarker[]
  readonly recovered: RecoveredLog['streams']
}

function ingestVpg(vpg: OpenedVpg, { markers, complete, pending, recovered }: Found): IngestVpg {
  const newest = [vpg.checkpoints.at(-1), complete.at(-1)].filter(checkpoint => checkpoint !== undefined)
  const lastCheckpoint = newest.sort((a, b) => b.ordinal - a.ordinal)[0]
  const ordinals = [...vpg.pendingMarkers, ...markers].map(({ term, counter }) => checkpointOrdinal(term, counter))
  return {
    definition: vpg.definition,
    epoch: vpg.epoch,
    durable: vpg.definition.streams.map(({ number }) => furthest(number, vpg.offloaded, recovered)),
    offloaded: vpg.offloaded,
    lastCheckpoint,
    lastMarker: ordinals.reduce((last, at) => (at > last ? at : last), lastCheckpoint?.ordinal ?? (0 as Ordinal)),
    pendingMarkers: pending.filter(
      ({ term, counter }) => checkpointOrdinal(term, counter) > (lastCheckpoint?.ordinal ?? 0),
    ),
  }
}

function furthest(
  stream: number,
  offloaded: readonly StreamPosition[],
  recovered: RecoveredLog['streams'],
): StreamPosition {
  const nothing: StreamPosition = { stream, generation: 0, sequence: sequence(0) }
  const positions = [
    ...offloaded.filter(position => position.stream === stream),
    ...recovered
      .filter(found => found.stream === stream)
      .map(found => ({ stream, generation: found.generation, sequence: sequence(found.lastSequence) })),
  ]
  return positions.reduce((far, position) => (comparePositions(position, far) > 0 ? position : far), nothing)
}

/** A VPG that was just created. */
export function freshIngestVpg(opened: { definition: VpgDefinition; epoch: number }): IngestVpg {
  return {
    definition: opened.definition,
    epoch: opened.epoch,
    durable: [],
    offloaded: [],
    lastCheckpoint: undefined,
    lastMarker: 0 as Ordinal,
    pendingMarkers: [],
  }
}
