import t from 'tap'
import { flag, nbd } from '../support/nbd-client.ts'
import { eventually } from '../support/nbd-tools.ts'
import type { AgentEvents } from '../../src/agent/events.ts'
import type { ProtectedVolume } from '../../src/agent/protected-volume.ts'
import { Quiescence } from '../../src/agent/quiescence.ts'
import type { StateDirectory } from '../../src/agent/state-directory.ts'
import { Site, seededRandom } from '../support/agent-site.ts'
import { volumeFilesAsking } from '../support/volume-file-calls.ts'

// The end of the writing for a move: what the agent says must hold of every write that a guest was answered, and over every restart.

const MiB = 1024 * 1024
const eperm = 1

t.test(
  'after the agent has said that nothing is written any more, a checkpoint has every write that was answered',
  async t => {
    const random = seededRandom()
    for (let round = 0; round < 5; round++) {
      const site = await Site.create(t.testdir(), ['a', 'b'], 2 * MiB)
      const agent = await site.start()
      await site.untilExact(agent)
      const clients = [await site.client(agent, 'a'), await site.client(agent, 'b')]
      const answered = [0, 0]
      let refused = 0
      const writing = clients.map(async (client, which) => {
        for (let number = 1; refused < 2; number++) {
          const data = Buffer.alloc(512, which + 1)
          data.writeUInt32LE(number, 0)
          const { error } = await client.request(nbd.write, { offsetBytes: 512 * random.below(64), data: data })
          if (error === 0) answered[which]!++
          else {
            t.equal(error, eperm, 'a write that comes later is refused as such')
            refused++
            return
          }
        }
      })
      await eventually('writes flow', () => answered.every(count => count > 20))
      site.vra.direct({ quiescedBy: 'r-1' })
      await eventually('the agent says so', () => site.vra.statuses.at(-1)?.quiescedBy === 'r-1')
      const disks = ['a', 'b'].map(name => site.disk(name))
      site.vra.requestCheckpoint(7)
      await eventually('the last checkpoint', () => site.vra.checkpoints.some(({ marker }) => marker.requestId === 7))
      const last = site.vra.checkpoints.find(({ marker }) => marker.requestId === 7)
      for (const [which, name] of ['a', 'b'].entries())
        t.ok(last?.images.get(name)?.equals(disks[which]!), `${name} as it stays, seed ${random.seed}`)
      await Promise.all(writing)
      for (const client of clients) await client.close()
      await agent.close()
      await site.vra.kill()
      t.same(site.differences(), [])
      t.same(site.vra.faults, [])
    }
  },
)

t.test('no restart takes a write, until the VRA says so', async t => {
  const site = await Site.create(t.testdir(), ['a'], 1 * MiB)
  let agent = await site.start()
  await site.untilExact(agent)
  site.vra.direct({ quiescedBy: 'r-1' })
  await eventually('it is quiesced', () => agent.status().quiescedBy === 'r-1')
  await agent.close()
  agent = await site.start()
  const client = await site.client(agent, 'a')
  t.equal((await client.request(nbd.write, { offsetBytes: 0, data: Buffer.alloc(512, 1) })).error, eperm)
  t.equal((await client.request(nbd.writeZeroes, { offsetBytes: 0, lengthBytes: 512 })).error, eperm)
  t.equal((await client.request(nbd.trim, { offsetBytes: 0, lengthBytes: 512 })).error, eperm)
  t.ok((await client.read(0, 512)).equals(Buffer.alloc(512)), 'reading goes on')
  await eventually('the link', () => agent.status().link === 'connected')
  site.vra.direct({ quiescedBy: '' })
  await eventually('writes are taken', () => agent.status().quiescedBy === '')
  const again = await site.client(agent, 'a')
  t.equal((await again.request(nbd.write, { offsetBytes: 0, data: Buffer.alloc(512, 1), flags: flag.fua })).error, 0)
  await again.close()
  await client.close()
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [])
})

