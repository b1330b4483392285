import t from 'tap'
import { fileSystemSizeBytes } from '../../src/disk/disk.ts'
import { GiB } from '../../src/base/units.ts'
import type { VpgStatus } from '../../src/control/service.ts'
import { journalLimitAlerts, journalLimitsOf } from '../../src/daemon/journal-limits.ts'
import type { StoreConfig } from '../../src/store/object-store.ts'

const none = { journalWarnSizeBytes: 0, journalLimitSizeBytes: 0 }

t.test('a share is one of the disk that holds the store, and what is not named stays', async t => {
  const directory = t.testdir()
  const store: StoreConfig = { kind: 'directory', directory }
  const before = { journalWarnSizeBytes: GiB, journalLimitSizeBytes: 2 * GiB }
  t.same(journalLimitsOf({}, before, store), before)
  t.same(journalLimitsOf({ journalWarnSizeBytes: 0 }, before, store), { ...before, journalWarnSizeBytes: 0 })
  const half = journalLimitsOf({ journalLimitSizeBytes: '50%' }, none, store)
  t.same(half, { ...none, journalLimitSizeBytes: Math.floor(fileSystemSizeBytes(directory) / 2) })
})

t.test('a share of no disk, and a warning after the limit, are refused in words', async t => {
  const refusal = (message: RegExp) => ({ code: 'REQUEST_INVALID', message })
  const bucket = { kind: 's3', bucket: 'b', prefix: '' } as unknown as StoreConfig
  t.throws(() => journalLimitsOf({ journalLimitSizeBytes: '20%' }, none, bucket), refusal(/not on a disk.* not 20%/))
  const before = { journalWarnSizeBytes: 2 * GiB, journalLimitSizeBytes: 0 }
  t.throws(() => journalLimitsOf({ journalLimitSizeBytes: GiB }, before, bucket), refusal(/would come after the limit/))
})

function sentences(historySizeBytes: number, limits: typeof none, agedEarlySinceMicros?: number): string[] {
  const mirror = { historySizeBytes, historyMillis: 3 * 3_600_000, agedEarlySinceMicros }
  const vpg = { name: 'orders', ...limits, historyMillis: 24 * 3_600_000, mirror, volumes: [] } as unknown as VpgStatus
  return journalLimitAlerts(vpg).map(({ sentence }) => sentence)
}

t.test('what is told of a history follows what it takes', async t => {
  const limits = { journalWarnSizeBytes: 30 * GiB, journalLimitSizeBytes: 40 * GiB }
  t.same(sentences(100 * GiB, none), [])
  t.same(sentences(30 * GiB, limits), [])
  t.match(sentences(31 * GiB, limits), [/takes 31 GiB of 40 GiB, more than the 30 GiB to warn at/])
  t.match(sentences(41 * GiB, limits), [/takes 41 GiB, more than its limit of 40 GiB/])
})

t.test('that it is shorter than it should be is told with since when and why, until it is not', async t => {
  const limits = { journalWarnSizeBytes: 0, journalLimitSizeBytes: 40 * GiB }
  const short = /the history is 3 h, not 1 d: since 2026-01-01 00:00:00.000Z it is cut short by the limit, 40 GiB/
  const since = Date.UTC(2026, 0, 1) * 1000
  t.match(sentences(GiB, limits, since), [short])
  t.match(sentences(GiB, none, since), [/cut short by the limit that it had/])
})

t.test('a synchronisation that waits is told of, unless its image is still being handed over', async t => {
  const sync = { heldBecause: 'there is no room' }
  const volumes = [
    { name: 'held', sync },
    { name: 'preseeding', sync, preseed: { state: 'under-way' } },
    { name: 'going', sync: {} },
    { name: 'still' },
  ]
  const mirror = { historySizeBytes: 0, historyMillis: 0 }
  const vpg = { name: 'orders', ...none, historyMillis: 0, mirror, volumes } as unknown as VpgStatus
  t.same(journalLimitAlerts(vpg), [
    { severity: 'warning', vpg: 'orders', sentence: 'the synchronisation of volume held waits: there is no room' },
  ])
})
