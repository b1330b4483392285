import t from 'tap'
import { StreamProgress } from '../../src/daemon/stream-progress.ts'
import type { AgentStatus, SyncKind } from '../../src/wire/messages.ts'
import { SteppedClock } from '../support/aging-surroundings.ts'

function statusOf(sync: SyncKind, syncDoneBytes: number, syncTotalBytes = 10_000): AgentStatus {
  const volume = { number: 1, needsSync: true, reason: '', sinceTimestampMicros: 1, syncSentBytes: 0, dirtyBytes: 0 }
  return {
    type: 'agent-status',
    queuedBytes: 0,
    queuedRecords: 0,
    volumes: [{ ...volume, sync, syncTotalBytes, syncDoneBytes }],
    noCheckpointsBecause: '',
    quiescedBy: '',
  }
}

t.test('the rate of a synchronisation is that of the last seconds', async t => {
  const clock = new SteppedClock()
  const progress = new StreamProgress(clock)
  t.same(progress.syncRate(1), { rateBytesPerSecond: 0, etaMillis: undefined }, 'nothing is known')
  progress.statusChanged(statusOf('bitmap', 1000))
  clock.advance(2000)
  progress.statusChanged(statusOf('bitmap', 3000))
  t.same(progress.syncRate(1), { rateBytesPerSecond: 1000, etaMillis: 7000 })
  clock.advance(12_000)
  t.same(progress.syncRate(1), { rateBytesPerSecond: 0, etaMillis: undefined }, 'what was said long ago is no rate')
  progress.statusChanged(statusOf('delta', 100))
  t.equal(progress.syncRate(1).rateBytesPerSecond, 0, 'another one begins anew')
  progress.statusChanged(statusOf('none', 0))
  t.equal(progress.syncRate(1).rateBytesPerSecond, 0)
})

t.test('the lag is the age of the oldest write that may be missing', async t => {
  const clock = new SteppedClock()
  const progress = new StreamProgress(clock)
  const sent = { isConnected: true, queuedBytes: 0, waitingFrameCount: 0 }
  t.same(progress.backlog(1, sent), { lagMillis: 0, backlogBytes: 0, etaMillis: 0 })
  const batch = { stream: 1, frameSizeBytes: 5000, writeCount: 2, timestampMicros: clock.timestampMicros() }
  progress.batchDurable(batch)
  clock.advance(3000)
  const waiting = { isConnected: true, queuedBytes: 2000, waitingFrameCount: 0 }
  const { lagMillis, backlogBytes, etaMillis } = progress.backlog(1, waiting)
  t.equal(lagMillis, 3000, 'since the newest write that is here')
  t.equal(backlogBytes, 2000)
  t.equal(etaMillis, 2000, 'at 1,000 bytes a second, the mean of five')
  progress.sessionClosed(1)
  clock.advance(4000)
  t.equal(progress.backlog(1, { ...sent, isConnected: false }).lagMillis, 4000, 'away, and had sent all')
  t.equal(progress.backlog(1, { ...waiting, isConnected: false }).lagMillis, 7000)
  progress.sessionOpened(1)
  t.equal(progress.awaySinceMicros(1), undefined)
})
