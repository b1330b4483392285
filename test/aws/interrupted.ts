import t from 'tap'
import { memoryOf } from '../../src/aws/memory.ts'
import { ownKeys } from '../../src/aws/tags.ts'
import { AwsWorld, bootableModel, bootSector, faultsOf, Model } from '../support/aws-world.ts'

const { signal } = new AbortController()
const settings = { machine: { instanceType: 'm7i.large', subnet: 'subnet-1' } }

t.test('a network that fails more puts than the budget holds costs time, and nothing that was put', async t => {
  const model = new Model({ 1: 20 * 2 ** 20 })
  model.write(1, 0, Buffer.alloc(20 * 2 ** 20, 7))
  const world = await AwsWorld.start(model)
  const held = { record: world.record(model.checkpoint(), settings) }
  const tools = world.tools()
  world.sim.faults.next('PutSnapshotBlock', { kind: 'cut' }, 250)
  await world.recoveries(tools).prepare(world.context(held, signal))
  t.equal(world.sim.callCount('PutSnapshotBlock'), 290)
  t.equal(world.sim.callCount('StartSnapshot'), 1)
  await tools.close()
  await world.close()
})

t.test('a volume that AWS puts off lets the others end', async t => {
  const model = new Model({ 1: 2 ** 20, 2: 2 ** 20 })
  model.write(2, 0, bootSector())
  const world = await AwsWorld.start(model)
  const held = { record: world.record(model.checkpoint(), settings) }
  const tools = world.tools()
  // The first, of zeros, is refused as often as it asks; the other one's put is tried for longer.
  world.sim.faults.next('CompleteSnapshot', { kind: 'refuse', status: 503, code: 'ServiceUnavailable' }, 8)
  world.sim.faults.next('PutSnapshotBlock', { kind: 'cut' }, 14)
  const context = world.context(held, signal)
  await t.rejects(world.recoveries(tools).prepare(context), { code: 'CLOUD_UNAVAILABLE' })
  t.equal(memoryOf(held.record.memory).snapshots[2]?.isComplete, true)
  world.sim.faults.mend()
  await world.recoveries(tools).prepare(context)
  t.equal(world.sim.callCount('StartSnapshot'), 2)
  await tools.close()
  await world.close()
})

t.test(
  'a snapshot that AWS has taken is waited for after a restart, not completed again and not thrown away',
  async t => {
    const model = new Model({ 1: 2 ** 20 })
    model.write(1, 0, bootSector())
    const world = await AwsWorld.start(model, { refusesSecondComplete: true, completionMillis: 200_000 })
    const held = { record: world.record(model.checkpoint(), settings) }
    const dying = new AbortController()
    world.sim.afterCall = (_, operation) => {
      if (operation === 'DescribeSnapshots' && world.sim.callCount('CompleteSnapshot') > 0)
        dying.abort(new Error('killed'))
    }
    const first = world.tools()
    await t.rejects(world.recoveries(first).prepare(world.context(held, dying.signal)), { message: 'killed' })
    await first.close()
    world.sim.afterCall = () => undefined
    t.equal(memoryOf(held.record.memory).snapshots[1]?.isTaken, true)
    const second = world.tools()
    await world.recoveries(second).prepare(world.context(held, signal))
    t.equal(world.sim.callCount('StartSnapshot'), 1)
    t.equal(world.sim.callCount('CompleteSnapshot'), 1)
    t.equal(world.sim.callCount('DeleteSnapshot'), 0)
    await second.close()
    await world.close()
  },
)

t.test('a snapshot without a block to put is completed though AWS does not know it yet', async t => {
  const model = new Model({ 1: 2 ** 20 })
  const world = await AwsWorld.start(model, { snapshotUnseenMillis: 40_000 })
  const held = { record: world.record(model.checkpoint(), settings) }
  const tools = world.tools()
  await world.recoveries(tools).prepare(world.context(held, signal))
  t.equal(world.sim.callCount('StartSnapshot'), 1)
  t.equal(world.sim.callCount('DeleteSnapshot'), 0)
  await tools.close()
  await world.close()
})

