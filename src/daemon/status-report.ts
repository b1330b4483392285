import { noStoreRequests, type Aging } from '../aging/aging.ts'
import type { MirrorFacts } from '../aging/service.ts'
import type { Catalog } from '../catalog/catalog.ts'
import type { Clock } from '../base/clock.ts'
import { assert } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'
import { formatCheckpointId } from '../base/ids.ts'
import { regionSizeBytes } from '../base/limits.ts'
import type * as api from '../control/service.ts'
import { drillInWords, syncInWords } from '../control/words.ts'
import type { Disk } from '../disk/disk.ts'
import type { Ingest, Refusal, StreamStatus, VpgIngestStatus } from '../ingest/ingest.ts'
import type { Journal } from '../journal/journal.ts'
import type { Metrics, MetricsFacts } from '../metrics/metrics.ts'
import type { Checkpoint, Tag } from '../timeline/checkpoint.ts'
import { vmOf, type VolumeDefinition, type VpgDefinition } from '../timeline/definition.ts'
import type { Hole } from '../timeline/state.ts'
import { densitiesOf } from '../timeline/densities.ts'
import type { VolumeStatus } from '../wire/messages.ts'
import { checkpointFacts, type CheckpointOverview, type Checkpoints } from './checkpoints.ts'
import type { Drills } from './drills.ts'
import { notTakenBecause } from './events.ts'
import type { Exports } from './exports.ts'
import { journalLimitAlerts } from './journal-limits.ts'
import type { Meter } from './meter.ts'
import type { RecoveryControl } from './recovery-control.ts'
import type { VpgEntry, VpgTable } from './vpg-table.ts'

/** The other threads are asked for so many VPGs in one question: each answers it between two steps of its work, and is held up no longer than that takes. */
const vpgsAskedAtOnceMax = 64

export interface StatusReportParts {
  readonly aging: Aging
  readonly catalog: Catalog
  readonly checkpoints: Checkpoints
  readonly clock: Clock
  readonly disk: Disk
  readonly exports: Exports
  readonly ingest: Ingest
  readonly journal: Journal
  readonly meter: Meter
  readonly metrics: Metrics
  readonly drills: Pick<Drills, 'ofVpg'>
  readonly recoveries: Pick<RecoveryControl, 'ofVpg'>
  readonly table: VpgTable
}

export interface StatusFacts {
  readonly software: string
  readonly applianceId: string
  readonly startedAtMicros: number
  readonly dataDirectory: string
  readonly store: string
  readonly listen: api.VraStatus['listen']
}

/** Puts together what people see of the daemon. Every answer costs two questions to other threads for many VPGs. */
export class StatusReport {
  readonly #parts: StatusReportParts
  readonly #facts: StatusFacts

  constructor(parts: StatusReportParts, facts: StatusFacts) {
    this.#parts = parts
    this.#facts = facts
  }

  /** What is scraped: the status without what it says in sentences. */
  async metricsFacts(): Promise<MetricsFacts> {
    const { clock, exports } = this.#parts
    const vpgs = await this.vpgs()
    return {
      nowMicros: clock.timestampMicros(),
      queues: await this.#queues(),
      storeFailing: this.#storeFailing(),
      journal: await this.#journal(),
      ingest: { sessionCount: sessionCountOf(vpgs) },
      vpgs,
      cache: await exports.cacheFacts(),
    }
  }

