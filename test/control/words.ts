import t from 'tap'
import { MiB } from '../../src/base/units.ts'
import type { AgentFacts, VolumeFacts, VpgStatus } from '../../src/control/service.ts'
import { progressInWords } from '../../src/control/words.ts'

const nowMicros = 1_790_000_000_000_000

type Parts = {
  readonly agents?: Partial<AgentFacts>[]
  readonly volumes?: Partial<VolumeFacts>[]
  readonly state?: string
}

function inWords({ agents = [], volumes = [], state = 'syncing' }: Parts): string {
  const connected = agents.map(agent => ({ agent: 'host1', state: 'connected', queuedBytes: 0, ...agent }))
  return progressInWords({ agents: connected, volumes, state } as unknown as VpgStatus, nowMicros)
}

t.test('a table says what kind of synchronisation, how far, how fast and for how long yet', async t => {
  const sync: VolumeFacts['sync'] = {
    ...{ kind: 'delta', reason: 'the agent was killed', heldBecause: undefined, sinceMicros: nowMicros - 9e6 },
    ...{ totalBytes: 100 * MiB, doneBytes: 43 * MiB, sentBytes: MiB, rateBytesPerSecond: 10 * MiB, etaMillis: 5700 },
  }
  const text = 'root: delta synchronisation 43 %, 10 MiB/s, 5.7 s left'
  t.equal(inWords({ volumes: [{ name: 'root', sync }] }), text)
  t.equal(inWords({ volumes: [{ name: 'root', sync }, { name: 'data', sync }, { name: 'log' }] }), `${text}; 1 more`)
  const held = { ...sync, heldBecause: 'the journal is full' }
  t.equal(
    inWords({ volumes: [{ name: 'root', sync: held }] }),
    'root: delta synchronisation 43 %, waits: the journal is full',
  )
})

t.test('of an outage since when, and how much waits', async t => {
  const away = { state: 'disconnected', disconnectedAtMicros: nowMicros - 720e6, queuedBytes: 34 * MiB } as const
  t.equal(inWords({ agents: [away] }), 'host1 is away for 12 min, 34 MiB waited when it was last heard')
  t.equal(
    inWords({ agents: [{ ...away, disconnectedAtMicros: undefined, queuedBytes: 0 }] }),
    'host1 is away since the start',
  )
  t.equal(inWords({ agents: [{ queuedBytes: MiB }], state: 'journal-full' }), '1 MiB wait')
  t.equal(inWords({ agents: [{ queuedBytes: MiB }], state: 'protected' }), '', 'a queue of a moment is no news')
})
