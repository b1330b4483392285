import { assertNever } from '../base/assert.ts'

// How two threads pass a ring of buffers round: one fills them, the other writes them. They wait for each other on two counters, without
// an event loop on either side: a buffer filled is a buffer handed over.
//
//   filler:  fill, count it ──> filledCount ──> write, count it :writer        filledCount - writtenCount < ring, or the filler waits
//                 ^──────────── writtenCount <───────────┘
//
// The end is told in one word, endTold in the place of filledCount: of two words the writer could take one before it is told the other.
// Every look at what is shared is a step that the caller takes, so that a test may take those of both sides in any order.

/** Places in the shared Int32Array. */
export const filledCount = 0
export const writtenCount = 1
/** Both count from the moment on that filledCount is endTold, and no sooner. */
export const endWanted = 2
export const lastFilledCount = 3
export const sharedWordCount = 4

/** A filled count that says: no further buffer will be, see the two above. */
export const endTold = -1

/** A written count that says: no further buffer will be. */
export const writingEnded = -1

/** Values of endWanted. */
export const synced = 1
export const atOnce = 2
export type EndWanted = typeof synced | typeof atOnce

export type Step =
  | { readonly kind: 'load'; readonly place: number }
  /** Wakes who waits for the place. */
  | { readonly kind: 'store'; readonly place: number; readonly value: number }
  /** Until the place has another value than this one. */
  | { readonly kind: 'wait'; readonly place: number; readonly value: number }
  /** The writer's alone: the buffer that was filled as the one of this number, from 0, goes to the file. */
  | { readonly kind: 'write'; readonly index: number }

export type Steps<T> = Generator<Step, T, number>

/** Hands over the buffer that makes `filled` of them, then waits for room in the ring for the next. */
export function* handOver(filled: number, ringSize: number): Steps<'has-room' | 'ended'> {
  yield { kind: 'store', place: filledCount, value: filled }
  for (;;) {
    const written = yield { kind: 'load', place: writtenCount }
    if (written === writingEnded) return 'ended'
    if (filled - written < ringSize) return 'has-room'
    yield { kind: 'wait', place: writtenCount, value: written }
  }
}

/** After the last of `filled` buffers. */
export function* tellEnd(how: EndWanted, filled: number): Steps<void> {
  yield { kind: 'store', place: endWanted, value: how }
  yield { kind: 'store', place: lastFilledCount, value: filled }
  yield { kind: 'store', place: filledCount, value: endTold }
}

/** Writes what is handed over, until the end: on return, and with `synced`, all of it. */
export function* writeFilled(): Steps<EndWanted> {
  for (let written = 0; ;) {
    yield { kind: 'wait', place: filledCount, value: written }
    const told = yield { kind: 'load', place: filledCount }
    const isOver = told === endTold
    if (isOver && (yield { kind: 'load', place: endWanted }) === atOnce) return atOnce
    const filled = isOver ? yield { kind: 'load', place: lastFilledCount } : told
    while (written < filled) {
      yield { kind: 'write', index: written }
      yield { kind: 'store', place: writtenCount, value: ++written }
    }
    if (isOver) return synced
  }
}

/** After writeFilled, however that ended. */
export function* tellWritingEnded(): Steps<void> {
  yield { kind: 'store', place: writtenCount, value: writingEnded }
}

/** Takes the steps of one side in the thread that calls. */
export function take<T>(steps: Steps<T>, state: Int32Array, write: (index: number) => void): T {
  for (let next = steps.next(); ;) {
    if (next.done === true) return next.value
    next = steps.next(takeStep(next.value, state, write))
  }
}

function takeStep(step: Step, state: Int32Array, write: (index: number) => void): number {
  switch (step.kind) {
    case 'load':
      return Atomics.load(state, step.place)
    case 'store':
      Atomics.store(state, step.place, step.value)
      Atomics.notify(state, step.place)
      return step.value
    case 'wait':
      Atomics.wait(state, step.place, step.value)
      return step.value
    case 'write':
      write(step.index)
      return step.index
    default:
      return assertNever(step)
  }
}
