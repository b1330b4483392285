import type { AgingHandlers } from '../aging/aging.ts'
import type { AgingNotices } from '../aging/service.ts'
import type { Catalog } from '../catalog/catalog.ts'
import type { CatalogEvents } from '../catalog/events.ts'
import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import { formatCheckpointId, type VpgId } from '../base/ids.ts'
import type { IngestEvents } from '../ingest/events.ts'
import type { Ingest } from '../ingest/ingest.ts'
import type { JournalEvents } from '../journal/events.ts'
import type { Journal } from '../journal/journal.ts'
import type { Metrics } from '../metrics/metrics.ts'
import type { RecoveryEvents, StandbyEvents } from '../recovery/events.ts'
import type { Histories } from './histories.ts'
import type { Log } from './log.ts'
import type { Meter } from './meter.ts'
import type { Pacer } from './pacer.ts'
import type { VpgTable } from './vpg-table.ts'
import type { WholeSyncs } from './whole-syncs.ts'
import type { SyncKind } from '../wire/messages.ts'

// Who hears of what: events of the parts go to metrics (all of them), to the log (what a person wants to read), and to the
// parts that act on them.

/** Every event to the first, then to the second where that listens to it. */
export function both<Events extends object>(first: Events, second: Partial<Events>): Events {
  const names = Object.keys(first) as (keyof Events & string)[]
  const joined = names.map(name => {
    const [a, b] = [first[name], second[name]] as [Listener, Listener | undefined]
    if (b === undefined) return [name, a]
    const tell: Listener = (...facts) => {
      a(...facts)
      b(...facts)
    }
    return [name, tell]
  })
  return Object.fromEntries(joined) as Events
}

type Listener = (...facts: unknown[]) => void

export function journalEvents(metrics: Metrics, log: Log): JournalEvents {
  return both(metrics.journal, {
    fileRotated: file => log.debug(file, 'logFileRotated'),
    journalFull: state => log.error(state, 'journalFull'),
    journalResumed: state => log.info(state, 'journalResumed'),
    diskFailed: file => log.error(file, 'journalDiskFailed'),
    tornTailCut: tail => log.info(tail, 'tornTailCut'),
    damageFound: damage => log.error(damage, 'journalDamageFound'),
  })
}

/** What is tried again several times a second is told of once a minute. */
const failingAgainMillis = 60_000

/** An index that had to be begun anew while in use is filled by a start of the daemon, so that is what is asked for. */
export function catalogEvents(
  log: Log,
  clock: Pick<Clock, 'monotonicMillis'>,
  endDaemon: (error: Error) => void,
): CatalogEvents {
  let told = { sentence: '', atMillis: 0 }
  return {
    catalogBegunAnew: reason => {
      log.error({ reason }, 'indexLost')
      endDaemon(new Failure('RECORD_CORRUPT', `the journal index was damaged and is rebuilt by a restart: ${reason}`))
    },
    tailRowsDropped: count => log.warn({ count }, 'indexRowsDropped'),
    catalogFailing: sentence => {
      const atMillis = clock.monotonicMillis()
      if (sentence === told.sentence && atMillis - told.atMillis < failingAgainMillis) return
      told = { sentence, atMillis }
      log.warn({ sentence }, 'indexFailing')
    },
  }
}

export interface IngestListeners {
  readonly wholeSyncs: Pick<WholeSyncs, 'begun'>
  readonly table: VpgTable
  readonly meter: Meter
  readonly metrics: Metrics
  readonly pacer: Pacer
  readonly catalog: Catalog
  readonly log: Log
}

