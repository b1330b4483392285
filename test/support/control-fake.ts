import { Failure } from '../../src/base/failure.ts'
import { checkpointOrdinal, formatCheckpointId, newVpgId, type Ordinal } from '../../src/base/ids.ts'
import { GiB, MiB } from '../../src/base/units.ts'
import { parseCheckpointReference } from '../../src/control/control.ts'
import { noStoreRequests } from '../../src/aging/aging.ts'
import type {
  AddVolumeRequest,
  AgentFacts,
  ChangeVpgRequest,
  CheckpointFacts,
  CheckpointList,
  CheckpointListQuery,
  CreateVpgRequest,
  Density,
  DrillFacts,
  DrillReport,
  DrillRequest,
  DrillScheduleRequest,
  DrillStatus,
  DumpPage,
  DumpRequest,
  ExportJob,
  DiffFacts,
  DiffQuery,
  ExportRequest,
  MountFacts,
  MountRequest,
  GrowVolumeRequest,
  PreseedJob,
  PreseedRequest,
  RecoveryDecision,
  RecoveryFacts,
  RecoveryPlan,
  RecoveryRequest,
  SyncVpgRequest,
  TagRequest,
  VerifyJob,
  VerifyRequest,
  VolumeFacts,
  VpgStatus,
  VpgTimeline,
  VpgVersions,
  VraControl,
  VraStatus,
} from '../../src/control/service.ts'
import { densitiesDefault } from '../../src/timeline/densities.ts'
import { recoverableOf } from '../../src/timeline/recoverable.ts'

const noDrills: DrillStatus = {
  ...{ schedule: undefined, nextAtMicros: undefined, waitsBecause: undefined },
  ...{ last: undefined, proven: undefined },
}

function scheduledDrills(asked: DrillScheduleRequest | null): DrillStatus {
  if (asked === null) return noDrills
  return { ...noDrills, schedule: { ...asked, setAtMicros: nowMicros }, nextAtMicros: nowMicros + 3_600_000_000 }
}

interface FakeVpg {
  status: VpgStatus
  readonly ordinals: Ordinal[]
  readonly tags: Map<string, Ordinal>
}

/** The instant at which every fake stands: 2026-03-29 02:15 UTC. */
export const nowMicros = Date.parse('2026-03-29T02:15:00Z') * 1000

/** A daemon's control side in memory: VPGs with checkpoints 5 s apart, exports that advance by a quarter each time they are looked at. */
export class FakeVra implements VraControl {
  readonly vpgs = new Map<string, FakeVpg>()
  readonly jobs = new Map<string, ExportJob>()
  readonly verifyJobs = new Map<string, VerifyJob>()
  readonly recoveryJobs = new Map<string, RecoveryFacts>()
  readonly recoveryRequests: RecoveryRequest[] = []
  /** Why the next one is undone. */
  recoveryFailure: RecoveryFacts['failure']
  /** Thrown by the next call, whichever it is. */
  failNext: unknown
  /** What `startVerify` finds. */
  findings: VerifyJob['findings'] = []
  alerts: VraStatus['alerts'] = []
  refusals: VraStatus['refusals'] = []
  ready = true

  async status(): Promise<VraStatus> {
    this.#mayFail()
    const vpgs = [...this.vpgs.values()].map(vpg => vpg.status)
    return {
      software: 'vra 0.1.0 (node 20.20.2)',
      applianceId: 'a1b2c3d4e5f60718293a4b5c6d7e8f90',
      startedAtMicros: nowMicros - 3.4 * 86_400e6,
      nowMicros,
      dataDirectory: '/var/lib/vra',
      store: 's3://recovery-bucket/vra/',
      queues: undefined,
      storeFailing: undefined,
      listen: { host: '10.20.0.5', port: 7420, tls: true },
      ready: this.ready,
      alerts: this.alerts,
      journal: {
        logSizeBytes: 2.9 * GiB,
        logSizeBytesMax: 8 * GiB,
        logFileCount: 47,
        diskFreeBytes: 141 * GiB,
        indexSizeBytes: 38 * MiB,
        full: undefined,
      },
      ingest: {
        sessionCount: vpgs.flatMap(vpg => vpg.agents).filter(agent => agent.state === 'connected').length,
        writesPerSecond: vpgs.reduce((sum, vpg) => sum + vpg.writesPerSecond, 0),
        bytesPerSecond: vpgs.reduce((sum, vpg) => sum + vpg.bytesPerSecond, 0),
        writesTotal: vpgs.reduce((sum, vpg) => sum + vpg.writesTotal, 0),
        bytesTotal: vpgs.reduce((sum, vpg) => sum + vpg.bytesTotal, 0),
        ackMillisP50: 1.3,
        ackMillisP99: 6.8,
      },
      refusals: this.refusals,
      vpgs,
      exports: [...this.jobs.values()],
      cache: undefined,
    }
  }

