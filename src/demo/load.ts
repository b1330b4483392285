import type { Clock } from '../base/clock.ts'
import { randomFillSync } from 'node:crypto'
import { KiB } from '../base/units.ts'
import type { DiskRange } from './filesystem.ts'
import type { NbdClient } from './nbd-client.ts'

const writeSizeBytes = 4 * KiB
const writesInFlight = 32

/** A database-like load: random 4 KiB writes into some ranges of a disk, at most so many a second, a flush now and then. */
export class Load {
  readonly #disk: NbdClient
  readonly #ranges: readonly DiskRange[]
  readonly #clock: Clock
  #pausing: AbortController | undefined
  #running: Promise<void> | undefined
  writeCount = 0

  constructor(disk: NbdClient, ranges: readonly DiskRange[], clock: Clock) {
    this.#disk = disk
    this.#ranges = ranges
    this.#clock = clock
  }

  start(writesPerSecondMax: number): void {
    const pausing = new AbortController()
    this.#pausing = pausing
    this.#running = this.#run(writesPerSecondMax, pausing.signal)
  }

  /** Returns when every write has been answered and flushed: the disk then stands still. */
  async pause(): Promise<void> {
    this.#pausing?.abort()
    await this.#running
    await this.#disk.flush()
  }

  async #run(writesPerSecondMax: number, signal: AbortSignal): Promise<void> {
    const startedMillis = this.#clock.monotonicMillis()
    for (let count = 0; !signal.aborted; count += writesInFlight) {
      await Promise.all(Array.from({ length: writesInFlight }, () => this.#writeSomewhere()))
      if (count % (64 * writesInFlight) === 0) await this.#disk.flush()
      const dueMillis = startedMillis + ((count + writesInFlight) / writesPerSecondMax) * 1000
      const earlyMillis = dueMillis - this.#clock.monotonicMillis()
      if (earlyMillis > 1) await this.#clock.sleep(earlyMillis, signal).catch(() => undefined)
    }
  }

  async #writeSomewhere(): Promise<void> {
    const range = this.#ranges[Math.floor(Math.random() * this.#ranges.length)]
    if (range === undefined) return
    const blockCount = (range.endBytes - range.startBytes) / writeSizeBytes
    const offsetBytes = range.startBytes + Math.floor(Math.random() * blockCount) * writeSizeBytes
    // Half of a block is new: data like this compresses a little, as a database's pages do.
    const data = Buffer.alloc(writeSizeBytes, `row ${this.writeCount} `)
    randomFillSync(data, 0, writeSizeBytes / 2)
    await this.#disk.write(offsetBytes, data)
    this.writeCount++
  }
}