t.test('a snapshot is waited for, and not thrown away, where the answer to its completion was lost', async t => {
  for (const kind of ['lose-response', 'hang-after'] as const) {
    const model = new Model({ 1: 2 ** 20 })
    model.write(1, 0, bootSector())
    const world = await AwsWorld.start(model, { refusesSecondComplete: true, completionMillis: 400_000 })
    const held = { record: world.record(model.checkpoint(), settings) }
    const dying = new AbortController()
    if (kind === 'hang-after')
      // the process dies with it
      world.sim.afterCall = (_, operation) => {
        if (operation === 'CompleteSnapshot') dying.abort(new Error('killed'))
      }
    world.sim.faults.next('CompleteSnapshot', { kind })
    let tools = world.tools()
    const preparing = world.recoveries(tools).prepare(world.context(held, dying.signal))
    if (kind === 'hang-after') {
      await t.rejects(preparing, { message: 'killed' })
      await tools.close()
      tools = world.tools()
      await world.recoveries(tools).prepare(world.context(held, signal))
    } else await preparing
    t.equal(world.sim.callCount('CompleteSnapshot'), 2, kind)
    t.equal(world.sim.callCount('StartSnapshot'), 1, kind)
    t.equal(world.sim.callCount('DeleteSnapshot'), 0, kind)
    await tools.close()
    await world.close()
  }
})

t.test('a snapshot that has other blocks than it should have is given up at once, not waited for', async t => {
  const model = new Model({ 1: 2 ** 20 })
  model.write(1, 0, bootSector())
  const world = await AwsWorld.start(model)
  const held = { record: world.record(model.checkpoint(), settings) }
  const tools = world.tools()
  world.sim.faults.next('CompleteSnapshot', {
    kind: 'refuse',
    status: 400,
    code: 'ValidationException',
    reason: 'INVALID_PARAMETER_VALUE',
  })
  const begunMillis = tools.clock.monotonicMillis()
  await world.recoveries(tools).prepare(world.context(held, signal))
  t.equal(world.sim.callCount('StartSnapshot'), 2)
  t.equal(world.sim.account.tagged(ownKeys.recovery, held.record.id).filter(id => id.startsWith('snap-')).length, 1)
  t.ok(tools.clock.monotonicMillis() - begunMillis < 100_000)
  await tools.close()
  await world.close()
})

t.test(
  'an image whose deregistration was not answered is gone: neither removal nor commit waits or fails for it',
  async t => {
    for (const end of ['remove', 'commit'] as const) {
      const model = bootableModel()
      const world = await AwsWorld.start(model)
      const held = { record: world.record(model.checkpoint(), settings) }
      const tools = world.tools()
      await world.recoveries(tools).prepare(world.context(held, signal))
      world.sim.faults.next('DeregisterImage', { kind: 'lose-response' })
      const begunMillis = tools.clock.monotonicMillis()
      await world.recoveries(tools)[end](world.context(held, signal))
      t.ok(tools.clock.monotonicMillis() - begunMillis < 120_000, end)
      t.equal(world.sim.account.images.size, 0, end)
      await tools.close()
      await world.close()
    }
  },
)

/** Each kind of thing that a recovery creates, and what may be gone between its plan and its run. */
const creations = [
  { call: 'StartSnapshot', start: 'image', refusal: { status: 402, code: 'ServiceQuotaExceededException' } },
  { call: 'CreateVolume', start: 'nothing', refusal: { status: 400, code: 'VolumeLimitExceeded' } },
  { call: 'RegisterImage', start: 'image', refusal: { status: 403, code: 'UnauthorizedOperation' } },
  { call: 'RunInstances', start: 'image', refusal: { status: 400, code: 'InvalidSubnetID.NotFound' } },
  { call: 'RunInstances', start: 'root-swap', refusal: { status: 400, code: 'VcpuLimitExceeded' } },
] as const

/** How long AWS may hide what it has made; longer than an undo takes that does not wait for that. */
const unlistedMillis = 200_000

