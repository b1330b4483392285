import * as fs from 'node:fs'
import type { Test } from 'tap'
import { MiB } from '../../src/base/units.ts'
import type { RecoveryFacts } from '../../src/control/service.ts'
import { begin, RawStage, untilState, type Machines, type Mark, type Stage } from './scenario-recovery.ts'
import type { Scenario } from './scenario-site.ts'
import { syncEnds, untilAgent } from './scenario-sync.ts'

// Two machines with two disks each under load, and a database on one of them, through all that may become of them: a test at an older checkpoint, while the daemon is
// killed at the worst moments; a failover that is rolled back, and one that is committed; protected where they run then; a move home, on second
// thoughts first. On every target. At every step every disk is byte for byte what it was; after a stop or a rollback nothing is left.

export interface Play {
  readonly machines: Machines
  readonly stage: Stage
  /** Until the right moment of its preparation to kill the daemon. */
  readonly midway?: () => Promise<unknown>
  /** With the test that is ready, at this mark, and after one more kill of the daemon. */
  readonly use?: (facts: RecoveryFacts, mark: Mark) => Promise<Mark>
  /** Before anything has begun. */
  readonly first?: (mark: Mark) => Promise<void>
}

/** However it ends, nothing is mounted any more when the agents that serve it end. */
export async function play(t: Test, parts: Play): Promise<void> {
  try {
    await acts(t, parts)
  } finally {
    await parts.machines.close()
  }
}

async function acts(t: Test, { machines, stage, midway, use, first }: Play): Promise<void> {
  const { scenario } = machines
  const { control } = scenario
  const ask = (request: Parameters<typeof begin>[1]): Promise<RecoveryFacts> =>
    begin(scenario, { target: stage.target, settings: stage.settings(), ...request })
  const restarted = async (): Promise<void> => {
    await scenario.vra?.kill()
    await scenario.startVra()
  }

  t.pass('a database is on one of the disks', { skip: machines.withoutDatabase })
  const older = await machines.mark('older')
  await first?.(older)

  // A test at the older checkpoint, beside machines that write.
  const test = await ask({ kind: 'test', checkpoint: 'older' })
  await midway?.()
  await restarted()
  const shown = await untilState(scenario, test, 'ready')
  await machines.compare(t, stage, shown, older)
  const used = (await use?.(shown, older)) ?? older
  await t.rejects(control.deleteVpg('web'), { code: 'BUSY', message: new RegExp(test.id) })
  await restarted()
  await machines.compare(t, stage, await untilState(scenario, test, 'ready'), used)
  await control.decideRecovery(test.id, 'stop')
  t.strictSame(await stage.left(await untilState(scenario, test, 'removed')), [], 'nothing of the test is left')
  t.strictSame(machines.failures, [], 'no guest has noticed any of it')

  // To the latest: there, back again, and there for good.
  await machines.endDatabase()
  const last = await machines.mark('last')
  await machines.rest()
  const rolledBack = await ask({ checkpoint: 'last' })
  await machines.compare(t, stage, await untilState(scenario, rolledBack, 'ready'), last)
  const second = `recovery ${rolledBack.id}, a failover of web, is ready: commit it or roll it back first`
  await t.rejects(ask({ checkpoint: 'latest' }), { code: 'BUSY', message: new RegExp(second) })
  await t.rejects(control.decideRecovery(rolledBack.id, 'stop'), { code: 'REQUEST_INVALID' })
  await control.decideRecovery(rolledBack.id, 'rollback')
  t.strictSame(await stage.left(await untilState(scenario, rolledBack, 'removed')), [], 'nor of the rollback')
  const failover = await ask({ checkpoint: 'last' })
  t.ok(((await untilState(scenario, failover, 'ready')).rtoMillis ?? 0) > 0)
  await control.decideRecovery(failover.id, 'commit')
  const kept = await untilState(scenario, failover, 'committed')
  await machines.compare(t, stage, kept, last)
  const twice = { code: 'REQUEST_INVALID', message: /was committed at .*: what it recovered is kept/ }
  await t.rejects(control.decideRecovery(failover.id, 'commit'), twice)
  t.equal((await scenario.vpg('web')).incarnation, 2)
  const refused = await untilAgent(machines.agent, 'the old disks are refused', ({ refusal }) => refusal !== undefined)
  t.match(refused.refusal, { code: 'IDENTITY_REFUSED', sentence: /incarnation 2/ })

  // Protected where they run: only what differs is sent, which is what was written after the checkpoint.
  await machines.runOn(stage, kept, 'away')
  const ends = syncEnds(machines.agent)
  t.strictSame(
    ends.map(({ kind }) => kind),
    ['delta', 'delta', 'delta', 'delta'],
  )
  t.ok(
    ends.every(({ sentBytes }) => sentBytes <= 2 * MiB),
    'guests have written nowhere else',
  )
  await machines.boot()
  const abroad = await machines.mark('abroad')
  await exportsAre(t, scenario, abroad)
  t.equal((await control.findCheckpoint('web', 'older')).tags?.[0], 'older', 'history goes on')

  // Home, while they write: writes end, and none that was answered is lost.
  const home = new RawStage(scenario)
  const move = (): Promise<RecoveryFacts> =>
    begin(scenario, { kind: 'move', target: home.target, settings: home.settings() })
  const regretted = await untilState(scenario, await move(), 'ready')
  await machines.rest()
  t.match(machines.failures, [/failed: 1$/, /failed: 1$/, /failed: 1$/, /failed: 1$/], 'guests are refused')
  await machines.compare(t, home, regretted, { tag: 'moved', disks: machines.disks(), acknowledged: 0 })
  t.match((await scenario.vpg('web')).quiescedBy, regretted.id)
  await control.decideRecovery(regretted.id, 'rollback')
  t.strictSame(await home.left(await untilState(scenario, regretted, 'removed')), [])
  await untilAgent(machines.agent, 'guests write again', ({ quiescedBy }) => quiescedBy === '')
  await machines.boot()
  await machines.mark('stayed')
  const moved = await untilState(scenario, await move(), 'ready')
  await machines.rest()
  await machines.compare(t, home, moved, { tag: 'moved', disks: machines.disks(), acknowledged: 0 })
  await control.decideRecovery(moved.id, 'commit')
  const there = await untilState(scenario, moved, 'committed')
  const left = await untilAgent(machines.agent, 'it is refused', ({ refusal }) => refusal !== undefined)
  t.equal(left.quiescedBy, moved.id, 'and its disks stay as they are')
  await machines.runOn(home, there, 'home')
  t.strictSame(
    syncEnds(machines.agent).map(({ kind, sentBytes }) => ({ kind, sentBytes })),
    Array.from({ length: 4 }, () => ({ kind: 'delta', sentBytes: 0 })),
    'the VRA has it all',
  )
  await machines.boot()
  await exportsAre(t, scenario, await machines.mark('home'))
  await machines.rest()
  t.strictSame(machines.failures, [])
}

/** What is protected is what the disks are. */
async function exportsAre(t: Test, scenario: Scenario, { tag, disks }: Mark): Promise<void> {
  const exported = async (volume: string, expected: Buffer): Promise<void> => {
    const file = await scenario.exported('web', volume, tag)
    t.ok(fs.readFileSync(file).equals(expected), `${volume} at "${tag}"`)
    fs.rmSync(file)
  }
  await Promise.all([...disks].map(([volume, expected]) => exported(volume, expected)))
}