  async status(): Promise<api.VraStatus> {
    const { clock, exports, ingest } = this.#parts
    const vpgs = await this.vpgs()
    const journal = await this.#journal()
    const nowMicros = clock.timestampMicros()
    const refusals = ingest.refusals()
    const alerts = [
      ...journalAlerts(journal),
      ...vpgs.flatMap(alertsOf),
      ...vpgs.flatMap(journalLimitAlerts),
      ...vpgs.flatMap(recoveryAlerts),
      ...vpgs.flatMap(drillAlerts),
      ...this.#storeAlerts(),
      ...this.#otherAlerts(),
      ...refusalAlerts(refusals, undefined, nowMicros),
      ...vpgs.flatMap(vpg => refusalAlerts(strangersTo(vpg), vpg.name, nowMicros)),
    ]
    return {
      ...this.#facts,
      nowMicros,
      queues: await this.#queues(),
      storeFailing: this.#storeFailing(),
      ready: true,
      alerts: gravestFirst(alerts),
      journal,
      ingest: this.#ingest(vpgs),
      refusals,
      vpgs,
      exports: exports.list(),
      cache: await exports.cacheFacts(),
    }
  }

  async vpgs(): Promise<api.VpgStatus[]> {
    const entries = this.#parts.table.all()
    const found: api.VpgStatus[] = []
    for (let first = 0; first < entries.length; first += vpgsAskedAtOnceMax)
      found.push(...(await this.#some(entries.slice(first, first + vpgsAskedAtOnceMax))))
    return found
  }

  async vpg(entry: VpgEntry): Promise<api.VpgStatus> {
    const [found] = await this.#some([entry])
    assert(found !== undefined, 'who is asked after one answers for one')
    return found
  }

  async #some(entries: readonly VpgEntry[]): Promise<api.VpgStatus[]> {
    const { aging, checkpoints } = this.#parts
    const missing = (error: unknown): ReturnType<typeof noMirror>[] => entries.map(() => noMirror(error))
    const [overviews, mirrors] = await Promise.all([
      checkpoints.overviews(entries),
      aging.statuses({ vpgs: entries.map(({ definition }) => definition.id) }).catch(missing),
    ])
    return entries.flatMap((entry, index) => {
      const [overview, mirror] = [overviews[index], mirrors[index]]
      return overview === undefined || mirror === undefined ? [] : [this.#one(entry, overview, mirrorFactsOf(mirror))]
    })
  }

  #one(entry: VpgEntry, overview: CheckpointOverview, mirror: MirrorFacts): api.VpgStatus {
    const { latest, latestOfAll, oldest, checkpointCount } = overview
    const { clock, ingest, journal, table } = this.#parts
    const { definition } = entry
    const vpg = definition.id
    const serving = entry.fenced === undefined ? ingest.status(vpg) : undefined
    const { streams, refusals, heldSyncs } = serving ?? { streams: [], refusals: [], heldSyncs: [] }
    const writing = streams.filter(({ stream }) => definition.volumes.some(volume => volume.stream === stream))
    const agents = writing.map(stream => agentFacts(entry, stream, refusals))
    const volumes = volumeFacts(entry, { streams, heldSyncs }, { agents, nowMicros: clock.timestampMicros() })
    const state = stateOf(entry, {
      ...{ agents, volumes },
      stalledBecause: journal.status().stalledBecause,
      notTakenBecause: notTakenBecause(table.sealingStopped.get(vpg)),
    })
    const { writesTotal, bytesTotal } = entry.meter
    return {
      id: vpg,
      name: definition.name,
      incarnation: definition.incarnation,
      epoch: entry.epoch,
      ...state,
      createdAtMicros: definition.createdAtMicros,
      historyMillis: definition.historyMillis,
      retention: densitiesOf(definition),
      checkpointIntervalMillis: definition.checkpointIntervalMillis,
      syncRateBytesPerSecond: definition.syncRateBytesPerSecond,
      journalWarnSizeBytes: definition.journalWarnSizeBytes,
      journalLimitSizeBytes: definition.journalLimitSizeBytes,
      syncMayPassLimit: definition.syncMayPassLimit ?? false,
      snapshotKeys: snapshotKeyFacts(definition),
      paused: definition.paused,
      quiescedBy: definition.quiescedBy === '' ? undefined : definition.quiescedBy,
      volumes,
      coordinator: serving?.coordinator,
      noCheckpointsBecause: serving?.noCheckpointsBecause,
      noCheckpointsSinceMicros:
        serving?.noCheckpointsBecause === undefined ? undefined : serving.noCheckpointsSinceMicros,
      agents,
      refusals,
      rpoMillis:
        latestOfAll === undefined
          ? undefined
          : Math.max(0, (clock.timestampMicros() - latestOfAll.timestampMicros) / 1000),
      ...backlogOf(agents, volumes),
      ...this.#parts.recoveries.ofVpg(entry),
      drills: this.#parts.drills.ofVpg(entry),
      latestCheckpoint: latest === undefined ? undefined : checkpointFacts(entry, latest),
      oldestCheckpoint: oldest === undefined ? undefined : checkpointFacts(entry, oldest),
      checkpointCount,
      tags: entry.tags.map(tag => ({
        checkpoint: formatCheckpointId(tag.ordinal),
        tag: tag.name,
        taggedAtMicros: tag.taggedAtMicros,
        keptForMillis: keptForMillis(tag, latest),
      })),
      holes: entry.openHoles.map(hole => ({
        fromCheckpoint: formatCheckpointId(hole.fromOrdinal),
        reason: hole.reason,
      })),
      ...entry.meter.rates(),
      writesTotal,
      bytesTotal,
      mirror: { ...mirror, historyMillis: historyMillis(entry, mirror, { oldest, latest }) },
    }
  }

  /** Undefined while the store has not answered since the start. */
  async #queues(): Promise<api.VraStatus['queues']> {
    return await this.#parts.aging.queues(undefined).catch(() => undefined)
  }

