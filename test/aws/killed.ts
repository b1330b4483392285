import t from 'tap'
import { ownKeys } from '../../src/aws/tags.ts'
import { AwsWorld, bootableModel, bootSector, faultsOf, Model } from '../support/aws-world.ts'

const { signal } = new AbortController()
const machine = { instanceType: 'm7i.large', subnet: 'subnet-1', securityGroups: ['sg-1'], key: 'operator' }

t.test(
  'whichever AWS call a process dies in, before or after it is carried out, the next one finishes; or removes all of it',
  async t => {
    for (const start of ['image', 'root-swap']) {
      let callCount = Infinity
      for (let dieAfter = 1; dieAfter <= callCount; dieAfter++) {
        const model = bootableModel()
        const checkpoint = model.checkpoint()
        const world = await AwsWorld.start(model, { unlistedMillis: dieAfter % 2 === 0 ? 0 : 4_000 })
        const helperImage = world.sim.addStockImage('windows')
        const own = start === 'image' ? machine : { ...machine, start, helperImage }
        const fates = [
          { then: 'finish', kind: 'hang-after' },
          { then: 'remove', kind: dieAfter % 2 === 0 ? 'hang' : 'hang-after' },
        ] as const
        for (const [index, { then, kind }] of fates.entries()) {
          const held = { record: world.record(checkpoint, { machine: own }, `r-00000000000${index}`) }
          const dying = new AbortController()
          world.sim.calls.length = 0
          world.sim.afterCall = number => {
            if (number === dieAfter) dying.abort(new Error('killed'))
          }
          world.sim.faults.at(dieAfter, { kind })
          const first = world.tools()
          const died = await world
            .recoveries(first)
            .prepare(world.context(held, dying.signal))
            .then(
              () => false,
              () => true,
            )
          await first.close()
          if (!died) callCount = Math.min(callCount, dieAfter)
          world.sim.faults.mend()
          world.sim.afterCall = () => undefined
          const second = world.tools()
          const context = world.context(held, signal)
          if (then === 'finish') {
            await world.recoveries(second).prepare(context)
            const faults = faultsOf(world, held.record)
            if (faults.length > 0)
              t.fail(`${start}, ${kind} at call ${dieAfter} (${world.sim.calls[dieAfter - 1]}): ${faults.join('; ')}`)
            await world.recoveries(second).remove(context)
          } else await world.recoveries(second).remove(context)
          const left = world.sim.account.tagged(ownKeys.recovery, held.record.id)
          if (left.length > 0) t.fail(`${start}, ${kind} at call ${dieAfter}, ${then}: ${left.join()} are left`)
          await second.close()
        }
        await world.close()
      }
      t.ok(callCount >= 15 && callCount < 200, `${start}: ${callCount} calls`)
    }
  },
)

t.test('three machines that come up side by side: whichever call a process dies in, the same', async t => {
  let callCount = Infinity
  for (let dieAfter = 1; dieAfter <= callCount; dieAfter++) {
    const model = new Model({ 1: 2 ** 19, 2: 2 ** 19, 3: 2 ** 19, 4: 2 ** 19 })
    for (const volume of [1, 2, 3]) model.write(volume, 0, bootSector())
    for (let count = 0; count < 8; count++) model.writeRandomly(4, false)
    const checkpoint = model.checkpoint()
    const vms = [
      { name: 'web', volumes: [1] },
      { name: 'db', volumes: [2, 4] },
      { name: 'licensed', volumes: [3] },
    ]
    const world = await AwsWorld.start(model, { unlistedMillis: dieAfter % 4 < 2 ? 0 : 4_000 })
    const swapped = { start: 'root-swap', helperImage: world.sim.addStockImage('windows') }
    const then = dieAfter % 2 === 0 ? 'remove' : 'finish'
    const kind = dieAfter % 4 === 0 ? 'hang' : 'hang-after'
    const settings = { machine, machines: { licensed: swapped } }
    const held = { record: world.record(checkpoint, settings, undefined, vms) }
    const dying = new AbortController()
    world.sim.afterCall = number => {
      if (number === dieAfter) dying.abort(new Error('killed'))
    }
    world.sim.faults.at(dieAfter, { kind })
    const first = world.tools()
    const preparing = world.recoveries(first).prepare(world.context(held, dying.signal))
    await preparing.then(
      () => (callCount = Math.min(callCount, dieAfter)),
      () => undefined,
    )
    await first.close()
    world.sim.faults.mend()
    world.sim.afterCall = () => undefined
    const second = world.tools()
    const context = world.context(held, signal)
    if (then === 'finish') {
      await world.recoveries(second).prepare(context)
      const faults = faultsOf(world, held.record)
      if (faults.length > 0)
        t.fail(`${kind} at call ${dieAfter} (${world.sim.calls[dieAfter - 1]}): ${faults.join('; ')}`)
      await world.recoveries(second).remove(context)
      const left = world.sim.account.tagged(ownKeys.recovery, held.record.id)
      if (left.length > 0) t.fail(`${kind} at call ${dieAfter}, ${then}: ${left.join()} are left`)
      await second.close()
    }
    await world.close()
  }
  t.ok(callCount >= 40 && callCount < 400, `${callCount} calls`)
})

t.test('what was created, and noted, a moment ago and is in no listing yet goes all the same', async t => {
  for (const [call, unlistedMillis] of [
    ['PutSnapshotBlock', 200_000],
    ['DescribeInstances', 20_000],
  ] as const) {
    const model = bootableModel()
    const world = await AwsWorld.start(model, { unlistedMillis })
    const held = { record: world.record(model.checkpoint(), { machine }) }
    const dying = new AbortController()
    world.sim.afterCall = number => {
      if (world.sim.calls[number - 1] === call) dying.abort(new Error('killed'))
    }
    const first = world.tools()
    await t.rejects(world.recoveries(first).prepare(world.context(held, dying.signal)), { message: 'killed' })
    await first.close()
    world.sim.afterCall = () => undefined
    t.not(world.sim.account.tagged(ownKeys.recovery, held.record.id).length, 0)
    const second = world.tools()
    await world.recoveries(second).remove(world.context(held, signal))
    t.strictSame(world.sim.account.tagged(ownKeys.recovery, held.record.id), [], call)
    await second.close()
    await world.close()
  }
})
