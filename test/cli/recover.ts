import t from 'tap'
import { openControl } from '../support/control-open.ts'

// Recovering, as somebody does who is afraid: what will happen is told before it does, what went wrong afterwards, and what to do next always.

t.jobs = 2

const raw = ['--target', 'raw', '--to', '/srv/look'] as const

t.test('--plan says what it would do, and does nothing', async t => {
  const { vra, vraCommand } = await openControl(t)
  const [vpg] = [...vra.vpgs.keys()]
  const planned = await vraCommand('recover', 'test', String(vpg), ...raw, '--plan')
  t.equal(planned.status, 0, planned.stderr)
  t.match(planned.stdout, new RegExp(`^what\ttest of ${vpg} to raw$`, 'm'))
  t.match(planned.stdout, /^checkpoint\t3\.\d+.* old$/m)
  t.match(planned.stdout, /^volume\thost1 \S+, .* of it data$/m)
  t.match(planned.stdout, /^to copy\tup to .*, about 1 min 30 s$/m)
  t.match(planned.stdout, /^when it is ready\tit waits until it is stopped$/m)
  t.match(planned.stdout, /^note\tit writes sparse files/m)
  t.equal(vra.recoveryJobs.size, 0)
  const json = await vraCommand('recover', 'test', String(vpg), ...raw, '--plan', '--json')
  t.match(JSON.parse(json.stdout), { vpg, kind: 'test', target: 'raw', settings: { directory: '/srv/look' } })
})

t.test('a failover is begun, watched until it is ready, and committed; what to do next is told', async t => {
  const { vra, vraCommand } = await openControl(t)
  const [vpg = ''] = [...vra.vpgs.keys()]
  const policy = ['--commit-policy', 'rollback', '--after', '60min']
  const begun = await vraCommand('recover', 'failover', vpg, ...raw, ...policy, '--yes')
  t.equal(begun.status, 0, begun.stderr)
  t.match(begun.stderr, /^when it is ready +it is rolled back after 1 h, unless somebody says otherwise$/m)
  t.match(begun.stdout, /^state\tready (now|.+ ago)/m)
  t.match(begun.stdout, /^ready after\t1 min 1 s$/m)
  t.match(begun.stdout, /^file\thost1 root: \/srv\/look\/host1-root\.raw$/m)
  t.match(begun.stderr, /"vra recover commit r-1" keeps it, "vra recover rollback r-1" removes it again/)
  const [planned, started] = vra.recoveryRequests
  t.match(started, { commitPolicy: { kind: 'rollback', afterMillis: 3_600_000 } })
  t.equal(planned?.checkpoint, 'latest')
  t.match(started?.checkpoint, /^3\.\d+$/, 'what was shown is what is done')

  const listed = await vraCommand('recoveries')
  t.match(listed.stdout, /^r-1\tfailover\t/m)
  const committed = await vraCommand('recover', 'commit', 'r-1', '--json')
  t.equal(committed.status, 0, committed.stderr)
  t.match(JSON.parse(committed.stdout), { id: 'r-1', state: 'committed' })
  const again = await vraCommand('recover', 'commit', 'r-1')
  t.equal(again.status, 2)
  t.match(again.stderr, /r-1 was committed/)
  t.equal((await vraCommand('recoveries', 'show', 'r-9')).status, 3)
  t.match((await vraCommand('recoveries', 'r-1')).stdout, /^state\tcommitted$/m, 'without "show", too')
})

t.test('one that is undone says why, with the status of its reason', async t => {
  const { vra, vraCommand } = await openControl(t)
  const [vpg = ''] = [...vra.vpgs.keys()]
  vra.recoveryFailure = { code: 'DISK_FAILED', sentence: 'the file system is full', details: {} }
  const undone = await vraCommand('recover', 'test', vpg, ...raw)
  t.equal(undone.status, 4)
  t.match(undone.stderr, /recovery r-1 was undone, and nothing of it is left: the file system is full/)
  t.match(undone.stdout, /^why\tthe file system is full$/m)
})

t.test('what cannot be meant is refused before anything is asked of the daemon', async t => {
  const { vra, vraCommand } = await openControl(t)
  const [vpg = ''] = [...vra.vpgs.keys()]
  t.match(await vraCommand('recover', 'test', vpg), { status: 2, stderr: /--target/ })
  t.match(await vraCommand('recover', 'test', vpg, ...raw, '--commit-policy', 'commit'), {
    status: 2,
    stderr: /none, rollback/,
  })
  t.match(await vraCommand('recover', 'move', vpg, ...raw, '--checkpoint', '3.1'), {
    status: 2,
    stderr: /--checkpoint/,
  })
  t.match(await vraCommand('recover', 'clone', vpg, ...raw, '--commit-policy', 'commit'), { status: 2 })
  t.equal(vra.recoveryRequests.length, 0)
  const later = await vraCommand('recover', 'failover', vpg, ...raw, '--after', '1ms')
  t.equal(later.status, 0, later.stderr)
  const missing = await vraCommand('recover', 'test', vpg, ...raw, '--checkpoint', 'no-such-tag')
  t.equal(missing.status, 3)
})

