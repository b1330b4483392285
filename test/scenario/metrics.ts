import { execFile } from 'node:child_process'
import * as fs from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { MiB } from '../../src/base/units.ts'
import { missing } from '../support/nbd-tools.ts'
import { Guest } from '../support/scenario-guest.ts'
import { Scrape } from '../support/scenario-metrics.ts'
import { Scenario } from '../support/scenario-site.ts'
import { untilSynced } from '../support/scenario-sync.ts'

// What Prometheus and whoever follows the README's list of alerts find at /metrics of both roles, of real ones that have worked.

const readme = path.resolve(import.meta.dirname, '../../../README.md')

/** What `promtool check metrics` has against the text; nothing where all is well. */
function faultsOf(text: string): Promise<string> {
  return new Promise(resolve => {
    const promtool = execFile('promtool', ['check', 'metrics'], { timeout: 120_000 }, (error, stdout, stderr) =>
      resolve(error === null ? stdout + stderr : `${error.message}${stdout}${stderr}`),
    )
    promtool.stdin?.end(text)
  })
}

t.test('the metrics of both roles', async t => {
  const scenario = await Scenario.make(t)
  await scenario.startVra()
  const agent = await scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: { root: 8 * MiB } })
  await scenario.createVpg(agent.plan)
  await agent.start()
  await untilSynced(agent) // what is written before is sent by a synchronisation, and counted as that
  await new Guest(await agent.client('root'), { seed: 1 }).runFor(200)
  await scenario.tag('web', 'end')
  await scenario.untilVpg('web', 'a delta', ({ mirror }) => mirror.deltaCount > 0)
  const [ofVra, ofAgent] = await Promise.all([Scrape.of(scenario.controlUrl), Scrape.of(agent.controlUrl)])

  t.test('promtool has nothing against them', { skip: missing('promtool') }, async t => {
    t.equal(await faultsOf(ofVra.text), '', 'the VRA')
    t.equal(await faultsOf(ofAgent.text), '', 'the agent')
  })

  t.test('every metric that the README names exists', async t => {
    const named = [...new Set(fs.readFileSync(readme, 'utf8').match(/\bvra_[a-z_]+\b/g))]
    t.ok(named.includes('vra_rpo_seconds') && named.includes('vra_damage_found_total'), named.join(' '))
    for (const name of named) t.ok(ofVra.has(name) || ofAgent.has(name), name)
  })

  t.test('and they say what happened', async t => {
    t.equal(ofVra.value('vra_vpg_protected', 'web'), 1)
    t.equal(ofVra.value('vra_journal_full'), 0)
    t.equal(ofVra.value('vra_store_failing', 'web'), 0)
    t.ok((ofVra.value('vra_rpo_seconds', 'web') ?? Infinity) < 60)
    t.ok((ofVra.value('vra_ingest_writes_total', 'web') ?? 0) >= 150)
    t.ok((ofVra.value('vra_folds_total', 'web') ?? 0) > 0)
    t.equal(ofAgent.value('vra_agent_link_up'), 1)
    t.ok((ofAgent.value('vra_agent_records_total') ?? 0) >= 150)
    t.equal(ofAgent.value('vra_agent_volumes_needing_sync'), 0)
  })
})
