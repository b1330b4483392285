import type { Clock } from '../base/clock.ts'

/** Wakes everybody who waits for it. */
export class Bell {
  readonly #clock: Clock
  #waiting: (() => void)[] = []

  constructor(clock: Clock) {
    this.#clock = clock
  }

  ring(): void {
    for (const wake of this.#waiting.splice(0)) wake()
  }

  /** Resolves at the next ring, or after the delay. */
  wait(delayMillis: number): Promise<void> {
    return new Promise(resolve => {
      const wake = (): void => {
        takeBack()
        resolve()
      }
      const takeBack = this.#clock.after(delayMillis, () => {
        this.#waiting = this.#waiting.filter(each => each !== wake)
        resolve()
      })
      this.#waiting.push(wake)
    })
  }
}
