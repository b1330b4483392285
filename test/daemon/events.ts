import t from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { vpgId } from '../../src/base/ids.ts'
import { agingHandlers, both, catalogEvents, type AgingListeners } from '../../src/daemon/events.ts'
import type { Log } from '../../src/daemon/log.ts'
import { VpgEntry, VpgTable } from '../../src/daemon/vpg-table.ts'
import { openedVpg } from '../support/opened-vpg.ts'

interface Events {
  began(name: string): void
  ended(name: string, millis: number): void
}

t.test('an event is counted, then listened to; what has no listener is counted all the same', t => {
  const told: string[] = []
  const counted: Events = {
    began: name => void told.push(`counted ${name}`),
    ended: (name, millis) => void told.push(`counted ${name} ${millis}`),
  }
  const events = both(counted, { ended: (name, millis) => void told.push(`heard ${name} ${millis}`) })
  events.began('a')
  events.ended('a', 5)
  t.same(told, ['counted a', 'counted a 5', 'heard a 5'])
  t.end()
})

t.test('an index that fails several times a second is told of once a minute', t => {
  const told: unknown[] = []
  let nowMillis = 0
  const log = { warn: (facts: unknown) => void told.push(facts) } as unknown as Log
  const { catalogFailing } = catalogEvents(log, { monotonicMillis: () => nowMillis }, t.fail)
  for (; nowMillis <= 60_000; nowMillis += 200) catalogFailing('the disk is full')
  catalogFailing('the disk fails')
  const full = { sentence: 'the disk is full' }
  t.strictSame(told, [full, full, { sentence: 'the disk fails' }])
  t.end()
})

t.test('who owns nothing any more stands down, but not while VPGs wait of which nothing is known', t => {
  const opened = openedVpg()
  const vpg = opened.definition.id
  const table = new VpgTable()
  const sentences: string[] = []
  const listeners = {
    ...{
      table,
      ingest: () => undefined,
      log: { fatal: () => undefined },
      metrics: { aging: { fenced: () => undefined } },
    },
    ...{ fenced: () => undefined, allFenced: (sentence: string) => void sentences.push(sentence) },
  }
  const { fenced } = agingHandlers(listeners as unknown as AgingListeners)
  const other = vpgId('77'.repeat(16))
  table.add(new VpgEntry(opened, systemClock))
  table.waiting.set(vpg, 'it was remembered')
  table.waiting.set(other, 'it has its turn after the others')
  fenced?.({ vpg, sentence: 'another one has it' })
  t.same(sentences, [])
  table.waiting.delete(other)
  fenced?.({ vpg, sentence: 'another one has it' })
  t.same(sentences, ['another one has it'])
  t.end()
})
