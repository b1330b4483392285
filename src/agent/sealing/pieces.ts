import { sealingPieceCountMax, sealingPieceSizeBytes } from '../../base/limits.ts'

/** Memory that a sealer can reach, in pieces of sealingPieceSizeBytes. */
export interface Pieces {
  /** How many more take() would give. */
  readonly leftCount: number
  /** Undefined where all are in use. Give it to give() when nobody reads or writes it any more. */
  take(): Buffer | undefined
  give(piece: Buffer): void
}

/**
 * Pieces that all threads of the process can reach. They are kept for ever: the garbage collector does not see how large shared memory is, and lets it
 * grow without bound where it is made and dropped.
 */
export class SharedPieces implements Pieces {
  readonly #free: Buffer[] = []
  #madeCount = 0

  get leftCount(): number {
    return this.#free.length + sealingPieceCountMax - this.#madeCount
  }

  take(): Buffer | undefined {
    const free = this.#free.pop()
    if (free !== undefined || this.#madeCount === sealingPieceCountMax) return free
    this.#madeCount++
    return Buffer.from(new SharedArrayBuffer(sealingPieceSizeBytes))
  }

  give(piece: Buffer): void {
    this.#free.push(piece)
  }
}
