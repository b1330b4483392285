import type { Ordinal, PositionVector, StreamPosition, VpgId } from '../base/ids.ts'
import type { StoreAway } from './store-opening.ts'
import type { PaceFlag } from './turns.ts'
import type { LoadFacts, StoreConfig } from '../store/object-store.ts'
import type { DurableMarker } from '../timeline/assembler.ts'
import type { Checkpoint, Tag } from '../timeline/checkpoint.ts'
import type { VpgDefinition } from '../timeline/definition.ts'
import type { VolumeChange, VpgSettings, WritingChange } from '../timeline/definition-change.ts'
import type { VolumeDataSize } from '../timeline/image-size.ts'
import type { RecoveryRecord } from '../timeline/recovery.ts'
import type { StandbyRecord } from '../timeline/standby.ts'
import type { WholeSync } from '../timeline/repair.ts'
import type { Hole, SegmentSpan, VpgState } from '../timeline/state.ts'
import type { FormSize } from '../timeline/store-use.ts'
import type { StoreRequestFacts } from './store-requests.ts'
import type { PackedTail } from '../segment/segment.ts'

export type { StoreRequestFacts } from './store-requests.ts'

// The aging thread, seen from the daemon: it tails the commit log, checks payloads, seals segments, commits them to the object store,
// folds them into deltas, rewrites base regions, collects garbage. It is the single writer of every VPG's commit sequence,
// so control records (definitions, tags, pins, recoveries, holes) go through it, too.

export interface AgingConfig {
  readonly store: StoreConfig
  readonly logDirectory: string
  readonly scratchDirectory: string
  /** Where VPGs are remembered for a start without the store; undefined: nowhere. */
  readonly memoDirectory: string | undefined
  /** What the processes before noted, of which the index has all that was so then; of every other the VPG is read. */
  readonly notes?: readonly StopNote[]
  /** Who owns the VPGs in the store; another owner's VPG is refused, unless it is to be taken over. */
  readonly applianceId: string
  /** True: VPGs of other appliances are taken over. */
  readonly adopt: boolean
  readonly segmentSizeBytesTarget: number
  readonly segmentAgeMillisMax: number
  readonly foldSizeBytesMin: number
  /** Smaller bounds of one fold, for tests; see FoldLimits. */
  readonly foldSizeBytesMax?: number
  /** The same of one merge of deltas. */
  readonly mergeSizeBytesMax?: number
  readonly deltaShareMax: number
  readonly garbageGraceMillis: number
  /** Above this much unsealed log, VPGs that hold the oldest log file are sealed early. */
  readonly logSizeBytesPressure: number
  /** Undefined: nothing is verified in the background. */
  readonly scrub?: ScrubConfig | undefined
  /** Undefined: of a former process of this data directory nothing is known. */
  readonly tenure?: TenureConfig | undefined
  /** By which aging is told to stand back; undefined: it never does. */
  readonly paceFlag?: PaceFlag
}

/** What tells this process from others of the appliance's id. */
export interface TenureConfig {
  /** Where it is written down which tenure this data directory held last. */
  readonly file: string
  /** Of this boot of this machine, and of this very directory: no copy of it has the same. */
  readonly place: string
  /** The machine's name, for people. */
  readonly host: string
}

export interface ScrubConfig {
  readonly bytesPerSecond: number
  /** From the end of one verification of a VPG to the beginning of the next. */
  readonly intervalMillis: number
  /** Where it is written down how far it is. */
  readonly file: string
}