  async #journal(): Promise<api.JournalStatus> {
    const { catalog, disk, journal, table } = this.#parts
    const { fileCount, liveSizeBytes, logSizeBytesMax, stalledBecause } = journal.status()
    const first = table.all()[0]
    const index = first === undefined ? undefined : await catalog.statistics({ vpg: first.definition.id })
    return {
      logSizeBytes: liveSizeBytes,
      logSizeBytesMax,
      logFileCount: fileCount,
      diskFreeBytes: disk.freeBytes(this.#facts.dataDirectory),
      indexSizeBytes: index?.fileSizeBytes ?? 0,
      full: stalledBecause,
    }
  }

  #ingest(vpgs: readonly api.VpgStatus[]): api.IngestStatus {
    const { meter, metrics } = this.#parts
    const { writesTotal, bytesTotal } = meter
    const { p50Millis, p99Millis } = metrics.ackLatency()
    return {
      sessionCount: sessionCountOf(vpgs),
      ...meter.rates(),
      ...{ writesTotal, bytesTotal, ackMillisP50: p50Millis, ackMillisP99: p99Millis },
    }
  }

  #otherAlerts(): api.Alert[] {
    return this.#parts.table.damageElsewhere.map(sentence => ({ severity: 'critical', vpg: undefined, sentence }))
  }

  #storeFailing(): api.VraStatus['storeFailing'] {
    const { table } = this.#parts
    const failures = table.all().flatMap(entry => entry.storeFailure ?? [])
    const away = table.storeAway
    if (away !== undefined && away.isBusy !== true) return away
    return failures.sort((a, b) => a.sinceMicros - b.sinceMicros)[0]
  }

  #storeAlerts(): api.Alert[] {
    const { storeAway } = this.#parts.table
    if (storeAway !== undefined) {
      const since = new Date(storeAway.sinceMicros / 1000).toISOString()
      const what = storeAway.isBusy === true ? 'is being read' : 'has not answered'
      const sentence =
        `the object store ${what} since ${since}, when this daemon was started: writes go to the journal until it is full, ` +
        `nothing is offloaded, and images can't be read: ${storeAway.sentence}`
      return [{ severity: 'warning', vpg: undefined, sentence }]
    }
    return [...this.#waitingAlerts(), ...this.#failureAlerts()]
  }

  /** Of VPGs that the store has not given since the start. */
  #waitingAlerts(): api.Alert[] {
    const { table } = this.#parts
    return [...table.waiting].map(([id, why]) => {
      const vpg = table.get(id)?.definition.name
      const sentence =
        vpg === undefined
          ? `VPG ${id} is not served, for the object store has not given it since the start; it is asked again and again: ${why}`
          : `the object store has not given it since the start: its writes go to the journal, nothing is offloaded, and images can't be read: ${why}`
      return { severity: 'warning', vpg, sentence }
    })
  }

  #failureAlerts(): api.Alert[] {
    return this.#parts.table.all().flatMap(entry => {
      if (entry.storeFailure === undefined) return []
      const since = new Date(entry.storeFailure.sinceMicros / 1000).toISOString()
      const sentence = `nothing is offloaded since ${since}: ${entry.storeFailure.sentence}`
      return [{ severity: 'warning', vpg: entry.definition.name, sentence } as const]
    })
  }
}

