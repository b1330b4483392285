import { ebsBlockSizeBytes, ebsWindowCount, ebsWindowSizeBytes } from '../base/limits.ts'

// The memory that blocks lie in between an image and EBS: a few windows, each a stretch of one volume. It is shared with the threads that put.
//
//   | window 0: 64 blocks | window 1 | window 2 | window 3 |

export const blocksPerWindow = ebsWindowSizeBytes / ebsBlockSizeBytes

/** A window while it is somebody's. */
export interface Window {
  readonly bytes: Uint8Array
  /** Of its first block, in the memory. */
  readonly firstSlot: number
  release(): void
}

export class Windows {
  readonly memory = new SharedArrayBuffer(ebsWindowCount * ebsWindowSizeBytes)
  readonly #free = Array.from({ length: ebsWindowCount }, (_, index) => index)
  readonly #waiting: ((index: number) => void)[] = []

  /** Waits until one is free. Nothing in it is zeros, or anything else. */
  async take(): Promise<Window> {
    const index = this.#free.pop() ?? (await new Promise<number>(resolve => this.#waiting.push(resolve)))
    let isHeld = true
    return {
      bytes: new Uint8Array(this.memory, index * ebsWindowSizeBytes, ebsWindowSizeBytes),
      firstSlot: index * blocksPerWindow,
      release: () => {
        if (!isHeld) return
        isHeld = false
        const next = this.#waiting.shift()
        if (next === undefined) this.#free.push(index)
        else next(index)
      },
    }
  }
}

/** The bytes of a block of the memory. */
export function blockAt(memory: ArrayBufferLike, slot: number): Uint8Array {
  return new Uint8Array(memory, slot * ebsBlockSizeBytes, ebsBlockSizeBytes)
}