/** Calls to the thread; see RpcMethods. Failures keep their codes. */
export interface AgingService {
  /**
   * Opens the store and reads every VPG's newest manifest and what was committed after it. Where the store does not answer, `vpgs` are
   * those that are remembered, `isStoreAway` is true, and every other call but start() and close() fails STORE_UNAVAILABLE until
   * storeOpened is told. The first call.
   */
  open(config: AgingConfig): Promise<{ readonly vpgs: readonly PackedVpg[]; readonly isStoreAway: boolean }>
  /** On return historyRead has been told of the VPG, whose manifest was not read before: what else there is waits. */
  readHistory(argument: { readonly vpg: VpgId }): Promise<void>
  /** After the log's recovery: starts tailing at the oldest log file, and aging. */
  start(argument: { readonly durable: LogMark }): Promise<void>
  createVpg(definition: VpgDefinition): Promise<OpenedVpg>
  /**
   * Ends protection: the VPG's commit sequence gets a last manifest that says so; its objects become garbage. BUSY while recoveries or standby copies are to end first; `isForced`: not for what is
   * in AWS and is being removed there, which is nobody's then.
   */
  deleteVpg(argument: { readonly vpg: VpgId; readonly isForced: boolean }): Promise<void>
  /** The definition as it is then; durable in the store on return. */
  changeVpg(argument: { readonly vpg: VpgId } & VpgSettings): Promise<VpgDefinition>
  /** As withWriting; durable in the store on return. After one that was given up on, for the store did not answer, and may yet take effect. */
  changeWriting(argument: { readonly vpg: VpgId; readonly change: WritingChange }): Promise<VpgDefinition>
  /** As withVolumeChange; durable in the store on return. */
  changeVolumes(argument: { readonly vpg: VpgId; readonly change: VolumeChange }): Promise<VpgDefinition>
  /**
   * The tag as it is kept, durable in the store on return; with `keepMillis` for so long from now on, otherwise until it is untagged. ALREADY_EXISTS
   * when the name tags another checkpoint; CHECKPOINT_MISSING, naming the nearest, when the checkpoint is not retained.
   */
  tag(argument: {
    readonly vpg: VpgId
    readonly ordinal: Ordinal
    readonly name: string
    readonly keepMillis?: number | undefined
  }): Promise<Tag>
  untag(argument: { readonly vpg: VpgId; readonly name: string }): Promise<void>
  /**
   * The record is durable in the store on return, in place of the one of its id, and with it, in the same commit, the pin of its checkpoint, or
   * that the pin is gone; `isNew` takes it back where the store takes it too late. Fails CHECKPOINT_MISSING where it names a checkpoint that is not
   * retained, BUSY where too many are under way.
   */
  putRecovery(argument: {
    readonly vpg: VpgId
    readonly record: RecoveryRecord
    readonly isNew: boolean
  }): Promise<void>
  /**
   * The record of standby copies is durable in the store on return, and with it, in the same commit, the pins that it needs and no others; undefined: there
   * is none any more. Fails CHECKPOINT_MISSING where it names a checkpoint that is not retained.
   */
  putStandby(argument: { readonly vpg: VpgId; readonly standby: StandbyRecord | undefined }): Promise<void>
  /** About how much data the volumes are as of a checkpoint that is retained; nothing is committed, and no index read. CHECKPOINT_MISSING otherwise. */
  dataSizes(argument: { readonly vpg: VpgId; readonly checkpoint: Checkpoint }): Promise<readonly VolumeDataSize[]>
  /**
   * Commits a pin, then answers with all that a reader needs; without a commit where a recovery has pinned the checkpoint already. CHECKPOINT_MISSING
   * when it is not retained.
   */
  openImage(argument: {
    readonly vpg: VpgId
    readonly checkpoint: Checkpoint
    readonly owner: string
  }): Promise<ImagePlan>
  /**
   * All that a reader of the newest state needs: the volumes as of these positions, which are no checkpoint and need no pin. Objects
   * and log files are held until closeImage. Fails CHECKPOINT_MISSING where the log does not reach up to them.
   */
  openReading(argument: { readonly vpg: VpgId; readonly positions: PositionVector }): Promise<ImagePlan>
  /** Drops the pin, where there is one, and the hold on objects and log files. */
  closeImage(argument: { readonly vpg: VpgId; readonly pinId: string }): Promise<void>
  status(argument: { readonly vpg: VpgId }): Promise<VpgMirrorStatus>
  /** The same of many, in their order; of one that has none, why. */
  statuses(argument: {
    readonly vpgs: readonly VpgId[]
  }): Promise<readonly (VpgMirrorStatus | { readonly missingBecause: string })[]>
  /** Of all VPGs together. */
  queues(argument: undefined): Promise<AgingQueues>
  /**
   * Durable on return: the image in this file begins the volume's mirror. Gone on with where the same unchanged file was being read before. Fails
   * REQUEST_INVALID where its size is another than the volume's, or the agent has compared the volume already; CONFIG_INVALID where it cannot be read.
   */
  beginPreseed(argument: {
    readonly vpg: VpgId
    readonly volume: number
    readonly file: string
  }): Promise<VpgDefinition>
  /** The region of the image is committed on return. Fails CLOSING where the preseed has been ended. */
  preseedRegion(argument: {
    readonly vpg: VpgId
    readonly volume: number
    readonly region: number
  }): Promise<PreseededRegion>
  /** Whole or not, the image is not read any further: the agent compares what is there. */
  endPreseed(argument: { readonly vpg: VpgId; readonly volume: number }): Promise<VpgDefinition>
  /**
   * Durable on return: hashes of the volume may be told, for no image is put below it any more. False where that was so before. Fails BUSY while
   * one is being read.
   */
  noteCompared(argument: { readonly vpg: VpgId; readonly volume: number }): Promise<boolean>
  /**
   * An agent opened a generation of its stream in which it synchronises these volumes whole, by sending or by comparing all of their blocks: holes
   * that the log has by now in them are repaired by the first checkpoint of that generation that includes them.
   */
  generationOpened(argument: { readonly vpg: VpgId } & WholeSync): Promise<void>
  /** Seals and commits what the VPG has in the log up to now, whatever its size and age; returns what is offloaded then. */
  seal(argument: { readonly vpg: VpgId }): Promise<readonly StreamPosition[]>
  /** The answer to checkpointsGivenUp, after it was acted on, and after the thread was told how far the log is durable by then. */
  givenUp(argument: { readonly question: number }): Promise<void>
  /** Nothing more is committed, and every notice has been told. Answers with what lets the next start go on from here, of the VPGs that nobody was using. */
  close(argument: undefined): Promise<readonly StopNote[]>
}

