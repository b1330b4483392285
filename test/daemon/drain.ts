import t from 'tap'
import { Failure } from '../../src/base/failure.ts'
import { Drain, type DrainParts } from '../../src/daemon/drain.ts'
import type { Checkpoint } from '../../src/timeline/checkpoint.ts'
import { VpgEntry } from '../../src/daemon/vpg-table.ts'
import { openedVpg } from '../support/opened-vpg.ts'
import { ManualClock } from '../support/wire-manual-clock.ts'

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
      changeVpg: async ({ quiescedBy }: { readonly quiescedBy: string }) => {
        steps.push(`saved "${quiescedBy}"`)
        return { ...entry.definition, quiescedBy }
      },
    },
    ingest: {
      updateVpg: () => void steps.push('told'),
      status: () => ({
        streams: entry.definition.streams.map(({ number, agent }) => {
          return { stream: number, agent, agentStatus: { quiescedBy: quiesced.get(agent) ?? '' } }
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
  } as unknown as DrainParts
  return { clock, entry, steps, quiesced, drain: new Drain(parts), agent: entry.definition.streams[0]!.agent }
}

const settled = async (): Promise<void> => {
  for (let turn = 0; turn < 20; turn++) await new Promise(resolve => setImmediate(resolve))
}

t.test(
  'the last checkpoint is asked for when every agent has said that nothing is written for this operation',
  async t => {
    const { clock, entry, steps, quiesced, drain, agent } = site([
      new Failure('SYNC_REQUIRED', 'it is synchronised'),
      last,
    ])
    const words: string[] = []
    const { signal } = new AbortController()
    const drained = drain.drain(entry, 'r-2', { signal, waitsFor: sentence => words.push(sentence) })
    await settled()
    t.same(steps, ['saved "r-2"', 'told'])
    quiesced.set(agent, 'r-1')
    await clock.advance(1000)
    t.same(steps.length, 2, 'what was said for another operation does not count')
    t.match(words.at(-1), /writes are ending/)
    quiesced.set(agent, 'r-2')
    await clock.advance(1000)
    t.equal(await drained, last)
    t.same(steps.slice(2), ['asked for a checkpoint', 'asked for a checkpoint'])
    t.match(words.at(-1), /synchronised/)

    await drain.release(entry, 'r-1')
    t.equal(steps.length, 4, 'another operation releases nothing')
    await drain.release(entry, 'r-2')
    t.same(steps.slice(4), ['saved ""', 'told'])
  },
)

t.test('what was asked for before a restart is not asked for again, and a cancellation ends the waiting', async t => {
  const { entry, steps, drain } = site([])
  entry.definition = { ...entry.definition, quiescedBy: 'r-2' }
  const stop = new AbortController()
  const drained = drain.drain(entry, 'r-2', { signal: stop.signal, waitsFor: () => undefined })
  await settled()
  t.same(steps, [])
  stop.abort()
  await t.rejects(drained, { code: 'CLOSING' })
  entry.definition = { ...entry.definition, paused: true }
  await t.rejects(drain.drain(entry, 'r-3', { signal: stop.signal, waitsFor: () => undefined }), {
    code: 'REQUEST_INVALID',
  })
})
