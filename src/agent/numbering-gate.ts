import { assert } from '../base/assert.ts'

/**
 * Whether writes may be given numbers now. While it is held, what the disk has done already waits for its number, and so does the
 * answer to the guest; reads and everything without a number go on. Nothing between `isHeld` being false and the number: both in one
 * synchronous step.
 */
export interface NumberingGate {
  readonly isHeld: boolean
  /** Resolves when a hold ends. Another may be in force by then: look again. */
  whenReleased(): Promise<void>
}

/** Returns in the turn in which a number may be given. */
export async function passGate(gate: NumberingGate): Promise<void> {
  while (gate.isHeld) await gate.whenReleased()
}

/** The gate of one agent: of all its guests' writes, and of its sync blocks. */
export class NumberingHold implements NumberingGate {
  #isHeld = false
  #waiting: (() => void)[] = []

  get isHeld(): boolean {
    return this.#isHeld
  }

  whenReleased(): Promise<void> {
    return new Promise(resolve => this.#waiting.push(resolve))
  }

  /** From its return until release() nothing gets a number but the marker. */
  hold(): void {
    assert(!this.#isHeld, 'one hold at a time')
    this.#isHeld = true
  }

  /** Numbers go on, in a later step. */
  release(): void {
    this.#isHeld = false
    for (const go of this.#waiting.splice(0)) go()
  }
}
