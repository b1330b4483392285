import * as path from 'node:path'
import type { Aging } from '../aging/aging.ts'
import type { Catalog } from '../catalog/catalog.ts'
import { Failure, failedWith } from '../base/failure.ts'
import { formatCheckpointId, newVpgId, parseCheckpointId } from '../base/ids.ts'
import type { Clock } from '../base/clock.ts'
import type { VraConfig } from '../config/config.ts'
import type * as api from '../control/service.ts'
import type { Ingest } from '../ingest/ingest.ts'
import type { StoreConfig } from '../store/object-store.ts'
import type { SnapshotKeys, StreamDefinition, VpgDefinition } from '../timeline/definition.ts'
import { densitiesDefault, retentionOf, type Density } from '../timeline/densities.ts'
import type { VolumeChange } from '../timeline/definition-change.ts'
import { checkpointFacts, Checkpoints } from './checkpoints.ts'
import type { Drills } from './drills.ts'
import type { Exports } from './exports.ts'
import type { Mounts } from './mounts.ts'
import type { Preseeds } from './preseeds.ts'
import type { RecoveryControl } from './recovery-control.ts'
import type { Histories } from './histories.ts'
import { journalLimitsOf, type JournalLimits } from './journal-limits.ts'
import { freshIngestVpg } from './reconcile.ts'
import type { StatusReport } from './status-report.ts'
import { timelineOf, versionsIn } from './timeline-report.ts'
import { askThread, type VerifyJobs } from './verify-jobs.ts'
import { VpgEntry, type VpgTable } from './vpg-table.ts'

export interface VraControlParts {
  readonly aging: Aging
  readonly catalog: Catalog
  readonly checkpoints: Checkpoints
  readonly clock: Clock
  readonly dataDirectory: string
  readonly drills: Drills
  readonly exports: Exports
  readonly histories: Histories
  readonly ingest: Ingest
  readonly mounts: Mounts
  readonly preseeds: Preseeds
  readonly recoveries: RecoveryControl
  readonly prices: VraConfig['prices']
  readonly report: StatusReport
  readonly store: StoreConfig
  readonly table: VpgTable
  readonly verifies: VerifyJobs
}

/** What the HTTP API asks, done by the daemon's parts. */
export class DaemonControl implements api.VraControl {
  readonly #parts: VraControlParts
  /** Names that are being created, so that two requests at once do not both find the name free. */
  readonly #creating = new Set<string>()

  constructor(parts: VraControlParts) {
    this.#parts = parts
  }

  async status(): Promise<api.VraStatus> {
    return this.#parts.report.status()
  }

  async listVpgs(): Promise<readonly api.VpgStatus[]> {
    return this.#parts.report.vpgs()
  }

  async showVpg(name: string): Promise<api.VpgStatus> {
    return this.#parts.report.vpg(this.#parts.table.named(name))
  }