function sessionCountOf(vpgs: readonly api.VpgStatus[]): number {
  return vpgs.reduce((sum, { agents }) => sum + agents.filter(({ address }) => address !== undefined).length, 0)
}

/** Its synchronisation neither runs nor waits its turn: somebody has to see to it. */
function isAiling(volume: VolumeStatus): boolean {
  return volume.needsSync && volume.sync === 'none'
}

/** A recovery that does not get on, and one that is about to end by itself, are a person's business. */
function recoveryAlerts({ name, recoveries }: api.VpgStatus): api.Alert[] {
  return recoveries.flatMap(({ id, kind, state, trouble }) =>
    trouble === undefined
      ? []
      : [
          {
            severity: 'warning',
            vpg: name,
            sentence: `${kind} ${id} is ${state} and does not get on: ${trouble}`,
          } as const,
        ],
  )
}

/** What a drill found, and why none can be made; that one waits for a person's recovery is no news to that person. */
function drillAlerts({ name, drills: { last, waitsBecause }, recoveries }: api.VpgStatus): api.Alert[] {
  const alert = (sentence: string): api.Alert => ({ severity: 'warning', vpg: name, sentence })
  const outcome = last?.drill?.outcome
  const isBad = outcome === 'failed' || outcome === 'timed-out' || outcome === 'not-recovered'
  const found = isBad && last !== undefined ? [alert(lastDrillInWords(last))] : []
  if (waitsBecause === undefined || recoveries.length > 0) return found
  return [...found, alert(`is due to be drilled, and cannot be: ${waitsBecause}`)]
}

function lastDrillInWords(last: api.RecoveryFacts): string {
  return `has failed its last drill, ${last.id}, of checkpoint ${last.checkpoint}: ${drillInWords(last)}`
}

function volumeFacts(
  entry: VpgEntry,
  { streams, heldSyncs }: Pick<VpgIngestStatus, 'streams' | 'heldSyncs'>,
  { agents, nowMicros }: { readonly agents: readonly api.AgentFacts[]; readonly nowMicros: number },
): api.VolumeFacts[] {
  const heldBecause = (number: number): string | undefined =>
    heldSyncs.find(held => held.volumes.includes(number))?.reason
  return entry.definition.volumes.map(volume => {
    const { number, name, sizeBytes, stream } = volume
    const told = streams
      .find(candidate => candidate.stream === stream)
      ?.agentStatus?.volumes.find(volume => volume.number === number)
    const agent = entry.definition.streams.find(candidate => candidate.number === stream)?.agent ?? ''
    const dirtyBytes = told?.dirtyBytes ?? 0
    const sync = told === undefined ? undefined : syncFacts(entry, told, heldBecause(number))
    const { lagMillis, backlogEtaMillis } = agents.find(each => each.stream === stream) ?? {}
    const backlog = sync === undefined ? { lagMillis, backlogBytes: 0, backlogEtaMillis } : syncBacklog(sync, nowMicros)
    const vm = vmOf(entry.definition, volume)
    return { number, name, sizeBytes, agent, vm, dirtyBytes, ...backlog, sync, preseed: preseedFacts(volume) }
  })
}

