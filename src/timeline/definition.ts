import type { Ordinal, VpgId } from '../base/ids.ts'
import type { DrillSchedule } from './drill-schedule.ts'

/** Up to the age `forMillis` one checkpoint in `everyMillis` is kept; 0: every one. */
export interface Density {
  readonly everyMillis: number
  readonly forMillis: number
}

/** Part of a definition, and so of the manifest. */
export interface Retention {
  readonly formatVersion: 1
  /** From young to old; the first is every checkpoint. */
  readonly densities: readonly Density[]
}

/** What a person decided about a VPG; a control record, durable in the object store before it takes effect. */
export interface VpgDefinition {
  readonly id: VpgId
  readonly name: string
  readonly incarnation: number
  readonly volumes: readonly VolumeDefinition[]
  /** Older checkpoints may still hold them. */
  readonly removedVolumes: readonly VolumeDefinition[]
  readonly streams: readonly StreamDefinition[]
  /** How far back the history reaches: the age of the last density. */
  readonly historyMillis: number
  /** Undefined: every checkpoint is kept for as long. */
  readonly retention?: Retention | undefined
  readonly checkpointIntervalMillis: number
  /** What agents read of their disks for a synchronisation at most; 0 for no limit. */
  readonly syncRateBytesPerSecond: number
  /** Agents send nothing; their dirty maps take what is written. */
  readonly paused: boolean
  /** The recovery for which the machines are to write no more; absent or empty: they write. */
  readonly quiescedBy?: string
  /** What the history may take in the store beyond the newest mirror before that is told, and before it is cut short; 0 for no limit. */
  readonly journalWarnSizeBytes: number
  readonly journalLimitSizeBytes: number
  /** A synchronisation for which the limit has no room goes on over it; else it waits. */
  readonly syncMayPassLimit?: boolean
  /** Absent or null: nobody asked for drills. */
  readonly drillSchedule?: DrillSchedule | null
  /** Copies of its volumes are kept where it would be recovered, and brought up to a newer checkpoint as often; absent or 0: none are. */
  readonly standbyIntervalMillis?: number
  /** Absent: what is made of its volumes in AWS is encrypted as the account does it by itself. */
  readonly snapshotKeys?: SnapshotKeys
  readonly createdAtMicros: number
}

/** Of a key of KMS itself: an alias may be another key's tomorrow. */
export const kmsKeyArnPattern = /^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key\/[A-Za-z0-9-]+$/

/** ARNs of keys of KMS, with which snapshots of the volumes are encrypted. */
export interface SnapshotKeys {
  readonly ofAll?: string | undefined
  /** By volume number; goes before. */
  readonly ofVolumes: Readonly<Record<number, string>>
}

export function snapshotKeyOf(
  { snapshotKeys }: Pick<VpgDefinition, 'snapshotKeys'>,
  volume: number,
): string | undefined {
  return snapshotKeys?.ofVolumes[volume] ?? snapshotKeys?.ofAll
}

/** Volume numbers start at 1 and are never reused inside a VPG. */
export interface VolumeDefinition {
  readonly number: number
  readonly name: string
  readonly sizeBytes: number
  /** The stream that writes it. */
  readonly stream: number
  /** Of a removed one: the newest checkpoint whose markers had been seen then. */
  readonly removedAfterOrdinal?: Ordinal
  /** Of a removed one: the first checkpoint that is known to be without it for good. What only that and later ones would read leaves. */
  readonly goneFromOrdinal?: Ordinal
  /** The machine that it is a disk of, where that is not its agent's; see vmOf. */
  readonly vm?: string
  /** Its mirror was begun with an image that somebody handed over. */
  readonly preseed?: Preseed
  /**
   * Hashes of it have been told to its agent, which knows by them what need not be sent: nothing may be put below that any more. Before the first
   * checkpoint that includes the volume, whatever is sent of it is all of it.
   */
  readonly isCompared?: true
}

/** A raw image that becomes the regions of a volume as of before the first checkpoint. */
export interface Preseed {
  /** While it is under way, its agent's synchronisation waits. */
  readonly state: 'under-way' | 'ended'
  /** On the VRA's host. */
  readonly file: string
  /** Of the file when it was begun: of another one what was taken is not gone on with. */
  readonly modifiedNanos: string
  /** So many regions, from the first, are in the mirror. */
  readonly doneRegionCount: number
}

/** The machine that the volume is a disk of: the one that it was said to be, else it has the name of its agent. */
export function vmOf({ streams }: Pick<VpgDefinition, 'streams'>, { vm, stream }: VolumeDefinition): string {
  return vm ?? streams.find(({ number }) => number === stream)?.agent ?? `stream ${stream}`
}

/** Stream numbers start at 1; each has exactly one agent that may write it. */
export interface StreamDefinition {
  readonly number: number
  readonly agent: string
}
