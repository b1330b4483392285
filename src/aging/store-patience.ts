import type { Clock } from '../base/clock.ts'
import { Failure, failedWith } from '../base/failure.ts'
import { Waits } from '../base/waits.ts'

const delayMillisFirst = 200
const delayMillisMax = 15_000
/** So often in a row a store refuses one thing before whoever holds what others wait for lets them go first. */
const refusalsMax = 5
/** So long one thing fails that may pass, where the store answers others. */
const aloneMillisMax = 30_000
/** And so long where it is not known to answer anybody. */
const downMillisMax = 600_000

export interface PatienceHandlers {
  failing(sentence: string): void
  recovered(): void
  /** True where the store has answered others since then, who asked for the same. */
  answersOthers(sinceMillis: number): boolean
  /** It is not likely to answer soon: who waits on holds nothing, from here on, that others need. Told again and again. */
  stalled(): void
}

/** A way to wait out a store. */
export interface Patience {
  attempt<T>(attempt: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T>
}

/** Waits out a store that does not answer: every attempt of one VPG goes through one of these. */
export class StorePatience implements Patience {
  /**
   * For work that holds what other VPGs wait for: a store that is down is waited for, for it keeps everybody waiting; one that goes on refusing us, or
   * failing while it answers others, may do so for nothing but this. Then it fails with what isRefusal() knows, and others are to go first.
   */
  readonly brief: Patience = {
    attempt: (attempt, signal) =>
      this.#attempt(attempt, signal, failure => {
        const details = { ...failure.details, isGivenUp: true }
        throw new Failure('STORE_UNAVAILABLE', failure.message, details, { cause: failure })
      }),
  }
  readonly #clock: Clock
  readonly #handlers: PatienceHandlers
  /** Of attempts that wait to be made again. */
  readonly waits = new Waits()
  #failing: { readonly sinceMicros: number; readonly sentence: string } | undefined

  constructor(clock: Clock, handlers: PatienceHandlers) {
    this.#clock = clock
    this.#handlers = handlers
  }

  /** Undefined while the store answers. */
  get failing(): { readonly sinceMicros: number; readonly sentence: string } | undefined {
    return this.#failing
  }

  /**
   * Attempts until one succeeds or fails finally; tells when the store stops and starts answering. A store that refuses us
   * (credentials, permissions) is waited for like one that is down: a person mends that, and a commit of ours may be in doubt.
   */
  async attempt<T>(attempt: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
    return await this.#attempt(attempt, signal, () => this.#handlers.stalled())
  }

  async #attempt<T>(
    attempt: (signal: AbortSignal) => Promise<T>,
    signal: AbortSignal,
    stalled: (failure: Failure) => void,
  ): Promise<T> {
    let delayMillis = delayMillisFirst
    let refusedCount = 0
    let failingSinceMillis: number | undefined
    for (;;) {
      signal.throwIfAborted()
      try {
        const result = await attempt(signal)
        if (this.#failing !== undefined) {
          this.#failing = undefined
          this.#handlers.recovered()
        }
        return result
      } catch (error) {
        if (!(error instanceof Failure) || !mayPass(error) || signal.aborted) throw error
        this.#tellFailing(error.message)
        refusedCount = error.code === 'CONFIG_INVALID' ? refusedCount + 1 : 0
        failingSinceMillis ??= this.#clock.monotonicMillis()
        if (refusedCount >= refusalsMax || this.#isStalled(failingSinceMillis)) stalled(error)
      }
      const waitMillis = delayMillis * (0.5 + Math.random() / 2)
      await this.waits.during(waitMillis, this.#clock.sleep(waitMillis, signal))
      delayMillis = Math.min(2 * delayMillis, delayMillisMax)
    }
  }

  #isStalled(sinceMillis: number): boolean {
    const millis = this.#clock.monotonicMillis() - sinceMillis
    return millis >= downMillisMax || (millis >= aloneMillisMax && this.#handlers.answersOthers(sinceMillis))
  }

  #tellFailing(sentence: string): void {
    if (this.#failing !== undefined) return
    this.#failing = { sinceMicros: this.#clock.timestampMicros(), sentence }
    this.#handlers.failing(sentence)
  }
}

/** True of what a brief patience has given up. */
export function isRefusal(error: unknown): boolean {
  return failedWith(error, 'STORE_UNAVAILABLE') && error.details['isGivenUp'] === true
}

/** A store that refuses us is mended by a person, one that is down by itself: both are waited for. */
export function mayPass(failure: Failure): boolean {
  return failure.reaction === 'retry' || failure.code === 'CONFIG_INVALID'
}
