import { assert } from './assert.ts'
import { GiB, KiB, MiB, sectorSizeBytes } from './units.ts'

// Every bound of the program, in one table; how they depend on each other is asserted below, when the program loads.

// The wire and the hot path.
export const frameHeaderSizeBytes = 16
export const frameBodySizeBytesMax = 1 * MiB
export const frameSizeBytesMax = frameHeaderSizeBytes + frameBodySizeBytesMax
/** Raw (uncompressed) guest bytes in one batch; an agent closes a batch much earlier, see batchRawSizeBytesTarget. */
export const batchRawSizeBytesMax = 1 * MiB
export const batchRawSizeBytesTarget = 256 * KiB
export const batchWriteCountMax = 4096
/** A data write in a stream; a larger guest write is split into pieces with sequence numbers of their own. */
export const writeSizeBytesMax = 512 * KiB
/** A zero write carries no payload, so it may be long. */
export const zeroSizeBytesMax = 16 * MiB
/** Raw bytes of one independent LZ4 block: a 4 KiB read decompresses one of them. */
export const blockRawSizeBytesMax = 64 * KiB
export const volumesPerVpgMax = 256
/** Removed ones included: their numbers are not used again. */
export const volumesEverMax = 1024
export const streamsPerVpgMax = 64
export const volumeSizeBytesMax = 64 * 1024 * GiB
export const nameSizeCharactersMax = 64

// Sealing on the agent's side.
/** Batches that are with the sealing thread: enough that it always has one while the event loop does something else. */
export const sealingJobCountMax = 4
/** Smaller batches are sealed in line: a message to the thread, and its answer, cost as much. */
export const sealedElsewhereSizeBytesMin = 64 * KiB
/** While the thread has all that it may have, so much waits for it; of more the event loop seals. */
export const waitingForSealerSizeBytesMax = 16 * MiB
/** With less that waits no batch is hurried: it is soon compressed. Of what a synchronisation has in the queue, an agent hurries where less than a third is sealed. */
export const hurriedSizeBytesMin = 4 * MiB
/** Of the memory that both threads see: room for a frame with the largest write, whatever becomes of it... */
export const sealingPieceSizeBytes = writeSizeBytesMax + 64 * KiB
/** ...for the frames of a stream's credit, what a synchronisation has under way, and as much as guests write meanwhile. */
export const sealingPieceCountMax = 64
/** What its columns and blocks add to the data of a batch. */
export function frameOverheadSizeBytesMax(writeCount: number): number {
  return 4 * KiB + 24 * writeCount
}

/** An agent that is told to stop ends by then, whatever its disks do: later than it waits for the VRA, and before systemd (TimeoutStopSec) ends it without a word. */
export const agentStopMillisMax = 60_000

// Flow control: credits in bytes of frames, released when durable.
export const ingestPoolSizeBytes = 64 * MiB
/** Never less than one whole frame, or a sender could wait for ever; the pool is over-committed and reading pauses when it is used up. */
export const creditPerStreamBytesMin = frameSizeBytesMax + 64 * KiB
export const creditPerStreamBytesMax = 16 * MiB
export const sessionsMax = 256
/** Peers whose last refusal is remembered: of each VPG, and of those that belong to none. */
export const refusalsKeptMax = 16
/** And so long after the last time. */
export const refusalAgeMillisMax = 3_600_000
/** What begins a frame, and small frames, are received into one buffer of this size... */
export const receiveBufferSizeBytes = 64 * KiB
/** ...and copied; where so much of a frame is still to come, it is received where it belongs. */
export const receiveDirectSizeBytesMin = 16 * KiB
export const heartbeatIntervalMillis = 2_000
export const heartbeatTimeoutMillis = 15_000
export const handshakeTimeoutMillis = 10_000

