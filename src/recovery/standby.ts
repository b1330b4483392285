import { randomBytes } from 'node:crypto'
import type { Aging } from '../aging/aging.ts'
import { onAbort } from '../base/abort.ts'
import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import type { VpgId } from '../base/ids.ts'
import { standbyIntervalMillisMin } from '../base/limits.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { VpgDefinition } from '../timeline/definition.ts'
import type { Json } from '../timeline/recovery.ts'
import type { StandbyRecord } from '../timeline/standby.ts'
import type { StandbyEvents } from './events.ts'
import type { StandbyContext, StandbyCopy, StandbyTarget } from './target.ts'

// Standby copies of all VPGs that ask for them: now and then each is brought up to a checkpoint that is in the store already, so that a recovery moves only
// what has changed since.
//
//   due ─> record: next = C (pinned) ─> target.advance ─> record: only what copies hold (pinned); what they held before may age
//
// A few VPGs at a time share one slow pace, and none goes on while a recovery prepares: that one has the rate, and the copies that it is put upon stay. The record is durable
// before each step, and every step can be made again: a process that is killed is followed by one that goes on, or ends what is wanted no more.

export interface StandbysParts {
  readonly aging: Pick<Aging, 'putStandby'>
  readonly clock: Clock
  /** Undefined where this VRA is not set up for one. */
  readonly target: StandbyTarget | undefined
  /** The newest checkpoint of the VPG that survives the loss of the appliance; undefined while there is none. */
  readonly newestOffloaded: (vpg: VpgId) => Promise<Checkpoint | undefined>
  readonly events: StandbyEvents
}

export interface StandbyView {
  readonly state: 'waiting' | 'advancing' | 'suspended' | 'ending'
  readonly copies: readonly (StandbyCopy & { readonly timestampMicros: number })[]
  /** Since this process began. */
  readonly putSizeBytes: number
  readonly advanceCount: number
  readonly failureCount: number
  /** Why it did not get on the last time; it is tried again. */
  readonly trouble: string | undefined
}

interface HeldStandby {
  readonly vpg: VpgId
  /** As it is now. */
  readonly definition: () => VpgDefinition
  record: StandbyRecord | undefined
  /** The VPG is about to be deleted. */
  isUnwanted: boolean
  /** ...and its copies are left where they are. */
  isAbandoned: boolean
  isAdvancing: boolean
  putSizeBytes: number
  advanceCount: number
  failureCount: number
  /** In a row. */
  failedCount: number
  /** On the monotonic clock: not before. */
  notBeforeMillis: number
  trouble: string | undefined
}

const standbysAtOnceMax = 4
const lookMillis = 30_000
const pauseMillisFirst = 30_000
const pauseMillisMax = 600_000
/** Recoveries that follow one another are not interrupted. */
const quietMillis = 10_000
/** Who deletes a VPG waits no longer; it goes on all the same. */
const endMillisMax = 20_000

const suspended = new Failure('CLOSING', 'standby copies wait for a recovery')

export class Standbys {
  readonly #parts: StandbysParts
  readonly #held = new Map<VpgId, HeldStandby>()
  readonly #closing = new AbortController()
  /** Ends the wait of the loop. */
  #waking = new AbortController()
  readonly #steps = new Map<VpgId, { readonly abort: AbortController; readonly ended: Promise<unknown> }>()
  #suspendedCount = 0
  #quietUntilMillis = 0
  readonly #done: Promise<void>

