import { open } from 'node:fs/promises'
import { MiB } from '../base/units.ts'

const pieceSizeBytes = 4 * MiB

/** Where two files first differ, in bytes; undefined where they are equal to the last byte. */
export async function firstDifference(fileA: string, fileB: string): Promise<number | undefined> {
  const [a, b] = await Promise.all([open(fileA), open(fileB)])
  try {
    const sizes = await Promise.all([a.stat(), b.stat()])
    if (sizes[0].size !== sizes[1].size) return Math.min(sizes[0].size, sizes[1].size)
    const [pieceA, pieceB] = [Buffer.alloc(pieceSizeBytes), Buffer.alloc(pieceSizeBytes)]
    for (let at = 0; at < sizes[0].size; at += pieceSizeBytes) {
      const [readA, readB] = await Promise.all([
        a.read(pieceA, 0, pieceSizeBytes, at),
        b.read(pieceB, 0, pieceSizeBytes, at),
      ])
      const length = Math.min(readA.bytesRead, readB.bytesRead)
      if (pieceA.compare(pieceB, 0, length, 0, length) === 0) continue
      const index = pieceA.subarray(0, length).findIndex((byte, position) => byte !== pieceB[position])
      return at + index
    }
    return undefined
  } finally {
    await Promise.all([a.close(), b.close()])
  }
}
