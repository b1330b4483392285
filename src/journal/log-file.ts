/** How far the commit log is durable: everything in files of a lower identity, and this file up to the offset. */
export interface LogMark {
  readonly fileIdentity: number
  readonly offsetBytes: number
}

/** Where a record stands in the commit log; `sizeBytes` is that of the whole record, header and padding included. */
export interface RecordPlace {
  readonly fileIdentity: number
  readonly offsetBytes: number
  readonly sizeBytes: number
}
