import { assert } from '../base/assert.ts'
import { blocksPerMapSector, statesSizeBytes } from './overlay-format.ts'

// The state of every block of a disk, two bits each:
//
//   0  image   the image's, and nothing was written
//   1  data    the overlay's; its bytes stand in the data file
//   2  zero    zeros, and it takes no room
//   3  zero    zeros, and the data file has room for it (and old bytes there)
//
// So bit 0 says whether it takes room, bit 1 whether it reads as zeros. Memory is taken where blocks were touched, a chunk at a time.

const hasRoom = 0x55
const isZeroed = 0xaa

const sectorsPerChunk = 128
const chunkSizeBytes = sectorsPerChunk * statesSizeBytes
const blocksPerChunk = 4 * chunkSizeBytes
const untouched = new Uint8Array(statesSizeBytes)

/** Of a byte of four blocks: how many take room. */
const roomCounts = Uint8Array.from({ length: 256 }, (_, byte) => {
  const room = byte & hasRoom
  return (room & 1) + ((room >> 2) & 1) + ((room >> 4) & 1) + ((room >> 6) & 1)
})

export type BlockKind = 'image' | 'data' | 'zero'
const kinds: readonly BlockKind[] = ['image', 'data', 'zero', 'zero']

/** Consecutive blocks of one state, half-open. */
export interface BlockRun {
  readonly kind: BlockKind
  readonly takesRoom: boolean
  readonly firstBlock: number
  readonly endBlock: number
}

export class BlockMap {
  readonly blockCount: number
  readonly #chunks = new Map<number, Uint8Array>()
  readonly #onChange: (sectorNumber: number) => void
  /** Of blocks that take room in the data file. */
  roomCount = 0

  /** Tells the number of every sector of the map that a change touches. */
  constructor(blockCount: number, onChange: (sectorNumber: number) => void) {
    this.blockCount = blockCount
    this.#onChange = onChange
  }

  /** From the block on, at most up to `endBlock`. */
  runAt(firstBlock: number, endBlock: number): BlockRun {
    const state = this.#stateOf(firstBlock)
    const whole = state * hasRoom
    let block = firstBlock + 1
    while (block < endBlock) {
      const chunk = this.#chunks.get(Math.floor(block / blocksPerChunk))
      if (chunk === undefined) {
        if (state !== 0) break
        block = (Math.floor(block / blocksPerChunk) + 1) * blocksPerChunk
        continue
      }
      const within = block % blocksPerChunk
      if (within % 4 === 0 && chunk[within / 4] === whole) block += 4
      else if (this.#stateOf(block) === state) block++
      else break
    }
    return {
      kind: kinds[state]!,
      takesRoom: state % 2 === 1,
      firstBlock,
      endBlock: Math.min(block, endBlock),
    }
  }

  *runs(firstBlock: number, endBlock: number): Iterable<BlockRun> {
    for (let at = firstBlock; at < endBlock;) {
      const run = this.runAt(at, endBlock)
      yield run
      at = run.endBlock
    }
  }

  kindOf(block: number): BlockKind {
    return kinds[this.#stateOf(block)]!
  }

  /** How many of the blocks would take room that they do not take now. */
  countWithoutRoom(firstBlock: number, endBlock: number): number {
    let count = 0
    for (const { takesRoom, firstBlock: first, endBlock: end } of this.runs(firstBlock, endBlock))
      if (!takesRoom) count += end - first
    return count
  }

  setData(firstBlock: number, endBlock: number): void {
    this.#change(firstBlock, endBlock, () => hasRoom)
  }

  setZero(firstBlock: number, endBlock: number, room: 'as-it-is' | 'kept'): void {
    this.#change(firstBlock, endBlock, room === 'kept' ? () => 0xff : states => states | isZeroed)
  }

  /** The states of a sector, as they are now. */
  statesOf(sectorNumber: number): Uint8Array {
    const chunk = this.#chunks.get(Math.floor(sectorNumber / sectorsPerChunk))
    if (chunk === undefined) return untouched
    const at = (sectorNumber % sectorsPerChunk) * statesSizeBytes
    return chunk.subarray(at, at + statesSizeBytes)
  }

  /** Takes the states that were kept; of a map that has none of them yet. */
  load(sectorNumber: number, states: Uint8Array): void {
    this.#chunk(Math.floor(sectorNumber / sectorsPerChunk)).set(
      states,
      (sectorNumber % sectorsPerChunk) * statesSizeBytes,
    )
    for (const byte of states) this.roomCount += roomCounts[byte]!
  }

  #stateOf(block: number): number {
    const chunk = this.#chunks.get(Math.floor(block / blocksPerChunk))
    if (chunk === undefined) return 0
    const within = block % blocksPerChunk
    return (chunk[Math.floor(within / 4)]! >> (2 * (within % 4))) & 3
  }

  #chunk(number: number): Uint8Array {
    const known = this.#chunks.get(number)
    if (known !== undefined) return known
    const chunk = new Uint8Array(chunkSizeBytes)
    this.#chunks.set(number, chunk)
    return chunk
  }

  #change(firstBlock: number, endBlock: number, changed: (states: number) => number): void {
    assert(firstBlock >= 0 && endBlock <= this.blockCount, 'blocks of this disk')
    for (let block = firstBlock; block < endBlock;) {
      const sectorNumber = Math.floor(block / blocksPerMapSector)
      const end = Math.min(endBlock, (sectorNumber + 1) * blocksPerMapSector)
      const chunk = this.#chunk(Math.floor(sectorNumber / sectorsPerChunk))
      const base = (sectorNumber - (sectorNumber % sectorsPerChunk)) * blocksPerMapSector
      if (this.#changeInChunk(chunk, block - base, end - base, changed)) this.#onChange(sectorNumber)
      block = end
    }
  }

  #changeInChunk(chunk: Uint8Array, first: number, end: number, changed: (states: number) => number): boolean {
    let hasChanged = false
    for (let at = Math.floor(first / 4); 4 * at < end; at++) {
      const before = chunk[at]!
      const from = Math.max(0, first - 4 * at)
      const to = Math.min(4, end - 4 * at)
      const mask = (0xff << (2 * from)) & (0xff >> (2 * (4 - to)))
      const after = (before & ~mask & 0xff) | (changed(before) & mask)
      if (after === before) continue
      hasChanged = true
      chunk[at] = after
      this.roomCount += roomCounts[after]! - roomCounts[before]!
    }
    return hasChanged
  }
}