  async listVpgs(): Promise<readonly VpgStatus[]> {
    this.#mayFail()
    return [...this.vpgs.values()].map(vpg => vpg.status)
  }

  async showVpg(name: string): Promise<VpgStatus> {
    return this.#vpg(name).status
  }

  async createVpg(request: CreateVpgRequest): Promise<VpgStatus> {
    this.#mayFail()
    if (this.vpgs.has(request.name)) throw new Failure('ALREADY_EXISTS', `there is a VPG "${request.name}" already`)
    return this.add(request, 0)
  }

  async deleteVpg(name: string, { isForced }: { readonly isForced: boolean }): Promise<void> {
    if (this.#vpg(name).status.standby !== undefined && !isForced)
      throw new Failure('BUSY', 'standby copies first; --force')
    this.vpgs.delete(name)
  }

  async changeVpg(name: string, request: ChangeVpgRequest): Promise<VpgStatus> {
    const vpg = this.#vpg(name)
    const { journalWarnSizeBytes, journalLimitSizeBytes, historyMillis, retention, drillSchedule, ...others } = request
    const kept = historyMillis === undefined ? retention : [{ everyMillis: 0, forMillis: historyMillis }]
    vpg.status = {
      ...vpg.status,
      ...others,
      ...(drillSchedule === undefined ? {} : { drills: scheduledDrills(drillSchedule) }),
      ...(kept === undefined ? {} : { retention: kept, historyMillis: kept.at(-1)?.forMillis ?? 0 }),
      journalWarnSizeBytes: Number(journalWarnSizeBytes ?? vpg.status.journalWarnSizeBytes),
      journalLimitSizeBytes: Number(journalLimitSizeBytes ?? vpg.status.journalLimitSizeBytes),
    }
    return vpg.status
  }

  async addVolume(name: string, { name: volume, sizeBytes, agent }: AddVolumeRequest): Promise<VpgStatus> {
    const vpg = this.#vpg(name)
    const added = volumeFacts(
      { name: volume, sizeBytes, ...(agent === undefined ? {} : { agent }) },
      vpg.status.volumes.length,
    )
    vpg.status = { ...vpg.status, volumes: [...vpg.status.volumes, added] }
    return vpg.status
  }

  async removeVolume(name: string, volume: string): Promise<VpgStatus> {
    const vpg = this.#vpg(name)
    vpg.status = { ...vpg.status, volumes: vpg.status.volumes.filter(each => each.name !== volume) }
    return vpg.status
  }

  async growVolume(name: string, volume: string, { sizeBytes }: GrowVolumeRequest): Promise<VpgStatus> {
    const vpg = this.#vpg(name)
    const volumes = vpg.status.volumes.map(each => (each.name === volume ? { ...each, sizeBytes } : each))
    vpg.status = { ...vpg.status, volumes }
    return vpg.status
  }

  /** What was asked for. */
  readonly syncRequests: { readonly vpg: string; readonly request: SyncVpgRequest }[] = []

  async requestSync(name: string, request: SyncVpgRequest): Promise<VpgStatus> {
    const vpg = this.#vpg(name)
    this.syncRequests.push({ vpg: name, request })
    return vpg.status
  }

  async versions(name: string): Promise<VpgVersions> {
    this.#vpg(name)
    return {
      ...{ vpg: name, versioning: 'kept', expire: false, markerCount: 7, isWhole: true },
      forms: [
        { form: 'commits', count: 4, sizeBytes: 3 * 2 ** 30 },
        { form: 'deltas', count: 3, sizeBytes: 5 * 2 ** 30 },
      ],
      ...{ costPerMonth: 0.18, currency: 'USD' },
    }
  }

  async timeline(name: string): Promise<VpgTimeline> {
    const { status, ordinals } = this.#vpg(name)
    const { retention, checkpointIntervalMillis, mirror } = status
    const points = ordinals.map((ordinal, index) => {
      const { timestampMicros } = this.#facts({ status, ordinals, tags: new Map() }, ordinal)
      return { ordinal, timestampMicros, historyMillis: index * checkpointIntervalMillis }
    })
    const { gaps: _, ...facts } = recoverableOf(points, { densities: retention, checkpointIntervalMillis, holes: [] })
    const at = (point: (typeof points)[number] | undefined) =>
      point && { checkpoint: formatCheckpointId(point.ordinal), timestampMicros: point.timestampMicros }
    return {
      vpg: name,
      nowMicros,
      retention,
      checkpointIntervalMillis,
      ...facts,
      oldest: at(points[0]),
      newest: at(points.at(-1)),
      historyMillis: points.at(-1)?.historyMillis ?? 0,
      gaps: [],
      forms: mirror.forms,
      garbageCount: mirror.garbageCount,
      requests: mirror.requests,
      writeAmplification: undefined,
      putsPerGiB: undefined,
      cost: {
        prices: {
          currency: 'USD',
          storagePerGiBMonth: 0.023,
          putsPerThousand: 0.005,
          getsPerThousand: 0.0004,
          isDefault: true,
        },
        ...{ storage: 0, puts: 0, lists: 0, gets: 0, total: 0 },
      },
    }
  }

  async listCheckpoints(query: CheckpointListQuery): Promise<CheckpointList> {
    const vpg = this.#vpg(query.vpg)
    const after = query.after === undefined ? undefined : this.#find(vpg, query.after)
    const sign = query.order === 'newest-first' ? -1 : 1
    const matching = vpg.ordinals
      .filter(ordinal => after === undefined || sign * (ordinal - after) > 0)
      .map(ordinal => this.#facts(vpg, ordinal))
      .filter(facts => facts.timestampMicros >= (query.fromTimestampMicros ?? 0))
      .filter(facts => facts.timestampMicros < (query.toTimestampMicros ?? Infinity))
      .filter(facts => query.tagged !== true || facts.tags.length > 0)
    if (sign < 0) matching.reverse()
    return { checkpoints: matching.slice(0, query.limit), more: matching.length > query.limit }
  }

  async findCheckpoint(vpg: string, reference: string): Promise<CheckpointFacts> {
    const found = this.#vpg(vpg)
    return this.#facts(found, this.#find(found, reference))
  }

  async tagCheckpoint(request: TagRequest): Promise<CheckpointFacts> {
    const vpg = this.#vpg(request.vpg)
    const ordinal = request.checkpoint === undefined ? this.#newCheckpoint(vpg) : this.#find(vpg, request.checkpoint)
    const tagged = vpg.tags.get(request.tag)
    if (tagged !== undefined && tagged !== ordinal)
      throw new Failure('ALREADY_EXISTS', `"${request.tag}" tags ${formatCheckpointId(tagged)} already`)
    vpg.tags.set(request.tag, ordinal)
    this.#refresh(vpg)
    return this.#facts(vpg, ordinal)
  }

  async untagCheckpoint(name: string, tag: string): Promise<void> {
    const vpg = this.#vpg(name)
    if (!vpg.tags.delete(tag)) throw new Failure('NOT_FOUND', `nothing of ${name} is tagged "${tag}"`)
    this.#refresh(vpg)
  }

  async planRecovery(request: RecoveryRequest): Promise<RecoveryPlan> {
    const vpg = this.#vpg(request.vpg)
    this.recoveryRequests.push(request)
    const { checkpoint, timestampMicros, tags } = this.#facts(vpg, this.#find(vpg, request.checkpoint))
    const wanted = vpg.status.volumes.filter(({ name }) => request.volumes?.includes(name) ?? true)
    const sizeBytes = wanted.reduce((sum, volume) => sum + volume.sizeBytes, 0)
    return {
      ...{ vpg: request.vpg, kind: request.kind, target: request.target, settings: request.settings },
      ...{ checkpoint, checkpointTimestampMicros: timestampMicros, tags },
      ageMillis: (nowMicros - timestampMicros) / 1000,
      vms: [
        {
          name: 'host1',
          volumes: wanted.map(volume => ({ ...volume, dataSizeBytes: volume.sizeBytes / 4 })),
        },
      ],
      sizeBytes,
      copySizeBytes: sizeBytes / 4,
      expectedMillis: 90_000,
      commitPolicy: request.commitPolicy,
      remarks: ['it writes sparse files in /srv/look'],
    }
  }

  /** Each look at it is a step further. */
  async startRecovery(request: RecoveryRequest): Promise<RecoveryFacts> {
    const plan = await this.planRecovery(request)
    const recovery: RecoveryFacts = {
      ...{ id: `r-${this.recoveryJobs.size + 1}`, vpg: plan.vpg, kind: plan.kind, state: 'preparing' },
      ...{ target: plan.target, settings: plan.settings, commitPolicy: plan.commitPolicy },
      ...{ checkpoint: plan.checkpoint, checkpointTimestampMicros: plan.checkpointTimestampMicros },
      vms: plan.vms.map(({ name, volumes }) => ({
        name,
        volumes: volumes.map(volume => ({
          ...{ name: volume.name, sizeBytes: volume.sizeBytes },
          ...{ doneBytes: 0, totalBytes: volume.sizeBytes, etaMillis: undefined },
        })),
      })),
      ...{
        things: [],
        doneBytes: 0,
        totalBytes: plan.sizeBytes,
        etaMillis: 90_000,
        policyAtMicros: undefined,
        isPolicyPutOff: undefined,
      },
      ...{ createdAtMicros: nowMicros, readyAtMicros: undefined, endedAtMicros: undefined, rtoMillis: undefined },
      ...{ trouble: undefined, failure: undefined, drill: undefined },
    }
    this.recoveryJobs.set(recovery.id, recovery)
    return recovery
  }

  async recoveries(): Promise<readonly RecoveryFacts[]> {
    this.#mayFail()
    return [...this.recoveryJobs.values()].reverse()
  }

  async recovery(id: string): Promise<RecoveryFacts> {
    this.#mayFail()
    const found = this.recoveryJobs.get(id)
    if (found === undefined) throw new Failure('NOT_FOUND', `there is no recovery ${id}`)
    const place = { vm: 'host1', volume: 'root', kind: 'file', place: '/srv/look/host1-root.raw' }
    const failed = { state: 'removed', failure: this.recoveryFailure, endedAtMicros: nowMicros } as const
    const ready = { state: 'ready', readyAtMicros: nowMicros, rtoMillis: 61_000, things: [place] } as const
    const next = found.state === 'preparing' ? (this.recoveryFailure === undefined ? ready : failed) : {}
    this.recoveryJobs.set(id, { ...found, ...next })
    return { ...found, ...next }
  }

  async decideRecovery(id: string, decision: RecoveryDecision): Promise<RecoveryFacts> {
    const found = await this.recovery(id)
    if (found.endedAtMicros !== undefined) throw new Failure('REQUEST_INVALID', `recovery ${id} was ${found.state}`)
    const state = decision === 'commit' ? 'committed' : 'removed'
    const decided: RecoveryFacts = {
      ...found,
      state,
      endedAtMicros: nowMicros,
      things: state === 'removed' ? [] : found.things,
    }
    this.recoveryJobs.set(id, decided)
    return decided
  }

  async startDrill(request: DrillRequest): Promise<RecoveryFacts> {
    const { check, ...asked } = request
    const configured = 'configured' in check ? check.configured : undefined
    if (configured !== undefined && configured !== 'fsck') throw new Failure('NOT_FOUND', `no check "${configured}"`)
    const test = { ...asked, kind: 'test', commitPolicy: { kind: 'none', afterMillis: 1 } } as const
    const drill: DrillFacts = {
      by: 'person',
      check: configured ?? ('command' in check ? check.command : ''),
      checkedBy: configured === undefined ? 'client' : 'daemon',
      ...{ outcome: undefined, exitStatus: undefined, output: undefined, checkMillis: undefined },
    }
    const begun = { ...(await this.startRecovery(test)), drill }
    this.recoveryJobs.set(begun.id, begun)
    return begun
  }

  async drills(vpg: string): Promise<readonly RecoveryFacts[]> {
    return [...this.recoveryJobs.values()].filter(job => job.drill !== undefined && job.vpg === vpg).reverse()
  }

  async reportDrill(id: string, report: DrillReport): Promise<RecoveryFacts> {
    const found = await this.recovery(id)
    if (found.drill === undefined) throw new Failure('REQUEST_INVALID', `recovery ${id} is no drill`)
    const { outcome, exitStatus, output, checkMillis } = report
    const drill = { ...found.drill, outcome, exitStatus, output, checkMillis }
    const ended: RecoveryFacts = { ...found, state: 'removed', endedAtMicros: nowMicros, drill }
    this.recoveryJobs.set(id, ended)
    return ended
  }

  async startExport(request: ExportRequest): Promise<ExportJob> {
    const vpg = this.#vpg(request.vpg)
    const volume = vpg.status.volumes.find(candidate => candidate.name === request.volume)
    if (volume === undefined) throw new Failure('UNKNOWN_VOLUME', `${request.vpg} has no volume "${request.volume}"`)
    const facts = this.#facts(vpg, this.#find(vpg, request.checkpoint))
    if ([...this.jobs.values()].some(other => other.file === request.file) && !request.overwrite)
      throw new Failure('ALREADY_EXISTS', `${request.file} exists; give --overwrite to replace it`)
    const job: ExportJob = {
      id: `export-${this.jobs.size + 1}`,
      state: 'running',
      vpg: request.vpg,
      volume: request.volume,
      checkpoint: facts.checkpoint,
      checkpointTimestampMicros: facts.timestampMicros,
      file: request.file,
      sizeBytes: volume.sizeBytes,
      doneBytes: 0,
      dataBytes: 0,
      startedAtMicros: nowMicros,
      endedAtMicros: undefined,
      failure: undefined,
    }
    this.jobs.set(job.id, job)
    return job
  }

  readonly preseedJobs = new Map<string, PreseedJob>()
  readonly mountsUnderWay = new Map<string, MountFacts>()

  async startPreseed({ vpg, volume: name, file }: PreseedRequest): Promise<PreseedJob> {
    const volume = this.#vpg(vpg).status.volumes.find(candidate => candidate.name === name)
    if (volume === undefined) throw new Failure('UNKNOWN_VOLUME', `${vpg} has no volume "${name}"`)
    const job: PreseedJob = {
      ...{ id: `preseed-${this.preseedJobs.size + 1}`, state: 'running', vpg, volume: name, file },
      ...{ sizeBytes: volume.sizeBytes, doneBytes: 0, dataBytes: 0 },
      ...{ startedAtMicros: nowMicros, endedAtMicros: undefined, failure: undefined },
    }
    this.preseedJobs.set(job.id, job)
    return job
  }

  async preseeds(): Promise<readonly PreseedJob[]> {
    return [...this.preseedJobs.values()]
  }

  async preseed(id: string): Promise<PreseedJob> {
    const job = this.preseedJobs.get(id)
    if (job === undefined) throw new Failure('NOT_FOUND', `there is no preseed ${id}`)
    const done: PreseedJob = { ...job, state: 'done', doneBytes: job.sizeBytes, endedAtMicros: nowMicros + 4e6 }
    return job.state === 'running' ? done : job
  }

  async cancelPreseed(id: string): Promise<PreseedJob> {
    const cancelled: PreseedJob = { ...(await this.preseed(id)), state: 'cancelled' }
    this.preseedJobs.set(id, cancelled)
    return cancelled
  }

  async startMount({ vpg, volume }: MountRequest): Promise<MountFacts> {
    this.#mayFail()
    const mount: MountFacts = {
      ...{ id: 'm-1', vpg, checkpoint: '3.3', checkpointTimestampMicros: nowMicros, startedAtMicros: nowMicros },
      volumes: [{ name: volume ?? 'root', sizeBytes: 4096, uri: 'nbd://127.0.0.1:10810/m-1/web/root' }],
    }
    this.mountsUnderWay.set(mount.id, mount)
    return mount
  }

  async mounts(): Promise<readonly MountFacts[]> {
    return [...this.mountsUnderWay.values()]
  }

  async endMount(id: string): Promise<void> {
    if (!this.mountsUnderWay.delete(id)) throw new Failure('NOT_FOUND', `there is no mount ${id}`)
  }

  async diff({ vpg, volume }: DiffQuery): Promise<DiffFacts> {
    const extents = [
      { offsetBytes: 0, sizeBytes: 4096 },
      { offsetBytes: 65536, sizeBytes: 8192 },
    ]
    return { vpg, volume, from: '3.1', to: '3.3', sizeBytes: 12_288, granularityBytes: 4096, extents }
  }

  async exports(): Promise<readonly ExportJob[]> {
    this.#mayFail()
    return [...this.jobs.values()].reverse()
  }

  async export(id: string): Promise<ExportJob> {
    this.#mayFail()
    const job = this.jobs.get(id)
    if (job === undefined) throw new Failure('NOT_FOUND', `there is no export ${id}`)
    if (job.state !== 'running') return job
    const doneBytes = Math.min(job.sizeBytes, job.doneBytes + job.sizeBytes / 4)
    const done = doneBytes === job.sizeBytes
    const advanced: ExportJob = {
      ...job,
      doneBytes,
      dataBytes: doneBytes / 2,
      state: done ? 'done' : 'running',
      endedAtMicros: done ? nowMicros + 4e6 : undefined,
    }
    this.jobs.set(id, advanced)
    return advanced
  }

  async cancelExport(id: string): Promise<ExportJob> {
    const job = await this.export(id)
    const cancelled: ExportJob = { ...job, state: 'cancelled', endedAtMicros: nowMicros }
    this.jobs.set(id, cancelled)
    return cancelled
  }

  async startVerify(request: VerifyRequest): Promise<VerifyJob> {
    this.#mayFail()
    if (request.vpg !== undefined) this.#vpg(request.vpg)
    const job: VerifyJob = {
      id: `verify-${this.verifyJobs.size + 1}`,
      what: request.what,
      vpg: request.vpg,
      state: 'running',
      checkedCount: 0,
      checkedSizeBytes: 0,
      totalSizeBytes: 512 * MiB,
      findings: [],
      moreFindings: 0,
      startedAtMicros: nowMicros,
      endedAtMicros: undefined,
      failure: undefined,
    }
    this.verifyJobs.set(job.id, job)
    return job
  }

  async verifies(): Promise<readonly VerifyJob[]> {
    return [...this.verifyJobs.values()].reverse()
  }

  async verify(id: string): Promise<VerifyJob> {
    const job = this.verifyJobs.get(id)
    if (job === undefined) throw new Failure('NOT_FOUND', `there is no verification ${id}`)
    const done: VerifyJob = {
      ...job,
      state: 'done',
      checkedCount: 1200,
      checkedSizeBytes: 512 * MiB,
      findings: this.findings,
      endedAtMicros: nowMicros + 9e6,
    }
    this.verifyJobs.set(id, done)
    return done
  }

  async cancelVerify(id: string): Promise<VerifyJob> {
    const job = await this.verify(id)
    return { ...job, state: 'cancelled' }
  }

  async dump(request: DumpRequest): Promise<DumpPage> {
    this.#mayFail()
    const first = request.after === undefined ? 0 : Number(request.after)
    const lines = Array.from({ length: Math.min(request.limit, 250 - first) }, (_, index) => ({
      file: `log/${request.what}-0001`,
      offsetBytes: (first + index) * 4096,
      kind: 'batch',
    }))
    const next = first + lines.length
    return { lines, next: next < 250 ? String(next) : undefined }
  }

  /** A VPG with that many checkpoints, 5 s apart, the newest 2 s old. */
  add(request: CreateVpgRequest, checkpointCount: number, facts: Partial<VpgStatus> = {}): VpgStatus {
    const agents = request.agents.map((agent, index) => agentFacts(agent, index + 1, checkpointCount > 0))
    const status: VpgStatus = {
      id: newVpgId(),
      name: request.name,
      incarnation: 1,
      epoch: 1,
      state: checkpointCount > 0 ? 'protected' : 'waiting-for-agent',
      stateReason: checkpointCount > 0 ? undefined : `no agent of ${request.agents.join(', ')} has connected yet`,
      createdAtMicros: nowMicros - 86_400e6,
      historyMillis: request.historyMillis ?? request.retention?.at(-1)?.forMillis ?? 30 * 86_400_000,
      retention: densitiesOfRequest(request),
      checkpointIntervalMillis: request.checkpointIntervalMillis,
      syncRateBytesPerSecond: 0,
      journalWarnSizeBytes: Number(request.journalWarnSizeBytes ?? 0),
      journalLimitSizeBytes: Number(request.journalLimitSizeBytes ?? 0),
      syncMayPassLimit: false,
      snapshotKeys: { volumes: {} },
      ...{ lagMillis: 0, backlogBytes: 0, backlogEtaMillis: 0 },
      paused: false,
      quiescedBy: undefined,
      coordinator: request.agents[0],
      noCheckpointsBecause: undefined,
      noCheckpointsSinceMicros: undefined,
      volumes: request.volumes.map((volume, index) =>
        volumeFacts({ agent: request.agents[0] ?? '', ...volume }, index),
      ),
      agents,
      rpoMillis: undefined,
      latestCheckpoint: undefined,
      oldestCheckpoint: undefined,
      checkpointCount: 0,
      tags: [],
      refusals: [],
      holes: [],
      writesPerSecond: 0,
      bytesPerSecond: 0,
      writesTotal: 0,
      bytesTotal: 0,
      mirror: emptyMirror,
      recoveries: [],
      standby: undefined,
      lastRecovery: undefined,
      drills: noDrills,
      ...facts,
    }
    const ordinals = Array.from({ length: checkpointCount }, (_, index) => checkpointOrdinal(3, 1000 + index))
    const vpg: FakeVpg = { status, ordinals, tags: new Map() }
    this.vpgs.set(request.name, vpg)
    this.#refresh(vpg)
    return vpg.status
  }

  #vpg(name: string): FakeVpg {
    this.#mayFail()
    const vpg = this.vpgs.get(name)
    if (vpg === undefined) throw new Failure('UNKNOWN_VPG', `there is no VPG "${name}"`, { vpg: name })
    return vpg
  }

  #find(vpg: FakeVpg, text: string): Ordinal {
    const reference = parseCheckpointReference(text, nowMicros)
    const found =
      reference.kind === 'latest'
        ? vpg.ordinals.at(-1)
        : reference.kind === 'tag'
          ? vpg.tags.get(reference.tag)
          : reference.kind === 'id'
            ? vpg.ordinals.find(ordinal => ordinal === reference.ordinal)
            : vpg.ordinals.findLast(ordinal => this.#facts(vpg, ordinal).timestampMicros <= reference.timestampMicros)
    if (found === undefined)
      throw new Failure('CHECKPOINT_MISSING', `${vpg.status.name} has no checkpoint "${text}"`, { checkpoint: text })
    return found
  }

  #newCheckpoint(vpg: FakeVpg): Ordinal {
    const made = checkpointOrdinal(3, 1000 + vpg.ordinals.length)
    vpg.ordinals.push(made)
    return made
  }

