import { Failure, type Reaction } from '../base/failure.ts'
import type { PositionVector, VpgId } from '../base/ids.ts'
import { hashRequestsOpenMax } from '../base/limits.ts'
import type { HashReply, HashRequest } from '../wire/messages.ts'
import type { VolumeSizes } from './stream-checks.ts'

/** Reads what the VRA has of a VPG, away from the thread that takes the streams. */
export interface BlockHashes {
  /**
   * Hashes of the VPG's volumes as of a moment after this call; `positions` says what is durable then. Returns at once; an image is opened for the
   * first question, and another where that was closed.
   */
  open(vpg: VpgId, positions: () => PositionVector): OpenHashes
}

export interface OpenHashes {
  /** The request's hashes, one behind the other. Rejects with a Failure where the blocks cannot be read. */
  hashesOf(request: HashRequest): Promise<Uint8Array>
  /** Gives back all that was held; questions under way are rejected. */
  close(): void
}

export interface HashAnswersOptions {
  readonly hashes: BlockHashes
  readonly vpg: VpgId
  /** Of the newest durable record of each stream: right is any of the present generation from where the agent has its last acknowledgement. */
  readonly positions: () => PositionVector
  readonly answer: (reply: HashReply) => void
}

/** The questions for hashes of one session, answered one after another in their order. */
export class HashAnswers {
  readonly #open: OpenHashes
  readonly #answer: (reply: HashReply) => void
  #lastRequestId = 0
  #openCount = 0
  #last: Promise<void> = Promise.resolve()
  #closed = false

  constructor({ hashes, vpg, positions, answer }: HashAnswersOptions) {
    this.#open = hashes.open(vpg, positions)
    this.#answer = answer
  }

  /** True when every question was answered. */
  get isIdle(): boolean {
    return this.#openCount === 0
  }

  /** Fails FRAME_INVALID, UNKNOWN_VOLUME, IDENTITY_REFUSED or OUT_OF_BOUNDS where the question may not be asked. */
  take(request: HashRequest, sizes: VolumeSizes): void {
    if (request.requestId <= this.#lastRequestId)
      throw new Failure('FRAME_INVALID', `the question ${request.requestId} is not above the one before it`)
    if (this.#openCount >= hashRequestsOpenMax)
      throw new Failure('FRAME_INVALID', `${hashRequestsOpenMax} questions for hashes are under way already`)
    checkRange(request, sizes)
    this.#lastRequestId = request.requestId
    this.#openCount++
    this.#last = this.#last.then(() => this.#reply(request))
  }

  close(): void {
    this.#closed = true
    this.#open.close()
  }

  async #reply(request: HashRequest): Promise<void> {
    const { requestId } = request
    const reply = await this.#hashesOf(request)
    this.#openCount--
    if (!this.#closed) this.#answer({ type: 'hash-reply', requestId, ...reply })
  }

  /** What cannot be read is a sentence: the agent asks again where that may help, and else sends the blocks. */
  async #hashesOf(request: HashRequest): Promise<Pick<HashReply, 'hashes' | 'failure' | 'passing'>> {
    if (this.#closed) return { hashes: nothing, failure: 'the session has ended', passing: true }
    try {
      return { hashes: await this.#open.hashesOf(request), failure: '', passing: false }
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      const passing = passingReactions.has(error.reaction)
      return { hashes: nothing, failure: error.message.slice(0, failureSizeCharactersMax), passing }
    }
  }
}

/** A log that is not read up to there yet, a store that does not answer, an image that was lost: not damage. */
const passingReactions: ReadonlySet<Reaction> = new Set<Reaction>(['retry', 'shed', 'missing', 'cancelled'])
const nothing = new Uint8Array(0)
const failureSizeCharactersMax = 1000

function checkRange({ volume, offsetBytes, blockSizeBytes, blockCount }: HashRequest, sizes: VolumeSizes): void {
  const sizeBytes = sizes[volume] ?? 0
  if (sizeBytes === 0) throw new Failure('UNKNOWN_VOLUME', `the VPG has no volume ${volume}`)
  if (sizeBytes < 0) throw new Failure('IDENTITY_REFUSED', `volume ${volume} is another agent's`)
  if (offsetBytes + (blockCount - 1) * blockSizeBytes < sizeBytes) return
  throw new Failure('OUT_OF_BOUNDS', `the blocks lie past the end of volume ${volume}`, {
    offsetBytes,
    blockSizeBytes,
    blockCount,
    volumeSizeBytes: sizeBytes,
  })
}
