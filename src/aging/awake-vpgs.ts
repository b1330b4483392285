import type { Clock } from '../base/clock.ts'
import { Permits } from '../base/permits.ts'

// The contents of a VPG's manifest grow with its history, and all VPGs' together with their number. So a VPG sleeps while nobody needs them: its newest
// segments go to the store all the same, and the rest is read again when it wakes.
//
//   asleep ──a merge may be due, a person or an image asks──> awake ──nobody uses it, and others need the room──> asleep
//
// Those that were used last stay awake, up to a size. What is in use stays whatever the size.

/** So many are read at once. */
const wakingAtOnce = 2

/** After the first look at a VPG the next one waits so many times as long as that took: of a start with very many nobody should notice. */
const restPerLook = 9
const restMillisMax = 30_000

/** A VPG that can let go of its contents. */
export interface Sleeper {
  /** About what it takes while it is awake. */
  readonly awakeSizeBytes: number
  /** False where it has to stay awake. */
  sleep(): boolean
}

export class AwakeVpgs {
  readonly #sizeBytesMax: number
  readonly #waking = new Permits(wakingAtOnce)
  readonly #merging = new Permits(wakingAtOnce)
  /** With their sizes; least recently used first. */
  readonly #awake = new Map<Sleeper, number>()
  readonly #clock: Clock
  #sizeBytes = 0
  #isLooking = false
  #nextLookMillis = 0

  constructor(sizeBytesMax: number, clock: Clock) {
    this.#sizeBytesMax = sizeBytesMax
    this.#clock = clock
  }

  /** Reads the contents of one that sleeps. */
  async waking<T>(wake: () => Promise<T>): Promise<T> {
    return await this.#waking.with(wake)
  }

  /** Work that wakes VPGs only to see what is due: few at a time. */
  async inTurn<T>(work: () => Promise<T>): Promise<T> {
    return await this.#merging.with(work)
  }

  /**
   * The first look of this process at a VPG that sleeps and is not known to need one, one VPG at a time and none soon after another. Undefined where it is
   * not the time for it.
   */
  async firstLook<T>(look: () => Promise<T>): Promise<T | undefined> {
    const startMillis = this.#clock.monotonicMillis()
    if (this.#isLooking || startMillis < this.#nextLookMillis) return undefined
    this.#isLooking = true
    try {
      return await this.inTurn(look)
    } finally {
      const endMillis = this.#clock.monotonicMillis()
      this.#nextLookMillis = endMillis + Math.min(restMillisMax, restPerLook * (endMillis - startMillis))
      this.#isLooking = false
    }
  }

  /** It is awake, and was in use until now. */
  used(vpg: Sleeper): void {
    this.forget(vpg)
    const ownSizeBytes = vpg.awakeSizeBytes
    this.#awake.set(vpg, ownSizeBytes)
    this.#sizeBytes += ownSizeBytes
    for (const each of this.#awake.keys()) {
      if (this.#sizeBytes <= this.#sizeBytesMax) break
      if (each.sleep()) this.forget(each)
    }
  }

  forget(vpg: Sleeper): void {
    this.#sizeBytes -= this.#awake.get(vpg) ?? 0
    this.#awake.delete(vpg)
  }
}
