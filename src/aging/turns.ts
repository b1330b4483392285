import { agingSliceMillis } from '../base/limits.ts'

/** Lets messages and other work in between two slices of long work. One for the thread: its slices are the thread's. */
export class Turns {
  #sliceEndMillis = 0

  /** Returns at once inside a slice; after it, when everything else that waits has had its turn. */
  readonly yieldNow = async (): Promise<void> => {
    if (performance.now() < this.#sliceEndMillis) return
    await new Promise<void>(resolve => setImmediate(resolve))
    this.#sliceEndMillis = performance.now() + agingSliceMillis
  }
}
