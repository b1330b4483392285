import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import * as fs from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { systemClock, type Clock } from '../../src/base/clock.ts'
import { vpgId } from '../../src/base/ids.ts'
import { realDisk, type Disk } from '../../src/disk/disk.ts'
import { flag, nbd } from '../support/nbd-client.ts'
import { eventually } from '../support/nbd-tools.ts'
import { Site } from '../support/agent-site.ts'
import { failingVolumeFiles } from '../support/volume-file-calls.ts'

// What the two sides do where they cannot go on exactly: what is sent, how much of it, and that the VRA's model is the disk afterwards.

const KiB = 1024
const MiB = 1024 * KiB

t.test('a disk that was changed while the agent did not run is compared by hashes', async t => {
  const site = await Site.create(t.testdir(), ['a', 'b'], 8 * MiB)
  let agent = await site.start()
  await site.untilExact(agent)
  await site.writeSome(agent, 'b', 40)
  await agent.close()
  fs.writeFileSync(site.pathOf('b'), randomBytes(3 * 64 * KiB), { flag: 'r+' })
  site.vra.receivedDataBytes = 0
  agent = await site.start()
  t.match(agent.status().volumes, [{ sync: 'none' }, { sync: 'delta', reason: /changed while the agent/ }])
  await site.untilExact(agent)
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [])
  t.same(site.vra.faults, [])
  t.equal(site.vra.receivedDataBytes, 3 * 64 * KiB, 'what differs, and nothing else')
})

t.test('a block device that was written to while the agent did not run is compared, another one goes on', async t => {
  const site = await Site.create(t.testdir(), ['a'], 4 * MiB)
  const attached = spawnSync('losetup', ['--find', '--show', site.pathOf('a')], { encoding: 'utf8' })
  const device = attached.status === 0 ? attached.stdout.trim() : undefined
  if (device === undefined) {
    await site.vra.kill()
    return t.comment(`no loop device is to be had here: ${attached.error?.message ?? attached.stderr}`)
  }
  const volumes = [{ name: 'a', path: device }]
  try {
    fs.writeFileSync(device, randomBytes(MiB), { flag: 'r+', flush: true }) // a disk whose writes are counted
    let agent = await site.start({ volumes })
    await site.untilExact(agent)
    await site.writeSome(agent, 'a', 20)
    await site.untilExact(agent)
    const { generation } = agent.status()
    await agent.close()

    fs.utimesSync(device, new Date(), new Date()) // as who looks after the nodes does, whenever a device was closed
    agent = await site.start({ volumes })
    t.equal(agent.status().volumes[0]?.sync, 'none', 'nobody has written to it')
    await site.untilExact(agent)
    t.equal(agent.status().generation, generation)
    await agent.close()

    fs.writeFileSync(device, randomBytes(4096), { flag: 'r+' }) // maybe in memory only, when the agent looks
    agent = await site.start({ volumes })
    t.match(agent.status().volumes[0], { sync: 'delta', reason: /block device may have been written to/ })
    await site.untilExact(agent)
    await agent.close()
    t.ok(fs.readFileSync(device).equals(site.vra.models.get('a')!), 'the VRA has what was written')
  } finally {
    await site.vra.kill()
    spawnSync('losetup', ['--detach', device])
  }
  t.same(site.vra.faults, [])
})

t.test('hashes that the VRA cannot tell cost the blocks themselves', async t => {
  const site = await Site.create(t.testdir(), ['a'], 2 * MiB)
  let agent = await site.start()
  await site.untilExact(agent)
  await agent.close()
  fs.writeFileSync(site.pathOf('a'), Buffer.alloc(2 * MiB, 5), { flag: 'r+' })
  site.vra.hashFailure = 'the image cannot be read'
  agent = await site.start()
  await site.untilExact(agent)
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [])
})

t.test('a disk that holds data is sent while its guest writes', async t => {
  const site = await Site.create(t.testdir(), ['a'], 24 * MiB)
  fs.writeFileSync(site.pathOf('a'), randomBytes(6 * MiB), { flag: 'r+' })
  site.vra.syncRateBytesPerSecond = 64 * MiB
  const agent = await site.start({ queueSizeBytesMax: 4 * MiB })
  t.match(agent.status().volumes[0], { sync: 'initial' })
  await site.writeSome(agent, 'a', 200)
  await site.untilExact(agent)
  await site.writeSome(agent, 'a', 20)
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [])
  t.same(site.vra.faults, [])
  t.equal(site.vra.generation, 1)
  t.ok(site.vra.checkpoints.length > 0)
  // How much of it depends on what the guest has written before it was read: not all of the 18 MiB in any case.
  t.ok(site.vra.receivedZeroBytes > 4 * MiB, 'zeros travel as lengths')
})

