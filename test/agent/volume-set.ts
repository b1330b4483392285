import { randomBytes } from 'node:crypto'
import * as fs from 'node:fs'
import t from 'tap'
import { connectSocket, type Connect } from '../../src/agent/connect.ts'
import { MiB } from '../../src/base/units.ts'
import { realDisk, type Disk } from '../../src/disk/disk.ts'
import { eventually } from '../support/nbd-tools.ts'
import { Site } from '../support/agent-site.ts'
import { volumeFilesAsking } from '../support/volume-file-calls.ts'

// An agent that runs is given other volumes: what is left alone does not feel it, and the VRA's model is the disk afterwards.

const sizeBytes = 4 * MiB

function volumes(site: Site, ...names: readonly string[]) {
  return names.map(name => ({ name, path: site.pathOf(name) }))
}

function addDisk(site: Site, name: string, content: Uint8Array): void {
  fs.writeFileSync(site.pathOf(name), content)
  fs.truncateSync(site.pathOf(name), sizeBytes)
}

t.test('a volume comes, grows and goes while the guest of another writes', async t => {
  const site = await Site.create(t.testdir(), ['a'], sizeBytes)
  const agent = await site.start()
  await site.untilExact(agent)
  const guest = await site.client(agent, 'a')
  await guest.write(0, randomBytes(4096))
  const { generation } = agent.status()

  addDisk(site, 'b', randomBytes(MiB))
  site.vra.addVolume('b', sizeBytes)
  await agent.changeVolumes(volumes(site, 'a', 'b'))
  t.match(agent.status().volumes[1], { name: 'b', sync: 'initial' })
  const added = await site.client(agent, 'b')
  await added.write(2 * MiB, randomBytes(4096))
  await guest.write(8192, randomBytes(4096))
  await site.untilExact(agent)
  t.equal(agent.status().generation, generation, 'the others go on exactly')

  fs.truncateSync(site.pathOf('b'), 2 * sizeBytes)
  await agent.changeVolumes(volumes(site, 'a', 'b'))
  await eventually('its guest is sent away', () => added.socket.closed || added.socket.destroyed)
  t.match(agent.status().volumes[1], {
    sizeBytes: 2 * sizeBytes,
    sync: 'delta',
    reason: /grown from 4194304 to 8388608/,
  })
  await eventually('the VRA has another size', () =>
    /vra vpg grow-volume/.test(agent.status().volumes[1]?.refusal ?? ''),
  )
  await guest.write(MiB, randomBytes(4096))
  await eventually('the other is written on', () => site.disk('a').equals(site.vra.models.get('a')!))
  site.vra.volumes[1] = { name: 'b', sizeBytes: 2 * sizeBytes }
  site.vra.models.set('b', Buffer.concat([site.vra.models.get('b')!, Buffer.alloc(sizeBytes)]))
  site.vra.cut()
  const larger = await site.client(agent, 'b')
  await larger.write(2 * sizeBytes - 4096, randomBytes(4096))
  await site.untilExact(agent)
  t.ok(site.vra.models.get('b')!.equals(site.disk('b')), 'all of it')

  await agent.changeVolumes(volumes(site, 'a'))
  t.same(
    agent.status().volumes.map(({ name }) => name),
    ['a'],
  )
  await t.rejects(site.client(agent, 'b'), 'nobody is served it any more')
  await guest.write(3 * MiB, randomBytes(4096))
  await site.untilExact(agent)
  await guest.close()
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [])
  t.same(site.vra.faults, [])
})

t.test('a volume that goes in the middle of its synchronisation, under a rate, is let go at once', async t => {
  const site = await Site.create(t.testdir(), ['a', 'b'], sizeBytes)
  fs.writeFileSync(site.pathOf('b'), randomBytes(sizeBytes))
  site.vra.syncRateBytesPerSecond = 512 * 1024
  const agent = await site.start()
  await eventually('it is sent', () => (agent.status().volumes[1]?.syncSentBytes ?? 0) > 0)
  await agent.changeVolumes(volumes(site, 'a'))
  await site.untilExact(agent)
  await agent.close()
  await site.vra.kill()
  t.same(site.vra.faults, [])
})

t.test('what cannot be done is named, and the rest is done', async t => {
  const site = await Site.create(t.testdir(), ['a', 'c'], sizeBytes)
  const agent = await site.start()
  await site.untilExact(agent)
  addDisk(site, 'b', new Uint8Array(0))
  site.vra.addVolume('b', sizeBytes)
  fs.truncateSync(site.pathOf('c'), MiB)
  const wanted = [...volumes(site, 'a', 'b', 'nowhere', 'c').slice(1), { name: 'a', path: site.pathOf('b2') }]
  await t.rejects(agent.changeVolumes(wanted), {
    code: 'CONFIG_INVALID',
    message: /"a" is .*a\.raw: for another disk.*c\.raw has become smaller.*nowhere\.raw cannot be opened/,
  })
  await t.rejects(agent.changeVolumes([]), { code: 'CONFIG_INVALID' })
  t.same(
    agent
      .status()
      .volumes.map(({ name }) => name)
      .sort(),
    ['a', 'b', 'c'],
  )
  fs.truncateSync(site.pathOf('c'), sizeBytes)
  await site.untilExact(agent)
  await agent.close()
  await t.rejects(agent.changeVolumes(volumes(site, 'a')), { code: 'CLOSING' })
  await site.vra.kill()
  t.same(site.vra.faults, [])
})

