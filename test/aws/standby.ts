import t from 'tap'
import { chainsMemoryOf } from '../../src/aws/chain-memory.ts'
import { memoryOf } from '../../src/aws/memory.ts'
import { ownKeys } from '../../src/aws/tags.ts'
import type { Json } from '../../src/timeline/recovery.ts'
import { AwsWorld, bootSector, Model, modelVpg } from '../support/aws-world.ts'

// Standby chains, kept by the engine, in the simulated AWS. Whatever dies wherever: of each volume there is one link, with the bytes of its checkpoint, whose
// checkpoint is kept; and when none is wanted any more there is nothing.

const { signal } = new AbortController()
const settings = { availabilityZone: 'eu-central-1a', machine: { start: 'nothing' } }
const blockSizeBytes = 524_288

function links(world: AwsWorld): string[] {
  return world.sim.account.tagged(ownKeys.standby, modelVpg)
}

/** What is wrong with the chains as of the checkpoint: nothing. */
function faultsOf(world: AwsWorld, ordinal: number): string[] {
  const { standby, model } = world
  const checkpoint = model.checkpoints.find(each => each.ordinal === ordinal)!
  const faults: string[] = []
  if (standby?.next !== undefined) faults.push('a next one is still remembered')
  if (standby?.checkpoints.map(each => each.ordinal).join() !== String(ordinal))
    faults.push('other checkpoints are kept')
  const { volumes } = chainsMemoryOf(standby?.memory ?? null)
  for (const { number, sizeBytes } of checkpoint.volumes) {
    const { link } = volumes[number] ?? {}
    if (link?.ordinal !== ordinal) faults.push(`volume ${number} has no link of it`)
    else if (!world.snapshotBytes(link.snapshot, sizeBytes).equals(model.bytesAt(checkpoint, number)))
      faults.push(`the link of volume ${number} has other bytes`)
  }
  const wanted = Object.values(volumes).map(({ link }) => link?.snapshot)
  if (links(world).sort().join() !== wanted.sort().join()) faults.push(`there is ${links(world).join()}`)
  return faults
}

t.test(
  'a chain is advanced by what has changed, and a recovery puts what differs from it, in either direction',
  async t => {
    const model = new Model({ 1: 20 * 2 ** 20 })
    for (let count = 0; count < 60; count++) model.writeRandomly(1, false)
    model.write(1, 0, bootSector())
    const world = await AwsWorld.start(model, { emptyPages: true, pageBlocksMax: 7, pageItemsMax: 1 })
    const tools = world.tools()
    const older = model.checkpoint()
    const standby = world.standbys(tools)
    const advanced = async (): Promise<number> => {
      const { ordinal } = model.checkpoints.at(-1)!
      await world.until(() => world.standby?.next === undefined && world.advances.at(-1)?.ordinal === ordinal)
      t.strictSame(faultsOf(world, ordinal), [])
      return world.advances.at(-1)!.putSizeBytes / blockSizeBytes
    }
    const whole = await advanced()
    t.ok(whole >= 30, `${whole}`)
    model.write(1, 5 * 2 ** 20, Buffer.alloc(2 ** 20))
    model.write(1, 9 * 2 ** 20, Buffer.from('changed'))
    model.checkpoint()
    const part = await advanced()
    t.ok(part === 3 || part === 2, `${part}: two blocks of zeros where the parent may have had data, and one of data`)
    model.write(1, 2 * 2 ** 20, Buffer.from('later'))
    const resume = await standby.engine.suspend()
    const latest = model.checkpoint()
    for (const [checkpoint, most] of [
      [latest, 1],
      [older, 3],
    ] as const) {
      const held = { record: world.record(checkpoint, settings, `r-0000000000${checkpoint.ordinal}`) }
      const { definition } = standby
      const sizes = [{ volume: 1, sizeBytes: 20 * 2 ** 20, dataSizeBytes: 20 * 2 ** 20 }]
      const order = { kind: 'test', definition, checkpoint, vms: held.record.vms, sizes, settings } as const
      const planned = await world.recoveries(tools).plan(order, signal)
      const before = world.sim.callCount('PutSnapshotBlock')
      await world.recoveries(tools).prepare(world.context(held, signal))
      const count = world.sim.callCount('PutSnapshotBlock') - before
      t.ok(count <= most, `${count} blocks were put to recover ${checkpoint.ordinal}`)
      t.ok(planned.copySizeBytes >= count * blockSizeBytes, `${planned.copySizeBytes} bytes were planned`)
      t.ok(planned.copySizeBytes <= 4 * blockSizeBytes && planned.copySizeBytes > 0)
      t.match(planned.remarks.join(), /only what differs from its standby snapshot, .* is put: \d+\.\d MiB at most/)
      const id = memoryOf(held.record.memory).volumes[1]!.volume!
      t.ok(world.volumeBytes(id, 20 * 2 ** 20).equals(model.bytesAt(checkpoint, 1)))
      await world.recoveries(tools).remove(world.context(held, signal))
    }
    model.retained.delete(model.checkpoints[1]!.ordinal)
    resume()
    t.ok((await advanced()) >= 30, 'where nobody can say what changed since the link the chain begins anew')
    t.match(world.told, [/begins anew/])
    standby.definition.standbyIntervalMillis = 0
    standby.engine.changed(modelVpg)
    await world.until(() => world.standby === undefined)
    t.strictSame(links(world), [])
    t.equal(standby.engine.view(modelVpg), undefined)
    await standby.kill()
    await tools.close()
    await world.close()
  },
)

