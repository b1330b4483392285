import type { AgingQueues, MirrorFacts, StoreRequestFacts } from '../aging/service.ts'
import type { FailureCode, FailureRecord } from '../base/failure.ts'
import type { Refusal } from '../ingest/ingest.ts'
import type { CacheFacts } from '../store/object-store.ts'
import type { Density } from '../timeline/densities.ts'
import type { Period } from '../timeline/recoverable.ts'
import type { FormSize } from '../timeline/store-use.ts'
import type { DiffFacts, DiffQuery, MountFacts, MountRequest } from './mounts.ts'
import type {
  DrillReport,
  DrillRequest,
  DrillScheduleRequest,
  DrillStatus,
  RecoveryDecision,
  RecoveryFacts,
  RecoveryPlan,
  RecoveryRequest,
  StandbyFacts,
} from './recoveries.ts'

export type * from './mounts.ts'
export type * from './recoveries.ts'
export type { Density } from '../timeline/densities.ts'
export type { Period } from '../timeline/recoverable.ts'
export type { FormSize } from '../timeline/store-use.ts'
export type { Refusal } from '../ingest/ingest.ts'

// What the HTTP API asks of the daemon. Everything is plain data that goes into JSON as it is: checkpoint ids as text
// ("term.counter"), times in microseconds since 1970, sizes in bytes. The API's clients see these very types.
//
// No call may cost more than a page of answers: nothing here counts, scans or reads images. What takes long is a job.

export interface VraControl {
  status(): Promise<VraStatus>
  listVpgs(): Promise<readonly VpgStatus[]>
  /** UNKNOWN_VPG where there is none of that name, here and in every call below. */
  showVpg(name: string): Promise<VpgStatus>
  /** Durable in the object store on return. ALREADY_EXISTS when the name is taken. */
  createVpg(request: CreateVpgRequest): Promise<VpgStatus>
  /** Ends protection; checkpoints, journal and mirror of the VPG go. Refused BUSY while an export reads it. */
  /** `isForced`: although something of its is in AWS, which is left there. */
  deleteVpg(name: string, how: { readonly isForced: boolean }): Promise<void>
  /** History, its density, interval, limits, rate and pause. Durable in the object store on return. */
  changeVpg(name: string, request: ChangeVpgRequest): Promise<VpgStatus>
  /** A volume more; its agent is asked for it from then on. ALREADY_EXISTS when the name is taken. */
  addVolume(vpg: string, request: AddVolumeRequest): Promise<VpgStatus>
  /** Older checkpoints keep it. UNKNOWN_VOLUME where there is none of that name, here and below. */
  removeVolume(vpg: string, volume: string): Promise<VpgStatus>
  /** Older checkpoints keep the size that it had. REQUEST_INVALID where it would shrink. */
  growVolume(vpg: string, volume: string, request: GrowVolumeRequest): Promise<VpgStatus>
  /** Asks the agents of the volumes for a synchronisation. PEER_LOST where one of them is not connected; then none was asked. */
  requestSync(vpg: string, request: SyncVpgRequest): Promise<VpgStatus>

  /** What can be recovered how densely, what it takes in the store, and what that costs. Reads the index's checkpoints of the VPG, as it has time. */
  timeline(vpg: string): Promise<VpgTimeline>
  /** What of removed objects a bucket with versions still keeps, and what that costs. Lists it: minutes, where there is much. */
  versions(vpg: string): Promise<VpgVersions>
  listCheckpoints(query: CheckpointListQuery): Promise<CheckpointList>
  /**
   * What `latest`, an id, a tag or an ISO 8601 time (the newest at or before it) means. CHECKPOINT_MISSING when none is recoverable there.
   */
  findCheckpoint(vpg: string, reference: string): Promise<CheckpointFacts>
  /** Without `checkpoint` a new one is made and tagged. Durable in the object store on return. Tagging it again changes how long it is kept. */
  tagCheckpoint(request: TagRequest): Promise<CheckpointFacts>
  /** NOT_FOUND when nothing has the tag. */
  untagCheckpoint(vpg: string, tag: string): Promise<void>

