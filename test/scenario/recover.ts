import * as fs from 'node:fs'
import * as path from 'node:path'
import t, { type Test } from 'tap'
import { MiB } from '../../src/base/units.ts'
import type { RecoveryFacts } from '../../src/control/service.ts'
import { firstDifference } from '../../src/demo/compare.ts'
import { Guest } from '../support/scenario-guest.ts'
import { begin, untilState } from '../support/scenario-recovery.ts'
import { Scenario, type AgentSite } from '../support/scenario-site.ts'
import { fillDisk, untilSynced } from '../support/scenario-sync.ts'

// Two machines with a disk each under load, recovered into raw files by the real daemon, which is killed at the worst moments. What is recovered is byte for
// byte what the disks were; protection goes on meanwhile; after a stop, a rollback or a failure nothing is left.

const seed = 20_261_126
const sizeBytes = 16 * MiB

interface Site {
  readonly scenario: Scenario
  readonly agent: AgentSite
  readonly guests: readonly Guest[]
  /** An empty directory to recover into. */
  readonly directory: string
}

async function protectedSite(t: Test): Promise<Site> {
  const scenario = await Scenario.make(t)
  await scenario.startVra()
  const agent = await scenario.placeAgent({
    agentId: 'host',
    vpg: 'web',
    volumes: { root: sizeBytes, data: sizeBytes },
  })
  for (const volume of ['root', 'data']) fillDisk(agent.disk(volume), seed)
  await scenario.control.createVpg({
    name: 'web',
    volumes: [
      { name: 'root', sizeBytes },
      { name: 'data', sizeBytes, vm: 'db1' },
    ],
    agents: ['host'],
    historyMillis: 3_600_000,
    checkpointIntervalMillis: 1_000,
  })
  await agent.start()
  const guests: Guest[] = []
  for (const volume of ['root', 'data'])
    guests.push(new Guest(await agent.client(volume), { seed, spanBytes: 8 * MiB }))
  await untilSynced(agent)
  const directory = path.join(scenario.directory, 'recovered')
  fs.mkdirSync(directory)
  return { scenario, agent, guests, directory }
}

/** The disks as they are at a checkpoint of this name; guests go on afterwards. */
async function marked({ scenario, agent, guests }: Site, tag: string): Promise<ReadonlyMap<string, string>> {
  for (const guest of guests) await guest.runFor(150)
  await scenario.tag('web', tag)
  const references = new Map(['root', 'data'].map(volume => [volume, agent.reference(volume)]))
  for (const guest of guests) guest.start()
  return references
}

async function rest({ guests }: Site): Promise<void> {
  for (const guest of guests) await guest.rest()
}

async function compare(t: Test, { things }: RecoveryFacts, references: ReadonlyMap<string, string>): Promise<void> {
  t.strictSame(
    things.map(({ vm, volume }) => `${vm}/${volume}`),
    ['host/root', 'db1/data'],
  )
  for (const { volume = '', place } of things)
    t.equal(await firstDifference(place, references.get(volume) ?? ''), undefined, place)
}

t.test(
  'a test at a checkpoint while load goes on, killed while it is prepared and when it is ready, and stopped',
  async t => {
    const site = await protectedSite(t)
    const { scenario, directory } = site
    const references = await marked(site, 'before')
    await marked(site, 'after')
    const asked = ['recover', 'test', 'web', '--checkpoint', 'before', '--target', 'raw', '--to', directory]
    const planned = await scenario.cli(...asked, '--plan')
    t.equal(planned.status, 0, planned.stderr)
    t.match(planned.stdout, /^volume\tdb1 data, 16 MiB, up to .* of it data$/m)
    t.match(planned.stdout, /^note\tthere are newer checkpoints/m)
    t.strictSame(fs.readdirSync(directory), [])

    const begun = await scenario.cli(...asked, '--no-wait', '--json')
    t.equal(begun.status, 0, begun.stderr)
    const { id } = JSON.parse(begun.stdout) as RecoveryFacts
    await scenario.vra?.kill()
    await scenario.startVra()
    const ready = await untilState(scenario, { id }, 'ready')
    await compare(t, ready, references)
    t.strictSame(fs.readdirSync(directory).sort(), ['db1-data.raw', 'host-root.raw'])
    t.match((await scenario.vpg('web')).recoveries, [{ id, state: 'ready' }])
    await t.rejects(scenario.control.deleteVpg('web'), { code: 'BUSY', message: new RegExp(id) })

    await scenario.vra?.kill()
    await scenario.startVra()
    await untilState(scenario, { id }, 'ready')
    const newest = (await scenario.vpg('web')).latestCheckpoint
    const stopped = await scenario.cli('recover', 'stop', id)
    t.equal(stopped.status, 0, stopped.stderr)
    t.match(stopped.stdout, /^state\tremoved$/m)
    t.strictSame(fs.readdirSync(directory), [])
    await scenario.untilVpg('web', 'protection goes on', ({ latestCheckpoint }) => {
      return (latestCheckpoint?.timestampMicros ?? 0) > (newest?.timestampMicros ?? 0)
    })
    await rest(site)
    t.strictSame(
      site.guests.flatMap(guest => guest.failures),
      [],
      'no guest has noticed any of it',
    )
  },
)