t.test(
  'whichever AWS call a process dies in, the next one goes on with the chains; or removes all of them',
  async t => {
    let callCount = Infinity
    for (let dieAfter = 1; dieAfter <= callCount; dieAfter++) {
      for (const then of ['go on', 'remove'] as const) {
        const model = new Model({ 1: 2 ** 20 + 512 })
        for (let count = 0; count < 3; count++) model.writeRandomly(1, false)
        model.checkpoint()
        const world = await AwsWorld.start(model, { unlistedMillis: dieAfter % 2 === 0 ? 0 : 4_000 })
        const first = world.tools()
        const dying = world.standbys(first)
        await world.until(() => world.advances.length === 1)
        model.writeRandomly(1)
        const kind = then === 'remove' && dieAfter % 2 === 0 ? 'hang' : 'hang-after'
        world.sim.calls.length = 0
        let dies: () => void = () => undefined
        const died = new Promise<boolean>(resolve => (dies = () => resolve(true)))
        world.sim.afterCall = number => {
          if (number === dieAfter) dies()
        }
        world.sim.faults.at(dieAfter, { kind })
        const { ordinal } = model.checkpoint()
        dying.engine.changed(modelVpg)
        const waiting = new AbortController()
        const ended = world.until(() => world.advances.length === 2, waiting.signal).then(() => false)
        if (!(await Promise.race([died, ended]))) callCount = Math.min(callCount, dieAfter)
        await dying.kill()
        await first.close()
        waiting.abort()
        await ended.catch(() => undefined)
        world.sim.faults.mend()
        world.sim.afterCall = () => undefined
        const second = world.tools()
        const next = world.standbys(second, { standbyIntervalMillis: then === 'go on' ? 3_600_000 : 0 })
        const what = `dies at call ${dieAfter} (${world.sim.calls[dieAfter - 1]}), ${kind}`
        if (then === 'go on') {
          await world.until(
            () => world.standby?.next === undefined && world.standby?.checkpoints.at(-1)?.ordinal === ordinal,
          )
          const faults = faultsOf(world, ordinal)
          if (faults.length > 0) t.fail(`${what}: ${faults.join('; ')}`)
          next.definition.standbyIntervalMillis = 0
          next.engine.changed(modelVpg)
        }
        await world.until(() => world.standby === undefined)
        if (links(world).length > 0) t.fail(`${what}, ${then}: ${links(world).join()} is left`)
        await next.kill()
        await second.close()
        await world.close()
      }
    }
    t.ok(callCount >= 8 && callCount < 40, `${callCount} calls`)
  },
)

