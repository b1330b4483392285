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

/** Nobody holds it: an agent that is alone in its VPG. */
export const openGate: NumberingGate = { isHeld: false, whenReleased: () => Promise.resolve() }

/** Returns in the turn in which a number may be given. */
export async function passGate(gate: NumberingGate): Promise<void> {
  while (gate.isHeld) await gate.whenReleased()
}