t.test('a volume that is served again is synchronised, and what its guest writes meanwhile is sent', async t => {
  const site = await Site.create(t.testdir(), ['a', 'b'], sizeBytes)
  let linkIsUp = true
  const connect: Connect = (target, events) => connectSocket(linkIsUp ? target : { ...target, port: 1 }, events)
  const agent = await site.start({}, { connect })
  const guest = await site.client(agent, 'b')
  await guest.write(0, randomBytes(4096))
  await site.untilExact(agent)
  await guest.close()
  linkIsUp = false
  await agent.changeVolumes(volumes(site, 'a'))
  await agent.changeVolumes(volumes(site, 'a', 'b'))
  t.not(agent.status().volumes[1]?.sync, 'none', 'nobody can know what was sent of it')
  const again = await site.client(agent, 'b')
  await again.write(MiB, randomBytes(4096))
  linkIsUp = true
  await site.untilExact(agent)
  await again.write(2 * MiB, randomBytes(4096))
  await again.close()
  await site.untilExact(agent)
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [])
  t.same(site.vra.faults, [])
})

t.test('a full state directory costs the change, and no claim of a disk: with room it can be made', async t => {
  let full = false
  const disk: Disk = {
    ...realDisk,
    open: (file, mode) => {
      if (full && mode === 'create') throw Object.assign(new Error('ENOSPC: no space left'), { code: 'ENOSPC' })
      return realDisk.open(file, mode)
    },
  }
  const site = await Site.create(t.testdir(), ['a', 'b'], sizeBytes)
  const agent = await site.start({}, { disk })
  await site.untilExact(agent)
  full = true
  await t.rejects(agent.changeVolumes(volumes(site, 'a')), { code: 'CONFIG_INVALID', message: /ENOSPC/ })
  addDisk(site, 'c', new Uint8Array(0))
  await t.rejects(agent.changeVolumes(volumes(site, 'a', 'c')), { code: 'CONFIG_INVALID', message: /ENOSPC/ })
  t.same(
    agent.status().volumes.map(({ name }) => name),
    ['a'],
    'a volume of which nothing could be written down is not served',
  )
  await t.rejects(agent.changeVolumes(volumes(site, 'a', 'b')), { code: 'CONFIG_INVALID', message: /ENOSPC/ })
  t.equal(agent.status().volumes.length, 1)
  full = false
  site.vra.addVolume('c', sizeBytes)
  await agent.changeVolumes(volumes(site, 'a', 'b', 'c'))
  const guest = await site.client(agent, 'b')
  await guest.write(MiB, randomBytes(4096))
  await guest.close()
  await site.untilExact(agent)
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [])
  t.same(site.vra.faults, [])
})

t.test(
  'a disk that has grown is compared with what the VRA has of it when all numbered before is durable there',
  async t => {
    const site = await Site.create(t.testdir(), ['a', 'b'], sizeBytes)
    const agent = await site.start()
    await site.untilExact(agent)
    const guest = await site.client(agent, 'b')
    const former = randomBytes(4096)
    await guest.write(0, former)
    await site.untilExact(agent)
    const { generation } = agent.status()
    site.vra.storing = false
    await guest.write(0, randomBytes(4096)) // on its way, and the VRA has the former yet
    await guest.close()

    site.vra.volumes[1] = { name: 'b', sizeBytes: 2 * sizeBytes }
    site.vra.models.set('b', Buffer.concat([site.vra.models.get('b')!, Buffer.alloc(sizeBytes)]))
    fs.truncateSync(site.pathOf('b'), 2 * sizeBytes)
    fs.writeFileSync(site.pathOf('b'), former, { flag: 'r+' }) // by a guest that nobody saw
    const sessionCount = site.vra.hellos.length
    await agent.changeVolumes(volumes(site, 'a', 'b'))
    await eventually('a session with the larger disk', () => site.vra.hellos.length > sessionCount)
    await eventually('what was on its way is there again', () => site.vra.receivedThrough > site.vra.durable)
    await eventually('it is to be compared', () => agent.status().volumes.some(volume => volume.sync !== 'none'))
    t.equal(site.vra.hashRequestCount, 0, 'it does not ask what would be an answer of before')

    site.vra.storing = true
    site.vra.store()
    await site.untilExact(agent)
    t.ok(site.vra.hashRequestCount > 0, 'it was compared')
    t.equal(agent.status().generation, generation, 'in the same generation')
    await agent.close()
    await site.vra.kill()
    t.same(site.differences(), [])
    t.same(site.vra.faults, [])
  },
)

t.test(
  'a session that begins while the disk that has grown is opened again does not forget what is known of it',
  async t => {
    const site = await Site.create(t.testdir(), ['a', 'b'], sizeBytes)
    let opened: Promise<unknown> = Promise.resolve()
    const openSlowly = volumeFilesAsking(({ name }) => (name === 'claim' ? opened : undefined))
    const agent = await site.start({}, { openVolumeFile: openSlowly })
    await site.untilExact(agent)
    site.vra.volumes[1] = { name: 'b', sizeBytes: 2 * sizeBytes }
    site.vra.models.set('b', Buffer.concat([site.vra.models.get('b')!, Buffer.alloc(sizeBytes)]))
    fs.truncateSync(site.pathOf('b'), 2 * sizeBytes)
    const sessionCount = site.vra.hellos.length
    opened = eventually('a session of the others', () => {
      const { link } = agent.status()
      return site.vra.hellos.length > sessionCount && link === 'connected'
    })
    await agent.changeVolumes(volumes(site, 'a', 'b'))
    t.match(agent.status().volumes[1], { name: 'b', sync: 'delta' })
    await site.untilExact(agent)
    await agent.close()
    await site.vra.kill()
    t.same(site.differences(), [])
    t.same(site.vra.faults, [])
  },
)
