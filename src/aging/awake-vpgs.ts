import { assert } from '../base/assert.ts'
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

/** So many VPGs stand aside whatever their size. */
const asideMin = 2

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
  /** Of work in its turn: lets others have that. */
  readonly #leave = new Map<Sleeper, () => void>()
  /** Whose work has let others have its turn, and waits for the store. */
  readonly #aside = new Set<Sleeper>()
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

  /** Work that wakes a VPG only to see what is due: few at a time, beside those that stand aside. `left` is called when others can have the turn. */
  async inTurn<T>(vpg: Sleeper, work: () => Promise<T>, left: () => void = () => undefined): Promise<T> {
    let working: Promise<T> | undefined
    await this.#merging.with(async () => {
      working = work()
      const aside = new Promise<void>(resolve => this.#leave.set(vpg, resolve))
      const ended = working.then(
        () => this.#ended(vpg),
        () => this.#ended(vpg),
      )
      await Promise.race([ended, aside])
      left()
    })
    assert(working !== undefined, 'it had its turn')
    return await working
  }

  #ended(vpg: Sleeper): void {
    this.#leave.delete(vpg)
    this.#aside.delete(vpg)
  }

  /**
   * What is done for the VPG in its turn, if anything is, waits for a store that answers others: these go on. It stays awake, so only a few do that, or as
   * many as there is room for.
   */
  standAside(vpg: Sleeper): void {
    const leave = this.#leave.get(vpg)
    if (leave === undefined || this.#aside.has(vpg)) return
    const sizeBytes = [...this.#aside, vpg].reduce((sum, each) => sum + each.awakeSizeBytes, 0)
    if (this.#aside.size >= asideMin && sizeBytes > this.#sizeBytesMax) return
    this.#aside.add(vpg)
    leave()
  }

  /**
   * The first look of this process at a VPG that sleeps and is not known to need one, one VPG at a time and none soon after another. Undefined where it is
   * not the time for it.
   */
  async firstLook<T>(vpg: Sleeper, look: () => Promise<T>): Promise<T | undefined> {
    const startMillis = this.#clock.monotonicMillis()
    if (this.#isLooking || startMillis < this.#nextLookMillis) return undefined
    this.#isLooking = true
    return await this.inTurn(vpg, look, () => {
      const endMillis = this.#clock.monotonicMillis()
      this.#nextLookMillis = endMillis + Math.min(restMillisMax, restPerLook * (endMillis - startMillis))
      this.#isLooking = false
    })
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