/** What is marked may be as old as the synchronisation. */
function syncBacklog(
  sync: api.SyncFacts,
  nowMicros: number,
): Pick<api.VolumeFacts, 'lagMillis' | 'backlogBytes' | 'backlogEtaMillis'> {
  return {
    lagMillis: Math.max(0, (nowMicros - sync.sinceMicros) / 1000),
    backlogBytes: Math.max(0, sync.totalBytes - sync.doneBytes),
    backlogEtaMillis: sync.heldBecause === undefined ? sync.etaMillis : undefined,
  }
}

/** Of the whole group: as far as its furthest behind. */
function backlogOf(
  agents: readonly api.AgentFacts[],
  volumes: readonly api.VolumeFacts[],
): Pick<api.VpgStatus, 'lagMillis' | 'backlogBytes' | 'backlogEtaMillis'> {
  const most = (values: readonly (number | undefined)[]): number | undefined =>
    values.reduce<number | undefined>(
      (largest, each) => (largest === undefined || each === undefined ? undefined : Math.max(largest, each)),
      0,
    )
  return {
    lagMillis: most([...agents, ...volumes].map(each => each.lagMillis)),
    backlogBytes: [...agents.map(each => each.queuedBytes), ...volumes.map(each => each.backlogBytes)].reduce(
      (sum, bytes) => sum + bytes,
      0,
    ),
    backlogEtaMillis: most([...agents, ...volumes].map(each => each.backlogEtaMillis)),
  }
}

function preseedFacts({ preseed, sizeBytes }: VolumeDefinition): api.VolumeFacts['preseed'] {
  if (preseed === undefined) return undefined
  const { state, file, doneRegionCount } = preseed
  return { state, file, doneBytes: Math.min(sizeBytes, doneRegionCount * regionSizeBytes) }
}

function syncFacts(entry: VpgEntry, told: VolumeStatus, heldBecause: string | undefined): api.SyncFacts | undefined {
  const { number, sync: kind, reason, sinceTimestampMicros } = told
  if (kind === 'none') return undefined
  return {
    kind,
    reason,
    heldBecause,
    sinceMicros: sinceTimestampMicros,
    totalBytes: told.syncTotalBytes,
    doneBytes: told.syncDoneBytes,
    sentBytes: told.syncSentBytes,
    ...entry.progress.syncRate(number),
  }
}

function agentFacts(entry: VpgEntry, stream: StreamStatus, refusals: readonly Refusal[]): api.AgentFacts {
  const ailing = stream.agentStatus?.volumes.filter(isAiling) ?? []
  const { volumes } = entry.definition
  const nameOf = (number: number) => volumes.find(volume => volume.number === number)?.name ?? number
  const queuedBytes = stream.agentStatus?.queuedBytes ?? 0
  const { waitingFrameCount } = stream
  const isConnected = stream.session !== undefined
  const backlog = entry.progress.backlog(stream.stream, { isConnected, queuedBytes, waitingFrameCount })
  const ailment = ailing.map(volume => `volume ${nameOf(volume.number)}: ${volume.reason}`).join('; ')
  const away = { address: stream.session?.address, disconnectedAtMicros: entry.progress.awaySinceMicros(stream.stream) }
  const refusal = refusals.find(refusal => refusal.agent === stream.agent && isWhyAway(refusal, away))
  const left = stream.refusedVolumes.map(({ sentence }) => sentence)
  const reason = [ailment, refusal === undefined ? '' : refusedInWords(refusal), ...left].filter(Boolean).join('; ')
  return {
    agent: stream.agent,
    stream: stream.stream,
    state: ailing.length > 0 ? 'needs-sync' : stream.session === undefined ? 'disconnected' : 'connected',
    reason: reason === '' ? undefined : reason,
    lacksVolumes: stream.refusedVolumes.length > 0,
    ...away,
    software: stream.session?.software,
    connectedAtMicros: stream.session?.sinceTimestampMicros,
    peerAddress: stream.peerAddress === '' ? undefined : stream.peerAddress,
    queuedBytes,
    lagMillis: backlog.lagMillis,
    backlogEtaMillis: backlog.etaMillis,
    durable: stream.durable,
    offloaded: stream.offloaded,
  }
}

