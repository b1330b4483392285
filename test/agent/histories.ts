import t from 'tap'
import { KiB, MiB } from '../../src/base/units.ts'
import { World } from '../support/agent-world.ts'
import { Random } from '../support/journal-random.ts'

// Random histories of the real agent: guests write while the link is cut at any frame, the VRA falls behind, the queue overflows, the
// agent is stopped, killed, or loses its power, the VPG is paused, synchronisations are asked for, the appliance is lost, disks are changed
// behind the agent. Invariants:
//   - the VRA's image at every checkpoint is the disk as it was when the marker got its number;
//   - no checkpoint includes a volume in a synchronisation, no stream has a gap, no marker falls back;
//   - no guest's write fails;
//   - when everything works again, the VRA has exactly the disks.
// SEED in the environment replays one history; HISTORIES says how many are run, from that seed on.

const volumeSizeBytes = 3 * MiB
const names = ['a', 'b']

function randomWrite(world: World, random: Random): Promise<void> {
  const name = names[random.integer(0, 1)]!
  const lengthBytes = 512 * random.integer(1, random.chance(0.2) ? 300 : 16)
  const offsetBytes = 512 * random.integer(0, (volumeSizeBytes - lengthBytes) / 512)
  if (random.chance(0.15)) return world.guest(name, offsetBytes, lengthBytes)
  return world.guest(name, offsetBytes, Buffer.alloc(lengthBytes, random.integer(1, 255)))
}

type Step = readonly [weight: number, what: string, act: (world: World, random: Random) => unknown]

const steps: readonly Step[] = [
  [30, 'a burst', (world, random) => burst(world, random, 20)],
  [4, 'a flood', (world, random) => burst(world, random, 120)],
  [10, 'a cut', world => world.cutLink()],
  [3, 'the link is down', world => void (world.linkIsUp = false)],
  [6, 'the link is up', world => void (world.linkIsUp = true)],
  [4, 'the VRA does not store', world => void (world.vra.storing = false)],
  [6, 'it stores some', (world, random) => world.vra.store(random.integer(0, 3))],
  [6, 'it stores', world => store(world)],
  [3, 'it does not offload', world => void (world.vra.offloading = false)],
  [4, 'it offloads', world => world.vra.offload()],
  [2, 'it offloads at once', world => void (world.vra.offloading = true)],
  [2, 'the appliance is lost', world => world.vra.loseAppliance()],
  [1, 'the bucket, too', world => world.vra.loseEverything()],
  [8, 'a checkpoint is asked for', (world, random) => world.vra.requestCheckpoint(random.integer(1, 1e6))],
  [2, 'paused', world => world.vra.direct({ paused: true })],
  [4, 'resumed', world => world.vra.direct({ paused: false })],
  [2, 'paced', (world, random) => world.vra.direct({ syncRateBytesPerSecond: random.integer(1, 64) * MiB })],
  [2, 'a delta is asked for', world => world.vra.send({ type: 'sync-request', kind: 'delta', volumes: [1] })],
  [1, 'a full one', world => world.vra.send({ type: 'sync-request', kind: 'full', volumes: [2] })],
  [1, 'hashes fail', (world, random) => void (world.vra.hashFailure = random.chance(0.5) ? 'unreadable' : '')],
  [4, 'killed', world => again(world, () => world.kill('kept'))],
  [4, 'power lost', world => again(world, () => world.kill('lost'))],
  [4, 'stopped', world => again(world, () => world.stop())],
  [
    1,
    'changed behind it',
    (world, random) =>
      again(world, async () => {
        await world.stop()
        world.changeBehind('a', 64 * KiB * random.integer(0, 40), Buffer.alloc(5000, random.integer(1, 255)))
      }),
  ],
]

async function burst(world: World, random: Random, count: number): Promise<void> {
  for (let index = random.integer(1, count); index > 0; index--)
    randomWrite(world, random).catch((error: unknown) => world.faults.push(`a write failed: ${String(error)}`))
}

function store(world: World): void {
  world.vra.storing = true
  world.vra.store()
}

async function again(world: World, end: () => Promise<void>): Promise<void> {
  await end()
  await world.start()
}

function chosen(random: Random): Step {
  let at = random.integer(
    1,
    steps.reduce((sum, [weight]) => sum + weight, 0),
  )
  return steps.find(([weight]) => (at -= weight) <= 0)!
}

async function runHistory(seed: number): Promise<readonly string[]> {
  const random = new Random(seed)
  const world = new World(random, names, volumeSizeBytes)
  world.vra.checkpointIntervalMillis = 1_000
  world.changeBehind('a', 1 * MiB, Buffer.alloc(700_000, 7)) // it holds data before the agent comes
  await world.start()
  const told: string[] = []
  for (let step = 0; step < 40; step++) {
    const [, what, act] = chosen(random)
    told.push(what)
    await act(world, random)
    await world.pass(random.integer(0, random.chance(0.2) ? 600 : 40))
  }
  world.linkIsUp = true
  world.vra.hashFailure = ''
  world.vra.direct({ paused: false, syncRateBytesPerSecond: 0 })
  store(world)
  for (let wait = 0; wait < 400 && !isInStep(world); wait++) await world.pass(50)
  if (!isInStep(world)) world.faults.push(`never in step: ${JSON.stringify(world.agent?.status())}`)
  await world.stop()
  for (const name of names)
    if (!world.vra.models.get(name)!.equals(world.contents(name))) world.faults.push(`"${name}" differs in the end`)
  const faults = [...world.faults, ...world.vra.faults]
  return faults.length === 0 ? [] : [...faults, `after: ${told.join(', ')}`]
}

function isInStep(world: World): boolean {
  const status = world.agent?.status()
  return (
    status?.link === 'connected' &&
    status.stream === 'exact' &&
    status.queuedRecords === 0 &&
    status.volumes.every(volume => volume.sync === 'none')
  )
}

t.test('whatever happens, checkpoints are the disks at their instant, and in the end nothing is missing', async t => {
  t.setTimeout(600_000)
  const first = Number(process.env['SEED'] ?? 1)
  const count = Number(process.env['HISTORIES'] ?? (process.env['SEED'] === undefined ? 15 : 1))
  for (let seed = first; seed < first + count; seed++) t.strictSame(await runHistory(seed), [], `seed ${seed}`)
})
