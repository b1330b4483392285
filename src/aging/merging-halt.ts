import type { Clock } from '../base/clock.ts'
import type { Failure } from '../base/failure.ts'

/** Damage is mended by a person, or by the store itself; a look reads an object, or all of a manifest. */
const delayMillisFirst = 60_000
const delayMillisMax = 3_600_000

/** Damage that keeps a VPG from being merged: looked at again and again, ever more seldom, or as soon as somebody finds it whole, until it is not there any more. */
export class MergingHalt {
  readonly #clock: Clock
  #failure: Failure | undefined
  #keepsAsleep = false
  #delayMillis = delayMillisFirst
  #againMillis = 0
  /** What was told of it: sentences that name the objects. */
  readonly #told = new Set<string>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Undefined where nothing halts. */
  get failure(): Failure | undefined {
    return this.#failure
  }

  get told(): readonly string[] {
    return [...this.#told]
  }

  /** False where nothing halts, too. */
  get isLookDue(): boolean {
    return this.#failure !== undefined && this.#clock.monotonicMillis() >= this.#againMillis
  }

  /** True where it is to be told: it was not met before. `keepsAsleep` of what the contents cannot be read without. */
  meet(failure: Failure, { keepsAsleep }: { readonly keepsAsleep: boolean }): boolean {
    this.#keepsAsleep = keepsAsleep
    if (this.#failure === undefined) this.#againMillis = this.#clock.monotonicMillis() + this.#delayMillis
    else this.putOff()
    this.#failure ??= failure
    if (this.#told.has(failure.message)) return false
    this.#told.add(failure.message)
    return true
  }

  /** A look has found it damaged. Whoever asks between two looks puts off nothing. */
  putOff(): void {
    if (!this.isLookDue) return
    this.#delayMillis = Math.min(delayMillisMax, 2 * this.#delayMillis)
    this.#againMillis = this.#clock.monotonicMillis() + this.#delayMillis
  }

  /** The contents were read. */
  woken(): void {
    if (this.#keepsAsleep) this.#againMillis = 0
  }

  /** Somebody has read the object, and it is whole. */
  foundWhole(key: string): void {
    if (this.told.some(sentence => sentence.includes(key))) this.#againMillis = 0
  }

  /** It is not there any more. */
  end(): void {
    this.#told.clear()
    this.#failure = undefined
    this.#keepsAsleep = false
    this.#delayMillis = delayMillisFirst
  }
}
