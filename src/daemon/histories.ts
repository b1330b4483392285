import type { Aging } from '../aging/aging.ts'
import type { AgingNotices } from '../aging/service.ts'
import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import type { Ordinal, VpgId } from '../base/ids.ts'
import { retry } from '../base/retry.ts'
import type { Closable } from '../base/shutdown.ts'
import type { Catalog } from '../catalog/catalog.ts'
import type { VpgEntry, VpgTable } from './vpg-table.ts'

// How the index comes to have VPGs whose manifests a start has not read: an adoption, a lost index. They are served from the first moment on, the newest
// checkpoints are there, and aging reads the others' one VPG after the other; whoever asks for those of one VPG has it read next.
//
//   start: root ──> served, newest checkpoint │ later: manifest ──historyRead──> all its rows in one step │ rows of what changes since, in their order
//
// Until then nothing leaves the VPG's history, so all that the index has of it beyond the checkpoint that was the newest at the start came since.
//
// An index that does not take them, for its disk is full, is asked again later, and when somebody asks for them. What was read is old by then: what has
// changed since is made again behind it.

const delayMillisFirst = 1_000
const delayMillisMax = 60_000
/** Some days of a VPG. Beyond them the next start fills the index. */
const changesKeptMax = 50_000

/** Of one VPG: what was read, until the index has it. */
interface Reading {
  readonly entry: VpgEntry
  readonly notice: AgingNotices['historyRead']
  readonly keepAbove: Ordinal
  /** Made since it was first given to the index, in their order. */
  readonly changes: Change[]
  underWay: Promise<void> | undefined
}

type Change = () => Promise<void>

export interface HistoriesParts {
  readonly aging: Pick<Aging, 'readHistory'>
  readonly catalog: Pick<Catalog, 'loadVpg'>
  readonly clock: Clock
  readonly table: VpgTable
  /** The index does not take something now; it is asked again. */
  readonly notTaken: (error: Failure) => void
}

export class Histories implements Closable {
  readonly #parts: HistoriesParts
  readonly #readings = new Map<VpgId, Reading>()
  readonly #closing = new AbortController()

  constructor(parts: HistoriesParts) {
    this.#parts = parts
  }

  /** On return the index has what was read, however often it was asked, or the VPG is no more, or this was closed. Rejects where it cannot be asked again. */
  async read(notice: AgingNotices['historyRead']): Promise<void> {
    const { clock, table } = this.#parts
    const entry = table.get(notice.vpg)
    const keepAbove = entry?.unreadThrough
    if (entry === undefined || keepAbove === undefined) return
    const reading: Reading = { entry, notice, keepAbove, changes: [], underWay: undefined }
    this.#readings.set(notice.vpg, reading)
    const { signal } = this.#closing
    const patience = { delayMillisFirst, delayMillisMax, deadlineMillis: Infinity }
    try {
      await retry(() => this.#give(reading), patience, clock, signal)
    } catch (error) {
      if (!signal.aborted) throw error
    }
  }

  /** Makes a change to the index, which is not lost where that is asked again for what was read before. Rejects as the change. */
  change(vpg: VpgId, make: Change): Promise<void> {
    const changes = this.#readings.get(vpg)?.changes
    if (changes !== undefined && changes.length <= changesKeptMax) changes.push(make)
    return make()
  }

  /** On return the index has all checkpoints of the VPG. Fails as the store does, or the index. */
  async untilIndexed({ definition, unreadThrough }: VpgEntry): Promise<void> {
    const vpg = definition.id
    if (unreadThrough !== undefined && !this.#readings.has(vpg)) await this.#parts.aging.readHistory({ vpg })
    const reading = this.#readings.get(vpg)
    if (reading !== undefined) await this.#give(reading)
  }

  /** What the index does not have is for the next start. */
  async close(): Promise<void> {
    this.#closing.abort(new Failure('CLOSING', 'the daemon is closing'))
  }

  /** One at a time, for whoever waits. */
  #give(reading: Reading): Promise<void> {
    reading.underWay ??= this.#load(reading).finally(() => (reading.underWay = undefined))
    return reading.underWay
  }

  async #load({ entry, notice, keepAbove, changes }: Reading): Promise<void> {
    const { catalog, notTaken, table } = this.#parts
    const { vpg, segments, checkpointPage, offloaded } = notice
    if (!this.#readings.has(vpg)) return
    if (table.get(vpg) !== entry) return void this.#readings.delete(vpg)
    if (changes.length > changesKeptMax)
      throw new Failure('DISK_FAILED', 'the journal index has not taken the history for too long: a restart fills it')
    entry.unreadThrough = undefined
    try {
      // As it is: a long history takes seconds to decode, and agents are served in this thread.
      const loaded = catalog.loadVpg({ vpg, segments, checkpoints: checkpointPage, offloaded, keepAbove })
      // In their order behind it, and before all that comes.
      await Promise.all([loaded, ...changes.map(make => make())])
      this.#readings.delete(vpg)
    } catch (error) {
      entry.unreadThrough = keepAbove
      if (error instanceof Failure && error.reaction === 'retry' && !this.#closing.signal.aborted) notTaken(error)
      throw error
    }
  }
}
