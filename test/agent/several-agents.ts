import t, { type Test } from 'tap'
import { MiB } from '../../src/base/units.ts'
import type { Agent } from '../../src/agent/agent.ts'
import { Site } from '../support/agent-site.ts'
import type { FakeCheckpoint, FakeVra } from '../support/agent-fake-vra.ts'
import type { NbdClient } from '../support/nbd-client.ts'
import { freePort, until } from '../support/scenario-role.ts'

// Two agents of one VPG, each with a VRA in memory. Writers put their next number on a disk of the first agent, then on one of the
// second: in no image pair of one checkpoint is the second ahead.

const sectorSizeBytes = 512
const writerCount = 4
const roundCount = 150

interface Pair {
  readonly vras: readonly [FakeVra, FakeVra]
  readonly agents: readonly [Agent, Agent]
  readonly clients: readonly [NbdClient, NbdClient]
  readonly told: string[]
}

async function openPair(t: Test): Promise<Pair> {
  const parts: (() => Promise<unknown>)[] = []
  // Before testdir(): what is registered first ends before the directory is removed.
  t.teardown(async () => {
    for (const end of parts.reverse()) await end()
  })
  const directory = t.testdir({ one: {}, two: {} })
  const sites = [
    await Site.create(`${directory}/one`, ['a', 'b'], MiB),
    await Site.create(`${directory}/two`, ['a', 'b'], MiB),
  ] as const
  const ports = [await freePort(), await freePort()] as const
  const participants = [1, 2].map(stream => ({
    stream,
    agent: `agent-${stream}`,
    peerAddress: `127.0.0.1:${ports[stream - 1]}`,
    volumes: [stream],
  }))
  const told: string[] = []
  const open = (index: 0 | 1): Promise<Agent> => {
    const site = sites[index]
    site.vra.stream = index + 1
    site.vra.participants = participants
    const name = index === 0 ? 'a' : 'b'
    return site.start(
      {
        agentId: `agent-${index + 1}`,
        volumes: [{ name, path: site.pathOf(name) }],
        peers: { listen: { host: '127.0.0.1', port: ports[index] }, holdTimeoutMillis: 5_000 },
      },
      { events: { ...site.events(), holdEnded: ({ end }) => told.push(end) } },
    )
  }
  const agents = [await open(0), await open(1)] as const
  const clients = [await sites[0].client(agents[0], 'a'), await sites[1].client(agents[1], 'b')] as const
  for (const site of sites) parts.push(() => site.vra.kill())
  for (const agent of agents) parts.push(() => agent.close())
  for (const client of clients) parts.push(() => client.close())
  await until('the agents see each other', () => agents.every(agent => agent.status().noCheckpointsBecause === ''))
  return { vras: [sites[0].vra, sites[1].vra], agents, clients, told }
}

/** Every writer its sector: the number on the first disk, answered, then on the second. */
async function writeDependently(clients: readonly [NbdClient, NbdClient], onRound: () => void): Promise<void> {
  const sector = Buffer.alloc(sectorSizeBytes)
  const write = async (writer: number): Promise<void> => {
    for (let round = 1; round <= roundCount; round++) {
      const data = Buffer.from(sector)
      data.writeUInt32LE(round)
      for (const client of clients) await client.write(writer * sectorSizeBytes, data)
      if (writer === 0) onRound()
    }
  }
  await Promise.all(Array.from({ length: writerCount }, (_, writer) => write(writer)))
}

/** Writers whose number on the second disk is ahead of that on the first. */
function tornWriters(first: FakeCheckpoint, second: FakeCheckpoint): number {
  const [a, b] = [first.images.get('a')!, second.images.get('b')!]
  const numbers = Array.from({ length: writerCount }, (_, writer) => writer * sectorSizeBytes)
  return numbers.filter(at => b.readUInt32LE(at) > a.readUInt32LE(at)).length
}

t.test(
  'in every checkpoint over two agents the later of two dependent writes is never without the earlier',
  async t => {
    const { vras, agents, clients, told } = await openPair(t)
    let requested = 0
    await writeDependently(clients, () => vras[0].requestCheckpoint(++requested))
    const last = requested + 1
    await until('the last is cut', () => {
      vras[0].requestCheckpoint(last)
      return vras[1].checkpoints.at(-1)?.marker.requestId === last
    })
    const [first, second] = vras
    const pairs = first.checkpoints.flatMap(mine => {
      const other = second.checkpoints.find(each => each.marker.counter === mine.marker.counter)
      return other === undefined ? [] : [{ mine, other }]
    })
    t.ok(pairs.length > 20, `${pairs.length} checkpoints`)
    for (const { mine, other } of pairs) {
      t.equal(tornWriters(mine, other), 0, `checkpoint ${mine.marker.counter}`)
      t.same(mine.marker, { ...other.marker, sequence: mine.marker.sequence })
      t.same(mine.marker.participants, [1, 2])
    }
    const separate = pairs.slice(1).map(({ other }, index) => tornWriters(pairs[index]!.mine, other))
    t.ok(
      separate.some(count => count > 0),
      'images at points of their own are torn: the checker can tell',
    )
    t.ok(told.length >= pairs.length && told.every(end => end === 'cut'), 'every hold ended with its marker')
    t.equal(agents[0].status().cut.isCoordinator, true)
    t.same(
      vras.flatMap(vra => vra.faults),
      [],
    )
  },
)

t.test('while the other agent is away there are no checkpoints, the reason is said, and guests go on', async t => {
  const { vras, agents, clients } = await openPair(t)
  await agents[1].close()
  await until('it is said', () => /agent-2.*not reached/.test(agents[0].status().noCheckpointsBecause))
  vras[0].requestCheckpoint(1)
  await clients[0].write(0, Buffer.alloc(512, 1))
  await until('the VRA hears why', () => /agent-2/.test(vras[0].statuses.at(-1)?.noCheckpointsBecause ?? ''))
  t.same(vras[0].checkpoints, [])
})
