/** A range of a volume that is held, or waited for. Give it back with release(), whatever became of the write. */
export interface RangeHold {
  /** Undefined where the range was free: then there is nothing to wait for. */
  readonly granted: Promise<void> | undefined
  release(): void
}

interface Entry {
  readonly startBytes: number
  readonly endBytes: number
  /** Earlier entries that overlap this one and are still there. */
  blockerCount: number
  grant: (() => void) | undefined
}

/**
 * Serialises writes that overlap, in the order in which they were asked for, and lets all others run at once. The order in
 * which two overlapping writes reach the disk is then the order of their numbers.
 */
export class RangeLock {
  readonly #entries = new Set<Entry>()

  acquire(startBytes: number, endBytes: number): RangeHold {
    const entry: Entry = { startBytes, endBytes, blockerCount: 0, grant: undefined }
    for (const earlier of this.#entries) if (overlaps(earlier, entry)) entry.blockerCount++
    this.#entries.add(entry) // a Set keeps the order of arrival
    const granted =
      entry.blockerCount === 0
        ? undefined
        : new Promise<void>(resolve => {
            entry.grant = resolve
          })
    return { granted, release: () => this.#release(entry) }
  }

  #release(entry: Entry): void {
    if (!this.#entries.delete(entry)) return
    for (const later of this.#entries) {
      if (later.blockerCount === 0 || !overlaps(entry, later)) continue
      later.blockerCount--
      if (later.blockerCount === 0) later.grant?.()
    }
  }
}

function overlaps(a: Entry, b: Entry): boolean {
  return a.startBytes < b.endBytes && b.startBytes < a.endBytes
}
