import type { VpgId } from '../base/ids.ts'
import { MiB } from '../base/units.ts'
import type { RecordPlace } from '../journal/log-reader.ts'
import type { LogFiles } from './log-files.ts'
import type { LogMark, AgingNotices } from './service.ts'
import type { TailedLog } from './tools.ts'
import type { Strangers } from './strangers.ts'
import type { Turns } from './turns.ts'
import type { VpgAging } from './vpg-aging.ts'

/** Read at once between two looks at the clock. */
const sliceSizeBytes = 1 * MiB
/** With so many records in no segment the tail waits: they are safe in the log, and memory is not. */
const unsealedCountMaxDefault = 400_000

export interface TailOptions {
  readonly reader: TailedLog
  readonly turns: Turns
  readonly logFiles: Pick<LogFiles, 'note' | 'readPast'>
  readonly vpgs: ReadonlyMap<VpgId, VpgAging>
  readonly strangers: Pick<Strangers, 'meet' | 'release'>
  readonly unsealedCountMax?: number | undefined
  readonly damageFound: (notice: AgingNotices['damageFound']) => void
}

/** Follows the commit log up to what is durable, and hands every record to its VPG. */
export class LogTail {
  readonly #options: TailOptions
  #limit: LogMark | undefined
  #enteredFile = -1
  #stretchCount = 0
  /** Of VPGs that joined late: what their count of unreadable stretches is ahead of the others'. */
  readonly #stretchesAhead = new Map<VpgId, number>()

  constructor(options: TailOptions) {
    this.#options = options
  }

  get limit(): LogMark | undefined {
    return this.#limit
  }

  /** True while too much waits to be sealed: what is next in the log is read when some of it is. */
  get waits(): boolean {
    return this.unsealedCount >= this.unsealedCountMax
  }

  get unsealedCountMax(): number {
    return this.#options.unsealedCountMax ?? unsealedCountMaxDefault
  }

  /** The log is durable up to here. Never back. */
  moveLimit(mark: LogMark): void {
    const before = this.#limit
    const ahead =
      before === undefined ||
      mark.fileIdentity > before.fileIdentity ||
      (mark.fileIdentity === before.fileIdentity && mark.offsetBytes > before.offsetBytes)
    if (ahead) this.#limit = mark
  }

  /**
   * Hands all records up to where the tail is, by a reader of its own, to VPGs that the tail has passed as strangers. `vpgs` may have them from the step
   * on in which this ends.
   */
  async catchUp(joining: readonly VpgAging[], reader: TailedLog, signal: AbortSignal): Promise<void> {
    const { turns, strangers } = this.#options
    const late = new LogTail({
      ...{ reader, turns, vpgs: new Map(joining.map(each => [each.vpg, each])), unsealedCountMax: Infinity },
      // The tail has done that, and told of damage.
      logFiles: { note: () => undefined, readPast: () => undefined },
      strangers: { meet: () => false, release: () => undefined },
      damageFound: () => undefined,
    })
    late.moveLimit(this.#options.reader.position())
    await late.readUp(signal)
    signal.throwIfAborted()
    for (const { vpg } of joining) {
      this.#stretchesAhead.set(vpg, late.#stretchCount - this.#stretchCount)
      strangers.release(vpg)
    }
  }

  /** Reads up to the limit; stops early while too much waits to be sealed, or when the signal is aborted. */
  async readUp(signal: AbortSignal): Promise<void> {
    const { reader, turns, logFiles } = this.#options
    while (this.#limit !== undefined && !signal.aborted && !this.waits) {
      await turns.yieldNow()
      const { records, damage } = reader.next(this.#limit, sliceSizeBytes)
      for (const { place, sentence } of damage) this.#tellDamage(place.fileIdentity, place.offsetBytes, sentence)
      const stretches = damage.map(({ place }) => place)
      for (const { header, place } of records) {
        await turns.yieldNow()
        this.#pass(stretches, place)
        const stretchCount = this.#stretchCount + (this.#stretchesAhead.get(header.vpg) ?? 0)
        const tailPlace = { place, stretchCount }
        this.#hand(header.vpg, place.fileIdentity, vpg => vpg.take(header, tailPlace, () => reader.readRecord(place)))
      }
      this.#stretchCount += stretches.length
      const { fileIdentity } = reader.position()
      if (fileIdentity !== this.#enteredFile) {
        this.#enteredFile = fileIdentity
        logFiles.readPast(fileIdentity, reader.files(this.#limit))
      }
      if (records.length === 0 && damage.length === 0) break
    }
  }

  /** Counts those that lie before the place, and takes them out. */
  #pass(stretches: RecordPlace[], { fileIdentity, offsetBytes }: RecordPlace): void {
    for (let first = stretches[0]; first !== undefined; first = stretches[0]) {
      const isBefore =
        first.fileIdentity < fileIdentity || (first.fileIdentity === fileIdentity && first.offsetBytes < offsetBytes)
      if (!isBefore) return
      stretches.shift()
      this.#stretchCount++
    }
  }

  /** Of records that memory has a place of, and no segment. Not of VPGs that cannot be sealed: nobody is to wait for them. */
  get unsealedCount(): number {
    let count = 0
    for (const { isSealingStopped, unsealed } of this.#options.vpgs.values()) {
      if (!isSealingStopped) count += unsealed.count
    }
    return count
  }

  #hand(vpg: VpgId, fileIdentity: number, take: (vpg: VpgAging) => void): void {
    const { vpgs, logFiles, strangers, damageFound } = this.#options
    logFiles.note(fileIdentity, vpg)
    const aging = vpgs.get(vpg)
    if (aging !== undefined) {
      take(aging)
      return
    }
    if (!strangers.meet(vpg, fileIdentity)) return
    const sentence = `the log holds records of VPG ${vpg}, which the store does not know; they are kept, and their log files with them, until it is certain that the VPG is gone`
    damageFound({ vpg, sentence })
  }

  #tellDamage(fileIdentity: number, offsetBytes: number, sentence: string): void {
    const at = `log file ${fileIdentity}, byte ${offsetBytes}`
    // Whose records these were nobody can say: a VPG finds that records are missing when its next one does not follow.
    this.#options.damageFound({ vpg: undefined, sentence: `${at}: ${sentence}` })
  }
}
