import { onAbort } from '../base/abort.ts'
import type { Clock } from '../base/clock.ts'
import { Failure, failureToRecord } from '../base/failure.ts'
import type { VpgId } from '../base/ids.ts'
import { recoveryAttemptsMax } from '../base/limits.ts'
import { Permits } from '../base/permits.ts'
import { retry } from '../base/retry.ts'
import type { Aging } from '../aging/aging.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { VpgDefinition } from '../timeline/definition.ts'
import { hasEnded, type DrillResult, type RecoveryRecord, type RecoveryState } from '../timeline/recovery.ts'
import { policyEnd, requireDecidable, type Decision, type PolicyEnd } from './decisions.ts'
import type { RecoveryEvents } from './events.ts'
import type { RecoveryTarget, TargetContext } from './target.ts'

const pauseMillisFirst = 1_000
const pauseMillisMax = 60_000
/** Who decides waits no longer for the store to take the decision; it is taken all the same. */
const decisionMillisMax = 20_000

export interface Waiting {
  readonly signal: AbortSignal
  /** Told, as a sentence, what it takes so long for. */
  readonly waitsFor: (sentence: string) => void
}

/** Who writes the VPG: its agents. All of it is for a recovery, by its id, and durable on return; called again it goes on, or says the same. */
export interface Writers {
  /**
   * On return no agent of the VPG takes a write of its guests any more, not even after it was restarted, and this checkpoint is complete and the last: it
   * has all of them.
   */
  drain(vpg: VpgId, by: string, waiting: Waiting): Promise<Checkpoint>
  /** They take writes again, as soon as they hear of it; also where drain() never began. */
  undrain(vpg: VpgId, by: string): Promise<void>
  /**
   * The machines are the recovered ones from now on: an agent of a former incarnation is refused for good, and where they run a new one
   * protects them.
   */
  handOver(vpg: VpgId, incarnation: number): Promise<void>
}

export interface RunParts {
  readonly vpg: VpgId
  readonly aging: Pick<Aging, 'putRecovery' | 'openImage' | 'closeImage'>
  readonly clock: Clock
  readonly target: RecoveryTarget
  readonly writers: Writers
  readonly definition: () => VpgDefinition
  readonly events: RecoveryEvents
  /** Every record that is durable. */
  readonly recorded: (record: RecoveryRecord) => void
}

export interface VolumeProgress {
  readonly volume: number
  readonly doneBytes: number
  readonly totalBytes: number
  readonly etaMillis: number | undefined
}

type Patch = Partial<RecoveryRecord>

/** One recovery in this process: does what its state says is to be done, and has every state durable before the next is begun. */
export class Run {
  readonly #parts: RunParts
  readonly #closing = new AbortController()
  /** One record is put at a time, so that the last one that is asked for is the last in the store. */
  readonly #putting = new Permits(1)
  readonly #progress = new Map<
    number,
    { doneBytes: number; totalBytes: number; fromBytes: number; fromMillis: number }
  >()
  readonly #waiting = new Set<() => void>()
  #record: RecoveryRecord
  /** What lives in the process is there. */
  #isLive: boolean
  /** Another process made it ready. */
  readonly #isFoundReady: boolean
  #step = new AbortController()
  /** Decided, and not in the record yet. */
  #wanted: 'committing' | 'removing' | undefined
  /** What came of a drill, until it is in the record. */
  #drillResult: DrillResult | undefined
  #trouble: string | undefined
  /** As this process found it ready, and from which moment it counts. */
  #policy: { readonly end: PolicyEnd; readonly atMicros: number } | undefined
  /** Why it goes no further in this process. */
  #ended: Failure | undefined
  #done: Promise<void> = Promise.resolve()

  constructor(parts: RunParts, record: RecoveryRecord, origin: 'begun-now' | 'found') {
    this.#parts = parts
    this.#record = record
    this.#isLive = origin === 'begun-now'
    this.#isFoundReady = record.state === 'ready'
  }

