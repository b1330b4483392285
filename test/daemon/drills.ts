import t, { type Test } from 'tap'
import { Failure } from '../../src/base/failure.ts'
import type { RecoveryFacts } from '../../src/control/service.ts'
import { Drills, type ConfiguredCheck } from '../../src/daemon/drills.ts'
import { VpgEntry } from '../../src/daemon/vpg-table.ts'
import type { Recoveries } from '../../src/recovery/recovery.ts'
import type { DrillSchedule } from '../../src/timeline/drill-schedule.ts'
import { hasEnded, type Drill, type DrillResult } from '../../src/timeline/recovery.ts'
import { openedVpg } from '../support/opened-vpg.ts'
import { definition, orderOf, RecoveryWorld } from '../support/recovery-world.ts'

// Drills over the real engine, in a world without machines: the clock is moved by hand, and checks say what they are told to.

const never = new AbortController().signal
const hourMillis = 3_600_000
const checks: readonly ConfiguredCheck[] = [{ name: 'fsck', command: 'fsck', timeoutMillis: 60_000 }]
const request = { vpg: definition.name, checkpoint: 'latest', target: 'raw', settings: {} } as const

class Site {
  readonly world = new RecoveryWorld()
  readonly entry: VpgEntry
  engine!: Recoveries
  drills!: Drills
  /** What the check says; it waits for it. */
  answer: Promise<DrillResult> = Promise.resolve({ outcome: 'passed', exitStatus: 0 })
  readonly environments: Readonly<Record<string, string>>[] = []
  checksUnderWay = 0
  readonly told: string[] = []

  constructor(schedule?: Omit<DrillSchedule, 'setAtMicros' | 'target'>) {
    const target = { kind: 'raw', settings: {} } as const
    const drillSchedule =
      schedule === undefined ? null : { ...schedule, target, setAtMicros: this.world.clock.startMicros }
    this.entry = new VpgEntry(openedVpg({ definition: { ...definition, drillSchedule } }), this.world.clock)
  }

  start(): this {
    const engine = this.world.start()
    this.engine = engine
    const control = {
      startDrill: async (_: object, drill: Drill) => {
        const { record } = await engine.start(orderOf('test', { drill }), never)
        return factsOf(engine, record.id)
      },
      get: (id: string) => factsOf(engine, id),
    }
    this.drills = new Drills({
      ...{ checks, clock: this.world.clock, control, engine, table: { all: () => [this.entry] } },
      runCheck: async ({ environment }, signal) => {
        this.environments.push(environment)
        this.checksUnderWay++
        try {
          return await Promise.race([this.answer, aborted(signal)])
        } finally {
          this.checksUnderWay--
        }
      },
      told: ({ outcome, sentence }) => void this.told.push(outcome ?? sentence ?? ''),
    })
    return this
  }

  async stop(): Promise<void> {
    await this.drills.close()
    await this.engine.close()
  }

  get outcomes(): (string | undefined)[] {
    return this.world.records.flatMap(({ drill }) => (drill === undefined ? [] : [drill.result?.outcome]))
  }

  async ended(count: number): Promise<boolean> {
    return await this.world.until(() => this.world.records.filter(hasEnded).length === count, 100)
  }

  async person(): Promise<string> {
    await this.drills.giveWay()
    return (await this.engine.start(orderOf('failover'), never)).record.id
  }

  /** The clock moves, and what that sets off is let go on. */
  async pass(millis: number): Promise<void> {
    await this.world.clock.advance(millis)
    for (let turn = 0; turn < 50; turn++) await new Promise(resolve => setImmediate(resolve))
  }
}

async function aborted(signal: AbortSignal): Promise<never> {
  return await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)))
}

/** What the API says of it, as far as it is looked at. */
function factsOf(engine: Recoveries, id: string): RecoveryFacts {
  const { record } = engine.get(id)
  const { drill, createdAtMicros, readyAtMicros } = record
  return {
    ...{ id, vpg: definition.name, state: record.state, target: 'raw', checkpoint: '3.1204', things: [] },
    checkpointTimestampMicros: record.checkpoint?.timestampMicros,
    rtoMillis: readyAtMicros === undefined ? undefined : (readyAtMicros - createdAtMicros) / 1000,
    drill: drill === undefined ? undefined : { ...drill, outcome: drill.result?.outcome },
  } as unknown as RecoveryFacts
}

function opened(t: Test, schedule?: ConstructorParameters<typeof Site>[0]): Site {
  const site = new Site(schedule).start()
  t.teardown(() => site.stop())
  site.drills.begin()
  return site
}

t.test('by a schedule: when it is due, again and again, and the newest proof is known', async t => {
  const site = opened(t, { when: { everyMillis: hourMillis }, check: 'fsck' })
  const { world, drills, entry } = site
  await site.pass(hourMillis - 20_000)
  t.strictSame(site.outcomes, [])
  t.match(drills.ofVpg(entry), { proven: undefined, nextAtMicros: world.clock.startMicros + hourMillis * 1000 })
  await site.pass(30_000)
  t.ok(await site.ended(1))
  t.strictSame(site.outcomes, ['passed'])
  t.match(site.environments[0], { VRA_VPG: definition.name, VRA_CHECKPOINT: '3.1204', VRA_TARGET: 'raw' })
  t.notOk(
    Object.keys(site.environments[0] ?? {}).some(name => /^(AWS_|npm_|VRA_S3)/.test(name)),
    'no secrets',
  )
  t.strictSame(world.created, [], 'nothing is left of it')
  t.match(drills.ofVpg(entry), {
    ...{ proven: { checkpoint: '3.1204' }, last: { drill: { by: 'schedule', outcome: 'passed' } } },
    waitsBecause: undefined,
  })
  site.answer = Promise.resolve({ outcome: 'failed', exitStatus: 4 })
  await site.pass(hourMillis)
  t.ok(await site.ended(2))
  t.match(drills.ofVpg(entry), { proven: { checkpoint: '3.1204' }, last: { drill: { outcome: 'failed' } } })
})