  #facts(vpg: FakeVpg, ordinal: Ordinal): CheckpointFacts {
    const index = ordinal - (vpg.ordinals[0] ?? ordinal) // they are consecutive
    return {
      checkpoint: formatCheckpointId(ordinal),
      timestampMicros: nowMicros - 2e6 - (vpg.ordinals.length - 1 - index) * 5e6,
      tags: [...vpg.tags].filter(([, tagged]) => tagged === ordinal).map(([name]) => name),
      recoverable: true,
      volumes: vpg.status.volumes.map(({ name, sizeBytes }) => ({ name, sizeBytes, included: true })),
    }
  }

  #refresh(vpg: FakeVpg): void {
    const [oldest, latest] = [vpg.ordinals[0], vpg.ordinals.at(-1)]
    vpg.status = {
      ...vpg.status,
      checkpointCount: vpg.ordinals.length,
      rpoMillis: latest === undefined ? undefined : (vpg.status.rpoMillis ?? 2000),
      latestCheckpoint: latest === undefined ? undefined : this.#facts(vpg, latest),
      oldestCheckpoint: oldest === undefined ? undefined : this.#facts(vpg, oldest),
      tags: [...vpg.tags].map(([tag, ordinal]) => ({
        tag,
        checkpoint: formatCheckpointId(ordinal),
        taggedAtMicros: nowMicros,
        keptForMillis: undefined,
      })),
    }
  }

  #mayFail(): void {
    const failure = this.failNext
    this.failNext = undefined
    if (failure !== undefined) throw failure
  }
}

