import { readFileSync, statSync, writeFileSync } from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { Failure } from '../../src/base/failure.ts'
import { GiB, TiB } from '../../src/base/units.ts'
import { runCli, startCli, type Ended } from '../support/cli-run.ts'
import { nowMicros } from '../support/control-fake.ts'
import { openControl } from '../support/control-open.ts'

t.jobs = 2

t.test('a group is created, listed, shown, changed and deleted', async t => {
  const { vra, vraCommand } = await openControl(t)
  const create = [
    'vpg',
    'create',
    'db',
    '--volume',
    'disk0=2TiB',
    '--volume',
    'log=40GiB',
    '--agent',
    'dbhost',
    '--history',
    '7d',
    '--interval',
    '10s',
  ]
  const created = await vraCommand(...create)
  t.equal(created.status, 0, created.stderr)
  t.match(created.stdout, /^vpg\tdb$/m)
  t.match(
    created.stderr,
    /vra protect --vpg db --agent dbhost --disk disk0=PATH/,
    'what to do next is not part of the output',
  )
  const shown = await vra.showVpg('db')
  t.match(shown, { historyMillis: 7 * 86_400_000, checkpointIntervalMillis: 10_000 })
  t.strictSame(
    shown.volumes.map(volume => volume.sizeBytes),
    [2 * TiB, 40 * GiB],
  )

  t.equal((await vraCommand(...create)).status, 2, 'a name that is taken is refused')
  const list = await vraCommand('vpg', 'list')
  t.match(list.stdout.split('\n')[0], /^VPG\tSTATE\tRPO\t/)
  t.match(list.stdout, /^erp-database\tneeds-sync\t23 min 22 s\t9,000\t/m)
  t.equal(((await vraCommand('vpg', 'list', '--json')).stdout.match(/"state"/g) ?? []).length >= 4, true)

  t.equal((await vraCommand('vpg', 'change', 'db', '--retention', 'all:1h,10m:2d')).status, 0)
  const { historyMillis, retention } = await vra.showVpg('db')
  t.same(
    { historyMillis, retention },
    {
      historyMillis: 172_800_000,
      retention: [
        { everyMillis: 0, forMillis: 3_600_000 },
        { everyMillis: 600_000, forMillis: 172_800_000 },
      ],
    },
  )
  t.match((await vraCommand('vpg', 'change', 'db', '--retention', '1m:2d')).stderr, /must begin with a time for which/)
  t.equal((await vraCommand('vpg', 'change', 'db', '--history', '1h')).status, 0)
  t.equal((await vra.showVpg('db')).historyMillis, 3_600_000)
  const limits = ['--journal-warn', '30GiB', '--journal-limit', '40GiB']
  t.equal((await vraCommand('vpg', 'change', 'db', ...limits)).status, 0)
  t.match((await vraCommand('vpg', 'show', 'db')).stdout, /^journal\t.* of at most 40 GiB, warns at 30 GiB$/m)
  t.equal((await vraCommand('vpg', 'change', 'db', '--journal-warn', 'none')).status, 0)
  t.match(await vra.showVpg('db'), { journalWarnSizeBytes: 0, journalLimitSizeBytes: 40 * GiB })
  t.equal((await vraCommand('vpg', 'change', 'db', '--sync-over-limit', 'go-on')).status, 0)
  t.match(await vra.showVpg('db'), { syncMayPassLimit: true })
  t.equal((await vraCommand('vpg', 'change', 'db', '--sync-over-limit', 'perhaps')).status, 2)
  const [volume] = (await vra.showVpg('db')).volumes
  const [key, other] = ['1', '2'].map(id => `arn:aws:kms:eu-central-1:111122223333:key/${id}`) as [string, string]
  const keys = ['--snapshot-key', key, '--snapshot-key', `${volume!.name}=${other}`]
  t.equal((await vraCommand('vpg', 'change', 'db', ...keys)).status, 0)
  t.strictSame((await vra.showVpg('db')).snapshotKeys, { all: key, volumes: { [volume!.name]: other } })
  t.match((await vraCommand('vpg', 'show', 'db')).stdout, new RegExp(`^snapshot key\t${volume!.name}: ${other}$`, 'm'))
  t.match((await vraCommand('vpg', 'change', 'db', '--snapshot-key', 'alias/mine')).stderr, /ARN of a key of KMS/)
  t.match((await vraCommand('vpg', 'change', 'db', ...keys, '--snapshot-key', 'none')).stderr, /stands alone/)
  t.equal((await vraCommand('vpg', 'change', 'db', '--snapshot-key', 'none')).status, 0)
  t.strictSame((await vra.showVpg('db')).snapshotKeys, { volumes: {} })
  const senseless = await vraCommand('vpg', 'change', 'db', '--journal-limit', '0%')
  t.equal(senseless.status, 2)
  t.match(senseless.stderr, /journalLimitSizeBytes/)
  const unasked = await vraCommand('vpg', 'delete', 'db')
  t.equal(unasked.status, 2)
  t.match(unasked.stderr, /give --yes/, 'nothing is deleted where nobody can be asked')
  const db = vra.vpgs.get('db')!
  const copies = [
    {
      volume: 'root',
      place: 'snap-1',
      checkpoint: '1.1',
      checkpointTimestampMicros: 0,
      putSizeBytes: 0,
      isWhole: true,
    },
  ]
  const kept = { intervalMillis: 1, state: 'waiting', ageMillis: 0, copies, trouble: 'no answer' } as const
  const standby = { ...kept, putSizeBytes: 0, advanceCount: 0, failureCount: 3 }
  db.status = { ...db.status, standby }
  t.match(await vraCommand('vpg', 'delete', 'db', '--yes'), { status: 4, stderr: /--force/ })
  const forced = (await vraCommand('vpg', 'delete', 'db', '--yes', '--force')).stdout
  t.match(forced, /^deleted db\nleft in AWS, and nobody's any more: snapshot snap-1 of root\n.*tag vra-standby=/)
  t.equal((await vraCommand('vpg', 'show', 'db')).status, 3)
})

t.test('the volumes of several agents; pause, rate and synchronisations', async t => {
  const { vra, vraCommand } = await openControl(t)
  const both = ['--agent', 'web1', '--agent', 'db1', '--volume', 'web1:root=40GiB', '--volume', 'db1:data=1TiB']
  const created = await vraCommand('vpg', 'create', 'shop', ...both)
  t.equal(created.status, 0, created.stderr)
  t.match(created.stderr, /peers\.listen.*\n.*--config FILE +# web1: root\n.*--config FILE +# db1: data$/m)
  t.match((await vra.showVpg('shop')).volumes, [{ agent: 'web1' }, { name: 'data', agent: 'db1', sizeBytes: TiB }])
  t.equal((await vraCommand('vpg', 'add-volume', 'shop', 'db1:log=8GiB')).status, 0)
  t.equal((await vraCommand('vpg', 'grow-volume', 'shop', 'log', '16GiB')).status, 0)
  t.match((await vra.showVpg('shop')).volumes.at(-1), { name: 'log', agent: 'db1', sizeBytes: 16 * GiB })
  t.equal((await vraCommand('vpg', 'remove-volume', 'shop', 'log')).status, 0)
  t.equal((await vra.showVpg('shop')).volumes.length, 2)
  t.equal((await vraCommand('vpg', 'pause', 'shop')).status, 0)
  t.equal((await vra.showVpg('shop')).paused, true)
  t.equal((await vraCommand('vpg', 'resume', 'shop')).status, 0)
  t.equal((await vra.showVpg('shop')).paused, false)
  t.equal((await vraCommand('vpg', 'change', 'shop', '--sync-rate', '50MiB')).status, 0)
  t.equal((await vra.showVpg('shop')).syncRateBytesPerSecond, 50 * 2 ** 20)
  t.equal((await vraCommand('sync', 'shop', '--volume', 'data', '--delta')).status, 0)
  t.same(vra.syncRequests, [{ vpg: 'shop', request: { kind: 'delta', volumes: ['data'] } }])
  t.equal((await vraCommand('sync', 'shop')).status, 2, 'how has to be said')
})

t.test('checkpoints are listed by page and time, tagged and untagged', async t => {
  const { vraCommand } = await openControl(t)
  const listed = await vraCommand('checkpoint', 'list', 'web', '--limit', '3')
  t.equal(listed.stdout.split('\n').length, 5, 'a heading, three lines, and the end')
  t.match(listed.stdout, /^3\.18279\t2026-03-29 02:14:58\.000Z\t/m)
  t.match(listed.stderr, /more: --after 3\.18277/)
  const many = JSON.parse((await vraCommand('checkpoint', 'list', 'web', '--limit', '2500', '--json')).stdout) as {
    checkpoints: unknown[]
    more: boolean
  }
  t.equal(many.checkpoints.length, 2500, 'more than a page of the API')
  t.equal(many.more, true)
  const span = await vraCommand(
    'checkpoint',
    'list',
    'web',
    '--from',
    '2026-03-29 01:00',
    '--to',
    '2026-03-29T01:00:30Z',
    '--oldest-first',
    '--json',
  )
  t.match(JSON.parse(span.stdout), { checkpoints: { length: 6 }, more: false })

  t.match((await vraCommand('checkpoint', 'tag', 'web', 'now-then')).stdout, /^checkpoint\t3\.18280$/m, 'a new one')
  t.equal((await vraCommand('checkpoint', 'tag', 'web', 'then', '--checkpoint', '3.18000')).status, 0)
  t.equal((await vraCommand('checkpoint', 'tag', 'web', 'then')).status, 2, 'a tag names one checkpoint')
  t.match((await vraCommand('checkpoint', 'list', 'web', '--tagged')).stdout, /\tthen$/m)
  t.equal((await vraCommand('checkpoint', 'untag', 'web', 'then')).stdout, 'untagged then\n')
  t.equal((await vraCommand('checkpoint', 'untag', 'web', 'then')).status, 3)
})

t.test('a timeline draws densities, forms and cost within 80 columns, and says whose prices these are', async t => {
  const { vra, vraCommand } = await openControl(t)
  await vraCommand('vpg', 'change', 'web', '--retention', 'all:4h,1m:2d,1h:14d,1d:30d')
  const drawn = await vraCommand('timeline', 'web')
  t.equal(drawn.status, 0, drawn.stderr)
  t.match(drawn.stdout, /^ {2}0 – 4 h +█{40} +2,881 {2}every one$/m)
  t.match(drawn.stdout, /^ {2}14 d – 30 d +·{40} +0 {2}1 in 1 d$/m)
  t.match(drawn.stdout, /No gaps/)
  t.match(drawn.stdout, /^ {2}storage .* × 0\.023 USD\/GiB +0\.00 USD$/m)
  t.match(drawn.stdout, /S3 Standard in us-east-1/)
  for (const line of drawn.stdout.split('\n')) t.ok(line.length <= 80, line)
  t.match(JSON.parse((await vraCommand('timeline', 'web', '--json')).stdout), { vpg: 'web', moreGaps: 0 })
  const all = (await vraCommand('timeline')).stdout.trimEnd().split('\n')
  t.equal(all.length, 1 + vra.vpgs.size)
  t.match(all[1], /^web\t1 d\t17,280\t0\t0\t0 B\t0\.00 USD$/)
  const failed = await vraCommand('timeline', 'nothing', '--json')
  t.match(failed, { status: 3, stdout: '' })
  t.match(JSON.parse(failed.stderr.trimEnd().split('\n').at(-1) ?? ''), {
    error: { code: 'UNKNOWN_VPG', sentence: /nothing/, exitStatus: 3 },
  })
  t.match(await vraCommand('timeline', 'nothing'), { status: 3, stderr: /^vra: .*nothing/ })
  const versions = await vraCommand('timeline', 'web', '--versions')
  t.match(versions.stdout, /^ {2}deltas +3 +5 GiB$/m)
  t.match(versions.stdout, /^ {2}in all +7 +8 GiB\n {2}0\.18 USD a month; and 7 markers of removals$/m)
  t.match(versions.stdout, /No lifecycle rule removes them/)
  for (const line of versions.stdout.split('\n')) t.ok(line.length <= 80, line)
  t.match(JSON.parse((await vraCommand('timeline', 'web', '--versions', '--json')).stdout), {
    versions: { versioning: 'kept' },
  })
  t.equal((await vraCommand('timeline', '--versions')).status, 2)
})

t.test('an export waits for its end and prints one document', async t => {
  const { vra, vraCommand } = await openControl(t)
  const directory = t.testdir()
  const exported = await runExport(vraCommand, path.join(directory, 'root.img'), '--json')
  t.equal(exported.status, 0, exported.stderr)
  t.match(JSON.parse(exported.stdout), {
    state: 'done',
    vpg: 'web',
    volume: 'root',
    file: path.join(directory, 'root.img'),
    doneBytes: 40 * GiB,
  })
  t.equal(exported.stderr, '', 'no bar where there is no terminal')
  t.equal((await runExport(vraCommand, path.join(directory, 'root.img'))).status, 2, 'the file exists')
  const replaced = await runExport(vraCommand, path.join(directory, 'root.img'), '--overwrite')
  t.match(
    replaced,
    { status: 0, stderr: /on the daemon's host/ },
    'a file that is not to be seen here is on another host',
  )
  t.equal((await runExport(vraCommand, '/tmp/x.img', '--checkpoint', 'no-such-tag')).status, 3)
  t.equal((await runExport(vraCommand, '/tmp/y.img', '--checkpoint', '9 lives')).status, 2)
  t.match((await runExport(vraCommand, '/tmp/z.img', '--no-wait')).stdout, /^state\trunning$/m)
  const relative = [...vra.jobs.values()].every(job => path.isAbsolute(job.file))
  t.ok(relative, 'the daemon is given absolute paths')
})

t.test('exports are listed, and one is cancelled from elsewhere', async t => {
  const { vra, vraCommand } = await openControl(t)
  t.equal((await runExport(vraCommand, '/tmp/a.img', '--no-wait')).status, 0)
  t.equal((await runExport(vraCommand, '/tmp/b.img', '--no-wait')).status, 0)
  const listed = await vraCommand('export', 'list')
  t.equal(listed.status, 0, listed.stderr)
  t.match(listed.stdout, /^EXPORT\tSTATE\t.*\nexport-2\trunning\tweb\troot\t.*\/tmp\/b.img\t\nexport-1\trunning\t/)
  t.match(JSON.parse((await vraCommand('export', 'list', '--json')).stdout), [{ id: 'export-2' }, { id: 'export-1' }])
  const cancelled = await vraCommand('export', 'cancel', 'export-1')
  t.equal(cancelled.status, 0, cancelled.stderr)
  t.match(cancelled.stdout, /^export\texport-1\nstate\tcancelled$/m)
  t.equal(vra.jobs.get('export-1')?.state, 'cancelled')
  t.match(vra.jobs.get('export-2')?.state, 'running', 'the other goes on')
  t.match(await vraCommand('export', 'cancel', 'no-such'), { status: 3, stderr: /there is no export no-such/ })
  t.match(await vraCommand('export', 'cancel'), { status: 2, stderr: /missing required argument 'id'/ })
  for (const options of [[], ['--volume', 'root'], ['--to', '/tmp/c.img']])
    t.match(await vraCommand('export', 'web', ...options), {
      status: 2,
      stderr: /required option '--(to|volume) <\w+>' not specified/,
    })
})

t.test('a preseed waits for its end, and gives the daemon an absolute path', async t => {
  const { vra, vraCommand } = await openControl(t)
  const done = await vraCommand('preseed', 'web', '--volume', 'root', '--from', 'root.img')
  t.equal(done.status, 0, done.stderr)
  t.match(done.stdout, /^state\tdone$/m)
  t.equal([...vra.preseedJobs.values()][0]?.file, path.resolve('root.img'))
  t.match(
    (await vraCommand('preseed', 'web', '--volume', 'root', '--from', '/x', '--no-wait')).stdout,
    /^state\trunning$/m,
  )
  t.equal((await vraCommand('preseed', 'web', '--volume', 'root')).status, 2, 'it has to be said from where')
  t.equal((await vraCommand('preseed', 'web', '--volume', 'none', '--from', '/x')).status, 3)
})

function runExport(vraCommand: (...argv: string[]) => Promise<Ended>, file: string, ...more: string[]): Promise<Ended> {
  return vraCommand('export', 'web', '--volume', 'root', '--to', file, ...more)
}

t.test('the exit status says how it went', async t => {
  const { vra, vraCommand } = await openControl(t)
  const cases = [
    [new Failure('BUSY', 'too many'), 4],
    [new Failure('STORE_UNAVAILABLE', 'the store is down'), 4],
    [new Failure('OBJECT_CORRUPT', 'an object is damaged'), 5],
    [new Failure('EPOCH_SUPERSEDED', 'another appliance'), 6],
    [new Failure('NOT_FOUND', 'nothing there'), 3],
    [new Failure('REQUEST_INVALID', 'not like that'), 2],
  ] as const
  for (const [failure, status] of cases) {
    vra.failNext = failure
    const ended = await vraCommand('status')
    t.equal(ended.status, status, failure.code)
    t.equal(ended.stderr, `vra: ${failure.message}\n`)
    t.equal(ended.stdout, '')
  }
  const away = await runCli(['status', '--url', 'http://127.0.0.1:1'])
  t.equal(away.status, 4)
  t.match(away.stderr, /is it running \(vra serve\)/)
  t.match(await runCli(['status', '--url', '127.0.0.1:7421']), { status: 2, stderr: /write it as http:/ })
  for (const argv of [
    ['stats'],
    ['export', 'web'],
    ['vpg', 'create', 'x', '--volume', 'root=10 potatoes', '--agent', 'a'],
    ['checkpoint', 'list', 'web', '--from', 'yesterday'],
    ['status', '--jsn'],
  ])
    t.equal((await vraCommand(...argv)).status, 2, argv.join(' '))
})

t.test('a mount is served until Ctrl-C, or until the VRA serves it no more', async t => {
  const { vra, url } = await openControl(t)
  for (const isEndedElsewhere of [false, true]) {
    const stillServed = new Promise<undefined>(resolve => {
      let askedCount = 0
      vra.mounts = async () => {
        if (++askedCount === 2) resolve(undefined)
        return [...vra.mountsUnderWay.values()]
      }
    })
    const mount = startCli(['mount', 'web', '--volume', 'root'], { VRA_CONTROL_URL: url })
    const early = await Promise.race([mount.ended, stillServed])
    t.equal(early, undefined, 'nothing but that keeps the command alive')
    if (isEndedElsewhere) vra.mountsUnderWay.clear()
    else mount.interrupt()
    const { status, stdout, stderr } = await mount.ended
    t.match(stdout, /^root\t.*\tnbd:\/\/127.0.0.1:10810\/m-1\/web\/root$/m)
    t.match(
      stderr,
      /touch (\S+) .*\n +nbdfuse --readonly \1 'nbd:/,
      'nbdfuse would cover the directory of a file that is not there',
    )
    t.equal(status, isEndedElsewhere ? 3 : 0, stderr)
    t.equal(vra.mountsUnderWay.size, 0)
  }
})

const refusedAgent = {
  vpg: 'payroll',
  agent: 'host9',
  address: '10.0.0.9:5000',
  code: 'UNKNOWN_VPG',
  sentence: 'there is no VPG "payroll" here',
  count: 3,
  firstTimestampMicros: nowMicros - 60_000_000,
  lastTimestampMicros: nowMicros - 12_000_000,
} as const

t.test('status says what a person should know; --json is the API’s own answer', async t => {
  const { vra, vraCommand } = await openControl(t)
  vra.refusals = [refusedAgent]
  const [vpg] = vra.vpgs.values()
  await vraCommand('recover', 'test', vpg!.status.name, '--target', 'raw', '--to', '/srv/look', '--yes', '--no-wait')
  vpg!.status = { ...vpg!.status, recoveries: [...vra.recoveryJobs.values()] }
  const text = (await vraCommand('status')).stdout
  t.match(text, /^refused\thost9 for payroll at 10.0.0.9:5000, 12 s ago, 3 in all, UNKNOWN_VPG: there is no VPG/m)
  t.match(text, new RegExp(`^recovery\t${vpg!.status.name}: test r-1 to raw at 3\\.\\d+, preparing`, 'm'))
  t.match(text, /^critical\terp-database has had no new checkpoint/m)
  t.match(text, /^journal\t2.90 GiB of 8 GiB, 141 GiB free on its disk$/m)
  t.strictSame(
    JSON.parse((await vraCommand('status', '--json')).stdout),
    JSON.parse(JSON.stringify(await vra.status())),
  )
  t.match(JSON.parse((await vraCommand('openapi')).stdout), { openapi: '3.1.0' })
})

t.test('verification that finds damage ends with 5 and names every place; dump is one line each', async t => {
  const { vra, vraCommand } = await openControl(t)
  const clean = await vraCommand('journal', 'verify')
  t.equal(clean.status, 0, clean.stderr)
  t.match(clean.stdout, /^damaged\t0$/m)
  vra.findings = [
    {
      vpg: 'web',
      place: 'log/0007.log',
      offsetBytes: 4096,
      sentence: 'the record failed its checksum; checkpoints from 3.18000 on need it',
    },
  ]
  const damaged = await vraCommand('mirror', 'verify', '--vpg', 'web')
  t.equal(damaged.status, 5)
  t.match(damaged.stdout, /^web\tlog\/0007\.log\t4096\tthe record failed/m)
  t.match(JSON.parse((await vraCommand('mirror', 'verify', '--json')).stdout), {
    findings: [{ place: 'log/0007.log' }],
  })
  const dumped = (await vraCommand('journal', 'dump')).stdout.trimEnd().split('\n')
  t.equal(dumped.length, 250)
  t.equal(dumped[1], 'file=log/journal-0001 offsetBytes=4096 kind=batch')
  t.match(JSON.parse((await vraCommand('journal', 'dump', '--limit', '10', '--json')).stdout), { next: '10' })
})

t.test('every command has help, and the program’s own says the exit statuses', async t => {
  const misspelt = await runCli(['statsu', '--help'])
  t.equal(misspelt.status, 2)
  t.match(misspelt.stderr, /unknown command 'statsu'[^]*status/)
  const top = await runCli(['--help'])
  t.equal(top.status, 0)
  t.match(top.stdout, /Exit status:[\s\S]*5 {2}damage was found/)
  const commands = [
    'serve',
    'protect',
    'status',
    'vpg create',
    'checkpoint tag',
    'export',
    'preseed',
    'journal verify',
    'mirror dump',
    'config check',
    'certs issue',
    'openapi',
  ]
  for (const command of commands) {
    const help = await runCli([...command.split(' '), '--help'])
    t.equal(help.status, 0, command)
    t.match(help.stdout, /^Usage: vra /, command)
  }
  t.match((await runCli(['--version'])).stdout, /^\d+\.\d+\.\d+\n$/)
})

t.test('configuration files are written, checked, and refused with all their faults', async t => {
  const directory = t.testdir()
  for (const role of ['vra', 'agent']) {
    const file = path.join(directory, `${role}.yaml`)
    writeFileSync(file, (await runCli(['config', 'example', role])).stdout)
    const checked = await runCli(['config', 'check', file, '--role', role])
    t.equal(checked.status, 0, checked.stderr)
  }
  const bad = path.join(directory, 'bad.yaml')
  writeFileSync(bad, 'listen: {prot: 1}\nlog: {level: loud}\n')
  const refused = await runCli(['config', 'check', bad])
  t.equal(refused.status, 2)
  t.match(refused.stderr, /listen.prot is not a known key; did you mean port\?[\s\S]*log.level must be one of/)
  t.match(
    JSON.parse(
      (await runCli(['config', 'check', path.join(directory, 'vra.yaml'), '--json'], { VRA_LISTEN_PORT: '9' })).stdout,
    ),
    { listen: { port: 9 } },
  )
})

t.test('protect refuses flags that contradict or miss something, before it starts anything', async t => {
  const missing = await runCli(['protect', '--vpg', 'web', '--agent', 'host1'])
  t.equal(missing.status, 2)
  t.match(missing.stderr, /--disk is missing/)
  t.equal((await runCli(['protect', '--config', 'x.yaml', '--vpg', 'web'])).status, 2)
  const plain = await runCli([
    'protect',
    '--vpg',
    'web',
    '--agent',
    'host1',
    '--disk',
    'root=/x',
    '--vra',
    'vra.example.org:7420',
  ])
  t.equal(plain.status, 2)
  t.match(plain.stderr, /vra.host is beyond loopback without tls/)
})

t.test('a small authority is made once, its keys are its owner’s, and it issues for both sides', async t => {
  const directory = path.join(t.testdir(), 'certs')
  const early = await runCli(['certs', 'issue', 'client', 'host1', '--directory', directory])
  t.equal(early.status, 3)
  t.match(early.stderr, /vra certs init/)
  t.equal((await runCli(['certs', 'init', '--directory', directory])).status, 0)
  t.equal((await runCli(['certs', 'init', '--directory', directory])).status, 2, 'an authority is not written over')
  t.equal(
    (await runCli(['certs', 'issue', 'server', 'vra', '--directory', directory])).status,
    2,
    'a server has a name to be reached by',
  )
  const issued = await runCli([
    'certs',
    'issue',
    'server',
    'vra',
    '--host',
    '10.0.0.5',
    '--directory',
    directory,
    '--json',
  ])
  t.equal(issued.status, 0, issued.stderr)
  const files = JSON.parse(issued.stdout) as {
    certificateFile: string
    privateKeyFile: string
    validUntil: string
  }
  t.match(readFileSync(files.certificateFile, 'utf8'), /BEGIN CERTIFICATE/)
  t.equal(statSync(files.privateKeyFile).mode & 0o077, 0)
  t.equal((await runCli(['certs', 'issue', 'client', '../host1', '--directory', directory])).status, 2)
  const expired = await runCli(['certs', 'issue', 'client', 'host1', '--days', '0', '--directory', directory])
  t.match(expired, { status: 2, stderr: /1 at least/ })
  t.ok(Date.parse(files.validUntil) > Date.now(), 'its end is told')
})
