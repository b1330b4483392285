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
  readonly strangers: Pick<Strangers, 'knows' | 'meet' | 'release'>
  /** True of a VPG that the store has, and has not given yet: it is no stranger, but its records are kept as one's. */
  readonly isAwaited: (vpg: VpgId) => boolean
  readonly unsealedCountMax?: number | undefined
  readonly damageFound: (notice: AgingNotices['damageFound']) => void
}

/** One reading of the log for VPGs that joined late. */
interface Round {
  readonly reader: TailedLog
  readonly tail: LogTail
  readonly vpgs: Map<VpgId, VpgAging>
}

/** Follows the commit log up to what is durable, and hands every record to its VPG. */
export class LogTail {
  readonly #options: TailOptions
  #limit: LogMark | undefined
  #enteredFile = -1
  #stretchCount = 0
  /** Of VPGs that joined late: what their count of unreadable stretches is ahead of the others'. */
  readonly #stretchesAhead = new Map<VpgId, number>()

  /** Of these VPGs, which joined late, records before the tail are still to be read. */
  readonly #behind = new Map<VpgId, VpgAging>()
  #round: Round | undefined

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
   * To be called in the step from which on `vpgs` has a VPG that comes late. What the tail has passed of it as a stranger's is read by catchUp(), and what
   * the tail comes to meanwhile is passed as well.
   */
  join(vpg: VpgAging): void {
    if (this.#options.strangers.knows(vpg.vpg)) this.#behind.set(vpg.vpg, vpg)
  }

  /** True while the VPG does not have all of its records up to where the tail is. */
  isBehind(vpg: VpgId): boolean {
    return this.#behind.has(vpg)
  }

  /** True while more is to be sealed before those that are behind are given more: half of the room is the tail's. */
  get catchUpWaits(): boolean {
    return this.#behind.size > 0 && this.unsealedCount >= this.unsealedCountMax / 2
  }

  /**
   * Reads one slice for those that are behind, all of them in one round, by a reader of its own; who joins meanwhile has the next round. False where nothing
   * is to be read now. Not beside readUp().
   */
  async catchUp(openReader: () => TailedLog, signal: AbortSignal): Promise<boolean> {
    if (this.#behind.size === 0 || this.catchUpWaits) return false
    const round = (this.#round ??= this.#newRound(openReader))
    if (round === undefined) return false
    const { reader, tail, vpgs } = round
    // What cannot be sealed would fill the memory: such a one begins anew when it can be.
    for (const [id, vpg] of vpgs) if (isStuck(vpg)) vpgs.delete(id)
    const { strangers } = this.#options
    tail.moveLimit(this.#options.reader.position())
    if (vpgs.size > 0 && (await tail.#readSlice(signal))) {
      for (const id of vpgs.keys()) strangers.release(id, reader.position().fileIdentity)
      return true
    }
    signal.throwIfAborted()
    for (const id of vpgs.keys()) {
      this.#stretchesAhead.set(id, tail.#stretchCount - this.#stretchCount)
      strangers.release(id)
      this.#behind.delete(id)
    }
    this.close()
    return true
  }

  #newRound(openReader: () => TailedLog): Round | undefined {
    const vpgs = new Map([...this.#behind].filter(([, vpg]) => !isStuck(vpg)))
    if (vpgs.size === 0) return undefined
    const reader = openReader()
    const tail = new LogTail({
      ...{ reader, vpgs, turns: this.#options.turns, isAwaited: () => true },
      // The tail has done that, and told of damage.
      logFiles: { note: () => undefined, readPast: () => undefined },
      strangers: { knows: () => false, meet: () => false, release: () => undefined },
      damageFound: () => undefined,
    })
    return { reader, tail, vpgs }
  }

  /** Closes what it has opened itself. */
  close(): void {
    this.#round?.reader.close()
    this.#round = undefined
  }

  /** Reads up to the limit; stops early while too much waits to be sealed, or when the signal is aborted. */
  async readUp(signal: AbortSignal): Promise<void> {
    while (!signal.aborted && !this.waits) if (!(await this.#readSlice(signal))) break
  }

  /** False at the limit. */
  async #readSlice(signal: AbortSignal): Promise<boolean> {
    const { reader, turns, logFiles } = this.#options
    if (this.#limit === undefined || signal.aborted) return false
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
    return records.length > 0 || damage.length > 0
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
    const { vpgs, logFiles, strangers, isAwaited } = this.#options
    logFiles.note(fileIdentity, vpg)
    const aging = vpgs.get(vpg)
    if (aging !== undefined && !this.#behind.has(vpg)) {
      take(aging)
      return
    }
    const isFirst = strangers.meet(vpg, fileIdentity)
    if (isFirst && aging === undefined && !isAwaited(vpg)) this.tellStranger(vpg)
  }

  /** Of a VPG that the store does not know, where the log has records of it. */
  tellStranger(vpg: VpgId): void {
    const { strangers, damageFound } = this.#options
    if (!strangers.knows(vpg)) return
    const sentence = `the log holds records of VPG ${vpg}, which the store does not know; they are kept, and their log files with them, until it is certain that the VPG is gone`
    damageFound({ vpg, sentence })
  }

  #tellDamage(fileIdentity: number, offsetBytes: number, sentence: string): void {
    const at = `log file ${fileIdentity}, byte ${offsetBytes}`
    // Whose records these were nobody can say: a VPG finds that records are missing when its next one does not follow.
    this.#options.damageFound({ vpg: undefined, sentence: `${at}: ${sentence}` })
  }
}

/** One that is halted keeps nothing in memory. */
function isStuck({ isSealingStopped, writer }: VpgAging): boolean {
  return isSealingStopped && writer.halted === undefined
}
