import t from 'tap'
import { chainsMemoryOf } from '../../src/aws/chain-memory.ts'
import { ownKeys } from '../../src/aws/tags.ts'
import { AwsWorld, Model, modelVpg, type StandbyProcess } from '../support/aws-world.ts'

// A process that dies at a put of the record of standby copies, before the store has it or after, while a chain is advanced, or removed. What the next one
// makes of it: of the volume there is one link, of the newest checkpoint and with its bytes, and that checkpoint alone is kept; or, where none is wanted, nothing.

const sizeBytes = 2 ** 20

interface Story {
  readonly name: string
  /** What the first process is to do when its chain has one link. */
  readonly begin: (world: AwsWorld, process: StandbyProcess) => void
  readonly intervalMillis: number
}

const stories: readonly Story[] = [
  {
    name: 'it is advanced',
    begin: ({ model }, { engine }) => {
      model.writeRandomly(1, false)
      model.checkpoint()
      engine.changed(modelVpg)
    },
    intervalMillis: 3_600_000,
  },
  {
    name: 'it is removed',
    begin: (_, { engine, definition }) => {
      definition.standbyIntervalMillis = 0
      engine.changed(modelVpg)
    },
    intervalMillis: 0,
  },
]

/** Until it is as it is to be. */
function isDone({ standby, model }: AwsWorld, { intervalMillis }: Story): boolean {
  if (intervalMillis === 0) return standby === undefined
  return standby?.next === undefined && standby?.checkpoints.at(-1)?.ordinal === model.checkpoints.at(-1)!.ordinal
}

function wrongIn(world: AwsWorld, { intervalMillis }: Story): string[] {
  const there = world.sim.account.tagged(ownKeys.standby, modelVpg)
  if (intervalMillis === 0) return there.map(id => `${id} is left`)
  const newest = world.model.checkpoints.at(-1)!
  const { link, making } = chainsMemoryOf(world.standby?.memory ?? null).volumes[1] ?? {}
  const bytes = link === undefined ? undefined : world.snapshotBytes(link.snapshot, sizeBytes)
  return [
    ...(link?.ordinal === newest.ordinal ? [] : ['the link is of another checkpoint']),
    ...(bytes?.equals(world.model.bytesAt(newest, 1)) === true ? [] : ['the link has other bytes']),
    ...(making === undefined ? [] : ['something is being made still']),
    ...(there.join() === link?.snapshot ? [] : [`there is ${there.join()}`]),
    ...(world.standby?.checkpoints.length === 1 ? [] : ['other checkpoints are kept']),
  ]
}

/** False where the story was over before that put. */
async function lived(story: Story, at: number, fate: 'dies-before' | 'dies-after', wrong: string[]): Promise<boolean> {
  const model = new Model({ 1: sizeBytes })
  model.writeRandomly(1, false)
  model.checkpoint()
  const world = await AwsWorld.start(model)
  const first = world.tools()
  const dying = world.standbys(first)
  await world.until(() => world.advances.length === 1)
  let hasDied = false
  world.diedAtPut = () => (hasDied = true)
  world.putCount = 0
  world.fateOfPut = number => (number === at ? fate : 'works')
  story.begin(world, dying)
  await world.until(() => hasDied || isDone(world, story))
  await dying.kill()
  await first.close()
  world.fateOfPut = () => 'works'
  const second = world.tools()
  const next = world.standbys(second, { standbyIntervalMillis: story.intervalMillis })
  await world.until(() => isDone(world, story))
  wrong.push(...wrongIn(world, story).map(sentence => `${fate} put ${at}: ${sentence}`))
  await next.kill()
  await second.close()
  await world.close()
  return hasDied
}

for (const story of stories)
  t.test(`${story.name}, and the process dies at any put of its record`, async t => {
    const wrong: string[] = []
    let at = 1
    for (; await lived(story, at, 'dies-before', wrong); at++) await lived(story, at, 'dies-after', wrong)
    t.strictSame(wrong, [])
    t.ok(at > 2, `${at - 1} puts`)
  })