  /** Returns when the image is open (its checkpoint is pinned) and the file is created; the copy goes on as a job. */
  startExport(request: ExportRequest): Promise<ExportJob>
  /** Newest first; running ones, and the last finished ones. */
  exports(): Promise<readonly ExportJob[]>
  export(id: string): Promise<ExportJob>
  /** Stops it and removes its partial file. What has finished stays as it is. */
  cancelExport(id: string): Promise<ExportJob>

  /** Serves volumes as of a checkpoint read-only over NBD, until endMount() or the daemon ends. */
  startMount(request: MountRequest): Promise<MountFacts>
  /** Newest first. */
  mounts(): Promise<readonly MountFacts[]>
  /** Its clients are cut off, and nothing is left of it, on return. NOT_FOUND. */
  endMount(id: string): Promise<void>
  /** Where a volume was written between two checkpoints, by the indexes: no data is read. */
  diff(query: DiffQuery): Promise<DiffFacts>

  /**
   * The raw image in this file becomes the beginning of the volume's mirror, as a job that a restart of the daemon goes on with. REQUEST_INVALID where
   * it has another size than the volume, or checkpoints include the volume already, or its agent has compared it.
   */
  startPreseed(request: PreseedRequest): Promise<PreseedJob>
  preseeds(): Promise<readonly PreseedJob[]>
  preseed(id: string): Promise<PreseedJob>
  /** What was read by then stays: it is compared like the rest. */
  cancelPreseed(id: string): Promise<PreseedJob>

  /** What it would do; changes nothing. Fails as startRecovery does. */
  planRecovery(request: RecoveryRequest): Promise<RecoveryPlan>
  /**
   * Durable in the object store on return, with the pin of its checkpoint; it goes on as a job that a restart of the daemon goes on with. CHECKPOINT_MISSING
   * where there is no such checkpoint, or it does not include all that is wanted: the sentence names the nearest. BUSY while another failover or move
   * of the VPG is under way. REQUEST_INVALID and others for all that its target can know before something is created.
   */
  startRecovery(request: RecoveryRequest): Promise<RecoveryFacts>
  /** Newest first: those under way, and the last that have ended, but for drills. */
  recoveries(): Promise<readonly RecoveryFacts[]>
  /** NOT_FOUND, here and below. */
  recovery(id: string): Promise<RecoveryFacts>
  /** The decision is durable on return. REQUEST_INVALID where it cannot be meant, BUSY where it cannot be now. */
  decideRecovery(id: string, decision: RecoveryDecision): Promise<RecoveryFacts>

  /**
   * A test that ends by itself. BUSY while any other drill or a recovery of the VPG is under way; NOT_FOUND for a check that the configuration has not; else as
   * startRecovery.
   */
  startDrill(request: DrillRequest): Promise<RecoveryFacts>
  /** Of one VPG: newest first, the one under way and the last that have ended. */
  drills(vpg: string): Promise<readonly RecoveryFacts[]>
  /** What came of a check that the client ran: durable on return. BUSY where the drill has ended otherwise, or is not ready. */
  reportDrill(id: string, report: DrillReport): Promise<RecoveryFacts>

  /** Reads and checks every record, segment or mirror object; one at a time a kind, BUSY otherwise. */
  startVerify(request: VerifyRequest): Promise<VerifyJob>
  verifies(): Promise<readonly VerifyJob[]>
  verify(id: string): Promise<VerifyJob>
  cancelVerify(id: string): Promise<VerifyJob>

  /** What is where, one page of lines of at most `limit`; `after` is the `next` of the page before. */
  dump(request: DumpRequest): Promise<DumpPage>
}

export interface VraStatus {
  readonly software: string
  readonly applianceId: string
  readonly startedAtMicros: number
  readonly nowMicros: number
  readonly dataDirectory: string
  /** Where the store is, in words: a directory or s3://bucket/prefix. */
  readonly store: string
  /** What waits for it, and whether it puts us off; undefined while it has not answered since the start. */
  readonly queues: AgingQueues | undefined
  /** While it does not answer, for one VPG at least: since when, and why. Writes are taken all the same, until the journal is full. */
  readonly storeFailing: { readonly sinceMicros: number; readonly sentence: string } | undefined
  readonly listen: { readonly host: string; readonly port: number; readonly tls: boolean }
  /** Not ready while recovering; ready with faults while limping. */
  readonly ready: boolean
  /** What a person should know now, worst first; empty when all is well. */
  readonly alerts: readonly Alert[]
  readonly journal: JournalStatus
  readonly ingest: IngestStatus
  /** Peers that were refused and belong to no VPG here, the newest first; bounded. */
  readonly refusals: readonly Refusal[]
  readonly vpgs: readonly VpgStatus[]
  readonly exports: readonly ExportJob[]
  /** On the local disk, of what images read from a bucket. */
  readonly cache: CacheFacts | undefined
}

