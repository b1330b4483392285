import { Worker } from 'node:worker_threads'
import { systemClock, type Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import { threadYoungSizeMiBMax } from '../base/limits.ts'
import type { VpgId } from '../base/ids.ts'
import { RpcClient, type RpcMethods } from '../base/rpc.ts'
import type { Closable } from '../base/shutdown.ts'
import { endThread } from '../base/threads.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { CatalogEvents } from './events.ts'
import type { CatalogNote, CatalogNotices, CatalogService, TailRow } from './service.ts'

// The journal index: where each record of the log's tail is, and every checkpoint, in a SQLite file behind a thread of its own.
//
// Nothing here is the only copy: the log, segment footers and manifests say all of it again. So rows are added without
// waiting, gathered, and written in one transaction a few times a second; losing the last of them, or the whole file,
// costs a rebuild at the next start. A file that is damaged, foreign or of another version is set aside and begun anew.

export type { CatalogEvents } from './events.ts'
export type * from './service.ts'

/** What goes to the thread as it is; the rest is gathered, or is this class's own. */
type Direct = Omit<CatalogService, 'open' | 'add' | 'keepNotes' | 'settle' | 'close'>

const flushIntervalMillis = 200
const flushRowsMax = 1000
/** Rows that wait or are under way: at 6,000 batches a second, a stall of 16 s. Beyond it rows of the tail are dropped. */
const waitingRowsMax = 100_000
const settleAfterMillis = 5000

interface Waiting {
  rows: TailRow[]
  checkpoints: { readonly vpg: VpgId; readonly checkpoint: Checkpoint }[]
}

export class Catalog implements RpcMethods<Direct>, Closable {
  /** Whether the file had to be begun anew, and why: it is empty then. */
  readonly begunAnew: boolean
  readonly reason: string
  readonly #worker: Worker
  readonly #client: RpcClient<CatalogService>
  readonly #events: CatalogEvents
  readonly #clock: Clock
  readonly #ended = new AbortController()
  readonly #gathering: Promise<void>
  #waiting: Waiting = { rows: [], checkpoints: [] }
  #rowsUnderWay = 0
  #underWay: Promise<void> = Promise.resolve()
  /** The last add failed: wait for the next turn instead of trying at every call. */
  #failing = false
  #notes: readonly CatalogNote[]
  /** False when a change was not made: what it had of a VPG may be missing. */
  #isWhole = true
  /** When the file was last written, and that its WAL is not empty since. */
  #writtenMillis: number | undefined

  /** Starts the thread, and opens or begins the file. */
  static async open(options: {
    readonly file: string
    readonly events: CatalogEvents
    readonly clock?: Clock
  }): Promise<Catalog> {
    const { file, events, clock = systemClock } = options
    const worker = new Worker(new URL('./catalog-worker.js', import.meta.url), {
      resourceLimits: { maxYoungGenerationSizeMb: threadYoungSizeMiBMax },
    })
    const client = new RpcClient<CatalogService>(worker, (name, value) => {
      if (name === 'begunAnew') events.catalogBegunAnew((value as CatalogNotices['begunAnew']).reason)
    })
    try {
      const opened = await client.call('open', { file })
      return new Catalog(worker, client, events, clock, opened)
    } catch (error) {
      await endThread(worker)
      throw error
    }
  }

  private constructor(
    worker: Worker,
    client: RpcClient<CatalogService>,
    events: CatalogEvents,
    clock: Clock,
    opened: Awaited<ReturnType<CatalogService['open']>>,
  ) {
    this.#worker = worker
    this.#client = client
    this.#events = events
    this.#clock = clock
    this.begunAnew = opened.begunAnew
    this.reason = opened.reason
    this.#notes = opened.notes
    this.#gathering = this.#flushNowAndThen()
  }

  /** Costs the caller nothing but the array. Every call below sees what was added before it. */
  addTail(rows: readonly TailRow[]): void {
    const room = waitingRowsMax - this.#rowsUnderWay - this.#waiting.rows.length
    for (const row of rows.slice(0, Math.max(0, room))) this.#waiting.rows.push(row)
    if (rows.length > room) this.#events.tailRowsDropped(rows.length - Math.max(0, room))
    this.#flushIfMany()
  }

  /** As addTail(), but never dropped: there is one in seconds. */
  addCheckpoints(vpg: VpgId, checkpoints: readonly Checkpoint[]): void {
    for (const checkpoint of checkpoints) this.#waiting.checkpoints.push({ vpg, checkpoint })
    this.#flushIfMany()
  }

  /** On return everything that was added before is in the index, or was dropped and said so. */
  async flush(): Promise<void> {
    this.#send()
    await this.#underWay
  }

  loadVpg: Direct['loadVpg'] = argument => this.#change('loadVpg', argument)
  dropCheckpointsAbove: Direct['dropCheckpointsAbove'] = argument => this.#change('dropCheckpointsAbove', argument)
  forgetVpg: Direct['forgetVpg'] = argument => this.#change('forgetVpg', argument)
  addSegment: Direct['addSegment'] = argument => this.#change('addSegment', argument)
  dropSegments: Direct['dropSegments'] = argument => this.#change('dropSegments', argument)
  dropCheckpoints: Direct['dropCheckpoints'] = argument => this.#change('dropCheckpoints', argument)
  thinCheckpoints: Direct['thinCheckpoints'] = argument => this.#change('thinCheckpoints', argument)
  listCheckpoints: Direct['listCheckpoints'] = query => this.#call('listCheckpoints', query)
  checkpoint: Direct['checkpoint'] = argument => this.#call('checkpoint', argument)
  latestCheckpoint: Direct['latestCheckpoint'] = argument => this.#call('latestCheckpoint', argument)
  checkpointAt: Direct['checkpointAt'] = argument => this.#call('checkpointAt', argument)
  recoverable: Direct['recoverable'] = argument => this.#call('recoverable', argument)
  statistics: Direct['statistics'] = argument => this.#call('statistics', argument)
  overviews: Direct['overviews'] = argument => this.#call('overviews', argument)
  locate: Direct['locate'] = argument => this.#call('locate', argument)

  /** See CatalogService.open; once. */
  takeNotes(): readonly CatalogNote[] {
    const notes = this.#notes
    this.#notes = []
    return notes
  }

  /** As CatalogService.keepNotes. */
  async keepNotes(notes: readonly CatalogNote[]): Promise<void> {
    await this.flush()
    if (this.#isWhole && !this.#failing) await this.#change('keepNotes', { notes })
  }

  async close(): Promise<void> {
    if (this.#ended.signal.aborted) return
    this.#ended.abort(new Failure('CLOSING', 'the journal index is being closed'))
    await this.#gathering
    await this.flush()
    try {
      await this.#client.call('close', undefined)
    } finally {
      await endThread(this.#worker)
    }
  }

  /** Messages keep their order, so what waits goes first and the call sees it. */
  readonly #call: RpcClient<CatalogService>['call'] = (method, argument) => {
    this.#send()
    return this.#client.call(method, argument)
  }

  /** A call that writes. */
  readonly #change: RpcClient<CatalogService>['call'] = (method, argument) => {
    this.#writtenMillis = this.#clock.monotonicMillis()
    const answer = this.#call(method, argument)
    const missing = (): void => void (this.#isWhole = false)
    ;(answer as Promise<unknown>).catch(missing) // whoever called hears why
    return answer
  }

  #flushIfMany(): void {
    const count = this.#waiting.rows.length + this.#waiting.checkpoints.length
    if (count >= flushRowsMax && this.#rowsUnderWay === 0 && !this.#failing) this.#send()
  }

  #send(): void {
    const { rows, checkpoints } = this.#waiting
    if (rows.length === 0 && checkpoints.length === 0) return
    this.#waiting = { rows: [], checkpoints: [] }
    this.#rowsUnderWay += rows.length
    this.#writtenMillis = this.#clock.monotonicMillis()
    const before = this.#underWay
    const answered = this.#client.call('add', { rows, checkpoints }).then(
      () => {
        this.#rowsUnderWay -= rows.length
        this.#failing = false
      },
      (error: unknown) => this.#takeBack({ rows, checkpoints }, error),
    )
    this.#underWay = Promise.all([before, answered]).then(() => undefined)
  }

  /** A full disk may have room again: what could not be written waits for the next time. */
  #takeBack(failed: Waiting, error: unknown): void {
    if (!(error instanceof Failure)) throw error
    this.#rowsUnderWay -= failed.rows.length
    this.#events.catalogFailing(error.message)
    this.#isWhole &&= error.reaction === 'retry'
    if (error.reaction !== 'retry' || this.#ended.signal.aborted) {
      this.#events.tailRowsDropped(failed.rows.length)
      return
    }
    this.#failing = true
    const { rows, checkpoints } = this.#waiting
    this.#waiting = { rows: [], checkpoints: failed.checkpoints.concat(checkpoints) }
    this.addTail(failed.rows.concat(rows))
  }

  async #flushNowAndThen(): Promise<void> {
    while (await this.#sleep(flushIntervalMillis)) {
      await this.flush()
      const written = this.#writtenMillis
      if (written === undefined || this.#clock.monotonicMillis() - written < settleAfterMillis) continue
      this.#writtenMillis = undefined
      await this.#settle()
    }
  }

  async #settle(): Promise<void> {
    try {
      await this.#client.call('settle', undefined)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      this.#events.catalogFailing(error.message)
    }
  }

  /** False when the catalog is being closed. */
  async #sleep(delayMillis: number): Promise<boolean> {
    const { signal } = this.#ended
    try {
      await this.#clock.sleep(delayMillis, signal)
      return !signal.aborted
    } catch (error) {
      if (signal.aborted) return false
      throw error
    }
  }
}
