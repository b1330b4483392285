import { randomBytes } from 'node:crypto'
import { fork } from 'node:child_process'
import * as fs from 'node:fs'
import * as path from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import type { Agent } from '../../src/agent/agent.ts'
import { openVolumeFile, type OpenVolumeFile } from '../../src/disk/disk.ts'
import { flag, nbd, NbdClient } from '../support/nbd-client.ts'
import { eventually } from '../support/nbd-tools.ts'
import { Site, seededRandom } from '../support/agent-site.ts'

// Sessions that break, agents that stop and agents that are killed: what continues exactly does, and what does not says so.

const KiB = 1024
const MiB = 1024 * KiB

async function writeSome(site: Site, agent: Agent, name: string, count: number): Promise<void> {
  const client = await site.client(agent, name)
  const random = seededRandom()
  for (let index = 0; index < count; index++) {
    await client.write(random.below(site.sizeBytes / 512 - 16) * 512, randomBytes(512 * (1 + random.below(16))))
  }
  await client.close()
}

t.test('under random load the VRA dies and comes back, and nothing is lost or stored twice', async t => {
  const random = seededRandom()
  const site = await Site.create(t.testdir(), ['a', 'b'], 1 * MiB)
  site.vra.checkpointIntervalMillis = 30
  const agent = await site.start()
  const clients = [await site.client(agent, 'a'), await site.client(agent, 'b')]
  let loading = true
  const load = clients.map(async client => {
    while (loading) {
      const burst = Array.from({ length: 16 }, () => {
        const offsetBytes = random.below(2000) * 512
        const lengthBytes = 512 * (1 + random.below(40))
        if (random.below(8) === 0) return client.request(nbd.writeZeroes, { offsetBytes, lengthBytes })
        return client.write(
          offsetBytes,
          random.below(2) === 0 ? randomBytes(lengthBytes) : Buffer.alloc(lengthBytes, 7),
        )
      })
      await Promise.all(burst)
    }
  })
  for (let round = 0; round < 10; round++) {
    await eventually('the session', () => site.vra.isConnected)
    const before = agent.status().lastNumbered
    site.vra.storing = random.below(2) === 0 // else frames are taken, and lost with the VRA
    site.vra.acknowledging = random.below(2) === 0 // else they are durable, and the agent does not hear it
    await eventually('more records', () => agent.status().lastNumbered > before + 200)
    if (!site.vra.storing) site.vra.store(random.below(5))
    if (random.below(2) === 0) site.vra.cut()
    else {
      await site.vra.kill()
      await site.vra.listen()
    }
    site.vra.storing = site.vra.acknowledging = true
  }
  loading = false
  await Promise.all(load)
  for (const client of clients) await client.close()
  const { lastNumbered } = agent.status()
  await eventually('everything is there', () => site.vra.durable >= lastNumbered)
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [], `seed ${random.seed}`)
  t.same(site.vra.faults, [])
})

t.test('after a clean stop the stream goes on at its position', async t => {
  const site = await Site.create(t.testdir(), ['a', 'b'], 1 * MiB)
  let agent = await site.start()
  await writeSome(site, agent, 'a', 20)
  await agent.close()
  const { durable } = site.vra
  agent = await site.start()
  await writeSome(site, agent, 'b', 20)
  await agent.close()
  await site.vra.kill()
  t.equal(site.vra.hellos.at(-1)!.lastNumbered.sequence, durable)
  t.same(site.differences(), [])
  t.same(site.told, [])
})

t.test('what could not be drained at a clean stop is kept and sent after the start', async t => {
  const site = await Site.create(t.testdir(), ['a', 'b'], 1 * MiB)
  let agent = await site.start()
  await writeSome(site, agent, 'a', 10)
  await eventually('the queue is empty', () => agent.status().queuedRecords === 0)
  await site.vra.kill()
  await writeSome(site, agent, 'b', 30)
  await agent.close()
  agent = await site.start()
  await writeSome(site, agent, 'a', 10)
  await site.vra.listen()
  await eventually('everything is there', () => agent.status().queuedRecords === 0)
  t.notOk(agent.status().volumes.some(volume => volume.needsSync))
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [])
})

t.test('a damaged queue file is noticed, and its volumes need a sync', async t => {
  const site = await Site.create(t.testdir(), ['a'], 1 * MiB)
  let agent = await site.start()
  await eventually('the session', () => agent.status().link === 'connected')
  await site.vra.kill()
  await writeSome(site, agent, 'a', 30)
  await agent.close()
  const file = path.join(site.directory, 'state', 'queue.frames')
  const bytes = fs.readFileSync(file)
  bytes[100]! ^= 1
  fs.writeFileSync(file, bytes)
  agent = await site.start()
  t.match(agent.status().volumes[0], { needsSync: true, reason: /queue that was kept/ })
  await agent.close()
})