const emptyMirror: VpgStatus['mirror'] = {
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
  requests: { ...noStoreRequests, sinceMicros: nowMicros - 3600e6 },
  scrub: undefined,
  locks: undefined,
  storeFailure: undefined,
}

function volumeFacts(volume: CreateVpgRequest['volumes'][number], index: number): VolumeFacts {
  return {
    number: index + 1,
    agent: 'host1',
    vm: volume.agent ?? 'host1',
    ...volume,
    ...{ dirtyBytes: 0, lagMillis: 0, backlogBytes: 0, backlogEtaMillis: 0, sync: undefined, preseed: undefined },
  }
}

function agentFacts(agent: string, stream: number, connected: boolean): AgentFacts {
  return {
    agent,
    stream,
    state: connected ? 'connected' : 'disconnected',
    reason: undefined,
    lacksVolumes: false,
    address: connected ? `10.1.4.${10 + stream}:51234` : undefined,
    software: 'vra 0.1.0',
    connectedAtMicros: connected ? nowMicros - 7200e6 : undefined,
    disconnectedAtMicros: undefined,
    peerAddress: undefined,
    queuedBytes: connected ? 128 * 1024 : 0,
    lagMillis: connected ? 250 : undefined,
    backlogEtaMillis: connected ? 100 : undefined,
    durable: connected ? { generation: 1, sequence: 48_211_904 } : { generation: 0, sequence: 0 },
    offloaded: connected ? { generation: 1, sequence: 48_004_112 } : { generation: 0, sequence: 0 },
  }
}