t.test('none is begun beside a recovery, and one that is under way gives way; it is made afterwards', async t => {
  const site = opened(t, { when: { everyMillis: hourMillis }, check: 'fsck' })
  const { world, drills, entry, engine } = site
  const first = await site.person()
  await site.pass(2 * hourMillis)
  t.strictSame(site.outcomes, [])
  t.match(
    drills.ofVpg(entry).waitsBecause,
    new RegExp(`recovery ${first}, a failover of .*, is ready: .*\\(vra recover commit or rollback\\)`),
  )
  await t.rejects(drills.start({ ...request, check: { configured: 'fsck' } }, entry), { code: 'BUSY' })
  await engine.decide(first, 'rollback')
  t.ok(await site.ended(1))

  site.answer = new Promise(() => undefined)
  await site.pass(70_000)
  t.ok(await world.until(() => site.checksUnderWay === 1, 0), 'it is begun when nobody is there')
  const second = await site.person()
  t.ok(await world.until(() => site.outcomes[0] === 'gave-way', 0))
  t.ok(await world.until(() => site.checksUnderWay === 0, 0), 'its check is ended')
  t.ok(await world.until(() => engine.get(second).record.state === 'ready', 0))
  site.answer = Promise.resolve({ outcome: 'passed' })
  await site.pass(70_000)
  t.strictSame(site.outcomes, ['gave-way'])
  await engine.decide(second, 'rollback')
  t.ok(await site.ended(3))
  await site.pass(70_000)
  t.ok(await site.ended(4), 'it is not given up')
  t.strictSame(site.outcomes, ['gave-way', 'passed'])
})

t.test('one that is being begun gives way, too', async t => {
  const site = opened(t)
  site.answer = new Promise(() => undefined)
  const starting = site.drills.start({ ...request, check: { configured: 'fsck' } }, site.entry)
  await site.person()
  await starting
  t.ok(await site.world.until(() => site.outcomes[0] === 'gave-way', 0))
})

t.test('a client checks by itself, and tells in time', async t => {
  const site = opened(t)
  const { world, drills, entry } = site
  const check = { command: 'look at it', timeoutMillis: 60_000 }
  const begun = await drills.start({ ...request, check }, entry)
  await t.rejects(drills.start({ ...request, check }, entry), { code: 'BUSY', message: new RegExp(begun.id) })
  await world.until(() => world.record(begun.id)?.state === 'ready', 0)
  await drills.report(begun.id, { outcome: 'failed', exitStatus: 1, output: 'a hole' })
  t.match(world.record(begun.id)?.drill, {
    ...{ by: 'person', check: 'look at it', checkedBy: 'client' },
    result: { outcome: 'failed', exitStatus: 1, output: 'a hole' },
  })
  t.ok(await site.ended(1))
  t.strictSame(site.environments, [], 'this process has run nothing')

  const late = await drills.start({ ...request, check }, entry)
  await world.until(() => world.record(late.id)?.state === 'ready', 0)
  await site.pass(61_000)
  t.ok(await site.ended(2))
  await t.rejects(drills.report(late.id, { outcome: 'passed' }), { code: 'BUSY', message: /timed-out already/ })
  t.strictSame(site.outcomes, ['failed', 'timed-out'])
})

t.test('what cannot be recovered is not proven, and why is known', async t => {
  const site = opened(t)
  site.world.failing.set('create 2', { count: 1000, failure: new Failure('DISK_FAILED', 'the disk is full') })
  const { id } = await site.drills.start({ ...request, check: { configured: 'fsck' } }, site.entry)
  t.ok(await site.ended(1))
  t.match(site.world.record(id), { drill: { result: { outcome: 'not-recovered' } }, failure: { code: 'DISK_FAILED' } })
  t.strictSame(site.environments, [])
})

t.test('a process that ends within one leaves it to the next, which removes it', async t => {
  const site = opened(t)
  site.answer = new Promise(() => undefined)
  await site.drills.start({ ...request, check: { configured: 'fsck' } }, site.entry)
  await site.world.until(() => site.checksUnderWay === 1, 0)
  await site.stop()
  t.equal(site.checksUnderWay, 0, 'its check is ended')
  t.strictSame(site.outcomes, [undefined])
  site.start()
  t.ok(await site.ended(1))
  t.strictSame(site.outcomes, ['interrupted'])
  t.strictSame(site.world.created, [])
})

t.test('only what the configuration has is run', async t => {
  const site = opened(t)
  const { drills, entry } = site
  await t.rejects(drills.start({ ...request, check: { configured: 'rm -rf /' } }, entry), {
    ...{ code: 'NOT_FOUND', message: /it has fsck$/ },
  })
  const asked = { everyMillis: hourMillis, check: 'other', target: 'nbd', settings: {} } as const
  t.throws(() => drills.schedule(entry, asked), { code: 'NOT_FOUND' })
  t.match(drills.schedule(entry, { ...asked, check: 'fsck' }), { when: { everyMillis: hourMillis } })
  t.equal(drills.schedule(entry, null), null)
})
