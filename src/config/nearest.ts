/** The known word that `word` most likely means, or undefined when none is near enough to be meant. */
export function nearestWord(word: string, known: readonly string[]): string | undefined {
  const wanted = word.toLowerCase()
  const ranked = known
    .map(candidate => ({ candidate, distance: editDistance(wanted, candidate.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance)
  const best = ranked[0]
  if (best === undefined) return undefined
  const near = best.distance <= Math.max(2, Math.ceil(wanted.length / 3))
  if (near) return best.candidate
  // A key without its unit: "logSize" for "logSizeBytesMax", "foldSizeMin" for "foldSizeBytesMin".
  return wanted.length >= 4 ? known.find(candidate => isSubsequence(wanted, candidate.toLowerCase())) : undefined
}

function isSubsequence(part: string, whole: string): boolean {
  let found = 0
  for (const letter of whole) if (letter === part[found]) found++
  return found === part.length
}

/** How many single letters must be put, dropped, changed or swapped with their neighbour to make b of a. */
export function editDistance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, column) => column)]
  const at = (row: number, column: number): number => rows[row]?.[column] ?? Infinity
  for (let row = 1; row <= a.length; row++) {
    const current = [row]
    rows.push(current)
    for (let column = 1; column <= b.length; column++) {
      const same = a[row - 1] === b[column - 1]
      const swapped = row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1]
      current[column] = Math.min(
        at(row - 1, column) + 1,
        (current[column - 1] ?? Infinity) + 1,
        at(row - 1, column - 1) + (same ? 0 : 1),
        swapped ? at(row - 2, column - 2) + 1 : Infinity,
      )
    }
  }
  return at(a.length, b.length)
}