/** Three groups as an operator would see them on a bad-ish night: one well, one waiting, one that needs a sync. */
export function populated(): FakeVra {
  const vra = new FakeVra()
  const hour = 3_600_000
  vra.add(
    {
      name: 'web',
      volumes: [
        { name: 'root', sizeBytes: 40 * GiB },
        { name: 'data', sizeBytes: 500 * GiB },
      ],
      agents: ['host1', 'host2'],
      historyMillis: 24 * hour,
      checkpointIntervalMillis: 5000,
    },
    17_280,
    {
      writesPerSecond: 3412,
      bytesPerSecond: 61.4 * MiB,
      writesTotal: 918_220_112,
      bytesTotal: 14_200 * GiB,
      mirror: {
        ...emptyMirror,
        segmentCount: 71,
        segmentSizeBytes: 4.4 * GiB,
        deltaCount: 19,
        deltaSizeBytes: 118 * GiB,
        regionCount: 3120,
        baseSizeBytes: 246 * GiB,
        unsealedSizeBytes: 38 * MiB,
        unfoldedRawSizeBytes: 6.1 * GiB,
        historyMillis: 0,
        historySizeBytes: 0,
        agedEarlySinceMicros: undefined,
      },
    },
  )
  vra.add(
    {
      name: 'erp-database',
      volumes: [{ name: 'disk0', sizeBytes: 2048 * GiB }],
      agents: ['dbhost'],
      historyMillis: 72 * hour,
      checkpointIntervalMillis: 10_000,
    },
    9000,
    {
      state: 'needs-sync',
      stateReason: 'since 01:52 UTC: the send queue of dbhost overflowed (256 MiB) while the link was down',
      rpoMillis: 1_402_000,
      writesTotal: 44_100_512,
      bytesTotal: 1290 * GiB,
      mirror: {
        ...emptyMirror,
        segmentCount: 4,
        segmentSizeBytes: 210 * MiB,
        deltaCount: 8,
        deltaSizeBytes: 31 * GiB,
        regionCount: 900,
        baseSizeBytes: 88 * GiB,
      },
    },
  )
  vra.add(
    {
      name: 'test-lab',
      volumes: [{ name: 'root', sizeBytes: 20 * GiB }],
      agents: ['lab1'],
      historyMillis: 4 * hour,
      checkpointIntervalMillis: 60_000,
    },
    0,
  )
  vra.alerts = [
    {
      severity: 'critical',
      vpg: 'erp-database',
      sentence:
        'has had no new checkpoint for 23 min: agent dbhost needs a sync. Checkpoints up to 3.9999 stay recoverable.',
    },
    { severity: 'warning', vpg: 'test-lab', sentence: 'waits for agent lab1, which has never connected.' },
  ]
  return vra
}

function densitiesOfRequest({ historyMillis, retention }: CreateVpgRequest): readonly Density[] {
  if (historyMillis !== undefined) return [{ everyMillis: 0, forMillis: historyMillis }]
  return retention ?? densitiesDefault
}
