import type { Clock } from '../base/clock.ts'

interface Seen {
  readonly ageMillis: number
  readonly atMillis: number
}

/**
 * How long ago things left, of a process whose wall clock may jump: what it says is asked once, when a time is met first, and never trusted to lie
 * in the future; from then on the monotonic clock counts. So a clock that jumps ahead ends no grace, and one that jumps back makes none endless.
 */
export class GarbageAges {
  readonly #clock: Clock
  #seen = new Map<number, Seen>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  ageMillis(leftAtMicros: number): number {
    const nowMillis = this.#clock.monotonicMillis()
    let seen = this.#seen.get(leftAtMicros)
    if (seen === undefined) {
      const ageMillis = Math.max(0, (this.#clock.timestampMicros() - leftAtMicros) / 1000)
      seen = { ageMillis, atMillis: nowMillis }
      this.#seen.set(leftAtMicros, seen)
    }
    return seen.ageMillis + nowMillis - seen.atMillis
  }

  /** Forgets the times that are not asked for any more. */
  keep(timesMicros: Iterable<number>): void {
    const kept = new Map<number, Seen>()
    for (const time of timesMicros) {
      const seen = this.#seen.get(time)
      if (seen !== undefined) kept.set(time, seen)
    }
    this.#seen = kept
  }
}