function stateOf(
  entry: VpgEntry,
  {
    agents,
    volumes,
    stalledBecause,
    notTakenBecause,
  }: Pick<api.VpgStatus, 'agents' | 'volumes'> & {
    readonly stalledBecause: string | undefined
    readonly notTakenBecause: string | undefined
  },
): { readonly state: api.VpgState; readonly stateReason: string | undefined } {
  if (entry.fenced !== undefined) return { state: 'fenced', stateReason: entry.fenced }
  if (notTakenBecause !== undefined) return { state: 'damaged', stateReason: notTakenBecause }
  const [hole] = entry.openHoles
  if (hole !== undefined)
    return {
      state: 'damaged',
      stateReason: `checkpoints from ${formatCheckpointId(hole.fromOrdinal)} on are withdrawn: ${hole.reason}; ${repairInWords(hole)}`,
    }
  if (entry.damage[0] !== undefined) return { state: 'damaged', stateReason: entry.damage[0] }
  const ailing = agents.find(agent => agent.state === 'needs-sync')
  if (ailing !== undefined) return { state: 'needs-sync', stateReason: `${ailing.agent}: ${ailing.reason ?? ''}` }
  if (stalledBecause !== undefined) return { state: 'journal-full', stateReason: stalledBecause }
  if (entry.definition.paused)
    return {
      state: 'paused',
      stateReason: 'it was paused; what is written meanwhile is synchronised when it is resumed',
    }
  const away = agents.find(agent => agent.state === 'disconnected')
  if (away !== undefined) {
    const why = away.reason === undefined ? '' : `: ${away.reason}`
    return { state: 'waiting-for-agent', stateReason: `agent ${away.agent} is not connected${why}` }
  }
  const lacking = agents.find(agent => agent.lacksVolumes)
  if (lacking !== undefined)
    return { state: 'waiting-for-agent', stateReason: `${lacking.agent}: ${lacking.reason ?? ''}` }
  const syncing = volumes.find(volume => volume.sync !== undefined)
  if (syncing?.sync !== undefined)
    return { state: 'syncing', stateReason: `volume ${syncing.name}: ${syncInWords(syncing.sync)}` }
  return { state: 'protected', stateReason: undefined }
}

function repairInWords({ repair }: Hole): string {
  return repair === undefined
    ? 'its agent is asked to compare the volumes with their disks, which repairs it'
    : 'the volumes are compared with their disks, and the first checkpoint after that is whole again'
}

function gravestFirst(alerts: readonly api.Alert[]): api.Alert[] {
  const critical = alerts.filter(alert => alert.severity === 'critical')
  return [...critical, ...alerts.filter(alert => alert.severity !== 'critical')]
}

function journalAlerts(journal: api.JournalStatus): api.Alert[] {
  return journal.full === undefined ? [] : [{ severity: 'critical', vpg: undefined, sentence: journal.full }]
}

function alertsOf(vpg: api.VpgStatus): api.Alert[] {
  const sentence = vpg.stateReason ?? ''
  switch (vpg.state) {
    case 'damaged':
    case 'fenced':
    case 'needs-sync':
      return [{ severity: 'critical', vpg: vpg.name, sentence }]
    case 'waiting-for-agent':
    case 'paused':
      return [{ severity: 'warning', vpg: vpg.name, sentence }]
    default:
      return []
  }
}

function refusedInWords({ code, sentence, count, lastTimestampMicros }: Refusal): string {
  const times = count === 1 ? '' : `${count} times, `
  return `refused (${code}) ${times}last at ${new Date(lastTimestampMicros / 1000).toISOString()}: ${sentence}`
}

