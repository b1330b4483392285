import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'

/** How long a start waits for a store that has not failed, and not said all that is asked of it. */
const patienceMillis = 20_000
/** A store that fails is given so long before it counts as away: a start need not go on without one that stumbles. */
const graceMillis = 3_000
const delayMillisFirst = 200
const delayMillisMax = 5_000

/** The store does not answer, since when, and why: a sentence. */
export interface StoreAway {
  readonly sinceMicros: number
  readonly sentence: string
  /** True where it answers, and there is only much to read. */
  readonly isBusy?: boolean
}

export interface OpeningOptions<T> {
  /** Goes on, when it is called again, from what it has. */
  readonly attempt: (signal: AbortSignal) => Promise<T>
  /** Whether a failure is one to wait for; any other is final. */
  readonly mayPass: (failure: Failure) => boolean
  /** How far an attempt is, in words; undefined where it has nothing yet. */
  readonly progress?: () => string | undefined
  /** Told when the store is found away, and again when it says something else. */
  readonly onAway: (away: StoreAway) => void
  readonly clock: Clock
  readonly signal: AbortSignal
}

/** Opens what a start needs of the store, for as long as that takes; whoever starts need not wait for it. */
export class StoreOpening<T> {
  /** Resolves when it is open; rejects with what is final. */
  readonly done: Promise<T>
  readonly #options: OpeningOptions<T>
  #away: StoreAway | undefined
  #lastProgress: string | undefined
  #tellFirst: () => void = () => undefined

  constructor(options: OpeningOptions<T>) {
    this.#options = options
    this.done = this.#run()
    this.done.catch(() => undefined) // whoever closes it first does not wait for it
  }

  /** Undefined while nothing has failed. */
  get away(): StoreAway | undefined {
    return this.#away
  }

  /** Resolves with what is open, or with undefined as soon as the store is found away. Rejects with what is final. */
  async first(): Promise<T | undefined> {
    const timer = new AbortController()
    const found = new Promise<undefined>(resolve => (this.#tellFirst = () => resolve(undefined)))
    if (this.#away !== undefined) this.#tellFirst()
    const stop = (): void => timer.abort()
    this.done.then(stop, stop)
    const told = this.#tellWhileItLasts(timer.signal)
    const first = await Promise.race([this.done, found])
    if (this.#away?.isBusy === true) return first
    stop()
    await told
    return first
  }

  /** As long as an attempt gets further it is not the store that is amiss. */
  async #tellWhileItLasts(signal: AbortSignal): Promise<void> {
    for (;;) {
      const expired = await this.#options.clock.sleep(patienceMillis, signal).then(
        () => true,
        () => false,
      )
      if (!expired) return
      const progress = this.#options.progress?.()
      const isBusy = progress !== this.#lastProgress
      this.#lastProgress = progress
      if (isBusy && progress !== undefined) this.#tellAway(progress, isBusy)
      else this.#tellAway(`it has not answered in full for ${patienceMillis / 1000} s`)
    }
  }

  async #run(): Promise<T> {
    const { attempt, mayPass, clock, signal } = this.#options
    const startMillis = clock.monotonicMillis()
    for (let delayMillis = delayMillisFirst; ; delayMillis = Math.min(2 * delayMillis, delayMillisMax)) {
      signal.throwIfAborted()
      try {
        return await attempt(signal)
      } catch (error) {
        if (!(error instanceof Failure) || signal.aborted || !mayPass(error)) throw error
        if (clock.monotonicMillis() - startMillis >= graceMillis) this.#tellAway(error.message)
      }
      await clock.sleep(delayMillis * (0.5 + Math.random() / 2), signal)
    }
  }

  #tellAway(sentence: string, isBusy = false): void {
    if (this.#away?.sentence === sentence) return
    const sinceMicros = this.#away?.sinceMicros ?? this.#options.clock.timestampMicros()
    this.#away = { sinceMicros, sentence, ...(isBusy ? { isBusy } : {}) }
    this.#options.onAway(this.#away)
    this.#tellFirst()
  }
}
