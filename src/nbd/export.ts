/** A run of an export's bytes. 'data' must be read; 'zero' and 'hole' read as zeros, a hole takes no space either. */
export interface NbdExtent {
  readonly lengthBytes: number
  readonly kind: 'data' | 'zero' | 'hole'
}

/** What the server writes down for a client that asked for FUA, and whether a zeroed range may lose its space. */
export interface NbdWriteOptions {
  /** The promise resolves only when the bytes are durable. */
  readonly fua: boolean
}
export interface NbdZeroOptions extends NbdWriteOptions {
  /** False where the client wants the range to keep its space (NO_HOLE). */
  readonly mayTrim: boolean
}

/**
 * A disk that the server gives to its clients. Offsets and lengths have been checked against sizeBytes and readOnly and are at
 * least 1, otherwise arbitrary: they need not be sectors. Many calls run at once, from all connections, and may finish in any
 * order. A call that fails is answered with an error and the connection goes on: an Error whose `code` is ENOSPC or EPERM is
 * passed on as that, every other as EIO.
 */
export interface NbdExport {
  readonly name: string
  readonly description: string
  readonly sizeBytes: number
  readonly readOnly: boolean
  /** Clients of several addresses may use it; where it is missing, they may where it is read-only. */
  readonly mayBeShared?: boolean
  /** Fills the whole target. */
  read(offsetBytes: number, target: Uint8Array): Promise<void>
  /** The bytes stay as they are until the promise settles, and may be others afterwards. */
  write(offsetBytes: number, data: Uint8Array, options: NbdWriteOptions): Promise<void>
  /** The range reads as zeros afterwards; up to 4 GiB in one call. */
  zero(offsetBytes: number, lengthBytes: number, options: NbdZeroOptions): Promise<void>
  /** The client needs the range no more; what it reads as afterwards is the export's choice, but constant. */
  trim(offsetBytes: number, lengthBytes: number, options: NbdWriteOptions): Promise<void>
  /** Everything that was answered before the call, on whatever connection, is durable when it resolves. */
  flush(): Promise<void>
  /** Consecutive extents from the offset on, at least one; they may end before or behind the range. */
  blockStatus(offsetBytes: number, lengthBytes: number): Promise<readonly NbdExtent[]>
}
