import t from 'tap'
import { memoryOf } from '../../src/aws/memory.ts'
import { ownKeys } from '../../src/aws/tags.ts'
import type { Json } from '../../src/timeline/recovery.ts'
import { AwsWorld, bootableModel, bootSector, faultsOf, Model } from '../support/aws-world.ts'

const { signal } = new AbortController()
const sizes = { 1: 3 * 2 ** 20 + 512, 2: 2 ** 20 }
const machine = { instanceType: 'm7i.large', subnet: 'subnet-1', securityGroups: ['sg-1'], key: 'operator' }

t.test('a machine is recovered with all its volumes, byte for byte, tagged, and goes without a trace', async t => {
  const model = bootableModel()
  const checkpoint = model.checkpoint()
  const world = await AwsWorld.start(model)
  t.teardown(() => world.close())
  const settings: Json = {
    machine: { ...machine, privateIp: '10.0.0.77', bootMode: 'uefi', iamProfile: 'web-role', userData: '#!/bin/sh' },
    volumes: { iops: 4000, throughput: 250, initializationRate: 300 },
  }
  const held = { record: world.record(checkpoint, settings) }
  const tools = world.tools()
  t.teardown(() => tools.close())
  const recoveries = world.recoveries(tools)
  await recoveries.prepare(world.context(held, signal))
  t.strictSame(faultsOf(world, held.record), [])
  const [instance] = [...world.sim.account.instances.values()]
  t.match(instance, {
    type: 'm7i.large',
    privateIp: '10.0.0.77',
    key: 'operator',
    profile: 'web-role',
    groups: ['sg-1'],
  })
  t.equal(Buffer.from(instance!.userData!, 'base64').toString(), '#!/bin/sh')
  t.equal(instance!.tags.get('ZERTO_EC2_RESOURCE'), 'site-7')
  t.equal(instance!.nic.tags.get('ZERTO_EC2_RESOURCE'), 'site-7')
  t.match([...world.sim.account.volumes.values()][0], { iops: 4000, throughput: 250, initializationRate: 300 })
  await recoveries.remove(world.context(held, signal))
  t.strictSame(world.sim.account.tagged(ownKeys.recovery, held.record.id), [])
})

t.test('what was put is the blocks that are no zeros', async t => {
  const model = new Model({ 1: 40 * 2 ** 20 })
  model.write(1, 0, bootSector())
  model.write(1, 33 * 2 ** 20, Buffer.from('far away'))
  const world = await AwsWorld.start(model)
  const held = { record: world.record(model.checkpoint(), { machine }) }
  const tools = world.tools()
  await world.recoveries(tools).prepare(world.context(held, signal))
  t.equal(world.sim.callCount('PutSnapshotBlock'), 2)
  await tools.close()
  await world.close()
})

t.test('a machine whose root volume does not boot is recovered as volumes, and the record says so', async t => {
  const model = new Model(sizes)
  model.write(2, 0, bootSector())
  model.writeRandomly(1, false)
  const world = await AwsWorld.start(model)
  const held = { record: world.record(model.checkpoint(), { machine }) }
  const tools = world.tools()
  await world.recoveries(tools).prepare(world.context(held, signal))
  t.equal(memoryOf(held.record.memory).machines['web']?.isBootable, false)
  t.equal(world.sim.account.instances.size, 0)
  t.equal(world.sim.account.volumes.size, 2)
  await tools.close()
  await world.close()
})

t.test("by root-swap the instance is the helper image's, and every volume of it ours", async t => {
  const model = bootableModel()
  const world = await AwsWorld.start(model)
  const helperImage = world.sim.addStockImage('windows')
  const held = {
    record: world.record(model.checkpoint(), { machine: { ...machine, start: 'root-swap', helperImage } }),
  }
  const tools = world.tools()
  await world.recoveries(tools).prepare(world.context(held, signal))
  t.strictSame(faultsOf(world, held.record), [])
  const [instance] = [...world.sim.account.instances.values()]
  t.equal(instance!.image, helperImage)
  t.equal(world.sim.account.stateOfInstance(instance!), 'running')
  const root = [...world.sim.account.volumes.values()].find(
    ({ attachment }) => attachment?.device === instance!.rootDevice,
  )
  t.equal(root?.id, memoryOf(held.record.memory).volumes[1]?.volume)
  await tools.close()
  await world.close()
})

t.test('committed, volumes and instance stay, and the image that started them goes', async t => {
  const model = bootableModel()
  const world = await AwsWorld.start(model)
  const held = { record: world.record(model.checkpoint(), { machine }) }
  const tools = world.tools()
  await world.recoveries(tools).prepare(world.context(held, signal))
  await world.recoveries(tools).commit(world.context(held, signal))
  await world.recoveries(tools).commit(world.context(held, signal))
  t.equal(world.sim.account.images.size, 0)
  t.equal(world.sim.account.volumes.size, 2)
  t.equal(world.sim.account.snapshots.size, 2)
  await tools.close()
  await world.close()
})