t.test('an agent that has lost its state compares the disk with what the VRA has', async t => {
  const site = await Site.create(t.testdir(), ['a'], 8 * MiB)
  let agent = await site.start()
  await site.untilExact(agent)
  await site.writeSome(agent, 'a', 40)
  await agent.close()
  fs.rmSync(path.join(site.directory, 'state'), { recursive: true })
  site.vra.receivedDataBytes = 0
  agent = await site.start()
  await site.untilExact(agent)
  t.match(site.told.join(), /delta/)
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [])
  t.equal(site.vra.receivedDataBytes, 0, 'nothing differs')
  t.ok(site.vra.hashRequestCount > 0)
  t.ok(site.vra.generation > 1_000_000, 'a generation above any that it may have forgotten')
})

t.test('a disk that became smaller is refused in words, one that grew is compared', async t => {
  const site = await Site.create(t.testdir(), ['a'], 4 * MiB)
  let agent = await site.start()
  await site.untilExact(agent)
  await site.writeSome(agent, 'a', 10)
  await agent.close()
  fs.truncateSync(site.pathOf('a'), 2 * MiB)
  await t.rejects(site.start(), {
    code: 'CONFIG_INVALID',
    message: /become smaller: it had 4194304 bytes and has 2097152/,
  })
  fs.truncateSync(site.pathOf('a'), 6 * MiB)
  site.vra.volumes[0] = { name: 'a', sizeBytes: 6 * MiB }
  site.vra.models.set('a', Buffer.concat([site.vra.models.get('a')!, Buffer.alloc(2 * MiB)]))
  agent = await site.start()
  t.match(agent.status().volumes[0], { sync: 'delta', reason: /grown from 4194304 to 6291456 bytes.*definition/ })
  await site.untilExact(agent)
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [])
  t.same(site.vra.faults, [])
})

t.test('a dirty map that is damaged costs a wider synchronisation, and is named', async t => {
  const site = await Site.create(t.testdir(), ['a'], 4 * MiB)
  let agent = await site.start()
  await site.untilExact(agent)
  await site.writeSome(agent, 'a', 20)
  await agent.close()
  const file = path.join(site.directory, 'state', 'a.map')
  const flip = (offsetBytes: number): void => {
    const bytes = fs.readFileSync(file)
    bytes[offsetBytes]! ^= 1
    fs.writeFileSync(file, bytes)
  }
  flip(600)
  agent = await site.start()
  t.match(agent.status().volumes[0], { sync: 'bitmap', reason: /1 of the pages of its dirty map are damaged/ })
  await site.untilExact(agent)
  await agent.close()
  flip(30)
  agent = await site.start()
  t.match(agent.status().volumes[0], { sync: 'delta', reason: /dirty map is damaged or gone/ })
  await site.untilExact(agent)
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [])
  t.same(site.vra.faults, [])
})

t.test('a VRA that is behind what it acknowledged gets what the map has, or all that differs', async t => {
  const site = await Site.create(t.testdir(), ['a'], 8 * MiB)
  const agent = await site.start({ markRotationMillisMin: 0 })
  await site.untilExact(agent)
  await site.writeSome(agent, 'a', 40)
  site.vra.offloading = false
  const client = await site.client(agent, 'a')
  await client.write(5 * MiB, randomBytes(64 * KiB))
  await eventually('it is acknowledged', () => agent.status().queuedRecords === 0)
  site.vra.loseAppliance()
  await site.untilGeneration(agent, 2)
  await site.untilExact(agent)
  await client.write(6 * MiB, randomBytes(64 * KiB))
  t.match(site.told.join(), /a: bitmap/)
  t.equal(site.vra.hashRequestCount, 0)
  site.vra.offload()
  site.vra.offloading = true
  for (let round = 0; round < 4; round++) {
    await client.write(7 * MiB, randomBytes(64 * KiB))
    await eventually('it is acknowledged', () => agent.status().queuedRecords === 0)
  }
  await client.write(0, randomBytes(4096), flag.fua)
  const { generation } = agent.status()
  site.vra.loseEverything()
  await site.untilGeneration(agent, generation + 1)
  await site.untilExact(agent)
  t.match(site.told.join(), /a: delta: the VRA has offloaded up to/)
  await client.close()
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [])
  t.same(site.vra.faults, [])
})