export function ingestEvents({
  wholeSyncs,
  table,
  meter,
  metrics,
  pacer,
  catalog,
  log,
}: IngestListeners): IngestEvents {
  const nameOf = (vpg: VpgId | undefined): string | undefined =>
    vpg === undefined ? undefined : table.get(vpg)?.definition.name
  return both(metrics.ingest, {
    sessionOpened: session => {
      table.get(session.vpg)?.progress.sessionOpened(session.stream)
      log.info({ ...session, vpg: nameOf(session.vpg) }, 'sessionOpened')
    },
    sessionClosed: (session, end, sentence) => {
      if (session !== undefined) table.get(session.vpg)?.progress.sessionClosed(session.stream)
      log.info({ agent: session?.agent, address: session?.address, end, sentence }, 'sessionClosed')
    },
    generationOpened: (vpg, { stream, agent, generation, volumes }) => {
      const syncs = volumes.filter(({ sync }) => sync !== 'none').map(({ name, sync }) => `${name}: ${sync}`)
      log.info({ vpg: nameOf(vpg), stream, agent, generation, syncs }, 'generationOpened')
      const wholeVolumes = volumes.filter(({ sync }) => isWhole(sync)).map(({ number }) => number)
      if (wholeVolumes.length === 0) return
      wholeSyncs.begun({ vpg, stream, generation, wholeVolumes })
    },
    coordinatorChanged: (vpg, { agent, term }) => log.info({ vpg: nameOf(vpg), agent, term }, 'coordinatorChanged'),
    batchDurable: (vpg, batch) => {
      pacer.observe(batch.ackLatencyMillis)
      meter.add(batch.writeCount, batch.rawSizeBytes)
      const entry = table.get(vpg)
      entry?.meter.add(batch.writeCount, batch.rawSizeBytes)
      entry?.progress.batchDurable(batch)
    },
    checkpointComplete: (vpg, checkpoint) => {
      catalog.addCheckpoints(vpg, [checkpoint])
      log.debug({ vpg: nameOf(vpg), ordinal: checkpoint.ordinal }, 'checkpointComplete')
    },
    agentStatusChanged: (vpg, stream, status) => {
      table.get(vpg)?.progress.statusChanged(status)
      const ailing = status.volumes.filter(volume => volume.needsSync && volume.sync === 'none')
      if (ailing.length > 0) log.warn({ vpg: nameOf(vpg), stream, volumes: ailing }, 'agentNeedsSync')
    },
  })
}

/** Every block is sent, or compared. */
function isWhole(sync: SyncKind): boolean {
  return sync !== 'none' && sync !== 'bitmap'
}

/** While the parts that act are being opened: a VPG that is left alone is told of, or nobody knows why its agents are refused. */
export function earlyAgingHandlers(listeners: EarlyListeners): AgingHandlers {
  return {
    ...tellingHandlers(listeners),
    fenced: ({ vpg, sentence }) => {
      listeners.log.fatal({ vpg, sentence }, 'fenced')
      listeners.fencedAtStart(sentence)
    },
  }
}

export type EarlyListeners = TellingListeners & {
  /** A VPG that was this appliance's is another one's. */
  readonly fencedAtStart: (sentence: string) => void
}

type TellingListeners = DamageListeners & Pick<AgingListeners, 'storeOpened'> & Partial<Pick<AgingListeners, 'ingest'>>

/** What is the same before and after the parts that act are open. */
function tellingHandlers(listeners: TellingListeners): AgingHandlers {
  return {
    damageFound: ({ vpg, sentence }) => tellDamage(listeners, vpg, sentence),
    damageMended: ({ vpg, what }) => {
      const entry = listeners.table.get(vpg)
      if (entry?.removeDamage(what) === true) listeners.log.info({ vpg: entry.definition.name, what }, 'damageMended')
    },
    storeAway: away => tellAway(listeners, away),
    storeOpened: ({ vpgs }) => listeners.storeOpened(vpgs),
    vpgWaits: ({ vpg, sentence, isRefused }) => {
      listeners.table.waiting.set(vpg, sentence)
      const facts = { vpg: listeners.table.get(vpg)?.definition.name ?? vpg, sentence }
      if (isRefused) listeners.log.error(facts, 'vpgWaits')
      else listeners.log.info(facts, 'vpgWaits')
    },
    adopted: notice => listeners.log.warn(notice, 'vpgAdopted'),
    sealingStopped: notice => tellSealing(listeners, notice),
    mergingStopped: ({ vpg, sentence }) => {
      const name = listeners.table.get(vpg)?.definition.name ?? vpg
      if (sentence === undefined) listeners.log.info({ vpg: name }, 'mergingGoesOn')
      else listeners.log.error({ vpg: name, sentence }, 'mergingStopped')
    },
  }
}

