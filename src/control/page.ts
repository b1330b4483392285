import { createHash } from 'node:crypto'
import { pageScript, pageStyle } from './page-assets.ts'
import type {
  AgentFacts,
  Alert,
  ExportJob,
  RecoveryFacts,
  Refusal,
  VolumeFacts,
  VpgState,
  VpgStatus,
  VraStatus,
} from './service.ts'
import {
  agoInWords,
  countInWords,
  durationInWords,
  historyInWords,
  instantInWords,
  journalInWords,
  provenInWords,
  recoveryStateInWords,
  sizeInWords,
  syncInWords,
  verifiedInWords,
} from './words.ts'

// The status page: rendered here, whole, so that it says the same with and without JavaScript; the script only fetches the same facts again
// every two seconds. Everything that comes from outside passes `html`, which escapes it.

/** Text that is HTML already. */
class Html {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}

type Piece = Html | string | number | undefined | readonly Html[]

const escapes: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}

function html(strings: TemplateStringsArray, ...pieces: readonly Piece[]): Html {
  const inserted = pieces.map(piece => {
    if (piece instanceof Html) return piece.text
    if (Array.isArray(piece)) return piece.map((part: Html) => part.text).join('')
    return String(piece ?? '').replaceAll(/[&<>"']/g, letter => escapes[letter] ?? '')
  })
  return new Html(String.raw({ raw: strings }, ...inserted))
}

const sha256 = (text: string): string => `'sha256-${createHash('sha256').update(text).digest('base64')}'`

/** Nothing but the page's own style and script, and requests to this daemon. */
export const contentSecurityPolicy = [
  `default-src 'none'`,
  `style-src ${sha256(pageStyle)}`,
  `script-src ${sha256(pageScript)}`,
  `connect-src 'self'`,
  `img-src data:`,
  `base-uri 'none'`,
  `form-action 'none'`,
  `frame-ancestors 'none'`,
].join('; ')

const icon =
  "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect width='16' height='16' rx='4' fill='%231f6feb'/%3E%3Cpath d='M4 8.2 7 11l5-6' fill='none' stroke='white' stroke-width='2'/%3E%3C/svg%3E"

export function renderPage(status: VraStatus): string {
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        <noscript><meta http-equiv="refresh" content="5" /></noscript>
        <link rel="icon" href="${new Html(icon)}" />
        <title>VRA</title>
        ${new Html(`<style>${pageStyle}</style>`)}
      </head>
      <body>
        <main id="facts" aria-live="off">${new Html(renderFacts(status))}</main>
        ${new Html(`<script>${pageScript}</script>`)}
      </body>
    </html> `.text
}

/** The page's body. */
export function renderFacts(status: VraStatus): string {
  return html`${header(status)}${status.alerts.map(alertLine)}${tiles(status)}
    <h2>Protection groups</h2>
    ${status.vpgs.length === 0 ? noVpgs : status.vpgs.map(vpg => vpgCard(vpg, status.nowMicros))}
    ${refusedSection([...status.refusals, ...status.vpgs.flatMap(vpg => vpg.refusals)], status.nowMicros)}
    ${recoveriesSection(
      status.vpgs.flatMap(vpg => vpg.recoveries),
      status.nowMicros,
    )}
    ${exportsSection(status.exports, status.nowMicros)}
    <footer>
      <span>data <code>${status.dataDirectory}</code></span
      ><span>store <code>${status.store}</code></span>
      <span
        >agents connect to
        <code>${status.listen.host}:${status.listen.port}</code> (${status.listen.tls ? 'TLS 1.3' : 'plain TCP'})</span
      >
      <span
        ><a href="/openapi.json">API</a> · <a href="/metrics">metrics</a> · <a href="/v1/status">this as JSON</a></span
      >
    </footer>`.text
}

function header(status: VraStatus): Html {
  const state = overallState(status)
  return html`<header>
    <h1>Recovery site <span class="pill ${state.tone}" data-title="${state.word}">${state.word}</span></h1>
    <p>
      ${status.software} · up ${durationInWords((status.nowMicros - status.startedAtMicros) / 1000)} ·
      <time>${instantInWords(status.nowMicros).slice(0, 19)} UTC</time> <span id="stale" hidden>not answering</span>
    </p>
  </header>`
}

function overallState(status: VraStatus): { readonly word: string; readonly tone: string } {
  if (!status.ready) return { word: 'recovering', tone: 'warn' }
  if (status.alerts.some(alert => alert.severity === 'critical')) return { word: 'needs attention', tone: 'bad' }
  if (status.alerts.length > 0) return { word: 'degraded', tone: 'warn' }
  return status.vpgs.length === 0
    ? { word: 'nothing protected', tone: 'idle' }
    : { word: 'all protected', tone: 'good' }
}

function alertLine(alert: Alert): Html {
  const about = alert.vpg === undefined ? '' : html`<b>${alert.vpg}</b> `
  return html`<p class="alert ${alert.severity === 'critical' ? 'bad' : 'warn'}" role="alert">
    ${about}${alert.sentence}
  </p>`
}

function tiles({ ingest, journal, vpgs }: VraStatus): Html {
  const worstRpo = vpgs.reduce<VpgStatus | undefined>(
    (worst, vpg) => ((vpg.rpoMillis ?? -1) > (worst?.rpoMillis ?? -1) ? vpg : worst),
    undefined,
  )
  const mirrorSizeBytes = vpgs.reduce(
    (sum, { mirror }) => sum + mirror.segmentSizeBytes + mirror.deltaSizeBytes + mirror.baseSizeBytes,
    0,
  )
  const logShare = Math.min(1, journal.logSizeBytes / journal.logSizeBytesMax)
  return html`<section class="tiles">
    ${tile('RPO, worst group', worstRpo?.rpoMillis === undefined ? '–' : durationInWords(worstRpo.rpoMillis), worstRpo === undefined ? 'no checkpoint yet' : worstRpo.name, series('rpo', worstRpo?.rpoMillis))}
    ${tile('Writes', `${countInWords(ingest.writesPerSecond)}/s`, `${countInWords(ingest.writesTotal)} in all`, series('writes', ingest.writesPerSecond))}
    ${tile('Throughput', `${sizeInWords(ingest.bytesPerSecond)}/s`, `${sizeInWords(ingest.bytesTotal)} in all`, series('bytes', ingest.bytesPerSecond))}
    ${tile('Ack latency p99', latencyInWords(ingest.ackMillisP99), `p50 ${latencyInWords(ingest.ackMillisP50)} · ${ingest.sessionCount} ${ingest.sessionCount === 1 ? 'session' : 'sessions'}`, series('ack', ingest.ackMillisP99))}
    ${tile('Journal', sizeInWords(journal.logSizeBytes), `of ${sizeInWords(journal.logSizeBytesMax)} · ${sizeInWords(journal.diskFreeBytes)} free on disk`, meter(logShare, 'journal in use', logShare > 0.9 ? 'bad' : logShare > 0.75 ? 'warn' : 'good'))}
    ${tile('Mirror', sizeInWords(mirrorSizeBytes), 'segments, deltas and base in the store', html``)}
  </section>`
}

/** Latencies below a second want their tenths. */
function latencyInWords(millis: number): string {
  return millis < 100 ? `${millis.toFixed(1)} ms` : durationInWords(millis)
}

function tile(label: string, value: string, note: string, graphic: Html): Html {
  return html`<div class="tile">
    <span class="label">${label}</span><span class="value">${value}</span><span class="note">${note}</span>${graphic}
  </div>`
}

/** The script keeps the last values of a series and draws them here. */
function series(name: string, value: number | undefined): Html {
  return html`<svg
    class="spark"
    data-series="${name}"
    data-value="${value ?? 0}"
    viewBox="0 0 120 24"
    preserveAspectRatio="none"
    aria-hidden="true"
  ></svg>`
}

function meter(share: number, label: string, tone: string): Html {
  return html`<svg
    class="meter ${tone}"
    viewBox="0 0 100 4"
    preserveAspectRatio="none"
    role="img"
    aria-label="${label}: ${Math.round(share * 100)} %"
  >
    <rect class="back" width="100" height="4" />
    <rect class="fill" width="${(share * 100).toFixed(1)}" height="4" />
  </svg>`
}

const noVpgs = html`<div class="card empty">
  Nothing is protected yet. Define a group, then start an agent:
  <pre>
vra vpg create web --volume root=20GiB --agent host1
vra protect --vpg web --agent host1 --disk root=/var/lib/disks/root.img</pre>
</div>`

const stateWords: Readonly<Record<VpgState, readonly [string, string]>> = {
  protected: ['protected', 'good'],
  syncing: ['syncing', 'warn'],
  paused: ['paused', 'warn'],
  'waiting-for-agent': ['waiting for agent', 'warn'],
  'needs-sync': ['needs sync', 'bad'],
  'journal-full': ['journal full', 'bad'],
  damaged: ['damaged', 'bad'],
  fenced: ['fenced', 'bad'],
}

function vpgCard(vpg: VpgStatus, nowMicros: number): Html {
  const [word, tone] = stateWords[vpg.state]
  const { mirror, latestCheckpoint: latest } = vpg
  const volumesSizeBytes = vpg.volumes.reduce((sum, volume) => sum + volume.sizeBytes, 0)
  return html`<article class="card">
    <div class="title">
      <h3>${vpg.name}</h3>
      <span class="pill ${tone}">${word}</span
      >${vpg.stateReason === undefined ? '' : html`<span class="reason">${vpg.stateReason}</span>`}
    </div>
    <dl>
      ${fact('RPO', vpg.rpoMillis === undefined ? '–' : durationInWords(vpg.rpoMillis))}
      ${fact('Newest checkpoint', latest === undefined ? 'none yet' : html`<code>${latest.checkpoint}</code> ${agoInWords(latest.timestampMicros, nowMicros)}`)}
      ${fact('Checkpoints', `${countInWords(vpg.checkpointCount)}, every ${durationInWords(vpg.checkpointIntervalMillis)}`)}
      ${fact('History', latest === undefined ? 'none yet' : historyInWords(vpg))}
      ${fact('Journal', journalInWords(vpg))}
      ${fact('Writes', `${countInWords(vpg.writesPerSecond)}/s · ${sizeInWords(vpg.bytesPerSecond)}/s`)}
      ${fact('Volumes', html`${vpg.volumes.length} · ${sizeInWords(volumesSizeBytes)}`)}
      ${fact('Not offloaded yet', sizeInWords(mirror.unsealedSizeBytes))}
      ${fact('Segments', `${countInWords(mirror.segmentCount)} · ${sizeInWords(mirror.segmentSizeBytes)}`)}
      ${fact('Deltas', `${countInWords(mirror.deltaCount)} · ${sizeInWords(mirror.deltaSizeBytes)}`)}
      ${fact('In the store', storedInWords(mirror))} ${fact('Verified', verifiedInWords(mirror, nowMicros) ?? '–')}
      ${provenFact(vpg, nowMicros)}
      ${fact('Base', `${countInWords(mirror.regionCount)} regions · ${sizeInWords(mirror.baseSizeBytes)}`)}
    </dl>
    ${vpg.tags.length === 0 ? '' : html`<p class="tags">${vpg.tags.map(tag => html`<span class="tag" title="${tag.checkpoint}">${tag.tag}</span>`)}</p>`}
    ${vpg.noCheckpointsBecause === undefined ? '' : html`<p class="alert warn">No checkpoints${noneSince(vpg, nowMicros)}: ${vpg.noCheckpointsBecause}</p>`}
    ${vpg.volumes.map(volumeSync)}
    ${vpg.holes.map(hole => html`<p class="alert bad">From checkpoint ${hole.fromCheckpoint} on nothing is offered: ${hole.reason}</p>`)}
    ${mirror.storeFailure === undefined ? '' : html`<p class="alert warn">The object store fails: ${mirror.storeFailure}</p>`}
    <table>
      <thead>
        <tr>
          <th>Agent</th>
          <th>State</th>
          <th class="number">Behind</th>
          <th class="number">Queued</th>
          <th class="number">Durable</th>
          <th class="number">Offloaded</th>
          <th>Address</th>
        </tr>
      </thead>
      <tbody>
        ${vpg.agents.map(agent => agentRow(agent, nowMicros))}
      </tbody>
    </table>
  </article>`
}

/** Where it is drilled at all. */
function provenFact({ drills }: VpgStatus, nowMicros: number): Html {
  const proven = provenInWords(drills, nowMicros)
  return proven === undefined ? html`` : fact('Proven recoverable', proven)
}

function storedInWords({ forms }: VpgStatus['mirror']): string {
  const [objectCount, sizeBytes] = forms.reduce(
    ([count, size], form) => [count + form.objectCount, size + form.sizeBytes],
    [0, 0],
  )
  return `${countInWords(objectCount)} object${objectCount === 1 ? '' : 's'} · ${sizeInWords(sizeBytes)}`
}

function noneSince({ noCheckpointsSinceMicros: since }: VpgStatus, nowMicros: number): string {
  return since === undefined ? '' : ` since ${agoInWords(since, nowMicros)}`
}

/** What a volume lacks here, and how far its synchronisation is. */
function volumeSync({ name, dirtyBytes, sync }: VolumeFacts): Html {
  if (sync === undefined && dirtyBytes === 0) return html``
  const dirty = dirtyBytes === 0 ? '' : `${sizeInWords(dirtyBytes)} marked by its agent, until that is offloaded`
  if (sync === undefined) return html`<p class="reason">Volume <b>${name}</b>: ${dirty}</p>`
  const share = sync.totalBytes === 0 ? 0 : Math.min(1, sync.doneBytes / sync.totalBytes)
  return html`<p>
    Volume <b>${name}</b>: ${syncInWords(sync)}
    <span class="reason">${sync.reason} ${dirty}</span>${meter(share, `synchronisation of ${name}`, 'good')}
  </p>`
}

function fact(label: string, value: string | Html): Html {
  return html`<div>
    <dt>${label}</dt>
    <dd>${value}</dd>
  </div>`
}

function agentRow(agent: AgentFacts, nowMicros: number): Html {
  const tone = { connected: 'good', disconnected: 'warn', 'needs-sync': 'bad' }[agent.state]
  const since =
    agent.connectedAtMicros === undefined
      ? ''
      : ` for ${agoInWords(agent.connectedAtMicros, nowMicros).replace(' ago', '')}`
  return html`<tr>
    <td><b>${agent.agent}</b></td>
    <td>
      <span class="dot ${tone}"></span
      >${agent.state}${since}${agent.reason === undefined ? '' : html`<br /><span class="reason">${agent.reason}</span>`}
    </td>
    <td class="number">${agent.lagMillis === undefined ? '–' : durationInWords(agent.lagMillis)}</td>
    <td class="number">
      ${sizeInWords(agent.queuedBytes)}${agent.queuedBytes === 0 || agent.backlogEtaMillis === undefined ? '' : html`<br /><span class="reason">${durationInWords(agent.backlogEtaMillis)} left</span>`}
    </td>
    <td class="number">${position(agent.durable)}</td>
    <td class="number">${position(agent.offloaded)}</td>
    <td>${agent.address ?? '–'}</td>
  </tr>`
}

function position({ generation, sequence }: AgentFacts['durable']): string {
  return generation === 0 ? '–' : `${generation}:${countInWords(sequence)}`
}

function refusedSection(refusals: readonly Refusal[], nowMicros: number): Html {
  if (refusals.length === 0) return html``
  return html`<h2>Refused</h2>
    <div class="card">
      <table>
        <thead>
          <tr>
            <th>Agent</th>
            <th>Group</th>
            <th>Address</th>
            <th>Last</th>
            <th class="number">Times</th>
            <th>Why</th>
          </tr>
        </thead>
        <tbody>
          ${refusals.map(refusal => refusedRow(refusal, nowMicros))}
        </tbody>
      </table>
    </div>`
}

function refusedRow(refusal: Refusal, nowMicros: number): Html {
  return html`<tr>
    <td><b>${refusal.agent ?? '–'}</b></td>
    <td>${refusal.vpg ?? '–'}</td>
    <td>${refusal.address}</td>
    <td>${agoInWords(refusal.lastTimestampMicros, nowMicros)}</td>
    <td class="number">${countInWords(refusal.count)}</td>
    <td><span class="dot bad"></span>${refusal.code}<br /><span class="reason">${refusal.sentence}</span></td>
  </tr>`
}

function recoveriesSection(recoveries: readonly RecoveryFacts[], nowMicros: number): Html {
  if (recoveries.length === 0) return html``
  return html`<h2>Recoveries</h2>
    <div class="card">
      <table>
        <thead>
          <tr>
            <th>Recovery</th>
            <th>Checkpoint</th>
            <th>Where</th>
            <th>State</th>
          </tr>
        </thead>
        <tbody>
          ${recoveries.map(recovery => recoveryRow(recovery, nowMicros))}
        </tbody>
      </table>
    </div>`
}

function recoveryRow(recovery: RecoveryFacts, nowMicros: number): Html {
  const { id, vpg, kind, state, target, checkpoint, checkpointTimestampMicros, things, trouble } = recovery
  const tone = trouble !== undefined ? 'bad' : state === 'ready' ? 'good' : 'busy'
  const of = checkpointTimestampMicros === undefined ? '' : instantInWords(checkpointTimestampMicros).slice(0, 19)
  return html`<tr>
    <td><b>${vpg}</b> ${recovery.drill === undefined ? kind : 'drill'} <code>${id}</code></td>
    <td>
      <code>${checkpoint}</code>
      <span class="note">${of}</span>
    </td>
    <td>${things.length === 0 ? target : things.map(({ place }) => html`<code>${place}</code><br />`)}</td>
    <td>
      <span class="dot ${tone}"></span>${recoveryStateInWords(recovery, nowMicros)}${
        trouble === undefined ? '' : html`<br /><span class="reason">${trouble}</span>`
      }
    </td>
  </tr>`
}

function exportsSection(exports: readonly ExportJob[], nowMicros: number): Html {
  if (exports.length === 0) return html``
  return html`<h2>Exports</h2>
    <div class="card">
      <table>
        <thead>
          <tr>
            <th>Volume</th>
            <th>Checkpoint</th>
            <th>File</th>
            <th>State</th>
            <th class="number">Copied</th>
          </tr>
        </thead>
        <tbody>
          ${exports.map(job => exportRow(job, nowMicros))}
        </tbody>
      </table>
    </div>`
}

function exportRow(job: ExportJob, nowMicros: number): Html {
  const tone = { running: 'busy', done: 'good', failed: 'bad', cancelled: 'idle' }[job.state]
  const share = job.sizeBytes === 0 ? 1 : job.doneBytes / job.sizeBytes
  const state =
    job.state === 'running'
      ? html`<span class="dot busy"></span>${Math.floor(share * 100)} %${meter(share, 'exported', 'busy')}`
      : html`<span class="dot ${tone}"></span>${job.state}
          ${agoInWords(job.endedAtMicros ?? job.startedAtMicros, nowMicros)}${job.failure === undefined ? '' : html`<br /><span class="reason">${job.failure.sentence}</span>`}`
  return html`<tr>
    <td><b>${job.vpg}</b> ${job.volume}</td>
    <td>
      <code>${job.checkpoint}</code>
      <span class="note">${instantInWords(job.checkpointTimestampMicros).slice(0, 19)}</span>
    </td>
    <td><code>${job.file}</code></td>
    <td>${state}</td>
    <td class="number">${sizeInWords(job.dataBytes)} of ${sizeInWords(job.sizeBytes)}</td>
  </tr>`
}
