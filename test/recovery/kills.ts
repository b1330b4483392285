import t from 'tap'
import { Failure } from '../../src/base/failure.ts'
import type { Decision, Recoveries, RecoveryOrder } from '../../src/recovery/recovery.ts'
import { changesVpg } from '../../src/recovery/decisions.ts'
import { hasEnded, type DrillResult, type RecoveryState } from '../../src/timeline/recovery.ts'
import { orderOf, RecoveryWorld, type StepFate } from '../support/recovery-world.ts'

// A process that is killed at any step, and again while the next one goes on with it. Invariants (here, and at each step in recovery-world.ts):
//
//   - nothing is created, kept or removed before the record that says so is durable, and what is created is remembered first
//   - pins are those of the records: one for each that has not ended
//   - a drill that a process died in is removed by the next one, whatever it was about to prove; and what came of it is in its record
//   - it ends, as it was decided; after a removal nothing of it is left and agents take writes again, after a commit everything of it is there, once
//   - a recovery that the store never knew has left nothing

const never = new AbortController().signal

interface Story {
  readonly name: string
  readonly order: RecoveryOrder
  /** When it is ready. */
  readonly decision?: Decision
  /** Of a drill, when it is ready. */
  readonly proof?: DrillResult
  /** While it is being prepared. */
  readonly cancel?: Decision
  /** When its commit is in trouble. */
  readonly regret?: Decision
  /** When it is committed it is to be served no more. */
  readonly isStoppedThen?: true
  readonly failing?: readonly (readonly [string, Failure, number])[]
  readonly ends: 'committed' | 'removed'
}

const rollback = { kind: 'rollback', afterMillis: 600_000 } as const
const full = new Failure('DISK_FAILED', 'the disk is full')
const away = new Failure('STORE_UNAVAILABLE', 'the store is away')

const drill = { by: 'schedule', check: 'fsck', checkedBy: 'daemon' } as const

const stories: readonly Story[] = [
  { name: 'a drill', order: orderOf('test', { drill }), proof: { outcome: 'passed' }, ends: 'removed' },
  { name: 'a test that is stopped', order: orderOf('test'), decision: 'stop', ends: 'removed' },
  { name: 'a failover that is committed', order: orderOf('failover'), decision: 'commit', ends: 'committed' },
  {
    name: 'a failover that is committed, and served no more then',
    order: orderOf('failover'),
    decision: 'commit',
    isStoppedThen: true,
    ends: 'committed',
  },
  { name: 'a failover that is rolled back', order: orderOf('failover'), decision: 'rollback', ends: 'removed' },
  {
    name: 'a failover by policy',
    order: orderOf('failover', { commitPolicy: { kind: 'commit', afterMillis: 600_000 } }),
    ends: 'committed',
  },
  { name: 'a failover that nobody commits', order: orderOf('failover', { commitPolicy: rollback }), ends: 'removed' },
  { name: 'a clone', order: orderOf('clone'), ends: 'committed' },
  { name: 'a move that is committed', order: orderOf('move'), decision: 'commit', ends: 'committed' },
  { name: 'a move that is rolled back', order: orderOf('move'), decision: 'rollback', ends: 'removed' },
  {
    name: 'a failover that is regretted when its machines are being handed over',
    order: orderOf('failover'),
    decision: 'commit',
    regret: 'rollback',
    failing: [['handOver', away, 4]],
    ends: 'committed',
  },
  {
    name: 'a test that cannot be prepared',
    order: orderOf('test'),
    failing: [['create 2', full, 1000]],
    ends: 'removed',
  },
  {
    name: 'a failover in a store and on a target that fail for a while',
    order: orderOf('failover'),
    decision: 'commit',
    failing: [
      ['put', away, 3],
      ['create 3', away, 9],
      ['commit', full, 3],
    ],
    ends: 'committed',
  },
  { name: 'a failover that is cancelled', order: orderOf('failover'), cancel: 'rollback', ends: 'removed' },
]

/** One life after the other until it has ended. */
async function lived(world: RecoveryWorld, story: Story): Promise<void> {
  for (let life = 0; life < 4; life++) {
    const engine = world.start()
    const { died } = world
    const end = await Promise.race([seenThrough(world, engine, story).then(() => 'lived' as const), died])
    if (end !== 'lived') continue
    await engine.close()
    return
  }
}

