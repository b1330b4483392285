import { comparePositions, type Position, type PositionVector } from '../base/ids.ts'

/** Which cuts the records are sorted into. */
export interface Cuts {
  /** Records at or before it are passed over. */
  readonly from: PositionVector
  /** Ascending. A record belongs to the first that covers it, by its index; records beyond the last are passed over. */
  readonly vectors: readonly PositionVector[]
}

/** Finds the cut to which a record belongs. */
export class CutFinder {
  readonly #cuts: Cuts
  readonly #streams = new Map<number, readonly Position[]>()
  /** The answer for a range of sequences: most records belong to the cut of the one before. */
  #last:
    | {
        readonly stream: number
        readonly generation: number
        readonly afterSequence: number
        readonly throughSequence: number
        readonly cut: number | undefined
      }
    | undefined

  constructor(cuts: Cuts) {
    this.#cuts = cuts
  }

  /** The stream's positions: the start, then one a cut. A stream that a cut does not name has not moved since the one before. */
  #positionsOf(stream: number): readonly Position[] {
    const known = this.#streams.get(stream)
    if (known !== undefined) return known
    const positions: Position[] = []
    for (const vector of [this.#cuts.from, ...this.#cuts.vectors]) {
      const own = vector.find(entry => entry.stream === stream)
      positions.push(own ?? positions.at(-1) ?? ({ generation: 0, sequence: 0 } as Position))
    }
    this.#streams.set(stream, positions)
    return positions
  }

  /** The index of the first cut that covers the position; -1 before the start, undefined beyond the last. */
  find(stream: number, generation: number, sequence: number): number | undefined {
    const last = this.#last
    const asLast =
      last !== undefined &&
      last.stream === stream &&
      last.generation === generation &&
      last.afterSequence < sequence &&
      sequence <= last.throughSequence
    if (asLast) return last.cut
    const positions = this.#positionsOf(stream)
    const position = { generation, sequence } as Position
    let low = 0
    let high = positions.length
    while (low < high) {
      const middle = Math.floor((low + high) / 2)
      if (comparePositions(positions[middle]!, position) < 0) low = middle + 1
      else high = middle
    }
    const cut = low === positions.length ? undefined : low - 1
    const [before, at] = [positions[low - 1], positions[low]]
    this.#last = {
      stream,
      generation,
      cut,
      afterSequence: before?.generation === generation ? before.sequence : -1,
      throughSequence: at === undefined || at.generation > generation ? Infinity : at.sequence,
    }
    return cut
  }
}