  constructor(parts: StandbysParts) {
    this.#parts = parts
    this.#done = this.#loop().catch((error: unknown) => {
      if (!this.#closing.signal.aborted) throw error
    })
  }

  /** The VPG is served from here on, with the record that the store has. Nothing happens where it is served already. */
  serve(vpg: VpgId, record: StandbyRecord | undefined, definition: () => VpgDefinition): void {
    if (this.#held.has(vpg)) return
    const counts = { putSizeBytes: 0, advanceCount: 0, failureCount: 0, failedCount: 0 }
    const now = { isUnwanted: false, isAbandoned: false, isAdvancing: false, notBeforeMillis: 0, trouble: undefined }
    this.#held.set(vpg, { vpg, definition, record, ...counts, ...now })
    this.#wake()
  }

  /** It is deleted, or another appliance's: what is under way stops where it is. */
  async forget(vpg: VpgId): Promise<void> {
    this.#held.delete(vpg)
    const step = this.#steps.get(vpg)
    step?.abort.abort(new Failure('CLOSING', 'the VPG is not served any more'))
    await step?.ended
  }

  /** Its definition says something else, perhaps of standby copies; or it is not deleted after all. */
  changed(vpg: VpgId): void {
    const held = this.#held.get(vpg)
    if (held !== undefined) this.#review(held, {})
  }

  #review(held: HeldStandby, now: Partial<Pick<HeldStandby, 'isUnwanted' | 'isAbandoned'>>): void {
    held.isUnwanted = now.isUnwanted ?? false
    held.isAbandoned = now.isAbandoned ?? false
    held.notBeforeMillis = 0
    if (!isWanted(held) && held.isAdvancing)
      this.#steps.get(held.vpg)?.abort.abort(new Failure('CLOSING', 'no standby copies are wanted any more'))
    this.#wake()
  }

  /** Fails REQUEST_INVALID where this VRA is not set up to keep copies. */
  requireTarget(): void {
    if (this.#parts.target !== undefined) return
    const sentence =
      'standby copies are snapshots in AWS, and the configuration has no section `aws`: with it they can be kept, and removed'
    throw new Failure('REQUEST_INVALID', sentence)
  }

  record(vpg: VpgId): StandbyRecord | undefined {
    return this.#held.get(vpg)?.record
  }

  /** No copy is being worked on, on return, and none is until what it gives is called. */
  async suspend(): Promise<() => void> {
    this.#suspendedCount++
    const steps = [...this.#steps.values()]
    for (const { abort } of steps) abort.abort(suspended)
    for (const { ended } of steps) await ended
    let isOver = false
    return () => {
      if (isOver) return
      isOver = true
      this.#suspendedCount--
      this.#quietUntilMillis = this.#parts.clock.monotonicMillis() + quietMillis
      this.#wake()
    }
  }

  /** Nothing of the VPG's copies is left on return. Fails BUSY where that takes longer than one waits; it goes on. */
  async end(vpg: VpgId): Promise<void> {
    const held = this.#held.get(vpg)
    if (held?.record === undefined) return
    const { name } = held.definition()
    const wayOut = `where AWS is not to be had any more, \`vra vpg delete ${name} --force\` deletes the group and leaves them there`
    if (this.#parts.target === undefined)
      throw new Failure(
        'REQUEST_INVALID',
        `there are standby copies of ${name} in AWS, and the configuration has no section \`aws\`: with it they can be removed; ${wayOut}`,
      )
    this.#review(held, { isUnwanted: true })
    const { clock } = this.#parts
    const untilMillis = clock.monotonicMillis() + endMillisMax
    while (held.record !== undefined && this.#held.has(vpg)) {
      if (clock.monotonicMillis() > untilMillis) {
        const why = held.trouble === undefined ? '' : ` (${held.trouble})`
        const sentence = `the standby copies of ${name} are being removed first${why}: ask again in a moment; ${wayOut}`
        throw new Failure('BUSY', sentence)
      }
      await clock.sleep(100, this.#closing.signal)
    }
  }

  /** No copy is made or brought up to date any more, on return, nor removed; changed() takes that back. */
  async abandon(vpg: VpgId): Promise<void> {
    const held = this.#held.get(vpg)
    if (held === undefined) return
    this.#review(held, { isUnwanted: true, isAbandoned: true })
    const step = this.#steps.get(vpg)
    step?.abort.abort(new Failure('CLOSING', 'the standby copies are left where they are'))
    await step?.ended
  }

  /** Undefined where none are wanted, and none are there. */
  view(vpg: VpgId): StandbyView | undefined {
    const held = this.#held.get(vpg)
    if (held === undefined || (held.record === undefined && !isWanted(held))) return undefined
    const { record, putSizeBytes, advanceCount, failureCount, trouble, isAdvancing } = held
    const timeOf = (ordinal: number): number =>
      record?.checkpoints.find(each => each.ordinal === ordinal)?.timestampMicros ?? 0
    const copies = record === undefined ? [] : (this.#parts.target?.copies(record) ?? [])
    return {
      state: !isWanted(held)
        ? 'ending'
        : isAdvancing
          ? 'advancing'
          : this.#suspendedCount > 0
            ? 'suspended'
            : 'waiting',
      copies: copies.map(copy => ({ ...copy, timestampMicros: timeOf(copy.ordinal) })),
      ...{ putSizeBytes, advanceCount, failureCount },
      trouble: this.#parts.target === undefined ? 'the configuration has no section `aws`' : trouble,
    }
  }

  /** Stops between two steps; the next process goes on there. */
  async close(): Promise<void> {
    this.#closing.abort(new Failure('CLOSING', 'the daemon ends; the next one goes on with it'))
    await this.#done
    for (const { ended } of this.#steps.values()) await ended
  }

  #wake(): void {
    this.#waking.abort()
  }

  async #loop(): Promise<void> {
    const { clock, target } = this.#parts
    const { signal } = this.#closing
    while (!signal.aborted) {
      this.#waking = new AbortController()
      if (target !== undefined)
        for (const due of this.#due().slice(0, standbysAtOnceMax - this.#steps.size)) this.#begin(due, target)
      await clock.sleep(lookMillis, AbortSignal.any([signal, this.#waking.signal])).catch(() => undefined)
    }
  }

  #begin(held: HeldStandby, target: StandbyTarget): void {
    const abort = new AbortController()
    const forget = onAbort(this.#closing.signal, () => abort.abort(this.#closing.signal.reason))
    const ended = this.#attempt(held, target, abort.signal).finally(() => {
      this.#steps.delete(held.vpg)
      forget()
      this.#wake()
    })
    this.#steps.set(held.vpg, { abort, ended })
  }

  /** What there is to do at this moment; what has waited longest comes first. */
  #due(): HeldStandby[] {
    const nowMillis = this.#parts.clock.monotonicMillis()
    if (this.#suspendedCount > 0 || nowMillis < this.#quietUntilMillis) return []
    const idle = [...this.#held.values()].filter(({ vpg }) => !this.#steps.has(vpg))
    const due = idle.filter(held => held.notBeforeMillis <= nowMillis && this.#isDue(held))
    return due.sort((a, b) => a.notBeforeMillis - b.notBeforeMillis)
  }

  #isDue(held: HeldStandby): boolean {
    const { record } = held
    if (held.isAbandoned) return false
    if (!isWanted(held)) return record !== undefined
    if (record === undefined || record.state === 'ending' || record.next !== undefined) return true
    // Of the newest: a volume that was in none of them yet comes with the next.
    const newestMicros = Math.max(...record.checkpoints.map(({ timestampMicros }) => timestampMicros), -Infinity)
    return (this.#parts.clock.timestampMicros() - newestMicros) / 1000 >= intervalOf(held)
  }

  async #attempt(held: HeldStandby, target: StandbyTarget, signal: AbortSignal): Promise<void> {
    const { clock, events } = this.#parts
    const { vpg } = held
    try {
      await this.#work(held, target, signal)
      held.failedCount = 0
      held.trouble = undefined
    } catch (error) {
      if (signal.aborted) return
      if (!(error instanceof Failure)) throw error
      held.failureCount++
      held.trouble = error.message
      const pauseMillis = Math.min(pauseMillisFirst * 2 ** held.failedCount++, pauseMillisMax)
      held.notBeforeMillis = clock.monotonicMillis() + pauseMillis
      events.standbyFailed(vpg, error)
      if (error.reaction !== 'retry') await this.#giveUpNext(held).catch(() => undefined) // the store is away: it is tried again
    } finally {
      held.isAdvancing = false
    }
  }

  /** One thing that is due. */
  async #work(held: HeldStandby, target: StandbyTarget, signal: AbortSignal): Promise<void> {
    const { record } = held
    if (record !== undefined && (!isWanted(held) || record.state === 'ending'))
      return await this.#end(held, target, signal)
    held.isAdvancing = true
    if (record?.next === undefined && !(await this.#choose(held))) return
    signal.throwIfAborted()
    const { clock, events } = this.#parts
    const startedMillis = clock.monotonicMillis()
    const { putSizeBytes } = await target.advance(this.#context(held, signal))
    held.putSizeBytes += putSizeBytes
    held.advanceCount++
    const next = held.record?.next
    await this.#settle(held, target)
    if (next !== undefined)
      events.standbyAdvanced(held.vpg, {
        ordinal: next,
        putSizeBytes,
        millis: clock.monotonicMillis() - startedMillis,
      })
  }

  /** False where there is nothing that the copies do not hold already. */
  async #choose(held: HeldStandby): Promise<boolean> {
    const { clock, newestOffloaded, target } = this.#parts
    const newest = await newestOffloaded(held.vpg)
    const { record } = held
    const copies = record === undefined ? [] : (target?.copies(record) ?? [])
    const included = newest?.volumes.filter(volume => volume.included) ?? []
    const isHeld = included.every(({ number }) =>
      copies.some(copy => copy.volume === number && copy.ordinal >= (newest?.ordinal ?? 0)),
    )
    if (newest === undefined || isHeld) {
      held.notBeforeMillis = clock.monotonicMillis() + Math.min(lookMillis, standbyIntervalMillisMin)
      return false
    }
    const begun: StandbyRecord = record ?? {
      ...{ formatVersion: 1, id: `s-${randomBytes(6).toString('hex')}`, checkpoints: [] },
      ...{ next: undefined, state: 'kept', memory: null },
    }
    const others = begun.checkpoints.filter(({ ordinal }) => ordinal < newest.ordinal)
    await this.#put(held, { ...begun, checkpoints: [...others, newest], next: newest.ordinal })
    return true
  }

  async #end(held: HeldStandby, target: StandbyTarget, signal: AbortSignal): Promise<void> {
    if (held.record === undefined) return
    if (held.record.state !== 'ending') await this.#put(held, { ...held.record, state: 'ending', next: undefined })
    signal.throwIfAborted()
    await target.end(this.#context(held, signal))
    await this.#put(held, undefined)
    this.#parts.events.standbyEnded(held.vpg)
  }

  /** What no copy holds is kept for them no more. */
  async #settle(held: HeldStandby, target: StandbyTarget): Promise<void> {
    if (held.record === undefined) return
    const copies = new Set(target.copies(held.record).map(({ ordinal }) => ordinal))
    const checkpoints = held.record.checkpoints.filter(({ ordinal }) => copies.has(ordinal))
    await this.#put(held, { ...held.record, checkpoints, next: undefined })
  }

  /** The next try is of another checkpoint: this one may be withdrawn, or AWS wants nothing more of it. */
  async #giveUpNext(held: HeldStandby): Promise<void> {
    const { target } = this.#parts
    if (target !== undefined && held.record?.next !== undefined) await this.#settle(held, target)
  }

  #context(held: HeldStandby, signal: AbortSignal): StandbyContext {
    return {
      get record() {
        return held.record!
      },
      definition: held.definition(),
      remember: async (memory: Json) => {
        if (held.record !== undefined) await this.#put(held, { ...held.record, memory })
      },
      signal,
    }
  }

  async #put(held: HeldStandby, standby: StandbyRecord | undefined): Promise<void> {
    await this.#parts.aging.putStandby({ vpg: held.vpg, standby })
    held.record = standby
  }
}

function intervalOf({ definition }: HeldStandby): number {
  return definition().standbyIntervalMillis ?? 0
}

function isWanted(held: HeldStandby): boolean {
  return intervalOf(held) > 0 && !held.isUnwanted
}
