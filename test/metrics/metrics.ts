import { spawnSync } from 'node:child_process'
import t from 'tap'
import { newVpgId, ordinal } from '../../src/base/ids.ts'
import type { AgentVolumeStatus } from '../../src/agent/agent.ts'
import { AgentMetrics } from '../../src/metrics/agent-metrics.ts'
import { Metrics } from '../../src/metrics/metrics.ts'
import { populated } from '../support/control-fake.ts'
import { joined } from '../support/joined.ts'

/** The value of a series, or undefined where it is not there. */
function valueOf(text: string, series: string): number | undefined {
  const line = text.split('\n').find(candidate => candidate.startsWith(`${series} `))
  return line === undefined ? undefined : Number(line.slice(series.length + 1).replace('+Inf', 'Infinity'))
}

async function populatedMetrics(t: {
  teardown: (work: () => Promise<void>) => void
}): Promise<{ metrics: Metrics; text: () => Promise<string> }> {
  const vra = populated()
  const metrics = new Metrics({ version: '0.1.0', facts: () => vra.status() })
  t.teardown(() => metrics.close())
  const [web] = await vra.listVpgs()
  const vpg = newVpgId()
  // The fake's own identity for "web" is the one to count under.
  const known = (web?.id ?? vpg) as typeof vpg
  const batch = {
    stream: 1,
    writeCount: 64,
    rawSizeBytes: 262_144,
    frameSizeBytes: 131_072,
    timestampMicros: 0,
    ackLatencyMillis: 2,
  }
  for (let count = 0; count < 10; count++) metrics.ingest.batchDurable(known, batch)
  metrics.ingest.batchDurable(known, { ...batch, ackLatencyMillis: 12_000 })
  metrics.ingest.frameRefused(undefined, 'FRAME_INVALID')
  metrics.ingest.frameRefused(known, 'SEQUENCE_GAP')
  metrics.ingest.frameRefused(known, 'SEQUENCE_GAP')
  metrics.ingest.sessionClosed(undefined, 'PEER_LOST', 'gone')
  metrics.journal.groupDurable({ recordCount: 3, sizeBytes: 400_000, syncMillis: 1.2 })
  metrics.journal.fileRotated({ fileIdentity: 1, prepared: false })
  metrics.aging.folded({
    vpg: known,
    rawSizeBytes: 1000,
    storedSizeBytes: 600,
    objectCount: 2,
    segmentsThroughCommit: 1,
    millis: 5,
  })
  metrics.aging.historyEdgeMoved({ vpg: known, edge: ordinal(5), kept: [] })
  metrics.aging.damageFound({ vpg: known, sentence: 'a record failed its check' })
  return { metrics, text: () => joined(metrics.render()) }
}

t.test('what was counted is what is scraped, again and again', async t => {
  const { text } = await populatedMetrics(t)
  await text()
  const scraped = await text()
  t.equal(valueOf(scraped, 'vra_ingest_writes_total{vpg="web"}'), 704)
  t.equal(valueOf(scraped, 'vra_ingest_raw_bytes_total{vpg="web"}'), 11 * 262_144)
  t.equal(valueOf(scraped, 'vra_ingest_refused_frames_total{code="SEQUENCE_GAP",reaction="refuse"}'), 2)
  t.equal(valueOf(scraped, 'vra_rpo_seconds{vpg="web"}'), 2)
  t.equal(valueOf(scraped, 'vra_rpo_seconds{vpg="erp-database"}'), 1402)
  t.equal(
    valueOf(scraped, 'vra_rpo_seconds{vpg="test-lab"}'),
    Infinity,
    'a group without a checkpoint is told from one that is fine, and from none',
  )
  t.equal(valueOf(scraped, 'vra_vpg_protected{vpg="erp-database"}'), 0)
  t.equal(valueOf(scraped, 'vra_checkpoints{vpg="web"}'), 17_280)
  t.equal(valueOf(scraped, 'vra_folds_total{vpg="web"}'), 1)
  t.equal(valueOf(scraped, 'vra_damage_found_total{vpg="web"}'), 1)
  t.equal(valueOf(scraped, 'vra_journal_unprepared_files_total'), 1)
  t.equal(valueOf(scraped, 'vra_store_puts_total{vpg="web",form="deltas"}'), 0)
  t.equal(valueOf(scraped, 'vra_segments_raw_bytes_total{vpg="web"}'), 0)
})

t.test('the latency histogram is cumulative, in seconds, and loses nothing above its last bound', async t => {
  const scraped = await (await populatedMetrics(t)).text()
  t.equal(valueOf(scraped, 'vra_ingest_ack_latency_seconds_bucket{le="0.001"}'), 0)
  t.equal(valueOf(scraped, 'vra_ingest_ack_latency_seconds_bucket{le="0.002"}'), 10)
  t.equal(valueOf(scraped, 'vra_ingest_ack_latency_seconds_bucket{le="10"}'), 10)
  t.equal(valueOf(scraped, 'vra_ingest_ack_latency_seconds_bucket{le="+Inf"}'), 11)
  t.equal(valueOf(scraped, 'vra_ingest_ack_latency_seconds_count'), 11)
  t.ok(Math.abs((valueOf(scraped, 'vra_ingest_ack_latency_seconds_sum') ?? 0) - 12.02) < 1e-9)
})