t.test('what does not exist, or does not fit, is found before anything is created', async t => {
  const model = bootableModel()
  const checkpoint = model.checkpoint()
  const world = await AwsWorld.start(model)
  const tools = world.tools()
  const plan = (settings: Json, vms = [{ name: 'web', volumes: [1, 2] }]) => {
    const volumeSizes = checkpoint.volumes.map(({ number, sizeBytes }) => ({
      volume: number,
      sizeBytes,
      dataSizeBytes: 2 ** 20,
    }))
    const request = {
      kind: 'failover',
      definition: model.definition(),
      checkpoint,
      vms,
      sizes: volumeSizes,
      settings,
    } as const
    return world.recoveries(tools).plan(request, signal)
  }
  const refused = async (changes: Json, words: RegExp): Promise<void> => {
    await t.rejects(plan({ machine: { ...machine, ...(changes as object) } }), {
      code: 'REQUEST_INVALID',
      message: words,
    })
  }
  const { subnets, instanceTypes } = world.sim.account
  const zones = ['eu-central-1b', 'eu-central-1c']
  instanceTypes.set('x2.rare', { architectures: ['x86_64'], bootModes: ['uefi'], vcpuCount: 8, zones })
  await refused(
    { instanceType: 'x2.rare' },
    /no x2\.rare in eu-central-1a, where subnet-1 is: only in eu-central-1b, eu-/,
  )
  const both = [1, 2].map(volume => ({ name: `vm${volume}`, volumes: [volume] }))
  subnets.get('subnet-1')!.addressesMax = 1
  await t.rejects(plan({ machine }, both), { message: /subnet-1 has 1 address left, and vm1, vm2 need 2/ })
  await plan({ machine })
  subnets.get('subnet-1')!.addressesMax = 0
  await refused({}, /subnet-1 has no address left, and web needs one/)
  await plan({ machine: { ...machine, start: 'nothing' } })
  subnets.get('subnet-1')!.addressesMax = 9
  await refused({ subnet: 'subnet-9' }, /no subnet subnet-9/)
  await refused({ instanceType: 'z9.huge' }, /no instance type z9\.huge/)
  await refused({ architecture: 'arm64' }, /m7i\.large is x86_64, not arm64/)
  await refused({ securityGroups: ['sg-9'] }, /not all of these security groups exist: sg-9/)
  await refused({ securityGroups: ['sg-other'] }, /sg-other is of vpc-2, the subnet of vpc-1/)
  await refused({ key: 'nobody' }, /no key pair "nobody"/)
  await refused({ privateIp: '10.0.9.1' }, /10\.0\.9\.1 is not an address of the subnet's 10\.0\.0\.0\/24/)
  await refused({ privateIp: '10.0.0.3' }, /10\.0\.0\.3 is reserved/)
  await refused({ privateIp: '10.0.0.255' }, /10\.0\.0\.255 is reserved/)
  await refused({ start: 'root-swap', helperImage: 'ami-00000000000000099' }, /no image ami-00000000000000099/)
  const volumeRefused = (volumes: Json, words: RegExp) =>
    t.rejects(plan({ machine, volumes }), { code: 'REQUEST_INVALID', message: words })
  await volumeRefused({ throughput: 1000 }, /at most 0\.25 MiB\/s for each of its 3000 IOPS/)
  await volumeRefused({ iops: 4000 }, /gp3 of 1 GiB has at most 3000 IOPS/)
  await volumeRefused({ type: 'io1', iops: 200 }, /io1 of 1 GiB has at most 100 IOPS/)
  const twins = { web: { ...machine, privateIp: '10.0.0.5' }, db: { ...machine, privateIp: '10.0.0.5' } }
  const two = [
    { name: 'web', volumes: [1] },
    { name: 'db', volumes: [2] },
  ]
  await t.rejects(plan({ machines: twins }, two), { message: /db: 10\.0\.0\.5 is the privateIp of web already/ })
  await t.rejects(plan({ machine, availabilityZone: 'eu-central-1x' }), {
    message: /no availability zone eu-central-1x/,
  })
  await refused({ colour: 'red' }, /"colour" is not known/)
  t.strictSame(
    world.sim.calls.filter(call => !/^(Describe|Get)/.test(call)),
    [],
  )
  const planned = await plan({ machine })
  t.equal(planned.copySizeBytes, 2 * 2 ** 20)
  t.match(planned.remarks.join('\n'), /quotas have room for 2 GiB of gp3 /)
  t.notMatch(planned.remarks.join('\n'), /pending/)
  const { account } = world.sim
  const stock = account.snapshots.get(account.images.get(world.sim.addStockImage(undefined))!.rootSnapshot)!
  const open = { ...stock, completesAtMillis: undefined, lastWriteMillis: Infinity }
  for (let count = 1; count <= 99; count++) account.snapshots.set(`snap-${count}`, { ...open, id: `snap-${count}` })
  t.match((await plan({ machine })).remarks.join('\n'), /100 snapshots pending, and has 99 at this moment/)
  t.match(planned.remarks.join('\n'), /1049088 bytes become a volume of 1 GiB/)
  t.strictSame((await plan(planned.settings)).settings, planned.settings, 'a plan of what was planned is the same')
  await tools.close()
  await world.close()
})