/** What nobody can seal is not to be acknowledged: the agents keep it, at last in their dirty maps. */
function tellSealing(
  { table, log, ingest }: TellingListeners,
  { vpg, sentence }: AgingNotices['sealingStopped'],
): void {
  if (sentence === undefined) table.sealingStopped.delete(vpg)
  else table.sealingStopped.set(vpg, sentence)
  ingest?.()?.stopIntake(vpg, notTakenBecause(sentence))
  const name = table.get(vpg)?.definition.name ?? vpg
  if (sentence === undefined) log.info({ vpg: name }, 'sealingGoesOn')
  else log.error({ vpg: name, sentence }, 'sealingStopped')
}

/** For the agents, and for whoever asks how the VPG is. */
export function notTakenBecause(sentence: string | undefined): string | undefined {
  if (sentence === undefined) return undefined
  return `nothing is taken until this is mended, for it could be kept in the log alone: ${sentence}`
}

function tellAway({ table, metrics, log }: DamageListeners, away: AgingNotices['storeAway']): void {
  table.storeAway = away
  metrics.aging.storeAway(away)
  if (away.isBusy === true) log.warn(away, 'storeBeingRead')
  else log.error(away, 'storeAway')
}

export type DamageListeners = Pick<AgingListeners, 'table' | 'metrics' | 'log'>

/** Damage that anybody has met: in the log and the metrics once, and in the status until the next start. */
export function tellDamage({ table, metrics, log }: DamageListeners, vpg: VpgId | undefined, sentence: string): void {
  if (!table.addDamage(vpg, sentence)) return
  metrics.aging.damageFound({ vpg, sentence })
  log.error({ vpg: vpg === undefined ? undefined : (table.get(vpg)?.definition.name ?? vpg), sentence }, 'damageFound')
}

/** What aging told before there was an ingest to act on it: another appliance's VPG is not served, offloaded marks are raised. */
export function catchUp(ingest: Pick<Ingest, 'offloaded' | 'removeVpg' | 'stopIntake'>, table: VpgTable): void {
  for (const [vpg, sentence] of table.sealingStopped) ingest.stopIntake(vpg, notTakenBecause(sentence))
  for (const { definition, fenced, offloaded } of table.all()) {
    if (fenced === undefined) ingest.offloaded(definition.id, offloaded)
    else ingest.removeVpg(definition.id)
  }
}

export function recoveryEvents(table: VpgTable, log: Log): RecoveryEvents {
  const nameOf = (vpg: VpgId): string => table.get(vpg)?.definition.name ?? vpg
  return {
    recoveryChanged: (vpg, { id, kind, state, target, checkpoint, createdAtMicros, readyAtMicros, failure }) => {
      const at = checkpoint === undefined ? undefined : formatCheckpointId(checkpoint.ordinal)
      const rtoMillis = readyAtMicros === undefined ? undefined : (readyAtMicros - createdAtMicros) / 1000
      const facts = { vpg: nameOf(vpg), id, kind, target: target.kind, checkpoint: at, state, rtoMillis }
      if (failure === undefined) log.info(facts, 'recovery')
      else log.error({ ...facts, failure: failure.sentence }, 'recoveryFailed')
    },
    recoveryInTrouble: (vpg, { id, kind, state }, sentence) =>
      log.warn({ vpg: nameOf(vpg), id, kind, state, sentence }, 'recoveryInTrouble'),
  }
}

export function standbyEvents(table: VpgTable, log: Log): StandbyEvents {
  const nameOf = (vpg: VpgId): string => table.get(vpg)?.definition.name ?? vpg
  return {
    standbyAdvanced: (vpg, { ordinal, putSizeBytes, millis }) =>
      log.info({ vpg: nameOf(vpg), checkpoint: formatCheckpointId(ordinal), putSizeBytes, millis }, 'standbyAdvanced'),
    standbyFailed: (vpg, { code, message }) => log.warn({ vpg: nameOf(vpg), code, sentence: message }, 'standbyFailed'),
    standbyEnded: vpg => log.info({ vpg: nameOf(vpg) }, 'standbyEnded'),
  }
}

