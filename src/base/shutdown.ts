/** Anything that owns something and gives it back. */
export interface Closable {
  close(): Promise<void>
}

/** The parts of a role in the order they were started; closing is that list backwards. */
export class Shutdown {
  readonly #parts: Closable[] = []

  own<T extends Closable>(part: T): T {
    this.#parts.push(part)
    return part
  }

  /** Owns parts that are being opened side by side, in their order. Rejects as the first that failed, when the others are owned. */
  async ownAll<T extends readonly Closable[]>(opening: { readonly [K in keyof T]: Promise<T[K]> }): Promise<T> {
    const settled = await Promise.allSettled(opening)
    for (const outcome of settled) if (outcome.status === 'fulfilled') this.own(outcome.value)
    return (await Promise.all(opening)) as unknown as T
  }

  /** Closes every part, the last first, each after the one before it has closed; throws the first error at the end. */
  async closeAll(): Promise<void> {
    const errors: unknown[] = []
    for (let part = this.#parts.pop(); part !== undefined; part = this.#parts.pop()) {
      try {
        await part.close()
      } catch (error) {
        errors.push(error)
      }
    }
    if (errors.length > 0) throw errors[0]
  }
}
