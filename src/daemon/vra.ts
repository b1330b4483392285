import { hostname } from 'node:os'
import * as path from 'node:path'
import { AwsTarget } from '../aws/aws.ts'
import { Aging, newPaceFlag, unpacked, type AgingHandlers } from '../aging/aging.ts'
import type { AgingNotices, OpenedVpg, PackedVpg } from '../aging/service.ts'
import { Catalog } from '../catalog/catalog.ts'
import { systemClock, type Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import { checkpointOrdinal, type Ordinal, type StreamPosition, type VpgId } from '../base/ids.ts'
import { untilTold } from '../base/told.ts'
import { MiB } from '../base/units.ts'
import { Shutdown } from '../base/shutdown.ts'
import type { VraConfig, VraStoreConfig } from '../config/config.ts'
import { realDisk, realFileCalls, replaceFileDurably } from '../disk/disk.ts'
import { Ingest } from '../ingest/ingest.ts'
import { Journal } from '../journal/journal.ts'
import { newSpoolRoom } from '../image/service.ts'
import { Live, type LiveOptions } from '../live/live.ts'
import type { LiveNotices } from '../live/service.ts'
import { Metrics } from '../metrics/metrics.ts'
import { runCheck } from '../recovery/check.ts'
import { Recoveries, Standbys } from '../recovery/recovery.ts'
import { Checkpoints } from './checkpoints.ts'
import { flushCompileCacheNow, useCompileCache } from './compile-cache.ts'
import { DataDirectory } from './data-directory.ts'
import {
  agingHandlers,
  catalogEvents,
  catchUp,
  earlyAgingHandlers,
  ingestEvents,
  journalEvents,
  recoveryEvents,
  standbyEvents,
  tellDamage,
} from './events.ts'
import { Drills } from './drills.ts'
import { Exports } from './exports.ts'
import { Hashes } from './hashes.ts'
import { untilAborted } from './lifetime.ts'
import type { Log } from './log.ts'
import { Meter } from './meter.ts'
import { Mounts } from './mounts.ts'
import { Pacer } from './pacer.ts'
import { Preseeds } from './preseeds.ts'
import { Histories } from './histories.ts'
import { loadHistory, loadRemembered, loadTail } from './load-catalog.ts'
import { certificateEndSeconds, readTls } from './tls-files.ts'
import { RecoveryControl } from './recovery-control.ts'
import { Repairs } from './repairs.ts'
import { recoveryTargets } from './recovery-targets.ts'
import { newestOfEachName, reconcile } from './reconcile.ts'
import { software } from './software.ts'
import { StopNotes } from './stop-notes.ts'
import { StatusReport } from './status-report.ts'
import { ScratchOrphans } from './scratch-orphans.ts'
import { ofReaders, withSharedLoad } from './store-roles.ts'
import { recoveredOfOthers, takeStore, takeVpg } from './store-return.ts'
import { Terms } from './terms.ts'
import { VerifyJobs } from './verify-jobs.ts'
import { VpgEntry, VpgTable } from './vpg-table.ts'
import { VpgWriters } from './vpg-writers.ts'
import { WholeSyncs } from './whole-syncs.ts'
import { DaemonControl } from './vra-control.ts'

const imageCacheSizeBytes = 64 * MiB

/**
 * Runs the VRA until the signal, or until a part of it ends that it cannot do without; then it rejects, and whoever
 * started it starts it again. `onReady` is called when agents and the API are served.
 */
export async function openVra(given: VraConfig, log: Log, onReady: () => void, signal: AbortSignal): Promise<void> {
  const config = { ...given, store: withSharedLoad(given.store) }
  const clock = systemClock
  const startedAtMicros = clock.timestampMicros()
  const parts = new Shutdown()
  try {
    const data = parts.own(await DataDirectory.open(realDisk, config.dataDirectory))
    useCompileCache(data.directory)
    const table = new VpgTable()
    const meter = new Meter(clock)
    let report: StatusReport | undefined
    const metrics = parts.own(
      new Metrics({
        version: software,
        certificateEndSeconds: certificateEndSeconds(config.listen.tls, log),
        facts: async () => {
          if (report === undefined) throw new Failure('CLOSING', 'the daemon is starting')
          return report.metricsFacts()
        },
      }),
    )

    // What the store knows, what the log has beyond it, and an index that says the same. Each has a thread of its own: they are
    // opened side by side, while the modules of the HTTP API, which are most of this program's, are loaded here.
    const paceFlag = newPaceFlag()
    const storeOpened = untilTold<readonly PackedVpg[]>()
    const superseded = untilLost()
    const standDown = (sentence: string): void => superseded.reject(new Failure('EPOCH_SUPERSEDED', sentence))
    let fencedAtStart: string | undefined
    const early = earlyAgingHandlers({
      table,
      metrics,
      log,
      storeOpened: storeOpened.tell,
      fencedAtStart: sentence => (fencedAtStart = sentence),
    })
    const handlers: { later: AgingHandlers } = { later: early }
    const indexLost = untilLost()
    const indexOpening = Catalog.open({ file: data.indexFile, events: catalogEvents(log, clock, indexLost.reject) })
    const opening = parts.ownAll<[Aging, Journal, Catalog]>([
      Aging.open(
        { ...agingConfig(config, data), paceFlag },
        lateHandlers(handlers),
        indexOpening.then(index => index.takeNotes()),
      ),
      Journal.open({
        directory: data.directory,
        logSizeBytesMax: config.journal.logSizeBytesMax,
        clock,
        events: journalEvents(metrics, log),
      }),
      indexOpening,
    ])
    const [[aging, journal, catalog], { ControlApi }] = await Promise.all([opening, import('../control/control.ts')])
    if (catalog.begunAnew && aging.vpgs.length > 0) log.warn({ reason: catalog.reason }, 'indexBegunAnew')
    const stop = new StopNotes({ aging, catalog, table })
    parts.own(stop)
    const { served, replaced } = newestOfEachName(aging.vpgs)
    for (const { definition } of replaced)
      log.error({ vpg: definition.name, id: definition.id }, 'vpgOfSameNameLeftAlone')
    const vpgs = reconcile(served, journal.recovered)
    for (const vpg of vpgs) table.add(new VpgEntry(vpg.opened, clock))
    if (fencedAtStart !== undefined && vpgs.length === 0) throw new Failure('EPOCH_SUPERSEDED', fencedAtStart)
    const terms = parts.own(
      Terms.open(realDisk, data.directory, (file, contents) => replaceFileDurably(realFileCalls, file, contents)),
    )
    const notPrepared = terms.prepare(
      vpgs.map(({ ingest }) => ({ id: ingest.definition.id, above: termOf(ingest.lastMarker) })),
    )
    if (notPrepared !== undefined) log.error({ error: notPrepared.message }, 'termsNotWritten')
    await (aging.isStoreAway ? loadRemembered(catalog, vpgs) : loadHistory(catalog, vpgs))
    if (!aging.isStoreAway) stop.indexIsWhole()
    for (const vpg of aging.vpgs) vpg.forgetCheckpoints() // they are in the index
    const unknownInLog = recoveredOfOthers(journal.recovered, served)
    const { untoldCount } = journal.recovered
    if (untoldCount > 0) log.warn({ count: untoldCount }, 'indexRowsDropped')

    // From here on agents are served.
    const notTaken = (error: Failure): void => log.warn({ error: error.message }, 'indexFailing')
    const histories = parts.own(new Histories({ aging, catalog, clock, table, notTaken }))
    const lateOpened: { take: (notice: AgingNotices['vpgOpened']) => void } = { take: () => undefined }
    let serving: Ingest | undefined
    let forgetRecoveries: (vpg: VpgId) => void = () => undefined
    let resumePreseeds: (vpg: VpgId) => void = () => undefined
    handlers.later = stop.watching(
      agingHandlers({
        table,
        catalog,
        journal,
        metrics,
        log,
        ingest: () => serving,
        nowMicros: () => clock.timestampMicros(),
        histories,
        vpgOpened: notice => lateOpened.take(notice),
        storeOpened: storeOpened.tell,
        fenced: vpg => forgetRecoveries(vpg),
        redefined: vpg => resumePreseeds(vpg),
        allFenced: standDown,
      }),
      error => log.warn({ error: String(error) }, 'indexFailing'),
    )
    const stopTelling = journal.onDurable(group => {
      aging.durable(group.mark)
      catalog.addTail(group.records.filter(record => record.kind === 'batch'))
    })
    parts.own({ close: async () => stopTelling() })
    const logShare = (): number => journal.status().liveSizeBytes / config.journal.logSizeBytesMax
    const pacer = parts.own(new Pacer(paceFlag, logShare))
    const { listen } = config
    let images: Exports | undefined
    const wholeSyncs = new WholeSyncs({
      aging,
      waiting: table.waiting,
      notNoted: ({ vpg }, error) =>
        log.warn({ vpg: table.get(vpg)?.definition.name, error: String(error) }, 'repairNotNoted'),
    })
    const ingest = parts.own(
      await Ingest.open({
        listen: { host: listen.host, port: listen.port },
        ...(listen.tls === undefined ? {} : { tls: readTls(listen.tls) }),
        journal,
        vpgs: vpgs.map(vpg => vpg.ingest),
        clock,
        events: ingestEvents({ wholeSyncs, table, meter, metrics, pacer, catalog, log }),
        issueTerm: (vpg, above) => terms.issue(vpg, above),
        hashes: new Hashes({ clock, aging, images: () => images }),
      }),
    )
    parts.own({ close: async () => stop.ingestIsClosing() })
    serving = ingest
    catchUp(ingest, table)
    // Taken over in memory in the step in which it is told, or in this one.
    const taking = { catalog, clock, ingest, log, table, unknownInLog }
    const storeTaken = storeOpened.told.then(async opened => {
      const vpgs = opened.map(unpacked)
      await takeStore(taking, vpgs)
      stop.indexIsWhole()
      return vpgs
    })
    storeTaken.catch(() => undefined) // whoever waits for the end hears of it
    const exports = parts.own(
      new Exports(
        {
          ...{ store: ofReaders(config.store), dataDirectory: data.directory, cacheSizeBytes: imageCacheSizeBytes },
          cache: { file: data.cacheFile, sizeBytesMax: cacheShareOf(config) },
        },
        aging,
        clock,
        (vpg, sentence) => tellDamage({ table, metrics, log }, vpg, sentence),
      ),
    )
    images = exports
    const preseeds = parts.own(
      new Preseeds({
        aging,
        clock,
        redefine: (entry, definition) => {
          entry.definition = definition
          ingest.updateVpg(definition)
        },
        told: event => (event.state === 'failed' ? log.error(event, 'preseed') : log.info(event, 'preseed')),
      }),
    )
    resumePreseeds = vpg => preseeds.resume(table.all().filter(({ definition }) => definition.id === vpg))
    const verifies = parts.own(
      new VerifyJobs(clock, (what, finding) => {
        log.error({ ...finding, what }, 'verifyFoundDamage')
        const entry = table.all().find(({ definition }) => definition.name === finding.vpg)
        // A record may be damaged that a segment holds as well; one that does not is found by who makes segments of the log.
        if (what === 'mirror' && entry !== undefined)
          tellDamage({ table, metrics, log }, entry.definition.id, `${finding.place}: ${finding.sentence}`)
      }),
    )
    const checkpoints = new Checkpoints(catalog, histories)
    const orphans = parts.own(
      new ScratchOrphans({
        ...{ file: data.scratchOrphansFile, disk: realDisk, calls: realFileCalls, clock },
        told: (event, facts) => (event === 'scratchRemoved' ? log.info(facts, event) : log.warn(facts, event)),
      }),
    )
    const toldByLive: LiveOptions['told'] = (name, value) => {
      tellLive(log, name, value)
      if (name === 'scratchMayBeLeft') orphans.noteWhereLeft(value as LiveNotices['scratchMayBeLeft'])
      if (name === 'scratchNotFound') orphans.note(value as LiveNotices['scratchNotFound'])
    }
    const spoolRoom = newSpoolRoom()
    const live = parts.own(new Live(liveOptions(config, { data, clock, spoolRoom }, toldByLive)))
    const mounts = new Mounts({ aging, checkpoints, clock, live })
    // The recoveries' target asks after the copies that are kept for them, and these are kept by the same target.
    const aws = awsTarget(config, { data, spoolRoom, aging, table, log, standbys: () => standbys })
    const engine = parts.own(
      new Recoveries({
        ...{ aging, clock },
        targets: recoveryTargets({
          ...{ clock, dataDirectory: data.directory, exports, live, store: config.store },
          aws,
        }),
        writers: new VpgWriters({ aging, clock, ingest, table }),
        events: recoveryEvents(table, log),
      }),
    )
    const standbys = parts.own(
      new Standbys({
        ...{ aging, clock, target: aws, events: standbyEvents(table, log) },
        newestOffloaded: async vpg => {
          const entry = table.get(vpg)
          return entry === undefined ? undefined : await checkpoints.newestOffloaded(entry)
        },
      }),
    )
    const recoveries = parts.own(
      new RecoveryControl({ aging, checkpoints, clock, recoveries: engine, standbys, table }),
    )
    forgetRecoveries = vpg => void recoveries.forget(vpg)
    const drills = parts.own(
      new Drills({
        ...{ clock, engine, control: recoveries, table, checks: config.drillChecks ?? [], runCheck },
        told: event => (event.sentence === undefined ? log.info(event, 'drill') : log.error(event, 'drillNotBegun')),
      }),
    )
    parts.own(new Repairs({ clock, ingest, table, asked: repair => log.warn(repair, 'repairAsked') }))
    const lateLost = untilLost()
    lateOpened.take = ({ vpg, opened }) => {
      const late = opened === undefined ? undefined : unpacked(opened)
      const taken = takeVpg(taking, vpg, late).then(isTaken => {
        if (!isTaken || late === undefined) return
        stop.indexed(vpg)
        log.info({ vpg: late.definition.name }, 'vpgOpened')
        resumePreseeds(vpg)
        recoveries.serveAll([late])
      })
      taken.catch(lateLost.reject)
      // In the same step in which it waits no more: one that begins from here on is told after these.
      if (late === undefined) wholeSyncs.vpgGone(vpg)
      else wholeSyncs.vpgOpened(vpg)
    }
    report = new StatusReport(
      {
        ...{ aging, catalog, checkpoints, clock, disk: realDisk, exports, ingest, journal, meter, metrics },
        ...{ drills, recoveries, table },
      },
      {
        software,
        applianceId: data.applianceId,
        startedAtMicros,
        dataDirectory: data.directory,
        store: storeInWords(config.store),
        listen: { host: listen.host, port: ingest.port, tls: listen.tls !== undefined },
      },
    )
    const { store, dataDirectory } = config
    const vra = new DaemonControl({
      aging,
      catalog,
      checkpoints,
      clock,
      dataDirectory,
      drills,
      exports,
      histories,
      ingest,
      mounts,
      preseeds,
      prices: config.prices,
      recoveries,
      report,
      store,
      table,
      verifies,
    })
    const api = parts.own(
      await ControlApi.open({
        host: config.control.host,
        port: config.control.port,
        vra,
        metrics: () => metrics.render(),
        // From its start on aging reads the whole log, which takes a core: when little is left to compute here, but before anybody can ask for an image.
        beforeListening: async () => {
          if (!aging.isStoreAway) await aging.start({ durable: journal.durable() })
        },
        onBug: (error, request) =>
          log.error({ ...request, error: String(error instanceof Error ? error.stack : error) }, 'requestFailed'),
      }),
    )
    log.info(
      {
        agents: `${listen.host}:${ingest.port}`,
        control: api.url,
        data: data.directory,
        store: storeInWords(config.store),
        vpgs: vpgs.length,
      },
      'vraReady',
    )
    onReady()
    flushCompileCacheNow()
    exports.prepare()
    drills.begin()
    preseeds.resume(table.all())
    // What is remembered of a VPG may be older than the store: its recoveries are gone on with when that has answered.
    if (!aging.isStoreAway) recoveries.serveAll(aging.vpgs.filter(isOfStore))
    const offloadedOf = (vpg: VpgId): readonly StreamPosition[] | undefined => table.get(vpg)?.offloaded
    const loading = new AbortController()
    const tailLoaded = loadTail(catalog, journal.recovered.records, offloadedOf, loading.signal)
    journal.forgetRecords() // they are the loading's now, and go with it
    parts.own({
      close: async () => {
        loading.abort()
        await tailLoaded
      },
    })
    const returning = storeTaken.then(async vpgs => {
      await aging.start({ durable: journal.durable() })
      wholeSyncs.storeReturned()
      log.info({ vpgs: table.all().length }, 'storeOpened')
      preseeds.resume(table.all())
      recoveries.serveAll(vpgs.filter(isOfStore))
      return await new Promise<never>(() => undefined)
    })
    await untilAborted(signal, [
      endOf('aging', aging.ended),
      indexLost.promise,
      returning,
      superseded.promise,
      lateLost.promise,
    ])
  } catch (error) {
    log.fatal({ reason: error instanceof Error ? error.message : String(error) }, 'vraFailed')
    throw error
  } finally {
    await parts.closeAll()
    log.info('vraStopped')
  }
}

/** Of the others what is here was remembered, and may be older than the store. */
function isOfStore({ rememberedBecause }: OpenedVpg): boolean {
  return rememberedBecause === undefined
}

function termOf(at: Ordinal): number {
  return Math.floor(at / checkpointOrdinal(1, 0))
}

/** Rejects when a thread that the daemon cannot do without has ended by itself. */
async function endOf(name: string, ended: Promise<Error | undefined>): Promise<never> {
  const cause = await ended
  throw new Failure('PEER_LOST', `the ${name} thread has ended: ${cause?.message ?? 'without a word'}`, {}, { cause })
}

/** Handlers that are known only when all parts are open; before that others take their place. */
function lateHandlers(holder: { later: AgingHandlers }): AgingHandlers {
  return new Proxy<AgingHandlers>({}, { get: (_, name: string) => holder.later[name as keyof AgingHandlers] })
}

function tellLive(log: Log, name: keyof LiveNotices, value: object): void {
  if (name === 'keepProgress' || name === 'scratchMayBeLeft') return
  if (name === 'requestFailed') log.error(value, 'liveRequestFailed')
  else if (name === 'scratchNotFound' || name === 'spoolFailed') log.warn(value, name)
  else log.info(value, name)
}

/** Two threads read images through a cache of their own: exports and hashes, and disks that are served. */
function cacheShareOf({ cache }: VraConfig): number {
  return Math.floor(cache.sizeBytesMax / 2)
}

function liveOptions(
  config: VraConfig,
  {
    data,
    clock,
    spoolRoom,
  }: { readonly data: DataDirectory; readonly clock: Clock; readonly spoolRoom: SharedArrayBuffer },
  told: LiveOptions['told'],
): LiveOptions {
  const { host, port, scratchDirectory, scratchSizeBytesMax, cacheSizeBytes } = config.live
  return {
    store: ofReaders(config.store),
    dataDirectory: data.directory,
    listen: { host, port },
    cacheSizeBytes,
    cache: { file: `${data.cacheFile}-live`, sizeBytesMax: cacheShareOf(config) },
    scratchDirectory: scratchDirectory ?? data.liveDirectory,
    scratchSizeBytesMax,
    clock,
    spoolRoom,
    told,
  }
}

function agingConfig(config: VraConfig, data: DataDirectory): Parameters<typeof Aging.open>[0] {
  const { scrubBytesPerSecond: bytesPerSecond, scrubIntervalMillis: intervalMillis, ...aging } = config.aging
  const scrub = bytesPerSecond === 0 ? undefined : { bytesPerSecond, intervalMillis, file: data.scrubFile }
  return {
    store: config.store,
    logDirectory: data.directory,
    scratchDirectory: data.scratchDirectory,
    memoDirectory: data.memoDirectory,
    applianceId: data.applianceId,
    adopt: config.adopt === true,
    scrub,
    tenure: { file: data.tenureFile, place: data.place, host: hostname() },
    ...aging,
  }
}

/** Its thread reads each block once: the cache on the local disk is not for it. */
function awsTarget(
  { aws, store }: VraConfig,
  parts: {
    readonly data: DataDirectory
    readonly spoolRoom: SharedArrayBuffer
    readonly aging: Aging
    readonly table: VpgTable
    readonly log: Log
    readonly standbys: () => Standbys
  },
): AwsTarget | undefined {
  if (aws === undefined) return undefined
  const { data, spoolRoom, aging, table, log, standbys } = parts
  return new AwsTarget({
    config: aws,
    image: { store: ofReaders(store), dataDirectory: data.directory, cacheSizeBytes: imageCacheSizeBytes },
    spoolRoom,
    openImage: argument => aging.openImage(argument),
    closeImage: argument => aging.closeImage(argument),
    standbyOf: vpg => standbys().record(vpg),
    suspendStandby: () => standbys().suspend(),
    told: (vpg, sentence) =>
      log.warn({ vpg: vpg === undefined ? vpg : (table.get(vpg)?.definition.name ?? vpg), sentence }, 'awsSays'),
  })
}

function storeInWords(store: VraStoreConfig): string {
  return store.kind === 'directory' ? path.resolve(store.directory) : `s3://${store.bucket}/${store.prefix}`
}

/** A promise that only ever rejects: with what `lose` is given. */
function untilLost(): { readonly promise: Promise<never>; readonly reject: (error: Error) => void } {
  let reject: (error: Error) => void = () => undefined
  const promise = new Promise<never>((_, refuse) => (reject = refuse))
  promise.catch(() => undefined) // it may be lost before anybody waits
  return { promise, reject }
}
