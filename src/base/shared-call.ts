/** Asks once for all that ask meanwhile: each is answered by a call that began after it asked. */
export function sharedCall<T>(call: () => Promise<T>): () => Promise<T> {
  let last: Promise<unknown> = Promise.resolve()
  let next: Promise<T> | undefined
  const begin = (): Promise<T> => {
    next = undefined
    return call()
  }
  return () => {
    if (next === undefined) {
      next = last.then(begin, begin)
      last = next.catch(() => undefined)
    }
    return next
  }
}
