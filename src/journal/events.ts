/** What the journal tells; metrics and the log implement it. Called on the thread that opened the journal. */
export interface JournalEvents {
  /** One write and one sync made these records durable. */
  groupDurable(group: { recordCount: number; sizeBytes: number; syncMillis: number }): void
  /** Writing goes on in another file; `prepared` is false where it had to be created, and grows (slower). */
  fileRotated(file: { fileIdentity: number; prepared: boolean }): void
  /** Nothing is acknowledged from here on, until journalResumed. The sentence says why and what to do. */
  journalFull(state: { sentence: string }): void
  journalResumed(state: { waitedMillis: number }): void
  /** A write or a sync failed: the file is finished at this offset, its un-acknowledged records go into another. */
  diskFailed(file: { fileIdentity: number; offsetBytes: number; sentence: string }): void
  /** At open: records of a group that was never acknowledged, incomplete, were left out. */
  tornTailCut(tail: { fileIdentity: number; offsetBytes: number }): void
  /** At open: durable bytes are not readable any more; the sentence names them and whose they were. */
  damageFound(damage: { fileIdentity: number; offsetBytes: number; sentence: string }): void
}