/**
 * What a start needs of a VPG that reads nothing of it, as stop-notes.ts makes it: of use where the index has all that the VPG had then, whatever else it has
 * by now. The text is empty where a start has to read the VPG.
 */
export interface StopNote {
  readonly vpg: VpgId
  readonly text: string
}

export interface PreseededRegion {
  /** Of the region, what is no zeros. */
  readonly dataBytes: number
  readonly definition: VpgDefinition
}

/** How far the commit log is durable: everything in files of a lower identity, and this file up to the offset. */
export interface LogMark {
  readonly fileIdentity: number
  readonly offsetBytes: number
}

export interface OpenedVpg {
  readonly definition: VpgDefinition
  readonly epoch: number
  readonly offloaded: readonly StreamPosition[]
  readonly historyEdge: Ordinal
  readonly tags: VpgState['tags']
  readonly recoveries: VpgState['recoveries']
  readonly standby?: VpgState['standby']
  readonly holes: readonly Hole[]
  /** Where the index has the VPG from before, the newest checkpoint that it surely has: here are only that, and what was committed after it was noted. */
  readonly indexedThrough?: Ordinal
  /** True where only what serves the VPG was read: the newest of its checkpoints are here, and the newest segments. historyRead tells all of them. */
  readonly isUnread?: true
  /** Where the store does not give the VPG, though it answers for others: why, a sentence. It is what was remembered, until vpgOpened tells what the store says. */
  readonly rememberedBecause?: string
  /** Every retained checkpoint that is in the store (checkpoint pages, then markers of segments). */
  readonly checkpoints: readonly Checkpoint[]
  readonly segments: readonly SegmentSpan[]
  /** Markers in committed segments of checkpoints that miss others. */
  readonly pendingMarkers: readonly DurableMarker[]
  /** The end of the last delta: a checkpoint with a marker up to here that is not among these has been given up. */
  readonly foldedThrough: PositionVector
}

/** The same on its way between threads. A hundred VPGs may have millions of checkpoints: here each is some 12 bytes. */
export interface PackedVpg extends Omit<OpenedVpg, 'checkpoints'> {
  /** As encodeCheckpoints of src/timeline makes it. */
  readonly checkpointPage: Uint8Array
}

/** What an image reader is given: plain data, all of it readable until closeImage. */
export interface ImagePlan {
  readonly pinId: string
  /** Of openReading: none that exists, above all that do. */
  readonly checkpoint: Checkpoint
  readonly state: VpgState
  /** Records of the checkpoint that are in no segment yet. */
  readonly tail: PackedTail
  /** The end of the last delta, as positions: only records after it count in segments and tail. */
  readonly segmentsFrom: PositionVector
}

export interface DamagedObject {
  readonly key: string
  /** None: it is no data, but what a start reads. */
  readonly checkpointCount: number
  readonly firstOrdinal: Ordinal | undefined
  readonly lastOrdinal: Ordinal | undefined
  /** Those that are not in the store yet, and all that come, read it as well. */
  readonly laterOnes: boolean
}

/** How far the verification of the VPG's objects is. */
export interface ScrubFacts {
  /** When all of it was verified last; undefined before the first time. */
  readonly verifiedAtMicros: number | undefined
  /** Objects that are damaged, as far as is known. */
  readonly damagedCount: number
  /** Those of them that are still needed, and the retained checkpoints whose images read them; bounded. */
  readonly damaged: readonly DamagedObject[]
  /** Retained checkpoints that need one of these at least. */
  readonly damagedCheckpointCount: number
  /** Of the pass under way; undefined when none is. */
  readonly passSinceMicros: number | undefined
  readonly passCheckedCount: number
  readonly passCheckedSizeBytes: number
  /** Of all passes since this process began. */
  readonly checkedSizeBytes: number
}

