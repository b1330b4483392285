import { Permits } from '../base/permits.ts'

// The contents of a VPG's manifest grow with its history, and all VPGs' together with their number. So a VPG sleeps while nobody needs them: its newest
// segments go to the store all the same, and the rest is read again when it wakes.
//
//   asleep ──a merge may be due, a person or an image asks──> awake ──nobody uses it, and others need the room──> asleep
//
// Those that were used last stay awake, up to a size. What is in use stays whatever the size.

/** So many are read at once. */
const wakingAtOnce = 2

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
  #sizeBytes = 0

  constructor(sizeBytesMax: number) {
    this.#sizeBytesMax = sizeBytesMax
  }

  /** Reads the contents of one that sleeps. */
  async waking<T>(wake: () => Promise<T>): Promise<T> {
    return await this.#waking.with(wake)
  }

  /** Work that wakes VPGs only to see what is due: few at a time. */
  async inTurn<T>(work: () => Promise<T>): Promise<T> {
    return await this.#merging.with(work)
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