export interface Alert {
  readonly severity: 'critical' | 'warning'
  /** The VPG it is about, if it is about one. */
  readonly vpg: string | undefined
  readonly sentence: string
}

export interface JournalStatus {
  readonly logSizeBytes: number
  readonly logSizeBytesMax: number
  readonly logFileCount: number
  readonly diskFreeBytes: number
  readonly indexSizeBytes: number
  /** Undefined while records can be made durable; else why they wait. */
  readonly full: string | undefined
}

/** Rates over the last seconds. */
export interface IngestStatus {
  readonly sessionCount: number
  readonly writesPerSecond: number
  readonly bytesPerSecond: number
  readonly writesTotal: number
  readonly bytesTotal: number
  readonly ackMillisP50: number
  readonly ackMillisP99: number
}

export type VpgState =
  'protected' | 'syncing' | 'paused' | 'waiting-for-agent' | 'needs-sync' | 'journal-full' | 'damaged' | 'fenced'

export interface VpgStatus {
  readonly id: string
  readonly name: string
  readonly incarnation: number
  readonly epoch: number
  readonly state: VpgState
  /** Why, and since when, unless `protected`; for a person. */
  readonly stateReason: string | undefined
  readonly createdAtMicros: number
  /** How far back the history reaches. */
  readonly historyMillis: number
  /** How densely, from young to old. */
  readonly retention: readonly Density[]
  readonly checkpointIntervalMillis: number
  /** What agents read of their disks for a synchronisation at most; 0 for no limit. */
  readonly syncRateBytesPerSecond: number
  /** What the history may take in the store beyond the newest mirror before it is told, and before its oldest checkpoints go; 0: no limit. */
  readonly journalWarnSizeBytes: number
  readonly journalLimitSizeBytes: number
  /** False: a synchronisation that the limit has no room for waits. */
  readonly syncMayPassLimit: boolean
  /** With which snapshots of its volumes in AWS are encrypted. */
  readonly snapshotKeys: SnapshotKeyFacts
  readonly paused: boolean
  /** The recovery for which its machines write no more. */
  readonly quiescedBy: string | undefined
  readonly volumes: readonly VolumeFacts[]
  /** Who makes the checkpoints now. */
  readonly coordinator: string | undefined
  /** A sentence; undefined while checkpoints are made. */
  readonly noCheckpointsBecause: string | undefined
  /** When the newest one was made, while none are. */
  readonly noCheckpointsSinceMicros: number | undefined
  readonly agents: readonly AgentFacts[]
  /** Peers that asked for this VPG and were refused, the newest first, until they are let in; bounded. */
  readonly refusals: readonly Refusal[]
  /** Age of the newest recoverable checkpoint that includes every volume; undefined before the first. */
  readonly rpoMillis: number | undefined
  /** Age of the oldest write that may be missing here, of the agent or volume that is furthest behind; undefined while nobody can say. */
  readonly lagMillis: number | undefined
  /** What agents have said that they have and this VRA has not: queued, or to be looked at by synchronisations. */
  readonly backlogBytes: number
  /** Until that is sent, at the present rates; undefined where it does not become less. */
  readonly backlogEtaMillis: number | undefined
  readonly latestCheckpoint: CheckpointFacts | undefined
  readonly oldestCheckpoint: CheckpointFacts | undefined
  readonly checkpointCount: number
  readonly tags: readonly TagFacts[]
  /** From here on checkpoints are withdrawn, until a sync repairs it. */
  readonly holes: readonly { readonly fromCheckpoint: string; readonly reason: string }[]
  /** Those under way, newest first. */
  readonly recoveries: readonly RecoveryFacts[]
  /** Undefined where none are wanted, and none are there. */
  readonly standby: StandbyFacts | undefined
  /** Of the newest recovery that was ready, whatever became of it. */
  readonly lastRecovery: { readonly readyAtMicros: number; readonly rtoMillis: number } | undefined
  readonly drills: DrillStatus
  readonly writesPerSecond: number
  readonly bytesPerSecond: number
  readonly writesTotal: number
  readonly bytesTotal: number
  readonly mirror: MirrorFacts
}