t.test('a synchronisation that the VRA asks for compares, or sends everything', async t => {
  const site = await Site.create(t.testdir(), ['a', 'b'], 2 * MiB)
  const agent = await site.start()
  await site.untilExact(agent)
  await site.writeSome(agent, 'a', 20)
  await eventually('it is acknowledged', () => agent.status().queuedRecords === 0)
  site.vra.models.get('a')!.fill(9, 1 * MiB)
  site.vra.send({ type: 'sync-request', kind: 'delta', volumes: [1] })
  await site.untilGeneration(agent, 2)
  await site.untilExact(agent)
  t.same(site.differences(), [])
  site.vra.receivedDataBytes = site.vra.receivedZeroBytes = 0
  site.vra.send({ type: 'sync-request', kind: 'full', volumes: [1, 2] })
  await site.untilGeneration(agent, 3)
  await site.untilExact(agent)
  t.ok(site.vra.receivedDataBytes + site.vra.receivedZeroBytes >= 4 * MiB)
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [])
  t.same(site.vra.faults, [])
})

t.test('a paused VPG sends nothing, and goes on with what was written meanwhile', async t => {
  const site = await Site.create(t.testdir(), ['a'], 4 * MiB)
  let agent = await site.start()
  await site.untilExact(agent)
  site.vra.direct({ paused: true })
  await eventually('it is paused', () => agent.status().paused)
  await site.writeSome(agent, 'a', 20)
  t.match(agent.status(), { stream: 'detached', noCheckpointsBecause: /paused/, queuedBytes: 0 })
  await agent.close()
  agent = await site.start()
  await eventually('the session', () => agent.status().link === 'connected')
  t.equal(agent.status().stream, 'detached', 'also after a restart')
  await site.writeSome(agent, 'a', 5)
  site.vra.direct({ paused: false })
  await site.untilExact(agent)
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [])
  t.same(site.vra.faults, [])
})

t.test('a stop in order is written down when the maps say what is pending, not before', async t => {
  const site = await Site.create(t.testdir(), ['a'], 8 * MiB)
  const mapFile = path.join(site.directory, 'state', 'a.map')
  let mapAtStop: Buffer | undefined
  const disk: Disk = {
    ...realDisk,
    rename: (from, to) => {
      realDisk.rename(from, to)
      if (to.endsWith('state.json') && /"kind": ?"stopped"/.test(fs.readFileSync(to, 'utf8')))
        mapAtStop = fs.readFileSync(mapFile)
    },
  }
  let agent = await site.start({}, { disk })
  await site.untilExact(agent)
  site.vra.offloading = false
  await site.writeSome(agent, 'a', 30)
  await eventually('the queue is empty', () => agent.status().queuedRecords === 0)
  site.vra.direct({ syncRateBytesPerSecond: 1, paused: true }) // what has a mark becomes pending
  await eventually('it is paused', () => agent.status().paused)
  await site.writeSome(agent, 'a', 10)
  site.vra.direct({ syncRateBytesPerSecond: 1, paused: false })
  await site.untilGeneration(agent, 2)
  t.equal(agent.status().volumes[0]?.sync, 'bitmap')
  await agent.close()
  t.ok(mapAtStop, 'the stop was written down')
  fs.writeFileSync(mapFile, mapAtStop!) // killed right after it: nothing that came later is on the medium
  site.vra.direct({ syncRateBytesPerSecond: 0 })
  agent = await site.start()
  await site.untilExact(agent)
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [])
  t.same(site.vra.faults, [])
})

t.test('a damaged page of the map does not hide that a flush of the disk had failed', async t => {
  const site = await Site.create(t.testdir(), ['a'], 16 * MiB)
  let isFailing = false
  const openFile = failingVolumeFiles(({ name, path }) => isFailing && name === 'sync' && path.endsWith('.raw'))
  let agent = await site.start({}, { openVolumeFile: openFile })
  await site.untilExact(agent)
  site.vra.offloading = false
  const client = await site.client(agent, 'a')
  await client.write(MiB, randomBytes(512))
  isFailing = true
  t.ok((await client.request(nbd.flush)).error !== 0)
  isFailing = false
  await site.untilExact(agent)
  await client.close()
  await agent.close()
  const file = path.join(site.directory, 'state', 'a.map')
  const bytes = fs.readFileSync(file)
  bytes[600]! ^= 1
  fs.writeFileSync(file, bytes)
  agent = await site.start()
  t.match(agent.status().volumes[0], { sync: 'bitmap', reason: /a flush of the local disk had failed/ })
  await site.untilExact(agent)
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [])
})

