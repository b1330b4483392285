import t, { type Test } from 'tap'
import { Preseeds, type PreseedParts } from '../../src/daemon/preseeds.ts'
import { VpgEntry } from '../../src/daemon/vpg-table.ts'
import type { VpgDefinition } from '../../src/timeline/definition.ts'
import { openedVpg } from '../support/opened-vpg.ts'
import { ManualClock } from '../support/wire-manual-clock.ts'

// Jobs of preseeds over an aging that says what it is asked, and answers when it is told to.

function running(t: Test) {
  const clock = new ManualClock()
  const entry = new VpgEntry(openedVpg(), clock)
  const [volume] = entry.definition.volumes
  const begun: { readonly file: string; readonly answer: () => void }[] = []
  const read: string[] = []
  const defined = (file: string, doneRegionCount: number, state: 'under-way' | 'ended'): VpgDefinition => ({
    ...entry.definition,
    volumes: [{ ...volume!, preseed: { state, file, modifiedNanos: '1', doneRegionCount } }],
  })
  const aging: PreseedParts['aging'] = {
    beginPreseed: ({ file }) =>
      new Promise(resolve => begun.push({ file, answer: () => resolve(defined(file, 0, 'under-way')) })),
    preseedRegion: async ({ region }) => {
      const { file = '' } = entry.definition.volumes[0]?.preseed ?? {}
      read.push(file)
      return { dataBytes: 0, definition: defined(file, region + 1, 'under-way') }
    },
    endPreseed: async () => defined('', 1, 'ended'),
  }
  const ended: string[] = []
  const preseeds = new Preseeds({
    ...{ aging, clock },
    redefine: (of, definition) => void (of.definition = definition),
    told: ({ file, state }) => void ended.push(`${file} ${state}`),
  })
  t.teardown(() => preseeds.close())
  const start = (file: string) => preseeds.start(entry, volume!, file)
  const untilEnded = async (): Promise<void> => {
    while (ended.length === 0) await new Promise(resolve => setImmediate(resolve))
  }
  return { entry, begun, read, ended, preseeds, start, untilEnded, defined }
}

t.test('while one is being begun, another of the volume is refused, and its file is never read', async t => {
  const { begun, read, ended, start, untilEnded } = running(t)
  const first = start('/mnt/first.img')
  await t.rejects(start('/mnt/second.img'), { code: 'BUSY' })
  for (const { answer } of begun) answer()
  t.match(await first, { state: 'running', file: '/mnt/first.img' })
  await untilEnded()
  t.same(new Set(read), new Set(['/mnt/first.img']))
  t.same(ended, ['/mnt/first.img done'])
})

t.test('one that has begun when nobody waited any more is gone on with', async t => {
  const { entry, begun, ended, preseeds, start, untilEnded, defined } = running(t)
  const first = start('/mnt/first.img')
  preseeds.resume([entry])
  t.same(preseeds.list(), [], 'it has no job before it is begun')
  begun[0]?.answer()
  await first
  await untilEnded()
  entry.definition = defined('/mnt/late.img', 0, 'under-way')
  preseeds.resume([entry])
  preseeds.resume([entry])
  while (ended.length < 2) await new Promise(resolve => setImmediate(resolve))
  t.same(ended, ['/mnt/first.img done', '/mnt/late.img done'])
})
