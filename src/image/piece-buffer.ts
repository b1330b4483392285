import { assert } from '../base/assert.ts'
import { exportBufferSizeBytes, volumeSizeBytesMax } from '../base/limits.ts'
import { sectorSizeBytes } from '../base/units.ts'
import type { DiskFile } from '../disk/disk.ts'

// Pieces of a volume on their way to a file. They come in the order in which their sources lie, and leave by place: the file system
// then walks its trees from front to back, and pieces that touch become one write.
//
//   memory (it may be shared by two threads, of which one at a time uses it):
//   | offset, 8 bytes a piece | size, 4 bytes a piece | piece count, byte count | the pieces' bytes, one behind the other |

/** Full by its bytes where pieces are 512 bytes or more; no piece is less than a sector. */
const pieceCountMax = exportBufferSizeBytes / sectorSizeBytes
const sizesAtBytes = 8 * pieceCountMax
const countsAtBytes = sizesAtBytes + 4 * pieceCountMax
const bytesAtBytes = countsAtBytes + 8
assert((volumeSizeBytesMax / sectorSizeBytes) * pieceCountMax <= 2 ** 53, 'a place and a piece fit one exact number')

export const pieceBufferMemorySizeBytes = bytesAtBytes + exportBufferSizeBytes

export class PieceBuffer {
  readonly #offsetBytes: Float64Array
  readonly #sizeBytes: Uint32Array
  /** Pieces, bytes. */
  readonly #counts: Uint32Array
  readonly #bytes: Uint8Array

  constructor(memory: ArrayBufferLike) {
    this.#offsetBytes = new Float64Array(memory, 0, pieceCountMax)
    this.#sizeBytes = new Uint32Array(memory, sizesAtBytes, pieceCountMax)
    this.#counts = new Uint32Array(memory, countsAtBytes, 2)
    this.#bytes = new Uint8Array(memory, bytesAtBytes, exportBufferSizeBytes)
  }

  get isEmpty(): boolean {
    return this.#counts[0] === 0
  }

  /** Copies the piece, or as much of it as there is room for, and returns how many bytes that were: 0 when it is full. */
  add(offsetBytes: number, bytes: Uint8Array): number {
    const [count, used] = [this.#counts[0]!, this.#counts[1]!]
    const taken = Math.min(bytes.length, exportBufferSizeBytes - used)
    if (taken === 0) return 0
    const last = count - 1
    if (count > 0 && this.#offsetBytes[last]! + this.#sizeBytes[last]! === offsetBytes) {
      this.#sizeBytes[last]! += taken
    } else {
      if (count === pieceCountMax) return 0
      this.#offsetBytes[count] = offsetBytes
      this.#sizeBytes[count] = taken
      this.#counts[0] = count + 1
    }
    this.#bytes.set(taken === bytes.length ? bytes : bytes.subarray(0, taken), used)
    this.#counts[1] = used + taken
    return taken
  }

  /** Writes every piece, by place; those that touch at once. Then it is empty. */
  writeTo(file: DiskFile): void {
    const count = this.#counts[0]!
    const startBytes = new Uint32Array(count)
    const keys = new Float64Array(count)
    for (let piece = 0, at = 0; piece < count; piece++) {
      startBytes[piece] = at
      at += this.#sizeBytes[piece]!
      keys[piece] = (this.#offsetBytes[piece]! / sectorSizeBytes) * pieceCountMax + piece
    }
    keys.sort()
    let run: Uint8Array[] = []
    let runOffsetBytes = 0
    let runEndBytes = 0
    for (const key of keys) {
      const piece = key % pieceCountMax
      const offsetBytes = this.#offsetBytes[piece]!
      if (offsetBytes !== runEndBytes || run.length === 0) {
        if (run.length > 0) file.write(run, runOffsetBytes)
        run = []
        runOffsetBytes = offsetBytes
      }
      const at = startBytes[piece]!
      run.push(this.#bytes.subarray(at, at + this.#sizeBytes[piece]!))
      runEndBytes = offsetBytes + this.#sizeBytes[piece]!
    }
    if (run.length > 0) file.write(run, runOffsetBytes)
    this.#counts.fill(0)
  }
}