// Synchronising and holds.
/** Of a block of a delta synchronisation: the first half of its SHA-256. */
export const hashSizeBytes = 16
export const hashBlockSizeBytesMin = 4 * KiB
export const hashBlockSizeBytesMax = 1 * MiB
/** In one question: a region of 128 MiB in blocks of 64 KiB. */
export const hashBlockCountMax = 2048
export const holdTimeoutMillisMax = 10_000
export const holdTimeoutMillisMin = 20
/** Long for a LAN, short for a guest: what it waits for at worst when a coordinator dies in between. */
export const holdTimeoutMillisDefault = 500
/** Between agents; a connection that broke in silence costs the checkpoints of so long. */
export const peerHeartbeatIntervalMillis = 1_000
export const peerHeartbeatTimeoutMillis = 5_000
export const peerConnectionsMax = 128
/** Images that are read into mirrors at once; more wait their turn. */
export const preseedsRunningMax = 2
/** Reasons for which synchronisations are held, in one Directive. */
export const heldSyncsPerDirectiveMax = 8
/** Questions for hashes that a session may have open at once. */
export const hashRequestsOpenMax = 8
/** Images that are open for hashes at once, of all sessions; further sessions wait for one to end. */
export const hashImagesOpenMax = 4
/** One of them that nobody has asked for so long is closed: it keeps files of the log. */
export const hashImageIdleMillis = 10_000
/** While others wait, one is open for no longer than this and the question under way. */
export const hashImageTurnMillis = 10_000
/** What one of them keeps of what it has read: questions go from one end of a volume to the other. */
export const hashImageCacheSizeBytes = 16 * MiB
/** An export gathers so much before it is put in order and written, */
export const exportBufferSizeBytes = 16 * MiB
/** ...and has so many of these: one fills while others are written. */
export const exportBufferCount = 4
/** The disk is asked to begin with what was written each time that it is so much: early, and not with every piece of a row. */
export const exportSyncAheadSizeBytes = 128 * MiB
/** Recoveries and mounts that are served from images at once: each has caches of its own, and holds files of the log. What is committed needs none. */
export const liveImagesMax = 16
/** A live disk whose checkpoint is still in the log looks so often whether it is in segments now; otherwise it holds objects for so long. */
export const liveTailHeldMillis = 360_000
export const livePlanHeldMillis = 3_600_000
/** A commit brings so much of a live disk at once; writes of guests to it wait meanwhile. */
export const liveKeepPieceSizeBytes = 256 * KiB
export const liveKeepPiecesAtOnce = 4
/** What differs between two checkpoints is told in no more extents than this, coarser where there are more. */
export const changedExtentCountMax = 65_536
/** When the agent that makes checkpoints is away for this long, another one is named. */
export const coordinatorAwayMillisMax = 15_000

// The commit log.
export const logFileSizeBytes = 64 * MiB
/** A group of records starts on such a boundary, so that a torn sector cannot reach back into acknowledged records. */
export const logGroupAlignmentBytes = 4 * KiB
export const logRecordHeaderSizeBytes = 128
export const logGroupSizeBytesMax = 8 * MiB
export const logGroupTurnBytes = 256 * KiB
/** Freed log files that are kept to be written again; more are removed. */
export const logPoolFileCount = 16

// Segments.
export const segmentSizeBytesTarget = 64 * MiB
export const segmentAgeMillisMax = 300_000

// The mirror.
/** A piece of a volume that the base rewrites at once. */
export const regionSizeBytes = 128 * MiB
/** Raw bytes of one pack of a delta at most. */
export const packRawSizeBytesMax = 128 * MiB
/** Extents never cross such a boundary: it is the EBS direct APIs' block. */
export const extentAlignmentBytes = 512 * KiB
export const extentSizeBytesMax = 64 * KiB
export const foldSizeBytesMinDefault = 256 * MiB
export const foldSizeBytesMax = 8 * GiB
/** A fold takes no more writes than this at once, for each takes memory; as many as fill the size above at 4 KiB. */
export const foldWriteCountMax = 2 * 1024 * 1024
/** A delta is folded when segments of live bytes / this wait, within the two bounds above. */
export const foldLiveBytesDivisor = 128
/** Regions are rewritten while the deltas above a volume's base hold more than this share of its live bytes. */
export const deltaShareMax = 0.45
export const manifestRootSizeBytesMax = 64 * KiB
/** A manifest is written at least this often, so that a start reads few objects to find the newest. */
export const segmentsBetweenManifestsMax = 64