  async createVpg(request: api.CreateVpgRequest): Promise<api.VpgStatus> {
    this.#parts.table.requireChangeable()
    const { aging, clock, ingest, recoveries, report, table } = this.#parts
    if (table.has(request.name) || this.#creating.has(request.name))
      throw new Failure('ALREADY_EXISTS', `there is a VPG "${request.name}" already`)
    table.requireNamesKnown()
    const definition = { ...definitionOf(request, clock.timestampMicros()), ...this.#limitsOf(request, noLimits) }
    this.#creating.add(request.name)
    try {
      const opened = await aging.createVpg(definition) // durable in the store, then it takes effect
      const entry = new VpgEntry(opened, clock)
      table.add(entry)
      ingest.addVpg(freshIngestVpg(opened))
      recoveries.serve(entry, opened)
      return await report.vpg(entry)
    } finally {
      this.#creating.delete(request.name)
    }
  }

  async deleteVpg(name: string, { isForced }: { readonly isForced: boolean }): Promise<void> {
    this.#parts.table.requireChangeable()
    const { aging, catalog, exports, ingest, mounts, recoveries, table } = this.#parts
    const entry = table.named(name)
    const vpg = entry.definition.id
    if (exports.isReading(vpg)) throw new Failure('BUSY', `an export reads ${name}: cancel it first, or wait for it`)
    if (mounts.isReading(vpg))
      throw new Failure('BUSY', `a mount reads ${name}: end it first, with Ctrl-C where \`vra mount\` runs`)
    recoveries.requireNoneUnderWay(vpg, { isForced }) // before the standby copies are touched, which take long to make again
    let isEnding = !isForced
    try {
      if (isForced) await recoveries.abandonStandby(vpg)
      else await recoveries.endStandby(vpg)
      isEnding = false
      // First the store, or a VPG that it could not delete would be neither served nor gone.
      await aging.deleteVpg({ vpg, isForced }).catch(unlessDeleted)
    } catch (error) {
      // While their removal takes longer than one waits, it goes on; else the group lives on as it is defined.
      if (!(isEnding && failedWith(error, 'BUSY'))) recoveries.changed(vpg)
      throw error
    }
    ingest.removeVpg(vpg)
    table.remove(vpg)
    await recoveries.forget(vpg)
    await catalog.forgetVpg({ vpg })
  }

  async changeVpg(name: string, request: api.ChangeVpgRequest): Promise<api.VpgStatus> {
    this.#parts.table.requireChangeable()
    const { aging, drills: drilling, ingest, recoveries, report, table } = this.#parts
    const entry = table.named(name)
    if ((request.standbyIntervalMillis ?? 0) > 0) recoveries.requireStandbyTarget()
    const limits = this.#limitsOf(request, entry.definition)
    const { historyMillis, retention, drillSchedule, snapshotKeys, ...settings } = request
    const kept = retentionAsked({ historyMillis, retention })
    const drills = drillSchedule === undefined ? {} : { drillSchedule: await drilling.schedule(entry, drillSchedule) }
    const keys = snapshotKeys === undefined ? {} : { snapshotKeys: snapshotKeysOf(entry.definition, snapshotKeys) }
    const changes = { ...settings, ...kept, ...limits, ...drills, ...keys }
    entry.definition = await aging.changeVpg({ vpg: entry.definition.id, ...changes })
    ingest.updateVpg(entry.definition)
    recoveries.changed(entry.definition.id)
    return report.vpg(entry)
  }

  #limitsOf(request: api.JournalLimitsRequest, before: JournalLimits): JournalLimits {
    return journalLimitsOf(request, before, this.#parts.store)
  }

  async addVolume(vpg: string, { name, sizeBytes, agent, vm }: api.AddVolumeRequest): Promise<api.VpgStatus> {
    return this.#changeVolumes(vpg, { kind: 'add', name, sizeBytes, agent, vm })
  }

  async removeVolume(vpg: string, volume: string): Promise<api.VpgStatus> {
    return this.#changeVolumes(vpg, { kind: 'remove', name: volume })
  }

  async growVolume(vpg: string, volume: string, { sizeBytes }: api.GrowVolumeRequest): Promise<api.VpgStatus> {
    return this.#changeVolumes(vpg, { kind: 'grow', name: volume, sizeBytes })
  }

  async #changeVolumes(vpg: string, change: VolumeChange): Promise<api.VpgStatus> {
    this.#parts.table.requireChangeable()
    const { aging, ingest, report, table } = this.#parts
    const entry = table.named(vpg)
    entry.definition = await aging.changeVolumes({ vpg: entry.definition.id, change }) // durable, then it takes effect
    ingest.updateVpg(entry.definition)
    return report.vpg(entry)
  }

  async requestSync(vpg: string, { kind, volumes }: api.SyncVpgRequest): Promise<api.VpgStatus> {
    const { ingest, report, table } = this.#parts
    const entry = table.named(vpg)
    const { definition } = entry
    const names = volumes ?? definition.volumes.map(volume => volume.name)
    const numbers = names.map(name => {
      const found = definition.volumes.find(volume => volume.name === name)
      if (found === undefined) throw new Failure('UNKNOWN_VOLUME', `${vpg} has no volume "${name}"`)
      return found.number
    })
    if (definition.paused) throw new Failure('REQUEST_INVALID', `${vpg} is paused: resume it first`)
    ingest.requestSync(definition.id, kind, [...new Set(numbers)])
    return report.vpg(entry)
  }

  async timeline(name: string): Promise<api.VpgTimeline> {
    return await timelineOf(this.#parts.table.named(name), this.#parts)
  }

  async versions(name: string): Promise<api.VpgVersions> {
    const { prices, store, table } = this.#parts
    const { definition } = table.named(name)
    return versionsIn(
      definition,
      await askThread(client => client.call('hiddenVersions', { store, vpg: definition.id })),
      prices,
    )
  }

  async listCheckpoints(query: api.CheckpointListQuery): Promise<api.CheckpointList> {
    return this.#parts.checkpoints.list(this.#parts.table.named(query.vpg), query)
  }

  async findCheckpoint(vpg: string, reference: string): Promise<api.CheckpointFacts> {
    const entry = this.#parts.table.named(vpg)
    return checkpointFacts(
      entry,
      await this.#parts.checkpoints.find(entry, reference, this.#parts.clock.timestampMicros()),
    )
  }

  async tagCheckpoint(request: api.TagRequest): Promise<api.CheckpointFacts> {
    this.#parts.table.requireChangeable()
    const { aging, catalog, checkpoints, clock, ingest, table } = this.#parts
    const entry = table.named(request.vpg)
    const vpg = entry.definition.id
    const taken = entry.tags.find(tag => tag.name === request.tag)
    if (taken !== undefined && request.checkpoint === undefined)
      throw new Failure(
        'ALREADY_EXISTS',
        `the tag "${request.tag}" names checkpoint ${formatCheckpointId(taken.ordinal)} of ${request.vpg} already`,
      )
    const checkpoint =
      request.checkpoint === undefined
        ? await ingest.requestCheckpoint(vpg)
        : await checkpoints.find(entry, request.checkpoint, clock.timestampMicros())
    if (request.checkpoint === undefined) catalog.addCheckpoints(vpg, [checkpoint])
    const tag = await aging.tag({ vpg, ordinal: checkpoint.ordinal, name: request.tag, keepMillis: request.keepMillis })
    entry.tags = [...entry.tags.filter(other => other.name !== request.tag), tag]
    return checkpointFacts(entry, checkpoint)
  }

  async untagCheckpoint(vpg: string, tag: string): Promise<void> {
    this.#parts.table.requireChangeable()
    const entry = this.#parts.table.named(vpg)
    if (!entry.tags.some(candidate => candidate.name === tag))
      throw new Failure('NOT_FOUND', `nothing of ${vpg} is tagged "${tag}"`)
    await this.#parts.aging.untag({ vpg: entry.definition.id, name: tag })
    entry.tags = entry.tags.filter(candidate => candidate.name !== tag)
  }

  async startExport(request: api.ExportRequest): Promise<api.ExportJob> {
    this.#parts.table.requireChangeable()
    const { checkpoints, clock, exports, table } = this.#parts
    this.#refuseOwnFile(request.file)
    const entry = table.named(request.vpg)
    const volume = entry.volumeNamed(request.volume)
    const checkpoint = await checkpoints.findFor(entry, volume, request.checkpoint, clock.timestampMicros())
    return exports.start(request, entry, checkpoint)
  }

  #refuseOwnFile(file: string): void {
    const { dataDirectory, store } = this.#parts
    if (!path.isAbsolute(file)) throw new Failure('REQUEST_INVALID', `"${file}" is not an absolute path`)
    for (const own of store.kind === 'directory' ? [dataDirectory, store.directory] : [dataDirectory])
      if (isBelow(own, file))
        throw new Failure('REQUEST_INVALID', `${file} is among the VRA's own files; name one outside ${own}`)
  }

  async startMount(request: api.MountRequest): Promise<api.MountFacts> {
    this.#parts.table.requireChangeable()
    return await this.#parts.mounts.start(request, this.#parts.table.named(request.vpg))
  }

  async mounts(): Promise<readonly api.MountFacts[]> {
    return this.#parts.mounts.list()
  }

  async endMount(id: string): Promise<void> {
    await this.#parts.mounts.end(id)
  }

  async diff(query: api.DiffQuery): Promise<api.DiffFacts> {
    this.#parts.table.requireChangeable()
    return await this.#parts.mounts.diff(query, this.#parts.table.named(query.vpg))
  }

  async planRecovery(request: api.RecoveryRequest): Promise<api.RecoveryPlan> {
    return this.#parts.recoveries.plan(request)
  }

  async startRecovery(request: api.RecoveryRequest): Promise<api.RecoveryFacts> {
    const { drills, recoveries } = this.#parts
    return recoveries.start(request, () => drills.giveWay())
  }

  async recoveries(): Promise<readonly api.RecoveryFacts[]> {
    return this.#parts.recoveries.list()
  }

  async recovery(id: string): Promise<api.RecoveryFacts> {
    return this.#parts.recoveries.get(id)
  }

  async decideRecovery(id: string, decision: api.RecoveryDecision): Promise<api.RecoveryFacts> {
    return this.#parts.recoveries.decide(id, decision)
  }

  async startDrill(request: api.DrillRequest): Promise<api.RecoveryFacts> {
    return this.#parts.drills.start(request, this.#parts.table.named(request.vpg))
  }

  async drills(vpg: string): Promise<readonly api.RecoveryFacts[]> {
    return this.#parts.recoveries.drillsOf(this.#parts.table.named(vpg).definition.id)
  }

  async reportDrill(id: string, report: api.DrillReport): Promise<api.RecoveryFacts> {
    return this.#parts.drills.report(id, report)
  }

  async startPreseed({ vpg, volume, file }: api.PreseedRequest): Promise<api.PreseedJob> {
    this.#parts.table.requireChangeable()
    const { checkpoints, clock, preseeds, table } = this.#parts
    this.#refuseOwnFile(file)
    const entry = table.named(vpg)
    const named = entry.definition.volumes.find(({ name }) => name === volume)
    if (named === undefined) throw new Failure('UNKNOWN_VOLUME', `${vpg} has no volume "${volume}"`)
    const included = await checkpoints
      .findFor(entry, named, 'latest', clock.timestampMicros())
      .catch((error: unknown) => {
        if (failedWith(error, 'CHECKPOINT_MISSING')) return undefined
        throw error
      })
    if (included !== undefined)
      throw new Failure(
        'REQUEST_INVALID',
        `checkpoint ${formatCheckpointId(included.ordinal)} of ${vpg} includes "${volume}": it is here already`,
      )
    return preseeds.start(entry, named, file)
  }

  async preseeds(): Promise<readonly api.PreseedJob[]> {
    return this.#parts.preseeds.list()
  }

  async preseed(id: string): Promise<api.PreseedJob> {
    return this.#parts.preseeds.get(id)
  }

  async cancelPreseed(id: string): Promise<api.PreseedJob> {
    return this.#parts.preseeds.cancel(id)
  }

  async exports(): Promise<readonly api.ExportJob[]> {
    return this.#parts.exports.list()
  }

  async export(id: string): Promise<api.ExportJob> {
    return this.#parts.exports.get(id)
  }

  async cancelExport(id: string): Promise<api.ExportJob> {
    return this.#parts.exports.cancel(id)
  }

  async startVerify(request: api.VerifyRequest): Promise<api.VerifyJob> {
    const { dataDirectory, store, table, verifies } = this.#parts
    const only = request.vpg === undefined ? undefined : table.named(request.vpg)
    const named = table.all().map(({ definition: { id, name } }) => ({ id, name }))
    if (request.what === 'journal')
      return verifies.start('journal', request.vpg, client =>
        client.call('verifyJournal', { dataDirectory, vpgs: named, only: only?.definition.id }),
      )
    const vpgs = only === undefined ? named : named.filter(({ id }) => id === only.definition.id)
    return verifies.start('mirror', request.vpg, client => client.call('verifyMirror', { store, vpgs }))
  }

  async verifies(): Promise<readonly api.VerifyJob[]> {
    return this.#parts.verifies.list()
  }

  async verify(id: string): Promise<api.VerifyJob> {
    return this.#parts.verifies.get(id)
  }

  async cancelVerify(id: string): Promise<api.VerifyJob> {
    return this.#parts.verifies.cancel(id)
  }

  async dump(request: api.DumpRequest): Promise<api.DumpPage> {
    const { dataDirectory, store, table } = this.#parts
    const from = request.after === undefined ? 0 : Number(request.after)
    if (!Number.isSafeInteger(from) || from < 0)
      throw new Failure('REQUEST_INVALID', `"${request.after}" is not a page of a dump`)
    const page = { from, limit: request.limit }
    const entries = request.vpg === undefined ? table.all() : [table.named(request.vpg)]
    if (request.what === 'journal') {
      const only = request.vpg === undefined ? undefined : entries[0]?.definition.id
      return askThread(client => client.call('dumpJournal', { ...page, dataDirectory, only }))
    }
    return askThread(client =>
      client.call('dumpMirror', { ...page, store, vpgs: entries.map(entry => entry.definition.id) }),
    )
  }
}

/** A deletion that the store did not take in time may have taken effect since: asking again then ends it here as well. */
function unlessDeleted(error: unknown): void {
  if (!failedWith(error, 'UNKNOWN_VPG')) throw error
}

function isBelow(directory: string, file: string): boolean {
  const way = path.relative(path.resolve(directory), file)
  return way === '' || (way !== '..' && !way.startsWith(`..${path.sep}`))
}

const noLimits: JournalLimits = { journalWarnSizeBytes: 0, journalLimitSizeBytes: 0 }

/** A new VPG as the request describes it. Fails REQUEST_INVALID where names repeat. */
function definitionOf(request: api.CreateVpgRequest, nowMicros: number): VpgDefinition {
  const repeated = (names: readonly string[]): string | undefined =>
    names.find((name, index) => names.indexOf(name) < index)
  const twice = repeated(request.volumes.map(volume => volume.name)) ?? repeated(request.agents)
  if (twice !== undefined) throw new Failure('REQUEST_INVALID', `"${twice}" is listed twice`)
  if (parseCheckpointId(request.name) !== undefined)
    throw new Failure('REQUEST_INVALID', `"${request.name}" would read as a checkpoint id`)
  const streams = request.agents.map((agent, index) => ({ number: index + 1, agent }))
  const volumes = request.volumes.map(({ name, sizeBytes, agent, vm }, index) => {
    const stream = streamFor(name, agent, streams)
    return { number: index + 1, name, sizeBytes, stream, ...(vm === undefined ? {} : { vm }) }
  })
  const idle = streams.find(({ number }) => !volumes.some(volume => volume.stream === number))
  if (idle !== undefined) throw new Failure('REQUEST_INVALID', `the agent "${idle.agent}" has no volume`)
  return {
    id: newVpgId(),
    name: request.name,
    incarnation: 1,
    volumes,
    streams,
    ...(retentionAsked(request) ?? retentionOf(densitiesDefault)),
    checkpointIntervalMillis: request.checkpointIntervalMillis,
    syncRateBytesPerSecond: 0,
    paused: false,
    removedVolumes: [],
    ...noLimits,
    createdAtMicros: nowMicros,
  }
}

/** Undefined where nothing is asked. Fails REQUEST_INVALID for both, and for what cannot be kept. */
function retentionAsked({
  historyMillis,
  retention,
}: {
  readonly historyMillis?: number | undefined
  readonly retention?: readonly Density[] | undefined
}): ReturnType<typeof retentionOf> | undefined {
  if (historyMillis !== undefined && retention !== undefined)
    throw new Failure('REQUEST_INVALID', 'give a history or a retention, not both')
  if (historyMillis !== undefined) return retentionOf([{ everyMillis: 0, forMillis: historyMillis }])
  return retention === undefined ? undefined : retentionOf(retention)
}

/** With one agent it is that one's; with several it has to be said. */
function streamFor(volume: string, agent: string | undefined, streams: readonly StreamDefinition[]): number {
  const [first, ...others] = streams
  const found = agent === undefined && others.length === 0 ? first : streams.find(each => each.agent === agent)
  if (found !== undefined) return found.number
  const names = streams.map(each => each.agent).join(', ')
  const sentence =
    agent === undefined
      ? `say which agent writes the volume "${volume}": one of ${names}`
      : `the volume "${volume}" is said to be the agent "${agent}"'s, which the VPG does not have: ${names}`
  throw new Failure('REQUEST_INVALID', sentence)
}

/** Fails UNKNOWN_VOLUME. */
function snapshotKeysOf({ name, volumes }: VpgDefinition, keys: api.SnapshotKeyFacts): SnapshotKeys {
  const ofVolumes = Object.entries(keys.volumes).map(([volume, key]) => {
    const found = volumes.find(each => each.name === volume)
    if (found === undefined) throw new Failure('UNKNOWN_VOLUME', `${name} has no volume "${volume}"`)
    return [found.number, key] as const
  })
  return { ...(keys.all === undefined ? {} : { ofAll: keys.all }), ofVolumes: Object.fromEntries(ofVolumes) }
}