t.test('who recovers has the rate to himself: what is being put for a chain waits, and is gone on with', async t => {
  const model = new Model({ 1: 4 * 2 ** 20, 2: 2 ** 19 })
  for (const volume of [1, 2]) for (let count = 0; count < 9; count++) model.writeRandomly(volume, false)
  model.checkpoint()
  const world = await AwsWorld.start(model)
  const tools = world.tools()
  world.sim.faults.next('PutSnapshotBlock', { kind: 'hang' }, 1)
  const standby = world.standbys(tools)
  await world.until(() => world.sim.callCount('PutSnapshotBlock') > 0)
  const resume = await standby.engine.suspend()
  t.equal(standby.engine.view(modelVpg)?.state, 'suspended')
  standby.engine.changed(modelVpg)
  await world.clock.sleep(60_000, signal)
  t.equal(world.sim.callCount('CompleteSnapshot'), 0)
  resume()
  await world.until(() => world.advances.length === 1)
  t.strictSame(faultsOf(world, model.checkpoints[0]!.ordinal), [])
  t.equal(world.sim.callCount('StartSnapshot'), 2, 'no snapshot was begun again')
  t.equal(standby.engine.view(modelVpg)?.failureCount, 0)

  // The checkpoint that is being put is withdrawn: what was begun of it goes, and the chain moves on to another one.
  model.writeRandomly(1, false)
  model.writeRandomly(2, false)
  const withdrawn = model.checkpoint()
  world.sim.faults.next('CompleteSnapshot', { kind: 'refuse', status: 503, code: 'ServiceUnavailable' }, 100)
  standby.engine.changed(modelVpg)
  await world.until(() => standby.engine.view(modelVpg)?.failureCount === 1)
  t.equal(world.standby?.next, withdrawn.ordinal)
  world.sim.faults.mend()
  model.retained.delete(withdrawn.ordinal)
  const later = model.checkpoint()
  await world.until(() => world.advances.at(-1)?.ordinal === later.ordinal)
  await world.until(() => world.standby?.next === undefined)
  t.strictSame(faultsOf(world, later.ordinal), [])

  // A volume that the group has no more takes its chain with it.
  standby.definition.volumes = standby.definition.volumes.filter(({ number }) => number === 1)
  const last = model.checkpoint()
  standby.engine.changed(modelVpg)
  await world.until(() => world.advances.at(-1)?.ordinal === last.ordinal)
  t.equal(links(world).length, 1)
  await standby.kill()
  await tools.close()
  await world.close()
})

