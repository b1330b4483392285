/** Half-open, in bytes. */
export interface ByteRange {
  readonly startBytes: number
  readonly endBytes: number
}

export interface ListedObject {
  readonly key: string
  readonly sizeBytes: number
}

export interface CreateOptions {
  /** Where objects are locked: for so long from now on nobody destroys this one, whatever his rights. It is removed all the same: remove() hides it. */
  readonly lockMillis?: number | undefined
}

export type StoreOperation = 'create' | 'read' | 'list' | 'remove' | 'lock'

/** How a store that may put requests off is doing; of the requests of one thread. */
export interface LoadFacts {
  /** Answers that said "slow down", by what was asked for. */
  readonly throttledCounts: Readonly<Record<StoreOperation, number>>
  /** When the last of them came. */
  readonly throttledAtMicros: number | undefined
  /** What was waited before requests were tried again, all together. */
  readonly backedOffMillis: number
  readonly underWayCount: number
  /** Requests that wait to be tried again. */
  readonly waitingCount: number
}

/** Of a store that locks objects. */
export interface ObjectLocks {
  /** Until when the object is locked, 0 where it is not. NOT_FOUND without it. */
  lockedUntilMicros(key: string, signal: AbortSignal): Promise<number>
  /** Locked for so long from now on, at least. NOT_FOUND without the object. */
  extend(key: string, lockMillis: number, signal: AbortSignal): Promise<void>
}

/**
 * Where segments, manifests, deltas and the mirror live. Objects are immutable. Keys are slash-separated segments of
 * [A-Za-z0-9._=-]. Every implementation passes test/contract/object-store.ts.
 *
 * Failures: STORE_UNAVAILABLE for what may pass (throttled, timed out, 5xx, connection lost, no space; the outcome of a
 * create is then unknown), anything else is final.
 */
export interface ObjectStore {
  /** Creates the object whole or not at all; durable on return; fails ALREADY_EXISTS if the key exists. One of many racing creators wins. */
  create(key: string, body: Uint8Array, signal: AbortSignal, options?: CreateOptions): Promise<void>
  /**
   * Reads [startBytes, endBytes). NOT_FOUND without the object; a range past the end is OBJECT_CORRUPT, never a short read. The
   * bytes may be put into `spare`, where that is large enough: it is not the caller's until the call has ended.
   */
  readRange(key: string, range: ByteRange, signal: AbortSignal, spare?: Uint8Array): Promise<Uint8Array>
  /** Keys under the prefix in byte order, with every create that returned before the call, strictly after `after` where given. */
  list(prefix: string, after: string | undefined, signal: AbortSignal): AsyncIterable<ListedObject>
  /** Removes the object; nothing happens where there is none. */
  remove(key: string, signal: AbortSignal): Promise<void>
  /** Absent where nothing is locked: then lockMillis says nothing either. */
  readonly locks?: ObjectLocks | undefined
  /** Absent where nobody can put us off. */
  readonly loadFacts?: LoadFacts | undefined
  /** Of the cache on the local disk through which ranges are read; absent where there is none. */
  readonly cacheFacts?: CacheFacts | undefined
  close(): Promise<void>
}

/** A cache of bounded size in a file of its own: made anew when it is opened, and harmless to delete at any time. */
export interface CacheConfig {
  readonly file: string
  readonly sizeBytesMax: number
}

export interface CacheFacts {
  readonly sizeBytes: number
  readonly sizeBytesMax: number
  /** Bytes that readers wanted and found there, and that they did not. */
  readonly hitSizeBytes: number
  readonly missSizeBytes: number
  readonly evictedCount: number
  /** Blocks that did not pass their checksum, or that the disk did not take. */
  readonly failedCount: number
}

/** What an encrypted store is made of. */
export interface WholeStore extends ObjectStore {
  /** As readRange, but what passes the end ends with the object; OBJECT_CORRUPT where nothing of the range is there. */
  readUpTo(key: string, range: ByteRange, signal: AbortSignal): Promise<Uint8Array>
}

/** With which key of the user's the objects are encrypted before they leave this host. */
export type EncryptionConfig =
  | { readonly key: 'file'; readonly keyFile: string }
  | {
      readonly key: 'kms'
      readonly kmsKeyId: string
      readonly region: string
      /** Undefined: AWS's own endpoint. */
      readonly endpoint: string | undefined
      /** Undefined: by the SDK's default chain. */
      readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string } | undefined
    }

/** Which store, as plain data that crosses a thread. */
export type StoreConfig = PlaceConfig & { readonly clientEncryption?: EncryptionConfig | undefined }

export type PlaceConfig =
  | { readonly kind: 'directory'; readonly directory: string }
  | {
      readonly kind: 's3'
      readonly bucket: string
      readonly prefix: string
      readonly region: string
      /** Undefined: AWS's own endpoint. */
      readonly endpoint: string | undefined
      readonly forcePathStyle: boolean
      /** 'when-required' for S3-compatible servers that refuse the newer checksum headers. */
      readonly checksums: 'when-supported' | 'when-required'
      readonly requestTimeoutMillis: number
      /** What is asked for with every object: nothing (the bucket's own default counts), SSE-S3, or SSE-KMS. */
      readonly serverSideEncryption: 'bucket-default' | 's3' | 'kms'
      /** With 'kms': the key; undefined: the account's default key for S3. */
      readonly kmsKeyId: string | undefined
      /** With which mode of S3 Object Lock objects are locked; undefined: they are not. */
      readonly objectLock?: 'governance' | 'compliance' | undefined
      /** For so long a read is tried again that fails by what may pass; undefined: its caller has a pace of his own. */
      readonly readPatienceMillis?: number
      /** Where all threads that speak to the bucket count what it puts off (StoreLoad); undefined: each for itself. */
      readonly sharedLoad?: SharedArrayBuffer
    }
