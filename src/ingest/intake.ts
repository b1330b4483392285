import type { Clock } from '../base/clock.ts'
import { checkpointOrdinal } from '../base/ids.ts'
import { frameHeaderSizeBytes } from '../base/limits.ts'
import type { JournalWriter } from '../journal/writer.ts'
import type { BatchView, Marker } from '../wire/messages.ts'
import { decodeFrameBody } from '../wire/wire.ts'
import type { IngestEvents } from './events.ts'
import type { StreamFrame } from './frame-receiver.ts'
import type { Stream } from './stream.ts'
import { checkBounds, checkMarker, placeRun, type RecordRun } from './stream-checks.ts'
import type { ServedVpg } from './vpg.ts'

// Steps 6 to 9 of the way of a write: check, append, and, when the journal says so, call it durable.

export interface Intake {
  readonly vpg: ServedVpg
  readonly stream: Stream
  readonly journal: JournalWriter
  readonly clock: Clock
  readonly events: IngestEvents
}

/**
 * Appends the frame's records, or drops a frame that is durable already; true when it was appended. Calls `release` when the
 * sender has its credit back. Fails with the code of the rule that the frame breaks; nothing is then stored.
 */
export function takeStreamFrame(frame: StreamFrame, intake: Intake, release: () => void): boolean {
  const body = frame.slot.frame.subarray(frameHeaderSizeBytes)
  // A marker is small, and protobufjs wants memory that no other thread shares.
  const message = decodeFrameBody(frame.type, frame.type === 'marker' ? body.slice() : body)
  if (message.type === 'write-batch') return takeBatch(message, frame, intake, release)
  if (message.type === 'marker') return takeMarker(message, frame, intake, release)
  return false
}

function takeBatch(batch: BatchView, frame: StreamFrame, intake: Intake, release: () => void): boolean {
  const { vpg, stream, journal, clock, events } = intake
  const { writeCount, rawSizeBytes, timestampMicros } = batch
  const run: RecordRun = {
    generation: batch.generation,
    firstSequence: batch.firstSequence,
    lastSequence: batch.firstSequence + writeCount - 1,
  }
  if (placeRun(run, stream.reached, stream.durable) === 'duplicate') return dropDuplicate(intake, release)
  checkBounds(batch, stream.volumeSizes)
  const takenAtMillis = clock.monotonicMillis()
  const frameSizeBytes = frame.slot.frame.length
  const vpgId = vpg.definition.id
  stream.appended(run)
  const label = { timestampMicros: clock.timestampMicros(), historyMillis: 0 }
  journal.append(frame.slot, { kind: 'batch', ...recordFields(run, frame, intake), ...label }, () => {
    release()
    stream.becameDurable(run)
    const ackLatencyMillis = clock.monotonicMillis() - takenAtMillis
    const sizes = { writeCount, rawSizeBytes, frameSizeBytes }
    events.batchDurable(vpgId, { stream: stream.number, ...sizes, timestampMicros, ackLatencyMillis })
  })
  return true
}

function takeMarker(marker: Marker, frame: StreamFrame, intake: Intake, release: () => void): boolean {
  const { vpg, stream, journal } = intake
  const { generation, sequence } = marker
  const run: RecordRun = { generation, firstSequence: sequence, lastSequence: sequence }
  if (placeRun(run, stream.reached, stream.durable) === 'duplicate') return dropDuplicate(intake, release)
  const { definition, term } = vpg
  const { number, lastMarker, openSyncs } = stream
  checkMarker(marker, { definition, stream: number, term, lastMarker, openSyncs })
  stream.lastMarker = checkpointOrdinal(marker.term, marker.counter)
  stream.appended(run)
  const label = vpg.label(marker)
  const { timestampMicros, historyMillis } = label
  const fields = { kind: 'marker', ...recordFields(run, frame, intake), timestampMicros, historyMillis } as const
  journal.append(frame.slot, fields, () => {
    release()
    stream.becameDurable(run)
    vpg.markerDurable(stream, marker, label)
  })
  return true
}

function dropDuplicate({ vpg, stream, events }: Intake, release: () => void): false {
  release()
  stream.scheduleAck()
  events.duplicateDropped(vpg.definition.id, stream.number)
  return false
}

function recordFields(run: RecordRun, frame: StreamFrame, { vpg, stream }: Intake) {
  return { vpg: vpg.definition.id, stream: stream.number, epoch: vpg.epoch, ...run, frameCrc32c: frame.crc32c }
}