for (const { call, start, refusal } of creations)
  t.test(
    `${call}, ${start}: what AWS refused at every try was never made, and an undo does not wait for it`,
    async t => {
      const attempts = [
        { name: 'refused', before: undefined, isWaitedFor: false },
        { name: 'answer lost, then refused', before: { kind: 'lose-response' }, isWaitedFor: true },
        { name: 'answer late, then refused', before: { kind: 'hang-after' }, isWaitedFor: true },
        {
          name: 'put off, then refused',
          before: { kind: 'refuse', status: 500, code: 'InternalError' },
          isWaitedFor: true,
        },
        {
          name: 'made before with other parameters',
          before: { kind: 'refuse', status: 400, code: 'IdempotentParameterMismatch' },
          isWaitedFor: true,
        },
      ] as const
      for (const { name, before, isWaitedFor } of attempts) {
        const isKilled = before?.kind === 'hang-after'
        const model = bootableModel()
        const world = await AwsWorld.start(model)
        const helper = start === 'root-swap' ? { helperImage: world.sim.addStockImage('windows') } : {}
        const held = {
          record: world.record(model.checkpoint(), { machine: { ...settings.machine, start, ...helper } }),
        }
        const dying = new AbortController()
        if (before !== undefined) world.sim.faults.next(call, before)
        world.sim.faults.next(call, { kind: 'refuse', ...refusal }, Infinity)
        world.sim.afterCall = (_, operation) => {
          if (operation !== call) return
          if (world.sim.callCount(call) === 1) world.sim.account.listLate(unlistedMillis)
          if (isKilled) dying.abort(new Error('killed'))
        }
        let tools = world.tools()
        await t.rejects(world.recoveries(tools).prepare(world.context(held, dying.signal)), name)
        world.sim.afterCall = () => undefined
        await tools.close()
        tools = world.tools()
        if (isKilled) await t.rejects(world.recoveries(tools).prepare(world.context(held, signal)), name)
        const begunMillis = tools.clock.monotonicMillis()
        await world.recoveries(tools).remove(world.context(held, signal))
        const waitedMillis = tools.clock.monotonicMillis() - begunMillis
        t.equal(waitedMillis > 150_000, isWaitedFor, `${name}: ${waitedMillis} ms`)
        t.strictSame(world.sim.account.tagged(ownKeys.recovery, held.record.id), [], name)
        await tools.close()
        await world.close()
      }
    },
  )

/** Three machines of one volume each. */
async function threeMachines(machines = {}) {
  const model = new Model({ 1: 2 ** 19, 2: 2 ** 19, 3: 2 ** 19 })
  for (const volume of [1, 2, 3]) model.write(volume, 0, bootSector())
  const world = await AwsWorld.start(model)
  const vms = ['web', 'db', 'app'].map((name, index) => ({ name, volumes: [index + 1] }))
  return { world, held: { record: world.record(model.checkpoint(), { ...settings, machines }, undefined, vms) } }
}

t.test('machines come up side by side: none waits for another', async t => {
  const { world, held } = await threeMachines()
  const tools = world.tools()
  await world.recoveries(tools).prepare(world.context(held, signal))
  const { calls } = world.sim
  t.equal(calls.lastIndexOf('RegisterImage') < calls.indexOf('RunInstances'), true)
  t.strictSame(faultsOf(world, held.record), [])
  await tools.close()
  await world.close()
})

t.test(
  'where one machine cannot come up the others end before the failure is told, and an undo leaves nothing',
  async t => {
    for (const skip of [0, 1, 2]) {
      const { world, held } = await threeMachines()
      const tools = world.tools()
      world.sim.faults.next('RunInstances', { kind: 'refuse', status: 400, code: 'VcpuLimitExceeded' }, 1, skip)
      await t.rejects(world.recoveries(tools).prepare(world.context(held, signal)), { code: 'CLOUD_REFUSED' })
      const creationCount = () => world.sim.calls.filter(call => /^(RegisterImage|RunInstances)$/.test(call)).length
      const created = creationCount()
      await world.clock.sleep(60_000, signal)
      t.equal(creationCount(), created, 'nobody asks for anything any more')
      const begunMillis = tools.clock.monotonicMillis()
      await world.recoveries(tools).remove(world.context(held, signal))
      t.ok(tools.clock.monotonicMillis() - begunMillis < 150_000, 'nothing is waited for that was never made')
      t.strictSame(world.sim.account.tagged(ownKeys.recovery, held.record.id), [])
      await tools.close()
      await world.close()
    }
  },
)

