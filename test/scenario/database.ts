import { spawn } from 'node:child_process'
import * as fs from 'node:fs'
import * as net from 'node:net'
import * as os from 'node:os'
import * as path from 'node:path'
import t, { type Test } from 'tap'
import { KiB, MiB } from '../../src/base/units.ts'
import { rowMark } from '../support/database-rows.ts'
import { nbdUri } from '../support/nbd-tools.ts'
import { DatabaseLoad, faultsOfImage } from '../support/scenario-database.ts'
import { cannotMount, mustRun, ServedDisk, unmount } from '../support/scenario-mount.ts'
import { freePort, until } from '../support/scenario-role.ts'
import { Scenario, type AgentSite } from '../support/scenario-site.ts'
import { syncEnds, untilAgent, untilSynced } from '../support/scenario-sync.ts'
import { Wire } from '../support/scenario-wire.ts'

// A database under load on ext4 on a protected disk, through everything that may happen. A database's own recovery notices few lost
// writes, so what it acknowledged is noted outside: at a checkpoint that was asked for after a commit had returned, that commit is there.

const sizeBytes = 128 * MiB
const transactionsBetween = 25

interface Point {
  readonly tag: string
  /** The last transaction whose commit had returned before the checkpoint was asked for. */
  readonly acknowledged: number
}

t.test(
  'SQLite in WAL mode on ext4: outages, a lost queue, kills of the agent and of the VRA; ten checkpoints hold what was acknowledged',
  { skip: cannotMount('nbdfuse', 'nbdkit', 'e2fsck') || (!fs.existsSync('/dev/fuse') && 'no /dev/fuse') },
  async t => {
    const scenario = await Scenario.make(t)
    await scenario.startVra()
    const wire = await Wire.open(t, scenario.agentsPort)
    const agent = await scenario.placeAgent({
      agentId: 'host',
      vpg: 'shop',
      volumes: { data: sizeBytes },
      vra: `{ port: ${wire.port} }`,
      more: ['queueSizeBytesMax: 3 MiB'],
    })
    await scenario.createVpg(agent.plan)
    await agent.start()
    await untilSynced(agent)

    const outside = fs.mkdtempSync(path.join(os.tmpdir(), 'vra-database-'))
    const mountPoint = path.join(outside, 'mnt')
    fs.mkdirSync(mountPoint)
    const proxyPort = await freePort()
    // What was not answered when the agent was killed is asked for again, as a guest's kernel does.
    const retry = ['retry-delay=1', 'retries=60', 'retry-exponential=no']
    const uri = nbdUri({ host: '127.0.0.1', port: agent.nbdPort }, 'data')
    const proxyArguments = ['-f', '-i', '127.0.0.1', '-p', String(proxyPort), '--filter=retry', 'nbd', `uri=${uri}`]
    const proxy = spawn('nbdkit', [...proxyArguments, ...retry], { stdio: 'ignore' })
    const points: Point[] = []
    let disk: ServedDisk | undefined
    let load: DatabaseLoad | undefined
    try {
      await until('the proxy listens', () => listensAt(proxyPort))
      disk = await ServedDisk.open(path.join(outside, 'fuse'), nbdUri({ host: '127.0.0.1', port: proxyPort }, ''))
      const loop = await disk.attach()
      if (loop === undefined) return void t.pass('a loop device', { skip: 'none is to be had here' })
      await mustRun('mkfs.ext4', '-q', '-F', loop)
      await mustRun('mount', loop, mountPoint)
      load = DatabaseLoad.start(mountPoint)
      await through(t, { scenario, agent, wire, load, points })
      t.equal(await load.stop(), 0, 'no request of the database failed')
    } finally {
      load?.kill()
      await unmount(mountPoint)
      await disk?.close()
      proxy.kill('SIGKILL')
    }

    try {
      t.equal(points.length, 10)
      const images: string[] = []
      for (const { tag, acknowledged } of points) {
        const image = await scenario.exported('shop', 'data', tag)
        images.push(image)
        t.same(await faultsOfImage(image, mountPoint, acknowledged), [], `${tag}: all ${acknowledged} are there`)
      }
      await t.test('the same check finds what is missing', async t => {
        const [earlier, later] = [images.at(-2)!, images.at(-1)!]
        const { acknowledged } = points.at(-1)!
        const ofEarlier = await faultsOfImage(earlier, mountPoint, acknowledged)
        t.match(ofEarlier, [/were acknowledged/], 'an earlier checkpoint is found out')
        const places = placesOf(later, rowMark(acknowledged))
        t.ok(places.length > 0, 'the last transaction is in the image')
        let foundCount = 0
        for (const place of places.slice(0, 4)) {
          const without = withoutWrite(later, earlier, place)
          if ((await faultsOfImage(without, mountPoint, acknowledged)).length > 0) foundCount++
          fs.rmSync(without)
        }
        t.ok(foundCount > 0, `${foundCount} of ${places.length} writes that hold it are missed when one is left out`)
      })
    } finally {
      fs.rmSync(outside, { recursive: true })
    }
  },
)