// The aging thread.
/** Of the manifests that it holds, all VPGs together, as they are in the store; those of VPGs that somebody needs stay beyond it. */
export const contentsSizeBytesMax = 64 * MiB
/** A start reads a manifest of more than this from its root alone, and the rest beside serving. */
export const manifestWholeSizeBytesMax = 256 * KiB
/** How often it is told how far the log is durable. */
export const durableNoticeIntervalMillis = 100
/** The share of the time that the aging thread takes while acknowledgements are slow. */
export const agingPacedShare = 0.1
/** Acknowledgements are slow when more than a hundredth of them takes longer. */
export const ackLatencySlowMillis = 5
/** Above this share of its limit the log has to be emptied, however slow acknowledgements are. */
export const logShareUnpaced = 0.5
/** It works in slices of at most this, then lets messages in. */
export const agingSliceMillis = 10
export const agingHeapSizeMiBMax = 384
/** Of a thread's young objects. The default is 48 MiB a thread, which short-lived objects fill before any is collected. */
export const threadYoungSizeMiBMax = 6
/** An appliance asks this often, for all of its VPGs at once, whether another one is taking any; each VPG for itself where it is, or nobody can say. */
export const ownershipCheckMillis = 10_000
/** And this often all the same: who took it may not have announced it. */
export const ownershipCheckMillisRare = 3_600_000
/** A process that may be a copy of one that runs waits so long for its answer: that looks every ownershipCheckMillis, and its store may be slow. */
export const tenureClaimMillis = 2 * ownershipCheckMillis
/** So long at least a takeover stays announced to the former owner, which may sleep. */
export const takeoverToldMillis = 90 * 86_400_000
/** A tail without writes (an idle VPG's markers) is sealed after this, not after segmentAgeMillisMax. */
export const idleSegmentAgeMillis = 3_600_000
/** A fold also happens when this many segments wait, so that an image of a quiet VPG opens few of them. */
export const segmentsBeforeFoldMax = 256
/**
 * And when this many checkpoints wait: until they are in a delta's page, each is an object in the memory of the aging thread. Well above those of the
 * first density (one every 5 s for 4 h), for what is thinned before such a fold is committed each time.
 */
export const checkpointsBeforeFoldMax = 6144
/** A delta numbers its checkpoints in 16 bits. */
export const checkpointsPerDeltaMax = 60_000
/** Regions rewritten per manifest commit: what a crash makes to be done again. Fewer would cost more pages and roots than packs. */
export const regionsPerCommitMax = 32

// Spools: what no delta holds of an image, by place. See image/spool.ts.
export const spoolSizeBytesMax = 64 * GiB
/** All of them, of what would be free without them where they lie: the journal is there, too. */
export const spoolFreeShareMax = 1 / 4
/** And so much stays free, of the file system and at least, when all are written. Looked at again each time that so much is written. */
export const spoolReserveShare = 1 / 20
export const spoolReserveSizeBytesMin = 1 * GiB
export const spoolRoomLookSizeBytes = 64 * MiB
/** In the process: each needs the index of all that is not folded of its image in memory, beside the image's own. */
export const spoolsMadeAtOnceMax = 2
/** Of less than this none is made for a snapshot: two windows of blocks are filled by two passes. */
export const spoolSizeBytesMin = 64 * MiB

// The cache of what images read from a bucket.
export const cacheBlockSizeBytes = 128 * KiB
export const cacheSizeBytesDefault = 4 * GiB

// Verification in the background.
/** What it reads of the store in a second, of all VPGs together. */
export const scrubBytesPerSecondDefault = 8 * MiB
/** When all of a VPG was verified, it is again after this. */
export const scrubIntervalMillisDefault = 7 * 24 * 3_600_000
/** How far it is is written down this often: what was verified since is verified again after a restart. */
export const scrubNoteMillis = 60_000
/** Objects that are in line to be verified, of one VPG. */
export const scrubLineMax = 256
/** Damaged objects of a VPG that are named with what they cost; of more the count is known. */
export const scrubDamagedMax = 64
/** The locks of what a VPG needs are renewed not more often than that: each costs a request. */
export const lockRenewalMillisMin = 24 * 3_600_000

// Garbage.
/** It waits for company by this share of its grace period: every commit makes some, and to remove it is a commit. */
export const garbageCompanyShare = 1 / 8

