/** A range of a volume that is held, or waited for. Give it back with release(), whatever became of the write. */
export interface RangeHold {
  /** Undefined where the range was free: then there is nothing to wait for. */
  readonly granted: Promise<void> | undefined
  release(): void
}

interface Range {
  readonly startBytes: number
  readonly endBytes: number
}

interface Entry extends Range {
  /** Earlier entries that overlap this one and are still there. */
  blockerCount: number
  grant: (() => void) | undefined
  readonly isWrite: boolean
  /** Called when it is released. */
  readonly onRelease: (() => void)[]
}

/**
 * Serialises writes that overlap, in the order in which they were asked for, and lets all others run at once. The order in
 * which two overlapping writes reach the disk is then the order of their numbers.
 */
export class RangeLock {
  readonly #entries = new Set<Entry>()

  acquire(startBytes: number, endBytes: number, use: 'write' | 'look' = 'write'): RangeHold {
    const entry: Entry = {
      ...{ startBytes, endBytes, blockerCount: 0, grant: undefined },
      ...{ isWrite: use === 'write', onRelease: [] },
    }
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

  /** Resolves when every write that has the range, or a part of it, now has given it back; undefined where none has. */
  writesOver(startBytes: number, endBytes: number): Promise<void> | undefined {
    const writes = [...this.#entries].filter(
      entry => entry.isWrite && entry.blockerCount === 0 && overlaps(entry, { startBytes, endBytes }),
    )
    if (writes.length === 0) return undefined
    const released = writes.map(entry => new Promise<void>(resolve => entry.onRelease.push(resolve)))
    return Promise.all(released).then(() => undefined)
  }

  #release(entry: Entry): void {
    if (!this.#entries.delete(entry)) return
    for (const tell of entry.onRelease) tell()
    for (const later of this.#entries) {
      if (later.blockerCount === 0 || !overlaps(entry, later)) continue
      later.blockerCount--
      if (later.blockerCount === 0) later.grant?.()
    }
  }
}

function overlaps(a: Range, b: Range): boolean {
  return a.startBytes < b.endBytes && b.startBytes < a.endBytes
}
