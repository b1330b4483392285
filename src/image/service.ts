import type { ImagePlan } from '../aging/service.ts'
import type { BlockRun } from './hash-blocks.ts'
import type { CacheConfig, CacheFacts, StoreConfig } from '../store/object-store.ts'

export { newSpoolRoom } from './spool-room.ts'

// The image thread, seen from the daemon: it reads volumes as of a checkpoint, and writes them to files. The worker's file is
// image-worker.ts; speak to it by RpcClient<ImageService>.

export interface ImageConfig {
  readonly store: StoreConfig
  /** As for the journal: the commit log is below it. */
  readonly dataDirectory: string
  /** In memory, of each open image. */
  readonly cacheSizeBytes: number
  /** On the local disk, of all images; undefined: none. Where the store is a directory it is not used. */
  readonly cache?: CacheConfig | undefined
}

/** Calls to the thread; see RpcMethods. Failures keep their codes. */
export interface ImageService {
  /** Opens the store. The first call. */
  open(config: ImageConfig): Promise<void>
  /**
   * Writes the volume as of the plan's checkpoint to a sparse raw file: whole or not at all. ALREADY_EXISTS where the file
   * exists and is not to be replaced; CLOSING when it was cancelled.
   */
  exportRaw(argument: ExportArgument): Promise<ExportResult>
  /** Ends the export of this id, if it is under way; its own call then fails CLOSING. */
  cancel(argument: { readonly id: string }): Promise<void>
  /** Opens the image of the plan for hashBlocks. The id is the caller's. */
  openHashes(argument: { readonly id: string; readonly plan: ImagePlan }): Promise<void>
  /** hashSizeBytes a block; zeros for a block of zeros. NOT_FOUND when no image is open under the id. */
  hashBlocks(argument: BlockRun & { readonly id: string }): Promise<Uint8Array>
  /** Lets go of the image; a hashBlocks under way fails CLOSING. */
  closeHashes(argument: { readonly id: string }): Promise<void>
  /** Of the cache on the local disk; undefined where there is none. */
  cacheFacts(argument: undefined): Promise<CacheFacts | undefined>
  close(argument: undefined): Promise<void>
}

export interface ExportArgument {
  /** Chosen by the caller, for progress and cancel. */
  readonly id: string
  readonly plan: ImagePlan
  readonly volume: number
  /** An absolute path. */
  readonly file: string
  /** 'resume': refused as well; and one that fails, or is killed, is gone on with by the next of the same image. See export-raw.ts. */
  readonly existing: 'refuse' | 'replace' | 'resume'
}

export interface ExportResult {
  /** The volume's size, which is the file's. */
  readonly sizeBytes: number
  /** Bytes that were written; the rest is holes. */
  readonly writtenSizeBytes: number
  readonly millis: number
}

/** Notices from the thread, by name. */
export interface ImageNotices {
  exportProgress: { readonly id: string; readonly doneBytes: number; readonly totalBytes: number }
}
