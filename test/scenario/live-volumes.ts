import * as fs from 'node:fs'
import t from 'tap'
import { MiB } from '../../src/base/units.ts'
import { Guest } from '../support/scenario-guest.ts'
import { AgentSite, Scenario } from '../support/scenario-site.ts'
import { Checked, untilAgent, untilSynced } from '../support/scenario-sync.ts'

// The volumes of a group change while it is protected: `vra vpg ...-volume` here, a SIGHUP there, in whatever order, and no restart.

const seed = 20_261_201
const sizeBytes = 16 * MiB

t.test('volumes are added, grow and are removed; the group has checkpoints, and its guest writes on', async t => {
  const scenario = await Scenario.make(t)
  await scenario.startVra()
  const agent = await scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: { root: sizeBytes } })
  await scenario.createVpg(agent.plan)
  await agent.start()
  await untilSynced(agent)
  const checked = new Checked(scenario, agent)
  const guest = new Guest(await agent.client('root'), { seed })
  await guest.runFor(100)
  await checked.tag('before')
  const reload = async (...names: readonly string[]): Promise<void> => {
    const reloads = (agent.process?.output.match(/volumesReloaded|reloadFailed/g) ?? []).length
    writeConfig(agent, names)
    agent.process?.signal('SIGHUP')
    await untilAgent(agent, 'it has read its configuration', () => {
      return (agent.process?.output.match(/volumesReloaded|reloadFailed/g) ?? []).length > reloads
    })
  }
  guest.start()

  const added = await scenario.cli('vpg', 'add-volume', 'web', `data=${sizeBytes}`)
  t.equal(added.status, 0, added.stderr)
  const lacking = await scenario.untilVpg('web', 'it says what is missing', ({ stateReason }) =>
    /"data"/.test(stateReason ?? ''),
  )
  t.equal(lacking.state, 'waiting-for-agent')
  const counter = lacking.checkpointCount
  await scenario.untilVpg('web', 'the others have checkpoints', ({ checkpointCount }) => checkpointCount > counter + 1)
  fs.writeFileSync(agent.disk('data'), Buffer.alloc(MiB, 5))
  fs.truncateSync(agent.disk('data'), sizeBytes)
  await reload('root', 'data')
  await untilSynced(agent)
  const whole = await scenario.untilVpg('web', 'all is protected', ({ state }) => state === 'protected')
  await scenario.untilVpg('web', 'a checkpoint has both', ({ latestCheckpoint }) => {
    return latestCheckpoint?.volumes.filter(({ included }) => included).length === 2
  })
  t.equal(whole.volumes.length, 2)

  // The agent first, then the group.
  fs.truncateSync(agent.disk('data'), 2 * sizeBytes)
  await reload('root', 'data')
  await scenario.untilVpg('web', 'the sizes differ', ({ stateReason }) =>
    /"data" has 33554432 bytes at the agent/.test(stateReason ?? ''),
  )
  t.equal((await scenario.cli('vpg', 'grow-volume', 'web', 'data', `${2 * sizeBytes}`)).status, 0)
  await scenario.untilVpg('web', 'all is protected', ({ state }) => state === 'protected')
  await guest.rest()
  await scenario.tag('web', 'grown')
  const file = await scenario.exported('web', 'data', 'grown')
  t.ok(fs.readFileSync(file).equals(fs.readFileSync(agent.disk('data'))), 'the volume that grew')
  await checked.tag('both')

  guest.start()
  t.equal((await scenario.cli('vpg', 'remove-volume', 'web', 'data')).status, 0)
  await untilAgent(agent, 'it says which is refused', ({ volumes }) => /"data"/.test(volumes[1]?.refusal ?? ''))
  const { checkpointCount } = await scenario.vpg('web')
  await scenario.untilVpg('web', 'the other goes on', vpg => vpg.checkpointCount > checkpointCount + 1)
  await reload('root')
  await scenario.untilVpg('web', 'all is protected', ({ state }) => state === 'protected')
  await guest.rest()
  t.same(guest.failures, [])
  await checked.tag('end')
  await checked.compareAll(t, 'after all changes')
  t.match(agent.process?.output, /"volumesReloaded"/)
})

function writeConfig(agent: AgentSite, names: readonly string[]): void {
  const list = names.map(name => `{ name: ${name}, path: ${agent.disk(name)} }`)
  const lines = fs
    .readFileSync(agent.configFile, 'utf8')
    .split('\n')
    .filter(line => !line.startsWith('volumes:'))
  fs.writeFileSync(agent.configFile, [...lines, `volumes: [${list.join(', ')}]`].join('\n'))
}
