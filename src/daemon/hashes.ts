import type { Aging } from '../aging/aging.ts'
import { Failure, failedWith } from '../base/failure.ts'
import type { PositionVector, VpgId } from '../base/ids.ts'
import { hashImagesOpenMax } from '../base/limits.ts'
import { Permits } from '../base/permits.ts'
import type { BlockHashes, OpenHashes } from '../ingest/ingest.ts'
import type { HashRequest } from '../wire/messages.ts'
import type { Exports, ImageThread } from './exports.ts'

export interface HashesParts {
  readonly aging: Pick<Aging, 'openReading' | 'closeImage'>
  /** Open a moment later than agents are served. */
  readonly images: () => Pick<Exports, 'openThread'> | undefined
}

/** Answers agents that ask what the VRA has, from images in the thread that reads them; few at a time, for each takes memory. */
export class Hashes implements BlockHashes {
  readonly #parts: HashesParts
  readonly #permits = new Permits(hashImagesOpenMax)

  constructor(parts: HashesParts) {
    this.#parts = parts
  }

  open(vpg: VpgId, positions: PositionVector): OpenHashes {
    return new Reading(this.#parts, this.#permits, { vpg, positions })
  }
}

interface OpenImage {
  readonly id: string
  readonly thread: ImageThread
}

class Reading implements OpenHashes {
  readonly #parts: HashesParts
  readonly #permits: Permits
  readonly #of: { readonly vpg: VpgId; readonly positions: PositionVector }
  #closed = false
  /** Aborted when the present image is needed no more. */
  #over = new AbortController()
  #image: Promise<OpenImage> | undefined

  constructor(parts: HashesParts, permits: Permits, of: { readonly vpg: VpgId; readonly positions: PositionVector }) {
    this.#parts = parts
    this.#permits = permits
    this.#of = of
  }

  async hashesOf(request: HashRequest): Promise<Uint8Array> {
    const { volume, offsetBytes, blockSizeBytes, blockCount } = request
    this.#image ??= this.#openImage()
    try {
      const { id, thread } = await this.#image
      return await thread.client.call('hashBlocks', { id, volume, offsetBytes, blockSizeBytes, blockCount })
    } catch (error) {
      if (failedWith(error, 'OBJECT_CORRUPT') || failedWith(error, 'RECORD_CORRUPT')) throw error
      // Not these blocks but the image is lost, or was not opened: the next question opens another.
      this.#over.abort()
      this.#over = new AbortController()
      this.#image = undefined
      if (error instanceof Failure) throw error
      throw new Failure('PEER_LOST', `the blocks could not be read: ${String(error)}`, {}, { cause: error })
    }
  }

  close(): void {
    this.#closed = true
    this.#over.abort()
  }

  /** Resolves when the image is open; it holds its permit until close(), or until it could not be opened. */
  #openImage(): Promise<OpenImage> {
    return new Promise((resolve, reject) => {
      this.#permits.with(() => this.#whileOpen(resolve)).catch(reject)
    })
  }

  async #whileOpen(resolve: (image: OpenImage) => void): Promise<void> {
    const { aging, images } = this.#parts
    const { vpg, positions } = this.#of
    const { signal: over } = this.#over
    this.#refuseClosed()
    const thread = await images()?.openThread()
    if (thread === undefined) throw new Failure('BUSY', 'the daemon is starting')
    const plan = await aging.openReading({ vpg, positions })
    const id = plan.pinId
    try {
      await thread.client.call('openHashes', { id, plan })
      try {
        resolve({ id, thread })
        await aborted(over)
      } finally {
        await thread.client.call('closeHashes', { id }).catch(() => undefined) // the thread has ended: so has the image
      }
    } finally {
      await aging.closeImage({ vpg, pinId: id }).catch(() => undefined) // it was held in memory alone
    }
  }

  #refuseClosed(): void {
    if (this.#closed) throw new Failure('CLOSING', 'the session has ended')
  }
}

/** Returns when nobody needs the image any more. */
function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise(resolve => signal.addEventListener('abort', () => resolve(), { once: true }))
}