export interface VpgTimeline {
  readonly vpg: string
  readonly nowMicros: number
  readonly retention: readonly Density[]
  readonly checkpointIntervalMillis: number
  /** That can be recovered, and that a bad payload withdraws. */
  readonly checkpointCount: number
  readonly withdrawnCount: number
  readonly oldest: CheckpointAt | undefined
  readonly newest: CheckpointAt | undefined
  /** From the oldest to the newest, on the history clock. */
  readonly historyMillis: number
  readonly periods: readonly Period[]
  /** The widest, from new to old, and how many there are beside these. */
  readonly gaps: readonly GapFacts[]
  readonly moreGaps: number
  readonly forms: readonly FormSize[]
  /** Objects that nothing needs any more, until their grace period is over; of these the sizes are not known. */
  readonly garbageCount: number
  readonly requests: StoreRequestFacts
  /** Bytes put for each guest byte, and puts for each GiB of guest data; undefined before any came. */
  readonly writeAmplification: number | undefined
  readonly putsPerGiB: number | undefined
  readonly cost: CostFacts
}

export interface VpgVersions {
  readonly vpg: string
  /** 'unknown': the role may not ask the bucket, or its server cannot say; nothing is counted then. */
  readonly versioning: 'kept' | 'none' | 'unknown'
  /** A lifecycle rule of the bucket removes them. */
  readonly expire: boolean
  /** Of noncurrent versions; commits are segments and roots of manifests. */
  readonly forms: readonly {
    readonly form: 'commits' | 'pages' | 'deltas' | 'base'
    readonly count: number
    readonly sizeBytes: number
  }[]
  readonly markerCount: number
  /** False: there are more than were counted. */
  readonly isWhole: boolean
  readonly costPerMonth: number
  readonly currency: string
}

export interface CheckpointAt {
  readonly checkpoint: string
  readonly timestampMicros: number
}

export interface GapFacts {
  readonly after: CheckpointAt
  readonly before: CheckpointAt
  /** In the time that people know, and on the history clock, which stands while nothing is protected. */
  readonly wallMillis: number
  readonly historyMillis: number
  /** A sentence. */
  readonly reason: string
}

/** For a month of 730 hours, in the currency of the prices. Requests go on as since `requests.sinceMicros`. */
export interface CostFacts {
  readonly prices: PriceFacts
  readonly storage: number
  readonly puts: number
  readonly lists: number
  readonly gets: number
  readonly total: number
}

export interface PriceFacts {
  readonly currency: string
  readonly storagePerGiBMonth: number
  readonly putsPerThousand: number
  readonly getsPerThousand: number
  /** They are those that the program knows, of S3 Standard in us-east-1: nobody has configured others. */
  readonly isDefault: boolean
}

export interface TagFacts {
  readonly checkpoint: string
  readonly tag: string
  readonly taggedAtMicros: number
  /** How much longer it is kept, on the VPG's history clock; undefined: until it is untagged. */
  readonly keptForMillis: number | undefined
}

export interface VolumeFacts {
  readonly number: number
  readonly name: string
  readonly sizeBytes: number
  readonly agent: string
  /** The machine that it is a disk of: its agent's name, unless it was said to be another's. */
  readonly vm: string
  /** What its agent's dirty map says that the VRA may lack. */
  readonly dirtyBytes: number
  /** Age of the oldest write of it that may be missing here; undefined while nobody can say. */
  readonly lagMillis: number | undefined
  /** What its synchronisation has yet to look at; what is queued is its agent's. */
  readonly backlogBytes: number
  readonly backlogEtaMillis: number | undefined
  readonly sync: SyncFacts | undefined
  /** The image that was handed over for its mirror, and how much of it was read. */
  readonly preseed:
    { readonly state: 'under-way' | 'ended'; readonly file: string; readonly doneBytes: number } | undefined
}