  get record(): RecoveryRecord {
    return this.#record
  }

  /** It does not get on at this moment, and is tried again: why. */
  get trouble(): string | undefined {
    return this.#trouble
  }

  /** When the commit policy takes effect, by the clock of the wall; undefined where it does not, or the recovery is not ready. */
  get policy(): { readonly atMicros: number; readonly isPutOff: boolean } | undefined {
    if (this.#record.state !== 'ready' || this.#policy === undefined) return undefined
    return { atMicros: this.#policy.atMicros, isPutOff: this.#policy.end.isPutOff }
  }

  progress(): VolumeProgress[] {
    const nowMillis = this.#parts.clock.monotonicMillis()
    return [...this.#progress].map(([volume, { doneBytes, totalBytes, fromBytes, fromMillis }]) => {
      const moved = doneBytes - fromBytes
      const etaMillis = moved > 0 ? ((totalBytes - doneBytes) * (nowMillis - fromMillis)) / moved : undefined
      return { volume, doneBytes, totalBytes, etaMillis }
    })
  }

  begin(): void {
    this.#done = this.#goOn().catch((error: unknown) => {
      this.#ended = asFailure(error)
      if (this.#ended.code !== 'CLOSING') this.#tell(this.#ended)
      this.#wake()
    })
  }