/** Of an agent's name: whoever was refused while the agent had its session was another one. */
function isWhyAway(
  { lastTimestampMicros }: Refusal,
  { address, disconnectedAtMicros }: Pick<api.AgentFacts, 'address' | 'disconnectedAtMicros'>,
): boolean {
  return address === undefined && (disconnectedAtMicros === undefined || lastTimestampMicros >= disconnectedAtMicros)
}

/** Refused peers that are none of the VPG's agents, or only say so; of an agent that is itself refused the VPG's state speaks. */
function strangersTo({ agents, refusals }: api.VpgStatus): readonly Refusal[] {
  return refusals.filter(refusal => !agents.some(agent => agent.agent === refusal.agent && isWhyAway(refusal, agent)))
}

/** An agent that is refused tries again within half a minute: what is much older is over. */
const refusalNewsMicros = 5 * 60_000_000

function refusalAlerts(refusals: readonly Refusal[], vpg: string | undefined, nowMicros: number): api.Alert[] {
  return refusals
    .filter(({ agent }) => agent !== undefined) // whoever tries a port is no news
    .filter(({ lastTimestampMicros }) => nowMicros - lastTimestampMicros < refusalNewsMicros)
    .map(refusal => ({ severity: 'warning', vpg, sentence: `${peerInWords(refusal)} is ${refusedInWords(refusal)}` }))
}

function peerInWords({ vpg, agent = '', address }: Refusal): string {
  return vpg === undefined ? `agent "${agent}" at ${address}` : `agent "${agent}" of VPG "${vpg}" at ${address}`
}

function keptForMillis({ keep }: Tag, latest: Checkpoint | undefined): number | undefined {
  if (keep === undefined) return undefined
  return Math.max(0, keep.millis - ((latest?.historyMillis ?? keep.fromHistoryMillis) - keep.fromHistoryMillis))
}

/** With what is in the log alone; where tags keep older ones, of what is in the store. */
function historyMillis(
  { tags }: VpgEntry,
  mirror: MirrorFacts,
  { oldest, latest }: { readonly oldest: Checkpoint | undefined; readonly latest: Checkpoint | undefined },
): number {
  if (oldest === undefined || latest === undefined) return mirror.historyMillis
  if (tags.some(tag => tag.ordinal === oldest.ordinal)) return mirror.historyMillis // it may be kept for its tag alone
  return Math.max(mirror.historyMillis, latest.historyMillis - oldest.historyMillis)
}

/** Where the aging thread has given the VPG up (fenced, damaged), the rest of the status is still worth showing. */
function mirrorFactsOf(answer: MirrorFacts | { readonly missingBecause: string }): MirrorFacts {
  if (!('missingBecause' in answer)) return answer
  return {
    isUnread: false,
    segmentCount: 0,
    segmentSizeBytes: 0,
    deltaCount: 0,
    deltaSizeBytes: 0,
    regionCount: 0,
    baseSizeBytes: 0,
    garbageCount: 0,
    unsealedSizeBytes: 0,
    unfoldedRawSizeBytes: 0,
    historyMillis: 0,
    historySizeBytes: 0,
    agedEarlySinceMicros: undefined,
    forms: [],
    requests: noStoreRequests,
    scrub: undefined,
    locks: undefined,
    storeFailure: answer.missingBecause,
  }
}

/** The thread has ended. */
function noMirror(error: unknown): { readonly missingBecause: string } {
  if (!(error instanceof Failure)) throw error
  return { missingBecause: error.message }
}

/** Those of volumes that it has no more are of nobody's concern. */
function snapshotKeyFacts({ snapshotKeys, volumes }: VpgDefinition): api.SnapshotKeyFacts {
  const own = volumes.flatMap(({ number, name }) => {
    const key = snapshotKeys?.ofVolumes[number]
    return key === undefined ? [] : [[name, key] as const]
  })
  const all = snapshotKeys?.ofAll
  return { ...(all === undefined ? {} : { all }), volumes: Object.fromEntries(own) }
}
