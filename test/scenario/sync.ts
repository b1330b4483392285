import t from 'tap'
import { MiB } from '../../src/base/units.ts'
import { Guest } from '../support/scenario-guest.ts'
import { Scenario } from '../support/scenario-site.ts'
import { Checked, fillDisk, syncEnds, untilAgent, untilSynced } from '../support/scenario-sync.ts'
import { Wire } from '../support/scenario-wire.ts'

// A disk that already holds data is protected while its guest writes; then the link is away for longer than the queue reaches.

const seed = 20_261_126
const sizeBytes = 48 * MiB

t.test('a disk with data: sent once while the guest writes, paced, and gone on with after a restart', async t => {
  const scenario = await Scenario.make(t)
  await scenario.startVra()
  const agent = await scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: { root: sizeBytes } })
  const dataBytes = fillDisk(agent.disk('root'), seed)
  await scenario.createVpg(agent.plan)
  await scenario.control.changeVpg('web', { syncRateBytesPerSecond: 8 * MiB })
  await agent.start()
  const guest = new Guest(await agent.client('root'), { seed })
  guest.start()
  const syncing = await scenario.untilVpg('web', 'a part is sent', ({ state, volumes: [volume] }) => {
    return state === 'syncing' && (volume?.sync?.doneBytes ?? 0) >= sizeBytes / 4
  })
  await scenario.control.changeVpg('web', { syncRateBytesPerSecond: 1 * MiB }) // so that it is not over before it was looked at
  t.match(syncing.volumes[0]?.sync, { kind: 'initial', reason: /first time/, totalBytes: sizeBytes })
  t.equal(syncing.latestCheckpoint, undefined, 'there is no checkpoint of half a disk')
  t.match(syncing.noCheckpointsBecause, /synchronised.*first time/, 'and it is said why')
  t.match((await scenario.cli('vpg', 'show', 'web')).stdout, /initial synchronisation \d+ %/)
  await guest.rest()

  t.equal(await agent.process?.stop(), 0)
  await agent.start()
  const resumed = await untilAgent(
    agent,
    'it goes on',
    ({ link, stream }) => link === 'connected' && stream === 'exact',
  )
  t.ok((resumed.volumes[0]?.syncTotalBytes ?? sizeBytes) < sizeBytes, 'what was sent before is not sent again')
  const again = new Guest(await agent.client('root'), { seed: seed + 1 })
  again.start()
  await scenario.control.changeVpg('web', { syncRateBytesPerSecond: 0 })
  await untilSynced(agent)
  await again.rest()
  t.same([...guest.failures, ...again.failures], [])
  const [end] = syncEnds(agent)
  t.equal(end?.kind, 'initial')
  t.ok((end?.sentBytes ?? Infinity) < dataBytes, `${end?.sentBytes} of ${dataBytes} bytes after the restart`)

  const checked = new Checked(scenario, agent)
  await checked.tag('synced')
  await again.runFor(200)
  await checked.tag('later')
  await checked.compareAll(t, 'after the initial synchronisation')
  await scenario.untilProtected('web')
})

t.test('the link is away until the queue is lost: guests go on, then what is marked is sent', async t => {
  const scenario = await Scenario.make(t)
  await scenario.startVra()
  const wire = await Wire.open(t, scenario.agentsPort)
  const agent = await scenario.placeAgent({
    agentId: 'host',
    vpg: 'web',
    volumes: { root: sizeBytes },
    vra: `{ port: ${wire.port} }`,
    more: ['queueSizeBytesMax: 3 MiB'],
  })
  fillDisk(agent.disk('root'), seed)
  await scenario.createVpg(agent.plan)
  await agent.start()
  await untilSynced(agent)
  const guest = new Guest(await agent.client('root'), { seed, spanBytes: sizeBytes / 4 })
  const checked = new Checked(scenario, agent)
  await guest.runFor(200)
  await checked.tag('before')
  const before = await untilAgent(agent, 'no mark is left', ({ volumes }) => volumes[0]?.dirtyBytes === 0)

  guest.start()
  wire.cut()
  const waiting = await untilAgent(agent, 'writes wait', ({ link, queuedBytes }) => {
    return link === 'connecting' && queuedBytes > 0
  })
  t.ok(waiting.linkDownSinceTimestampMicros > 0, 'since when')
  await untilAgent(agent, 'the queue is lost', ({ stream }) => stream === 'detached')
  const writeCount = guest.writeCount
  const marked = await untilAgent(agent, 'guests go on', () => guest.writeCount > writeCount + 200)
  t.match(marked.volumes[0], { sync: 'bitmap', reason: /queue/ })
  t.ok((marked.volumes[0]?.dirtyBytes ?? 0) > 0, 'how much')
  t.match(marked.noCheckpointsBecause, /queue/)
  const out = await scenario.untilVpg('web', 'the agent is away', ({ state }) => state === 'waiting-for-agent')
  t.ok(out.agents[0]?.disconnectedAtMicros, 'the VRA says since when')
  t.ok((out.agents[0]?.lagMillis ?? 0) > 0, 'and how old what it lacks may be')
  t.ok((out.rpoMillis ?? 0) > 0)
  t.ok(out.noCheckpointsBecause)

  wire.mend()
  const after = await untilSynced(agent)
  await guest.rest()
  t.same(guest.failures, [], 'no request of the guest failed')
  t.ok(after.generation > before.generation)
  const bitmap = syncEnds(agent).at(-1)
  t.equal(bitmap?.kind, 'bitmap')
  t.ok((bitmap?.sentBytes ?? Infinity) <= sizeBytes / 4, `${bitmap?.sentBytes} bytes were sent of ${sizeBytes}`)
  await checked.tag('after')
  await guest.runFor(200)
  await checked.tag('end')
  await checked.compareAll(t, 'after the outage')
  await scenario.untilProtected('web')
})
