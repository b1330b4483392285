import { ingestPoolSizeBytes, logPoolFileCount } from '../../../src/base/limits.ts'
import { Failure } from '../../../src/base/failure.ts'
import { type CommitLog, openLog } from '../../../src/journal/commit-log.ts'
import { LogFilePool } from '../../../src/journal/file-pool.ts'
import { GroupQueue } from '../../../src/journal/group-queue.ts'
import type { LogMark } from '../../../src/journal/log-file.ts'
import { encodeRecordHeader } from '../../../src/journal/record.ts'
import type { RecoveredLog } from '../../../src/journal/recovered.ts'
import { type PoolSlot, SlotPool } from '../../../src/journal/slot-pool.ts'
import type { AppendFields, JournalWriter, Slot } from '../../../src/journal/writer.ts'
import type { Disk } from '../../../src/disk/disk.ts'
import type { Life } from './world.ts'

// What Journal, its commit thread and its preparing thread do, with simulated time between them instead of threads: the pool, the queue,
// the commit log, its recovery and its files are the real ones.

interface Waiting {
  readonly streamKey: string
  readonly sizeBytes: number
  readonly slot: PoolSlot
  readonly onDurable: () => void
}

export interface SimulatedJournalOptions {
  readonly life: Life
  readonly disk: Disk
  readonly directory: string
  readonly fileSizeBytes: number
  readonly logSizeBytesMax: number
  readonly poolSizeBytes: number
  /** A mutation: says that a group is durable before it is written. */
  readonly tellsBeforeSync: boolean
  /** A group is in the log. */
  readonly onDurable: (mark: LogMark) => void
}

const retryMillis = 1_000

export class SimulatedJournal implements JournalWriter {
  readonly recovered: RecoveredLog
  /** A group takes up to so long to become durable. */
  delayMillisMax = 5
  readonly #options: SimulatedJournalOptions
  readonly #log: CommitLog
  readonly #files: LogFilePool
  readonly #filesWork: (() => void)[] = []
  readonly #pool: SlotPool
  readonly #queue: GroupQueue<Waiting>
  #inFlight: readonly Waiting[] = []
  #pumpPlanned = false
  #durable: LogMark

  constructor(options: SimulatedJournalOptions) {
    this.#options = options
    const { disk, directory, fileSizeBytes, logSizeBytesMax, life } = options
    const { timestampMicros } = life.clock
    this.#pool = new SlotPool(Math.min(ingestPoolSizeBytes, options.poolSizeBytes))
    this.#queue = new GroupQueue(Math.floor(fileSizeBytes / 4))
    const { recovered, log } = openLog(disk, {
      directory,
      fileSizeBytes,
      logSizeBytesMax,
      timestampMicros,
      files: {
        prepare: fileIdentity => this.#plan(() => this.#prepare(fileIdentity)),
        free: fileIdentity => this.#plan(() => this.#files.free(fileIdentity)),
      },
      events: { fileRotated: () => undefined, diskFailed: () => undefined },
    })
    this.recovered = recovered
    this.#log = log
    this.#durable = recovered.durable
    const spareCountMax = Math.min(logPoolFileCount, 2)
    this.#files = new LogFilePool(disk, { directory, fileSizeBytes, spareCountMax, timestampMicros })
  }

  reserve(frameSizeBytes: number): Slot | undefined {
    return this.#pool.reserve(frameSizeBytes)
  }

  whenRoom(frameSizeBytes: number, callback: () => void): void {
    this.#pool.whenRoom(frameSizeBytes, callback)
  }

  release(slot: Slot): void {
    this.#pool.release(slot as PoolSlot)
    this.#pool.serveWaiting()
  }

  append(slot: Slot, fields: AppendFields, onDurable: () => void): void {
    const poolSlot = slot as PoolSlot
    encodeRecordHeader(poolSlot.record, {
      ...fields,
      fileIdentity: 0,
      offsetBytes: 0,
      durableOffsetBytes: 0,
      frameSizeBytes: slot.frame.length,
    })
    const streamKey = `${fields.vpg}/${fields.stream}`
    this.#queue.add({ streamKey, sizeBytes: poolSlot.record.length, slot: poolSlot, onDurable })
    if (this.#pumpPlanned || this.#inFlight.length > 0) return
    this.#pumpPlanned = true
    queueMicrotask(() => {
      this.#pumpPlanned = false
      this.#pump()
    })
  }

  durable(): LogMark {
    return this.#durable
  }

  freeFile(fileIdentity: number): void {
    this.#options.life.after(0, () => this.#log.freeFile(fileIdentity))
  }

  close(): void {
    try {
      this.#log.close()
    } catch {
      // Nothing that was acknowledged depends on it; the next start finds the same records.
    }
  }

  #pump(): void {
    if (this.#inFlight.length > 0) return
    const group = this.#queue.takeGroup()
    if (group.length === 0) return
    this.#inFlight = group
    const { life, tellsBeforeSync } = this.#options
    const { world } = life.host
    const records = group.map(({ slot }) => (tellsBeforeSync ? slot.record.slice() : slot.record))
    if (tellsBeforeSync) life.after(0, () => this.#finish(group))
    const delayMillis = tellsBeforeSync ? this.delayMillisMax : world.delay(0.02, this.delayMillisMax)
    life.after(delayMillis, () => this.#commit(group, records))
  }

  #commit(group: readonly Waiting[], records: readonly Uint8Array[]): void {
    const { life, tellsBeforeSync } = this.#options
    let mark: LogMark
    try {
      mark = this.#log.appendGroup(records).mark
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      life.after(retryMillis, () => this.#commit(group, records))
      return
    }
    this.#durable = mark
    this.#options.onDurable(mark)
    if (!tellsBeforeSync) life.after(life.host.world.delay(0.01, this.delayMillisMax), () => this.#finish(group))
  }

  #finish(group: readonly Waiting[]): void {
    this.#inFlight = []
    this.#pump()
    for (const { slot } of group) this.#pool.release(slot)
    for (const { onDurable } of group) onDurable()
    this.#pool.serveWaiting()
  }

  #prepare(fileIdentity: number): void {
    this.#files.prepare(fileIdentity)
    this.#options.life.after(0, () => this.#log.addReady(fileIdentity))
  }

  /** One after the other, each tried until the disk lets it. */
  #plan(work: () => void): void {
    this.#filesWork.push(work)
    if (this.#filesWork.length === 1) this.#options.life.after(1, () => this.#work())
  }

  #work(): void {
    const { life } = this.#options
    const [work] = this.#filesWork
    if (work === undefined) return
    try {
      work()
      this.#filesWork.shift()
      if (this.#filesWork.length > 0) life.after(life.host.world.delay(1, 50), () => this.#work())
    } catch {
      life.after(retryMillis, () => this.#work())
    }
  }
}
