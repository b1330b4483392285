import type { ImagePlan } from '../aging/service.ts'
import type { Ordinal } from '../base/ids.ts'
import type { ChangedExtents } from '../image/image.ts'
import { liveImagesMax } from '../base/limits.ts'
import type { NbdListen } from '../nbd/nbd.ts'
import type { CacheConfig, StoreConfig } from '../store/object-store.ts'

// The live thread, seen from the daemon: it serves volumes as of a checkpoint over NBD. The worker's file is live-worker.ts; speak to it by
// RpcClient<LiveService>.

export interface LiveConfig {
  readonly store: StoreConfig
  /** As for the journal: the commit log is below it. */
  readonly dataDirectory: string
  readonly listen: NbdListen
  /** What an image keeps of what it has read; there is one a recovery or mount. */
  readonly cacheSizeBytes: number
  /** On the local disk, of all of them; undefined: none. Where the store is a directory it is not used. */
  readonly cache?: CacheConfig | undefined
  /** Of newSpoolRoom(): one for the process. */
  readonly spoolRoom: SharedArrayBuffer
}

/** Calls to the thread; see RpcMethods. Failures keep their codes. */
export interface LiveService {
  /** The first call. Nothing listens yet. */
  open(config: LiveConfig): Promise<void>
  /** Listens on return, as long as the thread lives, and tells where. CONFIG_INVALID where the address cannot be had. */
  listen(argument: undefined): Promise<NbdListen>
  /**
   * Every disk is served on return: what was written to it before is there. Nothing happens where the id is attached already. Fails RECORD_CORRUPT
   * where the map of an overlay is damaged, BUSY where too many are attached, or somebody else serves a file that was kept; then none is served.
   */
  attach(argument: AttachArgument): Promise<void>
  /**
   * The plan is another one of the same checkpoint: on return nothing is read by the one before. Nothing happens where the id is not attached. Fails as
   * opening an image does, and then goes on with the one before.
   */
  replan(argument: { readonly id: string; readonly plan: ImagePlan }): Promise<void>
  /** Serves the disks no more, and what was written to them is durable; nothing happens where the id is not attached. */
  detach(argument: { readonly id: string }): Promise<void>
  /**
   * Every disk is a whole raw file of its own on return, durable, at its `keptFile`, and goes on being served from there. A second call goes on
   * with the first. DISK_FAILED where there is no room; OBJECT_CORRUPT and RECORD_CORRUPT where a part of the image cannot be read.
   */
  keep(argument: { readonly id: string }): Promise<void>
  /** Ends a keep() of this id; that call then fails CLOSING. What was brought stays in the scratch. */
  cancelKeep(argument: { readonly id: string }): Promise<void>
  /** Attached or not: the disks are served no more, and nothing is left of the directory. */
  discard(argument: { readonly id: string; readonly directory: string }): Promise<void>
  status(argument: undefined): Promise<readonly LiveStatus[]>
  /** What may differ of a volume between two checkpoints of a VPG. */
  changedExtents(argument: DiffArgument): Promise<ChangedExtents>
  close(argument: undefined): Promise<void>
}

export interface AttachArgument {
  /** Of the recovery, or of the mount. */
  readonly id: string
  /** Undefined: of disks that are all kept. */
  readonly plan: ImagePlan | undefined
  readonly checkpoint: Ordinal
  readonly disks: readonly AttachedDisk[]
  /** Of all disks together. */
  readonly scratchSizeBytesMax: number
  /** It was ready before: what was written to its disks has to be there. */
  readonly isMade: boolean
  /** Of the scratch that counts: whatever else is there is not that of this recovery. Undefined where the record names none, as those of older versions. */
  readonly scratchId: string | undefined
}

export interface AttachedDisk {
  readonly volume: number
  readonly exportName: string
  readonly description: string
  readonly sizeBytes: number
  /** Undefined: the disk is read-only, and nothing of it is on the local disk. */
  readonly files: LiveFiles | undefined
}

/** Absolute, all in one directory. */
export interface LiveFiles {
  readonly dataFile: string
  readonly mapFile: string
  /** What the data file becomes when the disk is kept; where it is there, it is the disk. */
  readonly keptFile: string
}

export interface DiffArgument {
  readonly from: ImagePlan
  readonly to: ImagePlan
  readonly volume: number
}

export interface LiveStatus {
  readonly id: string
  readonly scratchSizeBytes: number
  readonly scratchSizeBytesMax: number
  /** Writes that were refused because the scratch was full. */
  readonly refusedWriteCount: number
  readonly disks: readonly { readonly exportName: string; readonly connectionCount: number; readonly isKept: boolean }[]
}

export const tooManyImages = `${liveImagesMax} recoveries and mounts are served: end or commit one of them first`

/** Whether it reads by an image, of which there are no more than liveImagesMax; what is kept needs none. */
export function hasImage({ disks }: LiveStatus): boolean {
  return disks.some(({ isKept }) => !isKept)
}

/** Notices from the thread, by name. */
export interface LiveNotices {
  /** A request of a client was answered with an error. `code` is that of the failure, where it has one. */
  requestFailed: {
    readonly exportName: string
    readonly command: string
    readonly sentence: string
    readonly code: string
  }
  clients: { readonly exportName: string; readonly connectionCount: number }
  clientRefused: { readonly address: string; readonly reason: string }
  /** An image is read without its spool from here on. */
  spoolFailed: { readonly sentence: string }
  /** Of a recovery that was ready, when it is removed: where its file system is only not mounted, what is in it is nobody's from then on. */
  scratchNotFound: { readonly id: string; readonly directory: string }
  /** Of a recovery that is removed: in case that it left something on this host. */
  scratchMayBeLeft: { readonly id: string; readonly directory: string }
  keepProgress: {
    readonly id: string
    readonly volume: number
    readonly doneBytes: number
    readonly totalBytes: number
  }
}
