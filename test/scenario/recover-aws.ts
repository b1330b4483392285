import * as fs from 'node:fs'
import t, { type Test } from 'tap'
import { ownKeys } from '../../src/aws/tags.ts'
import { MiB } from '../../src/base/units.ts'
import { AwsSim } from '../support/aws-sim/aws-sim.ts'
import { bootSectors } from '../support/scenario-boot.ts'
import { Guest } from '../support/scenario-guest.ts'
import { begin, untilState } from '../support/scenario-recovery.ts'
import { until } from '../support/scenario-role.ts'
import { Scenario, type AgentSite } from '../support/scenario-site.ts'
import { fillDisk, untilSynced } from '../support/scenario-sync.ts'

// Recovery by the real daemon to AWS (a simulator of it), beside protection that goes on, through a kill of the daemon.

const seed = 20_261_127
const sizeBytes = 20 * MiB + 512
const blockSizeBytes = 524_288

interface Site {
  readonly scenario: Scenario
  readonly agent: AgentSite
  /** The disk as it is at the checkpoint "then". */
  readonly reference: Buffer
  readonly guest: Guest
}

async function protectedSite(t: Test, more: readonly string[], environment: NodeJS.ProcessEnv = {}): Promise<Site> {
  const scenario = await Scenario.make(t, { more, environment })
  await scenario.startVra()
  const agent = await scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: { root: sizeBytes } })
  fillDisk(agent.disk('root'), seed)
  await scenario.createVpg(agent.plan)
  await agent.start()
  await untilSynced(agent)
  const guest = new Guest(await agent.client('root'), { seed, spanBytes: 4 * MiB, pauseMillis: 5 })
  await guest.runFor(100)
  const start = await agent.client('root')
  await start.write(0, bootSectors()) // or it is recovered as data
  await start.close()
  await scenario.tag('web', 'then')
  const reference = fs.readFileSync(agent.disk('root'))
  guest.start()
  return { scenario, agent, reference, guest }
}

t.test(
  'a failover to AWS is the checkpoint, also when the daemon is killed within it; a rollback leaves nothing',
  async t => {
    const sim = await AwsSim.start()
    t.teardown(() => sim.close())
    const aws = `aws: { region: ${sim.region}, siteId: site-1, endpoints: { ebs: '${sim.endpoint}', ec2: '${sim.endpoint}' } }`
    const credentials = { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'secret' }
    const { scenario, agent, reference, guest } = await protectedSite(t, [aws], credentials)
    const settings = { machine: { instanceType: 'm7i.large', subnet: 'subnet-1', securityGroups: ['sg-1'] } }

    await t.rejects(
      scenario.control.planRecovery({
        ...{ vpg: 'web', kind: 'failover', checkpoint: 'then', target: 'aws' },
        settings: { machine: { ...settings.machine, subnet: 'subnet-9' } },
        commitPolicy: { kind: 'none', afterMillis: 60_000 },
      }),
      { code: 'REQUEST_INVALID', message: /subnet-9/ },
      'what does not exist is told before anything is created',
    )
    t.equal(sim.account.snapshots.size, 0)

    const putsBeforeKill = 8
    let isKilled = false
    sim.afterCall = (_, operation) => {
      if (operation !== 'PutSnapshotBlock' || isKilled || sim.callCount(operation) < putsBeforeKill) return
      isKilled = true
      void scenario.vra?.kill()
    }
    const begun = await begin(scenario, { checkpoint: 'then', target: 'aws', settings })
    await until('the daemon is killed while it puts', async () => isKilled)
    await scenario.startVra()
    const ready = await untilState(scenario, begun, 'ready')
    const placeOf = (kind: string): string => ready.things.find(thing => thing.kind === kind)?.place ?? ''
    const instance = sim.account.instances.get(placeOf('ec2-instance'))
    t.match(instance, { heading: 'running' }, JSON.stringify(ready.things))
    const volume = [...sim.account.volumes.values()].find(({ attachment }) => attachment?.instance === instance?.id)
    for (let at = 0; at < sizeBytes; at += blockSizeBytes) {
      const block = volume?.blocks.get(at / blockSizeBytes) ?? Buffer.alloc(blockSizeBytes)
      const expected = Buffer.alloc(blockSizeBytes)
      reference.copy(expected, 0, at, Math.min(at + blockSizeBytes, sizeBytes))
      if (!block.equals(expected)) t.fail(`the block at ${at} is another one`)
    }
    t.equal(sim.account.tagged('ZERTO_EC2_RESOURCE', 'site-1').length > 0, true, 'whose it is')
    await scenario.control.decideRecovery(begun.id, 'rollback')
    await untilState(scenario, begun, 'removed')
    t.strictSame(sim.account.tagged(ownKeys.recovery, begun.id), [], 'nothing of it is left')
    await guest.rest()
    t.same(guest.failures, [], 'protection did not feel it')
    await scenario.tag('web', 'after')
    t.equal(await scenario.differenceAt('web', 'root', 'after', agent.reference('root')), undefined)
  },
)
