export interface CatalogEvents {
  /** The index had to be begun anew while it was in use: load every VPG, and add what is in the log, again. */
  catalogBegunAnew(reason: string): void
  /** So many rows of the log's tail were not indexed, because the index could not keep up or its disk failed. */
  tailRowsDropped(count: number): void
  /** Writing the index failed; it is tried again. */
  catalogFailing(sentence: string): void
}
