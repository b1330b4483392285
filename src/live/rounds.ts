/** Work that covers all that was asked for before it begins: one round runs, and those who come meanwhile share the next. */
export class Rounds {
  readonly #work: () => Promise<void>
  #next: Promise<void> | undefined
  #last: Promise<void> = Promise.resolve()

  constructor(work: () => Promise<void>) {
    this.#work = work
  }

  /** Resolves when a round that began after the call has ended; rejects with what that one failed with. */
  join(): Promise<void> {
    if (this.#next !== undefined) return this.#next
    const round = this.#last.then(() => {
      this.#next = undefined
      return this.#work()
    })
    this.#next = round
    this.#last = round.catch(() => undefined)
    return round
  }
}
