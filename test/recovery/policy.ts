import t from 'tap'
import { policyNoticeMillis } from '../../src/base/limits.ts'
import type { Recoveries } from '../../src/recovery/recovery.ts'
import type { CommitPolicy, RecoveryKind } from '../../src/timeline/recovery.ts'
import { orderOf, RecoveryWorld } from '../support/recovery-world.ts'

// When a commit policy takes effect: by a clock that nobody sets, and never before people could see that it is about to.

const never = new AbortController().signal
const hourMillis = 3_600_000

async function ready(world: RecoveryWorld, kind: RecoveryKind, commitPolicy: CommitPolicy) {
  const engine = world.start()
  const { id } = (await engine.start(orderOf(kind, { commitPolicy }), never)).record
  await world.until(() => world.record(id)?.state === 'ready', 0)
  return { engine, id }
}

/** Whatever is due has begun. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 50; turn++) await new Promise(resolve => setImmediate(resolve))
}

async function passes(world: RecoveryWorld, millis: number): Promise<void> {
  await world.clock.advance(millis)
  await settle()
}

/** As it is shown. */
function policyOf(world: RecoveryWorld, engine: Recoveries, id: string) {
  const { policy } = engine.get(id)
  if (policy === undefined) return undefined
  return { inMillis: (policy.atMicros - world.clock.timestampMicros()) / 1000, isPutOff: policy.isPutOff }
}

t.test('a policy whose time passed while no process was there leaves people the time to say otherwise', async t => {
  for (const [kind, end] of [
    ['rollback', 'removed'],
    ['commit', 'committed'],
  ] as const) {
    const world = new RecoveryWorld()
    const first = await ready(world, 'failover', { kind, afterMillis: hourMillis })
    t.strictSame(policyOf(world, first.engine, first.id), { inMillis: hourMillis, isPutOff: false })
    await first.engine.close()
    await world.clock.jump(9 * hourMillis)
    const engine = world.start()
    await settle()
    t.strictSame(policyOf(world, engine, first.id), { inMillis: policyNoticeMillis, isPutOff: true })
    await passes(world, policyNoticeMillis - 1)
    t.equal(world.record(first.id)?.state, 'ready', kind)
    await passes(world, 2)
    t.ok(await world.until(() => world.record(first.id)?.state === end), kind)
    t.equal(policyOf(world, engine, first.id), undefined)
    await engine.close()
  }
})

t.test('what a person decides meanwhile is what happens', async t => {
  const world = new RecoveryWorld()
  const first = await ready(world, 'failover', { kind: 'rollback', afterMillis: hourMillis })
  await first.engine.close()
  await world.clock.jump(9 * hourMillis)
  const engine = world.start()
  await settle()
  const deciding = engine.decide(first.id, 'commit')
  t.ok(await world.until(() => world.record(first.id)?.state === 'committed'))
  await deciding
  await engine.close()
})

t.test('a wait that has not passed is what is left of it, a short one begins anew', async t => {
  for (const [afterMillis, awayMillis, expected] of [
    [hourMillis, hourMillis / 2, { inMillis: hourMillis / 2, isPutOff: false }],
    [hourMillis, hourMillis - 60_000, { inMillis: policyNoticeMillis, isPutOff: true }],
    [60_000, 30_000, { inMillis: 60_000, isPutOff: true }],
  ] as const) {
    const world = new RecoveryWorld()
    const first = await ready(world, 'test', { kind: 'rollback', afterMillis })
    await first.engine.close()
    await world.clock.jump(awayMillis)
    const engine = world.start()
    await settle()
    t.strictSame(policyOf(world, engine, first.id), expected)
    await engine.close()
  }
})

t.test('a clock that is set neither ends a wait nor lengthens it', async t => {
  for (const setByMicros of [48 * 3600e6, -48 * 3600e6]) {
    const world = new RecoveryWorld()
    const { engine, id } = await ready(world, 'test', { kind: 'rollback', afterMillis: hourMillis })
    await settle()
    const { clock } = world
    const before = clock.timestampMicros.bind(clock)
    clock.timestampMicros = () => before() + setByMicros
    await passes(world, hourMillis - 1)
    t.equal(world.record(id)?.state, 'ready')
    await passes(world, 2)
    t.ok(await world.until(() => world.record(id)?.state === 'removed'))
    await engine.close()
  }
})

t.test('whatever a clock says that was set back while no process was there, it is no longer than a wait', async t => {
  const world = new RecoveryWorld()
  const first = await ready(world, 'test', { kind: 'rollback', afterMillis: hourMillis })
  await first.engine.close()
  const { clock } = world
  const before = clock.timestampMicros.bind(clock)
  clock.timestampMicros = () => before() - 48 * 3600e6
  const engine = world.start()
  await settle()
  t.strictSame(policyOf(world, engine, first.id), { inMillis: hourMillis, isPutOff: false })
  await engine.close()
})
