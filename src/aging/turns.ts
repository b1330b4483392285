import { setTimeout as delay } from 'node:timers/promises'
import { agingPacedShare, agingSliceMillis } from '../base/limits.ts'

/** Memory that two threads share: the main thread says by it whether aging has to stand back. */
export type PaceFlag = SharedArrayBuffer

export function newPaceFlag(): PaceFlag {
  return new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT)
}

/** True: acknowledgements are waiting for the processor or the disk, so aging takes a small share of both. */
export function setPaced(flag: PaceFlag, paced: boolean): void {
  Atomics.store(new Int32Array(flag), 0, paced ? 1 : 0)
}

/** Lets messages and other work in between two slices of long work. One for the thread: its slices are the thread's. */
export class Turns {
  readonly #flag: Int32Array | undefined
  #sliceEndMillis = 0
  #hurrying = 0

  constructor(flag?: PaceFlag) {
    this.#flag = flag === undefined ? undefined : new Int32Array(flag)
  }

  /**
   * Returns at once inside a slice; after it, when everything else that waits has had its turn and, where aging has to
   * stand back, when its share of the time allows another.
   */
  readonly yieldNow = async (): Promise<void> => {
    if (performance.now() < this.#sliceEndMillis) return
    if (this.#isPaced()) await delay(agingSliceMillis * (1 / agingPacedShare - 1))
    else await new Promise<void>(resolve => setImmediate(resolve))
    this.#sliceEndMillis = performance.now() + agingSliceMillis
  }

  /** While somebody waits for the work (an image to be opened), it does not stand back. */
  async hurry<T>(work: () => Promise<T>): Promise<T> {
    this.#hurrying++
    try {
      return await work()
    } finally {
      this.#hurrying--
    }
  }

  #isPaced(): boolean {
    return this.#hurrying === 0 && this.#flag !== undefined && Atomics.load(this.#flag, 0) === 1
  }
}
