import { onAbort } from '../base/abort.ts'
import { AssertionFailed } from '../base/assert.ts'
import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import { RetryBudget } from '../base/retry-budget.ts'
import { KiB } from '../base/units.ts'
import type { PlaceConfig, StoreOperation } from './object-store.ts'
import { failureOfAttempt, surelyNeverSent } from './s3-failures.ts'
import { StoreLoad } from './store-load.ts'

// Every request is bounded in time and in tries.
//
// A budget shared by all requests of a store keeps tries from adding to the load of a server that is in trouble: each
// try after the first takes a token, ten requests that succeed give one back. With none left, failures go straight to
// the caller, who has a pace of his own. Where guests wait for a read (readPatienceMillis) it is not failed so soon: it then goes on at the longest delay.

const attemptsMax = 5
const delayMillisFirst = 50
const delayMillisMax = 5_000
const budgetMax = 50
/** A link slower than this counts as broken. One on which nothing moves is found out much sooner: the client ends it. */
const transferBytesPerMilliMin = (64 * KiB) / 1000

export interface SendOptions {
  readonly abortSignal: AbortSignal
  readonly requestTimeout: number
}

export interface Request {
  readonly operation: StoreOperation
  readonly key: string
  /** Of the body that is sent, or the range that is asked for. */
  readonly sizeBytes: number
}

type S3Patience = Pick<
  Extract<PlaceConfig, { kind: 's3' }>,
  'requestTimeoutMillis' | 'readPatienceMillis' | 'sharedLoad'
>

type Send<T> = (options: SendOptions) => Promise<T>

export class Attempts {
  readonly #requestTimeoutMillis: number
  readonly #readPatienceMillis: number
  readonly #clock: Clock
  readonly #underWay = new Set<AbortController>()
  #closed = false
  readonly load: StoreLoad
  readonly #budget = new RetryBudget(budgetMax)

  constructor({ requestTimeoutMillis, readPatienceMillis = 0, sharedLoad }: S3Patience, clock: Clock) {
    this.#requestTimeoutMillis = requestTimeoutMillis
    this.#readPatienceMillis = readPatienceMillis
    this.load = new StoreLoad(sharedLoad)
    this.#clock = clock
  }

  /** For what may be done twice. Tries again, with jitter, whatever may pass. */
  async repeatable<T>(request: Request, signal: AbortSignal, send: Send<T>): Promise<T> {
    return await this.#try(request, signal, send, failure => failure.reaction === 'retry')
  }

  /** Tries again only what surely never reached a server. */
  async create<T>(request: Request, signal: AbortSignal, send: Send<T>): Promise<T> {
    return await this.#try(request, signal, send, surelyNeverSent)
  }

  /** Ends what is under way with CLOSING. */
  close(): void {
    this.#closed = true
    for (const ending of this.#underWay) ending.abort()
  }

  async #try<T>(
    request: Request,
    signal: AbortSignal,
    send: Send<T>,
    mayRepeat: (failure: Failure) => boolean,
  ): Promise<T> {
    const patienceMillis = request.operation === 'read' ? this.#readPatienceMillis : 0
    const deadlineMillis = this.#clock.monotonicMillis() + patienceMillis
    for (let attempt = 1, delayMillis = delayMillisFirst; ; attempt++, delayMillis *= 2) {
      try {
        const result = await this.load.underWay(() => this.#once(request, signal, send))
        this.#budget.succeeded()
        return result
      } catch (error) {
        if (!(error instanceof Failure)) throw error
        this.load.note(request.operation, error, this.#clock.timestampMicros())
        if (!mayRepeat(error)) throw error
        if (attempt >= attemptsMax || !this.#budget.take()) {
          if (this.#clock.monotonicMillis() >= deadlineMillis) throw error
          delayMillis = delayMillisMax
        }
      }
      const waitMillis = Math.random() * Math.min(delayMillis, delayMillisMax)
      await this.load.during(waitMillis, this.#wait(waitMillis, signal))
    }
  }

  async #wait(millis: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    const ending = new AbortController()
    const forget = onAbort(signal, () => ending.abort())
    this.#underWay.add(ending)
    try {
      await this.#clock.sleep(millis, ending.signal)
    } catch (error) {
      signal.throwIfAborted()
      this.#checkOpen()
      throw error
    } finally {
      forget()
      this.#underWay.delete(ending)
    }
  }

  /** One request, body and all. A peer that goes silent at any point of it is given up when the time is over. */
  async #once<T>({ operation, key, sizeBytes }: Request, signal: AbortSignal, send: Send<T>): Promise<T> {
    signal.throwIfAborted()
    this.#checkOpen()
    const timeoutMillis = this.#requestTimeoutMillis + sizeBytes / transferBytesPerMilliMin
    const ending = new AbortController()
    const end = (): void => ending.abort()
    const forget = onAbort(signal, end)
    this.#underWay.add(ending)
    const timer = setTimeout(end, timeoutMillis)
    try {
      return await send({ abortSignal: ending.signal, requestTimeout: timeoutMillis })
    } catch (error) {
      signal.throwIfAborted()
      this.#checkOpen()
      if (error instanceof AssertionFailed) throw error
      if (ending.signal.aborted) throw timedOut(key, timeoutMillis, error)
      const failure = failureOfAttempt(error, key)
      throw isNonsense(operation, failure) ? nonsense(operation, failure) : failure
    } finally {
      clearTimeout(timer)
      forget()
      this.#underWay.delete(ending)
    }
  }

  #checkOpen(): void {
    if (this.#closed) throw new Failure('CLOSING', 'the object store is closed')
  }
}

/** What is listed or created need not be there: only something between us and the store says that it is not. (That the bucket is missing has a name.) */
function isNonsense(operation: StoreOperation, failure: Failure): boolean {
  return failure.code === 'NOT_FOUND' && (operation === 'list' || operation === 'create')
}

function nonsense(operation: StoreOperation, { details, cause }: Failure): Failure {
  const sentence = `the object store's answer makes no sense (404 to a ${operation})`
  return new Failure('STORE_UNAVAILABLE', sentence, details, { cause })
}

function timedOut(key: string, timeoutMillis: number, cause: unknown): Failure {
  const details = { key, errorCode: 'TimeoutError', timeoutMillis: Math.round(timeoutMillis) }
  return new Failure('STORE_UNAVAILABLE', 'the object store did not answer in time', details, { cause })
}