export interface AgingListeners {
  readonly table: VpgTable
  readonly catalog: Catalog
  readonly journal: Journal
  readonly metrics: Metrics
  readonly log: Log
  /** Open a moment later than aging starts. */
  readonly ingest: () => Ingest | undefined
  readonly nowMicros: () => number
  readonly histories: Pick<Histories, 'change' | 'read'>
  /** What the store says of a VPG that it did not give at the start. */
  readonly vpgOpened: (notice: AgingNotices['vpgOpened']) => void
  /** What the store says after a start without it. */
  readonly storeOpened: (vpgs: AgingNotices['storeOpened']['vpgs']) => void
  /** Another appliance's from here on. */
  readonly fenced: (vpg: VpgId) => void
  /** Its definition is another one, and nobody waits to hear that. */
  readonly redefined: (vpg: VpgId) => void
  /** No VPG is left that this appliance owns, or another process is this appliance. */
  readonly allFenced: (sentence: string) => void
}

export function agingHandlers({
  table,
  catalog,
  journal,
  metrics,
  log,
  ingest,
  nowMicros,
  histories,
  vpgOpened,
  storeOpened,
  fenced,
  redefined,
  allFenced,
}: AgingListeners): AgingHandlers {
  const entryOf = (vpg: VpgId) => table.get(vpg)
  const nameOf = (vpg: VpgId): string => entryOf(vpg)?.definition.name ?? vpg
  // The index can be rebuilt, so a row that could not be written stops nothing.
  const indexFailed = (error: unknown): void => log.warn({ error: String(error) }, 'indexFailing')
  const change: Histories['change'] = (vpg, make) => histories.change(vpg, make).catch(indexFailed)
  const acting = both(metrics.aging, {
    segmentCommitted: ({ vpg, segment, offloaded, buildMillis, putMillis }) => {
      const entry = entryOf(vpg)
      if (entry !== undefined) entry.offloaded = offloaded
      ingest()?.offloaded(vpg, offloaded)
      change(vpg, () => catalog.addSegment({ vpg, segment, offloaded }))
      log.info(
        {
          vpg: nameOf(vpg),
          commit: segment.commitNumber,
          writes: segment.writeCount,
          sizeBytes: segment.object.sizeBytes,
          buildMillis: Math.round(buildMillis),
          putMillis: Math.round(putMillis),
        },
        'segmentCommitted',
      )
    },
    folded: ({ vpg, segmentsThroughCommit, ...facts }) => {
      change(vpg, () => catalog.dropSegments({ vpg, throughCommitNumber: segmentsThroughCommit }))
      log.info({ vpg: nameOf(vpg), ...rounded(facts) }, 'folded')
    },
    checkpointsGivenUp: ({ vpg, through }) => {
      ingest()?.giveUp(vpg, through)
      log.warn({ vpg: nameOf(vpg) }, 'checkpointsGivenUp')
    },
    regionRewritten: ({ vpg, ...facts }) => log.info({ vpg: nameOf(vpg), ...rounded(facts) }, 'regionRewritten'),
    deltasMerged: ({ vpg, ...facts }) => log.info({ vpg: nameOf(vpg), ...rounded(facts) }, 'deltasMerged'),
    historyEdgeMoved: ({ vpg, edge, kept }) => {
      const entry = entryOf(vpg)
      if (entry !== undefined) entry.historyEdge = edge
      change(vpg, () => catalog.dropCheckpoints({ vpg, edge, kept }))
    },
    checkpointsThinned: ({ vpg, dropped }) => {
      change(vpg, () => catalog.thinCheckpoints({ vpg, dropped }))
      log.debug({ vpg: nameOf(vpg), droppedCount: dropped.length }, 'checkpointsThinned')
    },
    tagsExpired: ({ vpg, names }) => {
      const entry = entryOf(vpg)
      if (entry !== undefined) entry.tags = entry.tags.filter(tag => !names.includes(tag.name))
      log.info({ vpg: nameOf(vpg), names }, 'tagsExpired')
    },
    historyCutShort: ({ vpg, isShort, journalLimitSizeBytes }) =>
      log.warn({ vpg: nameOf(vpg), isShort, journalLimitSizeBytes }, 'historyCutShort'),
    roomForSync: ({ vpg, isHeld }) => {
      ingest()?.holdSyncs(vpg, isHeld ? noRoomForSync : undefined)
      log.warn({ vpg: nameOf(vpg), isHeld }, 'roomForSync')
    },
    redefined: ({ vpg, definition }) => {
      const entry = entryOf(vpg)
      if (entry === undefined) return
      entry.definition = definition
      if (entry.fenced === undefined) ingest()?.updateVpg(definition)
      log.info({ vpg: nameOf(vpg) }, 'redefined')
      redefined(vpg)
    },
    holesChanged: ({ vpg, holes }) => {
      const entry = entryOf(vpg)
      if (entry !== undefined) entry.holes = holes
      log.info(
        { vpg: nameOf(vpg), openHoles: holes.filter(hole => hole.repairedFromOrdinal === undefined).length },
        'holesChanged',
      )
    },
    holeFound: ({ vpg, hole }) => {
      const entry = entryOf(vpg)
      if (entry !== undefined) entry.holes = [...entry.holes, hole]
      log.error(
        {
          vpg: nameOf(vpg),
          stream: hole.stream,
          firstSequence: hole.firstSequence,
          lastSequence: hole.lastSequence,
          reason: hole.reason,
        },
        'holeFound',
      )
    },
    recordsQuarantined: ({ vpg, ...facts }) => log.warn({ vpg: nameOf(vpg), ...facts }, 'recordsQuarantined'),
    historyRead: notice => {
      histories.read(notice).catch(indexFailed)
      log.debug({ vpg: nameOf(notice.vpg) }, 'historyRead')
    },
    vpgOpened: notice => vpgOpened(notice),
    logFileFree: ({ fileIdentity }) => journal.freeFile(fileIdentity),
    recordsForgotten: ({ vpg }) => log.warn({ vpg }, 'recordsForgotten'),
    garbageRemoved: ({ vpg, objectCount }) => log.debug({ vpg: nameOf(vpg), objectCount }, 'garbageRemoved'),
    storeFailing: ({ vpg, sentence }) => {
      const entry = entryOf(vpg)
      if (entry !== undefined) entry.storeFailure ??= { sentence, sinceMicros: nowMicros() }
      log.warn({ vpg: nameOf(vpg), sentence }, 'storeFailing')
    },
    storeRecovered: ({ vpg }) => {
      const entry = entryOf(vpg)
      if (entry !== undefined) entry.storeFailure = undefined
      log.info({ vpg: nameOf(vpg) }, 'storeRecovered')
    },
    fenced: ({ vpg, sentence }) => {
      const entry = entryOf(vpg)
      if (entry !== undefined) entry.fenced = sentence
      ingest()?.removeVpg(vpg)
      fenced(vpg)
      log.fatal({ vpg: nameOf(vpg), sentence }, 'fenced')
      if (table.unknownCount === 0 && table.all().every(each => each.fenced !== undefined)) allFenced(sentence)
    },
    superseded: ({ sentence }) => {
      log.fatal({ sentence }, 'superseded')
      allFenced(sentence)
    },
    tenureTold: ({ sentence }) => log.warn({ sentence }, 'copyRefused'),
  })
  return { ...acting, ...tellingHandlers({ table, metrics, log, storeOpened, ingest }) }
}

const noRoomForSync =
  'the journal is at its limit, and would lose the last checkpoint: raise the limit, or let it pass (--sync-over-limit go-on)'

function rounded<T extends { readonly millis: number }>(facts: T): T {
  return { ...facts, millis: Math.round(facts.millis) }
}