/** What a person does: begins it where it is not known, decides when it is time, waits until it has ended. */
async function seenThrough(world: RecoveryWorld, engine: Recoveries, story: Story): Promise<void> {
  const id = world.records[0]?.id ?? (await begun(engine, story.order))
  const state = (): RecoveryState => world.record(id)?.state ?? 'removed'
  const isDecidable = (): boolean => state() === 'ready' || hasEnded({ state: state() })
  const asked = (decision: Decision) => answered(world, engine.decide(id, decision))
  if (story.cancel !== undefined && !hasEnded({ state: state() })) await asked(story.cancel)
  await world.until(isDecidable, 60_000)
  if (story.decision !== undefined && state() === 'ready') await asked(story.decision)
  if (story.proof !== undefined && state() === 'ready') await answered(world, engine.endDrill(id, story.proof))
  const isHandingOver = (): boolean => world.record(id)?.handOver === 'begun' || hasEnded({ state: state() })
  if (story.regret !== undefined) {
    await world.until(isHandingOver, 100)
    await asked(story.regret)
  }
  await world.until(() => hasEnded({ state: state() }), 60_000)
  // Where it is another incarnation, its machines have nothing else.
  if (state() === 'committed' && changesVpg(story.order.kind) && world.record(id)?.isServiceEnded !== true)
    world.expect(await world.until(() => world.isServed(id), 60_000), 'it is committed, and not served')
  if (story.isStoppedThen === true) await asked('stop')
}

/** Tried again while the store is away. */
async function begun(engine: Recoveries, order: RecoveryOrder): Promise<string> {
  for (;;) {
    try {
      return (await engine.start(order, never)).record.id
    } catch (error) {
      if (!(error instanceof Failure) || error.reaction !== 'retry') throw error
    }
  }
}

/** Refused where it was decided before the process died. */
async function answered(world: RecoveryWorld, deciding: Promise<unknown>): Promise<void> {
  let isAnswered = false
  const answer = deciding
    .catch((error: unknown) => {
      if (!(error instanceof Failure)) throw error
    })
    .finally(() => (isAnswered = true))
  await world.until(() => isAnswered)
  await answer
}

function judge(world: RecoveryWorld, story: Story, how: string): string[] {
  const wrong = world.broken.map(sentence => `${how}: ${sentence}`)
  const expect = (isRight: boolean, sentence: string): void => {
    if (!isRight) wrong.push(`${how}: ${sentence}\n    ${world.steps.join('\n    ')}`)
  }
  const [record, ...others] = world.records
  expect(record !== undefined && others.length === 0, `${world.records.length} records`)
  expect(record?.state === story.ends, `it is ${record?.state}`)
  expect(world.pins.length === 0, 'a pin is left')
  const outcome = record?.drill?.result?.outcome
  const isOneLife = world.life === 1
  if (story.proof !== undefined)
    expect(outcome === 'passed' || (!isOneLife && outcome === 'interrupted'), `the drill is ${outcome}`)
  const volumes = story.order.vms.flatMap(vm => vm.volumes)
  if (story.ends === 'removed') {
    expect(world.created.length === 0, 'something of it is left')
    expect(!world.isDrained, 'agents take no writes')
  } else {
    const tokens = world.created.map(each => each.token).sort()
    expect(
      JSON.stringify(tokens) === JSON.stringify(volumes.map(volume => `${record?.id}/${volume}`)),
      `there is ${tokens.join()}`,
    )
    expect(
      world.created.every(each => each.isKept),
      'not all is kept',
    )
    expect(record?.readyAtMicros !== undefined, 'it was ready')
    expect(record?.isServiceEnded === story.isStoppedThen, 'whether it is served is as it was decided')
  }
  const isHandedOver = story.ends === 'committed' && changesVpg(story.order.kind)
  expect(world.incarnation === (isHandedOver ? 2 : 1), `it is incarnation ${world.incarnation}`)
  return wrong
}

function worldOf(story: Story): RecoveryWorld {
  const world = new RecoveryWorld()
  for (const [name, failure, count] of story.failing ?? []) world.failing.set(name, { count, failure })
  return world
}

for (const story of stories) {
  t.test(`${story.name}, killed at any step`, async t => {
    const rehearsal = worldOf(story)
    await lived(rehearsal, story)
    t.strictSame(judge(rehearsal, story, 'in one life'), [])
    const wrong: string[] = []
    for (let at = 0; at < rehearsal.stepCount; at++)
      for (const fate of ['dies-before', 'dies-after'] as const) {
        const world = worldOf(story)
        world.fateOf = step => (step === at ? fate : 'works')
        await lived(world, story)
        wrong.push(...judge(world, story, `${fate} step ${at}`))
      }
    t.ok(rehearsal.stepCount > 8, `${rehearsal.stepCount} steps`)
    t.strictSame(wrong.slice(0, 3), [])
  })
}

t.test('killed twice: at a step, and at any of the next ones of the process after it', async t => {
  const wrong: string[] = []
  for (const story of stories.filter(({ failing }) => failing === undefined)) {
    const rehearsal = worldOf(story)
    await lived(rehearsal, story)
    for (let at = 0; at < rehearsal.stepCount; at += 2)
      for (let after = 1; after < 8; after += 2) {
        const world = worldOf(story)
        const fates = new Map<number, StepFate>([
          [at, 'dies-after'],
          [at + after, 'dies-before'],
        ])
        world.fateOf = step => fates.get(step) ?? 'works'
        await lived(world, story)
        wrong.push(...judge(world, story, `${story.name}, at ${at} and ${after} later`))
      }
  }
  t.strictSame(wrong.slice(0, 3), [])
})
