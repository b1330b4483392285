import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import { Waits } from '../base/waits.ts'

const delayMillisFirst = 200
const delayMillisMax = 15_000

export interface PatienceHandlers {
  failing(sentence: string): void
  recovered(): void
}

/** Waits out a store that does not answer: every attempt of one VPG goes through one of these. */
export class StorePatience {
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
    let delayMillis = delayMillisFirst
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
      }
      const waitMillis = delayMillis * (0.5 + Math.random() / 2)
      await this.waits.during(waitMillis, this.#clock.sleep(waitMillis, signal))
      delayMillis = Math.min(2 * delayMillis, delayMillisMax)
    }
  }

  #tellFailing(sentence: string): void {
    if (this.#failing !== undefined) return
    this.#failing = { sinceMicros: this.#clock.timestampMicros(), sentence }
    this.#handlers.failing(sentence)
  }
}

/** A store that refuses us is mended by a person, one that is down by itself: both are waited for. */
export function mayPass(failure: Failure): boolean {
  return failure.reaction === 'retry' || failure.code === 'CONFIG_INVALID'
}