// Thinning.
/** Checkpoints that are to be dropped wait until they are this share of all: each lot is a commit, and a page for each delta that loses any. */
export const thinningShare = 1 / 4
/** Deltas that lose checkpoints in one commit; each costs a page read and a page written. */
export const deltasThinnedPerCommitMax = 32
/** Of a run of deltas so much must be dead before it is merged: then what merges write never exceeds what folds have written. */
export const mergeDeadShareMin = 1 / 2
/** Over the journal's limit less will do. */
export const mergeDeadSharePressedMin = 1 / 8
/** Raw bytes that one merge of deltas reads at most, if it is of more than one delta. */
export const mergeSizeBytesMax = 16 * GiB
/** As many adjacent small deltas are merged whatever is dead in them. */
export const smallDeltasMergedMin = 8
/** As many open deltas of one size class, one behind the other, become one while their synchronisation lasts; */
export const openDeltasMergedMin = 32
/** ...and a class is so many times the one below it: what merges make of that many mostly is of the next. */
export const openDeltaGrowth = 16
/** Extents of a merge that are in memory at once: about 40 bytes each. */
export const mergeExtentCountMax = 2 * 1024 * 1024
/** What survives of a region is read and written in lots of this size. */
export const mergeLotSizeBytes = 16 * MiB
/** Regions whose indexes are read to estimate what is dead: the fullest, and as many of the others. */
export const surveyRegionsMax = 8

// Checkpoints and history.
export const checkpointIntervalMillisMin = 1_000
export const checkpointIntervalMillisMax = 3_600_000
export const checkpointIntervalMillisDefault = 5_000
/** A late checkpoint or two are no news. */
export const intervalsBeforeSilence = 3
export const historyMillisMin = 10_000
export const historyMillisMax = 30 * 24 * 3_600_000
/** A quarter of it may wait for a fold, and that is one segment at least. */
export const journalLimitSizeBytesMin = 256 * MiB
/** Every checkpoint for 4 h, one a minute up to 2 days, one an hour up to 14, one a day up to 30. */
export const retentionDefault = [
  { everyMillis: 0, forMillis: 4 * 3_600_000 },
  { everyMillis: 60_000, forMillis: 48 * 3_600_000 },
  { everyMillis: 3_600_000, forMillis: 14 * 24 * 3_600_000 },
  { everyMillis: 24 * 3_600_000, forMillis: historyMillisMax },
] as const
export const densitiesMax = 8
/** Tags that name their end; "forever" has none. */
export const tagKeepMillisMax = 100 * 366 * 24 * 3_600_000
/** The history clock advances by at most this between two complete checkpoints: an outage ages nothing. */
export const historyStepMillisMax = 2 * checkpointIntervalMillisMax
export const pageSizeMax = 1000
/** In so many parts a timeline tells how dense each of its periods is. */
export const timelineCellCount = 40
/** Gaps that a timeline names; it counts the others. */
export const gapsToldMax = 20

/** A guest of an image is not told that its disk is bad because the store puts a read off, or is away, for a while; its own patience is rarely longer. */
export const storeReadPatienceMillis = 60_000

// Recoveries.
/** A record of one as JSON: its checkpoint with 256 volumes and 64 streams takes a fifth of it, the rest is its target's memory. */
export const recoverySizeBytesMax = 256 * KiB
/** Of one VPG; each keeps a checkpoint. */
export const recoveriesUnfinishedMax = 16
/** Of one VPG: the newest that were committed, and as many that were removed. */
export const recoveriesKeptMax = 50
/** Before what does not get on is undone; a process that goes on with it counts anew. */
export const recoveryAttemptsMax = 6
export const commitPolicyMillisMax = 30 * 24 * 3_600_000
export const commitPolicyMillisDefault = 60 * 60_000
/** After a start a commit policy leaves people so long before it takes effect, or its whole wait where that is shorter. */
export const policyNoticeMillis = 10 * 60_000
assert(policyNoticeMillis <= commitPolicyMillisDefault, 'a start does not lengthen the usual wait')
/** Standby copies are brought up to a newer checkpoint as often. */
export const standbyIntervalMillisMin = 60_000
export const standbyIntervalMillisMax = 7 * 24 * 3_600_000
/** Of the target raw; each has buffers of its own. */
export const rawVolumesAtOnce = 4

// Drills.
/** Of one VPG: the newest that have ended, and beside them the one that proved the newest checkpoint. */
export const drillsKeptMax = 50
/** The end of what a check has said is kept. */
export const drillOutputSizeBytesMax = 2 * KiB
export const drillCheckMillisDefault = 10 * 60_000
export const drillCheckMillisMax = 24 * 3_600_000
export const drillIntervalMillisMin = 5 * 60_000
export const drillIntervalMillisMax = 366 * 24 * 3_600_000
/** A drill at a time of the day that could not be begun for so long waits for the next day. */
export const drillLateMillisMax = 3_600_000

