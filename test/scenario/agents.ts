import * as path from 'node:path'
import t from 'tap'
import { MiB } from '../../src/base/units.ts'
import { runVra, until } from '../support/scenario-role.ts'
import { Guest } from '../support/scenario-guest.ts'
import { Sender } from '../support/scenario-sender.ts'
import { Scenario } from '../support/scenario-site.ts'
import { seededRandom } from '../support/wire-samples.ts'

// Who may write what: groups beside each other, agents that nobody listed, the same agent twice, certificates.

const seed = 20_261_125
const sizeBytes = 8 * MiB

t.test('two groups with an agent each do not mix', async t => {
  const scenario = await Scenario.make(t)
  await scenario.startVra()
  const agents = [
    await scenario.placeAgent({ agentId: 'host1', vpg: 'web', volumes: { root: sizeBytes, data: 4 * MiB } }),
    await scenario.placeAgent({ agentId: 'host2', vpg: 'db', volumes: { root: sizeBytes } }),
  ]
  const guests: Guest[] = []
  for (const agent of agents) {
    await scenario.createVpg(agent.plan)
    await agent.start()
    for (const volume of Object.keys(agent.plan.volumes))
      guests.push(new Guest(await agent.client(volume), { seed: seed + guests.length }))
  }
  await Promise.all(guests.map(guest => guest.runFor(300)))
  for (const guest of guests) t.same(guest.failures, [])
  for (const agent of agents) {
    const { vpg, volumes } = agent.plan
    await scenario.tag(vpg, 'end')
    for (const volume of Object.keys(volumes))
      t.equal(await scenario.differenceAt(vpg, volume, 'end', agent.disk(volume)), undefined, `${vpg} ${volume}`)
  }
})

t.test('an agent that calls itself as another is told; who can continue the stream supersedes', async t => {
  const scenario = await Scenario.make(t)
  await scenario.startVra()
  const first = await scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: { root: sizeBytes } })
  await scenario.createVpg(first.plan)
  await first.start()
  await new Guest(await first.client('root'), { seed }).runFor(50)
  await scenario.tag('web', 'before')
  const before = await scenario.untilConnected('web')

  const copy = await scenario.placeAgent({ ...first.plan, fresh: 'copy' })
  const fresh = await copy.start()
  await fresh.untilSaid(/BUSY/)
  await scenario.vra?.untilSaid(/knows nothing of the VPG/)
  const during = await scenario.vpg('web')
  t.equal(during.state, 'protected', 'an empty disk under the same name disturbs nothing')
  t.equal(during.agents[0]?.address, before.agents[0]?.address)
  await fresh.kill()

  const newer = new Sender(
    scenario.agentsPort,
    { vpg: 'web', agent: 'host', volume: 'root', sizeBytes },
    seededRandom(seed),
  )
  t.teardown(() => newer.close())
  await until('it continues at the durable position', async () => {
    newer.continueFrom((await scenario.vpg('web')).agents[0]?.durable.sequence ?? 0)
    await newer.attempt()
    return newer.isConnected
  })
  await first.process?.untilSaid(/SESSION_SUPERSEDED/)
  t.match(first.process?.output, /newer session/, 'the first stops, and says why')
  await scenario.vra?.untilSaid(/newer session/)
  const after = await scenario.untilVpg('web', 'another session', ({ agents: [agent] }) => {
    return agent?.state === 'connected' && agent.address !== before.agents[0]?.address
  })
  t.equal(after.agents.length, 1)
})

t.test('an agent that nobody listed is refused, in words, in both logs', async t => {
  const scenario = await Scenario.make(t)
  await scenario.startVra()
  await scenario.createVpg({ agentId: 'host', vpg: 'web', volumes: { root: sizeBytes } })
  const stranger = await scenario.placeAgent({ agentId: 'stranger', vpg: 'web', volumes: { root: sizeBytes } })
  stranger.spawn()
  await stranger.process?.untilSaid(/IDENTITY_REFUSED/)
  t.match(stranger.process?.output, /stranger.*not.*listed|not listed|stranger/)
  await scenario.vra?.untilSaid(/stranger/)
  const unknown = await scenario.placeAgent({ agentId: 'host', vpg: 'nothing', volumes: { root: sizeBytes } })
  unknown.spawn()
  await unknown.process?.untilSaid(/UNKNOWN_VPG/)
  const smaller = await scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: { root: sizeBytes / 2 } })
  smaller.spawn()
  await smaller.process?.untilSaid(/UNKNOWN_VOLUME/)
  t.match(smaller.process?.output, /root/, 'the volume is named')
  t.equal((await scenario.vpg('web')).agents[0]?.state, 'disconnected')
})

t.test('with certificates of `vra certs`: an agent is who its certificate says', async t => {
  const scenario = await Scenario.make(t)
  const certs = path.join(scenario.directory, 'certs')
  for (const argv of [
    ['init'],
    ['issue', 'server', 'vra', '--host', '127.0.0.1'],
    ['issue', 'client', 'host'],
    ['issue', 'client', 'mallory'],
  ]) {
    const made = await runVra(['certs', ...argv, '--directory', certs])
    t.equal(made.status, 0, `vra certs ${argv.join(' ')}`)
  }
  const tls = (name: string): string =>
    `tls: { certificateFile: ${certs}/${name}.crt, privateKeyFile: ${certs}/${name}.key, authorityFile: ${certs}/authority.crt }`
  scenario.writeVraConfig({ listen: tls('vra') })
  await scenario.startVra()
  const withTls = (name: string): string => `{ port: ${scenario.agentsPort}, ${tls(name)} }`
  const plan = { agentId: 'host', vpg: 'web', volumes: { root: sizeBytes } }
  await scenario.createVpg(plan)

  const mallory = await scenario.placeAgent({ ...plan, vra: withTls('mallory') })
  mallory.spawn()
  await mallory.process?.untilSaid(/IDENTITY_REFUSED/)
  t.match(mallory.process?.output, /mallory/, 'the name on the certificate is said')
  t.equal(await mallory.process?.stop(), 0)

  const plain = await scenario.placeAgent(plan)
  plain.spawn()
  await plain.process?.untilSaid(/"linkDown"/)
  t.equal((await scenario.vpg('web')).agents[0]?.state, 'disconnected', 'plain TCP gets nowhere')
  t.equal(await plain.process?.stop(), 0)

  const agent = await scenario.placeAgent({ ...plan, vra: withTls('host') })
  await agent.start()
  const guest = new Guest(await agent.client('root'), { seed })
  await guest.runFor(200)
  await scenario.tag('web', 'end')
  t.equal(await scenario.differenceAt('web', 'root', 'end', agent.disk('root')), undefined, 'the right one works')
  const { listen } = await until('status', () => scenario.control.status())
  t.equal(listen.tls, true)
})