/** A synchronisation that is not over, as its agent told it last. */
export interface SyncFacts {
  readonly kind: 'initial' | 'full' | 'delta' | 'bitmap'
  /** Why it is needed. */
  readonly reason: string
  /** Why it waits, where this VRA has it wait. */
  readonly heldBecause: string | undefined
  readonly sinceMicros: number
  readonly totalBytes: number
  /** Looked at so far, and of that, sent as data. */
  readonly doneBytes: number
  readonly sentBytes: number
  /** Over the last seconds. */
  readonly rateBytesPerSecond: number
  readonly etaMillis: number | undefined
}

export interface AgentFacts {
  readonly agent: string
  readonly stream: number
  readonly state: 'connected' | 'disconnected' | 'needs-sync'
  /** What the agent said of itself, where it is not as it should be; or why it was refused last. */
  readonly reason: string | undefined
  /** It is connected, and there are volumes that it does not offer, or that it should not; the reason names them. */
  readonly lacksVolumes: boolean
  readonly address: string | undefined
  readonly software: string | undefined
  readonly connectedAtMicros: number | undefined
  readonly disconnectedAtMicros: number | undefined
  /** Where the other agents of the VPG reach it for holds. */
  readonly peerAddress: string | undefined
  readonly queuedBytes: number
  /** Age of the oldest write that may be missing here: 0 when none is, undefined while nobody can say. */
  readonly lagMillis: number | undefined
  /** Until its queue is sent, at the present rate. */
  readonly backlogEtaMillis: number | undefined
  readonly durable: { readonly generation: number; readonly sequence: number }
  readonly offloaded: { readonly generation: number; readonly sequence: number }
}

export interface CheckpointFacts {
  /** "term.counter" */
  readonly checkpoint: string
  readonly timestampMicros: number
  readonly tags: readonly string[]
  /** False: it is listed, but lies in a hole. */
  readonly recoverable: boolean
  readonly volumes: readonly { readonly name: string; readonly sizeBytes: number; readonly included: boolean }[]
}

export interface CheckpointListQuery {
  readonly vpg: string
  /** 1 to 1000. */
  readonly limit: number
  readonly order: 'newest-first' | 'oldest-first'
  /** A checkpoint id: strictly beyond it in the order asked for. */
  readonly after?: string
  readonly fromTimestampMicros?: number
  /** Exclusive. */
  readonly toTimestampMicros?: number
  /** Only tagged ones. */
  readonly tagged?: boolean
}

export interface CheckpointList {
  readonly checkpoints: readonly CheckpointFacts[]
  readonly more: boolean
}

/** Bytes, 0 for none, or a share of the store's disk: "20%". */
export type JournalLimit = number | string

/** As in VpgStatus; a share is taken of the disk as it is when it is asked for. */
export interface JournalLimitsRequest {
  readonly journalWarnSizeBytes?: JournalLimit
  readonly journalLimitSizeBytes?: JournalLimit
}

/** One of the two, or neither: a history with every checkpoint, or one that gets less dense with age. */
export interface RetentionRequest {
  readonly historyMillis?: number
  readonly retention?: readonly Density[]
}

export interface CreateVpgRequest extends JournalLimitsRequest, RetentionRequest {
  readonly name: string
  /** `agent` writes it; it need not be said where there is only one. */
  /** `vm`: the machine that it is a disk of; its agent's where it is not said. */
  readonly volumes: readonly {
    readonly name: string
    readonly sizeBytes: number
    readonly agent?: string
    readonly vm?: string
  }[]
  /** Who may write the VPG: agent names, as in their certificates. */
  readonly agents: readonly string[]
  readonly checkpointIntervalMillis: number
}

/** ARNs of keys of KMS. */
export interface SnapshotKeyFacts {
  readonly all?: string | undefined
  /** By name; goes before. */
  readonly volumes: Readonly<Record<string, string>>
}

export interface ChangeVpgRequest extends JournalLimitsRequest, RetentionRequest {
  readonly checkpointIntervalMillis?: number
  /** 0: no limit. */
  readonly syncRateBytesPerSecond?: number
  readonly syncMayPassLimit?: boolean
  readonly paused?: boolean
  /** null: no drills any more. */
  readonly drillSchedule?: DrillScheduleRequest | null
  /** 0: no standby copies. */
  readonly standbyIntervalMillis?: number
  /** In place of what was said before. */
  readonly snapshotKeys?: SnapshotKeyFacts
}