/** What waits for the store, and whether that is because it has too much to do. */
export interface AgingQueues {
  /** Of a store that can put requests off; what waits includes what a VPG does not try again at once. */
  readonly load: LoadFacts | undefined
  /** Records that wait to be sealed: with as many as may be the log is not read any further. */
  readonly unsealedRecordCount: number
  readonly unsealedRecordCountMax: number
}

/** Of a store that locks objects. */
export interface LockFacts {
  /** All that the VPG needs cannot be destroyed before, whoever tries; undefined until it is known. */
  readonly lockedUntilMicros: number | undefined
  /** Why locks cannot be renewed; undefined while they can. */
  readonly failure: string | undefined
}

export interface VpgMirrorStatus {
  readonly segmentCount: number
  readonly segmentSizeBytes: number
  readonly deltaCount: number
  readonly deltaSizeBytes: number
  readonly regionCount: number
  readonly baseSizeBytes: number
  readonly garbageCount: number
  /** Stored bytes in the log that are in no committed segment. */
  readonly unsealedSizeBytes: number
  /** Raw bytes in segments that wait for a fold. */
  readonly unfoldedRawSizeBytes: number
  readonly offloaded: readonly StreamPosition[]
  readonly historyEdge: Ordinal
  /** Of committed checkpoints: from the oldest in the history to the newest, on the history clock. */
  readonly historyMillis: number
  /** Stored bytes that the history takes beyond the newest mirror; what the journal's limits are about. */
  readonly historySizeBytes: number
  /** While the journal's limit keeps the history shorter than it should be: since when. */
  readonly agedEarlySinceMicros: number | undefined
  /** What it takes in the store, by form, without garbage. */
  readonly forms: readonly FormSize[]
  readonly requests: StoreRequestFacts
  /** Undefined before it has begun, and where nothing is verified in the background. */
  readonly scrub: ScrubFacts | undefined
  /** Undefined where the store locks nothing. */
  readonly locks: LockFacts | undefined
  readonly commitNumber: number
  /** True where the VPG's history was not read since the start: sums of it are 0. */
  readonly isUnread: boolean
  /** Undefined while the store answers; else since when it does not, and why. */
  readonly storeFailingSince: number | undefined
  readonly storeFailure: string | undefined
}

/** What of it is a sum over the manifest: a VPG that sleeps remembers it. */
export type MirrorSums = Pick<
  VpgMirrorStatus,
  | 'segmentCount'
  | 'segmentSizeBytes'
  | 'deltaCount'
  | 'deltaSizeBytes'
  | 'regionCount'
  | 'baseSizeBytes'
  | 'garbageCount'
  | 'unfoldedRawSizeBytes'
  | 'historyMillis'
  | 'historySizeBytes'
  | 'agedEarlySinceMicros'
  | 'forms'
>

/** What people and their tools are told of it. */
export type MirrorFacts = MirrorSums &
  Pick<VpgMirrorStatus, 'isUnread' | 'unsealedSizeBytes' | 'requests' | 'scrub' | 'locks' | 'storeFailure'>

