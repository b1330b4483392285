import { Failure } from '../base/failure.ts'
import type { Position } from '../base/ids.ts'
import { checkpointOrdinal, type Ordinal } from '../base/ids.ts'
import type { VpgDefinition } from '../timeline/definition.ts'
import type { BatchView, Marker, SyncKind } from '../wire/messages.ts'

// What a stream frame is held against before it is appended: the session's rules, as wire/ has seen to all others.

/** The consecutive records of one frame. */
export interface RecordRun {
  readonly generation: number
  readonly firstSequence: number
  readonly lastSequence: number
}

/**
 * Whether the frame carries on exactly where the session is ('next') or is one that is durable already ('duplicate').
 * Fails SYNC_REQUIRED for another generation, SEQUENCE_GAP for anything else.
 */
export function placeRun(run: RecordRun, reached: Position, durable: Position): 'next' | 'duplicate' {
  const generation = reached.generation === 0 ? 1 : reached.generation
  if (run.generation !== generation)
    throw new Failure('SYNC_REQUIRED', `the frame is of generation ${run.generation}, the stream of ${generation}`)
  if (durable.generation === run.generation && run.lastSequence <= durable.sequence) return 'duplicate'
  if (run.firstSequence === reached.sequence + 1) return 'next'
  throw new Failure('SEQUENCE_GAP', `the frame starts at ${run.firstSequence}, the VRA has ${reached.sequence}`, {
    firstSequence: run.firstSequence,
    lastSequence: run.lastSequence,
    reachedSequence: reached.sequence,
    durableSequence: durable.sequence,
  })
}

/** What one stream may write: a volume's size by its number, 0 where there is none, -1 where it is another stream's. */
export type VolumeSizes = readonly number[]

export function volumeSizes(definition: VpgDefinition, stream: number): VolumeSizes {
  const sizes: number[] = []
  for (const volume of definition.volumes) {
    while (sizes.length < volume.number) sizes.push(0)
    sizes[volume.number] = volume.stream === stream ? volume.sizeBytes : -1
  }
  return sizes
}

/** Every write lies in a volume of the stream. Fails UNKNOWN_VOLUME, IDENTITY_REFUSED or OUT_OF_BOUNDS. */
export function checkBounds(batch: BatchView, sizes: VolumeSizes): void {
  const count = batch.writeCount
  for (let index = 0; index < count; index++) {
    const sizeBytes = sizes[batch.volume(index)] ?? 0
    if (batch.offsetBytes(index) + batch.lengthBytes(index) > sizeBytes) throw refusedWrite(batch, index, sizeBytes)
  }
}

function refusedWrite(batch: BatchView, index: number, sizeBytes: number): Failure {
  const volume = batch.volume(index)
  if (sizeBytes === 0) return new Failure('UNKNOWN_VOLUME', `write ${index} of the batch names no volume: ${volume}`)
  if (sizeBytes < 0)
    return new Failure('IDENTITY_REFUSED', `write ${index} of the batch is to volume ${volume}, another agent's`)
  const [offsetBytes, lengthBytes] = [batch.offsetBytes(index), batch.lengthBytes(index)]
  const what = `write ${index} of the batch (${lengthBytes} bytes at ${offsetBytes})`
  const sentence = `${what} lies past the end of volume ${volume}, which has ${sizeBytes} bytes`
  return new Failure('OUT_OF_BOUNDS', sentence, { offsetBytes, lengthBytes, volumeSizeBytes: sizeBytes })
}

export interface MarkerContext {
  readonly definition: VpgDefinition
  readonly stream: number
  /** The term in Welcome. */
  readonly term: number
  readonly lastMarker: Ordinal
  /** The synchronisations that are open in the stream, by the volume's number. */
  readonly openSyncs: ReadonlyMap<number, SyncKind>
}

/**
 * Fails FRAME_INVALID or UNKNOWN_VOLUME. A marker may have waited at the agent while the definition of the VPG changed: it may lack a
 * volume that came since, name one that went, or an older and smaller size; then that is what the checkpoint holds.
 */
export function checkMarker(marker: Marker, context: MarkerContext): void {
  const { definition, stream, term, lastMarker } = context
  if (marker.term > term)
    throw new Failure('FRAME_INVALID', `the marker is of term ${marker.term}, which was not issued: it is ${term}`)
  if (checkpointOrdinal(marker.term, marker.counter) <= lastMarker)
    throw new Failure('FRAME_INVALID', 'the marker is not above the marker before it', {
      term: marker.term,
      counter: marker.counter,
    })
  const strangers = marker.participants.filter(number => !definition.streams.some(known => known.number === number))
  if (strangers.length > 0 || !marker.participants.includes(stream))
    throw new Failure('FRAME_INVALID', `streams ${marker.participants.join(', ')} cannot make a checkpoint of this VPG`)
  const known = [...definition.volumes, ...definition.removedVolumes]
  for (const volume of marker.volumes) {
    const defined = known.find(({ number }) => number === volume.number)
    if (defined === undefined || volume.sizeBytes > defined.sizeBytes)
      throw new Failure('UNKNOWN_VOLUME', `the VPG has no volume ${volume.number} of ${volume.sizeBytes} bytes`)
  }
  if (marker.volumes.length === 0) throw new Failure('FRAME_INVALID', 'the marker names no volume')
  checkOpenSyncs(marker, context)
}

/** No checkpoint lies inside a synchronisation; only a first one may go on beside checkpoints that do not include the volume. */
function checkOpenSyncs(marker: Marker, { openSyncs }: MarkerContext): void {
  for (const [volume, kind] of openSyncs) {
    const included = marker.volumes.find(({ number }) => number === volume)?.included === true
    if (kind === 'initial' && !included) continue
    throw new Failure(
      'FRAME_INVALID',
      `the marker lies inside the synchronisation (${kind}) of volume ${volume}, which is not over`,
      { volume, kind, included },
    )
  }
}
