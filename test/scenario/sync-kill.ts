import t, { type Test } from 'tap'
import { MiB } from '../../src/base/units.ts'
import { Guest } from '../support/scenario-guest.ts'
import { Scrape } from '../support/scenario-metrics.ts'
import { Scenario } from '../support/scenario-site.ts'
import { agentStatus, Checked, events, fillDisk, syncEnds, untilAgent, untilSynced } from '../support/scenario-sync.ts'

// Either side dies under writes: an agent sends what its dirty map has and no more, and to a VRA nothing that it acknowledged.

const seed = 20_261_127
const sizeBytes = 64 * MiB
const spanBytes = 8 * MiB

async function syncedSite(t: Test) {
  const scenario = await Scenario.make(t)
  await scenario.startVra()
  const agent = await scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: { root: sizeBytes } })
  fillDisk(agent.disk('root'), seed)
  await scenario.createVpg(agent.plan)
  await agent.start()
  await untilSynced(agent)
  return { scenario, agent, checked: new Checked(scenario, agent) }
}

t.test('an agent is killed under writes: the regions that are marked are sent', async t => {
  const { scenario, agent, checked } = await syncedSite(t)
  await checked.tag('before')
  await untilAgent(agent, 'all is offloaded, and no mark is left', ({ volumes }) => volumes[0]?.dirtyBytes === 0)
  for (const round of [1, 2]) {
    const guest = new Guest(await agent.client('root'), { seed: seed + round, spanBytes })
    guest.start()
    await scenario.untilVpg('web', 'writes arrive', ({ writesPerSecond }) => writesPerSecond > 0)
    await agent.process?.kill()
    await guest.rest()
    await agent.start()
    const after = new Guest(await agent.client('root'), { seed: seed + 10 + round, spanBytes })
    after.start()
    await untilSynced(agent)
    await after.rest()
    t.same(after.failures, [], 'guests are served at once')
    const ends = syncEnds(agent)
    t.same(
      ends.map(({ kind }) => kind),
      ['bitmap'],
    )
    const sentBytes = ends[0]?.sentBytes ?? Infinity
    t.ok(sentBytes > 0 && sentBytes <= spanBytes, `${sentBytes} bytes were sent of a disk of ${sizeBytes}`)
    await checked.tag(`killed-${round}`)
    await checked.compareAll(t, `after kill ${round}`)
  }
  await scenario.untilProtected('web')
})

t.test('a VRA is killed under writes: nothing is sent again, and nothing is synchronised', async t => {
  const { scenario, agent, checked } = await syncedSite(t)
  const guest = new Guest(await agent.client('root'), { seed })
  await checked.tag('before')
  const before = await agentStatus(agent)
  const { length: syncCount } = syncEnds(agent)
  for (const round of [1, 2, 3]) {
    guest.start()
    const { durable } = await agentStatus(agent)
    await untilAgent(agent, 'writes are acknowledged', status => status.durable > durable + 100)
    await scenario.vra?.kill()
    const acknowledged = (await agentStatus(agent)).durable
    await scenario.startVra()
    await untilAgent(agent, 'it is connected', ({ link }) => link === 'connected')
    const vpg = await scenario.untilConnected('web')
    t.ok((vpg.agents[0]?.durable.sequence ?? 0) >= acknowledged, 'the VRA has what it acknowledged')
    await scenario.untilVpg('web', 'checkpoints go on', ({ latestCheckpoint }) => {
      return (latestCheckpoint?.timestampMicros ?? 0) > (vpg.latestCheckpoint?.timestampMicros ?? 0)
    })
    await guest.rest()
    await checked.tag(`round-${round}`)
    t.equal((await Scrape.of(scenario.controlUrl)).value('vra_ingest_duplicates_total', 'web') ?? 0, 0)
  }
  t.same(guest.failures, [])
  t.equal((await agentStatus(agent)).generation, before.generation, 'the stream went on exactly')
  t.equal(syncEnds(agent).length, syncCount, 'no synchronisation')
  t.equal(events(agent, 'detached').length, 0)
  await checked.compareAll(t, 'in the end')
})
