import type { Clock } from '../base/clock.ts'
import { logPoolFileCount } from '../base/limits.ts'
import type { Disk } from '../disk/disk.ts'
import type { FromPreparer, PreparerOptions, ToPreparer } from './commit-messages.ts'
import { LogFilePool } from './file-pool.ts'

const retryMillis = 1_000
/** Zeroing ahead takes this share of the disk's time, and of the free space no more than this. */
const zeroAheadShare = 0.2
const zeroAheadFreeShareMax = 0.25
/** A start has better things to do. */
const zeroAheadDelayMillis = 10_000

/** What a burst has used is kept for the next, up to a quarter of the log. */
function sparesOf({ logSizeBytesMax, fileSizeBytes }: PreparerOptions): number {
  return Math.floor(logSizeBytesMax / 4 / fileSizeBytes)
}

export interface PreparerParts {
  readonly disk: Disk
  readonly clock: Clock
  readonly say: (message: FromPreparer) => void
}

/** Makes log files ready, one request at a time, in order; freed files first, because the requests may wait for them. */
export class Preparer {
  readonly #options: PreparerOptions
  readonly #parts: PreparerParts
  readonly #pool: LogFilePool
  readonly #wanted: number[] = []
  readonly #freed: number[] = []
  readonly #closing = new AbortController()
  #running = false

  constructor(options: PreparerOptions, parts: PreparerParts) {
    this.#options = options
    this.#parts = parts
    this.#pool = new LogFilePool(parts.disk, {
      directory: options.directory,
      fileSizeBytes: options.fileSizeBytes,
      spareCountMax: Math.max(logPoolFileCount, sparesOf(options)),
      timestampMicros: () => parts.clock.timestampMicros(),
    })
    parts.say({ type: 'spares', spareCount: this.#pool.spareCount() })
    void this.#zeroAhead()
  }

  prepare(fileIdentity: number): void {
    this.#wanted.push(fileIdentity)
    void this.#run()
  }

  free(fileIdentity: number): void {
    this.#freed.push(fileIdentity)
    void this.#run()
  }

  close(): void {
    this.#closing.abort()
  }

  take(message: ToPreparer): void {
    if (message.type === 'prepare') this.prepare(message.fileIdentity)
    else if (message.type === 'free') this.free(message.fileIdentity)
    else this.close()
  }

  async #run(): Promise<void> {
    if (this.#running) return
    this.#running = true
    while (!this.#closing.signal.aborted) {
      const before = this.#wanted.length + this.#freed.length
      if (this.#work()) break
      const progressed = this.#wanted.length + this.#freed.length < before
      await this.#sleep(progressed ? 0 : retryMillis)
    }
    this.#running = false
  }

  /** True when there is nothing left to do; false when the disk refused, and it is to be tried again. */
  #work(): boolean {
    const { say } = this.#parts
    try {
      for (let fileIdentity = this.#freed[0]; fileIdentity !== undefined; fileIdentity = this.#freed[0]) {
        this.#pool.free(fileIdentity)
        this.#freed.shift()
        say({ type: 'spares', spareCount: this.#pool.spareCount() })
      }
      const fileIdentity = this.#wanted[0]
      if (fileIdentity === undefined) return true
      this.#pool.prepare(fileIdentity)
      this.#wanted.shift()
      say({ type: 'ready', fileIdentity, spareCount: this.#pool.spareCount() })
      return this.#wanted.length === 0
    } catch {
      // The commit thread meets the same disk, and tells of it; here it is enough to go on trying.
      return false
    }
  }

  /** Makes files of zeros while nobody asks for anything: after a start, and after a burst has used them up. One loop, for as long as the thread lives. */
  async #zeroAhead(): Promise<void> {
    const { clock } = this.#parts
    await this.#sleep(zeroAheadDelayMillis)
    while (!this.#closing.signal.aborted) {
      const startMillis = clock.monotonicMillis()
      const more = !this.#running && this.#tryZeroAhead()
      const tookMillis = clock.monotonicMillis() - startMillis
      await this.#sleep(more ? tookMillis * (1 / zeroAheadShare - 1) : retryMillis)
    }
  }

  #hasRoomAhead(): boolean {
    const { directory, fileSizeBytes } = this.#options
    return this.#parts.disk.freeBytes(directory) * zeroAheadFreeShareMax > logPoolFileCount * fileSizeBytes
  }

  /** A disk that refuses is met, and told of, by the commit thread. */
  #tryZeroAhead(): boolean {
    try {
      return this.#hasRoomAhead() && this.#pool.zeroAhead(Math.min(logPoolFileCount, sparesOf(this.#options)))
    } catch {
      return false
    }
  }

  async #sleep(delayMillis: number): Promise<void> {
    await this.#parts.clock.sleep(delayMillis, this.#closing.signal).catch(() => undefined)
  }
}
