import { assert } from '../base/assert.ts'
import { coordinatorAwayMillisMax } from '../base/limits.ts'

/** A stream that takes part in checkpoints, ascending by number. */
export interface Member {
  readonly number: number
  readonly isConnected: boolean
}

/**
 * Which agent makes a VPG's checkpoints, and under which term. There is no election: the VRA names one, the lowest at first, and names
 * another when it has been away for a while and another is there. Agents obey the highest term that they have seen, so
 * a term is issued once: `issueTerm` remembers it durably before it is told to anybody.
 */
export class Coordination {
  readonly #issueTerm: (above: number) => number
  #term: number
  #stream: number | undefined
  #awaySinceMillis: number | undefined

  constructor(issueTerm: (above: number) => number) {
    this.#issueTerm = issueTerm
    this.#term = issueTerm(0)
  }

  get term(): number {
    return this.#term
  }

  /** An agent has heard of this term, and obeys none below: true where another had to be issued. */
  raiseAbove(term: number): boolean {
    if (term <= this.#term) return false
    this.#term = this.#issueTerm(term)
    assert(this.#term > term, 'terms rise')
    return true
  }

  /** Undefined where nobody takes part. */
  get stream(): number | undefined {
    return this.#stream
  }

  /** Looks at who is there now; true when the coordinator is another one than before, under a new term. */
  review(members: readonly Member[], nowMillis: number): boolean {
    if (this.#stream === undefined) {
      this.#stream = members[0]?.number
      return false
    }
    const chosen = members.find(member => member.number === this.#stream)
    if (chosen?.isConnected === true) {
      this.#awaySinceMillis = undefined
      return false
    }
    this.#awaySinceMillis ??= nowMillis
    const isMissed = chosen === undefined || nowMillis - this.#awaySinceMillis >= coordinatorAwayMillisMax
    const successor = members.find(member => member.isConnected) ?? (chosen === undefined ? members[0] : undefined)
    if (!isMissed || successor === undefined) return false
    const term = this.#issueTerm(this.#term)
    assert(term > this.#term, 'terms rise')
    this.#term = term
    this.#stream = successor.number
    this.#awaySinceMillis = undefined
    return true
  }
}