t.test('a queue past its bound is dropped and said to everybody; guests go on', async t => {
  const site = await Site.create(t.testdir(), ['a', 'b'], 8 * MiB)
  let agent = await site.start({ queueSizeBytesMax: 2 * MiB })
  await eventually('the session', () => agent.status().link === 'connected')
  const client = await site.client(agent, 'a')
  await client.write(0, randomBytes(64 * KiB))
  await eventually('the queue is empty', () => agent.status().queuedRecords === 0)
  const kept = Buffer.from(site.disk('a'))
  await site.vra.kill()
  for (let index = 0; index < 64; index++) await client.write(index * 64 * KiB, randomBytes(64 * KiB))
  t.ok(agent.status().queuedBytes === 0, 'the memory is free')
  const [a, b] = agent.status().volumes
  t.match(a, { name: 'a', needsSync: true, reason: /passed its bound of 2 MiB/ })
  t.equal(b!.needsSync, false, 'a volume without unsent writes is not marked')
  await site.vra.listen()
  await eventually('the VRA hears why', () => site.vra.statuses.some(status => status.volumes[0]!.needsSync))
  t.match(site.vra.statuses.at(-1)!.volumes[0]!.reason, /passed its bound/)
  await writeSome(site, agent, 'b', 1)
  t.match(agent.status().volumes[1], { needsSync: true, reason: /after the stream/ }, 'a later write marks the other')
  site.vra.requestCheckpoint(9)
  await client.close()
  await agent.close()
  agent = await site.start()
  t.match(
    agent.status().volumes,
    [{ needsSync: true, reason: /passed its bound/ }, { needsSync: true }],
    'after a restart',
  )
  await agent.close()
  await site.vra.kill()
  t.ok(site.vra.models.get('a')!.equals(kept), 'nothing was sent after the gap')
  t.equal(site.vra.checkpoints.filter(each => each.marker.requestId === 9).length, 0, 'no checkpoint without exactness')
})

t.test('a disk that was changed while the agent did not run needs a sync', async t => {
  const site = await Site.create(t.testdir(), ['a', 'b'], 1 * MiB)
  let agent = await site.start()
  await writeSome(site, agent, 'a', 5)
  await agent.close()
  fs.writeFileSync(site.pathOf('b'), Buffer.from('changed'), { flag: 'r+' })
  agent = await site.start()
  t.match(agent.status().volumes, [{ needsSync: false }, { needsSync: true, reason: /changed while the agent/ }])
  await agent.close()
  await site.vra.kill()
})

t.test('a disk that holds data is refused at first, in words', async t => {
  const site = await Site.create(t.testdir(), ['a'], 8 * MiB)
  fs.writeFileSync(site.pathOf('a'), Buffer.alloc(8 * MiB))
  const agent = await site.start()
  await agent.close()
  fs.rmSync(path.join(site.directory, 'state'), { recursive: true })
  const descriptor = fs.openSync(site.pathOf('a'), 'r+')
  fs.writeSync(descriptor, Buffer.from([1]), 0, 1, 5 * MiB + 3)
  fs.closeSync(descriptor)
  await t.rejects(site.start(), { code: 'SYNC_REQUIRED', message: new RegExp(`already holds data.*${5 * MiB + 3}`) })
  await site.vra.kill()
})

t.test('a second agent on the state directory is refused', async t => {
  const site = await Site.create(t.testdir(), ['a'], 1 * MiB)
  const agent = await site.start()
  await t.rejects(site.start(), { code: 'BUSY' })
  await agent.close()
  await (await site.start()).close()
  await t.rejects(site.start({ agentId: 'other' }), { code: 'CONFIG_INVALID' })
  await site.vra.kill()
})

t.test('a kill after writes leaves the written volumes in need of a sync, and the others not', async t => {
  const site = await Site.create(t.testdir(), ['a', 'b'], 1 * MiB)
  const child = fork(fileURLToPath(new URL('../support/agent-process.js', import.meta.url)), {
    env: { ...process.env, AGENT_CONFIG: JSON.stringify(site.config()) },
  })
  const address = await new Promise<{ host: string; port: number }>(resolve => child.once('message', resolve as never))
  const client = await NbdClient.open(address, 'a')
  await client.write(4096, randomBytes(4096), flag.fua)
  await eventually('it is durable', () => site.vra.durable > 0)
  const exited = new Promise(resolve => child.once('exit', resolve))
  child.kill('SIGKILL')
  await exited
  const agent = await site.start()
  t.match(agent.status().volumes, [{ needsSync: true, reason: /killed/ }, { needsSync: false }])
  await eventually('the VRA hears why', () => site.vra.statuses.some(status => status.volumes[0]!.needsSync))
  const { durable } = site.vra
  await writeSome(site, agent, 'a', 3)
  await agent.close()
  await site.vra.kill()
  t.equal(site.vra.durable, durable, 'nothing is sent behind what may be missing')
})