t.test(
  'a disk that was put back behind a stopped agent is not compared before what the queue kept is there',
  async t => {
    const site = await Site.create(t.testdir(), ['a'], 4 * MiB)
    const first = await site.start()
    const [before, after] = [randomBytes(4096), randomBytes(4096)]
    const guest = await site.client(first, 'a')
    await guest.write(0, before)
    await site.untilExact(first)
    await guest.close()
    await first.close()
    fs.writeFileSync(site.pathOf('a'), before, { flag: 'r+' }) // only its times are others
    site.vra.answeringHashes = false
    const second = await site.start({ drainTimeoutMillis: 300 })
    await eventually('it is to be compared', () => {
      const { stream, volumes } = second.status()
      return stream === 'exact' && volumes[0]?.sync === 'delta'
    })
    site.vra.storing = false
    const again = await site.client(second, 'a')
    await again.write(0, after)
    await eventually('it is on its way', () => site.vra.receivedThrough > site.vra.durable)
    await again.close()
    const { generation } = second.status()
    await second.close()
    fs.writeFileSync(site.pathOf('a'), before, { flag: 'r+' })
    site.vra.answeringHashes = true
    const askedCount = site.vra.hashRequestCount
    const third = await site.start()
    await eventually('the queue is sent again', () => site.vra.receivedThrough > site.vra.durable)
    const statusCount = site.vra.statuses.length
    await eventually('all that it would ask has been asked', () => site.vra.statuses.length > statusCount)
    t.equal(site.vra.hashRequestCount, askedCount, 'nothing is compared')
    site.vra.storing = true
    site.vra.store()
    await site.untilExact(third)
    t.equal(third.status().generation, generation, 'the queue was not lost for it')
    await third.close()
    await site.vra.kill()
    t.same(site.differences(), [])
    t.same(site.vra.faults, [])
  },
)

t.test('another VPG of the same name is sent everything', async t => {
  const site = await Site.create(t.testdir(), ['a'], 2 * MiB)
  let agent = await site.start()
  await site.untilExact(agent)
  await site.writeSome(agent, 'a', 20)
  await agent.close()
  site.vra.loseEverything()
  site.vra.vpg = vpgId('fedcba9876543210fedcba9876543210')
  site.vra.counter = 0
  agent = await site.start()
  await site.untilExact(agent)
  await agent.close()
  await site.vra.kill()
  t.match(site.told.join(), /is not the one that was written before/)
  t.same(site.differences(), [])
  t.same(site.vra.faults, [])
})

t.test('a volume that is added after a restart is sent while the others have checkpoints', async t => {
  const site = await Site.create(t.testdir(), ['a', 'b'], 4 * MiB)
  site.vra.volumes.pop()
  const volumes = site.config().volumes
  let agent = await site.start({ volumes: [volumes[0]!] })
  await site.untilExact(agent)
  await agent.close()
  site.vra.volumes.push({ name: 'b', sizeBytes: 4 * MiB })
  fs.writeFileSync(site.pathOf('b'), randomBytes(4 * MiB), { flag: 'r+' })
  site.vra.direct({ syncRateBytesPerSecond: 1 })
  agent = await site.start()
  await eventually('the session', () => agent.status().link === 'connected')
  await site.writeSome(agent, 'a', 3)
  await site.writeSome(agent, 'b', 3)
  site.vra.requestCheckpoint(77)
  await eventually('a checkpoint', () => site.vra.checkpoints.some(each => each.marker.requestId === 77))
  const { marker } = site.vra.checkpoints.at(-1)!
  t.match(marker.volumes, [{ included: true }, { included: false }])
  site.vra.direct({ syncRateBytesPerSecond: 0 })
  await site.untilExact(agent)
  await eventually('a checkpoint of both', () => site.vra.checkpoints.at(-1)!.marker.volumes[1]!.included)
  await agent.close()
  await site.vra.kill()
  t.equal(site.vra.generation, 1)
  t.same(site.differences(), [])
  t.same(site.vra.faults, [])
})

