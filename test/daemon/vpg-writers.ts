import t from 'tap'
import { Failure } from '../../src/base/failure.ts'
import { VpgWriters, type VpgWritersParts } from '../../src/daemon/vpg-writers.ts'
import type { Checkpoint } from '../../src/timeline/checkpoint.ts'
import { withWriting, type WritingChange } from '../../src/timeline/definition-change.ts'
import { VpgEntry } from '../../src/daemon/vpg-table.ts'
import { openedVpg } from '../support/opened-vpg.ts'
import { ManualClock } from '../support/wire-manual-clock.ts'

const { id } = openedVpg().definition
const last = { ordinal: 77 } as unknown as Checkpoint

function site(answers: readonly (Failure | Checkpoint)[]) {
  const clock = new ManualClock()
  const entry = new VpgEntry(openedVpg(), clock)
  const steps: string[] = []
  const quiesced = new Map<string, string>()
  const waiting = [...answers]
  const parts = {
    clock,
    aging: {
      changeWriting: async ({ change }: { readonly change: WritingChange }) => {
        steps.push(`saved ${JSON.stringify(change)}`)
        return withWriting(entry.definition, change)
      },
    },
    table: { get: () => entry },
    ingest: {
      updateVpg: () => void steps.push('told'),
      status: () => ({
        streams: entry.definition.streams.map(({ number, agent }) => {
          return { stream: number, agent, session: {}, agentStatus: { quiescedBy: quiesced.get(agent) ?? '' } }
        }),
        noCheckpointsBecause: undefined,
      }),
      requestCheckpoint: async () => {
        steps.push('asked for a checkpoint')
        const answer = waiting.shift()
        if (answer instanceof Failure) throw answer
        return answer
      },
    },
  } as unknown as VpgWritersParts
  return { clock, entry, steps, quiesced, writers: new VpgWriters(parts), agent: entry.definition.streams[0]!.agent }
}

const settled = async (): Promise<void> => {
  for (let turn = 0; turn < 20; turn++) await new Promise(resolve => setImmediate(resolve))
}

t.test(
  'the last checkpoint is asked for when every agent has said that nothing is written for this operation',
  async t => {
    const { clock, entry, steps, quiesced, writers, agent } = site([
      new Failure('SYNC_REQUIRED', 'it is synchronised'),
      last,
    ])
    const words: string[] = []
    const { signal } = new AbortController()
    const drained = writers.drain(id, 'r-2', { signal, waitsFor: sentence => words.push(sentence) })
    await settled()
    t.same(steps, ['saved {"kind":"quiesce","by":"r-2"}', 'told'])
    quiesced.set(agent, 'r-1')
    await clock.advance(1000)
    t.same(steps.length, 2, 'what was said for another operation does not count')
    t.match(words.at(-1), /the writing ends at a/)
    quiesced.set(agent, 'r-2')
    await clock.advance(1000)
    t.equal(await drained, last)
    t.same(steps.slice(2), ['asked for a checkpoint', 'asked for a checkpoint'])
    t.match(words.at(-1), /synchronised/)

    await writers.undrain(id, 'r-1')
    t.equal(entry.definition.quiescedBy, 'r-2', 'another operation releases nothing')
    await writers.undrain(id, 'r-2')
    t.equal(entry.definition.quiescedBy, '')
  },
)

t.test('a cancellation ends the waiting, and a paused VPG is not moved', async t => {
  const { entry, writers } = site([])
  const stop = new AbortController()
  const drained = writers.drain(id, 'r-2', { signal: stop.signal, waitsFor: () => undefined })
  await settled()
  stop.abort()
  await t.rejects(drained, { code: 'CLOSING' })
  entry.definition = { ...entry.definition, paused: true }
  const paused = writers.drain(id, 'r-3', { signal: stop.signal, waitsFor: () => undefined })
  await t.rejects(paused, { code: 'REQUEST_INVALID' })
})

t.test('the machines are handed over once, and write again there', async t => {
  const { entry, writers } = site([])
  entry.definition = { ...entry.definition, quiescedBy: 'r-2' }
  await writers.handOver(id, 2)
  t.match(entry.definition, { incarnation: 2, quiescedBy: '' })
  await writers.handOver(id, 2)
  t.equal(entry.definition.incarnation, 2)
})

t.test('what nobody waited for, and took effect all the same, is released', async t => {
  const { entry, steps, writers } = site([])
  // In the store it says "r-2" by now; what is known here is older.
  const known = entry.definition
  entry.definition = { ...known, quiescedBy: 'r-2' }
  const saved = entry.definition
  entry.definition = known
  t.equal(withWriting(saved, { kind: 'release', by: 'r-2' }).quiescedBy, '')
  await writers.undrain(id, 'r-2')
  t.same(steps, ['saved {"kind":"release","by":"r-2"}', 'told'], 'the store is asked, whatever is known here')
})
