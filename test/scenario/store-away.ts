import t from 'tap'
import { S3Simulator } from '../support/s3-sim.ts'
import { Guest } from '../support/scenario-guest.ts'
import { Scrape } from '../support/scenario-metrics.ts'
import { until } from '../support/scenario-role.ts'
import { diskSizeBytes, Scenario, type AgentSite } from '../support/scenario-site.ts'

// A VRA that starts while its bucket is out of reach. Invariants: agents are served from what is remembered, what they send is acknowledged
// and makes checkpoints, everybody is told; when the bucket answers, everything is there, with the checkpoints of before and of meanwhile.

const seed = 20_261_126

async function site(t: Parameters<typeof Scenario.make>[0]) {
  const simulator = await S3Simulator.start()
  t.teardown(() => simulator.close().catch(() => undefined))
  const scenario = await Scenario.make(t, {
    store: `{ kind: s3, bucket: bucket, prefix: vra/, endpoint: '${simulator.endpoint}', forcePathStyle: true, requestTimeoutMillis: 1000 }`,
    environment: { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test' },
  })
  await scenario.startVra()
  const agent = await scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: { root: diskSizeBytes } })
  await scenario.createVpg(agent.plan)
  await agent.start()
  return { simulator, scenario, agent }
}

async function untilOffloaded(scenario: Scenario): Promise<void> {
  await scenario.untilVpg('web', 'all of it is offloaded', ({ agents }) =>
    agents.every(({ durable, offloaded }) => durable.sequence > 0 && offloaded.sequence > 0),
  )
}

async function newestOrdinal(scenario: Scenario): Promise<string> {
  return (await scenario.vpg('web')).latestCheckpoint?.checkpoint ?? ''
}

async function references(scenario: Scenario, agent: AgentSite, tag: string, guest: Guest): Promise<string> {
  await guest.runFor(300)
  t.same(guest.failures, [])
  await scenario.tag('web', tag)
  return agent.reference('root')
}

t.test('a VRA whose bucket is out of reach starts, takes writes, makes checkpoints, and catches up', async t => {
  const { simulator, scenario, agent } = await site(t)
  const guest = new Guest(await agent.client('root'), { seed })
  const before = await references(scenario, agent, 'before', guest)
  await untilOffloaded(scenario)
  t.equal(await scenario.vra?.stop(), 0)

  await simulator.goAway()
  const vra = await scenario.startVra()
  t.match(vra.output, /"storeAway"/)
  await scenario.untilConnected('web')
  const newestBefore = await newestOrdinal(scenario)
  await guest.runFor(1_000)
  t.same(guest.failures, [])
  const meanwhile = agent.reference('root')
  await until('checkpoints are made', async () => (await newestOrdinal(scenario)) !== newestBefore)
  const made = await scenario.untilProtected('web')
  const kept = await scenario.control.findCheckpoint('web', 'before')
  t.ok(kept.tags.includes('before'), 'what people decided is remembered')

  const status = await scenario.control.status()
  t.match(status.storeFailing?.sentence, /ECONNREFUSED|does not answer/)
  t.match(status.alerts, [{ sentence: /the object store has not answered since .* when this daemon was started/ }])
  const metrics = await Scrape.of(scenario.controlUrl)
  t.ok((metrics.value('vra_store_away_seconds') ?? 0) > 0)
  t.equal(metrics.value('vra_store_failing', 'web'), 1)
  const tagging = await scenario.cli('checkpoint', 'tag', 'web', 'too-early', '--checkpoint', 'latest')
  t.equal(tagging.status, 4, tagging.stderr)
  t.match(tagging.stderr, /has not answered since/)

  const newestMeanwhile = await until('a checkpoint after the writes', async () => {
    const id = await newestOrdinal(scenario)
    return id !== made.latestCheckpoint?.checkpoint && id
  })
  await simulator.comeBack()
  await vra.untilSaid(/"storeOpened"/)
  await untilOffloaded(scenario)
  await until('the store does not fail', async () => (await scenario.control.status()).storeFailing === undefined)
  t.equal(await scenario.differenceAt('web', 'root', 'before', before), undefined, 'what was there before')
  t.equal(await scenario.differenceAt('web', 'root', newestMeanwhile, meanwhile), undefined, 'what came meanwhile')
  await until('the metric is 0', async () => {
    const scraped = await Scrape.of(scenario.controlUrl)
    return scraped.value('vra_store_away_seconds') === 0
  })

  const after = await references(scenario, agent, 'after', guest)
  t.equal(await scenario.vra?.stop(), 0)
  await scenario.startVra()
  t.equal(await scenario.differenceAt('web', 'root', 'after', after), undefined)
  t.equal(await scenario.differenceAt('web', 'root', newestMeanwhile, meanwhile), undefined, 'after a restart')
  await scenario.untilProtected('web')
})

t.test('a bucket that takes requests and never answers them keeps nothing from starting', async t => {
  const { simulator, scenario, agent } = await site(t)
  await untilOffloaded(scenario)
  t.equal(await scenario.vra?.stop(), 0)
  for (const operation of ['ListObjectsV2', 'GetObject', 'PutObject'] as const)
    simulator.failNext(operation, { kind: 'hang' }, Infinity)
  const vra = scenario.spawnVra()
  await vra.untilSaid(/"storeAway"/)
  await vra.untilSaid(/"vraReady"/)
  await scenario.untilConnected('web')
  const guest = new Guest(await agent.client('root'), { seed: seed + 1 })
  await guest.runFor(1_000)
  t.same(guest.failures, [])
  simulator.mend()
  await vra.untilSaid(/"storeOpened"/)
  const wanted = await references(scenario, agent, 'after', guest)
  t.equal(await scenario.differenceAt('web', 'root', 'after', wanted), undefined)
})

t.test(
  'without anything remembered a bucket that refuses us is told at the start, and one that is down is waited for',
  async t => {
    const simulator = await S3Simulator.start()
    t.teardown(() => simulator.close().catch(() => undefined))
    const scenario = await Scenario.make(t, {
      store: `{ kind: s3, bucket: another, endpoint: '${simulator.endpoint}', forcePathStyle: true, requestTimeoutMillis: 1000 }`,
      environment: { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test' },
    })
    const refused = scenario.spawnVra()
    t.equal(await refused.untilEnded(), 2)
    t.match(refused.output, /there is no such bucket/)
    await simulator.goAway()
    const waiting = await scenario.startVra()
    const create = await scenario.cli('vpg', 'create', 'web', '--volume', 'root=1GiB', '--agent', 'host')
    t.equal(create.status, 4, create.stderr)
    t.equal(await waiting.stop(), 0, 'it stops in order while it waits')
  },
)