t.test('a machine that AWS puts off lets the others come up', async t => {
  const { world, held } = await threeMachines({ db: { start: 'nothing' }, app: { start: 'nothing' } })
  const tools = world.tools()
  world.sim.faults.next('RegisterImage', { kind: 'refuse', status: 503, code: 'Unavailable' }, 8)
  const context = world.context(held, signal)
  await t.rejects(world.recoveries(tools).prepare(context), { code: 'CLOUD_UNAVAILABLE' })
  t.equal(world.sim.account.volumes.size, 2)
  await world.recoveries(tools).prepare(context)
  t.equal(world.sim.account.instances.size, 1)
  t.equal(world.sim.account.volumes.size, 3)
  await tools.close()
  await world.close()
})

t.test('a removal that AWS interrupts knows, called again, what it has seen, and does not wait for that', async t => {
  const model = bootableModel()
  const world = await AwsWorld.start(model)
  const held = { record: world.record(model.checkpoint(), settings) }
  const tools = world.tools()
  const recoveries = world.recoveries(tools)
  await recoveries.prepare(world.context(held, signal))
  const begunMillis = tools.clock.monotonicMillis()
  world.sim.faults.next('DeleteSnapshot', { kind: 'refuse', status: 503, code: 'Unavailable' }, 8)
  await t.rejects(recoveries.remove(world.context(held, signal)), { code: 'CLOUD_UNAVAILABLE' })
  t.equal(world.sim.account.images.size, 0, 'some of it is gone')
  await recoveries.remove(world.context(held, signal))
  t.strictSame(world.sim.account.tagged(ownKeys.recovery, held.record.id), [])
  t.ok(tools.clock.monotonicMillis() - begunMillis < 200_000, 'it does not wait until all would be listed')
  await tools.close()
  await world.close()
})

t.test('what AWS has shown, and does not know at the next call, is asked for again', async t => {
  const cases = [
    { start: 'nothing', calls: { CreateVolume: 'InvalidSnapshot.NotFound' } },
    {
      start: 'image',
      calls: {
        RegisterImage: 'InvalidSnapshot.NotFound',
        RunInstances: 'InvalidAMIID.NotFound',
        DescribeInstances: 'InvalidInstanceID.NotFound',
      },
    },
    {
      start: 'root-swap',
      calls: {
        StopInstances: 'InvalidInstanceID.NotFound',
        DetachVolume: 'InvalidVolume.NotFound',
        AttachVolume: 'InvalidInstanceID.NotFound',
        StartInstances: 'InvalidInstanceID.NotFound',
      },
    },
  ]
  for (const { start, calls } of cases) {
    const model = bootableModel()
    const world = await AwsWorld.start(model)
    const helper = start === 'root-swap' ? { helperImage: world.sim.addStockImage('windows') } : {}
    const held = { record: world.record(model.checkpoint(), { machine: { ...settings.machine, start, ...helper } }) }
    for (const [call, code] of Object.entries(calls))
      world.sim.faults.next(call, { kind: 'refuse', status: 400, code }, 3, call === 'DescribeInstances' ? 1 : 0)
    const tools = world.tools()
    await world.recoveries(tools).prepare(world.context(held, signal))
    if (start === 'nothing') t.equal(world.sim.account.volumes.size, 2)
    else t.strictSame(faultsOf(world, held.record), [], start)
    await tools.close()
    await world.close()
  }
})

t.test('of a volume that is put all is done, though it ends with zeros', async t => {
  const model = new Model({ 1: 4 * 2 ** 20 })
  model.write(1, 0, bootSector())
  const world = await AwsWorld.start(model)
  const held = { record: world.record(model.checkpoint(), settings) }
  const tools = world.tools()
  const told: number[] = []
  const context = world.context(held, signal)
  context.progress = (_, doneBytes) => void told.push(doneBytes)
  await world.recoveries(tools).prepare(context)
  t.equal(told.at(-1), 4 * 2 ** 20)
  await tools.close()
  await world.close()
})

t.test('a volume that is being made keeps none of its machine waiting', async t => {
  const model = bootableModel()
  const world = await AwsWorld.start(model)
  const held = { record: world.record(model.checkpoint(), { machine: { ...settings.machine, start: 'nothing' } }) }
  const tools = world.tools()
  await world.recoveries(tools).prepare(world.context(held, signal))
  const { calls } = world.sim
  t.equal(calls.lastIndexOf('CreateVolume') < calls.indexOf('DescribeVolumes'), true)
  await tools.close()
  await world.close()
})
