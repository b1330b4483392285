import * as path from 'node:path'
import t from 'tap'
import { MiB } from '../../src/base/units.ts'
import type { VerifyJob, VpgStatus, VpgTimeline, VraStatus } from '../../src/control/service.ts'
import { json } from '../support/scenario-cli.ts'
import { runVra } from '../support/scenario-role.ts'
import { Guest } from '../support/scenario-guest.ts'
import { Scenario } from '../support/scenario-site.ts'

// What the command line tells of a real daemon: running, stopped, and before it is started.

const sizeBytes = 8 * MiB

t.test('what a running daemon tells, and a stopped one', async t => {
  const scenario = await Scenario.make(t)
  await scenario.startVra()
  const agent = await scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: { root: sizeBytes } })
  await scenario.createVpg(agent.plan)
  await agent.start()
  await scenario.untilConnected('web')
  await new Guest(await agent.client('root'), { seed: 20_261_203 }).runFor(100)
  await scenario.tag('web', 'one')

  t.test('status, show, list, verify and dump', async t => {
    t.match(await json<VraStatus>(scenario, 'status'), { ready: true, vpgs: [{ name: 'web', state: 'protected' }] })
    t.match(await json<VpgStatus[]>(scenario, 'vpg', 'list'), [{ name: 'web' }])
    t.match(await json<VpgStatus>(scenario, 'vpg', 'show', 'web'), { volumes: [{ name: 'root', sizeBytes }] })
    t.match(await json<VpgStatus>(scenario, 'vpg', 'change', 'web', '--history', '2h'), { historyMillis: 7_200_000 })
    t.match((await scenario.cli('vpg', 'list')).stdout, /^web\tprotected\t/m)
    t.match(await json(scenario, 'openapi'), { openapi: '3.1.0' })
    await scenario.untilVpg(
      'web',
      'something is in the store',
      ({ mirror }) => mirror.segmentCount + mirror.deltaCount > 0,
    )
    for (const what of ['journal', 'mirror']) {
      const job = await json<VerifyJob>(scenario, what, 'verify')
      t.match(job, { state: 'done', findings: [] }, what)
      t.ok(
        job.checkedCount > 0 && job.checkedSizeBytes > 0,
        `${what}: ${job.checkedCount}, ${job.checkedSizeBytes} bytes`,
      )
      const words = (await scenario.cli(what, 'verify', '--vpg', 'web')).stdout
      t.match(words, /^checked\t[\d,]+ \w+, [\d.]+ [KM]?i?B$/m)
      t.notMatch(words, /, 0 B$/m)
      t.equal((await scenario.cli(what, 'verify', '--vpg', 'nothing')).status, 3)
      const page = await json<{ lines: unknown[]; next: string }>(scenario, what, 'dump', '--limit', '3')
      t.equal(page.lines.length, 3)
      const next = await json<{ lines: unknown[] }>(scenario, what, 'dump', '--limit', '3', '--after', page.next)
      t.notSame(next.lines, page.lines)
      t.ok((await scenario.cli(what, 'dump')).stdout.split('\n').length > 4)
    }
    const timeline = await json<VpgTimeline>(scenario, 'timeline', 'web')
    t.match(timeline, { vpg: 'web', gaps: [], withdrawnCount: 0 })
    t.ok(timeline.checkpointCount > 0 && timeline.newest !== undefined)
    t.ok(timeline.forms.some(({ sizeBytes }) => sizeBytes > 0) && timeline.cost.storage > 0)
    const { segments, manifests } = timeline.requests.puts
    t.ok(segments.count > 0 && segments.sizeBytes > 0 && manifests.count > 0, 'what was put is counted by form')
    t.match((await scenario.cli('journal', 'dump')).stdout, /^type=record frameIsGood=true kind=batch vpg=\w{32} /m)
    t.match((await scenario.cli('mirror', 'dump')).stdout, /^tag "one" on 1\.\d+$/m)
  })

  t.test('with the daemon stopped every command that asks it says so, and ends with 4', async t => {
    t.equal(await scenario.vra?.stop(), 0)
    for (const argv of [
      ['status'],
      ['vpg', 'list'],
      ['vpg', 'show', 'web'],
      ['checkpoint', 'list', 'web'],
      ['checkpoint', 'tag', 'web', 'never'],
      ['export', 'web', '--volume', 'root', '--to', scenario.file('never')],
      ['journal', 'verify'],
      ['journal', 'dump'],
      ['mirror', 'verify'],
      ['mirror', 'dump', '--json'],
    ]) {
      const ended = await scenario.cli(...argv)
      t.equal(ended.status, 4, argv.join(' '))
      t.match(
        ended.stderr,
        argv.includes('--json') ? /^{"error":.*is it running/ : /^vra: .*is it running/,
        argv.join(' '),
      )
      t.equal(ended.stdout, '')
    }
  })
})

t.test('`vra config check` says all that is wrong, in one go', async t => {
  const directory = t.testdir({
    'vra.yaml':
      'dataDirectory: ./d\nlisten: { port: 99999, host: 0.0.0.0 }\njournal: { logSizeBytesMax: 1 MiB }\nagng: {}\n',
    'agent.yaml': 'agentId: "two words"\nvpg: web\nvra: { port: 7420 }\nvolumes: []\n',
    'broken.yaml': 'listen: { port: 1\n',
  })
  const faults = async (file: string): Promise<string> => {
    const checked = await runVra(['config', 'check', path.join(directory, file)])
    t.equal(checked.status, 2, file)
    t.equal(checked.stdout, '')
    return checked.stderr
  }
  const vra = await faults('vra.yaml')
  t.match(vra, /agng is not a known key; did you mean aging\?/)
  t.match(vra, /listen\.port/)
  t.match(vra, /journal\.logSizeBytesMax/)
  const agent = await faults('agent.yaml')
  t.match(agent, /agentId/)
  t.match(agent, /volumes/)
  t.match(await faults('broken.yaml'), /broken\.yaml/)
  t.match(await faults('missing.yaml'), /missing\.yaml/)
  const served = await runVra(['serve', '--config', path.join(directory, 'vra.yaml')])
  t.equal(served.status, 2, 'the daemon refuses the same')
  t.match(served.stderr, /agng/)
})
