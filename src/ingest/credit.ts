import { Failure } from '../base/failure.ts'
import { creditPerStreamBytesMax, creditPerStreamBytesMin, ingestPoolSizeBytes } from '../base/limits.ts'

/** How many bytes of frames one stream may have in flight while so many sessions are open: a fair share of the pool. */
export function creditWindowBytes(sessionCount: number): number {
  const share = Math.floor(ingestPoolSizeBytes / Math.max(1, sessionCount))
  return Math.min(creditPerStreamBytesMax, Math.max(creditPerStreamBytesMin, share))
}

/** The running totals of one session: what the peer was granted, has spent, and has back because it is durable. */
export class CreditAccount {
  #granted = 0
  #spent = 0
  #released = 0

  /** Raises the grant so that `windowBytes` may be in flight, and returns it. It never falls: what was said holds. */
  grant(windowBytes: number): number {
    this.#granted = Math.max(this.#granted, this.#released + windowBytes)
    return this.#granted
  }

  /** Fails CREDIT_EXCEEDED when the peer was not granted so much. */
  spend(frameSizeBytes: number): void {
    if (this.#spent + frameSizeBytes > this.#granted)
      throw new Failure('CREDIT_EXCEEDED', 'the frame is larger than the credit that is left', {
        frameSizeBytes,
        spentBytes: this.#spent,
        grantedBytes: this.#granted,
      })
    this.#spent += frameSizeBytes
  }

  release(frameSizeBytes: number): void {
    this.#released += frameSizeBytes
  }
}