t.test(
  'failover: rolled back, then to the newest and committed; one at a time; a second commit is refused',
  async t => {
    const site = await protectedSite(t)
    const { scenario, directory } = site
    await marked(site, 'first')
    const to = ['--target', 'raw', '--to', directory, '--yes']
    const first = await scenario.cli('recover', 'failover', 'web', '--checkpoint', 'first', ...to, '--json')
    t.equal(first.status, 0, first.stderr)
    const { id } = JSON.parse(first.stdout) as RecoveryFacts
    const second = await scenario.cli('recover', 'failover', 'web', ...to)
    t.equal(second.status, 2, 'its files would be in the way')
    const elsewhere = path.join(scenario.directory, 'elsewhere')
    fs.mkdirSync(elsewhere)
    const beside = await scenario.cli('recover', 'failover', 'web', '--target', 'raw', '--to', elsewhere, '--yes')
    t.equal(beside.status, 4)
    t.match(beside.stderr, new RegExp(`recovery ${id}, a failover of web, is ready: commit it or roll it back first`))
    t.equal((await scenario.cli('recover', 'stop', id)).status, 2)
    t.equal((await scenario.cli('recover', 'rollback', id)).status, 0)
    t.strictSame([...fs.readdirSync(directory), ...fs.readdirSync(elsewhere)], [])

    await rest(site)
    const references = await marked(site, 'last')
    await rest(site)
    const again = await scenario.cli('recover', 'failover', 'web', '--checkpoint', 'last', ...to, '--json')
    t.equal(again.status, 0, again.stderr)
    const recovered = JSON.parse(again.stdout) as RecoveryFacts
    await compare(t, recovered, references)
    t.ok((recovered.rtoMillis ?? 0) > 0)
    t.equal((await scenario.cli('recover', 'commit', recovered.id)).status, 0)
    const twice = await scenario.cli('recover', 'commit', recovered.id)
    t.equal(twice.status, 2)
    t.match(twice.stderr, /was committed at .*: what it recovered is kept/)
    t.equal(fs.readdirSync(directory).length, 2)
    t.equal((await scenario.cli('recoveries')).stdout.trim().split('\n').length, 3, 'both are remembered')
    await scenario.control.deleteVpg('web')
  },
)

t.test('what cannot be is found before anything is created, and said in words', async t => {
  const site = await protectedSite(t)
  const { scenario, directory } = site
  await marked(site, 'some')
  await rest(site)
  const mine = path.join(directory, 'db1-data.raw')
  fs.writeFileSync(mine, 'mine')
  const refused = async (code: string, message: RegExp, request: Parameters<typeof begin>[1]): Promise<void> => {
    await t.rejects(begin(scenario, { kind: 'test', settings: { directory }, ...request }), { code, message })
    t.strictSame(fs.readdirSync(directory), ['db1-data.raw'])
  }
  const gone = /no recoverable checkpoint for "9\.9": the nearest that are kept are/
  await refused('CHECKPOINT_MISSING', gone, { checkpoint: '9.9' })
  await refused('CHECKPOINT_MISSING', /the oldest is/, { checkpoint: '90d ago' })
  await refused('UNKNOWN_VOLUME', /has no volume "logs"; it has root, data/, { volumes: ['logs'] })
  await refused('REQUEST_INVALID', /no volume of a machine "db9"; it has host, db1/, { vms: ['db9'] })
  await refused('ALREADY_EXISTS', /db1-data\.raw exists/, { kind: 'clone' })
  await refused('REQUEST_INVALID', /there is no directory/, { settings: { directory: `${directory}/none` } })
  await refused('REQUEST_INVALID', /the VRA's own files/, { settings: { directory: scenario.dataDirectory } })
  await refused('REQUEST_INVALID', /needs a directory \(--to\)/, { settings: {} })
  await refused('REQUEST_INVALID', /is not set up for the target aws/, { target: 'aws' })
  t.equal(fs.readFileSync(mine, 'utf8'), 'mine')
  const asked = ['recover', 'clone', 'web', '--target', 'raw', '--to', directory]
  const all = await scenario.cli(...asked)
  t.equal(all.status, 2, all.stderr)
  t.match(all.stderr, /db1-data\.raw exists/)
  const one = await scenario.cli(...asked, '--vm', 'host')
  t.equal(one.status, 0, one.stderr)
  t.match(one.stdout, /^state\tcommitted$/m)
  t.strictSame(fs.readdirSync(directory).sort(), ['db1-data.raw', 'host-root.raw'])
})