t.test('a second operation is not taken for the first', async t => {
  const site = await Site.create(t.testdir(), ['a'], 1 * MiB)
  const agent = await site.start()
  await site.untilExact(agent)
  const said = (): string | undefined => site.vra.statuses.at(-1)?.quiescedBy
  site.vra.direct({ quiescedBy: 'r-1' })
  await eventually('the first', () => said() === 'r-1')
  site.vra.direct({ quiescedBy: '' })
  site.vra.direct({ quiescedBy: 'r-2' })
  await eventually('the second', () => said() === 'r-2')
  const after = site.vra.statuses.map(({ quiescedBy }) => quiescedBy)
  t.same(
    [...new Set(after)].filter(by => by !== ''),
    ['r-1', 'r-2'],
  )
  await agent.close()
  await site.vra.kill()
})

t.test('it is not said while a write that was taken is under way', async t => {
  const site = await Site.create(t.testdir(), ['a'], 1 * MiB)
  let release: (() => void) | undefined
  let isHeld = false
  const openFile = volumeFilesAsking(({ name, path }) => {
    const isHere = isHeld && name === 'write' && path.endsWith('.raw')
    return isHere ? new Promise<void>(resolve => (release = resolve)) : undefined
  })
  const agent = await site.start({}, { openVolumeFile: openFile })
  await site.untilExact(agent)
  const client = await site.client(agent, 'a')
  isHeld = true
  const slow = client.write(0, Buffer.alloc(512, 9))
  await eventually('the write is under way', () => release !== undefined)
  site.vra.direct({ quiescedBy: 'r-1' })
  const other = await site.client(agent, 'a')
  const zeroes = { offsetBytes: 512 * 64, lengthBytes: 512 }
  let refusal = 0
  for (let asked = 0; asked < 10_000 && refusal === 0; asked++)
    refusal = (await other.request(nbd.writeZeroes, zeroes)).error
  t.equal(refusal, eperm, 'others are refused')
  for (let read = 0; read < 100; read++) await other.read(512 * 64, 512)
  t.equal(agent.status().quiescedBy, '', 'it is not over')
  t.notOk(site.vra.statuses.some(({ quiescedBy }) => quiescedBy === 'r-1'))
  release?.()
  await slow
  await eventually('now it is', () => site.vra.statuses.at(-1)?.quiescedBy === 'r-1')
  site.vra.requestCheckpoint(9)
  await eventually('the last checkpoint', () => site.vra.checkpoints.some(({ marker }) => marker.requestId === 9))
  t.equal(site.vra.checkpoints.at(-1)?.images.get('a')?.[0], 9, 'it has the write')
  await client.close()
  await other.close()
  await agent.close()
  await site.vra.kill()
})

t.test('an operation that is taken back and asked for again is answered by what was under way since', async t => {
  const waits: (() => void)[] = []
  const disk = { settled: () => new Promise<void>(resolve => waits.push(resolve)), sync: () => Promise.resolve() }
  const state: { quiescedBy?: string } = {}
  const told: string[] = []
  const quiescence = new Quiescence({
    directory: { state, save: (change: object) => void Object.assign(state, change) } as unknown as StateDirectory,
    events: { quiesced: (by: string) => void told.push(by) } as unknown as AgentEvents,
    volumes: () => [{ disk } as unknown as ProtectedVolume],
    tellStatus: () => undefined,
  })
  quiescence.directed('r-1')
  await eventually('the first waits', () => waits.length === 1)
  quiescence.directed('') // writes are taken
  quiescence.directed('r-1')
  waits[0]?.()
  await eventually('the second waits', () => waits.length === 2)
  t.same([told, quiescence.by], [[''], ''], 'what was taken between is not waited for yet')
  waits[1]?.()
  await quiescence.settled()
  t.same([told, quiescence.by], [['', 'r-1'], 'r-1'])
})