t.test('a checkpoint that is asked for while there can be none is made as soon as there can be one', async t => {
  const site = await Site.create(t.testdir(), ['a'], 4 * MiB)
  fs.writeFileSync(site.pathOf('a'), randomBytes(4 * MiB), { flag: 'r+' })
  site.vra.direct({ syncRateBytesPerSecond: 1 })
  const agent = await site.start()
  await eventually('the session', () => agent.status().link === 'connected')
  site.vra.requestCheckpoint(78)
  await site.writeSome(agent, 'a', 3)
  t.same(site.vra.checkpoints, [], 'nothing would be in it')
  site.vra.direct({ syncRateBytesPerSecond: 0 })
  await eventually('the checkpoint', () => site.vra.checkpoints.some(each => each.marker.requestId === 78))
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [])
})

t.test(
  'a first synchronisation waits where the VRA says so, and then sends what differs from what was handed over',
  async t => {
    const site = await Site.create(t.testdir(), ['a', 'b'], 8 * MiB)
    fs.writeFileSync(site.pathOf('a'), randomBytes(8 * MiB))
    fs.writeFileSync(site.pathOf('b'), randomBytes(MiB), { flag: 'r+' })
    site.vra.heldSyncs = [{ volumes: [1], reason: 'an image of it is being read' }]
    const agent = await site.start()
    await eventually('the other is synchronised', () => agent.status().volumes[1]?.sync === 'none')
    t.match(agent.status().volumes[0], {
      sync: 'initial',
      reason: /waits, an image of it is being read/,
      syncSentBytes: 0,
    })
    t.ok(site.vra.checkpoints.length >= 0, 'the other volume waits for nothing')
    await site.writeSome(agent, 'a', 5)
    await eventually('the VRA has them', () => agent.status().queuedRecords === 0)
    site.vra.models.set('a', fs.readFileSync(site.pathOf('a')))
    fs.writeFileSync(site.pathOf('a'), randomBytes(2 * 64 * KiB), { flag: 'r+' })
    site.vra.receivedDataBytes = 0
    site.vra.direct({ heldSyncs: [], comparedVolumes: [1] })
    await site.untilExact(agent)
    await agent.close()
    await site.vra.kill()
    t.same(site.differences(), [])
    t.same(site.vra.faults, [])
    t.equal(site.vra.receivedDataBytes, 2 * 64 * KiB)
  },
)

t.test('a VRA that cannot tell hashes now is asked again before anything is sent whole', async t => {
  const site = await Site.create(t.testdir(), ['a'], 4 * MiB)
  let agent = await site.start()
  await site.untilExact(agent)
  await site.writeSome(agent, 'a', 20)
  await agent.close()
  fs.writeFileSync(site.pathOf('a'), randomBytes(64 * KiB), { flag: 'r+' })
  site.vra.hashFailure = 'the log is not read up to there yet'
  site.vra.hashFailurePasses = true
  site.vra.receivedDataBytes = site.vra.hashRequestCount = 0
  agent = await site.start()
  await eventually('it is asked again', () => site.vra.hashRequestCount >= 2)
  t.equal(site.vra.receivedDataBytes, 0)
  site.vra.hashFailure = ''
  await site.untilExact(agent)
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [])
  t.equal(site.vra.receivedDataBytes, 64 * KiB)
})

t.test('a volume that the VRA does not take costs itself only; when it is taken what was written is sent', async t => {
  const site = await Site.create(t.testdir(), ['a', 'b'], 4 * MiB)
  site.vra.checkpointIntervalMillis = 1_000
  let agent = await site.start()
  await site.untilExact(agent)
  await site.writeSome(agent, 'b', 20)
  await agent.close()
  const [a, b] = site.vra.volumes
  site.vra.volumes.length = 1
  agent = await site.start()
  await eventually('one is refused', () => agent.status().volumes[1]?.refusal !== '')
  t.match(agent.status().volumes[1], { name: 'b', refusal: /does not know the volume "b".*add-volume/ })
  t.match(agent.status(), { link: 'connected', stream: 'exact', noCheckpointsBecause: '' })
  await site.writeSome(agent, 'a', 20)
  await site.writeSome(agent, 'b', 20)
  const counter = site.vra.checkpoints.length
  await eventually('there are checkpoints without it', () => site.vra.checkpoints.length > counter)
  await eventually('the other is there', () => site.disk('a').equals(site.vra.models.get('a')!))
  site.vra.volumes[1] = { ...b!, sizeBytes: 8 * MiB }
  site.vra.cut()
  await eventually('its size is another', () =>
    /4194304 bytes here and 8388608/.test(agent.status().volumes[1]?.refusal ?? ''),
  )
  await site.writeSome(agent, 'b', 5)
  site.vra.volumes.splice(0, 2, a!, b!)
  site.vra.cut()
  await site.untilExact(agent)
  t.match(agent.status().volumes[1], { refusal: '' })
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [])
  t.same(site.vra.faults, [])
})

