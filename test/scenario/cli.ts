import * as fs from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { MiB } from '../../src/base/units.ts'
import type { CheckpointFacts, CheckpointList, ExportJob, VpgStatus } from '../../src/control/service.ts'
import { firstDifference } from '../../src/demo/compare.ts'
import { json } from '../support/scenario-cli.ts'
import { until } from '../support/scenario-role.ts'
import { Guest } from '../support/scenario-guest.ts'
import { Scenario } from '../support/scenario-site.ts'

// The command line against a real daemon with a real agent: what people type, what scripts parse, what the exit status says.

const seed = 20_261_130
const sizeBytes = 8 * MiB

const counterOf = (checkpoint: string): number => Number(checkpoint.split('.')[1])

/** Keys of the object store's directory. */
function objectsIn(directory: string): string[] {
  return fs
    .readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(entry => path.relative(directory, path.join(entry.parentPath, entry.name)))
}

t.test('from `vpg create` to `vpg delete`, and the name again', async t => {
  const scenario = await Scenario.make(t)
  await scenario.startVra()
  const create = [
    'vpg',
    'create',
    'web',
    '--volume',
    'root=8MiB',
    '--agent',
    'host',
    '--history',
    '1h',
    '--interval',
    '1s',
  ]
  const created = await scenario.cli(...create)
  t.equal(created.status, 0, created.stderr)
  t.match(created.stdout, /^vpg\tweb$/m)
  t.match(created.stderr, /vra protect --vpg web --agent host --disk root=PATH/)
  const early = await scenario.cli('export', 'web', '--volume', 'root', '--to', scenario.file('early'))
  t.equal(early.status, 3, 'nothing to recover yet')
  t.match(early.stderr, /there is none yet/)
  const refused = await scenario.cli(...create)
  t.equal(refused.status, 2, 'the name is taken')
  t.equal((await scenario.cli('checkpoint', 'tag', 'web', 'too-early')).status, 4, 'no agent, no checkpoint: not now')

  const agent = await scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: { root: sizeBytes } })
  await agent.start()
  await scenario.untilConnected('web')
  const guest = new Guest(await agent.client('root'), { seed })
  const references = new Map<string, string>()
  const points: CheckpointFacts[] = []
  for (const tag of ['one', 'two', 'three']) {
    await guest.runFor(80)
    const tagged = await json<CheckpointFacts>(scenario, 'checkpoint', 'tag', 'web', tag)
    t.match(tagged, { tags: [tag], recoverable: true })
    references.set(tag, agent.reference('root'))
    points.push(tagged)
  }
  t.same(guest.failures, [])
  const [one, two, three] = points as [CheckpointFacts, CheckpointFacts, CheckpointFacts]

  t.test('checkpoints are listed, named and unnamed by id, time, tag and latest', async t => {
    const list = await json<CheckpointList>(scenario, 'checkpoint', 'list', 'web', '--limit', '1000')
    t.ok(list.checkpoints.length >= 3)
    const text = await scenario.cli('checkpoint', 'list', 'web', '--tagged', '--oldest-first')
    t.strictSame(
      text.stdout
        .trimEnd()
        .split('\n')
        .map(line => line.split('\t').at(-1)),
      ['TAGS', 'one', 'two', 'three'],
    )
    const from = new Date(two.timestampMicros / 1000).toISOString()
    const since = await json<CheckpointList>(scenario, 'checkpoint', 'list', 'web', '--from', from, '--limit', '1000')
    t.ok(since.checkpoints.every(({ timestampMicros }) => timestampMicros >= two.timestampMicros))
    t.ok(since.checkpoints.some(({ checkpoint }) => checkpoint === two.checkpoint))

    const named = async (name: string, reference: string): Promise<string> => {
      const facts = await json<CheckpointFacts>(scenario, 'checkpoint', 'tag', 'web', name, '--checkpoint', reference)
      return facts.checkpoint
    }
    t.equal(await named('by-id', one.checkpoint), one.checkpoint)
    t.equal(
      await named('by-iso', from.replace('T', ' ').replace('Z', '')),
      two.checkpoint,
      'UTC where no zone is given',
    )
    t.equal(await named('by-tag', 'three'), three.checkpoint)
    const millis = Math.ceil(Date.now() - two.timestampMicros / 1000)
    const asked = Date.now()
    const ago = await json<CheckpointFacts>(
      scenario,
      'checkpoint',
      'tag',
      'web',
      'by-ago',
      '--checkpoint',
      `${millis}ms ago`,
    )
    t.ok(ago.timestampMicros <= (Date.now() - millis) * 1000, 'not later than that long ago')
    const later = await json<CheckpointList>(scenario, 'checkpoint', 'list', 'web', '--limit', '1000', '--oldest-first')
    const next = later.checkpoints.find(({ timestampMicros }) => timestampMicros > ago.timestampMicros)
    t.ok((next?.timestampMicros ?? Infinity) > (asked - millis) * 1000, 'and the newest of these')
    t.equal((await scenario.cli('checkpoint', 'tag', 'web', 'x', '--checkpoint', '2h ago')).status, 3)
    t.ok(counterOf(await named('by-now', '0s ago')) >= counterOf(three.checkpoint))
    const latest = await named('by-latest', 'latest')
    t.ok(counterOf(latest) >= counterOf(three.checkpoint))
    t.equal((await scenario.cli('checkpoint', 'tag', 'web', 'by-id')).status, 2, 'a tag names one checkpoint')
    t.equal((await scenario.cli('checkpoint', 'tag', 'web', '1.5')).status, 2, 'an id is no tag')
    t.equal((await scenario.cli('checkpoint', 'tag', 'web', 'x', '--checkpoint', '1.999999')).status, 3)
    t.equal((await scenario.cli('checkpoint', 'tag', 'web', 'x', '--checkpoint', '2001-01-01')).status, 3)
    t.match(await json(scenario, 'checkpoint', 'untag', 'web', 'by-id'), { untagged: 'by-id' })
    t.equal((await scenario.cli('checkpoint', 'untag', 'web', 'by-id')).status, 3)
    t.equal((await scenario.cli('checkpoint', 'list', 'nothing')).status, 3)
  })

  t.test('a volume is exported by each kind of name', async t => {
    const exported = async (reference: string, expected: string | undefined): Promise<void> => {
      const file = scenario.file('cli.raw')
      const job = await json<ExportJob>(
        scenario,
        'export',
        'web',
        '--volume',
        'root',
        '--checkpoint',
        reference,
        '--to',
        file,
      )
      t.match(job, { state: 'done', file, sizeBytes, doneBytes: sizeBytes }, reference)
      if (expected !== undefined)
        t.equal(await firstDifference(file, references.get(expected) ?? ''), undefined, `${reference} is ${expected}`)
    }
    await exported(one.checkpoint, 'one')
    await exported('two', 'two')
    await exported(new Date(two.timestampMicros / 1000).toISOString(), 'two')
    await exported('latest', 'three')
    await exported('0s ago', 'three')
    const file = scenario.file('text.raw')
    const text = await scenario.cli('export', 'web', '--volume', 'root', '--to', file)
    t.match(text.stdout, /^state\tdone$/m)
    t.equal((await scenario.cli('export', 'web', '--volume', 'root', '--to', file)).status, 2, 'the file exists')
    t.equal((await scenario.cli('export', 'web', '--volume', 'root', '--to', file, '--overwrite')).status, 0)
    t.equal((await scenario.cli('export', 'web', '--volume', 'boot', '--to', scenario.file('x'))).status, 3)
    t.equal((await scenario.cli('export', 'web', '--volume', 'root', '--to', '/nowhere/x.raw')).status !== 0, true)
    t.match(
      (await scenario.cli('status')).stdout,
      /^EXPORT\tSTATE\t[^]*\tfailed\t[^\n]*\t\/nowhere\/x.raw cannot be written/m,
    )
  })

  t.test('a deleted group frees its objects, and its name', async t => {
    const { id } = await scenario.vpg('web')
    const objects = path.join(scenario.storeDirectory, 'objects')
    t.ok(objectsIn(objects).some(key => key.includes(id)))
    const unasked = await scenario.cli('vpg', 'delete', 'web')
    t.equal(unasked.status, 2)
    t.match(unasked.stderr, /takes \d+ checkpoints with it; give --yes/)
    t.match(await json(scenario, 'vpg', 'delete', 'web', '--yes'), { deleted: 'web' })
    t.equal((await scenario.cli('vpg', 'show', 'web')).status, 3)
    t.equal((await scenario.cli('vpg', 'delete', 'web', '--yes')).status, 3)
    await agent.process?.untilSaid(/UNKNOWN_VPG/)
    await agent.process?.stop()
    await until('the objects are gone', () => {
      const left = objectsIn(objects).filter(key => key.includes(id))
      return left.every(key => /vpg|commit|page/.test(key)) && left.length <= 4 // that it was there and is deleted is remembered
    })
    const again = await scenario.cli(...create)
    t.equal(again.status, 0, again.stderr)
    t.notMatch(again.stdout, new RegExp(id), 'another group of the same name')
    t.match(again.stdout, /^checkpoints\t0,/m)
    const second = await scenario.placeAgent({ ...agent.plan, fresh: 'again' })
    await second.start()
    const guest = new Guest(await second.client('root'), { seed: seed + 1 })
    await guest.runFor(50)
    t.equal((await scenario.cli('checkpoint', 'tag', 'web', 'one')).status, 0, 'the tag is free as well')
    t.equal(await scenario.differenceAt('web', 'root', 'one', second.disk('root')), undefined)
    await scenario.vra?.kill()
    await scenario.startVra()
    t.equal((await json<VpgStatus[]>(scenario, 'vpg', 'list')).length, 1, 'a restart brings nothing back')
    t.equal(await scenario.differenceAt('web', 'root', 'one', second.disk('root')), undefined)
  })
})