  /** On return the decision is durable. Fails as requireDecidable does; STORE_UNAVAILABLE where it is not taken soon: it will be. */
  async decide(decision: Decision): Promise<void> {
    const isServedOn = this.#parts.target.endService !== undefined
    requireDecidable(this.#record, decision, { trouble: this.#trouble, isServedOn })
    if (this.#record.state === 'committed') return await this.#endService()
    if (this.#ended !== undefined) throw this.#ended
    const { id } = this.#record
    if (this.#wanted !== undefined) throw new Failure('BUSY', `another decision on recovery ${id} is under way`)
    this.#wanted = decision === 'commit' ? 'committing' : 'removing'
    this.#step.abort(decidedOtherwise)
    await this.#untilTaken()
    const { state } = this.#record
    const isTaken = decision === 'commit' ? commitStates.includes(state) : removalStates.includes(state)
    if (!isTaken) throw new Failure('BUSY', `recovery ${id} is ${state} meanwhile: that was decided first`)
  }

  /** Durable on return, and not served any more. */
  async #endService(): Promise<void> {
    this.#step.abort(decidedOtherwise)
    await this.#done // it may be about to be served again
    this.#closing.signal.throwIfAborted()
    await this.#put({ isServiceEnded: true })
    await this.#parts.target.endService?.(this.#context(this.#closing.signal))
    this.#trouble = undefined
  }

  /** On return the result is durable, and the removal begins. Fails BUSY where it has ended already, or is to. */
  async endDrill(result: DrillResult): Promise<void> {
    const { id, state } = this.#record
    if (this.#wanted !== undefined || this.#drillResult !== undefined || removalStates.includes(state))
      throw new Failure('BUSY', `drill ${id} has ended already, or is being ended`)
    this.#drillResult = result
    await this.decide('stop')
  }

  /** Stops between two steps; the next process goes on there. */
  async close(): Promise<void> {
    this.#closing.abort(new Failure('CLOSING', 'the daemon ends; the next one goes on with it'))
    this.#step.abort(this.#closing.signal.reason)
    await this.#done
  }

  async #goOn(): Promise<void> {
    if (!this.#isLive) await this.#interruptDrill()
    while (!hasEnded(this.#record)) {
      this.#closing.signal.throwIfAborted()
      this.#step = new AbortController()
      if (this.#wanted !== undefined) this.#step.abort(decidedOtherwise)
      const patch = await this.#next(this.#step.signal)
      await this.#put(patch.state === 'removing' ? this.#withDrillResult(patch) : patch)
      this.#trouble = undefined
      // What was decided meanwhile is done, or has come too late; decide() looks which.
      if (patch.state === this.#wanted || patch.state === 'removing' || hasEnded(this.#record)) this.#wanted = undefined
      this.#wake()
    }
    // Where a process before had committed it, nobody serves it in this one yet.
    if (this.#record.state === 'committed' && this.#record.isServiceEnded !== true)
      await this.#resume(this.#step.signal)
    this.#progress.clear()
  }

  /** Whoever ran its check went with the process before. */
  async #interruptDrill(): Promise<void> {
    if (this.#record.drill === undefined || removalStates.includes(this.#record.state)) return
    this.#drillResult = { outcome: 'interrupted' }
    await this.#put(this.#withDrillResult({ state: 'removing' }))
  }

  /** What is removed has come to an end in the same step. */
  #withDrillResult(patch: Patch): Patch {
    const { drill } = this.#record
    if (drill === undefined || drill.result !== undefined) return patch
    const result = this.#drillResult ?? { outcome: patch.failure === undefined ? 'stopped' : 'not-recovered' }
    return { ...patch, drill: { ...drill, result } }
  }

  /** What the record says next, when what its state stands for is done. */
  async #next(signal: AbortSignal): Promise<Patch> {
    const { clock } = this.#parts
    switch (this.#record.state) {
      case 'draining':
        return await this.#attempted(signal, () => this.#drained(signal))
      case 'preparing':
        return await this.#attempted(signal, () => this.#prepared(signal))
      case 'ready':
        return await this.#decided(signal)
      case 'committing': {
        if (this.#isUnwanted() && !this.#isHandingOver) return { state: 'removing' }
        const isDone = await this.#insisting(signal, each => this.#committed(each))
        return isDone ? { state: 'committed', endedAtMicros: clock.timestampMicros() } : { state: 'removing' }
      }
      case 'removing':
        await this.#insisting(signal, each => this.#removed(each))
        return { state: 'removed', memory: null, endedAtMicros: clock.timestampMicros() }
      case 'committed':
      case 'removed':
        return {}
    }
  }

  async #drained(signal: AbortSignal): Promise<Patch> {
    const { writers, vpg, definition } = this.#parts
    const waitsFor = (sentence: string): void => void (this.#trouble = sentence)
    const checkpoint = await writers.drain(vpg, this.#record.id, { signal, waitsFor })
    const recovered = this.#record.vms.flatMap(({ volumes }) => volumes)
    const isIncluded = (number: number): boolean =>
      checkpoint.volumes.some(volume => volume.number === number && volume.included)
    const lost = definition().volumes.find(({ number }) => !recovered.includes(number) || !isIncluded(number))
    if (lost !== undefined)
      throw new Failure(
        'REQUEST_INVALID',
        `the last checkpoint cannot have "${lost.name}" recovered, which is not synchronised, or was added meanwhile: move when it is`,
      )
    return { state: 'preparing', checkpoint }
  }

  async #prepared(signal: AbortSignal): Promise<Patch> {
    await this.#parts.target.prepare(this.#context(signal))
    this.#isLive = true
    const readyAtMicros = this.#parts.clock.timestampMicros()
    return { state: this.#record.kind === 'clone' ? 'committing' : 'ready', readyAtMicros }
  }

  /** Somebody has decided meanwhile that it is to go. */
  #isUnwanted(): boolean {
    return this.#wanted === 'removing'
  }

  /**
   * What may pass is tried again: of a test some times, else until it passes, for in a disaster hours of copying are not thrown away because the cloud is
   * short of machines. All else undoes what there is of it, and so does whoever cancels it.
   */
  async #attempted(signal: AbortSignal, work: () => Promise<Patch>): Promise<Patch> {
    for (let attempt = 1; ; attempt++) {
      if (this.#isUnwanted()) return { state: 'removing' }
      try {
        const patch = await work()
        return this.#isUnwanted() ? { state: 'removing' } : patch
      } catch (error) {
        this.#closing.signal.throwIfAborted()
        if (this.#isUnwanted()) continue
        const failure = asFailure(error)
        const mayPass = failure.reaction === 'retry' && failure.code !== 'DISK_FAILED'
        const isOver = this.#record.kind === 'test' && attempt >= recoveryAttemptsMax
        if (!mayPass || isOver) return { state: 'removing', failure: failureToRecord(failure) }
        this.#tell(failure)
        await this.#pause(attempt, signal)
      }
    }
  }

  async #removed(signal: AbortSignal): Promise<void> {
    const { target, writers, vpg } = this.#parts
    await target.remove(this.#context(signal))
    if (this.#record.kind === 'move') await writers.undrain(vpg, this.#record.id)
  }

  async #committed(signal: AbortSignal): Promise<void> {
    const { target, writers, vpg } = this.#parts
    const { incarnation } = this.#record
    if (!this.#isHandingOver) await target.commit(this.#context(signal))
    else await this.#serveMeanwhile(signal)
    if (this.#record.handOver === 'none') return
    // From here on there is no way back: agents of before may have been refused already.
    if (!this.#isHandingOver) {
      if (this.#isUnwanted()) throw decidedOtherwise
      await this.#put({ handOver: 'begun' })
    }
    await writers.handOver(vpg, incarnation + 1)
  }

  /** A process before has committed it: its machines have nothing else, and are not to wait for the store. */
  async #serveMeanwhile(signal: AbortSignal): Promise<void> {
    if (this.#isLive) return
    try {
      await this.#parts.target.resume(this.#context(signal))
      this.#isLive = true
    } catch (error) {
      this.#closing.signal.throwIfAborted()
      this.#tell(asFailure(error)) // when it is handed over it is tried again, until it is served
    }
  }

  get #isHandingOver(): boolean {
    return this.#record.handOver === 'begun'
  }

  /** Until it is done; false where another decision has come instead. What is committed or removed must not be left half so. */
  async #insisting(signal: AbortSignal, work: (signal: AbortSignal) => Promise<void>): Promise<boolean> {
    for (let attempt = 1; ; attempt++) {
      try {
        await work(signal)
        return true
      } catch (error) {
        this.#closing.signal.throwIfAborted()
        const failure = asFailure(error)
        if (failure.reaction === 'stand-down') throw failure
        if (this.#isUnwanted() && !this.#isHandingOver) return false
        this.#tell(failure)
        await this.#pause(attempt, signal)
        this.#closing.signal.throwIfAborted()
        if (this.#isUnwanted() && !this.#isHandingOver) return false
      }
    }
  }

  /** Waits for a person, or for the commit policy. Meanwhile what lives in the process is brought up where it is not there. */
  async #decided(signal: AbortSignal): Promise<Patch> {
    const resuming = this.#resume(signal)
    const { clock } = this.#parts
    const nowMicros = clock.timestampMicros()
    const end = policyEnd(this.#record, nowMicros, this.#isFoundReady ? 'found-ready' : 'ready-now')
    if (end === undefined) await aborted(signal)
    else {
      this.#policy = { end, atMicros: nowMicros + Math.round(end.inMillis * 1000) }
      await clock.sleep(end.inMillis, signal).catch(() => undefined)
    }
    this.#closing.signal.throwIfAborted()
    this.#step.abort(decidedOtherwise)
    await resuming
    return { state: this.#wanted ?? end?.state ?? 'removing' }
  }

  async #resume(signal: AbortSignal): Promise<void> {
    for (let attempt = 1; !this.#isLive && !signal.aborted; attempt++) {
      try {
        await this.#parts.target.resume(this.#context(signal))
        this.#isLive = true
        this.#trouble = undefined
      } catch (error) {
        if (signal.aborted) return
        this.#tell(asFailure(error))
        await this.#pause(attempt, signal)
      }
    }
  }

  #context(signal: AbortSignal): TargetContext {
    const { vpg, aging, definition } = this.#parts
    const record = (): RecoveryRecord => this.#record
    return {
      get record() {
        return record()
      },
      get definition() {
        return definition()
      },
      remember: memory => this.#put({ memory }),
      openPlan: async () => {
        const { id, checkpoint } = this.#record
        if (checkpoint === undefined) throw new Failure('CHECKPOINT_MISSING', `recovery ${id} has no checkpoint yet`)
        return await aging.openImage({ vpg, checkpoint, owner: `recovery ${id}` })
      },
      release: plan => aging.closeImage({ vpg, pinId: plan.pinId }),
      progress: (volume, doneBytes, totalBytes) => this.#note(volume, doneBytes, totalBytes),
      signal,
    }
  }

  #note(volume: number, doneBytes: number, totalBytes: number): void {
    const known = this.#progress.get(volume)
    const from = known ?? { fromBytes: doneBytes, fromMillis: this.#parts.clock.monotonicMillis() }
    this.#progress.set(volume, { fromBytes: from.fromBytes, fromMillis: from.fromMillis, doneBytes, totalBytes })
  }

  /** Durable on return; tried until the store takes it. */
  async #put(patch: Patch): Promise<void> {
    const { aging, clock, vpg, events, recorded } = this.#parts
    await this.#putting.with(async () => {
      const record = { ...this.#record, ...patch }
      const put = async (): Promise<void> => {
        try {
          await aging.putRecovery({ vpg, record, isNew: false })
        } catch (error) {
          const failure = asFailure(error)
          if (failure.reaction === 'retry') this.#tell(failure)
          throw failure
        }
      }
      const patience = { delayMillisFirst: 500, delayMillisMax: 10_000, deadlineMillis: Infinity }
      await retry(put, patience, clock, this.#closing.signal)
      this.#record = record
      recorded(record)
      if (patch.state !== undefined) events.recoveryChanged(vpg, record)
    })
  }

  #tell(failure: Failure): void {
    if (this.#trouble === failure.message) return
    this.#trouble = failure.message
    this.#parts.events.recoveryInTrouble(this.#parts.vpg, this.#record, failure.message)
  }

  /** Before the next attempt; shorter when there is something else to do. */
  async #pause(attempt: number, signal: AbortSignal): Promise<void> {
    const millis = Math.min(pauseMillisMax, pauseMillisFirst * 2 ** Math.min(attempt - 1, 10))
    await this.#parts.clock.sleep(millis * (0.5 + Math.random() / 2), signal).catch(() => undefined)
  }

  async #untilTaken(): Promise<void> {
    const late = new AbortController()
    const tooLate = this.#parts.clock.sleep(decisionMillisMax, late.signal).then(
      () => 'late' as const,
      () => 'changed' as const,
    )
    const changed = (async () => {
      while (this.#wanted !== undefined && this.#ended === undefined && !late.signal.aborted)
        await new Promise<void>(resolve => this.#waiting.add(resolve))
      return 'changed' as const
    })()
    const outcome = await Promise.race([tooLate, changed])
    late.abort()
    this.#wake()
    if (outcome === 'late')
      throw new Failure(
        'STORE_UNAVAILABLE',
        `recovery ${this.#record.id} has been told, and goes on when it can: ${this.#trouble ?? 'it ends what it is doing first'}`,
      )
    if (this.#wanted !== undefined && this.#ended !== undefined) throw this.#ended
  }

  #wake(): void {
    for (const wake of this.#waiting) wake()
    this.#waiting.clear()
  }
}

const commitStates: readonly RecoveryState[] = ['committing', 'committed']
const removalStates: readonly RecoveryState[] = ['removing', 'removed']

const decidedOtherwise = new Failure('CLOSING', 'the recovery is to end otherwise')

/** Whatever a target failed with ends at its recovery: protection goes on. */
function asFailure(error: unknown): Failure {
  if (error instanceof Failure) return error
  return new Failure(
    'REQUEST_INVALID',
    `it failed in a way that nobody expected: ${String(error)}`,
    {},
    { cause: error },
  )
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await new Promise<void>(resolve => onAbort(signal, resolve))
}
