import type { Clock } from '../../base/clock.ts'
import { Bell } from '../bell.ts'

/** Lets bytes through at a rate that may be changed at any time: each taker waits until those before it are paid for. */
export class RateLimit {
  readonly #clock: Clock
  readonly #changed: Bell
  #rateBytesPerSecond = 0
  #version = 0
  #freeAtMillis = 0

  constructor(clock: Clock) {
    this.#clock = clock
    this.#changed = new Bell(clock)
  }

  /** 0 for no limit. Who waits now waits by the new rate. */
  set(rateBytesPerSecond: number): void {
    if (rateBytesPerSecond === this.#rateBytesPerSecond) return
    this.#rateBytesPerSecond = rateBytesPerSecond
    this.#freeAtMillis = this.#clock.monotonicMillis()
    this.#version++
    this.#changed.ring()
  }

  /** Returns when so many bytes may be read. */
  async take(bytes: number): Promise<void> {
    while (this.#rateBytesPerSecond > 0) {
      const now = this.#clock.monotonicMillis()
      const startMillis = Math.max(now, this.#freeAtMillis)
      this.#freeAtMillis = startMillis + (bytes * 1000) / this.#rateBytesPerSecond
      if (startMillis === now) return
      const version = this.#version
      await this.#changed.wait(startMillis - now)
      if (version === this.#version) return
    }
  }
}
