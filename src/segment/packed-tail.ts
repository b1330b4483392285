import type { TailRecord } from './tail-source.ts'

/**
 * Records of the commit log, many of them, on their way between threads: `rowSize` numbers each. While a store is away hundreds of thousands wait in the log,
 * and as objects 400,000 held the thread that passes them on up for a second and a half: the one that acknowledges.
 */
export interface PackedTail {
  readonly count: number
  readonly rows: Float64Array
}

const rowSize = 7

export function packTail(records: readonly TailRecord[]): PackedTail {
  const rows = new Float64Array(records.length * rowSize)
  for (const [index, record] of records.entries()) {
    const { fileIdentity, offsetBytes, sizeBytes, stream, generation, firstSequence, lastSequence } = record
    rows.set([fileIdentity, offsetBytes, sizeBytes, stream, generation, firstSequence, lastSequence], index * rowSize)
  }
  return { count: records.length, rows }
}

/** In the order in which they were packed. */
export function unpackTail({ count, rows }: PackedTail): TailRecord[] {
  return Array.from({ length: count }, (_, index) => {
    const cell = (column: number): number => rows[index * rowSize + column] ?? 0
    return {
      fileIdentity: cell(0),
      offsetBytes: cell(1),
      sizeBytes: cell(2),
      stream: cell(3),
      generation: cell(4),
      firstSequence: cell(5),
      lastSequence: cell(6),
    }
  })
}
