import t, { type Test } from 'tap'
import { checkPermissions } from '../../src/aws/check.ts'
import type { AwsConfig } from '../../src/aws/service.ts'
import type { Json } from '../../src/timeline/recovery.ts'
import { AwsWorld, bootableModel } from '../support/aws-world.ts'

const { signal } = new AbortController()
const machine = { instanceType: 'm7i.large', subnet: 'subnet-1' }
const gp3Tib = 'L-7A658B76'
const snapshotsPerRegion = 'L-309BACF6'
const standardVcpus = 'L-1216C47A'
const ofQuotas = ['GetServiceQuota', 'GetAWSDefaultServiceQuota']

/** Of a VPG of one machine with two volumes, each of which becomes 1 GiB. */
async function newPlanner(t: Test, withoutEndpoints: readonly (keyof AwsConfig['endpoints'])[] = []) {
  const model = bootableModel()
  const checkpoint = model.checkpoint()
  const world = await AwsWorld.start(model, { pageItemsMax: 1 })
  const endpoints = Object.fromEntries(
    Object.entries(world.config().endpoints).filter(([name]) => !withoutEndpoints.some(other => other === name)),
  )
  const tools = world.tools({ endpoints })
  t.teardown(async () => {
    await tools.close()
    await world.close()
  })
  const sizes = checkpoint.volumes.map(({ number, sizeBytes }) => ({
    ...{ volume: number, sizeBytes, dataSizeBytes: sizeBytes },
  }))
  const vms = [{ name: 'web', volumes: [1, 2] }]
  const plan = (settings: Json = { machine }) => {
    const request = { kind: 'test', definition: model.definition(), checkpoint, vms, sizes, settings } as const
    return world.recoveries(tools).plan(request, signal)
  }
  const recover = async (id: string): Promise<void> => {
    const held = { record: world.record(checkpoint, { machine }, id) }
    await world.recoveries(tools).prepare(world.context(held, signal))
  }
  return {
    world,
    tools,
    paces: tools.paces,
    config: tools.config,
    plan,
    recover,
    remarks: async () => (await plan()).remarks.join('\n'),
  }
}

t.test('what has no room is found before anything is created, each quota with its code', async t => {
  const { world, plan, recover, remarks } = await newPlanner(t)
  const { applied } = world.sim.quotas
  await recover('r-000000000001')
  await recover('r-000000000002')
  const before = world.sim.calls.length
  const of4 = 'quotas have room for 2 GiB of gp3 (4 GiB of 50 TiB in use); 2 snapshots of the region (4 of 100000'
  t.match(await remarks(), of4, 'defaults, where nothing was ever raised')
  t.match(await remarks(), '2 vCPUs of running On-Demand instances (Standard) (4 of 64 vCPUs in use)')
  const refused = (words: string) => t.rejects(plan(), { code: 'REQUEST_INVALID', message: words })
  applied.set(gp3Tib, 5 / 1024)
  await refused('the quota L-7A658B76 has no room for 2 GiB of gp3 (4 GiB of 5 GiB in use): have it raised')
  applied.set(snapshotsPerRegion, 5)
  await refused('the quota L-309BACF6 has no room for 2 snapshots of the region (4 of 5 snapshots in use)')
  applied.clear()
  applied.set(standardVcpus, 5)
  await refused('the quota L-1216C47A has no room for 2 vCPUs of running On-Demand instances (Standard) (4 of 5')
  t.ok((await plan({ machine: { ...machine, start: 'nothing' } })).copySizeBytes, 'no machine, no vCPUs')
  applied.set(standardVcpus, 4)
  const [stopped] = world.sim.account.instances.values()
  stopped!.heading = 'stopped'
  t.match(await remarks(), 'quotas that it nearly fills: 2 vCPUs of running On-Demand instances (Standard) (2 of 4')
  applied.set('L-B3A130E6', 150)
  await t.rejects(plan({ machine, volumes: { type: 'io1', iops: 100 } }), {
    message: 'the quota L-B3A130E6 has no room for 200 IOPS of io1 (0 of 150 IOPS in use)',
  })
  const asked = new Set(world.sim.calls.slice(before).map(call => call.replace(/^Describe.*/, 'Describe')))
  t.strictSame(asked, new Set(['Describe', ...ofQuotas]))
})

