import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import type { Ordinal } from '../base/ids.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'

const waitMillisMax = 30_000
const requestsMax = 64

interface Request {
  readonly deadlineMillis: number
  /** Which checkpoint answers it, once its marker has come. */
  ordinal: Ordinal | undefined
  readonly resolve: (checkpoint: Checkpoint) => void
  readonly reject: (failure: Failure) => void
}

/** Checkpoints that somebody at the VRA asked for and waits for. */
export class CheckpointRequests {
  readonly #clock: Clock
  readonly #open = new Map<number, Request>()
  /** From the clock, so that a marker which answers a request of a former process answers none of this one. */
  #nextId: number

  constructor(clock: Clock) {
    this.#clock = clock
    this.#nextId = clock.timestampMicros()
  }

  /** Resolves with the checkpoint that the agent makes for it. Fails TIMED_OUT after 30 s, PEER_LOST when the agent goes. */
  ask(send: (requestId: number) => void): Promise<Checkpoint> {
    return new Promise((resolve, reject) => {
      if (this.#open.size >= requestsMax) {
        reject(new Failure('BUSY', `${requestsMax} checkpoints are asked for already`))
        return
      }
      const id = this.#nextId++
      const deadlineMillis = this.#clock.monotonicMillis() + waitMillisMax
      this.#open.set(id, { deadlineMillis, ordinal: undefined, resolve, reject })
      send(id)
    })
  }

  /** A marker has come that names the request. */
  answered(requestId: number, ordinal: Ordinal): void {
    const request = this.#open.get(requestId)
    if (request !== undefined) request.ordinal = ordinal
  }

  complete(checkpoint: Checkpoint): void {
    for (const [id, request] of this.#open) {
      if (request.ordinal !== checkpoint.ordinal) continue
      this.#open.delete(id)
      request.resolve(checkpoint)
    }
  }

  /** Nobody will answer: the coordinator's session has ended. A marker that has come already may still complete. */
  lose(failure: Failure): void {
    this.#reject(request => request.ordinal === undefined, failure)
  }

  expire(): void {
    const now = this.#clock.monotonicMillis()
    const sentence = `no checkpoint within ${waitMillisMax / 1000} s`
    this.#reject(request => request.deadlineMillis <= now, new Failure('TIMED_OUT', sentence))
  }

  close(): void {
    this.#reject(() => true, new Failure('CLOSING', 'the VRA is shutting down, or the VPG was deleted'))
  }

  #reject(which: (request: Request) => boolean, failure: Failure): void {
    for (const [id, request] of this.#open) {
      if (!which(request)) continue
      this.#open.delete(id)
      request.reject(failure)
    }
  }
}
