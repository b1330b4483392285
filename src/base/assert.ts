/** Thrown where the program contradicts itself. It is never caught: the process ends, is restarted, and recovers. */
export class AssertionFailed extends Error {
  override readonly name = 'AssertionFailed'
}

/** States what must be true here; a false condition is a bug of ours, never bad input. */
export function assert(condition: boolean, what: string): asserts condition {
  if (!condition) throw new AssertionFailed(what)
}

/** Ends a `switch` over a union: compiling it proves that every member was considered. */
export function assertNever(value: never): never {
  throw new AssertionFailed(`unexpected value: ${JSON.stringify(value)}`)
}
