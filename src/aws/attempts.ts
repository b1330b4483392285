import { onAbort } from '../base/abort.ts'
import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import { RetryBudget } from '../base/retry-budget.ts'
import type { Tries } from './creation.ts'
import { failureOfCall, isThrottle } from './failures.ts'

// The tries of calls are ours, not the SDK's: its own budget is spent by a hundred timeouts, and then every error surfaces at once.
//
// Each try after the first takes a token, ten calls that succeed give one back. With none left a failure goes to the caller, who waits at a pace of his
// own; or, where there are hundreds of a kind under way whose work would be lost, the try waits the longest delay: so a dead network is asked seldom.
// A throttle costs no token: the pace is what it asks for, see Pace.

const attemptsMax = 8
/** A throttle passes as soon as the pace is right. */
const throttledAttemptsMax = 60
const delayMillisFirst = 100
const delayMillisMax = 10_000
const budgetMax = 100

export type Send<T> = (signal: AbortSignal) => Promise<T>

export class Attempts {
  readonly #timeoutMillis: number
  readonly #clock: Clock
  readonly #budget = new RetryBudget(budgetMax)

  constructor(timeoutMillis: number, clock: Clock) {
    this.#timeoutMillis = timeoutMillis
    this.#clock = clock
  }

  /** For what may be done twice: tries again, with full jitter, whatever may pass. Fails as failureOfCall says. */
  async repeatable<T>(call: string, signal: AbortSignal, send: Send<T>): Promise<T> {
    return await this.repeat(() => this.once(call, signal, send), mayPass, 'fail', signal)
  }

  /** The same of something that is to be made: what its tries came to is known by them. */
  async creating<T>(call: string, tries: Tries, signal: AbortSignal, send: Send<T>): Promise<T> {
    return await this.repeat(() => tries.make(answer => this.once(call, answer, send)), mayPass, 'fail', signal)
  }

  /** The same of tries that bound their time themselves, and with another idea of what may pass. */
  async repeat<T>(
    attempt: () => Promise<T>,
    mayRepeat: (failure: Failure, attempt: number) => boolean,
    whenSpent: 'fail' | 'wait',
    signal: AbortSignal,
  ): Promise<T> {
    for (let count = 1, delayMillis = delayMillisFirst; ; count++, delayMillis *= 2) {
      signal.throwIfAborted()
      try {
        const result = await attempt()
        this.#budget.succeeded()
        return result
      } catch (error) {
        signal.throwIfAborted()
        if (!(error instanceof Failure) || !mayRepeat(error, count)) throw error
        if (error.reaction === 'retry' && !isThrottle(error) && !this.#budget.take()) {
          if (whenSpent === 'fail') throw error
          delayMillis = delayMillisMax
        }
      }
      await this.#clock.sleep(Math.random() * Math.min(delayMillis, delayMillisMax), signal)
    }
  }

  /** One try. Whoever does not answer in time is given up. */
  async once<T>(call: string, signal: AbortSignal, send: Send<T>): Promise<T> {
    signal.throwIfAborted()
    const ending = new AbortController()
    const forget = onAbort(signal, () => ending.abort())
    const takeBack = this.#clock.after(this.#timeoutMillis, () => ending.abort())
    try {
      return await send(ending.signal)
    } catch (error) {
      signal.throwIfAborted()
      if (ending.signal.aborted) throw timedOut(call, this.#timeoutMillis, error)
      throw failureOfCall(error, call)
    } finally {
      takeBack()
      forget()
    }
  }
}

export function mayPass(failure: Failure, attempt: number): boolean {
  return failure.reaction === 'retry' && attempt < (isThrottle(failure) ? throttledAttemptsMax : attemptsMax)
}

function timedOut(call: string, timeoutMillis: number, cause: unknown): Failure {
  const details = { call, errorCode: 'TimeoutError', timeoutMillis }
  return new Failure('CLOUD_UNAVAILABLE', `AWS did not answer ${call} in time`, details, { cause })
}