// Recovery to AWS.
/** Of the EBS direct APIs: a snapshot's content is put and read in blocks of this. */
export const ebsBlockSizeBytes = 512 * KiB
/** What is read of an image at once on its way into a snapshot, */
export const ebsWindowSizeBytes = 32 * MiB
/** ...and how many of these there are, over all snapshots that are written: some are filled while others are put. */
export const ebsWindowCount = 4
/** Snapshots that are written at once; more share the same rate, and idle. */
export const snapshotsWrittenAtOnceMax = 4
/** Machines of a recovery that are brought up at once: AWS takes a minute or two for each, and little is asked of it meanwhile. */
export const machinesMadeAtOnceMax = 8
/** At 100 ms a put this reaches the rate below. */
export const putsAtOnceMaxDefault = 128
export const putsPerSecondMaxDefault = 1000
/** Of that rate, what is put for standby snapshots. */
export const standbyPutsShare = 1 / 4

assert(
  holdTimeoutMillisMin <= holdTimeoutMillisDefault && holdTimeoutMillisDefault <= holdTimeoutMillisMax,
  'a hold is bounded',
)
assert(peerConnectionsMax >= 2 * streamsPerVpgMax, 'every other agent may connect again while its old connection dies')
assert(frameBodySizeBytesMax % sectorSizeBytes === 0, 'a frame holds whole sectors')
assert(batchRawSizeBytesTarget <= batchRawSizeBytesMax, 'the target is within the bound')
assert(
  batchRawSizeBytesTarget + writeSizeBytesMax + frameOverheadSizeBytesMax(batchWriteCountMax) <= frameBodySizeBytesMax,
  'a batch that is closed when it has reached the target fits in a frame, however badly it compresses',
)
assert(writeSizeBytesMax <= batchRawSizeBytesMax, 'one write fits in one batch')
assert(zeroSizeBytesMax / sectorSizeBytes < 2 ** 16, 'a length in sectors fits in the 16 bits of a segment footer')
assert(creditPerStreamBytesMax >= 2 * frameSizeBytesMax, 'a stream may always have a frame in flight and one behind it')
assert(creditPerStreamBytesMin >= frameSizeBytesMax, 'any frame fits in the guaranteed credit')
assert(logGroupSizeBytesMax + logGroupAlignmentBytes <= logFileSizeBytes, 'a group fits in one log file')
assert(logGroupSizeBytesMax >= frameSizeBytesMax + logRecordHeaderSizeBytes, 'any record fits in a group')
assert(logGroupAlignmentBytes % sectorSizeBytes === 0, 'groups start on sectors')
assert(regionSizeBytes % extentAlignmentBytes === 0, 'an extent lies in one region')
assert(extentAlignmentBytes % extentSizeBytesMax === 0, 'extents divide the EBS block')
assert(extentSizeBytesMax === blockRawSizeBytesMax, 'an extent is at most one block')
assert(ebsBlockSizeBytes === extentAlignmentBytes, 'an extent lies in one EBS block')
assert(regionSizeBytes % ebsWindowSizeBytes === 0, 'what is read for a snapshot lies in one region')
assert(ebsWindowSizeBytes % ebsBlockSizeBytes === 0, 'a window is whole blocks')
assert(writeSizeBytesMax === extentAlignmentBytes, 'a stream write crosses at most one extent alignment boundary')
assert(retentionDefault[0].everyMillis === 0, 'a policy begins with every checkpoint')
assert(mergeDeadShareMin >= 1 / 2, 'a merge frees what it writes')
assert(
  openDeltaGrowth < openDeltasMergedMin,
  'what open deltas become, though segments are whole and some is dead, is of the next class',
)
assert(mergeSizeBytesMax >= 2 * foldSizeBytesMax, 'two of the largest deltas can be merged')

/** How often it is looked for holes that nobody repairs; how long an agent is left alone after it was asked to, first and at most. */
export const repairLookMillis = 5_000
export const repairMillisBetween = 5 * 60_000
export const repairMillisBetweenMax = 3_600_000
