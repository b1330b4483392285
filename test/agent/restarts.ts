import { randomBytes } from 'node:crypto'
import { fork } from 'node:child_process'
import * as fs from 'node:fs'
import * as path from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import type { Agent } from '../../src/agent/agent.ts'
import { flag, nbd, NbdClient } from '../support/nbd-client.ts'
import { eventually } from '../support/nbd-tools.ts'
import { Site, seededRandom } from '../support/agent-site.ts'
import { failingVolumeFiles } from '../support/volume-file-calls.ts'

// Sessions that break, agents that stop and agents that are killed: what continues exactly does, and what does not says so.

const KiB = 1024
const MiB = 1024 * KiB

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
  await site.untilExact(agent)
  await site.writeSome(agent, 'a', 20)
  await agent.close()
  const { durable } = site.vra
  site.told.length = 0
  agent = await site.start()
  await site.writeSome(agent, 'b', 20)
  await agent.close()
  await site.vra.kill()
  t.equal(site.vra.hellos.at(-1)!.lastNumbered.sequence, durable)
  t.same(site.differences(), [])
  t.same(site.told, [])
  t.equal(site.vra.generation, 1)
})

t.test('what could not be drained at a clean stop is kept and sent after the start', async t => {
  const site = await Site.create(t.testdir(), ['a', 'b'], 1 * MiB)
  let agent = await site.start()
  await site.untilExact(agent)
  await site.writeSome(agent, 'a', 10)
  await eventually('the queue is empty', () => agent.status().queuedRecords === 0)
  await site.vra.kill()
  await site.writeSome(agent, 'b', 30)
  await agent.close()
  agent = await site.start()
  await site.writeSome(agent, 'a', 10)
  await site.vra.listen()
  await eventually('everything is there', () => agent.status().queuedRecords === 0)
  t.equal(site.vra.generation, 1, 'the stream went on')
  t.same(
    agent.status().volumes.map(volume => volume.sync),
    ['none', 'none'],
  )
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [])
})

t.test('a damaged queue file is noticed, and what it held is sent from the dirty map', async t => {
  const site = await Site.create(t.testdir(), ['a'], 4 * MiB)
  let agent = await site.start()
  await site.untilExact(agent)
  await site.vra.kill()
  await site.writeSome(agent, 'a', 30)
  await agent.close()
  const file = path.join(site.directory, 'state', 'queue.frames')
  const bytes = fs.readFileSync(file)
  bytes[100]! ^= 1
  fs.writeFileSync(file, bytes)
  agent = await site.start()
  t.match(agent.status().volumes[0], { sync: 'bitmap' })
  await site.vra.listen()
  await site.untilExact(agent)
  await agent.close()
  await site.vra.kill()
  t.equal(site.vra.generation, 2)
  t.same(site.differences(), [])
  t.same(site.vra.faults, [])
})

