import t, { type Test } from 'tap'
import { MiB } from '../../src/base/units.ts'
import { Guest } from '../support/scenario-guest.ts'
import { Scenario } from '../support/scenario-site.ts'
import { agentStatus, Checked, events, fillDisk, syncEnds, untilAgent, untilSynced } from '../support/scenario-sync.ts'
import { Wire } from '../support/scenario-wire.ts'

// Real processes, and what may come to them: a pause, an end of both at once, an end inside a synchronisation, a link that is dead and
// does not say so. Guests go on wherever their agent lives, and every checkpoint is what the disk was.

const seed = 20_261_203
const sizeBytes = 32 * MiB

async function protectedSite(t: Test, options: { readonly wired?: true } = {}) {
  const scenario = await Scenario.make(t)
  await scenario.startVra()
  const wire = options.wired === undefined ? undefined : await Wire.open(t, scenario.agentsPort)
  const agent = await scenario.placeAgent({
    agentId: 'host',
    vpg: 'web',
    volumes: { root: sizeBytes },
    ...(wire === undefined ? {} : { vra: `{ port: ${wire.port} }` }),
  })
  fillDisk(agent.disk('root'), seed)
  await scenario.createVpg(agent.plan)
  await agent.start()
  await untilSynced(agent)
  const checked = new Checked(scenario, agent)
  const guest = new Guest(await agent.client('root'), { seed, spanBytes: 4 * MiB })
  await guest.runFor(100)
  await checked.tag('before')
  return { scenario, agent, checked, guest, wire }
}

t.test('paused and resumed on the command line: what was written meanwhile is sent', async t => {
  const { scenario, agent, checked, guest } = await protectedSite(t)
  await untilAgent(agent, 'no mark is left', ({ volumes }) => volumes[0]?.dirtyBytes === 0)
  guest.start()
  t.equal((await scenario.cli('vpg', 'pause', 'web')).status, 0)
  await untilAgent(agent, 'it is paused', ({ paused, stream }) => paused && stream === 'detached')
  const paused = await scenario.vpg('web')
  t.match(paused, { state: 'paused', noCheckpointsBecause: /paused/ })
  const { checkpointCount } = paused
  const { writeCount } = guest
  await untilAgent(agent, 'guests write on', () => guest.writeCount > writeCount + 100)
  const refused = await scenario.cli('checkpoint', 'tag', 'web', 'inside')
  t.not(refused.status, 0)
  t.match(refused.stderr, /paused/)
  t.equal((await scenario.vpg('web')).checkpointCount, checkpointCount, 'and there are no checkpoints')
  await agent.process?.stop()
  await agent.start()
  await untilAgent(agent, 'it is paused after a restart, too', status => status.paused && status.link === 'connected')
  t.equal((await scenario.cli('vpg', 'resume', 'web')).status, 0)
  await untilSynced(agent)
  t.ok((syncEnds(agent).at(-1)?.sentBytes ?? Infinity) <= 8 * MiB, 'what was written, no more')
  await guest.rest()
  await checked.tag('after')
  await checked.compareAll(t, 'after the pause')
  await scenario.untilProtected('web')
})

t.test('both sides are killed at once, again and again', async t => {
  const { scenario, agent, checked } = await protectedSite(t)
  for (const round of [1, 2, 3]) {
    const guest = new Guest(await agent.client('root'), { seed: seed + round, spanBytes: 4 * MiB })
    guest.start()
    const { durable } = await agentStatus(agent)
    await untilAgent(agent, 'writes are acknowledged', status => status.durable > durable + 20)
    await Promise.all([agent.process?.kill(), scenario.vra?.kill()])
    await guest.rest()
    await Promise.all([scenario.startVra(), agent.start()])
    await untilSynced(agent)
    await checked.tag(`killed-${round}`)
    await checked.compareAll(t, `after kill ${round}`)
  }
  await scenario.untilProtected('web')
})

t.test('either side is killed inside a synchronisation, which then goes on', async t => {
  const { scenario, agent, checked } = await protectedSite(t)
  // So slowly that it is not over before a killed VRA is back, on a slow machine, too: the agent goes on meanwhile.
  await scenario.control.changeVpg('web', { syncRateBytesPerSecond: 1 * MiB })
  await scenario.control.requestSync('web', { kind: 'full' })
  const inside = (share: number) =>
    scenario.untilVpg('web', 'inside the synchronisation', ({ volumes: [volume] }) => {
      return (volume?.sync?.doneBytes ?? 0) >= sizeBytes * share
    })
  await inside(1 / 16)
  const before = (await scenario.vpg('web')).latestCheckpoint?.checkpoint
  await scenario.vra?.kill()
  await scenario.startVra()
  await inside(1 / 8)
  await agent.process?.kill()
  await agent.start()
  const resumed = await untilAgent(
    agent,
    'it is connected',
    ({ link, stream }) => link === 'connected' && stream === 'exact',
  )
  t.not(resumed.volumes[0]?.sync, 'none')
  t.equal((await scenario.vpg('web')).latestCheckpoint?.checkpoint, before, 'no checkpoint lies inside')
  await checked.compareAll(t, 'inside')
  await scenario.control.changeVpg('web', { syncRateBytesPerSecond: 0 })
  await untilSynced(agent)
  await checked.tag('after')
  await checked.compareAll(t, 'after it')
})

t.test('a link that is dead and does not say so is found by both, and another is opened', async t => {
  const { scenario, agent, checked, guest, wire } = await protectedSite(t, { wired: true })
  guest.start()
  wire?.silence()
  await untilAgent(agent, 'writes wait', ({ queuedBytes }) => queuedBytes > 0)
  await untilAgent(agent, 'it is connected again', ({ link, queuedBytes }) => {
    return link === 'connected' && queuedBytes === 0 && events(agent, 'linkDown').length > 0
  })
  t.match(events(agent, 'linkDown'), [{ code: 'TIMED_OUT' }])
  await guest.rest()
  t.same(guest.failures, [], 'no guest felt it')
  t.same(
    syncEnds(agent).filter(({ kind }) => kind !== 'initial'),
    [],
    'the queue reached across',
  )
  await checked.tag('after')
  await checked.compareAll(t, 'after the silence')
  await scenario.untilProtected('web')
})