function listensAt(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const probe = net.connect(port, '127.0.0.1', () => resolve(true))
    probe.on('error', () => resolve(false))
    probe.on('connect', () => probe.destroy())
  })
}

interface Run {
  readonly scenario: Scenario
  readonly agent: AgentSite
  readonly wire: Wire
  readonly load: DatabaseLoad
  readonly points: Point[]
}

async function through(t: Test, { scenario, agent, wire, load, points }: Run): Promise<void> {
  const checkpoint = async (tag: string): Promise<void> => {
    await load.more(transactionsBetween)
    const { acknowledged } = load
    await scenario.tag('shop', tag)
    points.push({ tag, acknowledged })
  }
  await checkpoint('start')
  await checkpoint('running')

  wire.cut()
  await untilAgent(agent, 'the link is away', ({ link }) => link === 'connecting')
  await load.more(transactionsBetween)
  wire.mend()
  await untilAgent(agent, 'the link is back', ({ link }) => link === 'connected')
  await checkpoint('short-outage')

  wire.cut()
  await untilAgent(agent, 'the queue is lost', ({ stream }) => stream === 'detached')
  await load.more(transactionsBetween)
  const { length: syncCount } = syncEnds(agent)
  wire.mend()
  await untilSynced(agent)
  t.match(syncEnds(agent).slice(syncCount), [{ kind: 'bitmap' }], 'the outage ended with a synchronisation')
  await checkpoint('synchronised')
  await checkpoint('after-outage')

  await agent.process?.kill()
  await agent.start()
  await untilSynced(agent)
  t.match(syncEnds(agent), [{ kind: 'bitmap' }], 'and so did the kill of the agent')
  await checkpoint('agent-killed')
  await checkpoint('after-agent')

  await scenario.vra?.kill()
  await load.more(transactionsBetween)
  await scenario.startVra()
  await untilSynced(agent)
  t.equal(syncEnds(agent).length, 1, 'a kill of the VRA did not')
  await checkpoint('vra-killed')

  await Promise.all([agent.process?.kill(), scenario.vra?.kill()])
  await scenario.startVra()
  await agent.start()
  await untilSynced(agent)
  await checkpoint('both-killed')
  await checkpoint('end')
}

/** Where the text is in the file. */
function placesOf(file: string, text: string): number[] {
  const bytes = fs.readFileSync(file)
  const places: number[] = []
  for (let at = bytes.indexOf(text); at >= 0; at = bytes.indexOf(text, at + 1)) places.push(at)
  return places
}

/** A copy of the image in which the 4 KiB around the place are as they were before. */
function withoutWrite(image: string, before: string, place: number): string {
  const copy = `${image}.without`
  fs.copyFileSync(image, copy)
  const block = Buffer.alloc(4 * KiB)
  const startBytes = place - (place % block.length)
  const source = fs.openSync(before, 'r')
  fs.readSync(source, block, 0, block.length, startBytes)
  fs.closeSync(source)
  const target = fs.openSync(copy, 'r+')
  fs.writeSync(target, block, 0, block.length, startBytes)
  fs.closeSync(target)
  return copy
}