export interface AddVolumeRequest {
  readonly name: string
  readonly sizeBytes: number
  /** It need not be said where the VPG has one agent; a new name is a new agent. */
  readonly agent?: string
  /** The machine that it is a disk of; its agent's where it is not said. */
  readonly vm?: string
}

export interface GrowVolumeRequest {
  readonly sizeBytes: number
}

export interface SyncVpgRequest {
  readonly kind: 'full' | 'delta'
  /** Names; all volumes where it is missing. */
  readonly volumes?: readonly string[]
}

export interface TagRequest {
  readonly vpg: string
  readonly tag: string
  /** As in findCheckpoint. */
  readonly checkpoint?: string
  /** How long it is kept from now on, on the VPG's history clock; until it is untagged where it is missing. */
  readonly keepMillis?: number
}

export interface ExportRequest {
  readonly vpg: string
  readonly volume: string
  /** As in findCheckpoint. */
  readonly checkpoint: string
  /** An absolute path on the daemon's host, written as the daemon's user. */
  readonly file: string
  /** False: ALREADY_EXISTS where the file exists. */
  readonly overwrite: boolean
}

export type JobState = 'running' | 'done' | 'failed' | 'cancelled'

export interface ExportJob {
  readonly id: string
  readonly state: JobState
  readonly vpg: string
  readonly volume: string
  readonly checkpoint: string
  readonly checkpointTimestampMicros: number
  readonly file: string
  readonly sizeBytes: number
  /** How far it has come, holes included. */
  readonly doneBytes: number
  /** Of it, what was not zeros. */
  readonly dataBytes: number
  readonly startedAtMicros: number
  readonly endedAtMicros: number | undefined
  readonly failure: FailureRecord | undefined
}

export interface PreseedRequest {
  readonly vpg: string
  readonly volume: string
  /** An absolute path on the daemon's host, read as the daemon's user: a raw file or a block device. */
  readonly file: string
}

export interface PreseedJob {
  readonly id: string
  readonly state: JobState
  readonly vpg: string
  readonly volume: string
  readonly file: string
  readonly sizeBytes: number
  /** Of the image, holes included. */
  readonly doneBytes: number
  /** Of it, what was not zeros, since the daemon was started. */
  readonly dataBytes: number
  readonly startedAtMicros: number
  readonly endedAtMicros: number | undefined
  readonly failure: FailureRecord | undefined
}

export interface VerifyRequest {
  readonly what: 'journal' | 'mirror'
  /** Undefined: every VPG. */
  readonly vpg?: string
}

export interface VerifyJob {
  readonly id: string
  readonly what: 'journal' | 'mirror'
  readonly vpg: string | undefined
  readonly state: JobState
  readonly checkedCount: number
  readonly checkedSizeBytes: number
  /** Undefined while it is not known. */
  readonly totalSizeBytes: number | undefined
  readonly findings: readonly Finding[]
  /** Damage beyond the findings that are kept. */
  readonly moreFindings: number
  readonly startedAtMicros: number
  readonly endedAtMicros: number | undefined
  readonly failure: FailureRecord | undefined
}

/** One thing that is damaged: where, what is wrong, what it affects. */
export interface Finding {
  readonly vpg: string | undefined
  /** File or object key. */
  readonly place: string
  readonly offsetBytes: number | undefined
  readonly sentence: string
}

export interface DumpRequest {
  readonly what: 'journal' | 'mirror'
  readonly vpg?: string
  readonly limit: number
  readonly after?: string
}

/** Records of the log and segments, or objects of the mirror, in their order. */
export interface DumpPage {
  readonly lines: readonly Readonly<Record<string, string | number | boolean>>[]
  /** Undefined on the last page. */
  readonly next: string | undefined
}

/** What every refusal and failure looks like in JSON; INTERNAL_ERROR is a bug of ours. */
export interface ErrorBody extends Omit<FailureRecord, 'code'> {
  readonly code: FailureCode | 'INTERNAL_ERROR'
}
