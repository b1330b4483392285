// What may happen to a call, planned ahead: the next of a kind, or the n-th of all.

export type Fault =
  /** Answered with an error; nothing was done. */
  | {
      readonly kind: 'refuse'
      readonly status: number
      readonly code: string
      readonly message?: string
      readonly reason?: string
    }
  /** The connection breaks; nothing was done. */
  | { readonly kind: 'cut' }
  /** It is done, and the connection breaks before the answer. */
  | { readonly kind: 'lose-response' }
  /** No answer ever; nothing was done. */
  | { readonly kind: 'hang' }
  /** It is done, and there is no answer ever. */
  | { readonly kind: 'hang-after' }
  /** Flips a bit of the body that arrives, or that is sent. */
  | { readonly kind: 'corrupt' }

interface Planned {
  readonly matches: (operation: string, number: number) => boolean
  readonly fault: Fault
  left: number
}

export class Faults {
  #planned: Planned[] = []

  /** The next `times` calls of the operation meet the fault, after `skip` of them that do not. */
  next(operation: string, fault: Fault, times = 1, skip = 0): void {
    let skipped = 0
    const matches = (candidate: string): boolean => candidate === operation && skipped++ >= skip
    this.#planned.push({ matches, fault, left: times })
  }

  /** The call of this number, from 1, whatever it is, meets the fault. */
  at(number: number, fault: Fault): void {
    this.#planned.push({ matches: (_, candidate) => candidate === number, fault, left: 1 })
  }

  mend(): void {
    this.#planned = []
  }

  take(operation: string, number: number): Fault | undefined {
    const planned = this.#planned.find(candidate => candidate.left > 0 && candidate.matches(operation, number))
    if (planned === undefined) return undefined
    planned.left--
    return planned.fault
  }
}
