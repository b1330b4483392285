import { onAbort } from '../../src/base/abort.ts'
import type { Clock } from '../../src/base/clock.ts'

/** A clock that stands still until it is told to move; sleepers wake when it passes them. */
export class ManualClock implements Clock {
  #nowMillis = 0
  readonly startMicros = 1_790_000_000_000_000
  #sleepers: { wakeMillis: number; wake: () => void }[] = []

  timestampMicros(): number {
    return this.startMicros + Math.round(this.#nowMillis * 1000)
  }

  monotonicMillis(): number {
    return this.#nowMillis
  }

  sleep(delayMillis: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const stop = (): void => {
        this.#sleepers = this.#sleepers.filter(other => other !== sleeper)
        reject(new DOMException('aborted', 'AbortError'))
      }
      const wake = (): void => {
        forget()
        resolve()
      }
      const sleeper = { wakeMillis: this.#nowMillis + delayMillis, wake }
      this.#sleepers.push(sleeper)
      let forget = (): void => undefined
      if (signal.aborted) stop()
      else forget = onAbort(signal, stop)
    })
  }

  after(delayMillis: number, call: () => void): () => void {
    const sleeper = { wakeMillis: this.#nowMillis + delayMillis, wake: call }
    this.#sleepers.push(sleeper)
    return () => {
      this.#sleepers = this.#sleepers.filter(other => other !== sleeper)
    }
  }

  /** Moves on in steps that no sleeper's next sleep is missed by. */
  async advance(byMillis: number): Promise<void> {
    const endMillis = this.#nowMillis + byMillis
    for (;;) {
      const nextMillis = Math.min(...this.#sleepers.map(({ wakeMillis }) => wakeMillis))
      if (nextMillis > endMillis) break
      await this.#wakeAt(Math.max(this.#nowMillis, nextMillis))
    }
    this.#nowMillis = endMillis
  }

  /** Moves on at once, as for a program that was suspended. */
  async jump(byMillis: number): Promise<void> {
    await this.#wakeAt(this.#nowMillis + byMillis)
  }

  async #wakeAt(nowMillis: number): Promise<void> {
    this.#nowMillis = nowMillis
    const due = this.#sleepers.filter(({ wakeMillis }) => wakeMillis <= nowMillis)
    this.#sleepers = this.#sleepers.filter(({ wakeMillis }) => wakeMillis > nowMillis)
    for (const { wake } of due) wake()
    await new Promise(resolve => setImmediate(resolve))
  }
}
