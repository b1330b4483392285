import * as fs from 'node:fs'
import t, { type Test } from 'tap'
import { play } from './scenario-play.ts'
import { begin, Machines, RawStage, untilState, type Mark } from './scenario-recovery.ts'
import { freePort } from './scenario-role.ts'
import { Scenario } from './scenario-site.ts'

// See scenario-play.ts; `npm run soak:recover`.

t.test('as files; what cannot be is said before anything is created; drills', async t => {
  const waits = `'exec tail --pid=$PPID -f /dev/null'` // as long as the daemon
  const checks = `drillChecks: [{ name: waits, command: ${waits} }]`
  const scenario = await Scenario.make(t, { more: [checks, `live: { port: ${await freePort()} }`] })
  const machines = await Machines.start(scenario)
  const stage = new RawStage(scenario)
  const first = async (mark: Mark): Promise<void> => {
    await refusals(t, scenario)
    await drills(t, scenario, mark)
  }
  await play(t, { machines, stage, first })
  const listed = await scenario.cli('recoveries')
  t.equal(listed.stdout.trim().split('\n').length, 8, 'all are remembered, but for drills')
})

async function refusals(t: Test, scenario: Scenario): Promise<void> {
  const directory = scenario.file('refused')
  fs.mkdirSync(directory)
  const test = { kind: 'test', target: 'raw', settings: { directory } } as const
  const refused = async (code: string, message: RegExp, request: Parameters<typeof begin>[1]): Promise<void> => {
    await t.rejects(begin(scenario, { ...test, ...request }), { code, message })
    t.strictSame(fs.readdirSync(directory), ['db-db-root.raw'])
  }
  fs.writeFileSync(`${directory}/db-db-root.raw`, 'mine')
  const gone = /no recoverable checkpoint for "9\.9": the nearest that are kept are/
  await refused('CHECKPOINT_MISSING', gone, { checkpoint: '9.9' })
  await refused('CHECKPOINT_MISSING', /the oldest is/, { checkpoint: '90d ago' })
  await refused('UNKNOWN_VOLUME', /has no volume "logs"; it has app-root, app-data, db-/, { volumes: ['logs'] })
  await refused('REQUEST_INVALID', /no volume of a machine "db9"; it has app, db/, { vms: ['db9'] })
  await refused('ALREADY_EXISTS', /db-db-root\.raw exists/, { kind: 'clone' })
  await refused('REQUEST_INVALID', /there is no directory/, { settings: { directory: `${directory}/none` } })
  await refused('REQUEST_INVALID', /the VRA's own files/, { settings: { directory: scenario.dataDirectory } })
  await refused('REQUEST_INVALID', /needs a directory \(--to\)/, { settings: {} })
  await refused('REQUEST_INVALID', /is not set up for the target aws/, { target: 'aws' })
  t.equal(fs.readFileSync(`${directory}/db-db-root.raw`, 'utf8'), 'mine')
  const asked = ['recover', 'clone', 'web', '--vm', 'app', '--target', 'raw', '--to', directory]
  const planned = await scenario.cli(...asked, '--checkpoint', 'older', '--plan')
  t.equal(planned.status, 0, planned.stderr)
  t.match(planned.stdout, /^volume\tapp app-data, 4 MiB, up to .* of it data$/m)
  t.equal(fs.readdirSync(directory).length, 1)
  const one = await scenario.cli(...asked)
  t.equal(one.status, 0, one.stderr)
  t.match(one.stdout, /^state\tcommitted$/m)
  t.strictSame(fs.readdirSync(directory).sort(), ['app-app-data.raw', 'app-app-root.raw', 'db-db-root.raw'])
}

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