/** Notices from the thread, by name. */
export interface AgingNotices {
  /** Behind every other notice of what it says; often none for a while. The newest of a VPG takes the place of those before. */
  noted: StopNote
  segmentCommitted: {
    readonly vpg: VpgId
    readonly segment: SegmentSpan
    readonly offloaded: readonly StreamPosition[]
    readonly buildMillis: number
    readonly putMillis: number
  }
  folded: {
    readonly vpg: VpgId
    readonly rawSizeBytes: number
    readonly storedSizeBytes: number
    readonly objectCount: number
    /** Segments up to this commit number have left the manifest. */
    readonly segmentsThroughCommit: number
    readonly millis: number
  }
  /**
   * What an agent sent while another was away was merged without a checkpoint: those with a marker up to here, which still miss another's,
   * are none any more, should it come. Answered by givenUp(), which is waited for.
   */
  checkpointsGivenUp: { readonly vpg: VpgId; readonly through: PositionVector; readonly question: number }
  regionRewritten: {
    readonly vpg: VpgId
    readonly rawSizeBytes: number
    readonly storedSizeBytes: number
    readonly millis: number
  }
  /** Adjacent deltas have become one, without what only dropped checkpoints had. */
  deltasMerged: {
    readonly vpg: VpgId
    readonly deltaCount: number
    readonly mergedRawSizeBytes: number
    readonly rawSizeBytes: number
    readonly storedSizeBytes: number
    readonly objectCount: number
    readonly millis: number
  }
  /** Checkpoints below the edge, but for the kept ones, are gone. */
  historyEdgeMoved: { readonly vpg: VpgId; readonly edge: Ordinal; readonly kept: readonly Ordinal[] }
  /** These checkpoints, ascending, are gone: the VPG's densities let them go. */
  checkpointsThinned: { readonly vpg: VpgId; readonly dropped: readonly Ordinal[] }
  /** These tags have been kept for as long as they were to be, and are gone. */
  tagsExpired: { readonly vpg: VpgId; readonly names: readonly string[] }
  /** The journal's limit has begun, or ceased, to keep the history shorter than it should be. */
  historyCutShort: { readonly vpg: VpgId; readonly isShort: boolean; readonly journalLimitSizeBytes: number }
  /** The journal's limit has no room for what a synchronisation sends, or has it again. */
  roomForSync: { readonly vpg: VpgId; readonly isHeld: boolean }
  /** A change of the definition has taken effect after its caller had been told that it may. This is all of it now. */
  redefined: { readonly vpg: VpgId; readonly definition: VpgDefinition }
  holeFound: { readonly vpg: VpgId; readonly hole: Hole }
  /** Some were repaired, or are history: these are left, in place of all before. */
  holesChanged: { readonly vpg: VpgId; readonly holes: readonly Hole[] }
  /** No reader and no unsealed record needs the log file any more: it may be recycled. */
  logFileFree: { readonly fileIdentity: number }
  garbageRemoved: { readonly vpg: VpgId; readonly objectCount: number }
  /** The VPG, whose records were kept because the store did not know it, is gone; they need not be kept any more. */
  recordsForgotten: { readonly vpg: VpgId }
  /** An object or a log record failed its checks; the sentence names it, where, and what it affects. */
  /** Without a VPG: nobody can say whose bytes these were. */
  damageFound: { readonly vpg: VpgId | undefined; readonly sentence: string }
  /** What was told of this, the key of an object or a sentence, is true no more: somebody has mended it, or nothing needs it. */
  damageMended: { readonly vpg: VpgId; readonly what: string }
  storeFailing: { readonly vpg: VpgId; readonly sentence: string }
  storeRecovered: { readonly vpg: VpgId }
  /** Since the start the store has not answered; told again when it says something else. */
  storeAway: StoreAway
  /** All of a VPG that was opened from its root. What was told of it before is part of this, and nothing has left it since it was opened. */
  historyRead: {
    readonly vpg: VpgId
    readonly segments: readonly SegmentSpan[]
    /** As encodeCheckpoints of src/timeline makes it. */
    readonly checkpointPage: Uint8Array
    readonly offloaded: readonly StreamPosition[]
  }
  /**
   * The store does not give a VPG, though it gives others, for this reason: it is tried again and again. Told again when that is another one. Not refused is one
   * that has not been asked for yet, for there are many.
   */
  vpgWaits: { readonly vpg: VpgId; readonly sentence: string; readonly isRefused: boolean }
  /** And now it has; undefined where it is not this appliance's, or is there no more. */
  vpgOpened: { readonly vpg: VpgId; readonly opened: PackedVpg | undefined }
  /** After a start without the store: it has answered, and these are the VPGs that this appliance owns. */
  storeOpened: { readonly vpgs: readonly PackedVpg[] }
  /** The VPG was another appliance's, and is this one's from this epoch on. */
  adopted: { readonly vpg: VpgId; readonly name: string; readonly epoch: number; readonly from: string }
  /** Records of another epoch in the log, past where that one ends: they are not replayed. Told once a VPG and epoch. */
  recordsQuarantined: { readonly vpg: VpgId; readonly epoch: number; readonly fileIdentity: number }
  /**
   * Nothing of the VPG can be sealed, for this reason, and what its agents sent would fill the log that all share: nothing is to be taken from them.
   * Undefined: it can be again.
   */
  sealingStopped: { readonly vpg: VpgId; readonly sentence: string | undefined }
  /** The local disk lets nothing of the VPG be merged, for this reason; it is tried again and again. Undefined: it does again. */
  mergingStopped: { readonly vpg: VpgId; readonly sentence: string | undefined }
  /** Another appliance owns the VPG: this one has stopped writing it. */
  fenced: { readonly vpg: VpgId; readonly sentence: string }
  /** Another process of this appliance's id goes on, and this one has stopped whatever it does by itself: it is to end. */
  superseded: { readonly sentence: string }
  /** A copy of this appliance was started, and is told to stop. */
  tenureTold: { readonly sentence: string }
}

/** Who hears every notice. */
export type AgingEvents = { readonly [K in keyof AgingNotices]: (notice: AgingNotices[K]) => void }
