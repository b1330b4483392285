import * as fs from 'node:fs'
import t, { type Test } from 'tap'
import { play } from './scenario-play.ts'
import { begin, Machines, RawStage, untilState, type Mark } from './scenario-recovery.ts'
import { freePort } from './scenario-role.ts'
import { Scenario } from './scenario-site.ts'

// See scenario-play.ts; `npm run soak:recover`.

t.test('as files; drills', async t => {
  const waits = `'exec tail --pid=$PPID -f /dev/null'` // as long as the daemon
  const checks = `drillChecks: [{ name: waits, command: ${waits} }]`
  const scenario = await Scenario.make(t, { more: [checks, `live: { port: ${await freePort()} }`] })
  const machines = await Machines.start(scenario)
  const stage = new RawStage(scenario)
  await play(t, { machines, stage, first: mark => drills(t, scenario, mark) })
  const listed = await scenario.cli('recoveries')
  t.equal(listed.stdout.trim().split('\n').length, 7, 'all are remembered, but for drills')
})

/** By the command, which has its own check; and one of the daemon's, which is killed within it. */
async function drills(t: Test, scenario: Scenario, { disks }: Mark): Promise<void> {
  const reference = scenario.file('reference')
  fs.writeFileSync(reference, disks.get('app-root') ?? '')
  const directory = scenario.file('drill')
  fs.mkdirSync(directory)
  const to = ['--target', 'raw', '--to', directory]
  const check = `test "$VRA_CHECKPOINT" && cmp "$VRA_FILE_app_root" ${reference}`
  const passed = await scenario.cli('drill', 'web', '--checkpoint', 'older', '--check', check, ...to)
  t.equal(passed.status, 0, passed.stderr)
  t.match(passed.stdout, /: passed after /)
  t.strictSame(fs.readdirSync(directory), [])
  const { drills: proven } = await scenario.vpg('web')
  t.equal(proven.proven?.checkpoint, (await scenario.control.findCheckpoint('web', 'older')).checkpoint)

  const asked = { vpg: 'web', checkpoint: 'latest', target: 'raw', settings: { directory } } as const
  const begun = await scenario.control.startDrill({ ...asked, check: { configured: 'waits' } })
  await untilState(scenario, begun, 'ready')
  await scenario.vra?.kill()
  await scenario.startVra()
  const ended = await untilState(scenario, begun, 'removed')
  t.match(ended.drill, { outcome: 'interrupted', by: 'person', checkedBy: 'daemon' })
  t.strictSame(fs.readdirSync(directory), [])
  t.strictSame((await scenario.vpg('web')).drills.proven, proven.proven, 'what was proven stays so')

  // Whoever recovers is not kept waiting by a drill, and not disturbed.
  const another = await scenario.control.startDrill({ ...asked, check: { configured: 'waits' } })
  await untilState(scenario, another, 'ready')
  const mine = await begin(scenario, { kind: 'test', target: 'nbd', settings: {} })
  t.equal((await untilState(scenario, another, 'removed')).drill?.outcome, 'gave-way')
  await scenario.control.decideRecovery((await untilState(scenario, mine, 'ready')).id, 'stop')
  await untilState(scenario, mine, 'removed')
}
