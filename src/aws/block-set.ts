import { ebsBlockSizeBytes } from '../base/limits.ts'
import type { VolumeRange } from '../image/image.ts'
import { blocksPerWindow } from './windows.ts'

/** Blocks of one volume: a byte each, which is 2 MiB for a TiB. */
export class BlockSet {
  readonly #has: Uint8Array

  constructor(volumeSizeBytes: number) {
    this.#has = new Uint8Array(Math.ceil(volumeSizeBytes / ebsBlockSizeBytes))
  }

  add(index: number): void {
    this.#has[index] = 1 // past the volume's end: nothing that could be written
  }

  has(index: number): boolean {
    return this.#has[index] === 1
  }
}

/** Blocks of one window that are to be looked at, ascending. */
export interface WindowBlocks {
  readonly firstBlock: number
  readonly blocks: readonly number[]
}

/** Which blocks the ranges, which are ascending, touch: window by window, each block once. */
export async function* blocksByWindow(ranges: AsyncIterable<VolumeRange>): AsyncGenerator<WindowBlocks> {
  let window = -1
  let blocks: number[] = []
  let next = 0
  for await (const { startBytes, endBytes } of ranges) {
    const end = Math.ceil(endBytes / ebsBlockSizeBytes)
    for (let block = Math.max(next, Math.floor(startBytes / ebsBlockSizeBytes)); block < end; block++) {
      const own = Math.floor(block / blocksPerWindow)
      if (own !== window && blocks.length > 0) {
        yield { firstBlock: window * blocksPerWindow, blocks }
        blocks = []
      }
      window = own
      blocks.push(block)
    }
    next = Math.max(next, end)
  }
  if (blocks.length > 0) yield { firstBlock: window * blocksPerWindow, blocks }
}
