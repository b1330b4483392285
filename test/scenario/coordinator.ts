import t from 'tap'
import { MiB } from '../../src/base/units.ts'
import { coordinatorAwayMillisMax } from '../../src/base/limits.ts'
import { freePort } from '../support/scenario-role.ts'
import { Scenario, type AgentSite } from '../support/scenario-site.ts'

// The agent that makes the checkpoints of a group is gone: another is named, and its checkpoints wait for nobody but those that take part.

const sizeBytes = 1 * MiB

t.test(
  'the coordinator is killed: another makes the checkpoints as soon as the first is back, under a higher term',
  async t => {
    const scenario = await Scenario.make(t)
    await scenario.startVra()
    const place = async (agentId: string, volume: string): Promise<AgentSite> =>
      scenario.placeAgent({
        ...{ agentId, vpg: 'shop', volumes: { [volume]: sizeBytes } },
        more: [`peers: { listen: { host: 127.0.0.1, port: ${await freePort()} } }`],
      })
    const [first, second] = [await place('host-a', 'left'), await place('host-b', 'right')]
    await scenario.control.createVpg({
      ...{ name: 'shop', agents: ['host-a', 'host-b'], historyMillis: 3_600_000, checkpointIntervalMillis: 1_000 },
      volumes: [
        { name: 'left', sizeBytes, agent: 'host-a' },
        { name: 'right', sizeBytes, agent: 'host-b' },
      ],
    })
    await Promise.all([first.start(), second.start()])
    const whole = await scenario.untilVpg('shop', 'checkpoints of both', ({ latestCheckpoint }) => {
      return latestCheckpoint?.volumes.filter(({ included }) => included).length === 2
    })
    t.equal(whole.coordinator, 'host-a')
    const termOf = (checkpoint = '0.0'): number => Number(checkpoint.split('.')[0])
    const before = termOf(whole.latestCheckpoint?.checkpoint)
    await first.process?.kill()
    const away = await scenario.untilVpg(
      'shop',
      'it says why there are none',
      vpg => vpg.noCheckpointsBecause !== undefined,
    )
    t.match(away.noCheckpointsBecause, /"host-a" is not connected/)
    t.ok(away.noCheckpointsSinceMicros, 'and since when')
    await scenario.untilVpg(
      'shop',
      `another is named after ${coordinatorAwayMillisMax} ms`,
      vpg => vpg.coordinator === 'host-b',
    )
    await first.start()
    const after = await scenario.untilVpg('shop', 'checkpoints of both under another term', ({ latestCheckpoint }) => {
      return (
        termOf(latestCheckpoint?.checkpoint) > before &&
        latestCheckpoint?.volumes.every(({ included }) => included) === true
      )
    })
    t.equal(after.coordinator, 'host-b', 'who came back does not take it again')
    t.equal(after.state, 'protected')
  },
)