t.test('the pace of puts, and how many snapshots may be pending, are those of the account', async t => {
  const { world, paces, plan, remarks } = await newPlanner(t)
  const asIs = (await plan()).expectedMillis
  world.sim.quotas.applied.set('L-AFAE1BE8', 1).set('L-94D7AB7D', 1)
  t.match(await remarks(), "at most 1 of them a second (the account's quota is 1 a second)")
  t.equal(paces.account.rate, 1, 'and puts go by it from then on')
  t.match(await remarks(), 'an account may have 1 snapshots pending, and has 0 at this moment')
  t.ok((await plan()).expectedMillis > asIs)
})

t.test('what was planned by a process before, and a standby chain, keep to the quota without a plan', async t => {
  for (const work of ['recovery', 'chain'] as const) {
    const { world, tools, paces, recover } = await newPlanner(t)
    world.sim.quotas.applied.set('L-AFAE1BE8', 40)
    if (work === 'recovery') await recover('r-000000000001')
    else {
      const { kill } = world.standbys(tools)
      await world.until(() => world.advances.length > 0)
      await kill()
    }
    t.equal(paces.account.rate, 40, work)
    t.equal(world.sim.callCount('GetServiceQuota'), 1, work)
    await recover('r-000000000002')
    t.equal(world.sim.callCount('GetServiceQuota'), 1, 'it is not asked for at every turn')
  }
})

t.test('a quota that nobody answers for keeps no recovery waiting', async t => {
  const { world, recover } = await newPlanner(t)
  world.sim.faults.next('GetServiceQuota', { kind: 'hang' })
  await recover('r-000000000001')
  t.equal(world.sim.account.instances.size, 1)
})

t.test('who may not ask, gets no answer, or asks of what nobody knows, plans all the same, and is told so', async t => {
  const { world, plan, remarks } = await newPlanner(t)
  const unknown = 'whether quotas have room is not known of 2 GiB of gp3; 2 snapshots of the region; 2 vCPUs of running'
  world.sim.denied = ofQuotas
  t.match(await remarks(), unknown)
  t.match(await remarks(), 'the VRA may not ask Service Quotas, which `vra aws policy` would let it')
  world.sim.denied = []
  world.sim.faults.next('GetServiceQuota', { kind: 'refuse', status: 500, code: 'ServiceException' })
  t.match(await remarks(), /not known of 2 GiB of gp3.*AWS puts servicequotas:GetServiceQuota off/)
  const { instanceTypes } = world.sim.account
  instanceTypes.set('mac2.metal', { architectures: ['x86_64'], bootModes: ['uefi'], vcpuCount: 8 })
  const ofMac = (await plan({ machine: { ...machine, instanceType: 'mac2.metal' } })).remarks.join('\n')
  t.match(ofMac, 'not known of 8 vCPUs of mac2.metal')
  t.match(ofMac, 'quotas have room for 2 GiB of gp3')
})

t.test(
  "where other endpoints are not AWS's own, and that of quotas is not told, all is done and nobody is asked",
  async t => {
    const { world, config, paces, recover, remarks } = await newPlanner(t, ['quotas'])
    t.match(await remarks(), /not known of 2 GiB of gp3.*aws\.endpoints\.quotas is not set in the configuration/)
    const checked = await checkPermissions({ ...config, requestTimeoutMillis: 20_000 }, signal)
    t.strictSame(
      checked.filter(({ outcome }) => outcome === 'missing'),
      [],
    )
    t.strictSame(
      checked.filter(({ sentence }) => sentence === 'aws.endpoints.quotas is not set').map(({ action }) => action),
      ofQuotas.map(operation => `servicequotas:${operation}`),
    )
    await recover('r-000000000001')
    t.equal(world.sim.account.instances.size, 1)
    t.equal(paces.account.rate, config.putsPerSecondMax)
    t.equal(
      ofQuotas.reduce((count, operation) => count + world.sim.callCount(operation), 0),
      0,
    )
  },
)