t.test('a kill before which only markers were made loses nothing', async t => {
  const site = await Site.create(t.testdir(), ['a'], 1 * MiB)
  site.vra.checkpointIntervalMillis = 20
  const child = fork(fileURLToPath(new URL('../support/agent-process.js', import.meta.url)), {
    env: { ...process.env, AGENT_CONFIG: JSON.stringify(site.config()) },
  })
  await eventually('markers', () => site.vra.durable > 5)
  const exited = new Promise(resolve => child.once('exit', resolve))
  child.kill('SIGKILL')
  await exited
  await site.vra.kill()
  const agent = await site.start()
  await writeSome(site, agent, 'a', 10) // numbered before the VRA has said where to go on
  await site.vra.listen()
  await eventually('everything is there', () => agent.status().queuedRecords < 3 && site.differences().length === 0)
  t.equal(agent.status().volumes[0]!.needsSync, false)
  await agent.close()
  await site.vra.kill()
  t.same(site.vra.faults, [])
})

t.test('a failed write of the local disk gets no number, and the guest hears it', async t => {
  const site = await Site.create(t.testdir(), ['a', 'b'], 1 * MiB)
  let broken = false
  const faulty: OpenVolumeFile = file => {
    const real = openVolumeFile(file)
    const write = async (data: Uint8Array, offsetBytes: number): Promise<void> => {
      if (broken && file.endsWith('a.raw')) throw Object.assign(new Error('EIO: i/o error'), { code: 'EIO' })
      await real.write(data, offsetBytes)
    }
    return new Proxy(real, {
      get: (target, key) => {
        if (key === 'write') return write
        const value: unknown = Reflect.get(target, key, target)
        return typeof value === 'function' ? (value as () => unknown).bind(target) : value
      },
    })
  }
  const agent = await site.start({}, { openVolumeFile: faulty })
  const client = await site.client(agent, 'a')
  await client.write(0, randomBytes(4096))
  const { lastNumbered } = agent.status()
  broken = true
  t.equal((await client.request(nbd.write, { offsetBytes: 8192, data: randomBytes(4096) })).error, 5)
  broken = false
  t.equal(agent.status().lastNumbered, lastNumbered)
  t.match(agent.status().volumes, [
    { needsSync: true, reason: /write on the local disk failed.*EIO/ },
    { needsSync: false },
  ])
  await eventually('what had a number is delivered', () => site.vra.durable === lastNumbered)
  t.equal((await client.read(0, 4096)).length, 4096, 'the connection goes on')
  await client.close()
  await agent.close()
  await site.vra.kill()
})

t.test('a refusal is said in the VRA’s words, and SYNC_REQUIRED marks every volume', async t => {
  const site = await Site.create(t.testdir(), ['a', 'b'], 1 * MiB)
  site.vra.refusal = { code: 'IDENTITY_REFUSED', sentence: 'agent-1 is not listed' }
  let agent = await site.start()
  await eventually('the refusal', () => agent.status().link === 'refused')
  t.equal(agent.status().linkProblem, 'agent-1 is not listed')
  t.notOk(agent.status().volumes.some(volume => volume.needsSync))
  await agent.close()
  site.vra.refusal = { code: 'SYNC_REQUIRED', sentence: 'the stream is of another generation' }
  agent = await site.start()
  await eventually('the marks', () => agent.status().volumes.every(volume => volume.needsSync))
  t.match(agent.status().volumes[1]!.reason, /another generation/)
  await agent.close()
  await site.vra.kill()
})

t.test('a VRA of a lower epoch is not written to', async t => {
  const site = await Site.create(t.testdir(), ['a'], 1 * MiB)
  site.vra.epoch = 5
  let agent = await site.start()
  await eventually('the session', () => agent.status().link === 'connected')
  await agent.close()
  site.vra.epoch = 4
  agent = await site.start()
  await eventually('the refusal', () => agent.status().link === 'refused')
  t.match(agent.status().linkProblem, /epoch 4.*epoch 5/)
  await agent.close()
  await site.vra.kill()
})

t.test('a VRA with the smallest credit gets everything', async t => {
  const site = await Site.create(t.testdir(), ['a'], 8 * MiB)
  site.vra.creditBytes = 1_048_592 + 64 * KiB
  const agent = await site.start()
  const client = await site.client(agent, 'a')
  await Promise.all(Array.from({ length: 8 }, (_, index) => client.write(index * MiB, randomBytes(MiB))))
  await eventually('everything is there', () => agent.status().queuedRecords === 0)
  await client.close()
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [])
})

t.test('an agent that is refused says why, since when and how often, until it is let in', async t => {
  const site = await Site.create(t.testdir(), ['a'], 1 * MiB)
  site.vra.refusal = { code: 'UNKNOWN_VPG', sentence: 'there is no VPG "v" here' }
  const agent = await site.start()
  await eventually('it is refused', () => agent.status().link === 'refused')
  const { refusal } = agent.status()
  t.match(refusal, { ...site.vra.refusal, count: 1 })
  t.equal(refusal?.firstTimestampMicros, refusal?.lastTimestampMicros)
  await agent.close()
  site.vra.refusal = undefined
  const again = await site.start()
  await eventually('it is let in', () => again.status().link === 'connected')
  t.equal(again.status().refusal, undefined)
  await again.close()
  await site.vra.kill()
})