t.test('a disk whose sync fails once keeps the marks of then; what is written later loses its marks', async t => {
  const site = await Site.create(t.testdir(), ['a'], 16 * MiB)
  site.vra.checkpointIntervalMillis = 30 // each acknowledgement is an occasion
  let isFailing = false
  const openFile = failingVolumeFiles(({ name, path }) => isFailing && name === 'sync' && path.endsWith('.raw'))
  const agent = await site.start({ markRotationMillisMin: 1 }, { openVolumeFile: openFile })
  await site.untilExact(agent)
  const client = await site.client(agent, 'a')
  await client.write(0, randomBytes(512))
  await eventually('no mark is left', () => agent.status().volumes[0]?.dirtyBytes === 0)
  site.vra.offloading = false // or it might be the agent's own sync that fails
  await client.write(MiB, randomBytes(512))
  isFailing = true
  t.ok((await client.request(nbd.flush)).error !== 0)
  isFailing = false
  site.vra.offloading = true
  await site.untilExact(agent)
  for (let region = 4; region < 10; region++) await client.write(region * MiB, randomBytes(512))
  await eventually('only what was marked then is left', () => agent.status().volumes[0]?.dirtyBytes === MiB)
  await client.close()
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [])
})

t.test('a place that the disk does not give is named, nothing is sent for it, and it is read again', async t => {
  const site = await Site.create(t.testdir(), ['a'], 8 * MiB)
  fs.writeFileSync(site.pathOf('a'), randomBytes(8 * MiB))
  let isBad = true
  const openFile = failingVolumeFiles(({ name, path, startBytes, endBytes }) => {
    const isThere = startBytes < 3 * MiB + 4096 && endBytes > 3 * MiB
    return isBad && name === 'read' && path.endsWith('.raw') && isThere
  })
  const agent = await site.start({}, { openVolumeFile: openFile, clock: hurried(4) })
  await eventually('all else is sent', () => {
    const [volume] = agent.status().volumes
    return volume?.unreadable.length === 1 && volume.syncDoneBytes === 7 * MiB
  })
  t.match(agent.status().volumes[0], {
    sync: 'initial',
    reason: /cannot be read at 3145728 \(EIO\), so the synchronisation cannot end/,
    unreadable: [{ offsetBytes: 3 * MiB }],
  })
  t.notOk(
    site.vra.models
      .get('a')!
      .subarray(3 * MiB, 4 * MiB)
      .some(byte => byte !== 0),
    'neither zeros nor a guess',
  )
  t.equal(site.vra.checkpoints.length, 0)
  isBad = false
  await site.untilExact(agent)
  t.same(agent.status().volumes[0]?.unreadable, [])
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [])
})

t.test(
  'a dirty map that cannot be written while the agent runs costs a comparison at the next start, and no guest',
  async t => {
    const site = await Site.create(t.testdir(), ['a'], 8 * MiB)
    let isFull = false
    const openFile = failingVolumeFiles(({ name, path }) => isFull && name === 'write' && path.endsWith('.map'))
    let agent = await site.start({}, { openVolumeFile: openFile })
    await site.untilExact(agent)
    await site.writeSome(agent, 'a', 10)
    isFull = true
    await site.writeSome(agent, 'a', 40)
    await site.untilExact(agent)
    t.same(site.differences(), [], 'what was written was numbered and sent as ever')
    await agent.close().catch(() => undefined) // its map cannot be closed in order either
    isFull = false
    site.vra.receivedDataBytes = 0
    agent = await site.start()
    t.match(agent.status().volumes[0], { sync: 'delta', reason: /dirty map could not be written \(EIO\)/ })
    await site.untilExact(agent)
    await agent.close()
    await site.vra.kill()
    t.same(site.differences(), [])
    t.equal(site.vra.receivedDataBytes, 0, 'nothing differs')
  },
)

/** Time that passes so many times as fast. */
function hurried(times: number): Clock {
  return {
    timestampMicros: () => systemClock.timestampMicros(),
    monotonicMillis: () => systemClock.monotonicMillis() * times,
    sleep: (delayMillis, signal) => systemClock.sleep(delayMillis / times, signal),
    after: (delayMillis, call) => systemClock.after(delayMillis / times, call),
  }
}
