import { randomBytes } from 'node:crypto'
import * as fs from 'node:fs'
import t from 'tap'
import { flag, nbd } from '../support/nbd-client.ts'
import { eventually } from '../support/nbd-tools.ts'
import { Site, seededRandom } from '../support/agent-site.ts'

// From the guest's request to the VRA's model: the model, which is made of the stream only, is the disk.

const KiB = 1024
const MiB = 1024 * KiB

t.test('overlapping writes in flight end alike on the disk and in the stream', async t => {
  const random = seededRandom()
  const site = await Site.create(t.testdir(), ['a'], 1 * MiB)
  const agent = await site.start()
  const clients = [await site.client(agent, 'a'), await site.client(agent, 'a'), await site.client(agent, 'a')]
  for (let round = 0; round < 20; round++) {
    const writes = Array.from({ length: 48 }, (_, index) => {
      const offsetBytes = random.below(32) * 512
      const data = Buffer.alloc((1 + random.below(32)) * 512, 1 + random.below(255))
      return clients[index % 3]!.write(offsetBytes, data)
    })
    await Promise.all(writes)
  }
  for (const client of clients) await client.close()
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [], `seed ${random.seed}`)
  t.same(site.vra.faults, [])
})

t.test('writes at any byte, zeroes and trims reach the VRA as whole sectors', async t => {
  const random = seededRandom()
  const site = await Site.create(t.testdir(), ['a', 'b'], 4 * MiB)
  const agent = await site.start()
  const expected = [Buffer.alloc(4 * MiB), Buffer.alloc(4 * MiB)]
  const clients = [await site.client(agent, 'a'), await site.client(agent, 'b')]
  for (let step = 0; step < 400; step++) {
    const which = random.below(2)
    const offsetBytes = random.below(4 * MiB - 70_000)
    const lengthBytes = 1 + random.below(random.below(2) === 0 ? 70_000 : 1_500)
    const kind = random.below(4)
    if (kind < 2) {
      const data = randomBytes(lengthBytes)
      data.copy(expected[which]!, offsetBytes)
      await clients[which]!.write(offsetBytes, data, kind === 0 ? flag.fua : 0)
    } else {
      expected[which]!.fill(0, offsetBytes, offsetBytes + lengthBytes)
      const answer = await clients[which]!.request(kind === 2 ? nbd.trim : nbd.writeZeroes, {
        offsetBytes,
        lengthBytes,
      })
      t.equal(answer.error, 0)
    }
  }
  t.ok((await clients[0]!.read(0, 4 * MiB)).equals(expected[0]!), 'the guest reads what it wrote')
  for (const client of clients) await client.close()
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [], `seed ${random.seed}`)
  t.ok(site.disk('a').equals(expected[0]!) && site.disk('b').equals(expected[1]!), `the disks, seed ${random.seed}`)
})

t.test('a write of 32 MiB is split, answered whole, and no checkpoint lies inside it', async t => {
  const site = await Site.create(t.testdir(), ['a'], 40 * MiB)
  site.vra.checkpointIntervalMillis = 1_000
  const agent = await site.start()
  await site.untilExact(agent)
  const client = await site.client(agent, 'a')
  const big = Buffer.alloc(32 * MiB, 'pattern')
  const nothing = Buffer.alloc(40 * MiB)
  const writing = client.write(4 * MiB, big)
  for (let id = 1; id <= 8; id++) site.vra.requestCheckpoint(id)
  await writing
  t.equal((await client.request(nbd.trim, { offsetBytes: 0, lengthBytes: 40 * MiB })).error, 0)
  await client.close()
  await agent.close()
  await site.vra.kill()
  t.ok(site.vra.checkpoints.length >= 8)
  const states = site.vra.checkpoints.map(({ images }) => {
    const image = images.get('a')!
    return image.subarray(4 * MiB, 36 * MiB).equals(big) ? 'whole' : image.equals(nothing) ? 'none' : 'torn'
  })
  t.notOk(states.includes('torn'), states.join())
  t.same(site.differences(), [])
})

t.test('every checkpoint is the disk as it was when the guest paused', async t => {
  const random = seededRandom()
  const site = await Site.create(t.testdir(), ['a', 'b'], 1 * MiB)
  const agent = await site.start()
  await site.untilExact(agent)
  const clients = [await site.client(agent, 'a'), await site.client(agent, 'b')]
  const paused: Map<string, Buffer>[] = []
  for (let id = 1; id <= 12; id++) {
    const writes = Array.from({ length: 40 }, (_, index) =>
      clients[index % 2]!.write(random.below(2000) * 512, randomBytes(512 * (1 + random.below(40)))),
    )
    await Promise.all(writes)
    paused.push(new Map(site.names.map(name => [name, site.disk(name)])))
    site.vra.requestCheckpoint(id)
    await eventually(`checkpoint ${id}`, () => site.vra.checkpoints.some(each => each.marker.requestId === id))
  }
  for (const { marker, images } of site.vra.checkpoints) {
    if (marker.requestId === 0) continue
    for (const name of site.names)
      t.ok(images.get(name)!.equals(paused[marker.requestId - 1]!.get(name)!), `${name} at ${marker.requestId}`)
  }
  for (const client of clients) await client.close()
  await agent.close()
  await site.vra.kill()
})

t.test('a guest does not wait for the link, and checkpoints go on without it', async t => {
  const site = await Site.create(t.testdir(), ['a'], 8 * MiB)
  site.vra.checkpointIntervalMillis = 20
  const agent = await site.start()
  await site.untilExact(agent)
  await site.vra.kill()
  const numbered = agent.status().lastNumbered
  const client = await site.client(agent, 'a')
  for (let index = 0; index < 16; index++) await client.write(index * 512 * KiB, randomBytes(512 * KiB), flag.fua)
  await client.request(nbd.flush)
  await eventually('checkpoints without a link', () => agent.status().lastNumbered > numbered + 16 + 5)
  t.ok(agent.status().queuedBytes >= 8 * MiB)
  t.equal(agent.status().link, 'connecting')
  await site.vra.listen()
  await eventually('everything is there', () => agent.status().queuedRecords < 3 && site.differences().length === 0)
  t.ok(site.vra.checkpoints.length >= 6)
  await client.close()
  await agent.close()
  await site.vra.kill()
  t.same(site.vra.faults, [])
})

t.test('a trim of an empty disk leaves the file sparse', async t => {
  const site = await Site.create(t.testdir(), ['a'], 64 * MiB)
  const agent = await site.start()
  const client = await site.client(agent, 'a')
  t.equal((await client.request(nbd.trim, { offsetBytes: 0, lengthBytes: 64 * MiB })).error, 0)
  await client.close()
  await agent.close()
  await site.vra.kill()
  t.equal(fs.statSync(site.pathOf('a')).blocks, 0)
})