t.test('a daemon that cannot give its facts is still scraped; a deleted group leaves no series behind', async t => {
  const vra = populated()
  const metrics = new Metrics({ version: '0.1.0', facts: () => vra.status() })
  t.teardown(() => metrics.close())
  const lab = await vra.showVpg('test-lab')
  metrics.ingest.duplicateDropped(lab.id as ReturnType<typeof newVpgId>, 1)
  t.equal(valueOf(await joined(metrics.render()), 'vra_ingest_duplicates_total{vpg="test-lab"}'), 1)
  await vra.deleteVpg('test-lab', { isForced: false })
  t.notMatch(await joined(metrics.render()), /test-lab/)
  vra.failNext = new Error('busy')
  t.ok(valueOf(await joined(metrics.render()), 'process_resident_memory_bytes'))
})

t.test('labels are vpg, volume, form, state, code and reaction; every metric has a help and a unit', async t => {
  const scraped = await (await populatedMetrics(t)).text()
  const allowed = ['vpg', 'volume', 'form', 'state', 'code', 'reaction', 'le', 'version', 'node_version']
  for (const [, label = ''] of scraped.matchAll(/[{,]([a-z_]+)="/g)) t.ok(allowed.includes(label), label)
  for (const line of scraped.split('\n').filter(candidate => candidate.startsWith('# TYPE'))) {
    const [, , name = '', type] = line.split(' ')
    t.match(scraped, new RegExp(`^# HELP ${name} \\S`, 'm'))
    t.equal(type === 'counter', name.endsWith('_total'), `${name} is a ${type}`)
  }
})

t.test('the agent counts what its guests and its link do', async t => {
  const volumes: AgentVolumeStatus[] = []
  const metrics = new AgentMetrics({ version: '0.1.0', status: () => ({ stream: 'exact', queuedBytes: 512, volumes }) })
  t.teardown(() => metrics.close())
  const { events } = metrics
  events.linkUp({ address: 'a:1', epoch: 1, resendRecordCount: 0 })
  events.writeNumbered('root', { recordCount: 2, sizeBytes: 8192 })
  volumes.push({
    name: 'root',
    path: '/root.img',
    sizeBytes: 1024,
    clientCount: 0,
    sync: 'bitmap',
    refusal: '',
    reason: 'queue',
    sinceTimestampMicros: 1,
    syncTotalBytes: 1024,
    syncDoneBytes: 512,
    syncSentBytes: 0,
    syncRateBytesPerSecond: 0,
    syncEtaSeconds: undefined,
    dirtyBytes: 1024,
    unreadable: [],
  })
  events.detached('queue')
  events.acknowledged({ sequence: 7, queuedBytes: 0 })
  const up = await metrics.render()
  t.equal(valueOf(up, 'vra_agent_link_up'), 1)
  t.equal(valueOf(up, 'vra_agent_written_bytes_total'), 8192)
  t.equal(valueOf(up, 'vra_agent_volumes_needing_sync'), 1)
  t.equal(valueOf(up, 'vra_agent_exact'), 1)
  t.equal(valueOf(up, 'vra_agent_detached_total'), 1)
  t.equal(valueOf(up, 'vra_agent_sync_done_bytes{volume="root"}'), 512)
  t.equal(valueOf(up, 'vra_agent_queue_bytes'), 512)
  events.linkDown({ code: 'PEER_LOST', sentence: 'gone', retryDelayMillis: 100, refused: false })
  const down = await metrics.render()
  t.equal(valueOf(down, 'vra_agent_link_up'), 0)
  t.equal(valueOf(down, 'vra_agent_link_refused'), 0)
  t.equal(valueOf(down, 'vra_agent_link_losses_total{code="PEER_LOST"}'), 1)
  events.linkDown({ code: 'UNKNOWN_VPG', sentence: 'no such VPG', retryDelayMillis: 100, refused: true })
  t.equal(valueOf(await metrics.render(), 'vra_agent_link_refused'), 1)
  events.linkUp({ address: 'vra:7420', epoch: 1, resendRecordCount: 0 })
  t.equal(valueOf(await metrics.render(), 'vra_agent_link_refused'), 0)
})

const promtool = spawnSync('promtool', ['--version']).status === 0

t.test('promtool has nothing to say', { skip: promtool ? false : 'promtool is not installed' }, async t => {
  const agent = new AgentMetrics({ version: '0.1.0', status: () => undefined })
  t.teardown(() => agent.close())
  for (const text of [await (await populatedMetrics(t)).text(), await agent.render()]) {
    const checked = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' })
    t.equal(checked.status, 0, checked.stderr)
    t.equal(checked.stderr + checked.stdout, '')
  }
})