t.test('a drill is checked here, and its status says whether it has passed', async t => {
  const { vra, vraCommand } = await openControl(t)
  const [vpg = ''] = [...vra.vpgs.keys()]
  const passed = await vraCommand('drill', vpg, '--check', 'test "$VRA_FILE_root" = /srv/look/host1-root.raw')
  t.equal(passed.status, 0, passed.stderr)
  t.match(passed.stdout, /^check\ttest .*: passed after /m)
  const failed = await vraCommand('drill', vpg, '--check', 'echo no file system; exit 8', '--json')
  t.equal(failed.status, 7, failed.stderr)
  t.match(failed.stderr, /^no file system$/m)
  t.match(JSON.parse(failed.stdout), { drill: { outcome: 'failed', exitStatus: 8, output: 'no file system\n' } })
  const listed = await vraCommand('drill', 'list', vpg)
  t.match(listed.stdout, /^r-2\t3\.\d+\t.*\tfailed\techo no file system; exit 8: failed with exit status 8/m)
  t.match(await vraCommand('drill', vpg), { status: 2, stderr: /--check COMMAND/ })
  t.match(await vraCommand('drill', vpg, '--named', 'other'), { status: 3 })
  t.match(await vraCommand('drill', vpg, '--named', 'fsck', '--check', 'true'), { status: 2 })
})

t.test('drills are scheduled, by an interval or a time of the day', async t => {
  const { vra, vraCommand } = await openControl(t)
  const [vpg = ''] = [...vra.vpgs.keys()]
  const to = ['--target', 'raw', '--to', '/srv/drills']
  const at = await vraCommand('drill', 'schedule', vpg, '--check', 'fsck', '--at', '03:30', ...to)
  t.equal(at.status, 0, at.stderr)
  t.match(at.stdout, /^schedule\tfsck to raw daily at 03:30 UTC, /m)
  const { schedule } = (await vra.showVpg(vpg)).drills
  t.match(schedule, { minuteOfDay: 210, settings: { directory: '/srv/drills' }, target: 'raw' })
  const every = await vraCommand('drill', 'schedule', vpg, '--check', 'fsck', '--every', '6h')
  t.match(every.stdout, /^schedule\tfsck to nbd every 6 h, /m)
  t.match((await vraCommand('vpg', 'show', vpg)).stdout, /^proven\tnone yet$/m)
  t.equal((await vraCommand('drill', 'unschedule', vpg)).status, 0)
  t.equal((await vra.showVpg(vpg)).drills.schedule, undefined)
  for (const when of [[], ['--every', '1m'], ['--at', '24:00'], ['--at', '3:30', '--every', '6h']])
    t.equal((await vraCommand('drill', 'schedule', vpg, '--check', 'fsck', ...when)).status, 2, when.join(' '))
})

t.test('settings of a target lie within one another', async t => {
  const { vra, vraCommand } = await openControl(t)
  const [vpg = ''] = [...vra.vpgs.keys()]
  const set = (...pairs: readonly string[]): string[] => pairs.flatMap(pair => ['--set', pair])
  const aws = ['recover', 'failover', vpg, '--target', 'aws', '--yes', '--no-wait'] as const
  const begun = await vraCommand(
    ...aws,
    ...set('machine.subnet=subnet-1', 'machine.securityGroups=["sg-1"]', 'volumes.iops=4000'),
  )
  t.equal(begun.status, 0, begun.stderr)
  t.same(vra.recoveryRequests.at(-1)?.settings, {
    machine: { subnet: 'subnet-1', securityGroups: ['sg-1'] },
    volumes: { iops: 4000 },
  })
  const twice = await vraCommand(...aws, ...set('machine=none', 'machine.subnet=subnet-1'))
  t.not(twice.status, 0)
  t.match(twice.stderr, /"machine" has a value already/)
  t.match(await vraCommand(...aws, ...set('a.__proto__.b=1')), { status: 2 })
})

t.test('a volume may say of which machine it is', async t => {
  const { vra, vraCommand } = await openControl(t)
  const created = await vraCommand(
    'vpg',
    'create',
    'erp',
    '--volume',
    'db1/data=1GiB',
    '--volume',
    'kvm1:app=1GiB',
    '--agent',
    'kvm1',
  )
  t.equal(created.status, 0, created.stderr)
  t.match((await vra.showVpg('erp')).volumes, [
    { name: 'data', vm: 'db1' },
    { name: 'app', agent: 'kvm1', vm: 'kvm1' },
  ])
})