t.test(
  'snapshots bear the key that is named; of another key nothing is put upon a link, and its chain begins anew',
  async t => {
    const model = new Model({ 1: 8 * 2 ** 20, 2: 2 ** 20 })
    for (const volume of [1, 2]) for (let count = 0; count < 20; count++) model.writeRandomly(volume, false)
    const first = model.checkpoint()
    const world = await AwsWorld.start(model)
    const { account } = world.sim
    const keys = ['1', '2', '3'].map(id => `arn:aws:kms:${world.sim.region}:111122223333:key/${id}`)
    const [one, two, three] = keys as [string, string, string]
    account.kmsKeys.add(one).add(two)
    const tools = world.tools()
    const standby = world.standbys(tools, { snapshotKeys: { ofAll: one, ofVolumes: { 2: two } } })
    const advanced = async (): Promise<(string | undefined)[]> => {
      const { ordinal } = model.checkpoints.at(-1)!
      standby.engine.changed(modelVpg)
      await world.until(() => world.standby?.next === undefined && world.advances.at(-1)?.ordinal === ordinal)
      t.strictSame(faultsOf(world, ordinal), [])
      const { volumes } = chainsMemoryOf(world.standby?.memory ?? null)
      return [1, 2].map(volume => account.snapshots.get(volumes[volume]!.link!.snapshot)?.kmsKey)
    }
    t.strictSame(await advanced(), [one, two])
    model.write(1, 2 ** 20, Buffer.from('changed'))
    model.checkpoint()
    t.strictSame(await advanced(), [one, two])
    t.equal(world.advances.at(-1)!.putSizeBytes, blockSizeBytes, 'upon the link, whose key the next one inherits')

    const resume = await standby.engine.suspend()
    const sizes = first.volumes.map(({ number, sizeBytes }) => ({
      volume: number,
      sizeBytes,
      dataSizeBytes: sizeBytes,
    }))
    const { definition } = standby
    const vms = [{ name: 'web', volumes: [1, 2] }]
    const plan = (volumes: object) =>
      world
        .recoveries(tools)
        .plan(
          { kind: 'test', definition, checkpoint: first, vms, sizes, settings: { ...settings, volumes } as Json },
          signal,
        )
    const asNamed = await plan({})
    t.equal(asNamed.remarks.filter(remark => remark.includes('only what differs')).length, 2)
    const held = { record: world.record(first, asNamed.settings) }
    await world.recoveries(tools).prepare(world.context(held, signal))
    const keysOf = () =>
      Object.values(memoryOf(held.record.memory).volumes).map(({ volume }) => account.volumes.get(volume!)?.kmsKey)
    t.strictSame(keysOf(), [one, two], 'the settings keep what the group has named')
    await world.recoveries(tools).remove(world.context(held, signal))
    const other = await plan({ kmsKey: two })
    t.match(other.remarks.join(), /disk1: its standby snapshot is not encrypted with the key that is wanted/)
    held.record = world.record(first, other.settings, 'r-000000000002')
    await world.recoveries(tools).prepare(world.context(held, signal))
    t.strictSame(keysOf(), [two, two])
    t.ok(
      world.volumeBytes(memoryOf(held.record.memory).volumes[1]!.volume!, 8 * 2 ** 20).equals(model.bytesAt(first, 1)),
    )
    await world.recoveries(tools).remove(world.context(held, signal))
    await t.rejects(plan({ kmsKey: one.replace(world.sim.region, 'us-east-1') }), { message: /is not of eu-central-1/ })
    await t.rejects(plan({ kmsKey: 'alias/mine' }), {
      message: /volumes\.disk1\.kmsKey: "alias\/mine" does not look like one/,
    })
    held.record = world.record(first, (await plan({ kmsKey: three })).settings, 'r-000000000003')
    const startCount = world.sim.callCount('StartSnapshot')
    await t.rejects(world.recoveries(tools).prepare(world.context(held, signal)), { message: /key\/3 does not exist/ })
    t.ok(world.sim.callCount('StartSnapshot') - startCount <= 2, 'a key that AWS does not take is not tried again')

    // While a link is being made, too.
    world.sim.faults.next('PutSnapshotBlock', { kind: 'hang' }, 1)
    const putCount = world.sim.callCount('PutSnapshotBlock')
    model.write(1, 3 * 2 ** 20, Buffer.from('again'))
    model.checkpoint()
    resume()
    standby.engine.changed(modelVpg)
    await world.until(() => world.sim.callCount('PutSnapshotBlock') > putCount)
    const again = await standby.engine.suspend()
    definition.snapshotKeys = { ofVolumes: { 1: two } }
    again()
    t.strictSame(await advanced(), [two, undefined])
    const wholeSizeBytes = Object.values(chainsMemoryOf(world.standby?.memory ?? null).volumes).map(
      ({ link }) => link!.putBlockCount * blockSizeBytes,
    )
    t.ok(wholeSizeBytes[0]! > 4 * blockSizeBytes, 'put upon nothing')
    t.equal(world.advances.at(-1)!.putSizeBytes, wholeSizeBytes[0]! + wholeSizeBytes[1]!)
    await standby.kill()
    await tools.close()
    await world.close()
  },
)

t.test(
  'where AWS is not to be had any more a group is not deleted, in words, until its copies are left there',
  async t => {
    const model = new Model({ 1: 2 ** 20 })
    model.write(1, 0, bootSector())
    const world = await AwsWorld.start(model)
    const tools = world.tools()
    model.checkpoint()
    const standby = world.standbys(tools)
    await world.until(() => world.standby?.next === undefined && world.advances.length === 1)
    world.sim.denied = ['DescribeSnapshots', 'DeleteSnapshot', 'StartSnapshot']
    await t.rejects(standby.engine.end(modelVpg), { code: 'BUSY' })
    await world.until(() => standby.engine.view(modelVpg)?.trouble !== undefined)
    await t.rejects(standby.engine.end(modelVpg), {
      code: 'BUSY',
      message: /does not allow.*vra vpg delete shop --force/,
    })
    await standby.engine.abandon(modelVpg)
    const left = links(world)
    model.write(1, 2 ** 19, Buffer.from('changed'))
    model.checkpoint()
    world.sim.denied = []
    await world.clock.sleep(2_000_000, signal)
    t.strictSame(links(world), left, 'nothing is made, and nothing is removed')
    t.equal(world.advances.length, 1)
    standby.engine.changed(modelVpg)
    await world.until(() => world.advances.length === 2) // what was being removed is, and the chain begins anew
    await standby.kill()
    await tools.close()
    await world.close()
  },
)
