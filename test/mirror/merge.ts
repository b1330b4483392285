import t from 'tap'
import { Merger } from '../../src/mirror/merge.ts'
import { seeded } from '../support/mirror-history.ts'

// Invariants: every sector shows, per group, the newest piece that covers it; fragments are sorted by start, then group, and none
// of one group overlaps another or adjoins one of the same piece.

interface Random {
  (below: number): number
}

function randomPieces(
  random: Random,
  grouped: boolean,
): { count: number; start: Uint32Array; length: Uint32Array; group: Uint16Array | undefined } {
  const count = 1 + random(60)
  const span = 1 + random(200)
  const longest = 1 + random(30)
  const start = new Uint32Array(count).map(() => random(span))
  const length = new Uint32Array(count).map(() => 1 + random(longest))
  return { count, start, length, group: grouped ? new Uint16Array(count).map(() => random(4)) : undefined }
}

t.test('of pieces that overlap in any way the newest of each group is seen, sector by sector', async t => {
  const merger = new Merger()
  for (let seed = 1; seed <= 3000; seed++) {
    const random = seeded(seed)
    const pieces = randomPieces(random, seed % 2 === 0)
    const groupOf = (piece: number): number => pieces.group?.[piece] ?? 0
    const expected = new Map<string, number>()
    for (let piece = 0; piece < pieces.count; piece++) {
      for (let at = 0; at < pieces.length[piece]!; at++)
        expected.set(`${pieces.start[piece]! + at}.${groupOf(piece)}`, piece)
    }
    const { count, piece, start, length } = merger.merge(pieces)
    const found = new Map<string, number>()
    let faults = 0
    for (let index = 0; index < count; index++) {
      const group = groupOf(piece[index]!)
      if (index > 0) {
        const ordered =
          start[index - 1]! < start[index]! || (start[index - 1] === start[index] && groupOf(piece[index - 1]!) < group)
        if (!ordered) faults++
      }
      for (let at = start[index]!; at < start[index]! + length[index]!; at++) {
        if (found.has(`${at}.${group}`)) faults++
        found.set(`${at}.${group}`, piece[index]!)
      }
    }
    const same = found.size === expected.size && [...expected].every(([place, newest]) => found.get(place) === newest)
    if (faults > 0 || !same) t.fail(`seed ${seed}`)
  }
  t.pass('seeds 1 to 3000')
})
