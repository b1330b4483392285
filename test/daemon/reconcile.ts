import t from 'tap'
import type { OpenedVpg } from '../../src/aging/service.ts'
import { checkpointOrdinal, sequence, vpgId } from '../../src/base/ids.ts'
import { newestOfEachName, reconcile } from '../../src/daemon/reconcile.ts'
import type { RecoveredLog } from '../../src/journal/journal.ts'
import type { RecordHeader } from '../../src/journal/record.ts'
import type { Checkpoint } from '../../src/timeline/checkpoint.ts'
import { encodeFrame } from '../../src/wire/wire.ts'
import { openedVpg } from '../support/opened-vpg.ts'

const { id } = openedVpg().definition

function checkpoint(counter: number): Checkpoint {
  return {
    ordinal: checkpointOrdinal(1, counter),
    timestampMicros: counter * 1_000_000,
    historyMillis: counter * 1000,
    vector: [{ stream: 1, generation: 1, sequence: sequence(counter) }],
    volumes: [{ number: 1, sizeBytes: 4096, included: true }],
  }
}

/** A log whose only records are the markers of checkpoints 1 to `count`. */
function logOfMarkers(count: number): RecoveredLog {
  const markers = Array.from({ length: count }, (_, index) => {
    const counter = index + 1
    const frame = encodeFrame({
      type: 'marker',
      generation: 1,
      sequence: counter,
      term: 1,
      counter,
      timestampMicros: counter,
      participants: [1],
      volumes: [{ number: 1, sizeBytes: 4096, included: true }],
      requestId: 0,
    })
    const header: RecordHeader = {
      kind: 'marker',
      fileIdentity: 1,
      offsetBytes: 8192 + index * 4096,
      vpg: id,
      stream: 1,
      epoch: 1,
      generation: 1,
      firstSequence: counter,
      lastSequence: counter,
      durableOffsetBytes: 0,
      frameSizeBytes: frame.length,
      frameCrc32c: 0,
      timestampMicros: counter * 1_000_000,
      historyMillis: counter * 1000,
    }
    return { header, frame }
  })
  return {
    streams: [{ vpg: id, stream: 1, epoch: 1, generation: 1, lastSequence: count }],
    records: [],
    untoldCount: 0,
    markers,
    damage: [],
    tornTail: undefined,
    durable: { fileIdentity: 1, offsetBytes: 8192 + count * 4096 },
    files: [{ fileIdentity: 1, recordCount: count }],
  }
}

t.test('checkpoints that were thinned do not come back though their markers are still in the log', t => {
  const opened = openedVpg({
    historyEdge: checkpointOrdinal(1, 1),
    offloaded: [{ stream: 1, generation: 1, sequence: sequence(8) }],
    checkpoints: [1, 4, 8].map(checkpoint),
  })
  const [found] = reconcile([opened], logOfMarkers(10))
  t.strictSame(
    found?.logCheckpoints.map(({ ordinal }) => ordinal - checkpointOrdinal(1, 0)),
    [1, 4, 8, 9, 10],
  )
  t.end()
})

t.test('checkpoints that left the history do not come back though their markers are still in the log', t => {
  const opened = openedVpg({
    historyEdge: checkpointOrdinal(1, 6),
    offloaded: [{ stream: 1, generation: 1, sequence: sequence(8) }],
    // The second is tagged, so the store has it still.
    checkpoints: [2, 6, 7, 8].map(checkpoint),
  })
  const [found] = reconcile([opened], logOfMarkers(10))
  t.same(
    found?.logCheckpoints.map(each => each.ordinal),
    [2, 6, 7, 8, 9, 10].map(counter => checkpointOrdinal(1, counter)),
  )
  t.equal(found?.ingest.lastCheckpoint?.ordinal, checkpointOrdinal(1, 10))
  t.end()
})

t.test('a stream is durable up to the further of store and log, and terms go on above every marker', t => {
  const offloaded = [{ stream: 1, generation: 1, sequence: sequence(20) }]
  const stored = { ...checkpoint(20), ordinal: checkpointOrdinal(3, 20) }
  const [ahead] = reconcile([openedVpg({ offloaded, checkpoints: [stored] })], logOfMarkers(10))
  t.same(ahead?.ingest.durable, offloaded, 'the files of its newest records were freed')
  t.equal(ahead?.ingest.lastMarker, checkpointOrdinal(3, 20))
  const [behind] = reconcile([openedVpg()], logOfMarkers(10))
  t.same(behind?.ingest.durable, [{ stream: 1, generation: 1, sequence: 10 }])
  t.equal(behind?.ingest.lastMarker, checkpointOrdinal(1, 10))
  t.end()
})

t.test('records of a VPG that is not there any more say nothing of one that was created with its name', t => {
  const again = openedVpg()
  const created = { ...again, definition: { ...again.definition, id: vpgId('77'.repeat(16)) } }
  const [found] = reconcile([created], logOfMarkers(10))
  t.same(found?.ingest.durable, [{ stream: 1, generation: 0, sequence: 0 }])
  t.same(found?.logCheckpoints, [])
  t.equal(found?.ingest.lastMarker, 0)
  t.end()
})

t.test('of two VPGs with one name the newer is served: the older is a creation that took effect too late', t => {
  const base = openedVpg()
  const named = (name: string, digit: string, createdAtMicros: number): OpenedVpg => ({
    ...base,
    definition: { ...base.definition, id: vpgId(digit.repeat(32)), name, createdAtMicros },
  })
  const [late, used, other] = [named('shop', '1', 100), named('shop', '2', 200), named('web', '3', 50)]
  for (const found of [
    [late, used, other],
    [other, used, late],
  ]) {
    const { served, replaced } = newestOfEachName(found)
    t.same(new Set(served), new Set([used, other]))
    t.same(replaced, [late])
  }
  t.end()
})

t.test(
  'a cut that one stream has got through is pending, whether its marker is in the log or in a segment',
  async t => {
    const marker = (stream: number, counter: number) => ({
      type: 'marker' as const,
      ...{ stream, generation: 1, sequence: counter, term: 1, counter, requestId: 0 },
      ...{ timestampMicros: counter, historyMillis: counter, participants: [1, 2] },
      volumes: [{ number: 1, sizeBytes: 4096, included: true }],
    })
    const logged = (stream: number, counter: number) => ({
      header: { ...(logOfMarkers(1).markers[0]?.header as RecordHeader), stream },
      frame: encodeFrame(marker(stream, counter)),
    })
    const log = { ...logOfMarkers(0), markers: [logged(1, 2), logged(2, 1), logged(1, 3)] }
    const [found] = reconcile([openedVpg({ pendingMarkers: [marker(1, 1)] })], log)
    t.same(
      found?.logCheckpoints.map(({ ordinal }) => ordinal),
      [checkpointOrdinal(1, 1)],
      'the segment has one half, the log the other',
    )
    t.same(
      found?.ingest.pendingMarkers.map(({ counter }) => counter),
      [2, 3],
    )
    t.equal(found?.ingest.lastMarker, checkpointOrdinal(1, 3))
  },
)

t.test('of markers up to the last delta the store tells which are checkpoints', async t => {
  const [opened] = [openedVpg({ foldedThrough: [{ stream: 1, generation: 1, sequence: sequence(2) }] })]
  const [found] = reconcile([opened], logOfMarkers(3))
  t.same(
    found?.logCheckpoints.map(({ ordinal }) => ordinal),
    [checkpointOrdinal(1, 3)],
    'the others were given up, or are in a delta',
  )
})
