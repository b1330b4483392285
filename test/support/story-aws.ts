import t from 'tap'
import { AwsSim } from './aws-sim/aws-sim.ts'
import { play } from './scenario-play.ts'
import { AwsStage, begin, Machines } from './scenario-recovery.ts'
import { until } from './scenario-role.ts'
import { Scenario } from './scenario-site.ts'

// See scenario-play.ts; `npm run soak:recover`.

t.test('as instances of AWS', async t => {
  const sim = await AwsSim.start()
  t.teardown(() => sim.close())
  const aws = `aws: { region: ${sim.region}, siteId: site-1, endpoints: { ebs: '${sim.endpoint}', ec2: '${sim.endpoint}', quotas: '${sim.endpoint}' } }`
  const environment = { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'secret' }
  const scenario = await Scenario.make(t, { more: [aws], environment })
  const machines = await Machines.start(scenario)
  const stage = new AwsStage(sim)
  const putsBeforeKill = 8
  let isMidway = (): void => undefined
  const midway = new Promise<void>(resolve => (isMidway = resolve))
  sim.afterCall = (_, operation) => {
    if (operation === 'PutSnapshotBlock' && sim.callCount(operation) >= putsBeforeKill) isMidway()
  }
  const first = async (): Promise<void> => {
    const elsewhere = { machine: { instanceType: 'm7i.large', subnet: 'subnet-9' } }
    await t.rejects(begin(scenario, { checkpoint: 'older', target: 'aws', settings: elsewhere }), {
      ...{ code: 'REQUEST_INVALID', message: /subnet-9/ },
    })
    t.equal(sim.account.snapshots.size, 0, 'what does not exist is told before anything is created')
  }
  await play(t, { machines, stage, midway: () => midway, first })
  t.ok(sim.account.tagged('ZERTO_EC2_RESOURCE', 'site-1').length > 0, 'whose it is')
  await until('all that is left belongs to the failover that was committed', async () => {
    const recoveries = await scenario.control.recoveries()
    const gone = recoveries.filter(({ target, state }) => target === 'aws' && state === 'removed')
    const left = await Promise.all(gone.map(recovery => stage.left(recovery)))
    return left.flat().length === 0
  })
})
