import { Failure, failedWith } from '../base/failure.ts'
import { errorNameOf } from './failures.ts'

// What AWS refused at every try was never made, so that an undo need not wait for what may be listed late. That is known only of a creation of which each
// try, of whatever process, was answered: one try that was not (a lost answer, a 5xx, a throttle, a process that died) may have made it, whatever the next is told.

/** What is remembered of a creation of which there is no id. */
export type FormerTries = 'none' | 'refused' | 'doubtful'

export interface CreationNotes {
  /** As it is remembered now. */
  readonly former: FormerTries
  /** Durable on return: there may be tries whose end nobody knows. */
  readonly begun: () => Promise<void>
  /** Durable on return: nothing was made. */
  readonly refused: () => Promise<void>
}

/** Tries of one creation. */
export class Tries {
  /**
   * Aborted when nobody waits for an answer any more. That something else has failed is no reason: an answer comes soon, and one that nobody heard has the
   * undo wait.
   */
  readonly answerSignal: AbortSignal
  #mayBeMade = false

  constructor(answerSignal: AbortSignal) {
    this.answerSignal = answerSignal
  }

  /** False: each of them was refused. */
  get mayBeMade(): boolean {
    return this.#mayBeMade
  }

  async make<T>(send: (answerSignal: AbortSignal) => Promise<T>): Promise<T> {
    let isRefused = false
    try {
      return await send(this.answerSignal)
    } catch (error) {
      isRefused = !this.answerSignal.aborted && provesNothingMade(error) // aborted, it fails with the reason
      throw error
    } finally {
      if (!isRefused) this.#mayBeMade = true
    }
  }
}

/** What is asked for; fails as `ask` does. Remembered before it asks, and where nothing can have come of it, after. */
export async function create<T>(
  notes: CreationNotes,
  answerSignal: AbortSignal,
  ask: (tries: Tries) => Promise<T>,
): Promise<T> {
  await notes.begun()
  const tries = new Tries(answerSignal)
  try {
    return await ask(tries)
  } catch (error) {
    if (notes.former !== 'doubtful' && !tries.mayBeMade) await notes.refused()
    throw error
  }
}

export function formerTries(isBegun: boolean, isRefused: boolean | undefined): FormerTries {
  if (!isBegun) return 'none'
  return isRefused === true ? 'refused' : 'doubtful'
}

/** They say that something of this token, or this name, was made by a try before. */
const madeNames = new Set([
  'ConflictException',
  'IdempotentInstanceTerminated',
  'IdempotentParameterMismatch',
  'InvalidAMIName.Duplicate',
])

/** An answer of AWS's own, below 500, and no "later" (a throttle, a lack of machines): the request was looked at, and not carried out. */
export function provesNothingMade(error: unknown): boolean {
  if (!failedWith(error, 'CLOUD_REFUSED') && !failedWith(error, 'NOT_FOUND')) return false
  const { details } = error as Failure
  const httpStatus = Number(details['httpStatus'] ?? 0)
  const name = errorNameOf(error)
  return httpStatus >= 400 && httpStatus < 500 && /^[A-Z]/.test(name) && !isFromElsewhere(name) && !madeNames.has(name)
}

/** What stands between may answer for AWS: the SDK has names of its own for what it cannot read. */
function isFromElsewhere(name: string): boolean {
  return /^(Unknown|NotFound|\w*Error)$/.test(name)
}
