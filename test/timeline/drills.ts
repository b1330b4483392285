import t from 'tap'
import { drillsKeptMax, recoveriesKeptMax, recoveriesUnfinishedMax } from '../../src/base/limits.ts'
import { checkpointOrdinal } from '../../src/base/ids.ts'
import { drillDueAtMicros, type DrillSchedule } from '../../src/timeline/drill-schedule.ts'
import { newestProven, withRecovery, type DrillOutcome, type RecoveryRecord } from '../../src/timeline/recovery.ts'
import { checkpoint } from '../support/recovery-world.ts'

const minute = 60_000_000
const hour = 60 * minute
const day = 24 * hour
const midnight = Date.parse('2026-11-26T00:00:00Z') * 1000

function scheduled(when: DrillSchedule['when'], setAtMicros: number): DrillSchedule {
  return { when, check: 'fsck', target: { kind: 'nbd', settings: {} }, setAtMicros }
}

t.test('an interval counts from when the last one was begun, and from when it was asked for', async t => {
  const every = scheduled({ everyMillis: 3_600_000 }, midnight)
  t.equal(drillDueAtMicros(every, undefined, midnight + minute), midnight + hour)
  t.equal(drillDueAtMicros(every, midnight - hour, midnight + minute), midnight + hour, 'it was changed since')
  t.equal(drillDueAtMicros(every, midnight + 2 * hour, midnight + 9 * hour), midnight + 3 * hour, 'it stays due')
  const later = midnight + 20 * hour
  t.equal(drillDueAtMicros(every, later, midnight + minute), midnight + hour, 'a clock that was set back')
})

t.test('at a time of the day it is due for an hour, once', async t => {
  const at = scheduled({ minuteOfDay: 3 * 60 + 30 }, midnight)
  const due = midnight + 3.5 * hour
  t.equal(drillDueAtMicros(at, undefined, midnight + minute), due)
  t.equal(drillDueAtMicros(at, undefined, due + 59 * minute), due, 'it may be late')
  t.equal(drillDueAtMicros(at, undefined, due + 61 * minute), due + day, 'not by day, when it was meant for the night')
  t.equal(drillDueAtMicros(at, due + minute, due + 2 * minute), due + day, 'it was')
  t.equal(drillDueAtMicros(scheduled(at.when, due + minute), undefined, due + 2 * minute), due + day, 'asked for since')
})

function ended(id: number, outcome: DrillOutcome | undefined, counter = 1): RecoveryRecord {
  return {
    ...{ formatVersion: 1, id: `r-${id}`, kind: 'test', incarnation: 1, handOver: 'none', state: 'removed' },
    checkpoint: { ...checkpoint, ordinal: checkpointOrdinal(3, counter) },
    ...{ vms: [], target: { kind: 'nbd', settings: {} }, commitPolicy: { kind: 'none', afterMillis: 1 }, memory: null },
    ...{ createdAtMicros: id, readyAtMicros: id, endedAtMicros: id + 1, failure: undefined },
    ...(outcome === undefined
      ? {}
      : { drill: { by: 'schedule', check: 'fsck', checkedBy: 'daemon', result: { outcome } } }),
  }
}

t.test('drills are bounded, take nobody else away, and never lose what was proven', async t => {
  let kept = withRecovery({ recoveries: [], pins: [] }, ended(1, undefined))
  kept = withRecovery(kept, ended(2, 'passed', 70))
  kept = withRecovery(kept, ended(3, 'passed', 20))
  t.equal(newestProven(kept.recoveries)?.id, 'r-2', 'the newest checkpoint, not the last drill')
  for (let id = 10; id < 10 + 2 * drillsKeptMax; id++) kept = withRecovery(kept, ended(id, 'failed', 80))
  const ids = kept.recoveries.map(record => record.id)
  t.equal(ids.length, 1 + 1 + drillsKeptMax)
  t.ok(ids.includes('r-1'), "a person's")
  t.ok(ids.includes('r-2'), 'the proof')
  t.notOk(ids.includes('r-3') || ids.includes('r-10'), 'the oldest')
  for (let id = 1000; id < 1000 + 2 * recoveriesKeptMax; id++) kept = withRecovery(kept, ended(id, undefined))
  t.equal(kept.recoveries.length, recoveriesKeptMax + 1 + drillsKeptMax)
  t.equal(newestProven(kept.recoveries)?.id, 'r-2')
})

t.test('a drill takes no place that a recovery needs', async t => {
  const ready = (id: number, isDrill: boolean): RecoveryRecord => ({
    ...ended(id, isDrill ? 'passed' : undefined),
    ...{ state: 'ready', endedAtMicros: undefined },
  })
  let kept = withRecovery({ recoveries: [], pins: [] }, ready(1, true))
  for (let id = 2; id < 2 + recoveriesUnfinishedMax; id++) kept = withRecovery(kept, ready(id, false))
  t.throws(() => withRecovery(kept, ready(100, false)), { code: 'BUSY' })
})