t.test('a queue past its bound is dropped; guests go on, and only what was written is sent again', async t => {
  const site = await Site.create(t.testdir(), ['a', 'b'], 16 * MiB)
  const agent = await site.start({ queueSizeBytesMax: 2 * MiB })
  await site.untilExact(agent)
  const client = await site.client(agent, 'a')
  const checkpointCount = site.vra.checkpoints.length
  t.ok(checkpointCount > 0, 'a checkpoint as soon as the first synchronisation is over')
  await site.vra.kill()
  site.vra.receivedDataBytes = site.vra.receivedZeroBytes = 0
  for (let index = 0; index < 64; index++) await client.write(index * 64 * KiB, randomBytes(64 * KiB))
  t.equal(agent.status().stream, 'detached')
  t.equal(agent.status().queuedBytes, 0, 'the memory is free')
  t.match(agent.status().volumes[0], {
    name: 'a',
    sync: 'bitmap',
    reason: /passed its bound of 2 MiB/,
    dirtyBytes: 4 * MiB,
  })
  t.match(agent.status().noCheckpointsBecause, /passed its bound/)
  site.vra.storing = false
  await site.vra.listen()
  await eventually('the VRA hears why', () => site.vra.statuses.at(-1)?.volumes[0]?.sync === 'bitmap')
  site.vra.requestCheckpoint(9)
  await client.write(8 * MiB, randomBytes(64 * KiB))
  site.vra.storing = true
  site.vra.store()
  await client.write(9 * MiB, randomBytes(64 * KiB))
  await site.untilExact(agent)
  await eventually('the checkpoint', () => site.vra.checkpoints.some(each => each.marker.requestId === 9))
  await client.close()
  await agent.close()
  await site.vra.kill()
  t.equal(site.vra.generation, 2)
  const asked = site.vra.checkpoints.filter(each => each.marker.requestId === 9)
  t.equal(asked.length, 1, 'made when the synchronisation is over: a marker inside it would be a fault')
  t.ok(site.vra.receivedDataBytes <= 5 * MiB, `${site.vra.receivedDataBytes} bytes for 4.1 MiB of writes`)
  t.same(site.differences(), [])
  t.same(site.vra.faults, [])
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

t.test('a kill costs a synchronisation of what was written and is not offloaded, and nothing else', async t => {
  const site = await Site.create(t.testdir(), ['a', 'b'], 8 * MiB)
  const child = fork(fileURLToPath(new URL('../support/agent-process.js', import.meta.url)), {
    env: { ...process.env, AGENT_CONFIG: JSON.stringify(site.config({ markRotationMillisMin: 0 })) },
  })
  const address = await new Promise<{ host: string; port: number }>(resolve => child.once('message', resolve as never))
  await eventually('the first synchronisation', () => site.vra.checkpoints.length > 0)
  const client = await NbdClient.open(address, 'a')
  await client.write(4096, randomBytes(4096), flag.fua)
  site.vra.storing = false
  await client.write(3 * MiB, randomBytes(64 * KiB), flag.fua)
  const exited = new Promise(resolve => child.once('exit', resolve))
  child.kill('SIGKILL')
  await exited
  site.vra.cut()
  site.vra.storing = true
  site.vra.receivedDataBytes = site.vra.receivedZeroBytes = 0
  const agent = await site.start()
  t.match(agent.status().volumes, [{ sync: 'bitmap', reason: /killed/ }, { sync: 'bitmap' }])
  await site.untilExact(agent)
  await agent.close()
  await site.vra.kill()
  t.equal(site.vra.generation, 2)
  t.same(site.differences(), [])
  t.same(site.vra.faults, [])
  t.ok(site.vra.receivedDataBytes + site.vra.receivedZeroBytes <= 16 * MiB)
})

t.test(
  'a kill before which only markers were made costs a generation, and no blocks once all is offloaded',
  async t => {
    const site = await Site.create(t.testdir(), ['a'], 1 * MiB)
    site.vra.checkpointIntervalMillis = 20
    const child = fork(fileURLToPath(new URL('../support/agent-process.js', import.meta.url)), {
      env: { ...process.env, AGENT_CONFIG: JSON.stringify(site.config({ markRotationMillisMin: 0 })) },
    })
    await eventually('markers', () => site.vra.durable > 20)
    const exited = new Promise(resolve => child.once('exit', resolve))
    child.kill('SIGKILL')
    await exited
    await site.vra.kill()
    site.vra.receivedZeroBytes = 0
    const agent = await site.start()
    await site.writeSome(agent, 'a', 10) // marked before the VRA has said where to go on
    await site.vra.listen()
    await site.untilExact(agent)
    await eventually('everything is there', () => agent.status().queuedRecords < 3 && site.differences().length === 0)
    await agent.close()
    await site.vra.kill()
    t.same(site.vra.faults, [])
  },
)

t.test('a failed write of the local disk gets no number, and the guest hears it', async t => {
  const site = await Site.create(t.testdir(), ['a', 'b'], 1 * MiB)
  let broken = false
  const faulty = failingVolumeFiles(({ name, path }) => broken && name === 'write' && path.endsWith('a.raw'))
  const agent = await site.start({}, { openVolumeFile: faulty })
  await site.untilExact(agent)
  const client = await site.client(agent, 'a')
  await client.write(0, randomBytes(4096))
  broken = true
  t.equal((await client.request(nbd.write, { offsetBytes: 8192, data: randomBytes(4096) })).error, 5)
  broken = false
  t.match(site.told.join(), /a: bitmap: a write on the local disk failed.*EIO/)
  await site.untilExact(agent)
  t.equal(agent.status().generation, 1, 'the numbering is as exact as before')
  t.equal((await client.read(0, 4096)).length, 4096, 'the connection goes on')
  t.same(site.differences(), [])
  await client.close()
  await agent.close()
  await site.vra.kill()
  t.same(site.vra.faults, [])
})

t.test('a disk that another agent serves is refused before a guest could find it', async t => {
  const site = await Site.create(t.testdir(), ['a'], 1 * MiB)
  const agent = await site.start()
  const link = path.join(site.directory, 'link.raw')
  fs.symlinkSync(site.pathOf('a'), link)
  let served = 0
  const second = (): Promise<Agent> =>
    site.start(
      { stateDirectory: path.join(site.directory, 'state-2'), volumes: [{ name: 'a', path: link }] },
      {
        openGuestServer: async ({ listen }) => {
          served++
          return {
            address: () => listen,
            addExport: () => undefined,
            removeExport: async () => undefined,
            connectionCount: () => 0,
            close: async () => undefined,
          }
        },
      },
    )
  await t.rejects(second(), { code: 'BUSY', message: /link\.raw is in use: another agent serves the same file/ })
  t.equal(served, 0)
  await agent.close()
  await (await second()).close()
  t.equal(served, 1, 'it is free when that one has stopped')
  await site.vra.kill()
})

t.test('a refusal is said in the VRA’s words', async t => {
  const site = await Site.create(t.testdir(), ['a', 'b'], 1 * MiB)
  site.vra.refusal = { code: 'IDENTITY_REFUSED', sentence: 'agent-1 is not listed' }
  const agent = await site.start()
  await eventually('the refusal', () => agent.status().link === 'refused')
  t.equal(agent.status().linkProblem, 'agent-1 is not listed')
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
  t.match(refusal, { ...site.vra.refusal, count: Number })
  await eventually('it is refused again, soon', () => (agent.status().refusal?.count ?? 0) >= 2)
  const later = agent.status().refusal
  t.equal(later?.firstTimestampMicros, refusal?.firstTimestampMicros)
  t.ok(later!.lastTimestampMicros > later!.firstTimestampMicros)
  site.vra.refusal = undefined
  await eventually('it is let in', () => agent.status().link === 'connected')
  t.equal(agent.status().refusal, undefined)
  await agent.close()
  await site.vra.kill()
})
