import { assert } from '../base/assert.ts'
import { isSystemError } from '../base/failure.ts'
import { coordinatorAwayMillisMax } from '../base/limits.ts'

/** A stream that takes part in checkpoints, ascending by number. */
export interface Member {
  readonly number: number
  readonly isConnected: boolean
}

/**
 * Which agent makes a VPG's checkpoints, and under which term. There is no election: the VRA names one, the lowest at first, and names
 * another when it has been away for a while and another is there. Agents obey the highest term that they have seen, so
 * a term is issued once: `issueTerm` remembers it durably before it is told to anybody. Where the disk does not let it (ENOSPC, EIO),
 * the old term stays, and the next review tries again: checkpoints wait, ingest does not. Where not even the first can be issued there is no
 * coordinator yet.
 */
export class Coordination {
  readonly #issueTerm: (above: number) => number
  #term = 0
  /** The highest that an agent has said. */
  #heardTerm = 0
  #stream: number | undefined
  #awaySinceMillis: number | undefined

  constructor(issueTerm: (above: number) => number) {
    this.#issueTerm = issueTerm
    this.#renew()
  }

  /** 0 where none could be issued yet. */
  get term(): number {
    return this.#term
  }

  /** An agent has heard of this term, and obeys none below: true where another had to be issued. */
  raiseAbove(term: number): boolean {
    this.#heardTerm = Math.max(this.#heardTerm, term)
    return this.#heardTerm > this.#term && this.#renew()
  }

  /** False where the disk does not keep a new term now. */
  #renew(): boolean {
    const above = Math.max(this.#term, this.#heardTerm)
    let term: number
    try {
      term = this.#issueTerm(above)
    } catch (error) {
      if (!isSystemError(error)) throw error
      return false
    }
    assert(term > above, 'terms rise')
    this.#term = term
    return true
  }

  /** True where there is a term, or the disk keeps a first one now. */
  obtainTerm(): boolean {
    return this.#term > 0 || this.#renew()
  }

  /** Undefined where nobody takes part. */
  get stream(): number | undefined {
    return this.#stream
  }

  /** Looks at who is there now; true when there is a new term, for the same coordinator or for another one. */
  review(members: readonly Member[], nowMillis: number): boolean {
    if (!this.obtainTerm()) return false
    if (this.#stream === undefined) {
      this.#stream = members[0]?.number
      return false
    }
    const isRaised = this.#heardTerm > this.#term && this.#renew()
    const chosen = members.find(member => member.number === this.#stream)
    if (chosen?.isConnected === true) {
      this.#awaySinceMillis = undefined
      return isRaised
    }
    this.#awaySinceMillis ??= nowMillis
    const isMissed = chosen === undefined || nowMillis - this.#awaySinceMillis >= coordinatorAwayMillisMax
    const successor = members.find(member => member.isConnected) ?? (chosen === undefined ? members[0] : undefined)
    if (!isMissed || successor === undefined || !this.#renew()) return isRaised
    this.#stream = successor.number
    this.#awaySinceMillis = undefined
    return true
  }
}
