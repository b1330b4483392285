import { createHash } from 'node:crypto'
import { hashSizeBytes } from '../../base/limits.ts'
import { KiB } from '../../base/units.ts'
import { isZero } from '../../codec/zeros.ts'
import type { HashReply, HashRequest } from '../../wire/wire.ts'

/** Of a delta synchronisation. */
export const hashBlockSizeBytes = 64 * KiB

const zeroHash = Buffer.alloc(hashSizeBytes)

/** As proto/README.md, section 7, says it. */
export function hashOf(block: Uint8Array): Buffer {
  return isZero(block) ? zeroHash : createHash('sha256').update(block).digest().subarray(0, hashSizeBytes)
}

/**
 * 'failed': the VRA cannot say, the blocks are to be sent. 'later': it cannot say now. 'lost': the session ended before it said anything.
 */
export type HashAnswer = { readonly hashes: Uint8Array } | 'failed' | 'later' | 'lost'

interface Question {
  readonly requestId: number
  readonly blockCount: number
  answer(answer: HashAnswer): void
}

/** Questions to the VRA about what it has, each with one answer, in order. */
export class HashQuestions {
  #send: ((request: HashRequest) => void) | undefined
  #lastRequestId = 0
  #open: Question[] = []

  /** The session that takes questions from now on; undefined for none. Those that were open are lost. */
  useSession(send: ((request: HashRequest) => void) | undefined): void {
    this.#send = send
    this.#lastRequestId = 0
    for (const question of this.#open.splice(0)) question.answer('lost')
  }

  ask(range: Pick<HashRequest, 'volume' | 'offsetBytes' | 'blockCount'>): Promise<HashAnswer> {
    const send = this.#send
    if (send === undefined) return Promise.resolve('lost')
    const requestId = ++this.#lastRequestId
    return new Promise(answer => {
      this.#open.push({ requestId, blockCount: range.blockCount, answer })
      send({ type: 'hash-request', requestId, blockSizeBytes: hashBlockSizeBytes, ...range })
    })
  }

  /** False where nobody asked for this, or it is of another size. */
  take({ requestId, hashes, failure, passing }: HashReply): boolean {
    const question = this.#open.shift()
    if (question?.requestId !== requestId) return false
    if (failure !== '') question.answer(passing ? 'later' : 'failed')
    else if (hashes.length !== question.blockCount * hashSizeBytes) return false
    else question.answer({ hashes })
    return true
  }
}
