import * as fs from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { ControlClient } from '../../src/control/control.ts'
import { S3Simulator } from '../support/s3-sim.ts'
import { Guest } from '../support/scenario-guest.ts'
import { freePort } from '../support/scenario-role.ts'
import { diskSizeBytes, Scenario } from '../support/scenario-site.ts'

// The appliance is lost, with its disk. Another one with an empty disk and the bucket goes on: what was offloaded is there, the agent
// sends the rest from its map, and whoever wakes up with the old disk stops by itself.

const seed = 20_261_127

t.test('a new appliance on an empty disk takes over, the agent goes on, the old one is fenced', async t => {
  const simulator = await S3Simulator.start()
  t.teardown(() => simulator.close())
  const scenario = await Scenario.make(t, {
    store: `{ kind: s3, bucket: bucket, endpoint: '${simulator.endpoint}', forcePathStyle: true, requestTimeoutMillis: 1000 }`,
    environment: { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test' },
  })
  await scenario.startVra()
  const agent = await scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: { root: diskSizeBytes } })
  await scenario.createVpg(agent.plan)
  await agent.start()
  const guest = new Guest(await agent.client('root'), { seed })
  await guest.runFor(300)
  const { checkpoint } = await scenario.tag('web', 'offloaded')
  const reference = agent.reference('root')
  const tagged = (await scenario.vpg('web')).agents[0]?.durable.sequence ?? 0
  await scenario.untilVpg('web', 'the tagged checkpoint is offloaded', ({ agents: [host] }) => {
    return (host?.offloaded.sequence ?? 0) >= tagged
  })
  // From here on nothing reaches the bucket: acknowledged, and lost with the appliance.
  simulator.failNext('PutObject', { kind: 'refuse', status: 503, code: 'SlowDown' }, Infinity)
  await guest.runFor(100)
  await scenario.untilVpg('web', 'acknowledged and not offloaded', ({ agents: [host] }) => {
    return (host?.durable.sequence ?? 0) > (host?.offloaded.sequence ?? 0)
  })
  const old = scenario.vra
  await old?.kill()
  simulator.mend()

  const config = path.join(scenario.directory, 'vra.yaml')
  const refused = scenario.spawnRole(
    ['serve', '--config', config, '--data-directory', scenario.file('other')],
    'other.log',
  )
  await refused.untilSaid(/"vraReady"/)
  t.match(refused.output, /belongs to the appliance .* start this one with --adopt/)
  t.equal(await refused.stop(), 0)

  const directory = scenario.file('successor')
  const successor = scenario.spawnRole(
    ['serve', '--config', config, '--data-directory', directory, '--adopt'],
    'successor.log',
  )
  await successor.untilSaid(/"vraReady"/)
  t.match(successor.output, /"vpgAdopted"/)
  t.match(await scenario.vpg('web'), { epoch: 2, tags: [{ tag: 'offloaded', checkpoint }] })
  t.equal(await scenario.differenceAt('web', 'root', 'offloaded', reference), undefined)
  await successor.untilSaid(/"generationOpened"/)
  t.match(successor.output, /"syncs":\["root: bitmap"\]/, 'no full synchronisation, and none by hashes')
  await scenario.untilVpg('web', 'it is protected again', ({ state }) => state === 'protected')
  await guest.runFor(100)
  t.same(guest.failures, [])
  await scenario.tag('web', 'after')
  t.equal(await scenario.differenceAt('web', 'root', 'after', agent.reference('root')), undefined)

  // The old one wakes up, with its disk and the bucket, elsewhere.
  const elsewhere = scenario.file('old.yaml')
  const [agents, control] = [await freePort(), await freePort()]
  const text = fs.readFileSync(config, 'utf8')
  fs.writeFileSync(
    elsewhere,
    text
      .replace(/^listen: .*$/m, `listen: { port: ${agents} }`)
      .replace(/^control: .*$/m, `control: { port: ${control} }`),
  )
  const woken = scenario.spawnRole(['serve', '--config', elsewhere], 'woken.log')
  t.equal(await woken.untilEnded(), 6)
  t.match(woken.output, /"fenced"/)
  t.equal((await scenario.vpg('web')).state, 'protected', 'and nobody notices')
})

t.test('a copy of an appliance that runs stops by itself, and the appliance goes on', async t => {
  const scenario = await Scenario.make(t)
  const running = await scenario.startVra()
  const agent = await scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: { root: diskSizeBytes } })
  await scenario.createVpg(agent.plan)
  await agent.start()
  await scenario.untilVpg('web', 'it is protected', ({ state }) => state === 'protected')
  const cloned = scenario.file('cloned')
  const isOfDisk = (file: string): boolean => file !== scenario.storeDirectory && !fs.lstatSync(file).isSocket()
  running.signal('SIGSTOP') // all of its disk at one moment
  fs.cpSync(scenario.dataDirectory, cloned, { recursive: true, filter: isOfDisk })
  running.signal('SIGCONT')
  const [agents, control] = [await freePort(), await freePort()]
  const file = scenario.file('copy.yaml')
  fs.writeFileSync(
    file,
    [
      `dataDirectory: ${cloned}`,
      `store: { kind: directory, directory: ${scenario.storeDirectory} }`,
      `listen: { port: ${agents} }`,
      `control: { port: ${control} }`,
      'log: { format: json }',
    ].join('\n'),
  )
  const copy = scenario.spawnRole(['serve', '--config', file], 'copy.log')
  t.equal(await copy.untilEnded(), 6)
  t.match(copy.output, /"superseded"/)
  t.match(copy.output, /runs already, and this is a copy of its data directory/)
  await running.untilSaid(/"copyRefused"/)
  t.notMatch(running.output, /"(fenced|superseded)"/)
  t.equal((await scenario.vpg('web')).state, 'protected', 'and nobody notices')
})

t.test('an appliance that was only asleep stops within a check of its own', async t => {
  const scenario = await Scenario.make(t)
  const sleeping = await scenario.startVra()
  const agent = await scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: { root: diskSizeBytes } })
  await scenario.createVpg(agent.plan)
  sleeping.signal('SIGSTOP')
  const [agents, control] = [await freePort(), await freePort()]
  const file = scenario.file('successor.yaml')
  fs.writeFileSync(
    file,
    [
      `dataDirectory: ${scenario.file('successor')}`,
      `store: { kind: directory, directory: ${scenario.storeDirectory} }`,
      `listen: { port: ${agents} }`,
      `control: { port: ${control} }`,
      'log: { format: json }',
    ].join('\n'),
  )
  const successor = scenario.spawnRole(['serve', '--config', file, '--adopt'], 'successor.log')
  await successor.untilSaid(/"vraReady"/)
  sleeping.signal('SIGCONT')
  t.equal(await sleeping.untilEnded(), 6)
  t.match(sleeping.output, /"fenced"/)
  t.match(await new ControlClient(`http://127.0.0.1:${control}`).showVpg('web'), { epoch: 2 })
})
